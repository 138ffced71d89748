-- From a result to what the queue is told, in the words of either worker.
--
--   worker-service   POST /complete for every end of a program that an engine ran, with the status inside;
--                    /fail for what no engine ran
--   queue-worker     POST /complete for a program that ended by itself, whatever its exit code; /fail
--                    for everything else
--
-- What both leave out rides along in keys of its own: both streams, the exit code, who ran it.
local json = require "worker.json"
local text = require "worker.text"

local report = {}

local BODY_MOST = 1024 * 1024
local ERROR_MOST = 32 * 1024
local SMALLER = { 96 * 1024, 16 * 1024, 1024, 0 } -- bytes of each stream, until it fits

local STATUS = { success = "completed", failed = "failed", oom = "failed", timeout = "timeout" }

local function stream(result, name) return result.output and result.output[name] or "" end

-- What went wrong, in a sentence; the published workers' own where they have one.
local function error_of(job, result, timeout)
  if result.state == "timeout" then return timeout:format(math.ceil(job.timeout)) end
  return text.cut(result.reason or result.state, ERROR_MOST)
end

local function add_details(body, self, result)
  body.stdout, body.stderr = stream(result, "stdout"), stream(result, "stderr")
  for name, bytes in pairs(result.dropped or {}) do body[name .. "_dropped"] = bytes end
  body.exit_code, body.signal, body.duration = result.exit_code, result.signal, result.duration
  body.state, body.reason = result.state, result.reason and text.cut(result.reason, ERROR_MOST)
  body.engine, body.fallback, body.cached = result.executor, result.fallback, result.cached
  body.runtime, body.security = result.runtime, result.runtime and "production-grade" or nil
  body.worker_id = self.worker_id
  return body
end

local function printed(result)
  local stdout = stream(result, "stdout")
  return stdout ~= "" and stdout or stream(result, "stderr")
end

local dialects = {}

dialects["worker-service"] = function(self, job, result)
  -- what was ended because this worker stops was not the engine's doing, nor the program's
  if not result.executor or result.state == "cancelled" then
    return "fail", { error = error_of(job, result, "Timeout after %d seconds") }
  end
  local status = STATUS[result.state] or "error"
  local output = { id = job.eval_id, status = status }
  if status == "completed" or status == "failed" then
    output.output = printed(result)
  else
    output.error = error_of(job, result, "Timeout after %d seconds")
  end
  return "complete", { output = add_details(output, self, result) }
end

dialects["queue-worker"] = function(self, job, result)
  local status = STATUS[result.state]
  if status ~= "completed" and status ~= "failed" then
    return "fail", { error = error_of(job, result, "Execution exceeded %ds timeout") }
  end
  return "complete", { output = add_details({
    eval_id = job.eval_id, status = "completed", output = printed(result), executor_id = self.worker_id,
    error = status == "failed" and stream(result, "stderr") or "",
  }, self, result) }
end

-- The same with less of the streams; how much that leaves out is counted on top.
local function shorten(result, most)
  local short = {}
  for name, value in pairs(result) do short[name] = value end
  short.output, short.dropped = {}, {}
  for name, value in pairs(result.output or {}) do
    local kept = text.head_tail(most // 2, most // 2)
    kept:add(value)
    short.output[name] = kept:text()
    local dropped = (kept:dropped()) + ((result.dropped or {})[name] or 0)
    short.dropped[name] = dropped > 0 and dropped or nil
  end
  return short
end

--- `report.of(self, job, result, most)`: "complete" or "fail", and the body: text of at most 1 MiB, or `most`.
function report.of(self, job, result, most)
  local way, body = dialects[self.dialect](self, job, result)
  local encoded = json.encode(body)
  for _, bytes in ipairs(SMALLER) do
    if #encoded <= (most or BODY_MOST) then break end
    way, body = dialects[self.dialect](self, job, shorten(result, bytes))
    encoded = json.encode(body)
  end
  return way, encoded, body
end

return report
