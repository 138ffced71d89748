-- sink.lua: a shipped event sink behind the driver's own queue, as in a worker.
--
--   local told <close> = sink.open("file", { path = ... }, { output = true })
--   told:job("7")                     job.claimed of a job
--   told:finished("7", result)        job.finished
--   told:emit("worker.stopped", {})   anything
--   told.counts                       { delivered =, dropped = }
--   told:apply()                      the configuration was read again
local events = require "worker.events"
local plugin = require "spec.support.plugin"
local sinks = require "worker.sinks"

local sink = {}

local methods = {}
local meta = { __index = methods }

function sink.open(name, fields, more)
  local found, conf = plugin.get("sink", name, fields)
  local entry = { name = name, plugin = found, conf = conf, queue = 1000, keep = 600, output = false }
  for key, value in pairs(more or {}) do entry[key] = value end
  local self = setmetatable({
    events = events.new(), counts = { delivered = 0, dropped = 0 }, conf = { name = "w", events = { entry } },
  }, meta)
  self.events:listen(function(event, facts)
    local what = event:match("^sink%.(%a+)$")
    if self.counts[what] then self.counts[what] = self.counts[what] + facts.count end
  end)
  self.sinks = sinks.open(self.conf, self.events)
  return self
end

function methods:emit(name, facts)
  facts.server = facts.server or "ci"
  self.events:emit(name, facts)
end

function methods:job(id) self:emit("job.claimed", { job = { id = id } }) end

function methods:finished(id, result) self:emit("job.finished", { job = { id = id }, ctx = {}, result = result }) end

function methods:apply() self.sinks:apply(self.conf) end

function methods:waiting() return self.sinks.feeds[1]:waiting() end

function meta:__close() self.sinks:close() end

return sink
