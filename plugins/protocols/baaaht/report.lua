-- What is said of a running task: one stream each, from "it runs" to how it ended.
--
-- The stream is opened when there is something to say and no stream is open, so it is there again after a
-- connection was lost.  Its first message says that the task runs and never is a heartbeat; every message
-- has the id of the task: an orchestrator that gets a heartbeat first does not know whose stream this is.
local err = require "worker.error"
local log = require "worker.log"
local protobuf = require "worker.protobuf"
local task = require "worker.task"
local text = require "worker.text"
local time = require "worker.time"
local wire = require "baaaht.wire"

local report = {}

local PIECE = 32 * 1024
local NANO = 1000000000
local MESSAGE_MOST = 64 * 1024 -- of words for people

local methods = {}
local meta = { __index = methods }

local function now() return protobuf.timestamp(time.wall()) end

local function words(said) return text.cut(text.repair(said or ""), MESSAGE_MOST) end

-- Streams --------------------------------------------------------------------------------------------------

-- Answers mean nothing to us but for the end; they have to be taken all the same.
local function read_all(self)
  while true do
    local ok, message = task.try(self.call.receive, self.call)
    if not ok or message == nil then
      self.over, self.why = true, not ok and message or nil
      return self.ended:fire(1 << 20)
    end
    log.debug("baaaht.answer", ("task %s: the orchestrator says %s"):format(self.id, message.payload or "nothing"),
      { task = self.id })
  end
end

local function status(state, message)
  return { status = { state = state, message = words(message), timestamp = now() } }
end

--- `report.open(link, id)`: the stream of a task.
function report.open(link, id)
  local self = setmetatable({ id = id, call = link:stream "StreamTask", ended = task.signal(), turn = task.semaphore(1),
    timeout = link.conf.rpc_timeout }, meta)
  self.reader = task.start(read_all, self)
  local ok, why = pcall(self.send, self, status("TASK_STATE_RUNNING"))
  if ok then return self end
  self:close()
  error(why, 0)
end

-- Why the stream has ended, as an error.
local function failure(self)
  if self.why and wire.is(self.why, "NOT_FOUND") then
    return err.new("refused", "the orchestrator does not know the task any more", { unknown = true })
  end
  return self.why or err.new("transport", "the orchestrator has ended the stream of the task")
end

-- A stream that is stuck is over: the next word opens another one.
local function give_up(self, why)
  self.over, self.why = true, err.new("transport", why, { reason = "timeout" })
  error(self.why, 0)
end

--- `stream:send(message)`: raises why the stream has ended, if it has.  One speaks at a time; an orchestrator
-- that takes nothing for rpc_timeout is not waited for.
function methods:send(message)
  local turn <close> = self.turn:take() -- luacheck: ignore turn
  message.task_id = self.id
  local in_time, taken = true, false
  if not self.over then in_time, taken = task.within(self.timeout, self.call.send, self.call, message) end
  if not in_time then give_up(self, "the orchestrator takes nothing on the stream of the task") end
  if taken then
    self.spoke = time.mono()
    return
  end
  if not self.over then self.ended:wait(self.timeout) end
  error(failure(self), 0)
end

--- `stream:finish()`: nothing more will be said; waits until the orchestrator has taken it all.
function methods:finish()
  local in_time = task.within(self.timeout, function()
    self.call:close_send()
    while not self.over do self.ended:wait() end
  end)
  if not in_time then give_up(self, "the orchestrator does not end the stream of the task") end
  if self.why then error(failure(self), 0) end
end

function methods:close()
  self.call:cancel()
  task.shield(self.reader.join, self.reader)
end

-- While it runs --------------------------------------------------------------------------------------------

--- `stream:output(chunk)`: what the program has printed; our own lines are news of the task.
function methods:output(chunk)
  if chunk.stream == "worker" then
    return self:send(status("TASK_STATE_RUNNING", chunk.text))
  end
  -- what has been sent is not sent again when the rest has to be repeated
  chunk.sent = chunk.sent or 0
  while chunk.sent < #chunk.text do
    local data = chunk.text:sub(chunk.sent + 1, chunk.sent + PIECE)
    self:send { output = { data = data, stream_type = chunk.stream } }
    chunk.sent = chunk.sent + #data
  end
end

--- `stream:progress(percent, message, details)`: how far it is, from 0 to 1.
function methods:progress(percent, message, details)
  self:send { progress = { percent = percent, message = message or "", details = details } }
end

--- `stream:heartbeat(seconds)`: a sign of life, unless something was said in the last seconds or waits to be
-- taken: whoever looks whether the task was cancelled does not wait for that.
function methods:heartbeat(seconds)
  if time.mono() - self.spoke >= seconds then task.within(0, self.send, self, { heartbeat = {} }) end
end

-- How it ended -----------------------------------------------------------------------------------------------

local STATES = { success = "COMPLETED", failed = "FAILED", timeout = "TIMEOUT", cancelled = "CANCELLED", oom = "FAILED",
  error = "FAILED" }
local CODES = { timeout = "TIMEOUT", cancelled = "CANCELLED", oom = "RESOURCE_EXHAUSTED" }
local KINDS = { unusable = "UNAVAILABLE", engine = "UNAVAILABLE", spawn = "UNAVAILABLE", limit = "RESOURCE_EXHAUSTED" }

local function is_text(bytes) return text.valid(bytes) == true end

-- What the program said of its failure, or what can be said of it.
local function error_text(result)
  if result.state == "success" then return "" end
  local output = result.output or {}
  for _, said in ipairs { output.stderr or "", output.stdout or "", result.reason or "" } do
    if said:find("%S") then return words(said) end
  end
  return ("exit code %s"):format(tostring(result.exit_code))
end

local function metadata(job, result)
  local details = { state = result.state, tool = job.tool, executor = result.executor, reason = result.reason,
    signal = result.signal and tostring(result.signal) or nil }
  for stream, bytes in pairs(result.dropped or {}) do details["dropped_" .. stream] = tostring(bytes) end
  for name, value in pairs(details) do details[name] = words(value) end
  return details
end

local function task_result(job, result)
  local stdout = result.output and result.output.stdout or ""
  return {
    exit_code = result.exit_code or 0, output_data = stdout, output_text = is_text(stdout) and stdout or "",
    error_text = error_text(result), metadata = metadata(job, result), completed_at = now(),
    execution_duration_ns = math.floor((result.duration or 0) * NANO),
  }
end

local function task_error(job, result)
  local problem = job.problem or {}
  local code = CODES[result.state] or problem.code or type(result.code) == "string" and result.code
    or KINDS[result.kind] or "INTERNAL"
  local details = {}
  for i, detail in ipairs(result.rules or {}) do details[i] = words(tostring(detail)) end
  return { code = code, message = words(problem.message or result.reason or error_text(result)), details = details,
    occurred_at = now() }
end

--- `report.ending(job, result)`: the messages that say how it ended, in order.
function report.ending(job, result)
  local state = "TASK_STATE_" .. STATES[result.state]
  local messages = { status(state, result.reason) }
  if result.state == "success" or result.state == "failed" then
    if result.state == "success" then messages[2] = { progress = { percent = 1, message = "completed" } } end
    messages[#messages + 1] = { complete = { task_id = job.id, result = task_result(job, result), completed_at = now() } }
  else
    messages[2] = { error_msg = task_error(job, result) }
  end
  return messages
end

return report
