-- queue.lua: events as the Crucible platform publishes them: what its storage workers, older and newer
-- ones, read of a result.
--
-- The older ones read `result`, the newer ones the flat fields beside it; both take output and error
-- for texts and metadata for an object.  Whatever comes on evaluation:completed is stored as completed,
-- so only what succeeded goes there.
local queue = {}

local STATUS = { success = "completed", timeout = "timeout" }

-- What a program printed, as that platform has it: stdout, or else stderr.
local function output_of(result)
  local output = result.output or {}
  local stdout, stderr = output.stdout or "", output.stderr or ""
  return stdout ~= "" and stdout or stderr, stdout, stderr
end

local function running(event)
  return {
    eval_id = event.job.id, executor_id = event.worker, worker_id = event.worker, container_id = "",
    timeout = event.job.timeout, started_at = event.time,
  }
end

local function ended(event)
  local result = event.result
  local output, stdout, stderr = output_of(result)
  local body = {
    eval_id = event.job.id, status = STATUS[result.state] or "failed", output = output,
    error = result.state == "success" and "" or result.reason or result.state,
    exit_code = result.exit_code or -1, executor_id = event.worker, completed_at = event.time,
    metadata = {
      engine = result.executor, fallback = result.fallback, duration = result.duration, state = result.state,
      truncated = result.dropped ~= nil,
    },
  }
  local nested = { id = event.job.id }
  for key, value in pairs(body) do nested[key] = value end
  body.result, body.stdout, body.stderr, body.worker_id = nested, stdout, stderr, event.worker
  return body
end

--- The channel and the message of an event; nil for one that is not told there. The end of a job is told
-- once its server knows it.
function queue.message(event)
  if event.name == "job.started" then return "evaluation:running", running(event) end
  if event.name ~= "job.reported" then return nil end
  return event.result.state == "success" and "evaluation:completed" or "evaluation:failed", ended(event)
end

return queue
