local err = require "worker.error"
local sys = require "worker.core.sys"
local task = require "worker.task"

describe("worker.task", function()
  it("tells how a task ended, also when its coroutine runs another one by then", function()
    local function count(...) return select("#", ...), ... end
    for _ = 1, 40 do
      local first = task.start(function() end)
      task.sleep(0)
      local failed = task.start(error, "why", 0)
      local second = task.start(function(word)
        task.sleep(0.01)
        return word
      end, "b")
      assert.same({ 1, true }, { count(first:join()) })
      assert.same({ 2, true, "b" }, { count(second:join()) })
      assert.same({ 1, true }, { count(first:join()) })
      local ok, why = failed:join()
      assert.is_false(ok)
      assert.equal("why", why.message)
    end
  end)

  it("sleeps without real time passing", function()
    local before = sys.mono()
    task.sleep(3600)
    assert.is_true(sys.mono() - before >= 3600)
  end)

  it("joins a task and gets its results", function()
    local handle = task.start(function(a, b) task.sleep(1) return a + b, "x" end, 2, 3)
    assert.same({ true, 5, "x" }, { handle:join() })
    assert.same({ true, 5, "x" }, { handle:join() })
    assert.equal("dead", handle:state())
  end)

  it("joins a task that failed and gets its error with a traceback", function()
    local ok, why = task.start(function() error("boom") end):join()
    assert.is_false(ok)
    assert.equal("bug", why.kind)
    assert.matches("boom", why.message)
    assert.matches("task_spec", why.traceback)
  end)

  it("raises the cancel where the task waits, with its reason, and lets <close> wait", function()
    local steps = {}
    local handle = task.start(function()
      local _ <close> = setmetatable({}, { __close = function()
        task.sleep(0.005)
        steps[#steps + 1] = "closed"
      end })
      local ok, why = pcall(task.sleep, 100)
      steps[#steps + 1] = why.kind .. ":" .. why.reason
      assert(ok, "on")
    end)
    task.sleep(1)
    handle:cancel("enough")
    local ok = handle:join()
    assert.is_false(ok)
    assert.same({ "cancelled:enough", "closed" }, steps)
  end)

  it("cancels a task that has not run yet at its first wait", function()
    local reached = false
    local handle = task.start(function() reached = true task.sleep(1) end)
    handle:cancel("early")
    local ok, why = handle:join()
    assert.is_false(ok)
    assert.equal("early", why.reason)
    assert.is_true(reached)
  end)

  it("delivers what a wait already got before it raises a cancel", function()
    local signal, got = task.signal(), nil
    local handle = task.start(function() got = signal:wait() task.sleep(1) end)
    task.sleep(0)
    signal:fire()
    handle:cancel("late")
    assert.is_false((handle:join()))
    assert.is_true(got)
  end)

  it("refuses to wait inside gsub, sort and a coroutine of one's own", function()
    local ok, why = pcall(string.gsub, "abc", "b", function() task.sleep(1) end)
    assert.is_false(ok)
    assert.matches("cannot do so inside gsub", tostring(why))
    ok, why = pcall(table.sort, { 3, 2, 1 }, function() task.sleep(1) end)
    assert.is_false(ok)
    assert.matches("gsub, sort", tostring(why))
    local co = coroutine.create(function() task.sleep(1) end)
    ok, why = coroutine.resume(co)
    assert.is_false(ok)
    assert.matches("coroutine of your own", tostring(why))
  end)

  it("ends what takes too long, and only that", function()
    assert.same({ false }, { task.within(5, task.sleep, 10) })
    assert.same({ true, 7 }, { task.within(10, function() task.sleep(5) return 7 end) })
  end)

  it("tells nested deadlines apart", function()
    local ok, inner = task.within(1, function() return task.within(10, task.sleep, 60) end)
    assert.is_false(ok)
    assert.is_nil(inner)
    ok, inner = task.within(10, function() return task.within(1, task.sleep, 60) end)
    assert.is_true(ok)
    assert.is_false(inner)
  end)

  it("passes an error through a deadline", function()
    local ok, why = pcall(task.within, 5, function() err.raise("wire", "odd") end)
    assert.is_false(ok)
    assert.equal("wire", why.kind)
  end)

  it("ends the children of a scope with the scope", function()
    local ended
    local value = task.scope(function(scope)
      scope:spawn(function()
        local _ <close> = setmetatable({}, { __close = function() ended = true end })
        task.sleep(1000)
      end)
      task.sleep(1)
      return "done"
    end)
    assert.equal("done", value)
    assert.is_true(ended)
  end)

  it("ends the children of a scope that are left, whoever came and went before", function()
    local ended = {}
    task.scope(function(scope)
      local function child(name, seconds)
        scope:spawn(function()
          local _ <close> = setmetatable({}, { __close = function() ended[#ended + 1] = name end })
          task.sleep(seconds)
        end)
      end
      for _, name in ipairs { "a", "b", "c" } do child(name, 1) end
      child("long", 1000)
      task.sleep(2)
      for _, name in ipairs { "d", "e", "f", "g" } do child(name, 1000) end
      child("brief", 1)
      task.sleep(2)
      assert.same({ "a", "b", "c", "brief" }, ended)
    end)
    table.sort(ended)
    assert.same({ "a", "b", "brief", "c", "d", "e", "f", "g", "long" }, ended)
  end)

  it("ends a scope with the error of a child", function()
    local ok, why = pcall(task.scope, function(scope)
      scope:spawn(function() task.sleep(1) err.raise("wire", "odd") end)
      task.sleep(1000)
    end)
    assert.is_false(ok)
    assert.equal("wire", why.kind)
  end)

  it("ends a scope's body when the scope is cancelled from a child", function()
    local ok, why = pcall(task.scope, function(scope)
      scope:spawn(function() task.sleep(1) scope:cancel("lost") end)
      task.sleep(1000)
    end)
    assert.is_false(ok)
    assert.equal("lost", why.reason)
  end)

  it("runs all of a list at once and keeps the order of the results", function()
    local before = sys.mono()
    local results = task.all {
      function() task.sleep(30) return "a" end,
      function() task.sleep(20) return "b" end,
    }
    assert.same({ "a", "b" }, results)
    assert.is_true(sys.mono() - before < 40)
  end)

  it("returns the first of a race and cancels the rest", function()
    local late = false
    local winner = task.race {
      function() task.sleep(2) return "fast" end,
      function() task.sleep(9) late = true end,
    }
    assert.equal("fast", winner)
    task.sleep(20)
    assert.is_false(late)
  end)

  it("hands values through a channel in order, with a ceiling", function()
    local channel, got = task.channel(2), {}
    task.scope(function(scope)
      scope:spawn(function()
        for i = 1, 10 do channel:put(i) assert(#channel <= 2) end
        channel:close()
      end)
      for value in function() return channel:get() end do
        task.sleep(0.1)
        got[#got + 1] = value
      end
    end)
    assert.same({ 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 }, got)
    assert.is_false(channel:put(1))
  end)

  it("gives up waiting for a channel when the time is up", function()
    assert.is_nil(task.channel(1):get(3))
  end)

  it("lets only so many hold a semaphore", function()
    local semaphore, now, most = task.semaphore(2), 0, 0
    task.scope(function(scope)
      for _ = 1, 6 do
        scope:spawn(function()
          local _ <close> = semaphore:take()
          now = now + 1
          most = math.max(most, now)
          task.sleep(1)
          now = now - 1
        end)
      end
      scope:wait()
    end)
    assert.equal(2, most)
    assert.equal(0, now)
  end)

  it("finishes what is shielded before it raises the cancel", function()
    local finished
    local handle = task.start(function()
      task.shield(function() task.sleep(5) finished = true end)
    end)
    task.sleep(1)
    handle:cancel("stop")
    local ok, why = handle:join()
    assert.is_false(ok)
    assert.equal("stop", why.reason)
    assert.is_true(finished)
  end)

  it("does not let try swallow a cancel", function()
    local handle = task.start(function() return task.try(task.sleep, 10) end)
    task.sleep(1)
    handle:cancel("stop")
    assert.is_false((handle:join()))
  end)

  it("keeps ten thousand sleeping tasks under 2 KiB each", function()
    collectgarbage()
    local before = sys.memory()
    local handles = {}
    for i = 1, 10000 do handles[i] = task.start(task.sleep, 1000) end
    task.sleep(1)
    collectgarbage()
    local each = (sys.memory() - before) / 10000
    for i = 1, 10000 do handles[i]:cancel() end
    for i = 1, 10000 do handles[i]:join() end
    assert.is_true(each < 2048, ("each costs %.0f bytes"):format(each))
  end)

  it("ends a task that computes for too long, and leaves the others alone #realtime", function()
    local others = 0
    local other = task.start(function() for _ = 1, 3 do task.sleep(0.01) others = others + 1 end end)
    local ok, why = task.start(function() while true do end end):join()
    assert.is_false(ok)
    assert.equal("limit", why.kind)
    assert.matches("task_spec.lua:%d+: stopped after running for", why.message)
    other:join()
    assert.equal(3, others)
  end)

  it("ends a task that wants too much memory and says where", function()
    local ok, why = task.start(function() return #string.rep("x", 1 << 30) end):join()
    assert.is_false(ok)
    assert.equal("limit", why.kind)
    assert.matches("task_spec.lua:%d+: not enough memory", why.message)
    ok, why = task.start(function()
      local hoard = {}
      while true do hoard[#hoard + 1] = ("y"):rep(100) .. #hoard end
    end):join()
    assert.is_false(ok)
    assert.equal("limit", why.kind)
  end)
end)
