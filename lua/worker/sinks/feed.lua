-- sinks/feed.lua: one sink: a bounded queue, and the task that empties it.
--
-- Whoever emits an event only appends to the queue and never waits.  The task opens the plugin, hands
-- it what is there, and repeats what failed with growing pauses.  What cannot wait any longer, because
-- there is too much of it or it is too old, is dropped, the oldest first, counted, and told once per
-- outage.  A connection that has worked before may just have ended while nothing happened: it is
-- opened anew once before anybody hears of a failure.
local err = require "worker.error"
local events = require "worker.sinks.event"
local log = require "worker.log"
local outage = require "worker.outage"
local retry = require "worker.retry"
local sys = require "worker.core.sys"
local task = require "worker.task"
local time = require "worker.time"

local feed = {}

local BATCH = 64                  -- events between two flushes; one for who does not flush, so that none
                                  -- is repeated that has arrived
local BATCH_BYTES = 1024 * 1024   -- or fewer of them, if they are large
local BYTES_MOST = 16 * 1024 * 1024
local PATIENCE = 60               -- for one batch
local BUG_PAUSE = 1
local CLOSE_PATIENCE = 5
local BACKOFF = { first = 0.5, factor = 2, most = 60 }

local methods = {}
local meta = { __index = methods, __name = "worker.feed" }

--- `feed.new(sink, emit)`: sink: { name=, plugin=, conf=, only=, queue=, keep=, output= }; emit(name, facts)
-- hears of sink.delivered and sink.dropped (count), sink.failing and sink.back.
function feed.new(sink, emit)
  local only
  for _, name in ipairs(sink.only or {}) do
    only = only or {}
    only[name] = true
  end
  local self = setmetatable({
    name = sink.name, plugin = sink.plugin, conf = sink.conf, only = only, output = sink.output,
    most = sink.queue, keep = sink.keep, items = {}, first = 1, last = 0, bytes = 0, batch = {},
    delivered = 0, dropped = 0, woken = task.signal(), idle = task.signal(),
  }, meta)
  function self.emit(name, facts)
    facts.sink = self.name
    emit(name, facts)
  end
  self.trouble = outage.new("sink", "event sink " .. sink.name, self.emit)
  return self
end

-- The queue --------------------------------------------------------------------------------------------

local function pop(self)
  local item = self.items[self.first]
  self.items[self.first] = nil
  self.first = self.first + 1
  self.bytes = self.bytes - item.size
  return item
end

--- `feed:waiting()`: how many events have not arrived yet.
function methods:waiting()
  return self.last - self.first + 1 + #self.batch
end

-- That something is lost is told when it begins, and how much it was when it is over.
local function drop(self, count, why)
  self.dropped = self.dropped + count
  self.emit("sink.dropped", { count = count, why = why })
  if not self.losing then
    log.warn("sink.dropping", ("event sink %s: %s; events are dropped"):format(self.name, why), { sink = self.name })
  end
  self.losing = (self.losing or 0) + count
end

local function tell_lost(self)
  if not self.losing then return end
  log.warn("sink.dropped", ("event sink %s: %d events were dropped"):format(self.name, self.losing),
    { sink = self.name, count = self.losing })
  self.losing = nil
end

--- `feed:offer(told)`: an event for this sink, if it wants it. Never waits.
function methods:offer(told)
  if self.only and not self.only[told.name] then return end
  if not self.output then told = events.quiet(told) end
  local item = { event = told, size = events.size(told), at = sys.mono() }
  while self.last >= self.first and (self:waiting() >= self.most or self.bytes + item.size > BYTES_MOST) do
    pop(self)
    drop(self, 1, "more happens than it takes")
  end
  self.last = self.last + 1
  self.items[self.last] = item
  self.bytes = self.bytes + item.size
  self.woken:fire()
end

--- `feed:lost(why)`: there was an event for this sink, and it could not even be queued.
function methods:lost(why)
  drop(self, 1, why)
end

local function has_room(self)
  local bytes = 0
  for _, item in ipairs(self.batch) do bytes = bytes + item.size end
  return #self.batch < (self.plugin.flush and BATCH or 1) and bytes < BATCH_BYTES
end

