-- worker.retry: trying again, politely.
--
-- The delays between attempts grow and are spread at random (full jitter), so that a thousand
-- workers whose server comes back do not return in the same second.  The loop stays the caller's:
-- attempts() is an iterator and only decides how long to wait and when to give up.
--
--   for attempt in retry.attempts { tries = 5 } do
--     local ok, err = task.try(send)
--     if ok then break end
--     if not attempt:wait(err.retry_after) then error(err, 0) end
--   end

local task = require "worker.task"
local time = require "worker.time"

local retry = {}

-- A server may ask for patience, but not for ever.
local AFTER_MOST = 3600

local Attempt = {}
Attempt.__index = Attempt

function Attempt:__tostring()
  return ("attempt %d"):format(self.number)
end

-- ---- how long to wait ----

local shapes = {}

function shapes.exponential(plan, number)
  return plan.first * plan.factor ^ (number - 1)
end

function shapes.linear(plan, number)
  return plan.first * number
end

-- Each delay is drawn between the first one and three times the one before: spreads like full
-- jitter but seldom comes near zero.
function shapes.decorrelated(plan, _, last)
  return plan.first + plan.random() * math.max(0, (last or plan.first) * 3 - plan.first)
end

local function natural_delay(attempt)
  local plan = attempt.plan
  local delay = math.min(plan.most, shapes[plan.shape](plan, attempt.number - attempt.base, attempt.last))
  attempt.last = delay
  if plan.jitter == "full" and plan.shape ~= "decorrelated" then delay = delay * plan.random() end
  return math.max(plan.least, delay)
end

-- What the server asked for is the least; a little is added so that all who were asked for the same
-- do not come back together.
local function asked_delay(plan, retry_after, delay)
  local asked = math.min(retry_after, AFTER_MOST)
  if plan.jitter == "full" then asked = asked + plan.random() * math.min(plan.first, asked / 10) end
  return math.max(asked, delay)
end

local function left(attempt)
  local plan = attempt.plan
  return plan.for_ and plan.started + plan.for_ - plan.clock() or math.huge
end

-- An attempt that held for long was a success that ended, not a failure: start over.
local function note_long_one(attempt)
  local plan = attempt.plan
  if plan.reset_after and plan.clock() - attempt.began >= plan.reset_after then attempt:reset() end
end

local function next_delay(attempt, retry_after)
  local plan = attempt.plan
  note_long_one(attempt)
  local delay, budget = natural_delay(attempt), left(attempt)
  if budget <= 0 or plan.tries and attempt.number - attempt.base >= plan.tries then return nil end
  if retry_after and retry_after > 0 then
    if math.min(retry_after, AFTER_MOST) > budget then return nil end
    delay = asked_delay(plan, retry_after, delay)
  end
  -- when the time is nearly up the last attempt is made at its end, not given away
  return math.min(delay, budget)
end

--- `attempt:delay([retry_after])`: the seconds until the next attempt, for a caller that waits by
-- itself; nil when there will be no next one: no tries are left, or the time is up, or the server
-- asks for more patience than is left.
function Attempt:delay(retry_after)
  local delay = next_delay(self, retry_after)
  self.settled, self.over = true, delay == nil
  return delay
end

--- `attempt:wait([retry_after])`: sleeps until the next attempt is due and returns true; or returns
-- false at once when there will be no next one.  ${retry_after} is what the server asked for, in
-- seconds.
function Attempt:wait(retry_after)
  local delay = self:delay(retry_after)
  if delay then self.plan.sleep(delay) end
  return delay ~= nil
end

--- `attempt:reset()`: says that something worked: the next delay is the first one again, and all
-- tries and all the time are given back.
function Attempt:reset()
  self.base, self.last = self.number - 1, nil
  self.plan.started = self.plan.clock()
end

-- ---- the iterator ----

local function new_plan(options)
  local plan = {
    first = options.first or 1, factor = options.factor or 2, most = options.most or 60,
    least = options.least or 0, tries = options.tries, for_ = options.for_,
    jitter = options.jitter or "full", shape = options.shape or "exponential",
    reset_after = options.reset_after,
    random = options.random or math.random, clock = options.clock or time.mono,
    sleep = options.sleep or task.sleep,
  }
  if not shapes[plan.shape] then
    error(('retry: shape "%s" is none of exponential, linear, decorrelated'):format(plan.shape), 3)
  end
  if plan.jitter ~= "full" and plan.jitter ~= "none" then
    error(('retry: jitter "%s" is none of full, none'):format(plan.jitter), 3)
  end
  plan.started = plan.clock()
  return plan
