-- A Strøm server, as workers see it: its bytes, its states, its oddities.
--
--   local fake <close> = strom.serve { jobs = { "echo hi" }, generation = "head" }
--   fake.store                     see worker.fakes.strom.store
--   fake:add { script = "exit 3" }                a job more; its table
--   fake:restart()                 what only the process knew is lost: which jobs were cancelled
--   fake:put_workspace(name, dir)  a revision of a workspace, from a directory; returns the revision
--
-- For people: POST /api/jobs, GET /api/jobs, GET /api/jobs/{id}, GET /api/jobs/{id}/logs, POST
-- /api/jobs/{id}/cancel, GET /api/workers.  What every fake can do is told in worker.fakes.stage.
local archive = require "worker.archive"
local fs = require "worker.fs"
local json = require "worker.json"
local stage = require "worker.fakes.stage"
local store = require "worker.fakes.strom.store"
local sys = require "worker.core.sys"
local task = require "worker.task"
local text = require "worker.text"

local JSON, TEXT, refuse, failed = stage.JSON, stage.TEXT, stage.refuse, stage.failed

local KNOBS = {
  token = { "string", default = "0123456789abcdef0123456789abcdef", doc = "What workers have to bring." },
  generation = { "enum", values = { "head", "s1", "s0" }, default = "head",
    doc = "Which server: today's (head), that of the first releases (s1), or the very first (s0)." },
  heartbeat_timeout = { "duration", default = "120s", doc = "A worker not heard of for longer is inactive." },
  unmatched_timeout = { "duration", default = "30s", doc = "A step that no worker could take fails after this." },
  timeout_slack = { "duration", default = "0s", doc = "How long after its timeout a step is failed by the server." },
  sweep_interval = { "duration", default = "60s", min = "50ms", doc = "How often all of this is looked at." },
  artifact_most = { "size", default = "100MiB", doc = "Largest artifact." },
  storage = { "boolean", default = true, doc = "Whether there is room for state and artifacts." },
  workspace = { "path", doc = "A directory that is the workspace `default`." },
}

local BODY_MOST = 2 * 1024 * 1024
local STATE_MOST = 50 * 1024 * 1024
local RAW_MOST = 200 * 1024 * 1024
local OK = '{"status":"ok"}'
local ABILITIES = { script = true, docker = true, kubernetes = true, agent = true }
local SAMPLES = {
  { script = "echo hello from Strøm; echo 'OUTPUT: {\"n\": 1}'" }, { script = "echo oops >&2; exit 3" },
  { task = "two steps", steps = {
    { name = "a", script = "sleep 1; echo first" }, { name = "b", script = "echo second", needs = { "a" } } } },
  { script = "print('hello from Python')", language = "python" }, { script = "sleep 30", timeout = 2 },
}

-- Refusals, as the framework and the application make them ---------------------------------------------------

local function authorize(self, route, request)
  if not route:find(" /worker/", 1, true) then return end
  local header = request:header("authorization")
  if not header then failed(401, "Missing Authorization header") end
  if header:sub(1, 7) ~= "Bearer " then failed(401, "Invalid Authorization header format") end
  if header:sub(8) ~= self.knobs.token then failed(401, "Invalid worker token") end
end

local function read_json(request)
  if not (request:header("content-type") or ""):lower():find("^application/json") then
    refuse(415, TEXT, "Expected request with `Content-Type: application/json`")
  end
  local body = not stage.too_long(request, BODY_MOST) and request:read_body()
  if not body or #body > BODY_MOST then refuse(413, TEXT, "Failed to buffer the request body: length limit exceeded") end
  local ok, value = task.try(json.decode, body, { depth = 128 })
  if not ok then refuse(400, TEXT, "Failed to parse the request body as JSON: " .. value.message) end
  if type(value) ~= "table" or json.is_array(value) then
    refuse(422, TEXT, "Failed to deserialize the JSON body into the target type: expected struct")
  end
  return value
end

local function mistyped(what) refuse(422, TEXT, "Failed to deserialize the JSON body into the target type: " .. what) end

-- A field of a kind: required unless there is a `?` behind it.
local function field(body, name, kind)
  local optional = kind:sub(-1) == "?"
  kind = kind:gsub("%?$", "")
  local value = body[name]
  if value == nil then
    if not optional then mistyped(("missing field `%s`"):format(name)) end
    return nil
  end
  local good = type(value) == kind or kind == "list" and json.is_array(value)
    or kind == "int" and math.type(value) == "integer" and value >= -2 ^ 31 and value < 2 ^ 31
  if good and kind == "list" then
    for _, item in ipairs(value) do good = good and type(item) == "string" end
  end
  if not good then mistyped(("%s: invalid type, expected %s"):format(name, kind)) end
  return value
