-- fallback.lua: the executors of one server: the first that works runs the job.
--
-- A job may name the executor it wants (job.executor), or a list, which then is all there is to
-- choose from; else the order of the configuration holds.  An executor that cannot work says so with
-- kind "unusable", before anything of the job has run: the next one takes it.  With `strict`, of the
-- server or of the job, there is no next one.  Whoever runs a job is named in its result; that it was
-- not the one asked for is an event, and a warning when it shields this machine less.
--
-- What has failed is asked again before it gets a job, at growing intervals; what works is asked again
-- before the next claim when the last answer is old, or when another one has just failed: they may
-- stand on the same engine, and a job that nobody can run is better not claimed.
local err = require "worker.error"
local log = require "worker.log"
local outage = require "worker.outage"
local sys = require "worker.core.sys"
local task = require "worker.task"

local fallback = {}

local AGAIN_FIRST, AGAIN_MOST = 1, 30
local FRESH = 5 -- seconds for which an answer is good enough to claim a job

-- What stands between a job and this machine, weakest first.
local ISOLATION = { process = 1, container = 2, sandbox = 3, machine = 4 }

local methods = {}
local meta = { __index = methods, __name = "worker.fallback" }

--- `fallback.new(executors, options)`: executors: a list of { name=, plugin=, conf= }; options: strict,
-- server (its name), emit = function(event, facts), again_most: the longest time, instead of 30 s, after
-- which one that has failed is asked again.
function fallback.new(executors, options)
  local self = setmetatable({ members = {}, by_name = {}, order = {}, strict = options.strict or false,
    server = options.server, again_most = options.again_most or AGAIN_MOST, emit = options.emit or function() end }, meta)
  for i, executor in ipairs(executors) do
    local name = executor.name or executor.plugin.name or tostring(i)
    local member = { name = name, plugin = executor.plugin, conf = executor.conf, asking = task.semaphore(1),
      trouble = outage.new("executor", "executor " .. name, function(event, facts)
        facts.executor = name
        return self.emit(event, facts)
      end) }
    self.members[i] = member
    self.by_name[name] = member
    self.order[i] = name
  end
  self.first = { self.order[1] }
  return self
end

-- Asking -------------------------------------------------------------------------------------------------

local function failed(self, member, why)
  member.usable, member.why = false, why
  member.wait = math.min((member.wait or AGAIN_FIRST / 2) * 2, self.again_most)
  member.again = sys.mono() + member.wait
  member.trouble:failed(why, { server = self.server, executor = member.name })
end

local function ask(self, member)
  local ok, why = true, nil
  if member.plugin.check then ok, why = task.try(member.plugin.check, member.conf) end
  if not ok then return failed(self, member, why) end
  if not member.met and not member.trouble.since then self.emit("executor.ready", { executor = member.name }) end
  member.met, member.usable, member.asked, member.why, member.wait = true, true, sys.mono(), nil, nil
  member.trouble:worked { server = self.server, executor = member.name }
end

local function must_ask(member, age)
  if member.usable then return age ~= nil and sys.mono() - member.asked > age end
  return sys.mono() >= (member.again or 0)
end

-- Many may want to know at once; one asks, and the others have the answer then.  Without an age, that it
-- worked is good enough, whenever that was.
local function is_usable(self, member, age)
  if must_ask(member, age) then
    local place <close> = member.asking:take() -- luacheck: ignore place
    if must_ask(member, age) then ask(self, member) end
  end
  return member.usable
end

--- `executors:able()`: whether a job that comes now could run at all.
function methods:able()
  local members, fresh = self.members, sys.mono() - FRESH
  for i = 1, #members do
    local member = members[i]
    if member.usable and member.asked >= fresh or is_usable(self, member, FRESH) then return true end
  end
  return false
end

