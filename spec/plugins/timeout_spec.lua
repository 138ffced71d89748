local plugin = require "spec.support.plugin"
local sys = require "worker.core.sys"
local task = require "worker.task"

describe("the policy timeout", function()
  local function run(fields, job, seconds)
    local cleaned
    local inner = function()
      local _ <close> = setmetatable({}, { __close = function() cleaned = true end })
      task.sleep(seconds)
      return { state = "success" }
    end
    local before = sys.mono()
    local result = plugin.policy("timeout", fields).run(inner)(job, plugin.ctx())
    assert.is_true(cleaned)
    return result, sys.mono() - before
  end

  it("leaves a job alone that is in time", function()
    assert.same({ state = "success" }, (run({ default = 10 }, {}, 9)))
  end)

  it("ends one that is not, and says after how long", function()
    local result, took = run({ default = "1h" }, {}, 4000)
    assert.same({ state = "timeout", reason = "ran longer than 1h" }, result)
    assert.is_true(took >= 3600 and took < 3601)
  end)

  it("takes the job's own time, but never more than is allowed", function()
    assert.equal("ran longer than 5s", run({ default = 10 }, { timeout = 5 }, 7).reason)
    assert.equal("success", run({ default = 10 }, { timeout = 50 }, 20).state)
    assert.equal("ran longer than 30s", run({ default = 10, most = 30 }, { timeout = 50 }, 40).reason)
    assert.equal("ran longer than 3s", run({ default = 10, most = 3 }, {}, 40).reason)
  end)

  it("lets a cancel from elsewhere through", function()
    local handle = task.start(function()
      return plugin.policy("timeout").run(function() task.sleep(100) end)({}, plugin.ctx())
    end)
    task.sleep(1)
    handle:cancel "enough"
    local ok, why = handle:join()
    assert.is_false(ok)
    assert.equal("cancelled", why.kind)
  end)
end)
