-- baaaht's orchestrator, as workers see it: gRPC over a Unix socket or TCP, its states, its oddities.
--
-- The real one drops what it is told of tasks; this one keeps all of it, and with keep_results = true it
-- also answers by it.  Everything is gone with the process, there as here.
--
--   fake.list; fake.tasks[id]     rows of the tasks: what was asked, and in row.told what was said of it:
--                                 messages (their kinds, in order), statuses, stdout, stderr, progress,
--                                 complete, error (the last of each), ends (how many), streams (how many)
--   fake.agents[id]               what registered, with its last heartbeat
--   fake:add(job), fake:cancel(row)
--   fake:bend("Heartbeat", act)   act(request, call, go): go() does what the server would do and returns
--                                 the answer; what act returns is sent.  Of a stream there is no request.
--   fake:retire(seconds)          the end of a server that takes its time: GOAWAY, then the rest
local err = require "worker.error"
local fs = require "worker.fs"
local grpc = require "worker.grpc"
local places = require "worker.places"
local proto = require "worker.proto"
local protobuf = require "worker.protobuf"
local stage = require "worker.fakes.stage"
local sys = require "worker.core.sys"
local text = require "worker.text"
local time = require "worker.time"

local SERVICE = "agent.v1.AgentService"
local NANO = 1000000000

local KNOBS = {
  keep_results = { "boolean", default = false, doc = "Whether results and states are kept, which the real one does not." },
  max_message = { "size", default = "100MiB", doc = "Largest message to take." },
}

local SAMPLES = {
  "echo hello from baaaht", "echo oops >&2; exit 3", { command = "sleep 2; echo late", session = "demo" },
  { command = "head -c 100000 /dev/zero | tr '\\0' x" },
}

local function id_of() return text.sha256(text.random_id()):sub(1, 32) end

local function now() return protobuf.timestamp(sys.wall()) end

-- Tasks in ---------------------------------------------------------------------------------------------------

local FIELDS = { command = "string", session = "string", type = "string", arguments = "table", parameters = "table",
  environment = "table", working_directory = "string", input = "string", timeout = "string", max_retries = "number",
  retry_on_failure = "boolean", constraints = "table" }

local function check_job(job, number)
  local function wrong(what) err.raise("config", ("job %d: %s"):format(number, what)) end
  if type(job) == "string" then job = { command = job } end
  if type(job) ~= "table" then wrong "expected a command, or a map like { command: echo hi }" end
  for name, value in pairs(job) do
    if not FIELDS[name] then wrong(("there is nothing called '%s' in a task"):format(tostring(name))) end
    if type(value) ~= FIELDS[name] then wrong(("%s must be a %s"):format(name, FIELDS[name])) end
  end
  if job.timeout and not time.parse_duration(job.timeout) then wrong 'timeout must be a duration like "30s"' end
  return job
end

local function config_of(job)
  return {
    command = job.command, arguments = job.arguments, environment = job.environment, input_data = job.input,
    working_directory = job.working_directory, parameters = job.parameters, constraints = job.constraints,
    timeout_ns = job.timeout and math.floor(time.parse_duration(job.timeout) * NANO) or nil,
    max_retries = job.max_retries, retry_on_failure = job.retry_on_failure,
  }
end

local function new_row(self, agent, request)
  local config = request.config or {}
  local row = {
    id = id_of(), number = #self.list + 1, agent = agent, state = "TASK_STATE_PENDING", config = config,
    session_id = request.session_id or "", type = request.type, priority = request.priority, created = now(),
    told = { messages = {}, statuses = {}, stdout = {}, stderr = {}, progress = {}, ends = 0, streams = 0 },
  }
  self.tasks[row.id], self.list[row.number] = row, row
  return row
end

local methods = {}