end

local function next_attempt(plan, before)
  return setmetatable({
    plan = plan, began = plan.clock(),
    number = before and before.number + 1 or 1,
    base = before and before.base or 0, -- attempts before this one do not count
    last = before and before.last,
  }, Attempt)
end

--- `retry.attempts{...}`: an iterator over attempts, for `for attempt in retry.attempts{...} do`.
-- Options: first (delay in seconds, 1), factor (2), most (longest delay, 60), least (0), tries
-- (number of attempts), for_ (seconds for all of them), jitter ("full" or "none"), shape
-- ("exponential", "linear", "decorrelated"), reset_after (an attempt that ran this long starts the
-- counting anew), random, clock and sleep (for specs).  A body that asks neither wait() nor delay()
-- is waited for before the next round, so the loop never spins.  The first attempt comes at once.
function retry.attempts(options)
  local plan = new_plan(options or {})
  local current
  return function()
    if current and not current.settled then current:wait() end
    if current and current.over then return nil end
    current = next_attempt(plan, current)
    return current
  end
end

-- ---- which errors are worth it ----

local GRPC = {
  [4] = "retry", [8] = "retry", [10] = "retry", [14] = "retry", -- deadline, exhausted, aborted, unavailable
  [7] = "denied", [16] = "denied",                              -- permission, authentication
}

-- What a Redis server says while it loads, changes its master or has a full disk.
local REDIS = { NOAUTH = "denied", WRONGPASS = "denied", NOPERM = "denied" }
for code in ("LOADING BUSY TRYAGAIN CLUSTERDOWN MASTERDOWN READONLY NOREPLICAS MISCONF OOM"):gmatch("%u+") do
  REDIS[code] = "retry"
end

local function by_status(status)
  if status == 401 or status == 403 or status == 407 then return "denied" end
  if status == 408 or status == 425 or status == 429 then return "retry" end
  if status == 501 or status == 505 then return "stop" end
  return status >= 500 and "retry" or "stop"
end

-- What a disk says that has room, or works, again later.
local PASSING = { ENOSPC = true, EDQUOT = true, EIO = true, EROFS = true, EMFILE = true, ENFILE = true, ENOMEM = true,
  ESTALE = true }

--- `retry.classify(error)`: what to do about an error: "retry" (it may pass: the network, a 5xx or
-- 429, an answer nobody can read, a full disk), "denied" (401, 403: stop loudly, the credentials are refused),
-- "gone" (the server no longer knows this worker: open again), or "stop" (cancelled, a bug, or
-- nothing that time would heal).
function retry.classify(err)
  local kind = type(err) == "table" and err.kind
  if kind == "transport" then return err.reason == "too_big" and "stop" or "retry" end
  if kind == "http" then return by_status(err.status or 0) end
  if kind == "grpc" then return err.reason ~= "too_big" and GRPC[err.code] or "stop" end
  if kind == "redis" then return REDIS[err.code] or "stop" end
  if kind == "wire" then return "retry" end
  if kind == "file" then return PASSING[err.name] and "retry" or "stop" end
  if kind == "gone" then return "gone" end
  return "stop"
end

-- A request that may have reached the server is sent again only when repeating does no harm.
local function may_repeat(err, options)
  if options.idempotent ~= false then return true end
  return type(err) == "table" and err.kind == "transport" and err.sent == false
end

--- `retry.call(fn [, options])`: what fn returns.  Calls it again after errors that
-- retry.classify() finds worth it; any other error, and the last one, is raised as it came.
-- Options are those of attempts(), and: classify (another judge), idempotent = false (only what
-- surely did not reach the server is repeated), on_retry(error, attempt, seconds) before each wait.
function retry.call(fn, options)
  options = options or {}
  local classify = options.classify or retry.classify
  for attempt in retry.attempts(options) do
    local results = table.pack(pcall(fn, attempt))
    if results[1] then return table.unpack(results, 2, results.n) end

    local err = results[2]
    local after = type(err) == "table" and err.retry_after or nil
    local delay = classify(err) == "retry" and may_repeat(err, options) and attempt:delay(after)
    if not delay then error(err, 0) end
    if options.on_retry then options.on_retry(err, attempt, delay) end
    attempt.plan.sleep(delay)
  end
end

return retry
