-- stats.lua: what the worker counts about itself, for /metrics and the status page.
--
-- It listens to events; what is a state and not an event (slots, memory) is read when somebody asks.
local fs = require "worker.fs"
local json = require "worker.json"
local metrics = require "worker.metrics"
local sys = require "worker.core.sys"

local stats = {}

local DURATIONS = { 0.01, 0.05, 0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600 }
local POLLS = { 0.001, 0.005, 0.02, 0.1, 0.5, 2, 10, 60 }
local RECENT_MOST = 20
local PAGE = 4096
local FRESH = 1 -- seconds for which what the kernel says of us is not asked again: asking costs more than all the rest

local methods = {}
local meta = { __index = methods, __name = "worker.stats" }

local function make(registry)
  return {
    build = registry:gauge("worker_build_info", "Version of the worker."),
    slots = registry:gauge("worker_slots", "Slots by state."),
    running = registry:gauge("worker_jobs_running", "Jobs that run now."),
    jobs = registry:counter("worker_jobs_total", "Jobs that ended, by result."),
    duration = registry:histogram("worker_job_duration_seconds", "How long jobs took.", DURATIONS),
    polls = registry:counter("worker_poll_total", "Claims, by what they brought."),
    poll = registry:histogram("worker_poll_duration_seconds", "How long claims took.", POLLS),
    opened = registry:counter("worker_reconnects_total", "Times a server was opened."),
    lost = registry:counter("worker_lease_lost_total", "Jobs that the server gave to another worker."),
    oom = registry:counter("worker_oom_kills_total", "Jobs that needed more memory than they may have."),
    decisions = registry:counter("worker_policy_decisions_total", "Decisions of policies, by broken rule."),
    contact = registry:gauge("worker_heartbeat_age_seconds", "Time since the last good answer."),
    connection = registry:gauge("worker_connection_state", "1 for the state that the connection to a server is in."),
    events = registry:counter("worker_events_total", "Events for sinks, by what became of them."),
    waiting = registry:gauge("worker_events_waiting", "Events that have not arrived at their sink yet."),
    log_bytes = registry:counter("worker_log_bytes_total", "Output of jobs."),
    lua = registry:gauge("worker_lua_memory_bytes", "Memory of the Lua state."),
    rss = registry:gauge("process_resident_memory_bytes", "Resident memory of the worker."),
    cpu = registry:counter("process_cpu_seconds_total", "Processor time of the worker."),
    fds = registry:gauge("process_open_fds", "Open files of the worker."),
    started = registry:gauge("process_start_time_seconds", "When the worker started."),
  }
end

local listeners = {}

listeners["server.polled"] = function(self, facts)
  self.m.polls:add(1, { source = facts.server, result = facts.result })
  self.m.poll:observe(facts.seconds, { source = facts.server })
  if facts.result ~= "error" then self.contacts[facts.server] = sys.mono() end
end

listeners["server.opened"] = function(self, facts)
  self.m.opened:add(1, { source = facts.server })
  self.contacts[facts.server] = sys.mono()
  self.errors[facts.server] = nil
end

listeners["server.failing"] = function(self, facts)
  self.errors[facts.server] = tostring(facts.error)
end

listeners["server.back"] = function(self, facts)
  self.errors[facts.server] = nil
end

listeners["job.finished"] = function(self, facts)
  local result, source = facts.result, facts.server
  self.m.jobs:add(1, { source = source, result = result.state })
  self.m.duration:observe(result.duration or 0, { source = source })
  self.m.log_bytes:add(facts.ctx.bytes or 0, { source = source, state = "read" })
  if facts.ctx.joblog and facts.ctx.joblog.dropped then
    self.m.log_bytes:add(facts.ctx.joblog.dropped, { source = source, state = "dropped" })
  end
  if result.state == "lost" then self.m.lost:add(1, { source = source }) end
  if result.state == "oom" then self.m.oom:add(1, { source = source }) end
  table.insert(self.recent, 1, {
    id = facts.job.id, server = source, state = result.state, reason = result.reason,
    duration = result.duration, finished = sys.wall(), executor = result.executor,
    fallback = result.fallback and result.fallback.asked or nil, cached = result.cached,
  })
  self.recent[RECENT_MOST + 1] = nil
end

listeners["sink.delivered"] = function(self, facts)
  self.m.events:add(facts.count, { sink = facts.sink, result = "delivered" })
end

listeners["sink.dropped"] = function(self, facts)
  self.m.events:add(facts.count, { sink = facts.sink, result = "dropped" })
end

