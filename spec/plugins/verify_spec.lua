-- verify: a second command decides whether a job has done what it should.
local registry = require "worker.registry"

describe("the policy verify", function()
  local plugin = assert(registry.open({ "plugins" }):get("policy", "verify"))

  -- What ran, and the result, when runs end in these states one after the other.
  local function run(job, states, conf)
    local ran, notes = {}, {}
    local call = plugin.run(conf or {}, function(one)
      ran[#ran + 1] = one
      return { state = states[#ran], exit_code = states[#ran] == "success" and 0 or 9, reason = "exit code 9" }
    end)
    local result = call(job, { note = function(line) notes[#notes + 1] = line end })
    return result, ran, notes
  end

  it("leaves a job alone that brings no command", function()
    local result, ran = run({ argv = { "a" } }, { "success" })
    assert.equal("success", result.state)
    assert.equal(1, #ran)
  end)

  it("runs the job's command in its place after it succeeded, and says so", function()
    local result, ran, notes = run({ argv = { "a" }, stdin = "x", cwd = "/d", verify = "make test" }, { "success", "success" })
    assert.equal(0, result.exit_code)
    assert.same({ script = "make test", cwd = "/d", verify = "make test" }, ran[2])
    assert.same({ "verification: make test" }, notes)
  end)

  it("makes the job fail when the command fails", function()
    local result = run({ argv = { "a" } }, { "success", "failed" }, { command = "make test" })
    assert.equal("failed", result.state)
    assert.equal("the verification failed: exit code 9", result.reason)
    assert.is_true(result.verify)
  end)

  it("verifies nothing after a job that failed", function()
    local result, ran = run({ argv = { "a" }, verify = "make test" }, { "failed" })
    assert.equal("exit code 9", result.reason)
    assert.equal(1, #ran)
  end)
end)
