-- What a Strøm server knows: workers, jobs and their steps, and what becomes of them.
--
-- The rules are the real server's, the odd ones too: a step's end is taken from anybody, at any time and
-- more than once; a cancelled step ends as failed; an unknown worker's heartbeat is welcome.
local json = require "worker.json"
local stage = require "worker.fakes.stage"
local sys = require "worker.core.sys"

local store = {}

local methods = {}
local meta = { __index = methods }

-- Which worker ability a step needs, by its type and runner, or its type alone.
local ABILITIES = { ["script local"] = "script", ["script none"] = "script", ["script docker"] = "docker",
  ["script pod"] = "kubernetes", ["shell local"] = "script", docker = "docker", pod = "kubernetes" }

local TERMINAL = { completed = true, failed = true, skipped = true, cancelled = true }
local JOB_TERMINAL = { completed = true, failed = true, cancelled = true }

-- What has changed is written before anybody is answered: once, however often it did.
local function touch(self, kind, row) self.touched[row] = kind end

-- The log and the artifacts of a job are kept elsewhere (the artifacts nowhere).
local function bare(job)
  local row, steps = {}, json.array {}
  for name, value in pairs(job) do row[name] = value end
  for i, step in ipairs(job.steps) do
    steps[i] = {}
    for name, value in pairs(step) do steps[i][name] = value end
    steps[i].artifacts = nil
  end
  row.steps, row.log = steps, nil
  return row
end

--- `store:save()`: what has changed since the last time.
function methods:save()
  for row, kind in pairs(self.touched) do self.keep:put(kind, kind == "job" and bare(row) or row) end
  self.touched = {}
end

