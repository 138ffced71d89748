-- agent.lua: one server of one worker: open, claim, run, report, stop.
--
-- The agent owns every loop, so that a protocol plugin says only what its server's wire looks like.
-- A server has one claimer (or as many as the plugin asks for) that takes a free slot before it
-- claims, a task per running job, and a pulse.  Whatever a plugin raises ends here and becomes a
-- decision: again later, open anew, stop this server, or a result of the job.
--
-- A claim that is under way when the worker is asked to stop is not broken off: the job it may
-- bring would be lost.  It gets a grace, and what it brings is given back or run.
local chain = require "worker.chain"
local context = require "worker.context"
local err = require "worker.error"
local jobs = require "worker.job"
local log = require "worker.log"
local outage = require "worker.outage"
local retry = require "worker.retry"
local sys = require "worker.core.sys"
local task = require "worker.task"

local agent = {}

local PULSE_EVERY = 10
local BEAT_EVERY = 10
local CLAIM_GRACE = 35        -- how long a claim under way may take once the worker drains
local SHIP_GRACE = 30         -- how long a finished job waits for its log to arrive
local EMPTY_PAUSE = 0.05      -- between empty claims, whatever the policies say
local FINISH_GONE_TRIES = 3

local EXIT_UNAVAILABLE, EXIT_SOFTWARE, EXIT_AUTH = 69, 70, 77

local methods = {}
local meta = { __index = methods, __name = "worker.server" }

--- `agent.new(spec)`: spec: name, plugin, conf, slots, executor = { plugin=, conf= }, policies =
-- { claim=, run=, finish= }, events, record.
function agent.new(spec)
  local server = setmetatable({
    name = spec.name, plugin = spec.plugin, conf = spec.conf, slots = spec.slots or 1,
    executor = spec.executor, policies = spec.policies or {}, events = spec.events,
    record = spec.record, watchers = spec.watchers, workspace = spec.workspace, grace = spec.grace,
    spool_dir = spec.spool_dir,
    state = "opening", jobs = {}, contexts = {}, running = 0, done = 0,
    changed = task.signal(), drain_signal = task.signal(),
    trouble = outage.new("server", spec.name),
  }, meta)
  server.places = task.semaphore(server.slots)
  return server
end

-- Talking to the plugin --------------------------------------------------------------------------------

local function emit(server, name, facts)
  facts.server = server.name
  server.events:emit(name, facts)
end

local function set_state(server, state)
  server.state = state
  server.changed:fire(1 << 20)
end

-- What an error of the server means for us.
local function judge(why)
  if err.is(why, "gone") then return "gone" end
  if err.is(why, "http") and (why.status == 401 or why.status == 403) then return "refused" end
  if err.is(why, "config") then return "refused" end
  return "later"
end

local function fail_server(server, why, code)
  server.failure = why
  server.exit_code = code
  log.error("server.stopped", ("%s: %s; this server is given up"):format(server.name, tostring(why)),
    { server = server.name })
  server:drain("the server refused us")
end

local function report_bug(server, what, why)
  if err.kind(why) ~= "bug" then return end
  log.error("plugin.failed", ("%s: %s: %s"):format(server.name, what, tostring(why)),
    { server = server.name, traceback = type(why) == "table" and why.traceback or nil })
end

-- Open, again and again until it works, the worker drains, or the server refuses us.
local function open(server)
  for attempt in retry.attempts { first = 1, factor = 2, most = 60 } do
    local ok, self = task.try(server.plugin.open, server.conf)
    if ok then
      server.self = self == nil and {} or self
      server.trouble:worked { server = server.name }
      set_state(server, "ready")
      emit(server, "server.opened", {})
      return true
    end
    report_bug(server, "open", self)
    if judge(self) == "refused" then
      fail_server(server, self, err.is(self, "config") and 78 or EXIT_AUTH)
      return false
    end
    if server.trouble:failed(self, { server = server.name }) then
      emit(server, "server.lost", { error = self })
    end
    server.open_tries = (server.open_tries or 0) + 1
    if server.max_open_tries and server.open_tries >= server.max_open_tries then
      fail_server(server, self, EXIT_UNAVAILABLE)
      return false
    end
    if not server:pause(attempt:delay(err.is(self) and self.retry_after or nil)) then return false end
  end
end

