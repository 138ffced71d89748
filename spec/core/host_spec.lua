-- What bounds the one Lua state: time, memory, and where modules come from.
local lone = require "spec.support.lone"
local sys = require "worker.core.sys"
local task = require "worker.task"

-- Runs the text in a task of its own beside another one; prints how both ended.
local function beside(text)
  return lone.run(([[
    local ticks = 0
    local other = task.start(function() for _ = 1, 5 do task.sleep(0.01) ticks = ticks + 1 end end)
    local ok, why = task.start(function()
    %s
    end):join()
    other:join()
    print(ok, type(why) == "table" and why.kind, type(why) == "table" and why.runaway, ticks)
    io.stderr:write("ended: ", type(why) == "table" and why.message or tostring(why), "\n")
  ]]):format(text), { env = { WORKER_PATIENCE = "0.3" } })
end

describe("Lua that does not give way #realtime", function()
  local cases = {
    ["a loop"] = "while true do end",
    ["a loop of calls"] = "local function f() end while true do f() end",
    ["a recursion that never ends and never grows"] = "local function f() return f() end f()",
    ["a loop behind pcall"] = "pcall(function() while true do end end) while true do end",
    ["a loop in a coroutine"] = "coroutine.wrap(function() while true do end end)()",
    ["a loop in a coroutine of a coroutine"] =
      "coroutine.wrap(function() coroutine.wrap(function() while true do end end)() end)()",
    ["a loop over a coroutine"] =
      "local co = coroutine.wrap(function() while true do coroutine.yield() end end) while true do co() end",
    ["a loop in __index"] = "local _ = setmetatable({}, { __index = function() while true do end end }).x",
    ["a loop in __close"] =
      "local x <close> = setmetatable({}, { __close = function() while true do end end })",
    ["a loop in a comparator"] = "table.sort({ 1, 2, 3 }, function() while true do end end)",
    ["a loop in a replacement"] = '("x"):gsub("x", function() while true do end end)',
    ["a loop of long searches"] = 'local s = ("a"):rep(1 << 12) while true do s:find(".-b") end',
    ["a loop of long strings"] = 'while true do local _ = ("a"):rep(1 << 20) end',
  }
  for name, text in pairs(cases) do
    it("is stopped in " .. name .. ", and the others go on", function()
      local ended = beside(text)
      assert.equal("false\tlimit\ttrue\t5\n", ended.stdout, ended.stderr)
      assert.matches("boot%.lua:4: stopped after running for %d%.%d s without waiting", ended.stderr)
      assert.equal(0, ended.code)
    end)
  end

  it("is warned first, once, with its place", function()
    local ended = beside "while true do end"
    assert.equal(1, select(2, ended.stderr:gsub("has run for %d+ ms without waiting", "")), ended.stderr)
    assert.matches("boot%.lua:4: has run for", ended.stderr)
  end)

  it("has time again after each wait", function()
    local ended = lone.run([[
      local until_ = sys.mono() + 1.2
      while sys.mono() < until_ do
        local now = sys.mono()
        while sys.mono() < now + 0.1 do end
        task.sleep(0)
      end
      print "done"
    ]], { env = { WORKER_PATIENCE = "0.3" } })
    assert.equal("done\n", ended.stdout, ended.stderr)
    assert.not_matches("without waiting", ended.stderr)
  end)
end)

describe("memory", function()
  local MIB = 1 << 20

  it("of one task between two waits has a ceiling; the refusal says where", function()
    local handle = task.start(function() return #("x"):rep(100 * MIB) end)
    local ok, why = handle:join()
    assert.is_false(ok)
    assert.equal("limit", why.kind)
    assert.matches("host_spec%.lua:%d+: not enough memory", why.message)
  end)

  it("refused behind pcall leaves its place to be asked for, once", function()
    task.start(function()
      local ok, why = pcall(string.rep, "x", 100 * MIB)
      assert.is_false(ok)
      assert.equal("not enough memory", why)
      assert.matches("host_spec%.lua:%d+", sys.oom_where())
      assert.is_nil(sys.oom_where())
    end):join()
  end)

  it("of all tasks together has a ceiling, and what is let go can be had again", function()
    local ended = lone.run [[
      local function hoard() return ("x"):rep(1 << 10):rep(24 << 10) end
      local kept, refused = {}, 0
      for _ = 1, 12 do
        local ok, text = task.start(hoard):join()
        if ok then kept[#kept + 1] = text else refused = refused + 1 end
      end
      local now, peak = sys.memory()
      print(#kept >= 6, refused >= 2, now > 100 << 20, peak <= 256 << 20)
      kept = nil
      collectgarbage()
      print((task.start(hoard):join()))
    ]]
    assert.equal("true\ttrue\ttrue\ttrue\ntrue\n", ended.stdout, ended.stderr)
  end)

  it("counts what is let go within a wait", function()
    local handle = task.start(function()
      for _ = 1, 20 do
        local text = ("x"):rep(1 << 10):rep(16 << 10)
        assert(#text == 16 * MIB)
        text = nil -- luacheck: ignore text
        collectgarbage()
      end
      return "fine"
    end)
    assert.same({ true, "fine" }, { handle:join() })
  end)
end)

describe("modules", function()
  it("come from WORKER_LUA when it is set, and an error names the file", function()
    local ended = lone.run [[
      local f = io.open(dir .. "/worker/mine.lua", "w") f:write("\nreturn {") f:close()
      print(select(2, pcall(require, "worker.mine")))
      print(select(2, pcall(require, "worker.none")))
    ]]
    assert.matches("worker/mine%.lua:2:", ended.stdout)
    assert.matches("no file '[^\n]*/worker/none%.lua'", ended.stdout)
  end)

  it("come from the binary otherwise", function()
    local ok, why = pcall(require, "worker.no_such_module")
    assert.is_false(ok)
    assert.matches(sys.env "WORKER_LUA" and "no file" or "no module 'worker.no_such_module' in the binary", why)
  end)

  it("are never C libraries", function()
    assert.equal("", package.cpath)
    assert.equal(3, #package.searchers)
  end)
end)

describe("garbage", function()
  -- The collector counts it as alive until it has gone round once more.
  it("with finalizers is collected before it is too much", function()
    local meta, most = { __gc = function() end }, 0
    for _ = 1, 600 do
      for i = 1, 2000 do setmetatable({ ("x"):rep(100) .. i }, meta) end
      task.yield()
      most = math.max(most, (sys.memory()))
    end
    assert.is_true(most < 80 * 1024 * 1024, ("%d bytes"):format(most))
  end)
end)

describe("what is alive", function()
  it("is counted by kind and is back where it was at the end", function()
    local before = sys.live()
    local handle = task.start(task.sleep, 10)
    local signals = sys.signals { "USR1" }
    task.sleep(0)
    local during = sys.live()
    assert.equal(before.tasks + 1, during.tasks)
    assert.equal(before["loop.timers"] + 1, during["loop.timers"])
    handle:cancel()
    handle:join()
    signals:close()
    assert.equal(before.tasks, sys.live().tasks)
    assert.equal(before["loop.timers"], sys.live()["loop.timers"])
  end)
end)
