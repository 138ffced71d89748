local plugin = require "spec.support.plugin"
local sys = require "worker.core.sys"
local task = require "worker.task"

describe("the policy drain", function()
  local function run(fields, seconds, drain_after)
    local draining = false
    local ctx = plugin.ctx { is_draining = function() return draining end }
    local ended
    ctx.cancel = function(reason) ended = { reason = reason, at = sys.mono() } end
    local before = sys.mono()
    local handle = task.start(function()
      if drain_after then
        task.sleep(drain_after)
        draining = true
        ctx.draining:fire(100)
      end
    end)
    local result = plugin.policy("drain", fields).run(function() task.sleep(seconds) return { state = "success" } end)({}, ctx)
    handle:join()
    return result, ended, ended and ended.at - before, ctx
  end

  it("leaves a job alone while nobody asks the worker to stop", function()
    local result, ended = run({ limit = 5 }, 1000)
    assert.equal("success", result.state)
    assert.is_nil(ended)
  end)

  it("ends a job some time after the worker was asked to stop, and says so in its log", function()
    local _, ended, at, ctx = run({ limit = 5 }, 1000, 10)
    assert.equal("the worker stops", ended.reason)
    assert.is_true(at >= 15 and at < 16)
    assert.matches("5s", ctx.said.worker)
  end)

  it("leaves one alone that is quick enough", function()
    local result, ended = run({ limit = 5 }, 14, 10)
    assert.equal("success", result.state)
    assert.is_nil(ended)
  end)

  it("does nothing without a limit of its own", function()
    local inner = function() end
    assert.is_nil((run({}, 1000, 10)).reason)
    assert.is_function(plugin.policy("drain").run(inner))
  end)
end)
