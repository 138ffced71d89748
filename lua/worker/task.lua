-- task.lua: doing several things at once, in straight-line code.
--
-- A task is a coroutine of the core; whatever waits (sleep, a request, a child) parks only the task
-- that calls it.  Tasks belong to scopes: a scope ends when all its tasks have ended, and whoever
-- leaves it early takes them along, so nothing is ever left running by accident.
--
-- Cancelling raises an error of kind "cancelled" at the place where a task waits.  <close> variables
-- clean up and may wait themselves.
local core = require "worker.core.task"
local err = require "worker.error"
local guard = require "worker.core.guard"

local task = {}

task.sleep = core.sleep
task.yield = core.yield
task.self = core.self

--- `task.forgive()`: a cancel of the calling task that has not been raised yet is forgotten: what it
-- was meant for is over. Whether there was one.
task.forgive = core.forgive

--- `task.start(fn, ...)`: run fn in a task of its own, outside any scope; returns its handle, with
-- `handle:join() -> ok, results`, `handle:cancel(reason)`, `handle:state()`.
task.start = core.start

--- `task.signal()`: something to wait for: `signal:wait([seconds]) -> woken`, `signal:fire([n])`.
task.signal = core.signal

--- `task.try(fn, ...)`: call fn; true and its results, or false and the error object.  A cancel is
-- not an opinion to have: it passes through.
task.try = guard.try

--- `task.within(seconds, fn, ...)`: call fn; true and its results, or false when the time was up
-- (fn was cancelled then and has cleaned up).
task.within = core.within

--- `task.shield(fn, ...)`: run fn to its end even when the calling task is cancelled meanwhile; the
-- cancel is raised afterwards.  For short, bounded cleanup only.
function task.shield(fn, ...)
  local handle = core.start(fn, ...)
  local cancelled
  while true do
    local results = table.pack(pcall(handle.join, handle))
    if results[1] then
      if cancelled then error(cancelled, 0) end
      if not results[2] then error(results[3], 0) end
      return table.unpack(results, 3, results.n)
    end
    cancelled = results[2]
  end
end

-- Scopes -------------------------------------------------------------------------------------------

local scope_methods = {}
local scope_meta = { __index = scope_methods, __name = "worker.scope" }

-- What a task of a scope does when fn has returned.  Nothing here needs memory: a task that ended for
-- want of it must still be counted, or the scope would wait for ever.
local function leave(scope, place, ok, ...)
  scope.tasks[place], scope.free = scope.free, place
  scope.count = scope.count - 1
  if not ok and not (scope.closing and err.is((...), "cancelled")) then scope:fail((...)) end
  scope.ended:fire(1 << 30)
  if not ok then return false end
  return ...
end

local function in_scope(scope, place, fn, ...)
  return leave(scope, place, pcall(fn, ...))
end

--- `scope:spawn(fn, ...)`: run fn in a task of this scope.  When it fails, the whole scope ends with
-- its error.
function scope_methods:spawn(fn, ...)
  if self.closing then error("this scope is ending; nothing new starts in it", 2) end
  local place = self.free or #self.tasks + 1
  local handle = core.start(in_scope, self, place, fn, ...)
  self.free = self.tasks[place] or false
  self.tasks[place] = handle
  self.count = self.count + 1
  return handle
end

--- `scope:cancel(reason)`: end the scope: its body and its tasks are cancelled.
function scope_methods:cancel(reason)
  self:stop(reason)
  if self.body and self.body ~= core.self() then self.body:cancel(reason) end
end

-- Cancel the tasks, not the body.
function scope_methods:stop(reason)
  self.closing = true
  local caller = core.self()
  for _, handle in ipairs(self.tasks) do
    if type(handle) == "userdata" and handle ~= caller then handle:cancel(reason) end
  end
end

function scope_methods:fail(why)
  if self.failure == nil then
    self.failure = why
    self:cancel("another task of the scope failed")
  end
end

-- Wait until every task has ended; a cancel that comes meanwhile is kept for afterwards.
local function drain(scope)
  local cancelled
  while scope.count > 0 do
    local ok, why = pcall(scope.ended.wait, scope.ended)
    if not ok then
      cancelled = why
      scope:stop(err.is(why) and why.reason)
    end
  end
  return cancelled
