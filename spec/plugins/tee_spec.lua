local plugin = require "spec.support.plugin"
local scratch = require "spec.support.scratch"

describe("the policy tee", function()
  local function run(fields, inner, id)
    local ctx = plugin.ctx()
    plugin.policy("tee", fields).run(function(_, c) return inner(c) end)({ id = id or "j1" }, ctx)
    return ctx
  end

  it("keeps each stream in a file of its own, and passes it on", function()
    local dir <close> = scratch.dir()
    local ctx = run({ dir = dir:path "kept" }, function(c)
      c.log("stdout", "one\n")
      c.log("stderr", "two\n")
      c.log("stdout", "three\n")
    end)
    assert.equal("one\nthree\n", dir:read "kept/j1/stdout.log")
    assert.equal("two\n", dir:read "kept/j1/stderr.log")
    assert.same({ stdout = "one\nthree\n", stderr = "two\n" }, ctx.said)
  end)

  it("does nothing without a directory", function()
    local ctx = run({}, function(c) c.log("stdout", "one\n") end)
    assert.same({ stdout = "one\n" }, ctx.said)
  end)

  it("gets what mask lets through", function()
    local dir <close> = scratch.dir()
    local mask = plugin.policy("mask", {})
    run({ dir = dir.root }, function(c)
      c.secrets = { "hunter2-hunter2" }
      mask.run(function(_, inner)
        inner.log("stdout", "it is hunter2-")
        inner.log("stdout", "hunter2\n")
        return { state = "success" }
      end)({ id = "j1" }, c)
    end)
    assert.equal("it is ***\n", dir:read "j1/stdout.log")
  end)

  it("keeps no more than it may, also when a job is run again", function()
    local dir <close> = scratch.dir()
    for _ = 1, 2 do
      run({ dir = dir.root, most = 10 }, function(c)
        for _ = 1, 5 do c.log("stdout", "12345678") end
      end)
    end
    assert.equal("1234567812\n... what follows was not kept: more than 10B\n", dir:read "j1/stdout.log")
  end)

  it("stays in its directory, whatever the id", function()
    local dir <close> = scratch.dir()
    for _, id in ipairs { "../../up", "..", "a/b" } do
      run({ dir = dir:path "in" }, function(c) c.log("stdout", "x") end, id)
    end
    assert.same({ "_.", "_._.._up", "a_b" }, require("worker.fs").list(dir:path "in"))
  end)

  it("lets the job go on when nothing can be kept any more", function()
    local dir <close> = scratch.dir()
    dir:write("j1/stdout.log/is a folder", "")
    local ctx = run({ dir = dir.root }, function(c)
      c.log("stdout", "one\n")
      c.log("stdout", "two\n")
    end)
    assert.same({ stdout = "one\ntwo\n" }, ctx.said)
  end)
end)
