-- Vulcan's server, as workers see it: its bytes, its states, its oddities.
--
--   local fake <close> = vulcan.serve { jobs = { "echo hi" }, heartbeat_timeout = 3 }
--   fake.store.list are the fragments, fake.store.workers by id
--
-- For people there is more than the real one has: GET /fake/fragments, GET /fake/workers, and POST
-- /fake/fragments, which adds jobs.  What every fake can do is told in worker.fakes.stage.
local err = require "worker.error"
local json = require "worker.json"
local stage = require "worker.fakes.stage"
local store = require "worker.fakes.vulcan.store"
local sys = require "worker.core.sys"
local text = require "worker.text"
local time = require "worker.time"

local JSON, TEXT, refuse, failed = stage.JSON, stage.TEXT, stage.refuse, stage.failed

local KNOBS = {
  heartbeat_timeout = { "duration", default = "30s", doc = "A worker not heard of for longer is dead." },
  check_interval = { "duration", default = "10s", min = "50ms", doc = "How often dead workers are looked for." },
  max_attempts = { "integer", default = 3, min = 1, doc = "How often a fragment is handed out at most." },
  busy = { "boolean", default = true, doc = "Whether GET /workers/{id}/busy is there, as in later versions." },
}

local SAMPLES = {
  "echo hello from Vulcan", "echo oops >&2; exit 3", "exit 4", "kill -9 $$",
  { script = "sleep 2; echo first", chain = "two steps" },
  { script = "echo second", chain = "two steps", sequence = 1 },
}

-- Requests as serde reads them ---------------------------------------------------------------------------

local function mistyped(path, what)
  refuse(422, TEXT, ("Failed to deserialize the JSON body into the target type: %s: %s"):format(path, what))
end

local function kind_of(value)
  local kind = type(value)
  if kind == "number" then return math.type(value) == "integer" and "integer" or "floating point" end
  return kind == "table" and (json.is_array(value) and "sequence" or "map") or kind
end

local function uuid_of(value, path)
  if type(value) ~= "string" then
    mistyped(path, ("invalid type: %s, expected a formatted UUID string"):format(kind_of(value)))
  end
  local hex = value:lower():gsub("-", "")
  if not hex:find("^%x+$") or #hex ~= 32 then mistyped(path, "UUID parsing failed") end
  return ("%s-%s-%s-%s-%s"):format(hex:sub(1, 8), hex:sub(9, 12), hex:sub(13, 16), hex:sub(17, 20), hex:sub(21))
end

local function read_body(request)
  local kind = (request:header("content-type") or ""):lower()
  if not kind:find("^application/json") and not kind:find("^application/[%w.-]+%+json") then
    refuse(415, TEXT, "Expected request with `Content-Type: application/json`")
  end
  if stage.too_long(request) then refuse(413, TEXT, "Failed to buffer the request body: length limit exceeded") end
  local ok, body = pcall(json.decode, request:read_body())
  if not ok then
    if not err.is(body, "wire") then error(body, 0) end
    refuse(400, TEXT, "Failed to parse the request body as JSON: " .. body.message)
  end
  if type(body) ~= "table" or json.is_array(body) then mistyped(".", "invalid type, expected struct") end
  return body
end

local function required(body, name)
  if body[name] == nil then mistyped(".", ("missing field `%s`"):format(name)) end
  return body[name]
end

local function optional(body, name, kind)
  local value = body[name]
  if value ~= nil and type(value) ~= kind then
    mistyped(name, ("invalid type: %s, expected a %s"):format(kind_of(value), kind))
  end
  return value
end

-- What the application answers ---------------------------------------------------------------------------

local function worker_of(self, body)
  local id = uuid_of(required(body, "worker_id"), "worker_id")
  return self.store.workers[id] or failed(404, "Worker not found: " .. id)
end

local routes = {}

routes["POST /workers/register"] = function(self, request)
  local body = read_body(request)
  local tenant = uuid_of(required(body, "tenant_id"), "tenant_id")
  local worker = self.store:register(tenant, optional(body, "machine_group", "string"))
  self.tell("worker.registered", ("worker %s registered for %s"):format(
    worker.id, worker.group and "machine group " .. worker.group or "every machine"))
  return 200, JSON, ('{"worker_id":"%s","status":"Active"}'):format(worker.id)
end

routes["POST /workers/heartbeat"] = function(self, request)
  self.store:heartbeat(worker_of(self, read_body(request)))
  -- a time without a zone
  return 200, JSON, ('{"status":"ok","timestamp":"%s"}'):format(time.format(sys.wall(), 9):sub(1, -2))
end