end

--- `task.scope(fn)`: call fn(scope) and return what it returns.  When fn has returned or failed, the
-- scope's tasks are cancelled and waited for; `scope:wait()` inside fn waits for them instead.
function task.scope(fn)
  -- tasks: their handles, each in its place; a place that is free holds the number of the next such
  -- place, or false.
  local scope = setmetatable({
    tasks = {}, free = false, count = 0, ended = core.signal(), body = core.self(),
  }, scope_meta)
  local results = table.pack(pcall(fn, scope))
  scope.body = nil
  scope:stop("the scope has ended")
  local cancelled = drain(scope)
  local failure = scope.failure
  if not results[1] and not (failure ~= nil and err.is(results[2], "cancelled")) then
    failure = results[2]
  end
  if failure == nil then failure = cancelled end
  if failure ~= nil then error(failure, 0) end
  return table.unpack(results, 2, results.n)
end

--- `scope:wait()`: wait until the scope's tasks have ended by themselves.
function scope_methods:wait()
  while self.count > 0 do self.ended:wait() end
end

--- `task.all(list)`: run every function of the list at once; the list of their first results, when
-- all have returned.  The first error cancels the others.
function task.all(list)
  return task.scope(function(scope)
    local results = {}
    for i, fn in ipairs(list) do
      scope:spawn(function() results[i] = fn() end)
    end
    scope:wait()
    return results
  end)
end

--- `task.race(list)`: run every function of the list at once; the results of the first to return.
-- The others are cancelled.
function task.race(list)
  return task.scope(function(scope)
    local winner
    local won = core.signal()
    for _, fn in ipairs(list) do
      scope:spawn(function()
        local results = table.pack(fn())
        winner = winner or results
        won:fire()
      end)
    end
    while winner == nil do won:wait() end
    return table.unpack(winner, 1, winner.n)
  end)
end

-- Channels -----------------------------------------------------------------------------------------

local channel_methods = {}
local channel_meta = { __index = channel_methods, __name = "worker.channel" }

--- `task.channel(room)`: a queue between tasks that holds at most `room` values (default 1).
function task.channel(room)
  return setmetatable({
    room = room or 1, first = 1, last = 0, items = {},
    filled = core.signal(), emptied = core.signal(),
  }, channel_meta)
end

--- `channel:put(value)`: waits while the channel is full; false when it is closed.
function channel_methods:put(value)
  while not self.closed and self.last - self.first + 1 >= self.room do self.emptied:wait() end
  if self.closed then return false end
  self.last = self.last + 1
  self.items[self.last] = value
  self.filled:fire()
  return true
end

--- `channel:get([seconds])`: waits for a value; nil when the channel is closed and empty, or when
-- the time is up.
function channel_methods:get(seconds)
  while self.first > self.last do
    if self.closed or not self.filled:wait(seconds) and seconds then return nil end
  end
  local value = self.items[self.first]
  self.items[self.first] = nil
  self.first = self.first + 1
  self.emptied:fire()
  return value
end

--- `channel:close()`: nobody puts any more; what is in it can still be got.
function channel_methods:close()
  self.closed = true
  self.filled:fire(1 << 30)
  self.emptied:fire(1 << 30)
end

function channel_meta:__len() return self.last - self.first + 1 end

-- Semaphores ---------------------------------------------------------------------------------------

local semaphore_methods = {}
local semaphore_meta = { __index = semaphore_methods, __name = "worker.semaphore" }
local permit_meta = { __name = "worker.permit" }

--- `task.semaphore(n)`: at most n holders at once.
function task.semaphore(n)
  return setmetatable({ free = n, freed = core.signal() }, semaphore_meta)
end

function permit_meta:__close()
  if self.held then
    self.held = false
    self.semaphore.free = self.semaphore.free + 1
    self.semaphore.freed:fire()
  end
end
permit_meta.__index = { release = permit_meta.__close }

--- `semaphore:take()`: waits for a place: `local place <close> = semaphore:take()`.
function semaphore_methods:take()
  while self.free == 0 do self.freed:wait() end
  self.free = self.free - 1
  return setmetatable({ semaphore = self, held = true }, permit_meta)
end

return task
