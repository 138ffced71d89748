-- vulcan: fragments of Vulcan CI.  Wire: four POSTs of JSON, see README of the Vulcan worker.
--
-- Vulcan knows one fragment of each registered worker: when a worker is not heard of for too long,
-- that fragment is handed out again.  So every fragment that runs or is reported has a registration of its
-- own, a "member"; a member is used again as long as the server surely counts it as alive, and is
-- left to die (no heartbeat) when
--
--   the server says that it does not know it,
--   nothing of ours arrived for longer than the server waits: it is in error then, for good, even
--   though its heartbeats are accepted again,
--   an answer to its request for work was lost: the server may have handed out a fragment that
--   nobody runs, which comes back only once this member is dead.
local err = require "worker.error"
local fs = require "worker.fs"
local http = require "worker.http"
local json = require "worker.json"
local log = require "worker.log"
local retry = require "worker.retry"
local task = require "worker.task"
local text = require "worker.text"
local mono = require("worker.time").mono

local vulcan = { kind = "protocol", name = "vulcan", api = 1 }

vulcan.doc = "Works for Vulcan CI: registers, sends heartbeats, runs fragments, reports their results."

-- The head and the tail of stderr become the error message.  Escaped it grows by six at most, and
-- the server takes bodies of 2 MiB.
vulcan.output = { stderr = 256 * 1024 }
local SHORT = 1024 -- bytes of it for whoever stands in front of the server and takes less

-- What a dead worker held is handed out again by the server itself, and what runs when the worker is
-- asked to stop is completed.
vulcan.hands_out_again = true
vulcan.completes = true

-- Each registration has one fragment, so several may ask and report at the same time: a server that is
-- far away keeps nobody waiting.
vulcan.claims = 16
vulcan.reports_aside = true

vulcan.config = {
  url = { "url", required = true, env = "ORCHESTRATOR_URL", doc = "Address of the worker orchestrator." },
  tenant = { "string", required = true, env = "TENANT_ID", example = "00000000-0000-0000-0000-000000000001",
    doc = "The tenant this worker belongs to, a UUID." },
  group = { "string",
    doc = "Run only fragments of this machine group; all fragments if absent or empty." },
  heartbeat = { "duration", default = "10s", min = "10ms", env = "HEARTBEAT_INTERVAL_SECS",
    doc = "How often the server hears that this worker is alive." },
  poll = { "duration", default = "5s", env = "POLL_INTERVAL_SECS",
    doc = "How long to wait before asking again when there is no work." },
  request_timeout = { "duration", default = "30s", min = "10ms", env = "REQUEST_TIMEOUT_SECS",
    doc = "How long one request may take." },
  script_timeout = { "duration", default = "300s", min = "10ms", env = "SCRIPT_TIMEOUT_SECS",
    doc = "How long a fragment may run." },
  dead_after = { "duration", default = "30s", min = "10ms", env = "HEARTBEAT_TIMEOUT_SECS",
    doc = "How long the server waits for a heartbeat; longer without one means to register anew. "
      .. "Never less than two heartbeats." },
  id_file = { "path",
    doc = "Write the ids this worker is registered under here, one per line, e.g. for a preStop hook." },
}

function vulcan.check(conf)
  local hex = conf.tenant:gsub("-", "")
  if #hex ~= 32 or hex:find("%X") then return "expected a UUID", "tenant" end
end

-- The wire -----------------------------------------------------------------------------------------------

-- 404 is said by the server itself about a worker it does not know; without its words it is the
-- answer of something else at this address.
local function is_unknown(why)
  return err.is(why, "http") and why.status == 404 and why.body:find("Worker not found", 1, true) ~= nil
end

-- Names of fields, each with its type.
local REGISTERED = { "worker_id", "string" }
local HANDED_OUT = { "fragment_id", "string", "chain_id", "string", "attempt", "number" }

-- The answer as a table whose fields are what they should be; everything else is a wire error.
local function read(reply, fields)
  local value = reply.json
  if type(value) ~= "table" then value = {} end
  for i = 1, #fields, 2 do
    local field = value[fields[i]]
    if type(field) ~= fields[i + 1] or field == "" then
      err.wire(("%s: expected the field %s, a %s"):format(reply.request.label, fields[i], fields[i + 1]), reply.body)
    end
  end
  return value
end

-- Members ------------------------------------------------------------------------------------------------

local function is_alive(self, member)
  return not member.late and mono() - member.heard <= self.limit
end

