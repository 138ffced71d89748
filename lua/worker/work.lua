-- work.lua: one job of one server, from its start to its accepted report.
--
-- While it runs, two tasks stand beside it: one keeps its lease (and ends the job when the server
-- says so), one ships its log.  Whatever the executor raises becomes a result.
local context = require "worker.context"
local err = require "worker.error"
local guard = require "worker.guard"
local jobs = require "worker.job"
local link = require "worker.link"
local log = require "worker.log"
local retry = require "worker.retry"
local sys = require "worker.core.sys"
local task = require "worker.task"

local work = {}

local BEAT_EVERY = 10
local SHIP_GRACE = 30 -- how long a finished job waits for its log to arrive
local SHIP_HURRY = 5  -- the same once the worker has no more time
local SHIP_LOOK = 2   -- how often it looks whether that is still worth it
local FINISH_GONE_TRIES = 3

-- Another word would look as if the server never cancelled anything.
local function misunderstood(server, verdict)
  link.report_bug(server, "beat", err.new("bug", ('it returned %s; it returns "keep", "cancel" or "lost"'):format(
    type(verdict) == "string" and ("%q"):format(verdict) or tostring(verdict))))
end

-- The job's lease: ask now and then, and end the job when the server says so.
local function keep_lease(server, job, ctx)
  local every, told = job.beat_every or server.conf.beat or server.conf.heartbeat or BEAT_EVERY, false
  while not server.runaway do
    task.sleep(every)
    local seen = server.self
    local ok, verdict = task.try(server.plugin.beat, seen, job)
    if not ok then
      link.heard(server, "beat", verdict, seen)
    elseif verdict == "cancel" then
      return ctx.cancel("cancelled")
    elseif verdict == "lost" then
      return ctx.cancel("lost")
    elseif verdict ~= nil and verdict ~= "keep" and not told then
      told = true
      misunderstood(server, verdict)
    end
  end
end

-- Said once a job, and not for each of them when the whole server is known to be away.
local function log_waits(server, job, why)
  if server.trouble.since then return end
  log.warn("job.log_waits", ("job %s: the server does not take the log: %s; trying again"):format(job.id, tostring(why)),
    { server = server.name, job = job.id })
end

-- Hand the log to the server, in order, each chunk until it has arrived or is refused for good.
local function ship_log(server, job, ctx)
  local backoff, waited = { first = 0.5, factor = 2, most = 15 }, false
  for chunk in function() return ctx.joblog:next() end do
    for attempt in retry.attempts(backoff) do
      local seen = server.self
      local ok, why = task.try(server.plugin.log, seen, job, chunk)
      if ok then break end
      local verdict = retry.classify(why)
      if verdict == "gone" then
        link.reopen(server, seen, why)
      elseif verdict ~= "retry" then
        link.report_bug(server, "log", why)
        log.warn("job.log_refused", ("job %s: the server refuses the log: %s"):format(job.id, tostring(why)),
          { server = server.name, job = job.id })
        return ctx.joblog:abandon()
      elseif not waited then
        waited = true
        log_waits(server, job, why)
      end
      attempt:wait(err.is(why) and why.retry_after or nil)
    end
    ctx.joblog:arrived(chunk)
  end
end

-- A failure that is not the job's own is told in its log, too: that is where people look.
local function our_fault(ctx, reason)
  ctx.note(reason)
  return { state = "error", reason = reason }
end

-- What the plugin does before a job runs; the result of one that therefore cannot.
local function prepare(server, slot, job, ctx)
  local ok, why = task.try(server.plugin[slot], server.self, job, ctx)
  if ok then return nil end
  link.report_bug(server, slot, why)
  return our_fault(ctx, slot .. ": " .. tostring(why))
end

-- Bring what the job needs, tell the server that it begins, run it.
local function prepare_and_run(server, job, ctx)
  local plugin = server.plugin
  local failed = plugin.fetch and prepare(server, "fetch", job, ctx)
  failed = failed or plugin.start and prepare(server, "start", job, ctx)
  if failed then return failed end
  server.record:started(server, job)
  return server.run(job, ctx)
end

-- Run the job and turn whatever happens into a result.
local function verdict(server, job, ctx)
  local ok, result = pcall(prepare_and_run, server, job, ctx)
  if ok then return jobs.check_result(result) end
  local kind = err.kind(result)
  if kind == "cancelled" then
    local reason = ctx.cancel_reason or result.reason
    if reason == "lost" then return { state = "lost", reason = "the server gave the job to another worker" } end
    return { state = "cancelled", reason = type(reason) == "string" and reason or "cancelled" }
  end
  if kind == "limit" then link.report_bug(server, "run", result) end
  if kind == "bug" or kind == "limit" then
    log.error("job.error", ("job %s: %s"):format(job.id, tostring(result)),
      { server = server.name, job = job.id, traceback = type(result) == "table" and result.traceback or nil })
  end
  local failed = our_fault(ctx, tostring(result))
  failed.kind, failed.code = kind, (kind == "spawn" or kind == "refused") and result.code or nil
  return failed