-- No work is 204 with the length of a body that never comes.
local NOTHING = { ["content-type"] = "application/json", ["content-length"] = 4 }

routes["POST /work/request"] = function(self, request)
  local worker = worker_of(self, read_body(request))
  local row = self.store:claim(worker)
  if not row then return 204, NOTHING, "" end
  self.tell("fragment.running", ("fragment %s: attempt %d, by worker %s"):format(row.id, row.attempt, worker.id))
  return 200, JSON, ('{"fragment_id":"%s","chain_id":"%s","run_script":%s,"attempt":%d}'):format(
    row.id, row.chain, row.script and json.encode(row.script) or "null", row.attempt)
end

routes["POST /work/result"] = function(self, request)
  local body = read_body(request)
  local fragment = uuid_of(required(body, "fragment_id"), "fragment_id")
  local success = required(body, "success")
  if type(success) ~= "boolean" then mistyped("success", "invalid type, expected a boolean") end
  local code, message = optional(body, "exit_code", "number"), optional(body, "error_message", "string")
  if code ~= nil and not store.is_int32(code) then mistyped("exit_code", "invalid value, expected i32") end
  local worker = worker_of(self, body)
  local row = self.store.fragments[fragment] or failed(500, "Database error: Record not found")
  if message and message:find("\0", 1, true) and not success then
    failed(500, 'Database error: Database error: invalid byte sequence for encoding "UTF8": 0x00')
  end
  self.store:result(worker, row, { success = success, exit_code = code, error_message = message })
  self.tell("fragment." .. row.status, ("fragment %s: %s"):format(row.id, row.status),
    { exit_code = code, message = message and text.sample(message) })
  local word = row.status:gsub("^%l", string.upper)
  return 200, JSON, ('{"status":"ok","fragment_status":"%s"}'):format(word)
end

routes["GET /queue/metrics"] = function(self, request)
  return 200, JSON, ('{"pending_fragments":%d,"running_fragments":%d,"active_workers":%d}'):format(
    self.store:metrics(request.query.machine_group))
end

routes["GET /health"] = function()
  return 200, JSON, '{"status":"healthy","service":"vulcan-worker-orchestrator"}'
end

local function unknown(_, allow)
  if allow then return 405, { allow = allow }, "" end
  return 404, {}, ""
end

routes["GET /workers/{id}/busy"] = function(self, request)
  local id = request.params.id
  if not self.knobs.busy then return unknown(self) end
  local ok = pcall(uuid_of, id, "id")
  if not ok then return 400, TEXT, "Invalid URL: Cannot parse `id` with value `" .. id .. "`" end
  local worker = self.store.workers[uuid_of(id)]
  local current = worker and worker.current
  return 200, JSON, ('{"busy":%s,"fragment_id":%s}'):format(current ~= nil, current and '"' .. current .. '"' or "null")
end

-- For people ---------------------------------------------------------------------------------------------

routes["GET /fake/fragments"] = function(self)
  return 200, JSON, json.encode(json.array(self.store.list))
end

routes["GET /fake/workers"] = function(self)
  local list = json.array {}
  for _, worker in pairs(self.store.workers) do list[#list + 1] = worker end
  return 200, JSON, json.encode(list)
end

local function add_all(self, jobs)
  local ids = json.array {}
  for _, job in ipairs(type(jobs) == "table" and #jobs > 0 and jobs or { jobs }) do
    ids[#ids + 1] = self.store:add(job).id
  end
  return ids
end

routes["POST /fake/fragments"] = function(self, request)
  local ok, ids = pcall(function() return add_all(self, json.decode(request:read_body())) end)
  if not ok then failed(400, tostring(ids)) end
  return 200, JSON, json.encode(ids)
end

-- The fake -----------------------------------------------------------------------------------------------

local function open(self)
  self.store = store.new(self.knobs, self.keep)
  self.store.on_death = function(worker, row)
    self.tell("worker.died", ("worker %s is dead%s"):format(worker.id,
      row and (", its fragment %s is %s"):format(row.id, row.status) or ""))
  end
end

return stage.play {
  name = "vulcan", summary = "Vulcan CI: fragments of chains, one at a time, over HTTP and JSON", port = 3002,
  knobs = KNOBS, samples = SAMPLES, routes = routes, unknown = unknown, open = open,
  methods = { add = function(self, job) return self.store:add(job) end },
  every = "check_interval", tick = function(self) self.store:check() end,
  hint = function(self)
    return ("ORCHESTRATOR_URL=%s TENANT_ID=%s worker --protocol vulcan"):format(self.url, stage.uuid("tenant"))
  end,
}
