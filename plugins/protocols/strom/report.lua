-- What is told to the server: lines of log, and how a step ended.
local error = require "worker.error"
local json = require "worker.json"
local retry = require "worker.retry"
local text = require "worker.text"
local time = require "worker.time"

local report = {}

-- The server takes bodies of 2 MiB.  A chunk has at most 64 KiB of text, six times as much in JSON;
-- its lines cost about 90 bytes each on top.
local LINES_MOST = 8000
local ERROR_MOST = 128 * 1024
local VALUE_MOST = 1900 * 1024
local SMALLER_AFTER, GIVE_UP_AFTER = 4, 12 -- refusals (500) while the server is well
local TRIES, AWAY = 5, 300 -- seconds: a server that is restarted is back by then

-- Logs -------------------------------------------------------------------------------------------------------

-- The server sorts by time as text and drops lines that are the same in all: so every line of a job gets
-- a moment of its own, in microseconds, all of one width.
local function next_time(job, wall)
  local now = math.max(math.floor(wall * 1000000), (job.last_time or 0) + 1)
  job.last_time = now
  local second = now // 1000000
  if job.last_second ~= second then
    job.last_second, job.second_text = second, time.format(second):sub(1, -2)
  end
  return ("%s.%06d000Z"):format(job.second_text, now % 1000000)
end

--- `report.logs(job, chunk, old)`: the bodies that bring a chunk's lines; the first servers take text.
function report.logs(job, chunk, old)
  if old then return { json.encode { chunk = text.repair(chunk.text) } } end
  local bodies, lines = {}, {}
  local stream = chunk.stream == "stdout" and "stdout" or "stderr"
  local function flush()
    if #lines > 0 then bodies[#bodies + 1] = json.encode { step_name = job.step, lines = lines } end
    lines = {}
  end
  for line in chunk:lines() do
    lines[#lines + 1] = { ts = next_time(job, chunk.time), stream = stream, line = text.repair(line) }
    if #lines == LINES_MOST then flush() end
  end
  flush()
  return bodies
end

-- Results ----------------------------------------------------------------------------------------------------

local function judge_absence(why)
  return error.is(why, "transport") and retry.classify(why) or "stop"
end

--- `report.insist(fn)`: what may be said twice is said again, for minutes while nobody answers, a few times
-- when what is answered may pass.
function report.insist(fn)
  return retry.call(function() return retry.call(fn, { tries = TRIES, first = 0.25 }) end,
    { for_ = AWAY, first = 0.5, most = 10, classify = judge_absence })
end

-- The server's database holds no NUL.
local function clean(value) return (text.repair(value):gsub("%z", "\u{fffd}")) end

local function stderr_of(result)
  return result.output and result.output.stderr or ""
end

local function error_of(result)
  local reason = result.reason or result.state
  if result.upload_failed then return reason end
  if result.state == "timeout" then return "Step timed out: it " .. reason end
  if result.state == "cancelled" then return "Job cancelled: " .. reason end
  if result.state == "oom" then return "Out of memory: " .. reason end
  if result.state ~= "failed" then return reason end
  local words = ("Exit code: %d\nStderr: %s"):format(result.signal and -1 or result.exit_code or -1, stderr_of(result))
  return result.signal and words .. "\n" .. reason or words
end

local function exit_code_of(result)
  if result.state == "success" then return 0 end
  local code = result.state == "failed" and not result.signal and result.exit_code
  return code and code ~= 0 and code or -1
end

--- `report.complete(result)`: the body that reports a step's end.
function report.complete(result)
  local value = result.value
  local body = { exit_code = exit_code_of(result), output = json.null, error = json.null }
  if value and #value <= VALUE_MOST then body.output = json.raw(value) end
  if result.state ~= "success" then
    body.error, body.output = text.cut(clean(error_of(result)), ERROR_MOST), json.null
  end
  return json.encode(body)
end

--- `report.least(result, status)`: the same with nothing in it that a server could refuse.
function report.least(result, status)
  if result.state == "success" then
    return json.encode { exit_code = -1, error = ("the server refused the step's output (%s)"):format(status) }
  end
  return json.encode { exit_code = exit_code_of(result), error = ("%s (the server refused to store more: %s)"):format(
    result.state, status) }
end

--- `report.refused(self, job, reply)`: a report was answered by 500.  While the server is unwell that will
-- pass; when it is well otherwise, this very report is what it cannot take.
function report.refused(self, job, reply)
  if not self.unwell then job.refusals = (job.refusals or 0) + 1 end
  if (job.refusals or 0) >= GIVE_UP_AFTER then
    error.raise("refused", ("the server failed to take the step's result %d times"):format(job.refusals))
  end
  error.raise("http", "the server failed to take the step's result (500)", { status = reply.status })
end

--- `report.must_be_small(self, job)`: 500 when the whole result was refused so often that less has to do.
function report.must_be_small(_, job)
  return (job.refusals or 0) >= SMALLER_AFTER and 500 or nil
end

return report