end

-- What the server wants to have of what the job made; a plugin may change the result by it, and a cancel
-- that comes now breaks it off.
local function collect(server, job, ctx, result)
  if result.state == "lost" then return result end
  ctx.body = task.self()
  local ok, changed = pcall(server.plugin.collect, server.self, job, ctx, result)
  ctx.body = nil
  if ok then return changed and jobs.check_result(changed) or result end
  if err.is(changed, "cancelled") then
    if not ctx.cancel_reason then error(changed, 0) end -- not the job: its server ends
    task.forgive()
    return { state = ctx.cancel_reason == "lost" and "lost" or "cancelled",
      reason = "cancelled while its results were collected" }
  end
  link.report_bug(server, "collect", changed)
  return our_fault(ctx, "collect: " .. tostring(changed))
end

-- A finished job waits for its log to arrive.  While the server is away that takes as long as it
-- takes: the report could not arrive either.
local function wait_shipped(server, job, shipper)
  local began = sys.mono()
  while not task.within(SHIP_LOOK, shipper.join, shipper) do
    local grace = server.hurried and SHIP_HURRY or SHIP_GRACE
    if server.trouble.since and not server.cancelling and not server.hurried then
      began = sys.mono()
    elseif sys.mono() - began >= grace then
      return log.warn("job.log_late", ("job %s: its log did not reach the server in %d s"):format(job.id, grace),
        { server = server.name, job = job.id })
    end
  end
end

-- From here on the calling task can be cancelled as the job.
local function run_and_collect(server, job, ctx)
  ctx.body = task.self()
  if ctx.cancel_reason then ctx.cancel(ctx.cancel_reason) end
  local result = verdict(server, job, ctx)
  ctx.body = nil
  task.forgive() -- a cancel that came too late for the run must not hit the report
  return server.plugin.collect and collect(server, job, ctx, result) or result
end

-- The run, with its lease and its log beside it, for protocols that have one of them.
local function run_in_scope(server, job, ctx)
  return task.scope(function(scope)
    if server.plugin.beat then scope:spawn(keep_lease, server, job, ctx) end
    local shipper = ctx.joblog and scope:spawn(ship_log, server, job, ctx)
    local result = run_and_collect(server, job, ctx)
    if shipper then
      ctx.joblog:close()
      wait_shipped(server, job, shipper)
    end
    return result
  end)
end

-- The server could not be told: the worker has to stop before that, or the plugin is to blame.
local function leave_untold(server, job, result, why)
  server.untold = server.untold + 1
  log.error("job.untold", ("job %s: its result (%s) could not be reported%s; %s"):format(job.id, result.state, why,
    server.record.keeps and "it is kept, and the next start reports it" or "it is not kept: there is no record"),
    { server = server.name, job = job.id, state = result.state })
  return false
end

local function leave_to_next(server, job, result)
  task.forgive()
  local last = server.settled[job.id]
  return leave_untold(server, job, result, " before the worker stops" .. (last and (" (%s)"):format(last) or ""))
end

--- `work.finish(server, job, result)`: report, until the server has taken it or refuses it for good, or
-- the worker has no more time for it; whether there is nothing left to report.
function work.finish(server, job, result)
  if not server.plugin.finish then return true end
  server.reporting[job] = task.self()
  local ok, why = pcall(server.finish, job, result)
  server.reporting[job] = nil
  if ok then return true end
  if err.is(why, "cancelled") then
    if server.draining then return leave_to_next(server, job, result) end
    error(why, 0)
  end
  link.report_bug(server, "finish", why)
  -- with a plugin that is mended, or credentials that are right, it can be told
  if err.kind(why) == "bug" or retry.classify(why) == "denied" then
    return leave_untold(server, job, result, ": " .. tostring(why))
  end
  log.error("job.unreported", ("job %s: its result (%s) could not be reported: %s"):format(
    job.id, result.state, tostring(why)), { server = server.name, job = job.id, state = result.state })
  return retry.classify(why) ~= "retry"
end

-- A result that has to wait for its server must survive a power cut, too; once is enough.
local function settle(server, job, result, why)
  if server.settled[job.id] or retry.classify(why) ~= "retry" then return end
  server.settled[job.id] = tostring(why)
  server.record:settle(server, job, result)
end

