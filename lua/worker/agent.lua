-- agent.lua: one server of one worker: open, claim, run, report, stop.
--
-- The agent owns every loop, so that a protocol plugin says only what its server's wire looks like.
-- A server has one claimer, or as many as the plugin asks for while claims bring jobs; each takes a free
-- slot before it claims.  There is a task per running job, and a pulse.  Whatever a plugin raises ends here
-- and becomes a decision: again later, open anew, stop this server, or a result of the job.
--
-- A claim that is under way when the worker is asked to stop is not broken off: the job it may
-- bring would be lost.  It gets a grace, and what it brings is given back or run.  A plugin whose
-- claim takes nothing before it returns says so with claim_breaks = true; one whose claim has parts
-- that take nothing sets claim_breaks on its `self` meanwhile.
--
-- A claim that returns nil, seconds says when to ask again.  hands_out_again = true: what a dead
-- worker held comes back by the server itself, so a restart reports results only.  completes = true:
-- what runs when the worker is asked to stop is completed, unless shutdown.timeout was given.
-- reports_aside = true: where there are slots, the one of a job that has ended need not wait for its report.
local chain = require "worker.chain"
local err = require "worker.error"
local events = require "worker.events"
local fallback = require "worker.fallback"
local jobs = require "worker.job"
local link = require "worker.link"
local log = require "worker.log"
local outage = require "worker.outage"
local sys = require "worker.core.sys"
local task = require "worker.task"
local work = require "worker.work"

local agent = {}

local PULSE_EVERY = 10
local CLAIM_GRACE = 35        -- how long a claim under way may take once the worker drains
local CLAIM_LOOK = 0.1        -- how often it is looked whether it may be broken off now
local EMPTY_PAUSE = 0.05      -- between empty claims, whatever the policies say
local ABLE_PAUSE = 1          -- while no executor works
local USELESS_PAUSE = 1       -- after a job that cannot be used: the next claim brings it again

local EXIT_SOFTWARE, EXIT_IO, EXIT_CONFIG = 70, 74, 78

local methods = {}
local meta = { __index = methods, __name = "worker.server" }

-- What a protocol may tell its server of this worker.
local function about(server, spec)
  local names = {}
  for i, executor in ipairs(spec.executors or { spec.executor }) do
    names[i] = { name = executor.name or executor.plugin.name, isolation = executor.plugin.isolation or "process" }
  end
  return { name = spec.worker_name, host = sys.hostname(), pid = sys.pid(), version = sys.version(),
    slots = server.slots, executors = names }
end

--- `agent.new(spec)`: spec: name, plugin, conf, slots, executors = a list of { plugin=, conf= } (or one
-- as executor), strict, policies = { claim=, run=, finish= }, events, record, worker_name, ended = where
-- it is counted how many jobs ended in each state.
function agent.new(spec)
  local server = setmetatable({
    name = spec.name, plugin = spec.plugin, conf = spec.conf, slots = spec.slots or 1,
    policies = spec.policies or {}, events = spec.events,
    wanted = spec.plugin.heard and events.everything or spec.events.wanted,
    record = spec.record, watchers = spec.watchers, workspace = spec.workspace, grace = spec.grace,
    spool_dir = spec.spool_dir,
    state = "opening", draining = false, cancelling = false,
    jobs = {}, contexts = {}, settled = {}, reporting = {}, untold = 0,
    owned = {}, running = 0, telling = 0, claimers = {}, asking = 1, more = task.signal(), done = 0, ended = spec.ended or {},
    changed = task.signal(), drain_signal = task.signal(), freed = task.signal(),
  }, meta)
  server.free = server.slots
  local function emit(name, facts) return link.emit(server, name, facts) end
  server.trouble = outage.new("server", spec.name, emit)
  server.about = about(server, spec)
  function server.wait_between(seconds) return server:pause(seconds) end
  server.executors = fallback.new(spec.executors or { spec.executor }, { strict = spec.strict, server = spec.name,
    emit = emit, again_most = spec.plugin.claims_always and ABLE_PAUSE or nil })
  return server
end