--- `fake:add(job)`: a task for whoever comes: a command, or { command=, type= ("custom"), session=,
-- arguments=, parameters=, environment=, working_directory=, input=, timeout= ("30s"), max_retries=,
-- retry_on_failure=, constraints= }; its row.
function methods:add(job)
  job = check_job(job, #self.list + 1)
  return new_row(self, nil, { config = config_of(job), session_id = job.session or "demo",
    type = "TASK_TYPE_" .. (job.type or "custom"):upper() })
end

--- `fake:cancel(row)`: as somebody does who asks the server to.
function methods:cancel(row)
  row.state, row.cancelled = "TASK_STATE_CANCELLED", now()
end

-- Tasks out --------------------------------------------------------------------------------------------------

-- What was handed out has a state without a name, and nothing is known of its end, unless it is kept.
local function task_of(self, row)
  local task = {
    id = row.id, name = row.config.command, session_id = row.session_id, type = row.type, priority = row.priority,
    state = row.state, created_at = row.created, completed_at = row.cancelled, config = row.config,
  }
  if not self.knobs.keep_results then return task end
  local told = row.told
  if not row.cancelled then task.state = told.statuses[#told.statuses] or task.state end
  task.result = told.complete and told.complete.result
  task.error = told.error
  return task
end

local function agent_of(self, id)
  if id == "" then grpc.raise("INVALID_ARGUMENT", "agent_id is required") end
  return self.agents[id] or grpc.raise("NOT_FOUND", "agent not found: " .. id)
end

local function task_row(self, id)
  if id == "" then grpc.raise("INVALID_ARGUMENT", "task_id is required") end
  return self.tasks[id] or grpc.raise("NOT_FOUND", "task not found: " .. id)
end

-- Tasks without an agent become those of the first one that asks.
local function each_of(self, agent)
  local i = 0
  return function()
    repeat
      i = i + 1
      local row = self.list[i]
      if row and not row.agent then row.agent = agent.id end
    until not row or row.agent == agent.id
    return self.list[i]
  end
end

local routes = {}

function routes.Register(self, request)
  if request.name == "" then grpc.raise("INVALID_ARGUMENT", "name is required") end
  local agent = { id = id_of(), request = request, registered = now(), beats = 0 }
  self.agents[agent.id] = agent
  self.tell("agent.registered", ("%s registered as agent %s"):format(request.name, agent.id), { agent = agent.id })
  return { agent_id = agent.id, registration_token = agent.id, agent = {
    id = agent.id, name = request.name, type = request.type, state = "AGENT_STATE_IDLE", status = "STATUS_RUNNING",
    registered_at = agent.registered, last_heartbeat = agent.registered, metadata = request.metadata,
    capabilities = request.capabilities } }
end

function routes.Unregister(self, request)
  local agent = agent_of(self, request.agent_id)
  self.agents[agent.id] = nil
  self.left[agent.id] = request.reason
  self.tell("agent.unregistered", ("agent %s has left: %s"):format(agent.id, request.reason), { agent = agent.id })
  return { success = true, message = "agent unregistered" }
end

function routes.Heartbeat(self, request)
  local agent = agent_of(self, request.agent_id)
  agent.beats, agent.last = agent.beats + 1, request
  local ids = {}
  for row in each_of(self, agent) do
    if row.state == "TASK_STATE_PENDING" then
      row.state = "TASK_STATE_UNSPECIFIED"
      ids[#ids + 1] = row.id
    end
  end
  return { timestamp = now(), pending_tasks = ids }
end

function routes.ListTasks(self, request)
  local agent = self.agents[request.agent_id]
  local list = {}
  if agent then
    for row in each_of(self, agent) do list[#list + 1] = task_of(self, row) end
  end
  return { tasks = list, total_count = #list }
end

function routes.GetTaskStatus(self, request)
  return { task = task_of(self, task_row(self, request.task_id)) }
end

function routes.ExecuteTask(self, request)
  if request.session_id == "" then grpc.raise("INVALID_ARGUMENT", "session_id is required") end
  if not request.config then grpc.raise("INVALID_ARGUMENT", "config is required") end
  local row = new_row(self, agent_of(self, request.agent_id).id, request)
  return { task_id = row.id, task = task_of(self, row) }
end

function routes.CancelTask(self, request)
  local row = task_row(self, request.task_id)
  self:cancel(row)
  return { task_id = row.id, state = row.state, cancelled = true }
end

function routes.HealthCheck()
  return { status = "STATUS_RUNNING", version = "dev", subsystems = { "agents", "tasks" } }
end

-- The stream of a task ---------------------------------------------------------------------------------------

local hears = {}

function hears.status(told, status)
  told.statuses[#told.statuses + 1] = status.state
  told.said = status.message ~= "" and status.message or told.said
end

function hears.output(told, output)
  local parts = told[output.stream_type] or told.stdout
  parts[#parts + 1] = output.data
end

function hears.progress(told, progress) told.progress[#told.progress + 1] = progress.percent end

function hears.complete(told, complete) told.complete, told.ends = complete, told.ends + 1 end

function hears.error_msg(told, problem) told.error, told.ends = problem, told.ends + 1 end

local function note(self, row, message)
  local kind = message.payload or "nothing"
  table.insert(row.told.messages, kind)
  if message.task_id ~= row.id then row.told.nameless = true end
  if hears[kind] then hears[kind](row.told, message[kind]) end
  if kind == "complete" or kind == "error_msg" then
    self.tell("task.ended", ("task %s ended: %s"):format(row.id, row.told.statuses[#row.told.statuses] or kind),
      { task = row.id, code = row.told.error and row.told.error.code or nil })
  end
end

-- Whether the stream goes on.
local function answer(self, call, row, message)
  if message.payload == "input" then
    local data = message.input.data
    if not utf8.len(data) then grpc.raise("INTERNAL", "the output is not UTF-8") end
    call:send { output = { data = data, text = data, stream_type = "stdout" } }
  elseif message.payload == "cancel" then
    self:cancel(row)
    call:send { complete = { task_id = row.id, completed_at = now() } }
    return false
  end
  return true
end

local function stream_task(self, call)
  local row
  for message in function() return call:receive() end do
    if message.payload == "heartbeat" then
      if row then note(self, row, message) end
      call:send { heartbeat = {} }
    else
      if not row then
        row = task_row(self, message.task_id)
        row.told.streams = row.told.streams + 1
      end
      note(self, row, message)
      if not answer(self, call, row, message) then return end
    end
  end
  if not row then grpc.raise("UNKNOWN", "EOF") end
end

-- In the table of routes, so that it can be bent.
function routes.StreamTask() end

-- Listening --------------------------------------------------------------------------------------------------

local function next_act(self, route)
  local acts = self.bends[route]
  if not acts then return nil end
  return acts.always or table.remove(acts, 1)
end

local function note_request(self, route, request, call)
  if self.seen then
    table.insert(self.seen, { route = route, body = request, at = sys.mono(), headers = call.head, connection = call.connection })
  end
end

local function unary(self, route)
  return function(request, call)
    note_request(self, route, request, call)
    local act = next_act(self, route)
    local function go() return routes[route](self, request) end
    if act then return act(request, call, go) end
    return go()
  end
end

local function stream(self)
  return function(call)
    note_request(self, "StreamTask", nil, call)
    local act = next_act(self, "StreamTask")
    local function go() return stream_task(self, call) end
    if act then return act(nil, call, go) end
    return go()
  end
end

-- The messages are those of the plugin, read from its .proto.
local schema

local function messages()
  if schema then return schema end
  for _, dir in ipairs(places.plugin_dirs({}, {})) do
    local path = fs.join(dir, "protocols/baaaht/agent.proto")
    if fs.exists(path) then schema = protobuf.load(proto.load { path }) end
  end
  return schema or err.raise("config", "there is no plugin baaaht here whose messages could be spoken")
end

local function listen(self)
  local service = {}
  for route in pairs(routes) do
    local entry = { codec = messages():method(SERVICE, route).server }
    if route == "StreamTask" then entry.stream = stream(self) else entry.unary = unary(self, route) end
    service[route] = entry
  end
  local server = grpc.serve { listen = self.address, services = { [SERVICE] = service }, max_receive = self.knobs.max_message }
  self.server = server
  return { address = server.target, url = server.target, close = function() server:close() end }
end

--- `fake:retire(seconds)`: no new calls, those under way get so long; then it is gone, until fake:start().
function methods:retire(seconds)
  self.server:close(seconds)
  self:stop()
end

return stage.play {
  name = "baaaht", summary = "baaaht: tasks for agents, over gRPC", port = 50051, knobs = KNOBS, samples = SAMPLES,
  routes = routes, listen = listen, methods = methods,
  forgets = "baaaht forgets everything when it ends, as the real one does: leave --state out",
  open = function(self)
    self.agents, self.tasks, self.list, self.left = {}, {}, {}, {}
  end,
  hint = function(self)
    return ("worker --protocol baaaht --orchestrator-addr %s --executor shell"):format(self.url)
  end,
}