-- The server said that it does not know us: open anew, once, however many tasks heard it.
local function reopen(server, seen)
  if server.self ~= seen then return end
  while server.state == "opening" do
    server.changed:wait()
    if server.self ~= seen then return end
  end
  log.info("server.reopening", ("%s: the server no longer knows this worker; opening anew"):format(
    server.name), { server = server.name })
  set_state(server, "opening")
  if not open(server) and server.state == "opening" then set_state(server, "closed") end
end

local function wait_ready(server)
  while server.state == "opening" and not server.draining do server.changed:wait() end
  return server.state == "ready"
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

-- Jobs -------------------------------------------------------------------------------------------------

local function heard(server, what, why, seen)
  report_bug(server, what, why)
  if judge(why) == "gone" then
    reopen(server, seen)
  elseif judge(why) == "refused" and what ~= "log" then
    fail_server(server, why, EXIT_AUTH)
  else
    server.trouble:failed(what .. ": " .. tostring(why), { server = server.name })
  end
end

-- The job's lease: ask now and then, and end the job when the server says so.
local function keep_lease(server, job, ctx)
  local every = job.beat_every or server.conf.beat or server.conf.heartbeat or BEAT_EVERY
  while true do
    task.sleep(every)
    local seen = server.self
    local ok, verdict = task.try(server.plugin.beat, seen, job)
    if not ok then
      heard(server, "beat", verdict, seen)
    elseif verdict == "cancel" then
      return ctx.cancel("cancelled")
    elseif verdict == "lost" then
      return ctx.cancel("lost")
    end
  end
end

-- Hand the log to the server, in order, each chunk until it has arrived or is refused for good.
local function ship_log(server, job, ctx)
  local backoff = { first = 0.5, factor = 2, most = 15 }
  for chunk in function() return ctx.joblog:next() end do
    for attempt in retry.attempts(backoff) do
      local seen = server.self
      local ok, why = task.try(server.plugin.log, seen, job, chunk)
      if ok then break end
      local verdict = retry.classify(why)
      if verdict == "gone" then
        reopen(server, seen)
      elseif verdict ~= "retry" then
        report_bug(server, "log", why)
        log.warn("job.log_refused", ("job %s: the server refuses the log: %s"):format(job.id, tostring(why)),
          { server = server.name, job = job.id })
        return ctx.joblog:abandon()
      end
      attempt:wait(err.is(why) and why.retry_after or nil)
    end
    ctx.joblog:arrived(chunk)
  end
end

-- Run the job and turn whatever happens into a result.
local function verdict(server, job, ctx)
  local ok, result = pcall(server.run, job, ctx)
  if ok then return jobs.check_result(result) end
  local kind = err.kind(result)
  if kind == "cancelled" then
    local reason = ctx.cancel_reason or result.reason
    if reason == "lost" then return { state = "lost", reason = "the server gave the job to another worker" } end
    return { state = "cancelled", reason = type(reason) == "string" and reason or "cancelled" }
  end
  if kind == "bug" or kind == "limit" then
    log.error("job.error", ("job %s: %s"):format(job.id, tostring(result)),
      { server = server.name, job = job.id, traceback = type(result) == "table" and result.traceback or nil })
  end
  return { state = "error", reason = tostring(result), code = kind == "spawn" and result.code or nil }
end

-- The scope of a running job: its lease, its log, and the run itself.
local function run_in_scope(server, job, ctx)
  local result
  task.scope(function(scope)
    local body = task.self()
    function ctx.cancel(reason)
      ctx.cancel_reason = ctx.cancel_reason or reason
      if not ctx.over then body:cancel(reason) end
    end
    if ctx.cancel_reason then ctx.cancel(ctx.cancel_reason) end
    if server.plugin.beat then scope:spawn(keep_lease, server, job, ctx) end
    local shipper = ctx.joblog and scope:spawn(ship_log, server, job, ctx)
    result = verdict(server, job, ctx)
    ctx.over = true
    if shipper then
      ctx.joblog:close()
      if not task.within(SHIP_GRACE, shipper.join, shipper) then
        log.warn("job.log_late", ("job %s: its log did not reach the server in %d s"):format(job.id, SHIP_GRACE),
          { server = server.name, job = job.id })
      end
    end
  end)
  return result
end

