local err = require "worker.error"
local plugin = require "spec.support.plugin"
local task = require "worker.task"

describe("the policy backoff", function()
  -- Claims with these answers ("fail", nil, or a job); the waits before each of them.
  local function waits(fields, answers)
    local list, at = {}, 0
    local ctx = { pause = function(seconds) list[at + 1] = seconds return true end }
    local claim = plugin.policy("backoff", fields).claim(function()
      at = at + 1
      local answer = answers[at]
      if answer == "fail" then err.raise("transport", "no") end
      if type(answer) == "string" then err.raise("transport", "no", { pause = tonumber(answer) }) end
      if type(answer) == "number" then err.raise("http", "busy", { status = 429, retry_after = answer }) end
      return answer or nil
    end)
    for _ = 1, #answers do pcall(claim, ctx) end
    return list
  end

  local function is_between(least, value, most)
    assert.is_true(value >= least and value <= most, ("%s is not from %s to %s"):format(value, least, most))
  end

  it("does not wait at first, nor after a job", function()
    local list = waits({}, { { id = "a" }, { id = "b" }, { id = "c" } })
    assert.same({}, list)
  end)

  it("waits longer and longer while there is nothing, up to the most", function()
    local list = waits({ idle = 1, idle_most = 4 }, { false, false, false, false, false, false })
    assert.is_nil(list[1])
    is_between(0.5, list[2], 1)
    is_between(1, list[3], 2)
    is_between(2, list[4], 4)
    is_between(2, list[5], 4)
    is_between(2, list[6], 4)
  end)

  it("waits as long as the server asks, but not for ever", function()
    local list = waits({}, { 30, 1e12, false })
    assert.equal(30, list[2])
    assert.equal(600, list[3])
  end)

  it("begins anew when the kind of trouble changes, and forgets it after a job", function()
    local list = waits({ idle = 1, first = 10 }, { "fail", "fail", false, { id = "a" }, false, false })
    is_between(5, list[2], 10)
    is_between(10, list[3], 20)
    is_between(0.5, list[4], 1)
    is_between(0.5, list[6], 1)
    assert.is_nil(list[5])
  end)

  it("waits at least as long as the server asks", function()
    local list = waits({ first = 1, most = 2 }, { 30, false })
    is_between(30, list[2], 30)
  end)

  it("keeps the pace that a protocol names, exactly", function()
    assert.same({ nil, 5, 10, 600 }, waits({ first = 100, most = 300 }, { "5", "10", "600", false }))
  end)

  it("does not always wait equally long: a thousand workers must not come back together", function()
    local seen = {}
    for _ = 1, 50 do seen[waits({ idle = 8 }, { false, false })[2]] = true end
    assert.is_truthy(next(seen, next(seen)))
  end)

  it("claims nothing once the worker stops", function()
    local claims = 0
    local claim = plugin.policy("backoff").claim(function() claims = claims + 1 end)
    claim { pause = function() return true end }
    assert.is_nil(claim { pause = function() return false end })
    assert.equal(1, claims)
  end)

  it("counts claims that fail together as one", function()
    local claim = plugin.policy("backoff", { first = 1, most = 60 }).claim(function()
      task.sleep(1)
      err.raise("transport", "away")
    end)
    local function fails_at_once(count)
      local calls = {}
      for i = 1, count do calls[i] = function() pcall(claim, { pause = function() return true end }) end end
      task.all(calls)
    end
    fails_at_once(10)
    fails_at_once(10)
    local waited
    pcall(claim, { pause = function(seconds) waited = seconds end })
    assert.is_true(waited >= 1 and waited <= 2)
  end)

  it("waits as the server asked, whatever a claim brings that was under way then", function()
    local list, at = { 1, 2 }, 0
    local claim = plugin.policy("backoff").claim(function()
      at = at + 1
      task.sleep(list[at] or 1)
      if at == 2 and list[1] then
        list[1] = nil
        err.raise("http", "slow down", { status = 429, retry_after = 60 })
      end
      return { id = "a" }
    end)
    local waited
    local function try() pcall(claim, { pause = function(seconds) waited = seconds return true end }) end
    task.all { try, try }
    try()
    assert.is_true(waited >= 60)
  end)

  it("lets the error through", function()
    local ok, why = pcall(plugin.policy("backoff").claim(function() err.raise("gone", "who are you") end), {})
    assert.is_false(ok)
    assert.equal("gone", why.kind)
  end)
end)
