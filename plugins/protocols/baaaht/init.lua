-- baaaht: tasks of a baaaht orchestrator, over gRPC.
--
-- A heartbeat hands the id of each task out once, and its answer may get lost; a list of all tasks that
-- ever were this worker's is there, too, and never says which of them are done.  So both are read, and what
-- was taken once is remembered for as long as the orchestrator knows this worker by the same id.
--
-- wire.lua is the connection, host.lua what this worker tells of itself, tasks.lua a task as a job,
-- report.lua the stream in which a task is told.  What all of it shares while one configuration is in
-- force is its bond, which outlives a connection that is lost.
local config = require "baaaht.config"
local err = require "worker.error"
local host = require "baaaht.host"
local log = require "worker.log"
local report = require "baaaht.report"
local task = require "worker.task"
local tasks = require "baaaht.tasks"
local time = require "worker.time"
local wire = require "baaaht.wire"

local baaaht = { kind = "protocol", name = "baaaht", api = 1 }

baaaht.doc = "Runs tools and commands for a baaaht orchestrator, over gRPC, in place of its own worker."

baaaht.config, baaaht.check = config.fields, config.check
baaaht.own_file = {
  name = "~/.config/baaaht/config.yaml", section = "worker", shared = true,
  settings = { name = "name", log_level = "log.level", log_format = "log.format", log_output = "log.output" },
}
baaaht.slots_field = "max_concurrent_tasks"
function baaaht.suggests() return { executor = "docker", log = "text", log_output = "stdout" } end

baaaht.claim_breaks = true   -- an id is taken off the row only with its task in hand
baaaht.claims_always = true  -- the tasks are this worker's; who waits for one wants to know
baaaht.output = { stdout = 2 * 1024 * 1024, stderr = 64 * 1024 } -- six times that must fit into the journal
baaaht.batch = { bytes = 32 * 1024, seconds = 0.2 }

local INPUT_PER_SECOND = 16 * 1024 * 1024 -- of a task's input, a second of patience
local SILENT_MOST = 3 -- heartbeats in a row
local LIST_SHARE = 20 -- of the time, a list may take one part in so many

local bonds = setmetatable({}, { __mode = "k" })

-- The bond -------------------------------------------------------------------------------------------------

local function new_bond(conf, worker)
  return { conf = conf, worker = worker, link = wire.new(conf), row = {}, known = {}, more = task.signal(), streams = {},
    ticks = {}, list_at = 0, silent = 0 }
end

-- Another id is another life: the tasks of the one before are not ours any more.
local function register(bond)
  local worker = bond.worker
  local reply = bond.link:call("Register", {
    name = worker.name or "worker-" .. worker.host, type = "AGENT_TYPE_WORKER",
    metadata = host.metadata(bond.conf, worker), capabilities = host.capabilities(bond.conf, worker),
  })
  if reply.agent_id == "" then err.wire "the orchestrator registered this worker without an id" end
  bond.agent_id, bond.row, bond.known = reply.agent_id, {}, {}
  bond.list_at = time.mono() + bond.conf.task_poll -- no answer to who is new was lost
  log.info("baaaht.registered", "registered as agent " .. reply.agent_id, { agent_id = reply.agent_id })
end

