-- The policy again around a run that fails a few times.
local plugin = require "spec.support.plugin"
local time = require "worker.time"

describe("the policy again", function()
  local ran

  -- Runs a job whose first attempts end like this.
  local function run(job, states, fields, ctx)
    ran = {}
    ctx = ctx or plugin.ctx()
    local result = plugin.policy("again", fields).run(function()
      ran[#ran + 1] = time.mono()
      return { state = states[#ran] or "success", reason = "no luck", rules = states.rules }
    end)(job, ctx)
    return result, ctx
  end

  it("runs a job once that does not ask for more", function()
    assert.equal("failed", run({ id = "1" }, { "failed" }).state)
    assert.equal(1, #ran)
    assert.equal("failed", run({ id = "1", retries = 0 }, { "failed" }).state)
    assert.equal(1, #ran)
  end)

  it("runs it again until it succeeds, with growing pauses, and says so", function()
    local result, ctx = run({ id = "1", retries = 3 }, { "failed", "error" })
    assert.equal("success", result.state)
    assert.equal(3, #ran)
    assert.is_true(ran[2] - ran[1] >= 1 and ran[3] - ran[2] >= 2)
    assert.equal("no luck; again in 1 s (1 of 3)\nno luck; again in 2 s (2 of 3)\n", ctx.said.worker)
  end)

  it("runs it no more often than it asks for, or than is allowed", function()
    assert.equal("failed", run({ id = "1", retries = 2 }, { "failed", "failed", "failed", "failed" }).state)
    assert.equal(3, #ran)
    run({ id = "1", retries = 50 }, { "failed", "failed", "failed" }, { most = 1 })
    assert.equal(2, #ran)
  end)

  it("leaves alone what another try would not change", function()
    for _, state in ipairs { "success", "cancelled", "timeout", "lost", "oom" } do
      run({ id = "1", retries = 3 }, { state })
      assert.equal(1, #ran)
    end
    run({ id = "1", retries = 3 }, { "error", rules = { "image.denied" } })
    assert.equal(1, #ran)
    run({ id = "1", retries = 3 }, { "failed" }, {}, plugin.ctx { is_draining = function() return true end })
    assert.equal(1, #ran)
  end)
end)