--- `executors:usable()`: the names of those that work, as far as we know.
function methods:usable()
  local names = {}
  for _, member in ipairs(self.members) do
    if member.usable then names[#names + 1] = member.name end
  end
  return names
end

--- `executors:states()`: what is known of each: { name=, state="works" | "fails" | "unknown", reason= }.
function methods:states()
  local list = {}
  for i, member in ipairs(self.members) do
    list[i] = { name = member.name, reason = member.why and tostring(member.why) or nil,
      state = member.usable and "works" or member.usable == false and "fails" or "unknown" }
  end
  return list
end

--- `executors:check()`: ask all of them; raises what is wrong when none works and time will not heal it.
function methods:check()
  local hopeless
  for _, member in ipairs(self.members) do
    if is_usable(self, member) or err.is(member.why, "unusable") then
      hopeless = false
    elseif hopeless == nil then
      hopeless = member.why
    end
  end
  if hopeless then error(hopeless, 0) end
end

-- Choosing -----------------------------------------------------------------------------------------------

-- The names to try, in order.
local function plan(self, job)
  if job.executor == nil then return (self.strict or job.strict) and self.first or self.order end
  local names, seen = {}, {}
  local function add(name)
    if not seen[name] then names[#names + 1] = name end
    seen[name] = true
  end
  if type(job.executor) == "string" then add(job.executor) end
  for _, name in ipairs(type(job.executor) == "table" and job.executor or {}) do add(name) end
  if type(job.executor) ~= "table" then
    for _, member in ipairs(self.members) do add(member.name) end
  end
  if self.strict or job.strict then return { names[1] } end
  return names
end

local function rank(member)
  return ISOLATION[member and member.plugin.isolation or "process"] or ISOLATION.process
end

-- The best of what was asked for and not had: one we do not know counts as better than anything.
local function is_weaker(self, skipped, member)
  for _, one in ipairs(skipped) do
    local wanted = self.by_name[one.name]
    if not wanted or rank(wanted) > rank(member) then return true end
  end
  return false
end

local function reasons(skipped)
  local list = {}
  for i, one in ipairs(skipped) do list[i] = ("%s: %s"):format(one.name, one.why) end
  return table.concat(list, "; ")
end

local function tell(self, job, ctx, skipped, member)
  local told = {
    asked = skipped[1].name, used = member.name, reason = reasons(skipped), weaker = is_weaker(self, skipped, member),
  }
  local line = ("runs on %s instead of %s%s; %s"):format(told.used, told.asked,
    told.weaker and ", which shields this machine better" or "", told.reason)
  ctx.note(line)
  local heard = self.emit("job.fallback", { job = job, ctx = ctx, asked = told.asked, used = told.used, reason = told.reason,
    weaker = told.weaker })
  if not heard then
    log[told.weaker and "warn" or "info"]("job.fallback", ("job %s %s"):format(job.id, line), {
      server = self.server, job = job.id, asked = told.asked, used = told.used, weaker = told.weaker })
  end
  return told
end

-- Running ------------------------------------------------------------------------------------------------

-- One that failed may not be the only one: all are asked before the next claim.
local function doubt(self)
  for _, member in ipairs(self.members) do
    if member.usable then member.asked = -math.huge end
  end
end

-- Policies have a look before anything of the job is done; run lets them look again at what it has made
-- of it.
local function look(member, job, ctx)
  if not member.plugin.plan then
    err.raise("refused", ("the executor %s does not say what it would run (it has no `plan`): no policy can judge it"):format(
      member.name), { code = "PERMISSION" })
  end
  ctx.review(member.plugin.plan(member.conf, job, ctx), false)
end

-- What the executor says; nil and why when it could not even begin.
local function try(self, member, job, ctx)
  if ctx.review then look(member, job, ctx) end
  local ok, result = task.try(member.plugin.run, member.conf, job, ctx)
  if ok then return result == nil and false or result end
  if err.is(result, "unusable") then
    failed(self, member, result)
    doubt(self)
    return nil, tostring(result)
  end
  if err.is(result, "engine") and result.away then
    member.usable = nil -- to be asked before the next job
    doubt(self)
  end
  error(result, 0)
end

local function why_not(self, member)
  if not member then return "it is not among the executors of this server" end
  return not is_usable(self, member) and tostring(member.why) or nil
end

--- `executors:run(job, ctx)`: the result; ctx.executor is the name of who runs it, and ctx.fallback =
-- { asked=, used=, reason=, weaker= } where that is not the one asked for: so it is known however the
-- job ends.  Raises kind "unusable" when none could begin.
function methods:run(job, ctx)
  local names, skipped = plan(self, job), nil
  for i = 1, #names do
    local name, member, why, result = names[i], self.by_name[names[i]], nil, nil
    if not (member and member.usable) then why = why_not(self, member) end
    if not why then
      ctx.executor = name
      ctx.fallback = skipped and tell(self, job, ctx, skipped, member)
      result, why = try(self, member, job, ctx)
    end
    if not why then return result end
    skipped = skipped or {}
    skipped[#skipped + 1] = { name = name, why = why }
  end
  ctx.executor, ctx.fallback = nil, nil
  if not skipped then err.raise("unusable", "the job's list of executors is empty: it has to name one, or not be there") end
  err.raise("unusable", (#skipped > 1 and "no executor can run the job: " or "the executor cannot run the job: ")
    .. reasons(skipped))
end

return fallback