--- `server:pause(seconds)`: wait, but no longer than until the worker drains; false then.
function methods:pause(seconds)
  local until_ = sys.mono() + (seconds or 0)
  while not self.draining do
    local left = until_ - sys.mono()
    if left <= 0 then return true end
    self.drain_signal:wait(left)
  end
  return false
end

-- One of the server's slots; waits for one.
local function take_place(server)
  while server.free == 0 do server.freed:wait() end
  server.free = server.free - 1
end

--- `server:give_place()`: the place that was taken for a claim is free again: it brought nothing, or what it
-- brought is over.
function methods:give_place()
  self.free = self.free + 1
  self.freed:fire()
end

--- `server:tell_aside()`: whether the place of a job that has ended is free now, before its report has
-- arrived.  There are never more of these than slots; and where there is one slot, one thing is done after the other.
function methods:tell_aside()
  if not self.plugin.reports_aside or self.slots == 1 or self.telling >= self.slots then return false end
  self.running, self.telling = self.running - 1, self.telling + 1
  self:give_place()
  return true
end

--- `server:busy()`: whether a job runs, or is reported.
function methods:busy() return self.running + self.telling > 0 end

local function start_job(server, scope, job)
  server.jobs[job.id] = job
  server.running = server.running + 1
  scope:spawn(work.take, server, job)
end

-- Claiming ---------------------------------------------------------------------------------------------

local function release(server, job)
  if not server.plugin.release then return false end
  local ok, why = task.try(server.plugin.release, server.self, job)
  if not ok then
    log.warn("job.release_failed", ("job %s could not be given back: %s"):format(job.id, tostring(why)),
      { server = server.name, job = job.id })
  end
  return ok
end

-- One claim; the job, or nil for nothing.
local function claim(server)
  local seen = server.self
  local began = sys.mono()
  local ok, job = task.try(server.claim, { idle = seen.idle, pause = server.wait_between })
  if server.wanted["server.polled"] then
    link.emit(server, "server.polled", { seconds = sys.mono() - began,
      result = not ok and "error" or job ~= nil and job ~= "end" and "job" or "empty" })
  end
  if not ok then
    link.heard(server, "claim", job, seen)
    server:pause(EMPTY_PAUSE)
    return nil
  end
  -- one that was broken off by the end of the worker has not worked
  if server.trouble.since and (job ~= nil or not server.draining) then
    server.trouble:worked({ server = server.name }, "claim")
  end
  if job == "end" then
    server:drain("the server has no more work")
    return nil
  end
  if job == nil and sys.mono() - began < EMPTY_PAUSE then server:pause(EMPTY_PAUSE) end
  return job
end

-- Whether a job is new here.  A server may hand out the next try of a job before it has answered the report
-- of the last one, for which that waits then, and keeps no other claimer waiting.
local function is_new(server, job)
  if not server.jobs[job.id] then return true end
  local before = server.contexts[job.id]
  if not (server.plugin.hands_out_retries and before and before.told) then return false end
  server.more:fire()
  while server.jobs[job.id] do server.changed:wait() end
  return true
end

-- What a claim brought: checked, written down, and started.  Returns whether the place is taken.
local function accept(server, scope, job)
  local wrong = jobs.check(job)
  if wrong then
    log.error("job.malformed", ("%s: the server handed out a job that cannot be used: %s"):format(
      server.name, wrong), { server = server.name })
    if jobs.has_id(job) and server.plugin.finish then
      work.finish(server, job, { state = "error", reason = "malformed job: " .. wrong })
    end
    return false
  end
  if not is_new(server, job) then
    log.warn("job.duplicate", ("job %s was handed out again while it runs; it runs once"):format(job.id),
      { server = server.name, job = job.id })
    return false
  end
  server.jobs[job.id] = job -- entered at once: it may be handed out again meanwhile
  if server.draining and release(server, job) then
    server.jobs[job.id] = nil
    return false
  end
  server.record:claimed(server, job)
  if server.wanted["job.claimed"] then link.emit(server, "job.claimed", { job = job }) end
  start_job(server, scope, job)
  return true
end

-- A claimer says what it is at: "claiming", "accepting" or nothing; a worker that stops waits for that.
local function any_in(server, step)
  for _, claimer in ipairs(server.claimers) do
    if claimer.step == step then return true end
  end
  return false
