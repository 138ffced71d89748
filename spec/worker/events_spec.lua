local context = require "worker.context"
local events = require "worker.events"
local log = require "worker.log"
local outage = require "worker.outage"
local task = require "worker.task"

-- What is logged meanwhile, as "level event message".
local function logged(fn)
  local lines, kept = {}, {}
  for _, level in ipairs { "debug", "info", "warn", "error" } do
    kept[level] = log[level]
    log[level] = function(event, message) lines[#lines + 1] = ("%s %s %s"):format(level, event, message) end -- luacheck: ignore
  end
  local ok, why = pcall(fn)
  for level, original in pairs(kept) do log[level] = original end -- luacheck: ignore
  if not ok then error(why, 0) end
  return lines
end

describe("worker.events", function()
  it("tells every listener", function()
    local heard, all = {}, events.new()
    for i = 1, 2 do all:listen(function(name, facts) heard[#heard + 1] = name .. facts.n .. i end) end
    all:emit("a", { n = 1 })
    table.sort(heard)
    assert.same({ "a11", "a12" }, heard)
  end)

  it("tells who listens for some of them only those", function()
    local heard, all = {}, events.new()
    all:listen(function(name) heard[#heard + 1] = name end, { "a", "c" })
    for _, name in ipairs { "a", "b", "c" } do all:emit(name, {}) end
    assert.same({ "a", "c" }, heard)
  end)

  it("knows whether anybody wants to hear of it", function()
    local heard, all = {}, events.new()
    local function listener(name) heard[#heard + 1] = name end
    assert.is_nil(all.wanted.a)
    all:listen(function() end, { "a" })
    assert.is_true(all.wanted.a)
    assert.is_nil(all.wanted.b)
    all:listen(listener)
    assert.is_true(all.wanted.b)
    all:ignore(listener)
    all:ignore(listener)
    assert.is_nil(all.wanted.b)
    all:emit("b", {})
    assert.same({}, heard)
  end)

  it("takes a listener that fails off, once told; the others go on", function()
    local heard, all = 0, events.new()
    all:listen(function() heard = heard + 1 end)
    all:listen(function() error "broken" end)
    all:listen(function() heard = heard + 1 end)
    local lines = logged(function()
      all:emit("a", {})
      all:emit("b", {})
    end)
    assert.equal(4, heard)
    assert.equal(1, #lines)
    assert.matches("^error events%.listener .*broken", lines[1])
  end)
end)

describe("worker.outage", function()
  it("lets whoever hears of it tell it in other words", function()
    local heard = {}
    local lines = logged(function()
      local trouble = outage.new("server", "ci", function(name, facts)
        heard[#heard + 1] = name .. " " .. tostring(facts.error or facts.failures)
        return name == "server.failing"
      end)
      trouble:failed("no route", nil, nil, "claim")
      trouble:failed("no route", nil, nil, "claim")
      trouble:worked()
    end)
    assert.same({ "server.failing no route", "server.back 2" }, heard)
    assert.same({ "debug server.again ci: claim: no route", "info server.back ci works again after 0 s and 2 failures" }, lines)
  end)

  it("is told once when it begins and once when it ends", function()
    local trouble = outage.new("server", "ci")
    local first, second
    local lines = logged(function()
      trouble:worked()
      first = trouble:failed "connection refused"
      for _ = 1, 98 do second = trouble:failed "connection refused" end
      task.sleep(60)
      trouble:failed "timeout"
      trouble:worked()
      trouble:worked()
    end)
    assert.is_true(first)
    assert.is_false(second)
    local loud = {}
    for _, line in ipairs(lines) do
      if not line:find "^debug" then loud[#loud + 1] = line end
    end
    assert.equal(2, #loud)
    assert.matches("^warn server%.failing ci: connection refused", loud[1])
    assert.matches("^info server%.back ci works again after 60 s and 100 failures", loud[2])
  end)
end)

describe("worker.context", function()
  local function make(plugin, job)
    return context.new({ name = "ci", plugin = plugin or {}, draining = false, drain_signal = task.signal(),
      events = events.new() }, job or { id = "a" })
  end

  it("keeps head and tail of each stream for protocols that want output with the result", function()
    local ctx = make { output = 8 }
    ctx.log("stdout", "abcdefghijkl")
    ctx.log("stderr", "x")
    ctx.note "not the job's"
    local output = context.output(ctx)
    assert.matches("^abcd.*4 bytes.*ijkl$", output.stdout)
    assert.equal("x", output.stderr)
    assert.is_nil(output.worker)
    assert.is_nil(context.output(make {}))
  end)

  it("knows the last line of the output", function()
    local ctx = make()
    assert.is_nil(ctx:last_line())
    for text, line in pairs { ["a\nb\n"] = "b", ["a\r\n"] = "a", ["10%\r20%"] = "20%", ["x\n\n\n"] = "x" } do
      ctx.log("stdout", text)
      assert.equal(line, ctx:last_line())
    end
  end)

  it("refuses a line that is no text, where it is written", function()
    local ok, why = pcall(make().log, "stdout", {})
    assert.is_false(ok)
    assert.matches("ctx%.log: expected text, got a table", why)
  end)

  it("keeps the first reason for a cancel", function()
    local ctx = make()
    ctx.cancel "first"
    ctx.cancel "second"
    assert.equal("first", ctx.cancel_reason)
  end)
end)
