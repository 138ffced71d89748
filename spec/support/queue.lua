-- queue.lua: Crucible's queue service and a worker on it, in the process of the specs.
--
--   local fake = queue.fake { jobs = { "print(1)" } }
--   local worker = queue.worker(fake, { dialect = "queue-worker" }, { run = function(job, ctx) ... end })
--   local report = queue.reported(fake, id)           waits for it
--   queue.lines "engine_fallback"                     what the plugin has logged under that name: fields
--
-- Both end with the test.  `run` stands for the engines, "docker" and "gvisor" unless `engines` names
-- others; `broken` = { gvisor = "why" } are those that do not work.  What a fake can be told to do
-- instead of answering: see worker.fakes.queue and spec.support.vulcan (after, instead, body).
local agent = require "worker.agent"
local err = require "worker.error"
local events = require "worker.events"
local fakes = require "worker.fakes.queue"
local health = require "worker.health"
local log = require "worker.log"
local record = require "worker.record"
local registry = require "worker.registry"
local schema = require "worker.schema"
local spec = require "worker.spec"
local stats = require "worker.stats"
local support = require "spec.support.plugin"
local task = require "worker.task"

local queue = {}

local PATIENCE = 7200 -- of virtual time
local LEVELS = { "debug", "info", "warn", "error" }
local ISOLATION = { docker = "container", gvisor = "sandbox" }

local open, logged = {}, {}

spec.after_each(function()
  for i = #open, 1, -1 do open[i]:close() end -- the worker before its fake
  open, logged = {}, {}
end)

local function closed_in_time(thing)
  open[#open + 1] = thing
  return thing
end

-- A plugin keeps the log that it finds when it is loaded: ours writes along.
local plugin
do
  local kept = {}
  for _, level in ipairs(LEVELS) do
    kept[level] = log[level]
    log[level] = function(event, message, fields) -- luacheck: ignore
      logged[#logged + 1] = { event = event, level = level, message = message, fields = fields or {} }
      kept[level](event, message, fields)
    end
  end
  plugin = assert(registry.open({ "plugins" }):get("protocol", "queue"))
  for level, original in pairs(kept) do log[level] = original end -- luacheck: ignore
end

--- A fake that remembers what it was asked in fake.seen.
function queue.fake(options)
  local all = { record = true, tell = function() end, jobs = {}, websocket = false }
  for name, value in pairs(options or {}) do all[name] = value end
  return closed_in_time(fakes.serve(all))
end

--- Its configuration, from fields and variables of the environment.
function queue.conf(fields, env)
  local conf, problems = schema.check(plugin, fields or {}, nil, "", { env = function(name) return (env or {})[name] end })
  return assert(conf, problems and tostring(problems[1])), plugin
end

local function policy(name, fields)
  local one, conf = support.get("policy", name, fields)
  return { name = name, plugin = one, conf = conf }
end

local function executors(options)
  local list = {}
  for i, name in ipairs(options.engines or { "docker", "gvisor" }) do
    list[i] = { name = name, conf = {}, plugin = { isolation = ISOLATION[name],
      check = function()
        local why = options.broken and options.broken[name]
        if why then err.raise("unusable", why) end
      end,
      run = function(_, job, ctx)
        if options.run then return options.run(job, ctx, name) end
        return { state = "success", exit_code = 0 }
      end } }
  end
  return list
end

local methods = {}
local meta = { __index = methods }

--- A worker on the fake: fields of its configuration; options: run, engines, broken, slots, strict, env,
-- record, url.
function queue.worker(fake, fields, options)
  options = options or {}
  local env = { QUEUE_SERVICE_URL = options.url or fake.url, HOSTNAME = "w-7" }
  local all = { code = "file" } -- whatever this machine is
  for name, value in pairs(fields or {}) do all[name] = value end
  for name, value in pairs(options.env or {}) do env[name] = value end
  local server = agent.new {
    name = "queue", plugin = plugin, conf = queue.conf(all, env), slots = options.slots or 1, strict = options.strict,
    executors = executors(options), events = events.new(), record = options.record or record.none(), grace = 0.2,
    policies = { claim = { policy "backoff" }, run = { policy "timeout", policy "mask" },
      finish = { policy("retry", { ["for"] = "1h" }) } },
  }
  local self = setmetatable({ server = server, handle = task.start(server.serve, server) }, meta)
  return closed_in_time(self)
end

--- What it answers on /health and its like: the address.
function methods:health()
  local site = health.open("127.0.0.1:0", stats.new(self.server.events), { servers = { self.server } })
  return closed_in_time(site).url
end

--- Ask it to stop, wait for its end; its exit code.
function methods:stop()
  self.server:drain("the spec has seen enough")
  local _, code = self.handle:join()
  return code
end

function methods:close()
  self.server:drain("the test is over")
  self.server:cancel_jobs("the test is over")
  self.handle:cancel()
  self.handle:join()
end

--- Wait until it is so; what it gave.
function queue.wait_for(what)
  local value
  local came = task.within(PATIENCE, function()
    value = what()
    while not value do
      task.sleep(0.02)
      value = what()
    end
  end)
  return came and value or error("it never happened", 2)
end

--- Wait for the accepted report of a task.
function queue.reported(fake, id)
  return queue.wait_for(function() return fake:report(id) end)
end

--- The requests of one way ("next", "complete", "fail", "enqueue") that the fake has seen.
function queue.asked(fake, way)
  local list = {}
  for _, seen in ipairs(fake.seen) do
    if seen.way == way then list[#list + 1] = seen end
  end
  return list
end

--- The fields of the lines that the plugin has logged under this name; each knows its `level`, `message`.
function queue.lines(event)
  local list = {}
  for _, line in ipairs(logged) do
    if line.event == event then
      list[#list + 1] = setmetatable({ level = line.level, message = line.message }, { __index = line.fields })
    end
  end
  return list
end

return queue