-- Report, until the server has taken it or refuses it for good.
local function finish(server, job, result)
  if not server.plugin.finish then return true end
  local ok, why = task.try(server.finish, job, result)
  if ok then return true end
  report_bug(server, "finish", why)
  log.error("job.unreported", ("job %s: its result (%s) could not be reported: %s"):format(
    job.id, result.state, tostring(why)), { server = server.name, job = job.id, state = result.state })
  return retry.classify(why) ~= "retry"
end

-- The innermost finish: a server that forgot us is opened anew, then told.
local function finish_once(server, job, result)
  for _ = 1, FINISH_GONE_TRIES do
    local seen = server.self
    local ok, why = task.try(server.plugin.finish, seen, job, result)
    if ok then return why end
    if not err.is(why, "gone") then error(why, 0) end
    reopen(server, seen)
  end
  err.raise("transport", "the server keeps forgetting this worker")
end

local function complete(server, job, ctx, result)
  result.output = result.output or context.output(ctx)
  result.duration = sys.mono() - ctx.began
  result.finished = sys.wall()
  server.done = server.done + 1
  emit(server, "job.finished", { job = job, ctx = ctx, result = result })
  if result.state == "lost" then
    server.record:forget(server, job)
    return
  end
  server.record:result(server, job, result)
  if finish(server, job, result) then server.record:forget(server, job) end
  emit(server, "job.reported", { job = job, result = result })
end

local function prepare(server, job, ctx)
  for _, slot in ipairs { "fetch", "start" } do
    if server.plugin[slot] then
      local ok, why = task.try(server.plugin[slot], server.self, job, ctx)
      if not ok then
        report_bug(server, slot, why)
        return { state = "error", reason = slot .. ": " .. tostring(why) }
      end
    end
  end
end

local function work(server, job)
  local ctx = context.new(server, job)
  server.contexts[job.id] = ctx
  if server.cancelling then ctx.cancel(server.cancelling) end
  emit(server, "job.started", { job = job, ctx = ctx })
  local failed = prepare(server, job, ctx)
  if failed then return complete(server, job, ctx, failed) end
  server.record:started(server, job)
  local result = run_in_scope(server, job, ctx)
  complete(server, job, ctx, result)
end

local function take_job(server, job, place)
  local _ <close> = place
  local ok, why = pcall(work, server, job)
  server.jobs[job.id], server.contexts[job.id] = nil, nil
  server.running = server.running - 1
  server.changed:fire(1 << 20)
  if not ok and not err.is(why, "cancelled") then
    log.error("job.error", ("job %s: %s"):format(job.id, tostring(why)), { server = server.name, job = job.id,
      traceback = type(why) == "table" and why.traceback or nil })
  end
end

-- Entered at once, not when its task first runs: the same job may be handed out again meanwhile.
local function start_job(server, scope, job, place)
  server.jobs[job.id] = job
  server.running = server.running + 1
  scope:spawn(take_job, server, job, place)
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

-- One claim; the job, nil for nothing, or "end".
local function claim(server)
  local seen = server.self
  local began = sys.mono()
  local ok, job = task.try(server.claim)
  if not ok then
    heard(server, "claim", job, seen)
    server:pause(EMPTY_PAUSE)
    return nil
  end
  server.trouble:worked { server = server.name }
  if job == nil and sys.mono() - began < EMPTY_PAUSE then server:pause(EMPTY_PAUSE) end
  return job
end

-- What a claim brought: checked, written down, and started.  Returns whether the place is taken.
local function accept(server, scope, job, place)
  local wrong = jobs.check(job)
  if wrong then
    log.error("job.malformed", ("%s: the server handed out a job that cannot be used: %s"):format(
      server.name, wrong), { server = server.name })
    if jobs.has_id(job) and server.plugin.finish then
      finish(server, job, { state = "error", reason = "malformed job: " .. wrong })
    end
    return false
  end
  if server.jobs[job.id] then
    log.warn("job.duplicate", ("job %s was handed out again while it runs; it runs once"):format(job.id),
      { server = server.name, job = job.id })
    return false
  end
  if server.draining and release(server, job) then return false end
  server.record:claimed(server, job)
  emit(server, "job.claimed", { job = job })
  start_job(server, scope, job, place)
  return true
end

local function claim_loop(server, scope)
  while not server.draining do
    local place = server.places:take()
    local taken = false
    if wait_ready(server) and not server.draining then
      local job = claim(server)
      if job == "end" then
        server:drain("the server has no more work")
      elseif job ~= nil then
        taken = accept(server, scope, job, place)
      end
    end
    if not taken then place:release() end
    if server.state == "closed" then break end
  end