listeners["policy.decision"] = function(self, facts)
  local labels = { policy = facts.policy, decision = facts.decision }
  if #facts.rules == 0 then self.m.decisions:add(1, labels) end
  for _, rule in ipairs(facts.rules) do
    self.m.decisions:add(1, { policy = facts.policy, decision = facts.decision, rule = rule })
  end
end

--- `stats.new(events)`: counts from now on.
function stats.new(events)
  local registry = metrics.new()
  local self = setmetatable({
    registry = registry, m = make(registry), contacts = {}, errors = {}, recent = json.array {}, began = sys.wall(),
  }, meta)
  self.m.build:set(1, { version = sys.version(), lua = _VERSION })
  self.m.started:set(self.began)
  for name, listener in pairs(listeners) do
    events:listen(function(_, facts) listener(self, facts) end, { name })
  end
  return self
end

-- What the kernel says of this process: resident bytes, cpu seconds, open files.
local function process_numbers(self)
  if self.asked and sys.mono() - self.asked < FRESH then return end
  self.asked = sys.mono()
  local statm, stat = fs.read("/proc/self/statm"), fs.read("/proc/self/stat")
  local resident = statm and tonumber(statm:match("^%d+ (%d+)"))
  if resident then self.m.rss:set(resident * PAGE) end
  local rest = stat and stat:match("%) (.*)$")
  local fields = {}
  for word in (rest or ""):gmatch("%S+") do fields[#fields + 1] = tonumber(word) or 0 end
  if fields[13] then self.m.cpu:set((fields[12] + fields[13]) / 100) end
  local fds = fs.list("/proc/self/fd")
  if fds then self.m.fds:set(#fds) end
end

-- What a protocol calls the state of its connection, where it has a word for it.
local function connection_of(server)
  if not server.plugin.connection then return nil end
  local ok, word = pcall(server.plugin.connection, server.conf)
  return ok and type(word) == "string" and word or nil
end

local function server_numbers(self, servers)
  self.m.slots:clear()
  self.m.running:clear()
  self.m.contact:clear()
  self.m.connection:clear()
  for _, server in ipairs(servers) do
    self.m.slots:add(server.slots, { source = server.name, state = "total" })
    self.m.slots:add(server.running, { source = server.name, state = "busy" })
    self.m.running:add(server.running, { source = server.name })
    local connection = connection_of(server)
    if connection then self.m.connection:set(1, { source = server.name, state = connection }) end
    if self.contacts[server.name] then
      self.m.contact:set(sys.mono() - self.contacts[server.name], { source = server.name })
    end
  end
end

local function sink_numbers(self, feeds)
  self.m.waiting:clear()
  for _, feed in ipairs(feeds) do self.m.waiting:set(feed:waiting(), { sink = feed.name }) end
end

--- `stats:text(servers, feeds)`: all metrics, for Prometheus; feeds are those of worker.sinks.
function methods:text(servers, feeds)
  process_numbers(self)
  server_numbers(self, servers)
  sink_numbers(self, feeds or {})
  self.m.lua:set((sys.memory()))
  return self.registry:text()
end

-- A list is one for programs though nothing is in it.
local function describe_jobs(server)
  local list = json.array {}
  for id, ctx in pairs(server.contexts) do
    list[#list + 1] = { id = id, seconds = sys.mono() - ctx.began, last_line = ctx:last_line(), bytes = ctx.bytes or 0,
      executor = ctx.executor }
  end
  table.sort(list, function(a, b) return a.seconds > b.seconds end)
  return list
end

local function describe_sinks(feeds)
  local list = json.array {}
  for i, feed in ipairs(feeds) do
    list[i] = { name = feed.name, waiting = feed:waiting(), delivered = feed.delivered, dropped = feed.dropped,
      failing = feed.trouble.since ~= nil }
  end
  return list
end

--- `stats:describe(servers, feeds, name)`: the same for people and programs: servers, running jobs, recent
-- results, event sinks, and what the worker is called (as its host if absent).
function methods:describe(servers, feeds, name)
  local list = json.array {}
  for i, server in ipairs(servers) do
    list[i] = {
      name = server.name, state = server.draining and "draining" or server.state, slots = server.slots,
      running = server.running, done = server.done, jobs = describe_jobs(server),
      contact_age = self.contacts[server.name] and sys.mono() - self.contacts[server.name] or nil,
      error = self.errors[server.name], connection = connection_of(server), executors = json.array(server.executors:states()),
    }
  end
  local host = sys.hostname()
  return { name = name or host, version = sys.version(), host = host, pid = sys.pid(), started = self.began,
    servers = list, recent = self.recent, events = feeds and #feeds > 0 and describe_sinks(feeds) or nil }
end

return stats