-- The next events to hand over, without those that are too old.
local function fill(self)
  while self.first <= self.last and has_room(self) do self.batch[#self.batch + 1] = pop(self) end
  local due, kept = sys.mono() - self.keep, {}
  for _, item in ipairs(self.batch) do
    if item.at >= due then kept[#kept + 1] = item end
  end
  local old = #self.batch - #kept
  self.batch = kept
  if old > 0 then drop(self, old, ("it has been failing for longer than %s"):format(time.format_duration(self.keep))) end
end

-- Handing over -----------------------------------------------------------------------------------------

local function shut(self)
  local open = self.self
  self.self, self.proven = nil, nil
  if open == nil or not self.plugin.close then return end
  local ok, why = task.try(task.within, CLOSE_PATIENCE, self.plugin.close, open)
  if not ok then
    log.debug("sink.close_failed", ("event sink %s: %s"):format(self.name, tostring(why)), { sink = self.name })
  end
end

local function open(self)
  if self.self ~= nil then return end
  local opened = self.plugin.open(self.conf)
  self.self = opened == nil and {} or opened
end

-- What `item` (or, at a flush, all of the batch) died of: it is not offered again.
local function refused(self, count, why)
  if err.kind(why) == "bug" and not self.buggy then
    self.buggy = true
    log.error("plugin.failed", ("event sink %s: %s"):format(self.name, tostring(why)),
      { sink = self.name, traceback = type(why) == "table" and why.traceback or nil })
  end
  drop(self, count, "it refuses them: " .. tostring(why))
end

-- Whether trying again may help. Disks fill up and are emptied; credentials are set right.
local function may_pass(why)
  return err.is(why, "file") or err.is(why, "config") or retry.classify(why) ~= "stop"
end

-- Hands over the batch.  An event that the sink refuses for good is left out; the rest goes on.
local function hand_over(self)
  open(self)
  local taken = 0
  for _, item in ipairs(self.batch) do
    local ok, why = task.try(self.plugin.publish, self.self, item.event)
    if not ok and may_pass(why) then error(why, 0) end
    if ok then taken = taken + 1 else refused(self, 1, why) end
  end
  if taken > 0 and self.plugin.flush then
    local ok, why = task.try(self.plugin.flush, self.self)
    if not ok and may_pass(why) then error(why, 0) end
    if not ok then
      refused(self, taken, why)
      taken = 0
    end
  end
  return taken
end

-- One try; true, or false and why not.
local function try(self)
  local ok, done, taken = task.try(task.within, PATIENCE, hand_over, self)
  if not ok then return false, done end
  if not done then
    return false, err.new("transport", ("it took longer than %s"):format(time.format_duration(PATIENCE)), { reason = "timeout" })
  end
  self.batch = {}
  self.delivered = self.delivered + taken
  if taken > 0 then
    self.proven = true
    self.emit("sink.delivered", { count = taken })
  end
  return true
end

-- Wait, unless somebody wants the sink opened anew.
local function pause(self, seconds)
  local due = sys.mono() + seconds
  while not self.reopening and sys.mono() < due do self.woken:wait(due - sys.mono()) end
end

-- Until the batch has arrived or is too old.
local function deliver(self)
  for attempt in retry.attempts(BACKOFF) do
    fill(self)
    if #self.batch == 0 then return end
    local stale = self.proven
    local ok, why = try(self)
    if ok then
      self.trouble:worked { sink = self.name }
      if self.first > self.last then tell_lost(self) end
      return
    end
    shut(self)
    self.reopening = false
    if stale then
      attempt:reset()
      attempt:delay()
    else
      self.trouble:failed(why, { sink = self.name })
      self.idle:fire(1 << 20)
      pause(self, attempt:delay(err.is(why) and why.retry_after or nil))
    end
  end
end

local function work(self)
  while self:waiting() == 0 and not self.reopening do
    self.idle:fire(1 << 20)
    self.woken:wait()
  end
  if self.reopening then
    self.reopening = false
    shut(self)
  end
  if self:waiting() > 0 then deliver(self) end
end

--- `feed:run()`: the task of this sink. What fails in it (memory, perhaps) is no reason to stop telling.
function methods:run()
  while true do
    local ok, why = task.try(work, self)
    if not ok then
      log.error("sink.error", ("event sink %s: %s"):format(self.name, tostring(why)), { sink = self.name })
      task.sleep(BUG_PAUSE)
    end
  end
end

--- `feed:start()`: run it in a task of its own.
function methods:start()
  self.handle = task.start(self.run, self)
  return self
end

--- `feed:reopen()`: close what is open, and open it again for the next event.
function methods:reopen()
  self.reopening = true
  self.woken:fire()
end

--- `feed:finish(seconds)`: give it so long to hand over what waits, unless it is failing; then end it.
function methods:finish(seconds)
  task.within(seconds, function()
    while self:waiting() > 0 and not self.trouble.since do self.idle:wait() end
  end)
  self.handle:cancel("the worker stops")
  task.shield(self.handle.join, self.handle)
  shut(self)
  local left = self:waiting()
  if left > 0 then drop(self, left, "the worker stops") end
  tell_lost(self)
end

return feed