end

-- A job that nobody here could run now is left to others, if there may be any.
local function wait_able(server)
  while not server.executors:able() and not server.draining and not server.plugin.claims_always do
    server:pause(ABLE_PAUSE)
  end
end

-- With a place in hand: one claim and what becomes of it.
local function claim_for(server, scope, claimer)
  if server.state ~= "ready" and not link.wait_ready(server) then return false end
  if not server.executors:able() then wait_able(server) end
  if server.draining then return false end
  claimer.step = "claiming"
  local job = claim(server)
  claimer.step = job ~= nil and "accepting" or nil
  if job == nil then return false end
  local taken = accept(server, scope, job)
  claimer.step = nil
  if taken then server.more:fire() else server:pause(USELESS_PAUSE) end
  return taken
end

-- The others wait until there is more to have than one can fetch.
local function wait_more(server)
  server.more:wait()
  server.asking = server.asking + 1
end

-- Each claim that brings a job to run lets one more claimer go; each that does not stops one, but for the last.
local function claim_loop(server, scope, claimer)
  if claimer ~= server.claimers[1] then wait_more(server) end
  while not server.draining and server.state ~= "closed" do
    take_place(server)
    if not claim_for(server, scope, claimer) then
      server:give_place()
      if server.asking > 1 then
        server.asking = server.asking - 1
        wait_more(server)
      end
    end
  end
end

-- A claimer is broken off in its claim or while it waits for a place: neither fails the server.
local function run_claimer(server, scope, claimer)
  local ok, why = pcall(claim_loop, server, scope, claimer)
  claimer.step = nil
  server.changed:fire(1 << 20)
  if not ok and not (server.draining and err.is(why, "cancelled")) then error(why, 0) end
end

