-- Crucible's queue service, as workers see it: its bytes, its states, its oddities.
--
--   local fake <close> = queue.serve { jobs = { "print('hi')" }, api_key = "k" }
--   fake:add { code = "print(1)", engine = "gvisor" }      a task more; its eval_id
--   fake.reports                   every report in order: { id =, way = "complete" | "fail", body =,
--                                  status = }; status is what the worker was answered
--   fake.tasks, fake.line          what is registered, by id; the ids as they are handed out
--   fake:stop(); fake:start()      an outage: the same address, the same tasks
--   fake:forget()                  what a restart does: all tasks are gone
--   fake:bend(way, act, ...)       the next requests of one way ("next", "complete", "fail", "enqueue")
--   fake:bend_all(way, act)        are answered by these; act(request, reply, go): go() does what the
--                                  queue would do and returns status, headers and body, unsent
--   fake.seen                      with record = true: { way =, method =, path =, query =, body =, at =,
--                                  headers = }
--
-- Beyond the real one: GET /ws says on a WebSocket that there is work (off with websocket=false),
-- ?engine= and ?language= of /tasks/next choose (with filters=true), GET /fake/reports tells what
-- workers reported, which the real one forgets.
local err = require "worker.error"
local json = require "worker.json"
local log = require "worker.log"
local serve = require "worker.serve"
local sys = require "worker.core.sys"
local task = require "worker.task"
local text = require "worker.text"
local time = require "worker.time"
local ws = require "worker.ws"

local queue = {}

queue.summary = "Crucible's queue service: tasks of code, pulled one by one over HTTP and JSON"
queue.port = 8081

queue.knobs = {
  api_key = { "string", default = "", doc = "What POST /tasks wants as X-API-Key; nothing if empty." },
  keep_alive = { "duration", default = "5s", min = "10ms", doc = "How long an idle connection is kept." },
  websocket = { "boolean", default = true, doc = "Whether GET /ws tells that there is work." },
  filters = { "boolean", default = false, doc = "Whether ?engine= and ?language= of /tasks/next choose." },
}

local BODY_MOST = 64 * 1024 * 1024
local JSON = { ["content-type"] = "application/json" }
local TEXT = { ["content-type"] = "text/plain; charset=utf-8" }
local NOTICE = '{"type":"task_queued"}'
local SAMPLES = {
  "print('hello from the queue')", "import sys\nprint('out')\nprint('err', file=sys.stderr)\nsys.exit(3)",
  { code = "import time\ntime.sleep(60)", timeout = 2 }, { code = "print(sum(range(10)))", engine = "gvisor" },
}

-- Refusals, as the framework makes them -------------------------------------------------------------------

-- Any of these ends the request with the answer that the real one gives.
local refusal = {}
local function refuse(status, headers, body) error(setmetatable({ status, headers, body }, refusal), 0) end
local function detail(status, words, headers)
  local all = { ["content-type"] = "application/json" }
  for name, value in pairs(headers or {}) do all[name] = value end
  refuse(status, all, json.encode { detail = words })
end

local function mistyped(kind, place, message, input)
  refuse(422, JSON, json.encode { detail = { { type = kind, loc = json.array(place), msg = message, input = input } } })
end

-- The body as an object, or what its absence is answered with.
local function object_of(request)
  local body = request:read_body()
  if not text.valid(body) then detail(400, "There was an error parsing the body") end
  local kind = (request:header("content-type") or ""):lower()
  if body == "" then mistyped("missing", { "body" }, "Field required", json.null) end
  if not kind:find("^application/json") and not kind:find("^application/[%w.-]+%+json") then
    mistyped("model_attributes_type", { "body" }, "Input should be a valid dictionary", body:sub(1, 100))
  end
  local ok, value = task.try(json.decode, body, { null = json.null })
  if not ok then mistyped("json_invalid", { "body", value.byte or 0 }, "JSON decode error", json.object {}) end
  if type(value) ~= "table" or json.is_array(value) or value == json.null then
    mistyped("dict_type", { "body" }, "Input should be a valid dictionary", value)
  end
  return value
