-- runner.lua: a worker from its checked configuration: servers, signals, record, end.
--
--   TERM, INT   first: take no more jobs, let those that run finish (for shutdown.timeout, then they
--               are cancelled); second: cancel them now; third: exit at once
--   QUIT        cancel the running jobs at once
--   USR1        like the first TERM, with no limit of time
--   HUP         (reserved for reloading) is told and ignored
local agent = require "worker.agent"
local err = require "worker.error"
local fs = require "worker.fs"
local log = require "worker.log"
local record = require "worker.record"
local sys = require "worker.core.sys"
local task = require "worker.task"
local time = require "worker.time"

local runner = {}

local EXIT_CANCELLED, EXIT_TWIN, EXIT_IO = 80, 82, 74

-- The journal lives in the state directory; a worker that needs none (all its servers keep their own
-- record) does not touch it.
local function open_record(conf)
  local needed = false
  for _, server in ipairs(conf.servers) do needed = needed or not server.plugin.keeps_record end
  if not needed then return record.none() end
  return record.open(conf)
end

local function new_server(conf, entry, shared)
  return agent.new {
    name = entry.name, plugin = entry.plugin, conf = entry.conf, slots = entry.slots,
    executor = entry.executor, policies = conf.policies, events = shared.events,
    record = entry.plugin.keeps_record and record.none() or shared.record,
    workspace = conf.workspace, spool_dir = fs.join(conf.state, "spool"), grace = conf.shutdown and conf.shutdown.grace,
    watchers = shared.watchers,
  }
end

-- Stopping -------------------------------------------------------------------------------------------

local function cancel_all(self, why)
  self.cancelled = self.cancelled or self:busy()
  for _, server in ipairs(self.servers) do server:cancel_jobs(why) end
end

local function drain_all(self, why, limit)
  for _, server in ipairs(self.servers) do server:drain(why) end
  if not limit or self.limited then return end
  self.limited = true
  self.scope:spawn(function()
    task.sleep(limit)
    if self:busy() then
      log.warn("worker.impatient", ("jobs still run %s after the worker was asked to stop; they are cancelled")
        :format(time.format_duration(limit)))
      cancel_all(self, "the worker stops")
    end
  end)
end

local function on_signal(self, name)
  if name == "USR1" then
    return drain_all(self, "asked to by SIGUSR1")
  elseif name == "QUIT" then
    drain_all(self, "asked to by SIGQUIT")
    return cancel_all(self, "the worker stops")
  elseif name == "HUP" then
    return log.info("worker.hangup", "SIGHUP: the configuration is read at start only")
  end
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
  local signals <close> = sys.signals { "TERM", "INT", "QUIT", "USR1", "HUP" }
  while true do on_signal(self, signals:wait()) end
end

-- Running --------------------------------------------------------------------------------------------

local methods = {}
local meta = { __index = methods, __name = "worker.runner" }

--- `runner.new(conf, shared)`: conf from worker.config; shared = { events= }.
function runner.new(conf, shared)
  return setmetatable({ conf = conf, shared = shared, servers = {}, asked = 0 }, meta)
end

--- `runner:busy()`: whether any job runs.
function methods:busy()
  for _, server in ipairs(self.servers) do
    if server.running > 0 then return true end
  end
  return false
end

-- The worst news wins: a refused server before a cancelled job.
local function exit_code(self, codes)
  local worst = 0
  for _, code in ipairs(codes) do worst = math.max(worst, code) end
  if worst == 0 and self.cancelled then return EXIT_CANCELLED end
  return worst
end

--- `runner:run()`: work until every server has ended; an exit code.
function methods:run()
  local ok, kept = pcall(open_record, self.conf)
  if not ok then
    log.error("worker.state", tostring(kept))
    return err.is(kept, "busy") and EXIT_TWIN or EXIT_IO
  end
  local shared = self.shared
  shared.record = kept
  for i, entry in ipairs(self.conf.servers) do self.servers[i] = new_server(self.conf, entry, shared) end
  local codes = {}
  task.scope(function(scope)
    self.scope = scope
    scope:spawn(watch_signals, self)
    if shared.console and shared.console.terminal then scope:spawn(shared.console.run, shared.console) end
    local serving = {}
    for i, server in ipairs(self.servers) do serving[i] = scope:spawn(server.serve, server) end
    for i, handle in ipairs(serving) do
      local joined, code = handle:join()
      codes[i] = joined and code or 70
    end
  end)
  kept:close()
  return exit_code(self, codes)
end

return runner