-- One pulse; whether it arrived.
local function pulse(server)
  local seen, list = server.self, {}
  for _, job in pairs(server.jobs) do list[#list + 1] = job end
  local ok, why = task.try(server.plugin.pulse, seen, list)
  if ok then
    server.last_contact = sys.mono()
    server.trouble:worked({ server = server.name }, "pulse")
  else
    link.heard(server, "pulse", why, seen)
  end
  return ok
end

-- Pulses keep their pace however long one takes.  One that failed is repeated sooner, and never later:
-- the server's patience with us is running.
local function pulse_loop(server)
  local every, failures = server.conf.heartbeat or PULSE_EVERY, 0
  while not server.runaway do
    if link.wait_ready(server) then
      local began = sys.mono()
      if pulse(server) then
        failures = 0
        task.sleep(math.max(0, began + every - sys.mono()))
      else
        failures = failures + 1
        task.sleep(math.min(every, 2 ^ (failures - 1)) * (0.5 + math.random() / 2))
      end
    else
      task.sleep(every)
    end
  end
end

-- The life of a server ---------------------------------------------------------------------------------

-- Whether the protocol alone decides what the record has to keep for a report: a policy around it may want
-- to see all of the job, unless it says that it looks at its id only.
local function is_brief(plugin, around)
  for _, policy in ipairs(around) do
    if policy.plugin.finish and not policy.plugin.finish_by_id then return false end
  end
  return plugin.brief ~= nil
end

local function build_chains(server)
  local policies = server.policies
  server.brief = is_brief(server.plugin, policies.finish or {})
  local function own(handle)
    server.owned[#server.owned + 1] = handle
    return handle
  end
  server.claim = chain.build("claim", policies.claim or {}, function()
    return server.plugin.claim(server.self)
  end, own)
  server.run = chain.build("run", policies.run or {}, function(job, ctx)
    return server.executors:run(job, ctx)
  end, own, server.workspace)
  server.finish = server.plugin.finish and chain.build("finish", policies.finish or {}, work.reporter(server), own)
end

-- Results and claims that an earlier life of this worker left behind.
local function replay(server, scope)
  for _, left in ipairs(server.record:left(server)) do
    if left.result and left.telling and server.plugin.finish_once then
      work.unsure(server, left.job, left.result, "the worker was killed while it reported")
      server.record:forget(server, left.job)
    elseif left.result then
      log.info("job.replayed", ("job %s: reporting the result of before the restart"):format(left.job.id),
        { server = server.name, job = left.job.id })
      scope:spawn(work.conclude, server, left.job, left.result)
    elseif server.plugin.hands_out_again then
      -- by itself, and perhaps has done so already: our word would only undo what others did
      server.record:forget(server, left.job)
    elseif left.started then
      scope:spawn(work.conclude, server, left.job,
        { state = "error", reason = "the worker was interrupted while the job ran" })
    else
      take_place(server)
      start_job(server, scope, left.job)
    end
  end
end

local function wait_idle(server)
  while server:busy() do server.changed:wait() end
end

local function may_break(server)
  return server.plugin.claim_breaks or type(server.self) == "table" and server.self.claim_breaks
end

-- Once the worker drains, claims under way get a grace; then they are broken off.
local function end_claimers(server)
  task.within(CLAIM_GRACE, function()
    while any_in(server, "claiming") and not may_break(server) do server.changed:wait(CLAIM_LOOK) end
  end)
  while any_in(server, "accepting") do server.changed:wait() end -- what a claim brought is not dropped
  for _, claimer in ipairs(server.claimers) do claimer.task:cancel("the worker stops") end
end

local function close(server)
  link.set_state(server, "closed")
  for i = #server.owned, 1, -1 do
    local ok, why = pcall(server.owned[i].close, server.owned[i])
    if not ok then log.warn("server.close_failed", ("%s: %s"):format(server.name, tostring(why)), { server = server.name }) end
  end
  if server.self and server.plugin.close then
    local ok, why = task.try(task.within, 10, server.plugin.close, server.self)
    if not ok then
      link.report_bug(server, "close", why)
      log.debug("server.close_failed", ("%s: %s"):format(server.name, tostring(why)), { server = server.name })
    end
  end
end

-- An executor that cannot work on this machine is found out before a job is claimed for it.
local function check_executor(server)
  local ok, why = task.try(server.executors.check, server.executors)
  if not ok then link.fail_server(server, why, EXIT_CONFIG) end
  return ok
end

--- `server:serve()`: open, work until drained, close. Returns an exit code.
function methods:serve()
  -- Not task.try: even a plugin that raises a cancel of its own ends no more than this server.
  local ok, why = pcall(task.scope, function(scope)
    build_chains(self)
    if not check_executor(self) then return end
    scope:spawn(function() link.open(self) end)
    link.wait_ready(self)
    if self.state == "ready" then replay(self, scope) end
    if self.plugin.pulse then scope:spawn(pulse_loop, self) end
    local many = math.min(self.slots, self.plugin.claims or 1)
    for i = 1, many do
      local claimer = {}
      self.claimers[i] = claimer
      claimer.task = scope:spawn(run_claimer, self, scope, claimer)
    end
    while not self.draining do self.drain_signal:wait() end
    end_claimers(self)
    wait_idle(self)
  end)
  close(self)
  link.emit(self, "server.closed", {})
  if not ok then
    log.error("server.failed", ("%s: %s"):format(self.name, tostring(why)), { server = self.name,
      traceback = type(why) == "table" and why.traceback or nil })
    return err.is(why, "file") and EXIT_IO or EXIT_SOFTWARE
  end
  return self.exit_code or 0
end

--- `server:drain(why)`: take no more jobs, finish those that run, then close.
function methods:drain(why)
  if self.draining then return end
  self.draining = true
  if not link.emit(self, "server.draining", { reason = why }) then
    log.info("server.draining", ("%s: taking no more jobs: %s"):format(self.name, why), { server = self.name })
  end
  self.drain_signal:fire(1 << 20)
  self.changed:fire(1 << 20)
end

--- `server:cancel_jobs(reason)`: end the running jobs; they are still reported.
function methods:cancel_jobs(reason)
  self.cancelling = reason
  for _, ctx in pairs(self.contexts) do ctx.cancel(reason) end
end

--- `server:hurry(all)`: there is no more time: reports that have failed already are left to the next
-- start, those under way, too, if all is true.  From now on logs are waited for less.
function methods:hurry(all)
  self.hurried = true
  for job, reporter in pairs(self.reporting) do
    if all or self.settled[job.id] then reporter:cancel("the worker stops") end
  end
end

return agent
