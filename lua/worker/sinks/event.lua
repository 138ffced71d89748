-- sinks/event.lua: what happens in the worker, as the plain data that sinks get.
--
-- The driver's own events carry live objects (jobs with their secrets, contexts); what leaves the
-- worker is copied field by field, so that nothing slips out that nobody meant to tell.
local json = require "worker.json"
local sys = require "worker.core.sys"
local text = require "worker.text"
local time = require "worker.time"

local event = {}

local ID_MOST = 512
local WORDS_MOST = 1024
local OVERHEAD = 1536 -- what the tables of one take

local function words(value)
  return value ~= nil and text.cut(text.repair(tostring(value)), WORDS_MOST) or nil
end

local function job_of(job)
  local asked = job.executor
  return {
    id = text.cut(text.repair(job.id), ID_MOST), image = words(job.image), timeout = job.timeout,
    executor = type(asked) == "table" and words(table.concat(asked, ", ")) or words(asked),
  }
end

local function fallback_of(told)
  if not told then return nil end
  return { asked = words(told.asked), used = words(told.used), reason = words(told.reason), weaker = told.weaker or false }
end

-- More digits than milliseconds have are noise.
local function seconds(value)
  return value and math.floor(value * 1000 + 0.5) / 1000 or nil
end

local function usage_of(usage)
  if type(usage) ~= "table" then return nil end
  return { cpu = seconds(usage.cpu), wall = seconds(usage.wall), peak_memory = usage.peak_memory }
end

local function streams(values, shape)
  if type(values) ~= "table" then return nil end
  return { stdout = shape(values.stdout), stderr = shape(values.stderr) }
end

local function result_of(result)
  return {
    state = result.state, exit_code = result.exit_code, signal = words(result.signal), reason = words(result.reason),
    duration = seconds(result.duration), usage = usage_of(result.usage), executor = words(result.executor),
    fallback = fallback_of(result.fallback),
    output = streams(result.output, function(value) return value end),
    dropped = streams(result.dropped, function(value) return value end),
  }
end

local function names_of(list)
  local names = {}
  for i, name in ipairs(list or {}) do names[i] = words(name) end
  return json.array(names)
end

-- What each event tells beside its name, its server and its job.
local TELLS = {
  ["worker.started"] = function(facts) return { version = facts.version, servers = names_of(facts.servers) } end,
  ["worker.stopping"] = function(facts) return { reason = words(facts.reason) } end,
  ["worker.stopped"] = function(facts) return { exit_code = facts.exit_code } end,
  ["server.opened"] = function(facts) return { executors = names_of(facts.executors) } end,
  ["server.failing"] = function(facts) return { reason = words(facts.error), doing = words(facts.doing) } end,
  ["server.back"] = function(facts) return { seconds = seconds(facts.seconds), failures = facts.failures } end,
  ["server.draining"] = function(facts) return { reason = words(facts.reason) } end,
  ["server.closed"] = function() return {} end,
  ["executor.ready"] = function(facts) return { executor = words(facts.executor) } end,
  ["executor.failing"] = function(facts) return { executor = words(facts.executor), reason = words(facts.error) } end,
  ["executor.back"] = function(facts)
    return { executor = words(facts.executor), seconds = seconds(facts.seconds), failures = facts.failures }
  end,
  ["job.claimed"] = function() return {} end,
  ["job.started"] = function() return {} end,
  ["job.fallback"] = fallback_of,
  ["policy.decision"] = function(facts)
    return { policy = words(facts.policy), mode = facts.mode, decision = facts.decision, rules = names_of(facts.rules),
      mended = names_of(facts.mended) }
  end,
  ["job.finished"] = function(facts) return { result = result_of(facts.result) } end,
  ["job.reported"] = function(facts) return { result = result_of(facts.result) } end,
}

--- The names of all events, sorted.
event.NAMES = {}
for name in pairs(TELLS) do event.NAMES[#event.NAMES + 1] = name end
table.sort(event.NAMES)

--- `event.new(worker, name, facts)`: the event as sinks get it; nil for what is not told outside.
function event.new(worker, name, facts)
  local tells = TELLS[name]
  if not tells then return nil end
  local told = tells(facts)
  told.id, told.name, told.time, told.worker = text.random_id(), name, time.iso(), worker
  told.server = facts.server
  told.job = facts.job and job_of(facts.job)
  return told
end

--- `event.quiet(told)`: the same without what the job printed.
function event.quiet(told)
  if not (told.result and told.result.output) then return told end
  local copy, result = {}, {}
  for key, value in pairs(told) do copy[key] = value end
  for key, value in pairs(told.result) do result[key] = value end
  result.output, result.dropped = nil, nil
  copy.result = result
  return copy
end

--- `event.size(told)`: about how many bytes it holds.
function event.size(told)
  local output = told.result and told.result.output or {}
  return OVERHEAD + #(output.stdout or "") + #(output.stderr or "")
end

--- `event.started(conf)`: the facts of worker.started.
function event.started(conf)
  local names = {}
  for i, server in ipairs(conf.servers) do names[i] = server.name end
  return { version = sys.version(), servers = names }
end

return event
