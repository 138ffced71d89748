-- enforce: nothing runs that breaks a rule of the policy.
--
-- The executor says what it is about to run, and that is what is judged: the container as it would be
-- ordered, not the job as it was written.  It is looked at before the engine is asked for anything, and
-- again at what the engine is going to be told.  Every decision is a line of the log and an event.
local err = require "worker.error"
local fs = require "worker.fs"
local log = require "worker.log"
local policy = require "worker.policy"

local enforce = { kind = "policy", name = "enforce", api = 1 }

enforce.doc = "Runs only what a policy allows, judged by what the executor is about to run."

enforce.config = {
  file = { "path", example = "/etc/worker/policy.yaml",
    doc = "The policy; `worker policy sample` prints one. The strict default policy if absent." },
  sessions = { "map", of = { "path" }, default = {}, example = { ["s-1"] = "/etc/worker/policy-s-1.yaml" },
    doc = "Policies over it, for the jobs of a session." },
}

local function paths_of(conf)
  local paths = { conf.file }
  for _, path in pairs(conf.sessions) do paths[#paths + 1] = path end
  return paths
end

function enforce.check(conf)
  for _, path in ipairs(paths_of(conf)) do
    local found, problems = policy.check(path)
    if not found then return tostring(problems[1]), path == conf.file and "file" or "sessions" end
  end
end

-- A file that was changed counts from the next job on; one that was broken by that does not.
local function reader()
  local held = {}
  return function(path)
    local stat, known = fs.stat(path), held[path]
    local print = stat and ("%s %s %s"):format(stat.ino, stat.size, stat.mtime) or "gone"
    if known and known.print == print then return known.policy end
    local found, problems = policy.check(path)
    if not found and not known then err.raise("config", tostring(problems[1])) end
    if not found then
      log.error("policy.unreadable", ("the policy stays as it was: %s"):format(tostring(problems[1])), { file = path })
    end
    held[path] = { print = print, policy = found or known.policy }
    return held[path].policy
  end
end

local function policy_of(conf, read, job)
  local base = conf.file and read(conf.file) or policy.default()
  local own = job.session and conf.sessions[job.session]
  return own and policy.merge(base, read(own)) or base
end

-- What was decided, for the log, for who listens, and where it changed something in the job's own log.
local function tell(decision, plan, job, ctx)
  local word = not decision.allowed and "refused" or #decision.broken > 0 and "tolerated" or "allowed"
  local rules, mended = table.concat(decision.broken, ","), table.concat(decision.mended, ",")
  local line = ("job %s: policy %s (%s): %s"):format(job.id, decision.policy, decision.mode, word)
  if rules ~= "" then line = line .. ": " .. policy.words(decision) end
  local told = ctx.emit and ctx.emit("policy.decision", { policy = decision.policy, mode = decision.mode, decision = word,
    rules = decision.broken, mended = decision.mended })
  if not told then
    log[word == "allowed" and "info" or "warn"]("policy.decision", line, {
      server = ctx.server, job = job.id, policy = decision.policy, mode = decision.mode, decision = word,
      rules = rules ~= "" and rules or nil, mended = mended ~= "" and mended or nil, image = plan.image })
  end
  for _, verdict in ipairs(decision.verdicts) do
    if verdict.state == "mended" and decision.mode == "permissive" then
      ctx.note(("policy %s: %s: %s"):format(decision.policy, verdict.rule, verdict.detail))
    end
  end
end

-- A review for one job: `state` keeps the last decision, whether it was told, and the refusal.
local function reviewer(given, job, ctx, state)
  return function(plan, final)
    local decision = policy.judge(given, plan)
    state.last = { decision, plan }
    if final or not decision.allowed then
      tell(decision, plan, job, ctx)
      state.told = true
    end
    if decision.allowed then return end
    state.refusal = err.new("refused", ("policy %s refuses: %s"):format(decision.policy, policy.words(decision)),
      { code = "PERMISSION", rules = decision.broken, policy = decision.policy })
    error(state.refusal, 0)
  end
end

function enforce.run(conf, next)
  local read = reader()
  return function(job, ctx)
    local outer, state, given = ctx.review, {}, policy_of(conf, read, job)
    if given.mode == "disabled" then
      tell(policy.judge(given, {}), {}, job, ctx)
      return next(job, ctx)
    end
    local own = reviewer(given, job, ctx, state)
    function ctx.review(plan, final)
      if outer then outer(plan, final) end
      own(plan, final)
    end
    local ok, result = pcall(next, job, ctx)
    ctx.review = outer
    if state.last and not state.told then tell(state.last[1], state.last[2], job, ctx) end
    if ok then return result end
    if result ~= state.refusal then error(result, 0) end
    ctx.note(result.message)
    return { state = "error", reason = result.message, code = "PERMISSION", rules = result.rules, policy = result.policy }
  end
end

return enforce
