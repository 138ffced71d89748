-- policy.lua: what jobs may do on this machine, judged by what would really be run.
--
-- An executor says what it is about to run as a plan: image, user, limits, mounts, network.  A policy
-- is a table of switches, limits and patterns; each of its rules is kept, broken, or mended by changing
-- the plan.
--
--   worker.policy.fields   what a policy may say       worker.policy.rules   every rule
--   worker.policy.file     policies in files           worker.policy.match   patterns, names of images
--   worker.policy.groups   who is in which group
local err = require "worker.error"
local fields = require "worker.policy.fields"
local file = require "worker.policy.file"
local match = require "worker.policy.match"
local rules = require "worker.policy.rules"
local schema = require "worker.schema"

local policy = {}

local TOLD_MOST = 3
local NANO = 1e-9 -- engines count processors in billionths

--- `policy.fields()`: the fields of a policy, for configurations that have one inside.
function policy.fields() return fields.all end

--- `policy.default()`: the policy of those who have none: strict; no directories of the machine, no
-- network of the machine, nobody is root.
function policy.default()
  return (assert(schema.check(fields.all, fields.default, nil, "", { env = function() end })))
end

--- `policy.check(path)`: the policy of a file, or nil; and what is wrong with it, each with its place.
policy.check = file.read

--- `policy.parse(name, source)`: the same for text.
policy.parse = file.parse

--- `policy.read(path)`: the policy of a file; raises kind "config" with all that is wrong.
function policy.read(path)
  local found, problems = file.read(path)
  if found then return found end
  local lines = {}
  for i, problem in ipairs(problems) do lines[i] = tostring(problem) end
  err.raise("config", table.concat(lines, "\n"))
end

--- `policy.image(name)`: the full name of an image: policy.image "alpine" is
-- "docker.io/library/alpine:latest".
policy.image = match.image

--- `policy.merge(base, more)`: a policy over another: what `more` says by itself counts; a list that is
-- empty says nothing.
function policy.merge(base, more)
  local merged = {}
  for key, value in pairs(base) do merged[key] = value end
  for key, value in pairs(more) do
    if type(value) == "table" and type(merged[key]) == "table" and #value == 0 and #merged[key] == 0 then
      merged[key] = policy.merge(merged[key], value)
    elseif type(value) ~= "table" or next(value) ~= nil then
      merged[key] = value
    end
  end
  return merged
end

-- Judging -------------------------------------------------------------------------------------------------

local function judge(one, given, plan)
  local kept, detail = one.check(given, plan)
  local state = kept == nil and "unasked" or kept and "kept" or "broken"
  return { rule = one.id, severity = one.severity, state = state, detail = detail }
end

local function mend(one, given, plan, verdict)
  if not one.mend or one.field and (plan.fixed or {})[one.field] then return end
  local done = one.mend(given, plan)
  verdict.state = "mended"
  verdict.detail = (verdict.detail and verdict.detail .. ": " or "") .. done
end

-- What an engine takes for no limit is none: it is not less than any.
local function drop_empty_limits(plan)
  for _, name in ipairs { "cpus", "memory", "pids" } do
    if plan[name] and plan[name] < NANO then plan[name] = nil end
  end
  if plan.memory_swap == 0 then plan.memory_swap = nil end
end

local function ids_of(verdicts, state)
  local ids = {}
  for _, verdict in ipairs(verdicts) do
    if verdict.state == state then ids[#ids + 1] = verdict.rule end
  end
  return ids
end

--- `policy.judge(given, plan)`: { policy=, mode=, allowed=, verdicts=, broken=, mended= }: a verdict per rule
-- { rule=, severity=, state= ("kept", "broken", "mended", "unasked"), detail= }; broken and mended are
-- ids.  The plan is changed where it is mended.
function policy.judge(given, plan)
  local verdicts = {}
  if given.mode ~= "disabled" then drop_empty_limits(plan) end
  for i, one in ipairs(given.mode ~= "disabled" and rules or {}) do
    local filled = one.fill and one.fill(given, plan)
    local verdict = judge(one, given, plan)
    if verdict.state == "broken" and given.mode == "permissive" then mend(one, given, plan, verdict) end
    if filled and verdict.state ~= "broken" then verdict.state, verdict.detail = "mended", filled end
    verdicts[i] = verdict
  end
  local broken = ids_of(verdicts, "broken")
  return { policy = given.id, mode = given.mode, verdicts = verdicts, broken = broken, mended = ids_of(verdicts, "mended"),
    allowed = given.mode ~= "strict" or #broken == 0 }
end

--- `policy.words(decision)`: what is to be said about broken rules, the first of them with their details.
function policy.words(decision)
  local words, more = {}, 0
  for _, verdict in ipairs(decision.verdicts) do
    if verdict.state == "broken" and #words < TOLD_MOST then
      words[#words + 1] = verdict.rule .. (verdict.detail and (" (%s)"):format(verdict.detail) or "")
    elseif verdict.state == "broken" then
      more = more + 1
    end
  end
  return table.concat(words, ", ") .. (more > 0 and (" and %d more"):format(more) or "")
end

--- `policy.rules()`: the ids of all rules, in the order in which they are judged.
function policy.rules()
  local ids = {}
  for i, one in ipairs(rules) do ids[i] = one.id end
  return ids
end

return policy