end

local function pulse_loop(server)
  local every = server.conf.heartbeat or PULSE_EVERY
  while true do
    if wait_ready(server) then
      local seen, list = server.self, {}
      for _, job in pairs(server.jobs) do list[#list + 1] = job end
      local ok, why = task.try(server.plugin.pulse, seen, list)
      if ok then
        server.last_contact = sys.mono()
        server.trouble:worked { server = server.name }
      else
        heard(server, "pulse", why, seen)
      end
    end
    task.sleep(every)
  end
end

-- The life of a server ---------------------------------------------------------------------------------

local function build_chains(server)
  local policies = server.policies
  server.claim_chain = chain.build("claim", policies.claim or {}, function()
    return server.plugin.claim(server.self)
  end)
  function server.claim() return server.claim_chain { pause = function(s) return server:pause(s) end } end
  server.run = chain.build("run", policies.run or {}, function(job, ctx)
    return server.executor.plugin.run(server.executor.conf, job, ctx)
  end)
  server.finish = server.plugin.finish and chain.build("finish", policies.finish or {},
    function(job, result) return finish_once(server, job, result) end)
end

-- Results and claims that an earlier life of this worker left behind.
local function replay(server, scope)
  for _, left in ipairs(server.record:left(server)) do
    if left.result then
      log.info("job.replayed", ("job %s: reporting the result of before the restart"):format(left.job.id),
        { server = server.name, job = left.job.id })
      scope:spawn(function()
        if finish(server, left.job, left.result) then server.record:forget(server, left.job) end
      end)
    elseif left.started then
      scope:spawn(function()
        local result = { state = "error", reason = "the worker was interrupted while the job ran" }
        if finish(server, left.job, result) then server.record:forget(server, left.job) end
      end)
    else
      start_job(server, scope, left.job, server.places:take())
    end
  end
end

local function wait_idle(server)
  while server.running > 0 do server.changed:wait() end
end

-- Once the worker drains, claims under way get a grace; then they are broken off.
local function wait_claimers(server, claimers)
  local until_ = sys.mono() + (server.conf.claim_grace or CLAIM_GRACE)
  for _, claimer in ipairs(claimers) do
    local left = math.max(0, until_ - sys.mono())
    if not task.within(left, claimer.join, claimer) then claimer:cancel("the worker stops") end
  end
end

local function close(server)
  set_state(server, "closed")
  if server.self and server.plugin.close then
    local ok, why = task.try(task.within, 10, server.plugin.close, server.self)
    if not ok then
      report_bug(server, "close", why)
      log.debug("server.close_failed", ("%s: %s"):format(server.name, tostring(why)), { server = server.name })
    end
  end
end

--- `server:serve()`: open, work until drained, close. Returns an exit code.
function methods:serve()
  build_chains(self)
  local ok, why = task.try(task.scope, function(scope)
    local claimers = {}
    scope:spawn(function() open(self) end)
    wait_ready(self)
    if self.state == "ready" then replay(self, scope) end
    if self.plugin.pulse then scope:spawn(pulse_loop, self) end
    local many = math.min(self.slots, self.plugin.claims or 1)
    for i = 1, many do claimers[i] = scope:spawn(claim_loop, self, scope) end
    while not self.draining do self.drain_signal:wait() end
    wait_claimers(self, claimers)
    wait_idle(self)
  end)
  close(self)
  emit(self, "server.closed", {})
  if not ok then
    log.error("server.failed", ("%s: %s"):format(self.name, tostring(why)), { server = self.name,
      traceback = type(why) == "table" and why.traceback or nil })
    return EXIT_SOFTWARE
  end
  return self.exit_code or 0
end

--- `server:drain(why)`: take no more jobs, finish those that run, then close.
function methods:drain(why)
  if self.draining then return end
  self.draining = true
  log.info("server.draining", ("%s: taking no more jobs: %s"):format(self.name, why), { server = self.name })
  self.drain_signal:fire(1 << 20)
  self.changed:fire(1 << 20)
end

--- `server:cancel_jobs(reason)`: end the running jobs; they are still reported.
function methods:cancel_jobs(reason)
  self.cancelling = reason
  for _, ctx in pairs(self.contexts) do ctx.cancel(reason) end
end

return agent