end

local function text_of(body, name, default)
  local value = body[name]
  if value == nil and default then return default end
  if value == nil then mistyped("missing", { "body", name }, "Field required", json.null) end
  if type(value) ~= "string" then mistyped("string_type", { "body", name }, "Input should be a valid string", value) end
  return value
end

-- Any whole number, also as text, and with any number of digits.
local function whole_of(body, name, default)
  local value = body[name]
  if value == nil then return default end
  local digits = (type(value) == "string" or math.type(value) == "integer" or json.is_special(value)) and tostring(value) or ""
  if not digits:find("^%-?%d+$") then mistyped("int_type", { "body", name }, "Input should be a valid integer", value) end
  return math.tointeger(digits) or json.number(digits)
end

-- Tasks ---------------------------------------------------------------------------------------------------

local function tell_sockets(self)
  for _, conn in ipairs(self.sockets) do task.try(conn.send, conn, NOTICE) end
end

-- An id that is there already keeps its place in line and gets a second one.
local function enqueue(self, entry)
  entry.status, entry.queued_at = "queued", time.format(sys.wall(), 6):sub(1, -2)
  self.tasks[entry.eval_id] = entry
  self.line[#self.line + 1] = entry.eval_id
  tell_sockets(self)
  return #self.line
end

local function chosen(self, query, entry)
  if not self.knobs.filters or not entry then return true end
  for _, name in ipairs { "engine", "language" } do
    local wanted = query[name] and "," .. query[name] .. ","
    if wanted and not wanted:find("," .. entry[name] .. ",", 1, true) then return false end
  end
  return true
end

-- The next id in line is handed out, for good; one without an entry is handed out as null.
local function pop(self, query)
  for at, id in ipairs(self.line) do
    if chosen(self, query, self.tasks[id]) then
      table.remove(self.line, at)
      return self.tasks[id]
    end
  end
end

local routes = {}

routes["GET /tasks/next"] = function(self, request)
  local entry = pop(self, request.query)
  if not entry then return 200, JSON, "null" end
  entry.status = "processing"
  if entry.unreadable then return 500, TEXT, "Internal Server Error" end
  self.tell("task.processing", ("task %s is handed out"):format(text.sample(entry.eval_id, 60)))
  return 200, JSON, ('{"eval_id":%s,"code":%s,"language":%s,"engine":%s,"timeout":%s}'):format(
    json.encode(entry.eval_id), json.encode(entry.code), json.encode(entry.language), json.encode(entry.engine),
    tostring(entry.timeout))
end

routes["POST /tasks"] = function(self, request)
  if self.knobs.api_key ~= "" and request:header "x-api-key" ~= self.knobs.api_key then detail(401, "Invalid API key") end
  local body = object_of(request)
  local entry = { eval_id = text_of(body, "eval_id"), code = text_of(body, "code"),
    language = text_of(body, "language", "python"), engine = text_of(body, "engine", "docker"),
    timeout = whole_of(body, "timeout", 30) }
  whole_of(body, "priority", 1)
  local position = enqueue(self, entry)
  return 200, JSON, json.encode { eval_id = entry.eval_id, status = "queued", position = position }
end

local function settle(self, id, way, body)
  local entry = self.tasks[id]
  self.tasks[id] = nil
  local status = (entry or way == "fail") and 200 or 404
  self.reports[#self.reports + 1] = { id = id, way = way, body = body, status = status, at = sys.mono() }
  self.tell("task." .. way, ("task %s: %s"):format(text.sample(id, 60), entry and way or "unknown"))
  return entry, status
end

routes["POST /tasks/{id}/complete"] = function(self, request, id)
  local _, status = settle(self, id, "complete", object_of(request))
  if status == 404 then detail(404, "Task not found") end
  return 200, JSON, '{"status":"completed"}'
end

routes["POST /tasks/{id}/fail"] = function(self, request, id)
  local entry = settle(self, id, "fail", object_of(request))
  return 200, JSON, entry and '{"status":"failed"}' or '{"status":"not_found"}'
end

routes["GET /tasks/{id}"] = function(self, _, id)
  local entry = self.tasks[id] or detail(404, "Task not found")
  local position = 0
  for at, other in ipairs(self.line) do
    if other == id then position = at break end
  end
  return 200, JSON, json.encode { eval_id = id, status = entry.status, position = position, queued_at = entry.queued_at,
    message = json.null }
end

local function counts(self)
  local queued, all = 0, 0
  for _, entry in pairs(self.tasks) do
    all = all + 1
    if entry.status == "queued" then queued = queued + 1 end
  end
  return queued, all
end

routes["GET /status"] = function(self)
  local queued, all = counts(self)
  return 200, JSON, json.encode { queued = queued, processing = all - queued, queue_length = #self.line, total_tasks = all }
end

routes["GET /health"] = function(self)
  local _, all = counts(self)
  return 200, JSON, json.encode { status = "healthy", service = "queue", queue_size = #self.line, total_tasks = all,
    redis = "disconnected" }
end

routes["DELETE /tasks"] = function(self)
  local _, all = counts(self)
  self:forget()
  return 200, JSON, json.encode { status = "cleared", tasks_removed = all }
end

routes["GET /fake/reports"] = function(self)
  return 200, JSON, json.encode(json.array(self.reports))
end

-- Routing, on the decoded path: a slash in an id is a slash ----------------------------------------------------

local WAYS = { ["GET /tasks/next"] = "next", ["POST /tasks/{id}/complete"] = "complete", ["POST /tasks/{id}/fail"] = "fail",
  ["POST /tasks"] = "enqueue" }

-- The routes a path could mean, and the id in it.
local function patterns_of(path)
  local id = path:match("^/tasks/([^/]+)$")
  if id then return { id == "next" and path or nil, "/tasks/{id}" }, id end
  local deep, way = path:match("^/tasks/([^/]+)/(%a+)$")
  if deep then return { ("/tasks/{id}/%s"):format(way) }, deep end
  return { path }
end

local function find(method, path)
  local patterns, id = patterns_of(path)
  local allowed
  for _, pattern in pairs(patterns) do
    local name = method .. " " .. pattern
    if routes[name] then return name, id end
    for other in pairs(routes) do
      local verb, its = other:match("^(%u+) (.*)$")
      if its == pattern then allowed = allowed or verb end
    end
  end
  return nil, allowed
end

local function route_of(request)
  local path = text.percent_decode(request.path) or request.path
  local name, found = find(request.method, path)
  if name then return name, found end
  local twin = path:sub(-1) == "/" and path:sub(1, -2) or path .. "/"
  if not found and find(request.method, twin) then refuse(307, { location = request.path:gsub("/$", "") }, "") end
  if found then detail(405, "Method Not Allowed", { allow = found }) end
  detail(404, "Not Found")
end

-- Status, headers and body, whatever came.
local function answered(fn, ...)
  local ok, status, headers, body = pcall(fn, ...)
  if ok then return status, headers, body end
  if getmetatable(status) ~= refusal then error(status, 0) end
  return status[1], status[2], status[3]
end

local function next_act(self, way)
  local acts = way and self.bends[way]
  if not acts then return nil end
  return acts.always or table.remove(acts, 1)
end

-- Whoever connects hears that there is work, from now on and for what is in line already.
local function tell_on_socket(self, request, reply)
  local conn <close> = ws.accept(request, reply)
  self.sockets[#self.sockets + 1] = conn
  if #self.line > 0 then conn:send(NOTICE) end
  task.try(function()
    while conn:receive() do end -- nobody has to say anything here
  end)
  for at, other in ipairs(self.sockets) do
    if other == conn then table.remove(self.sockets, at) break end
  end
end

local function handle(self, request, reply)
  if request.path == "/ws" and request.method == "GET" and self.knobs.websocket then
    return tell_on_socket(self, request, reply)
  end
  local ok, name, id = pcall(route_of, request)
  local way = ok and WAYS[name] or nil
  if self.seen then
    table.insert(self.seen, { way = way, method = request.method, path = request.path, query = request.query,
      body = request:read_body(), at = sys.mono(), headers = request.headers })
  end
  local function go()
    if not ok then return answered(error, name, 0) end
    return answered(routes[name], self, request, id)
  end
  local act = next_act(self, way)
  if act then return act(request, reply, go) end
  return reply:send(go())
end

-- The fake ------------------------------------------------------------------------------------------------

local methods = {}
local meta = { __index = methods, __name = "worker.fakes.queue" }

--- `fake:start()`: listen.
function methods:start()
  self.http = serve.http {
    address = self.address, lazy_body = true, max_body = BODY_MOST, max_header = 64 * 1024, max_target = 64 * 1024,
    max_connections = 2000, idle_timeout = self.knobs.keep_alive,
    handler = function(request, reply) return handle(self, request, reply) end,
  }
  self.address, self.url = self.http.address, self.http.url
end

--- `fake:stop()`: nobody listens any more; conversations are cut off.
function methods:stop()
  if not self.http then return end
  self.http:close()
  self.http, self.sockets = nil, {}
end

methods.close = methods.stop
meta.__close = methods.stop

--- `fake:forget()`: all tasks, waiting and handed out, are gone.
function methods:forget()
  self.tasks, self.line = {}, {}
end

--- `fake:bend(way, act, ...)`: the next requests of a way are answered by these acts.
function methods:bend(way, ...)
  self.bends[way] = { ... }
end

--- `fake:bend_all(way, act)`: all of them, until act is nil.
function methods:bend_all(way, act)
  self.bends[way] = act and { always = act }
end

local added = 0

--- `fake:add(job)`: a task more: its code, or { eval_id =, code =, language =, engine =, timeout = }; its id.
function methods:add(job)
  if type(job) == "string" then job = { code = job } end
  if type(job) ~= "table" or type(job.code) ~= "string" then
    err.raise("config", "a task is its code, or a map like { code: print(1), timeout: 5 }")
  end
  added = added + 1
  local id = job.eval_id or ("eval_%s_%08x"):format(time.format(sys.wall(), 0):gsub("[-:Z]", ""):gsub("T", "_"), added)
  enqueue(self, { eval_id = id, code = job.code, language = job.language or "python", engine = job.engine or "docker",
    timeout = job.timeout or 30, unreadable = job.unreadable })
  return id
end

--- `fake:report(id)`: the first report of a task that was accepted, or nil.
function methods:report(id)
  for _, report in ipairs(self.reports) do
    if report.id == id and report.status == 200 then return report end
  end
end

local function jobs_of(options)
  if options.state then err.raise("config", "a queue service keeps nothing: there is no --state for it") end
  local jobs = options.jobs
  if type(jobs) == "table" and jobs.jobs then jobs = jobs.jobs end
  if jobs ~= nil and type(jobs) ~= "table" then
    err.raise("config", "the jobs must be a list of codes, or of maps like { code: print(1) }")
  end
  return jobs or SAMPLES
end

--- `queue.serve(options)`: a running fake.  Options: address ("127.0.0.1:0"), jobs, record, tell(event,
-- text), and the knobs.
function queue.serve(options)
  local knobs = {}
  for name, field in pairs(queue.knobs) do
    knobs[name] = options[name]
    if knobs[name] == nil then
      knobs[name] = field[1] == "duration" and time.parse_duration(field.default) or field.default
    end
  end
  local self = setmetatable({
    knobs = knobs, tasks = {}, line = {}, reports = {}, sockets = {}, bends = {}, seen = options.record and {} or nil,
    address = options.address or "127.0.0.1:0",
    tell = options.tell or function(event, words) log.info(event, words) end,
  }, meta)
  for _, job in ipairs(jobs_of(options)) do self:add(job) end
  self:start()
  self.hint = ("QUEUE_SERVICE_URL=%s worker --protocol queue"):format(self.url)
  return self
end

return queue