end

local function is_uuid(value) return value:find("^%x%x%x%x%x%x%x%x%-%x+%-%x+%-%x+%-%x+$") ~= nil and #value == 36 end

local function worker_id(body)
  local id = field(body, "worker_id", "string")
  if not is_uuid(id) then failed(400, "Invalid worker_id") end
  return id
end

local function job_id(request)
  if not is_uuid(request.params.job) then
    refuse(400, TEXT, "Invalid URL: Cannot parse `job_id` with value: UUID parsing failed")
  end
  return request.params.job
end

-- A worker that is in no table breaks a foreign key where a row would name it.
local function known_worker(self, id)
  if not self.store.workers[id] then failed(500, "Internal server error") end
end

-- What a worker asks for ---------------------------------------------------------------------------------------

local routes = {}

local function check_abilities(fields)
  if #fields.capabilities == 0 then failed(400, "capabilities must not be empty") end
  for _, name in ipairs(fields.capabilities) do
    if not ABILITIES[name] then failed(400, "unknown capability: " .. name) end
  end
  for _, name in ipairs(fields.tags or {}) do
    if ABILITIES[name] then failed(400, ("tag '%s' is a capability"):format(name)) end
  end
end

routes["POST /worker/register"] = function(self, request)
  local body = read_json(request)
  local fields = { name = field(body, "name", "string"), capabilities = field(body, "capabilities", "list"),
    tags = field(body, "tags", "list?"), exclusive = field(body, "exclusive", "boolean?"),
    version = field(body, "version", "string?") }
  if self.knobs.generation == "head" then check_abilities(fields) end
  local worker = self.store:register(fields)
  self.tell("worker.registered", ("worker %s (%s) registered"):format(worker.name, worker.id))
  return 200, JSON, json.encode { worker_id = worker.id }
end

routes["POST /worker/heartbeat"] = function(self, request)
  self.store:heartbeat(worker_id(read_json(request)))
  return 200, JSON, OK
end

local CLAIM = { "job_id", "step_name", "action_name", "action_type", "action_image", "action_spec", "input" }
local CLAIM_LATER = { "workspace", "task_name", "runner" }

local function claim_body(self, step, job)
  local answer = {}
  for _, name in ipairs(CLAIM) do answer[name] = json.null end
  if self.knobs.generation ~= "s0" then
    for _, name in ipairs(CLAIM_LATER) do answer[name] = json.null end
  end
  if not step then return answer end
  answer.job_id, answer.step_name, answer.action_name = job.id, step.name, step.action or "inline"
  answer.action_type, answer.action_spec, answer.input = step.type, step.spec or json.null, step.input
  answer.action_image = step.spec and step.spec ~= json.null and step.spec.image or json.null
  if self.knobs.generation ~= "s0" then
    answer.workspace, answer.task_name, answer.runner = job.workspace, job.task, step.runner
    answer.timeout_secs = step.timeout
  end
  local workspace = self.workspaces[job.workspace]
  if self.knobs.generation == "head" then
    answer.revision = step.revision or workspace and workspace.revision
    local state, global = self.states[job.workspace .. "/" .. job.task], self.states[job.workspace]
    answer.state_storage_key, answer.state_has_json = state and "key", state and true
    answer.global_state_storage_key, answer.global_state_has_json = global and "key", global and true
  end
  for name, value in pairs(step.extra or {}) do answer[name] = value end
  return answer
end

routes["POST /worker/jobs/claim"] = function(self, request)
  local body = read_json(request)
  local offer = { worker_id = worker_id(body), capabilities = field(body, "capabilities", "list"),
    tags = field(body, "tags", "list?"), exclusive = field(body, "exclusive", "boolean?") }
  if #offer.capabilities == 0 then failed(400, "capabilities must not be empty") end
  local step, job = self.store:claim(offer)
  if step == "unrenderable" then failed(422, "Failed to render step templates") end
  if step and not self.store.workers[offer.worker_id] then
    step.status, step.worker_id = "ready", nil -- the transaction is rolled back
    failed(500, "Internal server error")
  end
  return 200, JSON, json.encode(claim_body(self, step, job))
end

