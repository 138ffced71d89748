-- runner.lua: a worker from its checked configuration: servers, event sinks, signals, record, end.
--
--   TERM, INT   first: take no more jobs, let those that run finish (for shutdown.timeout, then they
--               are cancelled, and what a server that is away was not told is kept); second: cancel them now; third: exit at once
--   QUIT        cancel the running jobs at once
--   USR1        like the first TERM, with no limit of time
--   HUP         read the configuration and the plugins again: servers that changed are replaced (the
--               old one drains, the new one takes over), event sinks are opened anew; with mistakes in it
--               all stays as it is
--   USR2        tell in the log what every server and job is doing
local agent = require "worker.agent"
local err = require "worker.error"
local event = require "worker.sinks.event"
local fingerprint = require "worker.fingerprint"
local fs = require "worker.fs"
local log = require "worker.log"
local record = require "worker.record"
local shelf = require "worker.tools.shelf"
local sinks = require "worker.sinks"
local slots = require "worker.slots"
local supervisor = require "worker.supervisor"
local sys = require "worker.core.sys"
local task = require "worker.task"
local text = require "worker.text"
local time = require "worker.time"

local runner = {}

local EXIT_SOFTWARE, EXIT_OSERR, EXIT_IO, EXIT_CANCELLED, EXIT_TWIN, EXIT_UNTOLD = 70, 71, 74, 80, 82, 84
local ECHO = 0.001    -- seconds within which two of one signal are one
local LAST_WORDS = 5 -- how long reports may still take once the time to stop is up

-- The journal lives in the state directory; a worker that needs none (all its servers keep their own
-- record) does not touch it.
local function open_record(conf)
  local needed = false
  for _, server in ipairs(conf.servers) do needed = needed or not server.plugin.keeps_record end
  if not needed then return record.none() end
  return record.open(conf)
end

local function new_server(conf, entry, granted, shared)
  return agent.new {
    name = entry.name, plugin = entry.plugin, conf = entry.conf, slots = granted,
    executors = entry.executors, strict = entry.strict, policies = conf.policies, events = shared.events,
    record = entry.plugin.keeps_record and record.none() or shared.record,
    workspace = conf.workspace, spool_dir = fs.join(conf.state, "spool"), grace = conf.shutdown and conf.shutdown.grace,
    watchers = shared.watchers, worker_name = conf.given_name, ended = shared.ended,
  }
end

-- Stopping -------------------------------------------------------------------------------------------

local function cancel(self, server, why)
  self.cancelled = self.cancelled or server:busy()
  server:cancel_jobs(why)
end

-- A protocol may promise that what runs is completed, unless a person says how long it may take.
local function is_patient(self, server)
  return server.plugin.completes and (self.conf.origins or {})["shutdown.timeout"] == "default"
end

-- When the time is up a server that is away gets no more of it: what it was not told is kept.
local function end_reports(self)
  if self.ending then return end
  self.ending = true
  self.scope:spawn(function()
    local last = sys.mono() + (self.conf.shutdown.grace or 0) + 2 * LAST_WORDS
    task.sleep(LAST_WORDS)
    while true do
      for _, server in ipairs(self.servers) do server:hurry(sys.mono() >= last and not is_patient(self, server)) end
      task.sleep(0.5)
    end
  end)
end

local function cancel_all(self, why)
  for _, server in ipairs(self.servers) do cancel(self, server, why) end
  end_reports(self)
end

local function drain_all(self, why, limit)
  self.shared.supervisor:stopping()
  self.shared.events:emit("worker.stopping", { reason = why })
  for _, server in ipairs(self.servers) do server:drain(why) end
  if not limit or self.limited then return end
  self.limited = true
  self.scope:spawn(function()
    task.sleep(limit)
    for _, server in ipairs(self.servers) do
      if server:busy() and not is_patient(self, server) then
        log.warn("worker.impatient", ("%s: jobs still run %s after the worker was asked to stop; they are cancelled")
          :format(server.name, time.format_duration(limit)))
        cancel(self, server, "the worker stops")
      end
    end
    end_reports(self)
  end)
end

-- The life of servers --------------------------------------------------------------------------------