local function load(self)
  local logs = {}
  for kind, row in self.keep:rows() do
    if kind == "log" then
      logs[#logs + 1] = row
    elseif kind == "worker" then
      self.workers[row.id] = row
    else
      row.log = json.array {}
      for _, step in ipairs(row.steps) do step.artifacts = {} end
      self.jobs[row.id], self.list[#self.list + 1] = row, row
    end
  end
  table.sort(self.list, function(a, b) return a.number < b.number end)
  for _, row in ipairs(logs) do table.move(row.entries, 1, #row.entries, #self.jobs[row.job].log + 1, self.jobs[row.job].log) end
end

--- `store.new(knobs, keep)`: what is known, kept in `keep` (see worker.fakes.stage).
function store.new(knobs, keep)
  local self = setmetatable({ knobs = knobs, keep = keep, workers = {}, jobs = {}, list = {}, cancelled = {}, touched = {} },
    meta)
  load(self)
  return self
end

-- Workers ------------------------------------------------------------------------------------------------

function methods:register(fields)
  local worker = { id = stage.uuid(), name = fields.name, capabilities = fields.capabilities, tags = fields.tags,
    exclusive = fields.exclusive, version = fields.version, heartbeat = sys.wall(), status = "active" }
  self.workers[worker.id] = worker
  touch(self, "worker", worker)
  return worker
end

function methods:heartbeat(id)
  local worker = self.workers[id]
  if not worker then return end
  worker.heartbeat, worker.status = sys.wall(), "active"
  touch(self, "worker", worker)
end

-- Jobs ---------------------------------------------------------------------------------------------------

local SPEC = { "script", "source", "cmd", "language", "interpreter", "dependencies", "args", "env", "workdir", "image",
  "command", "entrypoint" }

local function new_step(job, fields, position)
  local spec = { type = fields.type or "script", tags = json.array(fields.tags or {}), input = json.object {},
    interactive = false }
  for _, name in ipairs(SPEC) do spec[name] = fields[name] end
  return {
    name = fields.name or "step" .. position, job = job.id, action = fields.action, type = spec.type,
    runner = fields.runner or "local", spec = fields.spec == nil and spec or fields.spec, input = fields.input or json.object {},
    tags = fields.tags or {}, needs = fields.needs or {}, timeout = fields.timeout, retries = fields.retries or 0,
    retry_attempt = 0, retry_history = json.array {}, tolerant = fields.continue_on_failure,
    revision = fields.revision, unrenderable = fields.unrenderable, extra = fields.extra,
    status = "pending", runs = 0, completes = 0, artifacts = {},
  }
end

--- `store:add(fields)`: a job: { task=, workspace=, timeout=, steps = {...} }, or one step's fields, or a
-- script; its steps are those of SPEC, and name, needs, tags, timeout, retries, continue_on_failure.
function methods:add(fields)
  if type(fields) == "string" then fields = { script = fields } end
  local job = { id = stage.uuid(), workspace = fields.workspace or "default", task = fields.task or "task",
    number = #self.list + 1, status = "pending", steps = {}, log = json.array {}, orchestrated = 0 }
  for i, one in ipairs(fields.steps or { fields }) do
    if type(one) == "string" then one = { script = one } end
    job.steps[i] = new_step(job, one, i)
  end
  self.jobs[job.id], self.list[#self.list + 1] = job, job
  self:promote(job)
  return job
end

function methods:step(job_id, name)
  local job = self.jobs[job_id]
  for _, step in ipairs(job and job.steps or {}) do
    if step.name == name then return step, job end
  end
end

-- Steps whose needs are met become ready; those whose needs failed are skipped.
function methods:promote(job)
  touch(self, "job", job)
  local changed = true
  while changed do
    changed = false
    for _, step in ipairs(job.steps) do
      local ready, hopeless = step.status == "pending", false
      for _, name in ipairs(step.needs) do
        local other = self:step(job.id, name)
        local ended = other and (other.status == "completed" or other.status == "failed" and other.tolerant)
        ready = ready and ended
        hopeless = hopeless or other and not ended and TERMINAL[other.status] == true
      end
      if ready or step.status == "pending" and hopeless then
        step.status, step.ready_at, changed = ready and "ready" or "skipped", sys.wall(), true
      end
    end
  end
end

local function settle_job(job)
  local failed = false
  for _, step in ipairs(job.steps) do
    if not TERMINAL[step.status] then return end
    failed = failed or step.status == "failed" and not step.tolerant
  end
  if job.status ~= "cancelled" then job.status = failed and "failed" or "completed" end
end

local function orchestrate(self, job)
  job.orchestrated = job.orchestrated + 1
  self:promote(job)
  settle_job(job)
end

local function fail_step(self, step, message)
  local job = self.jobs[step.job]
  step.error, step.output = message, nil
  if step.retry_attempt < step.retries then
    step.retry_attempt = step.retry_attempt + 1
    table.insert(step.retry_history, { error = message })
    step.status, step.ready_at, step.worker_id = "ready", sys.wall(), nil
  else
    step.status, step.ended_at = "failed", sys.wall()
  end
  orchestrate(self, job)
end

-- Claims -------------------------------------------------------------------------------------------------

local function has(list, value)
  for _, item in ipairs(list) do
    if item == value then return true end
  end
  return false
end

local function subset(some, all)
  for _, item in ipairs(some) do
    if not has(all, item) then return false end
  end
  return true
end

local function matches(self, step, offer)
  if self.knobs.generation == "head" then
    local ability = ABILITIES[step.type .. " " .. step.runner] or ABILITIES[step.type] or "none"
    return has(offer.capabilities, ability) and subset(step.tags, offer.tags or {})
      and (not offer.exclusive or subset(offer.tags or {}, step.tags))
  elseif self.knobs.generation == "s1" then
    return subset({ step.type }, offer.tags or offer.capabilities)
  end
  return has(offer.capabilities, step.type)
end

--- `store:claim(offer)`: a step that was ready and is now running; nil; or "unrenderable".
function methods:claim(offer)
  for _, job in ipairs(self.list) do
    for _, step in ipairs(job.steps) do
      if step.status == "ready" and matches(self, step, offer) then
        if step.unrenderable then
          fail_step(self, step, "template error: undefined variable")
          return "unrenderable"
        end
        step.status, step.worker_id, step.started_at, step.runs = "running", offer.worker_id, sys.wall(), step.runs + 1
        touch(self, "job", job)
        return step, job
      end
    end
  end
end

function methods:start(job_id, name, worker_id)
  local step, job = self:step(job_id, name)
  if not step then return end
  step.status, step.worker_id, step.started_at = "running", worker_id, sys.wall()
  if job.status == "pending" then job.status = "running" end
  touch(self, "job", job)
end

--- `store:complete(job_id, name, body)`: whoever says so, as often as it is said.
function methods:complete(job_id, name, body)
  local step, job = self:step(job_id, name)
  if not step then return end
  step.completes = step.completes + 1
  step.exit_code = body.exit_code
  if body.error ~= nil or (body.exit_code or 0) ~= 0 then
    return fail_step(self, step, body.error or ("Process exited with code %d"):format(body.exit_code))
  end
  step.status, step.output, step.error, step.ended_at = "completed", body.output, nil, sys.wall()
  orchestrate(self, job)
end

function methods:cancel(job_id)
  local job = self.jobs[job_id]
  if not job or JOB_TERMINAL[job.status] then return end
  job.status = "cancelled"
  touch(self, "job", job)
  self.cancelled[job_id] = true
  for _, step in ipairs(job.steps) do
    if step.status == "pending" or step.status == "ready" then step.status = "cancelled" end
  end
end

--- `store:say(job, entries)`: more of its log.
function methods:say(job, entries)
  table.move(entries, 1, #entries, #job.log + 1, job.log)
  touch(self, "log", { id = ("%s/%d"):format(job.id, #job.log), job = job.id, entries = json.array(entries) })
end

-- The sweep ------------------------------------------------------------------------------------------------

local function matched(self, step)
  for _, worker in pairs(self.workers) do
    if worker.status == "active" and matches(self, step, worker) then return true end
  end
  return false
end

local function log_line(self, job, line)
  self:say(job, { { ts = os.date("!%Y-%m-%dT%H:%M:%S+00:00"), stream = "stderr", step = "_server", line = line } })
end

--- `store:sweep()`: what the server does now and then about workers and steps that take too long.
function methods:sweep()
  local now, knobs, stale = sys.wall(), self.knobs, {}
  for id, worker in pairs(self.workers) do
    if worker.status == "active" and now - worker.heartbeat > knobs.heartbeat_timeout then
      worker.status, stale[id] = "inactive", true
      touch(self, "worker", worker)
    end
  end
  for _, job in ipairs(self.list) do
    for _, step in ipairs(job.steps) do
      if step.status == "running" and stale[step.worker_id] then
        local why = ("worker %s missed its heartbeats (heartbeat timeout)"):format(step.worker_id)
        log_line(self, job, why)
        fail_step(self, step, why)
      elseif step.status == "running" and step.timeout and now > step.started_at + step.timeout + knobs.timeout_slack then
        fail_step(self, step, "step timed out (server-side enforcement)")
      elseif step.status == "ready" and now - step.ready_at > knobs.unmatched_timeout and not matched(self, step) then
        step.retries = step.retry_attempt
        fail_step(self, step, "No active worker with required capability/tags")
      end
    end
  end
end

return store
