-- sink.lua: a shipped event sink behind the driver's own queue, as in a worker.
--
--   local told <close> = sink.open("file", { path = ..., output = true })     its fields and those of all sinks
--   told:job("7")                     job.claimed of a job
--   told:finished("7", result)        job.finished
--   told:emit("worker.stopped", {})   anything
--   told.counts                       { delivered =, dropped = }
--   told:apply()                      the configuration was read again
local events = require "worker.events"
local parts = require "worker.config.parts"
local registry = require "worker.registry"
local schema = require "worker.schema"
local sinks = require "worker.sinks"

local sink = {}

local methods = {}
local meta = { __index = methods }

local plugins = registry.open { "plugins" }

--- The checked fields of a sink; or nil and what is wrong, as a list of texts.
function sink.check(name, fields)
  local spec = parts.sink_fields(assert(plugins:get("sink", name)))
  local conf, problems = schema.check(spec, fields, nil, "", { env = function() end })
  for i, problem in ipairs(problems) do problems[i] = tostring(problem) end
  return conf, problems
end

function sink.open(name, fields)
  local conf, problems = sink.check(name, fields)
  assert(conf, problems[1])
  local entry = { name = name, plugin = plugins:get("sink", name), conf = conf,
    only = conf.only, queue = conf.queue, keep = conf.keep, output = conf.output }
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