local function start_server(self, entry, granted)
  local server = new_server(self.conf, entry, granted, self.shared)
  server.print = fingerprint.of(self.conf, entry)
  self.servers[#self.servers + 1] = server
  self.scope:spawn(function()
    local ok, code = pcall(server.serve, server)
    self.codes[#self.codes + 1] = ok and code or EXIT_SOFTWARE
    self.untold = self.untold + server.untold
    for i, other in ipairs(self.servers) do
      if other == server then
        table.remove(self.servers, i)
        break
      end
    end
    self.ended:fire()
  end)
end

local function by_name(servers)
  local map = {}
  for _, server in ipairs(servers) do
    if not server.draining then map[server.name] = server end
  end
  return map
end

-- What changed is replaced; a server that stays is not touched.
local function apply(self, conf)
  local now, changes, granted = by_name(self.servers), {}, slots.grant(conf.servers)
  self.conf = conf
  shelf.set(conf.registry and conf.registry:shelf())
  self.sinks:apply(conf)
  for _, entry in ipairs(conf.servers) do
    local old = now[entry.name]
    now[entry.name] = nil
    if not old or old.print ~= fingerprint.of(conf, entry) then
      if old then old:drain("its configuration has changed") end
      changes[#changes + 1] = (old and "changed " or "new ") .. entry.name
      start_server(self, entry, granted[entry])
    end
  end
  for name, old in pairs(now) do
    old:drain("it is no longer in the configuration")
    changes[#changes + 1] = "gone " .. name
  end
  table.sort(changes)
  log.info("worker.reloaded", #changes == 0 and "the configuration was read again: nothing has changed"
    or "the configuration was read again: " .. table.concat(changes, ", "))
end

local function reload(self)
  if self.asked > 0 or not self.shared.reload then return end
  self.shared.supervisor:reloading(function()
    local conf, why = self.shared.reload()
    if conf then return apply(self, conf) end
    log.error("worker.reload_failed", "the new configuration has mistakes; the old one stays in force: " .. why)
  end)
end

-- Telling --------------------------------------------------------------------------------------------

local function tell_state(self)
  for _, server in ipairs(self.servers) do
    log.info("server.state", ("%s is %s%s: %d of %d slots busy, %d jobs done"):format(server.name, server.state,
      server.draining and ", draining" or "", server.running, server.slots, server.done), { server = server.name })
    for id, ctx in pairs(server.contexts) do
      log.info("job.state", ("job %s runs for %s: %s"):format(id, time.format_duration(sys.mono() - ctx.began),
        text.sample(ctx:last_line() or "no output yet")), { server = server.name, job = id })
    end
  end
end

-- Whoever hands a signal on, as timeout(1) does, sends it to the process and to its group.
local function is_echo(self, name)
  local last, now = self.last_signal, sys.mono()
  self.last_signal = { name = name, at = now }
  return last ~= nil and last.name == name and now - last.at < ECHO
end

local function on_signal(self, name)
  if name == "USR1" then
    return drain_all(self, "asked to by SIGUSR1")
  elseif name == "QUIT" then
    drain_all(self, "asked to by SIGQUIT")
    return cancel_all(self, "the worker stops")
  elseif name == "HUP" then
    return reload(self)
  elseif name == "USR2" then
    return tell_state(self)
  end
  if is_echo(self, name) then return end
  self.asked = self.asked + 1
  if self.asked == 1 then
    drain_all(self, "asked to by SIG" .. name, self.conf.shutdown.timeout)
  elseif self.asked == 2 then
    log.warn("worker.stopping", "asked to stop a second time: the running jobs are cancelled")
    cancel_all(self, "the worker stops")
  else
    log.warn("worker.quitting", "asked to stop a third time: leaving at once")
    sys.exit_status(EXIT_CANCELLED)
    sys.stop()
  end
end

local function watch_signals(self)
  local signals <close> = sys.signals { "TERM", "INT", "QUIT", "USR1", "USR2", "HUP" }
  while true do on_signal(self, signals:wait()) end
end

-- Running --------------------------------------------------------------------------------------------

local methods = {}
local meta = { __index = methods, __name = "worker.runner" }

--- `runner.new(conf, shared)`: conf from worker.config; shared = { events=, console=, ended=, reload= }:
-- in ended it is counted how many jobs ended in each state; reload reads the configuration again, and
-- returns nil and what is wrong with it when it is.
function runner.new(conf, shared)
  return setmetatable({
    conf = conf, shared = shared, servers = {}, codes = {}, asked = 0, untold = 0, ended = task.signal(),
  }, meta)
end

--- `runner:busy()`: whether any job runs.
function methods:busy()
  for _, server in ipairs(self.servers) do
    if server:busy() then return true end
  end
  return false
end

-- The worst news wins: a refused server before a result that was not told, that before a cancelled job.
local function exit_code(self)
  local worst = 0
  for _, code in ipairs(self.codes) do worst = math.max(worst, code) end
  if worst == 0 and self.untold > 0 then return EXIT_UNTOLD end
  if worst == 0 and self.cancelled then return EXIT_CANCELLED end
  return worst
end

-- An address that cannot be had is no reason to leave the jobs undone.
local function open_health(self)
  local address = self.conf.health and self.conf.health.address
  if not address or address == "off" then return nil end
  local health, stats = require "worker.health", require "worker.stats" -- for those who want them
  local ok, server = pcall(health.open, address, stats.new(self.shared.events), self)
  if ok then
    log.info("health.ready", "health, metrics and status are at " .. (server.url or address), { address = address })
    return server
  end
  log.error("health.failed", ("health and metrics cannot be served at %s: %s"):format(address, tostring(server)))
end

--- `runner:run()`: work until every server has ended; an exit code.
function methods:run()
  local refusal = slots.refusal()
  if refusal then
    log.error("worker.few_files", refusal)
    return EXIT_OSERR
  end
  local ok, kept = pcall(open_record, self.conf)
  if not ok then
    log.error("worker.state", tostring(kept))
    return err.is(kept, "busy") and EXIT_TWIN or EXIT_IO
  end
  shelf.set(self.conf.registry and self.conf.registry:shelf())
  self.shared.record = kept
  self.shared.supervisor = supervisor.new()
  self.shared.events:listen(function(_, facts)
    self.shared.supervisor:ready("working for " .. facts.server)
  end, { "server.opened" })
  local console = self.shared.console
  local _ <close> = open_health(self)
  local told <close> = sinks.open(self.conf, self.shared.events)
  self.sinks = told
  self.shared.events:emit("worker.started", event.started(self.conf))
  task.scope(function(scope)
    self.scope = scope
    scope:spawn(watch_signals, self)
    scope:spawn(self.shared.supervisor.run, self.shared.supervisor)
    if console and console.terminal then scope:spawn(console.run, console) end
    local granted = slots.grant(self.conf.servers)
    for _, entry in ipairs(self.conf.servers) do start_server(self, entry, granted[entry]) end
    while #self.servers > 0 do self.ended:wait() end
  end)
  kept:close()
  local code = exit_code(self)
  self.shared.events:emit("worker.stopped", { exit_code = code })
  return code
end

return runner