local function offer(bond, id)
  if id == "" or bond.known[id] then return end
  bond.known[id] = true
  bond.row[#bond.row + 1] = id
  bond.more:fire()
end

local function list_now(bond)
  bond.list_at = 0
  bond.more:fire()
end

local function heartbeat(bond, active)
  local ok, reply = pcall(bond.link.ask, bond.link, "call", "Heartbeat", {
    agent_id = bond.agent_id, active_tasks = active, resources = host.resources(bond.ticks) })
  if ok then
    for _, id in ipairs(reply.pending_tasks) do offer(bond, id) end
    bond.silent = 0
    return
  end
  list_now(bond) -- the answer may have had tasks in it
  bond.silent = wire.is(reply, "DEADLINE_EXCEEDED") and bond.silent + 1 or 0
  if bond.silent >= SILENT_MOST then
    -- a peer that is gone without a word leaves a connection that looks alive
    bond.silent = 0
    bond.link:renew(("%d heartbeats were not answered"):format(SILENT_MOST))
    err.gone "the orchestrator does not answer any more"
  end
  if wire.is(reply, "NOT_FOUND") then
    local unknown = bond.agent_id
    bond.agent_id = nil
    err.gone(("the orchestrator does not know the agent %s"):format(unknown))
  end
  error(reply, 0)
end

function baaaht.open(conf, worker)
  local bond = bonds[conf] or new_bond(conf, worker)
  bonds[conf] = bond
  bond.link:connect()
  list_now(bond)
  if bond.agent_id then
    -- a connection that was lost and an orchestrator that lived on: it may know us still
    local ok, why = pcall(heartbeat, bond, bond.active)
    if not ok and bond.agent_id then error(why, 0) end
  end
  if not bond.agent_id then register(bond) end
  return { bond = bond }
end

function baaaht.patience(conf, again)
  if not again then return { first = 0.1, factor = 2, most = 1, for_ = conf.dial_timeout } end
  local tries = conf.reconnect_max_attempts
  return { first = conf.reconnect_interval, factor = 1, most = conf.reconnect_interval,
    least = conf.reconnect_interval / 2, tries = tries > 0 and tries or nil }
end

function baaaht.connection(conf)
  local bond = bonds[conf]
  return bond and bond.link.state or "Idle"
end

function baaaht.pulse(self, jobs)
  local ids = {}
  for i, job in ipairs(jobs) do ids[i] = job.id end
  self.bond.active = ids
  heartbeat(self.bond, ids)
end

-- Claiming ---------------------------------------------------------------------------------------------------

-- The list only grows, with all that the tasks were given: the longer it takes, the less often it is read.
local function look(bond)
  local began = time.mono()
  local ok, reply = pcall(bond.link.ask, bond.link, "states", "ListTasks", { agent_id = bond.agent_id })
  bond.list_at = time.mono() + math.max(bond.conf.task_poll, (time.mono() - began) * LIST_SHARE)
  if not ok and wire.is(reply, "RESOURCE_EXHAUSTED") then
    bond.list_at = math.huge
    return log.warn("baaaht.list_too_long", "the list of tasks is larger than max_recv_msg_size: tasks come by heartbeats only")
  elseif not ok then
    error(reply, 0)
  end
  for _, one in ipairs(reply.tasks) do
    if tasks.is_waiting(one) then offer(bond, one.id) end
  end
end

-- The next id, from the row or from the list.
local function next_id(bond)
  if not bond.row[1] then bond.more:wait(math.min(math.max(0, bond.list_at - time.mono()), bond.conf.task_poll)) end
  if not bond.row[1] and time.mono() >= bond.list_at then look(bond) end
  return bond.row[1]
end

-- A job for what can only be refused: its end has to be told all the same.
local function refused(id, code, message)
  return { id = id, problem = { code = code, message = message } }
end

local function take(bond, id)
  local ok, reply = pcall(bond.link.ask, bond.link, "call", "GetTaskStatus", { task_id = id })
  if not ok and wire.is(reply, "RESOURCE_EXHAUSTED") then
    return refused(id, "RESOURCE_EXHAUSTED", "the task is larger than max_recv_msg_size: " .. reply.message)
  elseif not ok then
    if not wire.is(reply, "NOT_FOUND") then error(reply, 0) end
    return nil
  end
  local one = reply.task
  if not one or tasks.is_over(one) then return nil end
  local size = one.config and #one.config.input_data or 0
  return {
    id = id, name = one.name, type = one.type, session = one.session_id,
    -- each answer to whether it was cancelled has all of its input in it
    beat_every = bond.conf.cancel_poll + size / INPUT_PER_SECOND,
    -- a function is not written down with the job: what it gives may be large
    whole = function() return one end,
  }
end

function baaaht.claim(self)
  local bond = self.bond
  local id = next_id(bond)
  if not id then return nil, 0 end
  local job = take(bond, id)
  if bond.row[1] == id then table.remove(bond.row, 1) end
  return job, 0
end

-- A job ----------------------------------------------------------------------------------------------------

-- The stream of a job: the one that is open, or a new one.
local function stream_of(self, job)
  local bond = self.bond
  local stream = bond.streams[job.id]
  if stream and not stream.over then return stream end
  if stream then stream:close() end
  bond.streams[job.id] = nil
  stream = report.open(bond.link, job.id)
  bond.streams[job.id] = stream
  return stream
end

local function drop_stream(bond, id)
  local stream = bond.streams[id]
  bond.streams[id] = nil
  if stream then stream:close() end
end

-- Say something of a job.  That the orchestrator has forgotten it ends it; that the connection is lost
-- does not.
local function say(self, job, what, ...)
  local stream = stream_of(self, job)
  local ok, why = pcall(stream[what], stream, ...)
  if ok then return end
  if err.is(why, "refused") and why.unknown then job.forgotten = true end
  error(why, 0)
end

-- What was claimed before a restart has only its id left.
local function whole(self, job)
  local one = job.whole and job.whole() or self.bond.link:call("GetTaskStatus", { task_id = job.id }).task
  return one or err.raise("refused", "the orchestrator does not know the task any more", { code = "NOT_FOUND" })
end

function baaaht.fetch(self, job, ctx)
  local bond, id = self.bond, job.id
  ctx.own { close = function() drop_stream(bond, id) end }
  if job.problem then err.raise("refused", job.problem.message, { code = job.problem.code }) end
  local ok, why = pcall(function() tasks.fill(job, whole(self, job), bond.conf, bond.worker) end)
  job.whole = nil
  if ok then return end
  if err.is(why, "refused") then job.problem = { code = why.code, message = why.message } end
  error(why, 0)
end

-- Told as soon as it can be; that it cannot be now is no reason not to run.
function baaaht.start(self, job)
  local ok, why = task.try(say, self, job, "progress", 0, "started")
  if not ok then log.debug("baaaht.start", ("task %s: %s"):format(job.id, tostring(why)), { task = job.id }) end
end

function baaaht.log(self, job, chunk)
  say(self, job, "output", chunk)
end

function baaaht.beat(self, job)
  if job.forgotten then return "lost" end
  local ok, reply = pcall(self.bond.link.ask, self.bond.link, "states", "GetTaskStatus", { task_id = job.id })
  if not ok then
    if wire.is(reply, "NOT_FOUND") then return "lost" end
    error(reply, 0)
  end
  if reply.task and reply.task.state == "TASK_STATE_CANCELLED" then return "cancel" end
  task.try(say, self, job, "heartbeat", self.bond.conf.task_poll)
  return job.forgotten and "lost" or "keep"
end

-- An orchestrator that has forgotten the task will never take this; all else is tried again.
function baaaht.finish(self, job, result)
  local _ <close> = setmetatable({}, { __close = function() drop_stream(self.bond, job.id) end })
  for _, message in ipairs(report.ending(job, result)) do say(self, job, "send", message) end
  say(self, job, "finish")
end

function baaaht.release(self, job)
  baaaht.finish(self, job, { state = "error", code = "UNAVAILABLE", reason = "the worker stops before the task could run" })
end

function baaaht.close(self)
  local bond = self.bond
  local _ <close> = setmetatable({}, { __close = function() bond.link:close() end })
  if bond.agent_id and bond.link.state == "Ready" then
    bond.link:call("Unregister", { agent_id = bond.agent_id, reason = "worker stops" })
  end
end

return baaaht
