local fs = require "worker.fs"
local plugin = require "spec.support.plugin"
local process = require "worker.process"
local scratch = require "spec.support.scratch"

describe("the policy workspace", function()
  local dir

  before_each(function() dir = scratch.dir() end)
  after_each(function() getmetatable(dir).__close(dir) end)

  local function run(fields, inner, job)
    local ctx = plugin.ctx { workspace = dir:path "work" }
    local ok, why = pcall(plugin.policy("workspace", fields).run(inner), job or { id = "a/b" }, ctx)
    return ctx.workdir, ok, why
  end

  it("is an empty directory of the job's own, gone afterwards", function()
    local seen
    local path, ok = run({}, function(_, ctx)
      seen = { fs.list(ctx.workdir), fs.stat(ctx.workdir).mode & 511 }
      fs.write(fs.join(ctx.workdir, "file"), "x")
      return { state = "success" }
    end)
    assert.is_true(ok)
    assert.same({ {}, 448 }, seen)
    assert.is_true(fs.is_within(path, dir:path "work"))
    assert.same({}, fs.list(dir:path "work"))
  end)

  it("is a plain name below its folder, whatever the job is called", function()
    for _, id in ipairs { "../../etc/x", "a b\n", ("x"):rep(500), ".", "-rf" } do
      local path = run({}, function() return {} end, { id = id })
      assert.matches("^job%-[%w._-]+$", fs.base(path))
      assert.equal(dir:path "work", fs.dir(fs.dir(path)))
    end
  end)

  it("is removed when the job fails, also with an error", function()
    local _, ok, why = run({}, function() error("broken", 0) end)
    assert.is_false(ok)
    assert.equal("broken", why)
    assert.same({}, fs.list(dir:path "work"))
  end)

  it("is removed also when full of directories nobody may write to", function()
    run({}, function(_, ctx)
      process.run { argv = { "sh", "-c", "mkdir -p a/b/c d; echo x > a/b/c/f; ln -s / out; chmod 555 a/b/c a/b a; chmod 0 d" },
        cwd = ctx.workdir, env = { PATH = "/usr/bin:/bin" } }
      return {}
    end)
    assert.same({}, fs.list(dir:path "work"))
    assert.is_true(fs.exists "/etc")
  end)

  it("stays when asked to, always or after a failure", function()
    assert.is_true(fs.exists((run({ keep = "always" }, function() return { state = "success" } end))))
    assert.is_true(fs.exists((run({ keep = "failed" }, function() return { state = "failed" } end))))
    assert.is_true(fs.exists((run({ keep = "failed" }, function() error("x", 0) end))))
    assert.is_false(fs.exists((run({ keep = "failed" }, function() return { state = "success" } end))))
  end)

  it("of a worker that is dead is removed, one that lives or was kept is not", function()
    local kept = run({ keep = "always" }, function() return {} end)
    dir:write("work/worker-jobs-dead/job-1/file", "x")
    dir:write("work/worker-jobs-dead/.lock", "")
    dir:write("work/worker-jobs-live/.lock", "")
    local lock = fs.lock(dir:path("work", "worker-jobs-live/.lock"))
    run({}, function() return {} end)
    assert.same({ fs.base(kept), "worker-jobs-live" }, (fs.list(dir:path "work")))
    lock:close()
  end)

  it("may be elsewhere", function()
    local path = run({ dir = dir:path "other" }, function() return {} end)
    assert.equal(dir:path "other", fs.dir(fs.dir(path)))
  end)
end)
