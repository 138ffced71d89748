-- sinks.lua: the event sinks of a worker: what happens is handed to each of them.
--
-- Every sink has a queue and a task of its own (sinks/feed.lua): a dead one costs memory up to its
-- bound, and no job and no other sink a moment.
local event = require "worker.sinks.event"
local fingerprint = require "worker.fingerprint"
local task = require "worker.task"

local sinks = {}

local FINISH = 5 -- seconds for what still waits when a sink, or the worker, ends

local methods = {}
local meta = { __index = methods, __name = "worker.sinks" }

local function begin(self, entry, print)
  local feed = require "worker.sinks.feed" -- for those who have a sink
  local one = feed.new(entry, function(name, facts) self.events:emit(name, facts) end):start()
  one.print = print
  return one
end

local function tell(self, name, facts)
  local told = event.new(self.worker, name, facts)
  if not told then return end
  for _, one in ipairs(self.feeds) do one:offer(told) end
end

--- `sinks.open(conf, events)`: a feed for each of conf.events, from now on; to be closed.
function sinks.open(conf, events)
  local self = setmetatable({ events = events, feeds = {}, ending = {} }, meta)
  function self.listener(name, facts)
    local ok, why = pcall(tell, self, name, facts)
    if ok then return end
    for _, one in ipairs(self.feeds) do one:lost(tostring(why)) end
  end
  self:apply(conf)
  return self
end

-- A worker without sinks puts together no events for them.
local function set_feeds(self, list)
  self.feeds = list
  self.events:ignore(self.listener)
  if #list > 0 then self.events:listen(self.listener) end
end

--- `sinks:apply(conf)`: go on as this configuration says: a sink that is the same is opened anew (a file
-- may have been moved), one that is gone hands over what it has and ends.
function methods:apply(conf)
  self.worker = conf.name
  local now, list = {}, {}
  for _, one in ipairs(self.feeds) do now[one.print] = one end
  for _, entry in ipairs(conf.events or {}) do
    local print = fingerprint.of_sink(conf, entry)
    local one = now[print]
    now[print] = nil
    if one then one:reopen() end
    list[#list + 1] = one or begin(self, entry, print)
  end
  for _, one in pairs(now) do
    self.ending[one] = task.start(function()
      one:finish(FINISH)
      self.ending[one] = nil
    end)
  end
  set_feeds(self, list)
end

--- `sinks:close()`: hand over what waits, for a moment, and end.
function methods:close()
  local all = self.ending
  for _, one in ipairs(self.feeds) do all[one] = task.start(one.finish, one, FINISH) end
  set_feeds(self, {})
  local handles = {}
  for _, handle in pairs(all) do handles[#handles + 1] = handle end
  for _, handle in ipairs(handles) do task.shield(handle.join, handle) end
end

meta.__close = methods.close

return sinks