local function write_ids(self)
  if not self.conf.id_file then return end
  local ids = {}
  for id in pairs(self.members) do ids[#ids + 1] = id .. "\n" end
  table.sort(ids)
  local ok, why = pcall(fs.write, self.conf.id_file, table.concat(ids))
  if not ok then log.warn("vulcan.id_file", ("the worker's id could not be written: %s"):format(tostring(why))) end
end

local function drop(self, member)
  if not self.members[member.id] then return end
  self.members[member.id] = nil
  for i, free in ipairs(self.free) do
    if free == member then
      table.remove(self.free, i)
      break
    end
  end
  write_ids(self)
end

-- A member says its name with every request: those words are made once.
local function register(self)
  local sent = mono()
  local reply = self.api:post("/workers/register",
    { json = { tenant_id = self.conf.tenant, machine_group = self.group or json.null } })
  local id = read(reply, REGISTERED).worker_id
  local member = { id = id, heard = sent, asks = { json = json.raw(json.encode { worker_id = id }) } }
  self.members[member.id] = member
  log.info("vulcan.registered", "registered as worker " .. member.id, { worker_id = member.id })
  write_ids(self)
  return member
end

local function take_free(self)
  local free = self.free
  while #free > 0 do
    local member = free[#free]
    free[#free] = nil
    if is_alive(self, member) then return member end
    drop(self, member)
  end
end

-- A member that is alive and has nothing to do.  One caller at a time registers, so that two who find out
-- that there is none do not both do it.
local function take(self)
  local member = take_free(self)
  if member then return member end
  local _ <close> = self.turn:take()
  return take_free(self) or register(self)
end

local function give_back(self, member)
  if self.members[member.id] and is_alive(self, member) then
    self.free[#self.free + 1] = member
  else
    drop(self, member)
  end
end

function vulcan.open(conf)
  local self = {
    conf = conf, group = conf.group ~= "" and conf.group or nil,
    api = http.client { base = conf.url, timeout = conf.request_timeout },
    limit = math.max(conf.dead_after, 2 * conf.heartbeat),
    members = {}, free = {}, holds = {}, turn = task.semaphore(1),
    asking = 0, mending = 0, settled = task.signal(),
  }
  self.free[1] = register(self)
  return self
end

-- The contract -------------------------------------------------------------------------------------------

-- What did not reach the server, or was refused by it, claimed nothing; everything else may have.
local function claimed_nothing(self, member, why)
  if is_unknown(why) then drop(self, member) end
  return err.is(why, "transport") and why.sent == false
    or err.is(why, "http") and why.status >= 300 and why.status < 500
end

local function request_work(self, member)
  local reply = self.api:post("/work/request", member.asks)
  if reply.status == 204 or reply.body == "" or reply.json == nil then return nil end
  local work = read(reply, HANDED_OUT)
  return {
    id = work.fragment_id, script = work.run_script, timeout = self.conf.script_timeout,
    chain_id = work.chain_id, attempt = work.attempt, member = member.id,
  }
end

function vulcan.claim(self)
  local member = take(self)
  while self.mending > 0 do self.settled:wait() end
  self.asking = self.asking + 1
  local ok, job = pcall(request_work, self, member)
  self.asking = self.asking - 1
  if self.mending > 0 then self.settled:fire(1 << 20) end
  if not ok then
    if claimed_nothing(self, member, job) then give_back(self, member) else drop(self, member) end
    error(job, 0)
  elseif not job then
    give_back(self, member)
    return nil, self.conf.poll
  end
  -- One that is handed out while it still runs here was taken from the member that has it.
  local before = self.holds[job.id]
  if before then drop(self, before) end
  self.holds[job.id] = member
  return job
end

-- A fragment without a script must not reach an executor that would find something to run.
function vulcan.start(_, job)
  if not job.script then err.raise("spawn", "No script to execute") end
end

local function beat(self, member)
  -- shorter than the server's patience, so that one answer that hangs does not kill the worker
  local timeout = math.min(self.conf.request_timeout, self.conf.heartbeat)
  local sent = mono()
  local ok, why = pcall(self.api.post, self.api, "/workers/heartbeat", { json = member.asks.json, timeout = timeout })
  if ok then
    -- after a gap this long the server's word that all is well means nothing
    member.late = member.late or mono() - member.heard > self.limit
    member.heard = sent
  elseif is_unknown(why) then
    drop(self, member)
  else
    return why
  end
end

local function is_known(self)
  for _, member in pairs(self.members) do
    if is_alive(self, member) then return true end
  end
  return false
end

-- While a fragment runs under a member that the server counts as dead, another one shows that the
-- worker lives, and takes the next fragment.  Heartbeats never wait for others who register.
local function stay_known(self)
  if is_known(self) then return end
  local _ <close> = self.turn:take()
  if not is_known(self) then self.free[#self.free + 1] = register(self) end
end

function vulcan.pulse(self)
  local beats, failed = {}, nil
  for _, member in pairs(self.members) do
    beats[#beats + 1] = function() failed = beat(self, member) or failed end
  end
  task.all(beats)
  if failed then error(failed, 0) end
  stay_known(self)
end

-- Results ------------------------------------------------------------------------------------------------

local SAYS = {
  timeout = function() return "Script execution timed out" end,
  failed = function(result, code)
    local signal = result.signal and (" (killed by %s)"):format(result.signal) or ""
    return ("Script exited with code %d%s"):format(code, signal)
  end,
  oom = function(result) return "Script ran out of memory: " .. (result.reason or "") end,
  cancelled = function(result) return "Script was cancelled: " .. (result.reason or "") end,
  error = function(result) return "Script could not be run: " .. (result.reason or "") end,
}

-- The exit code, -1 where the script did not exit by itself, and a message that tells every end apart.
local function verdict(job, result)
  if result.state == "success" then return 0, nil end
  if not job.script then return 1, "No script to execute" end
  local exited = result.state == "failed" and not result.signal
  local code = exited and result.exit_code or -1
  local said, words = result.output and result.output.stderr or "", SAYS[result.state](result, code)
  if said == "" or result.state == "timeout" then return code, words end
  if exited then return code, said end
  return code, said .. (said:find("\n$") and "" or "\n") .. words
end

-- The database takes neither broken characters nor NUL.
local function clean(message)
  return (text.repair(message):gsub("\0", "\u{FFFD}"))
end

-- Whoever stands in front of the server may take less than the server: then a short message has to do.
local function is_too_much(status, body)
  return (status == 400 or status == 413 or status == 422) and #tostring(body.error_message) > 2 * SHORT
end

-- Whether the server has it, and why not.
local function report(self, body)
  local ok, why = pcall(self.api.post, self.api, "/work/result", { json = body })
  if ok then return true end
  local status = err.is(why, "http") and why.status
  if is_too_much(status, body) then
    body.error_message = "... " .. text.cut(body.error_message, SHORT, "tail")
    return report(self, body)
  elseif status == 500 and why.body:find("Record not found", 1, true) then
    why = err.new("refused", "the server no longer knows the fragment: " .. why.message)
  end
  return false, why
end

local SUCCESS = { state = "success" }

-- What the report is made of: of the script only that there was one, of a success nothing else.
function vulcan.brief(job, result)
  local told = { id = job.id, script = job.script and true, member = job.member }
  if result.state == "success" then return told, SUCCESS end
  return told, {
    state = result.state, exit_code = result.exit_code, signal = result.signal, reason = result.reason,
    output = result.output,
  }
end

-- Reported under the member that ran it, even one of before a restart: the server then forgets that it
-- has something to run again.  Where it has forgotten the member instead, another one will do, but one
-- that runs nothing.
local function tell(self, job, result)
  local code, message = verdict(job, result)
  local holder = self.holds[job.id]
  local body = {
    fragment_id = job.id, worker_id = holder and holder.id or job.member, success = code == 0, exit_code = code,
    error_message = message and clean(message) or json.null,
  }
  local ok, why = report(self, body)
  if not ok and is_unknown(why) then
    if holder then drop(self, holder) end
    holder = take(self)
    self.holds[job.id], body.worker_id = holder, holder.id
    ok, why = report(self, body)
  end
  if not ok and retry.classify(why) == "retry" then error(why, 0) end
  -- handed out again while the server was told: it believes of another member that it has it
  local other = self.holds[job.id]
  self.holds[job.id] = nil
  if holder and ok then give_back(self, holder) end
  if not ok then
    if holder then drop(self, holder) end -- what it may still hold there is handed out again
    if other and other ~= holder then drop(self, other) end
    error(why, 0)
  elseif other and other ~= holder then
    self.holds[job.id] = other
    return tell(self, job, result)
  end
end

local function tell_alone(self, job, result)
  while self.asking > 0 do self.settled:wait() end
  tell(self, job, result)
end

-- What a member has that the server counts as dead may be handed out again at any moment.  So nothing is
-- asked for while that is reported: then it is known who has it, and it is reported once.
function vulcan.finish(self, job, result)
  local holder = self.holds[job.id]
  if holder and is_alive(self, holder) then return tell(self, job, result) end
  self.mending = self.mending + 1
  local ok, why = pcall(tell_alone, self, job, result)
  self.mending = self.mending - 1
  self.settled:fire(1 << 20)
  if not ok then error(why, 0) end
end

return vulcan
