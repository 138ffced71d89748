local err = require "worker.error"
local retry = require "worker.retry"
local task = require "worker.task"
local time = require "worker.time"

-- The delays of the first n attempts, without waiting for them.
local function delays(n, options)
  local list = {}
  for attempt in retry.attempts(options) do
    list[#list + 1] = attempt:delay() or "over"
    if #list == n then break end
  end
  return list
end

local function always(value)
  return function() return value end
end

local function seconds_of(fn)
  local began = time.mono()
  fn()
  return math.floor(time.mono() - began + 0.5)
end

local DOWN = err.new("transport", "connection refused", { reason = "connect" })

describe("worker.retry", function()
  it("tries until it works (the example of the reference)", function()
    local sent, tries = false, 0
    local function send()
      tries = tries + 1
      if tries < 3 then error(DOWN, 0) end
      sent = true
    end

    for attempt in retry.attempts { tries = 5 } do
      local ok, why = task.try(send)
      if ok then break end
      if not attempt:wait(why.retry_after) then error(why, 0) end
    end
    assert.is_true(sent)
  end)

  it("calls a function again while that makes sense", function()
    local tries = 0
    local a, b = retry.call(function(attempt)
      tries = tries + 1
      assert.equal(tries, attempt.number)
      if tries < 4 then error(DOWN, 0) end
      return "done", nil
    end, { tries = 5 })
    assert.equal("done", a)
    assert.is_nil(b)
    assert.equal(4, tries)
  end)
end)

describe("delays", function()
  it("double up to the longest", function()
    assert.same({ 1, 2, 4, 8, 10, 10 }, delays(6, { jitter = "none", most = 10 }))
    assert.same({ 0.5, 1.5, 4.5 }, delays(3, { jitter = "none", first = 0.5, factor = 3 }))
  end)

  it("grow by the same each time when linear", function()
    assert.same({ 2, 4, 6, 7 }, delays(4, { jitter = "none", shape = "linear", first = 2, most = 7 }))
  end)

  it("never overflow, however many there are", function()
    assert.equal(60, delays(5000, { jitter = "none" })[5000])
  end)

  it("are anything from nothing to the whole with full jitter", function()
    assert.same({ 0, 0, 0 }, delays(3, { random = always(0) }))
    assert.same({ 0.5, 1, 2 }, delays(3, { random = always(0.5) }))
    assert.same({ 0.25, 0.25, 2 }, delays(3, { random = (function()
      local values = { 0, 0, 0.5 }
      return function() return table.remove(values, 1) end
    end)(), least = 0.25 }))
  end)

  it("are spread over the whole range", function()
    local low, high = math.huge, 0
    for _ = 1, 300 do
      local delay = delays(1, { first = 8 })[1]
      assert.is_true(delay >= 0 and delay <= 8)
      low, high = math.min(low, delay), math.max(high, delay)
    end
    assert.is_true(low < 2 and high > 6)
  end)

  it("depend on the one before when decorrelated", function()
    assert.same({ 1, 1, 1 }, delays(3, { shape = "decorrelated", random = always(0) }))
    assert.same({ 3, 9, 20, 20 }, delays(4, { shape = "decorrelated", random = always(1), most = 20 }))
  end)

  it("are at least what the server asked for", function()
    local function first_delay(asked, options)
      return retry.attempts(options)():delay(asked)
    end
    assert.equal(30, first_delay(30, { jitter = "none" }))
    assert.equal(5, first_delay(0.1, { jitter = "none", first = 5 }))
    assert.equal(31, first_delay(30, { random = always(1) }))
    -- but nobody waits a year
    assert.equal(3600, first_delay(365 * 86400, { jitter = "none" }))
  end)

  it("refuse a shape and a jitter that do not exist", function()
    assert.has_error(function() retry.attempts { shape = "square" } end)
    assert.has_error(function() retry.attempts { jitter = "some" } end)
  end)
end)

describe("the end", function()
  it("comes after the last try, without a wait", function()
    local waits = {}
    local took = seconds_of(function()
      for attempt in retry.attempts { tries = 3, jitter = "none", first = 10 } do
        waits[#waits + 1] = attempt:wait()
      end
    end)
    assert.same({ true, true, false }, waits)
    assert.equal(30, took)
  end)

  it("comes when the time is up, after one attempt at its very end", function()
    local at = {}
    local began = time.mono()
    for attempt in retry.attempts { for_ = 10, jitter = "none", first = 4, factor = 1 } do
      at[#at + 1] = math.floor(time.mono() - began + 0.5)
      attempt:wait()
    end
    assert.same({ 0, 4, 8, 10 }, at)
  end)

  it("comes at once when the server asks for more patience than is left", function()
    for attempt in retry.attempts { for_ = 10 } do
      assert.is_false(attempt:wait(11))
    end
  end)

  it("is put off by reset()", function()
    local number = 0
    for attempt in retry.attempts { tries = 2, jitter = "none", first = 3 } do
      number = attempt.number
      if number == 4 then attempt:reset() end
      if number < 4 then attempt:reset() end
      assert.equal(number <= 4 and 3 or nil, attempt:delay())
    end
    assert.equal(5, number)
  end)

  it("is put off by an attempt that held for long", function()
    local seen = {}
    for attempt in retry.attempts { jitter = "none", reset_after = 60 } do
      if attempt.number == 3 then task.sleep(100) end
      seen[#seen + 1] = attempt:delay()
      if attempt.number == 5 then break end
    end
    assert.same({ 1, 2, 1, 2, 4 }, seen)
  end)

  it("never lets a loop spin that forgot to wait", function()
    local rounds = 0
    local took = seconds_of(function()
      for _ in retry.attempts { tries = 4, jitter = "none" } do rounds = rounds + 1 end
    end)
    assert.equal(4, rounds)
    assert.equal(1 + 2 + 4, took)
  end)
end)

describe("retry.classify", function()
  local function verdict(kind, fields)
    return retry.classify(err.new(kind, "x", fields))
  end

  it("says what may pass by itself", function()
    assert.equal("retry", verdict("transport", { reason = "timeout" }))
    assert.equal("retry", verdict("wire"))
    for _, status in ipairs { 408, 425, 429, 500, 502, 503, 504 } do
      assert.equal("retry", verdict("http", { status = status }))
    end
    for _, code in ipairs { 4, 8, 10, 14 } do assert.equal("retry", verdict("grpc", { code = code })) end
    assert.equal("retry", verdict("file", { name = "ENOSPC" }))
  end)

  it("tells refused credentials and a forgetful server apart from the rest", function()
    for _, status in ipairs { 401, 403, 407 } do assert.equal("denied", verdict("http", { status = status })) end
    for _, code in ipairs { 7, 16 } do assert.equal("denied", verdict("grpc", { code = code })) end
    assert.equal("gone", verdict("gone"))
  end)

  it("stops for what time does not heal", function()
    for _, status in ipairs { 400, 404, 409, 422, 501, 505 } do
      assert.equal("stop", verdict("http", { status = status }))
    end
    for _, kind in ipairs { "cancelled", "bug", "config", "spawn", "limit" } do
      assert.equal("stop", verdict(kind))
    end
    assert.equal("stop", verdict("transport", { reason = "too_big" }))
    assert.equal("stop", verdict("grpc", { code = 3 }))
    assert.equal("stop", verdict("grpc", { code = 8, reason = "too_big" }))
    assert.equal("stop", verdict("file", { name = "EACCES" }))
    assert.equal("stop", retry.classify("a plain string is a bug"))
    assert.equal("stop", retry.classify(nil))
  end)
end)

describe("retry.call", function()
  local function failing(with, options)
    local tries = 0
    local ok, why = pcall(retry.call, function()
      tries = tries + 1
      error(with, 0)
    end, options)
    assert.is_false(ok)
    assert.equal(with, why)
    return tries
  end

  it("raises the last error as it came", function()
    assert.equal(3, failing(DOWN, { tries = 3 }))
  end)

  it("raises at once what is not worth it", function()
    assert.equal(1, failing(err.new("http", "no", { status = 404 }), { tries = 3 }))
    assert.equal(1, failing("a bug", { tries = 3 }))
    assert.equal(1, failing(err.new("gone", "who?"), { tries = 3 }))
  end)

  it("repeats only what surely was not sent, when repeating does harm", function()
    local function of(sent)
      return failing(err.new("transport", "x", { sent = sent }), { tries = 3, idempotent = false })
    end
    assert.equal(3, of(false))
    assert.equal(1, of(true))
    assert.equal(1, of(nil))
    assert.equal(1, failing(err.new("http", "x", { status = 503 }), { tries = 3, idempotent = false }))
  end)

  it("waits as the server asks, and tells who listens", function()
    local heard, tries = {}, 0
    local took = seconds_of(function()
      retry.call(function()
        tries = tries + 1
        if tries < 3 then error(err.new("http", "busy", { status = 429, retry_after = 20 }), 0) end
      end, { jitter = "none", on_retry = function(why, attempt, seconds)
        heard[#heard + 1] = { why.status, attempt.number, seconds }
      end })
    end)
    assert.same({ { 429, 1, 20 }, { 429, 2, 20 } }, heard)
    assert.equal(40, took)
  end)

  it("is ended by a cancel, whether it waits or works", function()
    for _, work in ipairs { function() error(DOWN, 0) end, function() task.sleep(1e6) end } do
      local handle = task.start(function() retry.call(work, { jitter = "none" }) end)
      task.sleep(100)
      handle:cancel("enough")
      local ok, why = handle:join()
      assert.is_false(ok)
      assert.equal("cancelled", why.kind)
    end
  end)

  it("asks another judge when there is one", function()
    assert.equal(2, failing("odd", { tries = 2, classify = always("retry") }))
  end)
end)