routes["POST /worker/jobs/{job}/steps/{step}/start"] = function(self, request)
  local id, body = job_id(request), read_json(request)
  local worker = worker_id(body)
  if self.store:step(id, request.params.step) then known_worker(self, worker) end
  self.store:start(id, request.params.step, worker)
  return 200, JSON, OK
end

routes["POST /worker/jobs/{job}/steps/{step}/complete"] = function(self, request)
  local id, body = job_id(request), read_json(request)
  field(body, "exit_code", "int?")
  field(body, "error", "string?")
  -- the database holds no NUL
  if json.encode(body):find("\\u0000", 1, true) then failed(500, "Internal server error") end
  self.store:complete(id, request.params.step, body)
  local step = self.store:step(id, request.params.step)
  if step then self.tell("step.ended", ("step %s of job %s is %s"):format(step.name, id, step.status)) end
  return 200, JSON, OK
end

routes["POST /worker/jobs/{job}/logs"] = function(self, request)
  local id, body = job_id(request), read_json(request)
  local job = self.store.jobs[id]
  if self.knobs.generation == "s0" then
    local chunk = field(body, "chunk", "string")
    if job then self.store:say(job, { { chunk = chunk } }) end
    return 200, JSON, OK
  end
  local lines, entries = body.lines, {}
  if not json.is_array(lines) then mistyped("missing field `lines`") end
  for _, line in ipairs(lines) do
    for _, name in ipairs { "ts", "stream", "line" } do
      if type(line) ~= "table" or type(line[name]) ~= "string" then mistyped("lines." .. name) end
    end
    entries[#entries + 1] = { ts = line.ts, stream = line.stream, step = body.step_name, line = line.line, at = sys.wall() }
  end
  if job then self.store:say(job, entries) end
  return 200, JSON, OK
end

routes["GET /worker/jobs/{job}/cancelled"] = function(self, request)
  if self.knobs.generation == "s0" then refuse(404, TEXT, "Not found") end
  return 200, JSON, json.encode { cancelled = self.store.cancelled[job_id(request)] == true }
end

-- Files --------------------------------------------------------------------------------------------------------

routes["GET /worker/workspace/{file}"] = function(self, request)
  local workspace = self.workspaces[request.params.file:match("^(.*)%.tar%.gz$") or ""]
  if not workspace then failed(404, "workspace not found") end
  local revision = request.query.revision or workspace.revision
  local content = workspace.revisions[revision]
  if not content then failed(404, "revision not found") end
  local headers = { ["content-type"] = "application/gzip", ["X-Revision"] = revision, ETag = ('"%s"'):format(revision) }
  if request:header("if-none-match") == headers.ETag then return 304, headers, "" end
  return 200, headers, content
end

local function state_routes(prefix, key_of)
  routes["GET " .. prefix] = function(self, request)
    if not self.knobs.storage then failed(404, "state storage is not configured") end
    local kept = self.states[key_of(request.params)]
    if not kept then return 204, {}, "" end
    return 200, { ["content-type"] = "application/gzip", ["X-Snapshot-Id"] = stage.uuid(kept) }, kept
  end
  routes["POST " .. prefix .. "/{job}"] = function(self, request)
    local job = self.store.jobs[job_id(request)]
    if not self.knobs.storage or not job then failed(404, "job unknown or no state storage") end
    if job.workspace ~= request.params.workspace then failed(400, "job does not belong to this workspace") end
    local body = request:read_body()
    if #body > STATE_MOST then refuse(413, TEXT, "length limit exceeded") end
    self.states[key_of(request.params)] = body
    return 201, JSON, json.encode { snapshot_id = stage.uuid() }
  end
end
state_routes("/worker/state/{workspace}/{task}", function(p) return p.workspace .. "/" .. p.task end)
state_routes("/worker/global-state/{workspace}", function(p) return p.workspace end)

local function bad_name(name)
  if name == "" or #name > 255 or name:find("[%c\\]") then return true end
  for part in (name .. "/"):gmatch("([^/]*)/") do
    if part == "" or part == "." or part == ".." or part:sub(1, 1) == "-" then return true end
  end
  return false
end

local function artifact_step(self, request)
  local step, job = self.store:step(job_id(request), request.params.step)
  if not step then failed(404, "job not found") end
  if job.status == "completed" or job.status == "failed" or job.status == "cancelled" then failed(409, "job is over") end
  if not self.knobs.storage then failed(500, "Internal server error") end
  return step
end

routes["POST /worker/jobs/{job}/steps/{step}/artifacts/{name...}"] = function(self, request)
  local step, name = artifact_step(self, request), request.params.name
  if bad_name(name) then failed(400, "bad artifact name") end
  local body = request:read_body()
  if #body > self.knobs.artifact_most then failed(413, "artifact too large") end
  step.artifacts[name] = { type = request:header("content-type"), body = body }
  return 201, JSON, json.encode { id = stage.uuid(), name = name, size_bytes = #body, content_type = "" }
end

routes["DELETE /worker/jobs/{job}/steps/{step}/artifacts"] = function(self, request)
  artifact_step(self, request).artifacts = {}
  return 204, {}, ""
end

routes["POST /worker/event-source/emit"] = function(self, request)
  local body = read_json(request)
  local job = self:add { task = field(body, "task", "string"), workspace = field(body, "workspace", "string"), steps = {} }
  job.input = body.input
  return 200, JSON, json.encode { job_id = job.id }
end

-- For people ---------------------------------------------------------------------------------------------------

local function row_of(job)
  local row = { id = job.id, task = job.task, workspace = job.workspace, status = job.status, steps = json.array {} }
  for i, step in ipairs(job.steps) do
    row.steps[i] = { name = step.name, status = step.status, exit_code = step.exit_code, error_message = step.error,
      output = step.output, runs = step.runs, completes = step.completes, retry_attempt = step.retry_attempt }
  end
  return row
end

local function job_of(self, request) return self.store.jobs[request.params.job] or failed(404, "no such job") end

routes["POST /api/jobs"] = function(self, request) return 200, JSON, json.encode(row_of(self:add(read_json(request)))) end
routes["GET /api/jobs/{job}"] = function(self, request) return 200, JSON, json.encode(row_of(job_of(self, request))) end
routes["GET /api/jobs/{job}/logs"] = function(self, request)
  return 200, JSON, json.encode(json.array(job_of(self, request).log))
end
routes["POST /api/jobs/{job}/cancel"] = function(self, request)
  self.store:cancel(job_of(self, request).id)
  return 200, JSON, OK
end
routes["GET /api/jobs"] = function(self)
  local rows = json.array {}
  for i, job in ipairs(self.store.list) do rows[i] = row_of(job) end
  return 200, JSON, json.encode(rows)
end
routes["GET /api/workers"] = function(self)
  local rows = json.array {}
  for _, worker in pairs(self.store.workers) do rows[#rows + 1] = worker end
  return 200, JSON, json.encode(rows)
end

-- The fake -----------------------------------------------------------------------------------------------------

local methods = {}

--- `fake:restart()`: as another process with the same database.
function methods:restart()
  self:stop()
  self.store.cancelled = {}
  self:start()
end

--- `fake:add(job)`: a job more; its table.
function methods:add(job)
  return self.store:add(job)
end

--- `fake:put_workspace(name, dir, forget)`: a new revision; with forget, older ones are gone.
function methods:put_workspace(name, dir, forget)
  local path = fs.temp_dir("/tmp/worker-fake-") .. "/workspace.tar.gz"
  archive.pack(path, dir)
  local content = fs.read(path, RAW_MOST)
  fs.remove_tree(fs.dir(path))
  return self:put_tarball(name, content, forget)
end

--- `fake:put_tarball(name, content, forget)`: the same with bytes that need not be an archive.
function methods:put_tarball(name, content, forget)
  local workspace = self.workspaces[name] or { revisions = {} }
  if forget then workspace.revisions = {} end
  workspace.revision = text.sha256(content)
  workspace.revisions[workspace.revision] = content
  self.workspaces[name] = workspace
  return workspace.revision
end

local function empty_workspace(self)
  local dir = fs.temp_dir("/tmp/worker-fake-")
  self:put_workspace("default", dir)
  fs.remove_tree(dir)
end

local function open(self)
  self.store = store.new(self.knobs, self.keep)
  self.states, self.workspaces = {}, {}
  if self.knobs.workspace then self:put_workspace("default", self.knobs.workspace) else empty_workspace(self) end
end

return stage.play {
  name = "strom", summary = "Strøm: steps of workflows, with workspaces, live logs, state and artifacts", port = 8080,
  knobs = KNOBS, samples = SAMPLES, routes = routes, before = authorize, body_most = RAW_MOST,
  after = function(self) self.store:save() end, open = open, methods = methods,
  every = "sweep_interval", tick = function(self)
    self.store:sweep()
    self.store:save()
  end,
  hint = function(self)
    return ("STROEM__SERVER_URL=%s STROEM__WORKER_TOKEN=%s worker --protocol strom"):format(self.url, self.knobs.token)
  end,
}