-- Answers that say that the server has not looked at what was sent.
local NOT_TAKEN = { [408] = true, [425] = true, [429] = true }

-- Whether the server may have taken a report that failed in a way that time might heal.
local function maybe_taken(why)
  if retry.classify(why) ~= "retry" or why.sent == false then return false end
  return not (err.is(why, "http") and NOT_TAKEN[why.status])
end

--- `work.unsure(server, job, result, why)`: says that nobody knows whether the server has this result.
function work.unsure(server, job, result, why)
  log.warn("job.report_unsure", ("job %s: whether the server has its result (%s) is not known: %s; this protocol's "
    .. "report may not be repeated, so it is not"):format(job.id, result.state, why),
    { server = server.name, job = job.id, state = result.state })
end

--- `work.reporter(server)`: a function(job, result) that reports once; a server that forgot us is opened
-- anew, then told.  What a protocol says with finish_once is not said again once the server may have heard it.
function work.reporter(server)
  local plugin = server.plugin
  return function(job, result)
    local once = plugin.finish_once
    for _ = 1, FINISH_GONE_TRIES do
      local seen = server.self
      if once then server.record:telling(server, job, true) end
      local ok, why = task.try(plugin.finish, seen, job, result)
      if ok then return why end
      if once and maybe_taken(why) then return work.unsure(server, job, result, tostring(why)) end
      if once then server.record:telling(server, job, false) end
      if not err.is(why, "gone") then
        settle(server, job, result, why)
        error(why, 0)
      end
      link.reopen(server, seen, why)
    end
    err.raise("transport", "the server keeps forgetting this worker")
  end
end

--- `work.conclude(server, job, result)`: report; once the server knows, or refuses to, the job is over.
function work.conclude(server, job, result)
  if not work.finish(server, job, result) then return end
  server.record:forget(server, job)
  if server.wanted["job.reported"] then link.emit(server, "job.reported", { job = job, result = result }) end
end

-- What is on disk may be told while another job has the place.
local function tell(server, job, ctx, result)
  server.record:result(server, job, result)
  if ctx then ctx.aside = server:tell_aside() end
  work.conclude(server, job, result)
  server.settled[job.id] = nil
end

-- The end of a job is counted, and told to whoever wants to know.
local function ended(server, job, ctx, result)
  server.ended[result.state] = (server.ended[result.state] or 0) + 1
  if server.wanted["job.finished"] then
    link.emit(server, "job.finished", { server = server.name, job = job, ctx = ctx, result = result })
  end
end

local function complete(server, job, ctx, result)
  if not result.output then result.output, result.dropped = context.output(ctx) end
  result.executor, result.fallback = ctx.executor, ctx.fallback
  -- to the microsecond: more digits would be written down, and mean nothing
  result.duration = (sys.mono() - ctx.began) * 1e6 // 1 / 1e6
  result.finished = sys.wall() * 1e6 // 1 / 1e6
  server.done = server.done + 1
  ended(server, job, ctx, result)
  if result.state == "lost" then
    server.record:forget(server, job)
    return
  end
  ctx.told = true
  tell(server, job, ctx, result)
end

local function run(server, job)
  local ctx <close> = context.new(server, job)
  server.contexts[job.id] = ctx
  if server.cancelling then ctx.cancel(server.cancelling) end
  if server.wanted["job.started"] then
    link.emit(server, "job.started", { server = server.name, job = job, ctx = ctx })
  end
  local runs = (server.plugin.beat or server.plugin.log) and run_in_scope or run_and_collect
  complete(server, job, ctx, runs(server, job, ctx))
end

local guarded_run = guard.wrap(run)

-- The worker itself failed: the server hears of it all the same, unless it knows the job's end already.
local function own_bug(server, job, why)
  log.error("job.error", ("job %s: a bug in the worker: %s"):format(job.id, tostring(why)), { server = server.name,
    job = job.id, traceback = why.traceback })
  local ctx = server.contexts[job.id]
  if ctx and ctx.told then return end
  local result = { state = "error", reason = "a bug in the worker: " .. tostring(why) }
  if ctx then ended(server, job, ctx, result) end
  tell(server, job, ctx, result)
end

--- `work.take(server, job)`: the task of one job; gives its place back at the end, if not before.
function work.take(server, job)
  local ok, why = pcall(guarded_run, server, job)
  if not ok and not err.is(why, "cancelled") then task.try(own_bug, server, job, why) end
  local ctx = server.contexts[job.id]
  server.jobs[job.id], server.contexts[job.id] = nil, nil
  if ctx and ctx.aside then
    server.telling = server.telling - 1
  else
    server.running = server.running - 1
    server:give_place()
  end
  server.changed:fire(1 << 20)
end

return work
