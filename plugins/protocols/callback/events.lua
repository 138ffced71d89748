-- callback.events: what is told, and how it looks on the wire.
--
-- The keys that the published worker sends are there with their values and places; everything else is
-- beside them.  An event is made once and sent as often as it takes: same id, same bytes.
local process = require "worker.process"
local json = require "worker.json"
local text = require "worker.text"
local time = require "worker.time"
local webhook = require "worker.webhook"

local events = {}

-- Where each goes; a failure goes where success goes unless failures = "failed".
local SUFFIX = { started = "started", running = "heartbeat", completed = "completed", failed = "completed" }

--- The address of an event: a suffix behind the path, before a query; a fragment means nothing here.
function events.url(conf, status)
  local url = conf.url:gsub("#.*$", "")
  if conf.address == "plain" then return url end
  local suffix = status == "failed" and conf.failures or SUFFIX[status]
  local path, query = url:match("^([^?]*)(.*)$")
  return path:gsub("/+$", "") .. "/" .. suffix .. query
end

local function base_of(self, status)
  self.sequence = self.sequence + 1
  return {
    task_id = self.conf.task, project_id = self.conf.project, status = status, event_id = text.random_id(),
    run_id = self.run_id, sequence = self.sequence, attempt = self.attempt, worker_id = self.worker_id,
    machine_id = self.machine_id, time = time.iso(), tag = self.node and self.node.tag,
    title = self.node and self.node.title,
  }
end

local function envelope(self, data)
  local id, conf = data.event_id, self.conf
  local headers, body = { ["content-type"] = "application/json" }
  if conf.style == "descartes" then
    body = json.encode(data)
  else
    headers, body = webhook.cloudevent({
      id = id, source = "/projects/" .. text.percent_encode(conf.project or "", "") .. "/workers/"
        .. text.percent_encode(self.worker_id, ""),
      type = "worker.task." .. data.status, time = data.time, subject = conf.task, data = data,
    }, conf.style == "cloudevents-binary" and "binary" or "structured")
  end
  return { id = id, url = events.url(conf, data.status), headers = headers, body = body, data = data }
end

--- The task is about to begin.
function events.started(self)
  local data = base_of(self, "started")
  data.started_at = data.time
  return envelope(self, data)
end

local function last_line(ctx)
  local line = ctx:last_line()
  return line and text.cut(text.repair(text.strip_ansi(line)), 200) or nil
end

--- The task is still running.
function events.running(self, ctx)
  local data = base_of(self, "running")
  data.duration_ms = math.floor((time.mono() - ctx.began) * 1000)
  data.output_bytes = ctx.bytes or 0
  data.message = self.conf.progress and last_line(ctx) or nil
  return envelope(self, data)
end

-- Results ------------------------------------------------------------------------------------------

local function signal_number(name)
  for number = 1, 64 do
    if process.signal_name(number) == name then return number end
  end
end

-- What the worker itself refused or could not do has a reason of its own.
local function reason_of(self, result)
  if self.refused then return self.refused end
  if result.state == "failed" then return result.signal and "signal" or result.verify and "verify" or "exit" end
  if result.state == "timeout" or result.state == "oom" then return result.state end
  if result.state == "cancelled" then return self.cancelled and "cancelled" or "terminated" end
  return result.code and "spawn" or "error"
end

-- The end of each stream, and whether there was more.
local function add_output(data, result, most)
  for stream, whole in pairs(result.output or {}) do
    local tail = text.cut(text.repair(whole), most, "tail")
    data[stream] = tail
    data.output_truncated = data.output_truncated or #tail < #whole
  end
end

local function add_usage(data, usage)
  if not usage then return end
  data.cpu_ms = usage.cpu and math.floor(usage.cpu * 1000)
  data.peak_memory = usage.peak_memory and math.floor(usage.peak_memory)
end

--- How it ended: "completed" or "failed".
function events.ended(self, result)
  local success = result.state == "success"
  local data = base_of(self, success and "completed" or "failed")
  if success then
    data.message = "Task executed successfully"
  else
    data.error = self.why or result.reason or result.state
    data.reason = reason_of(self, result)
  end
  data.exit_code = not result.signal and result.exit_code or nil
  data.signal, data.signal_name = result.signal and signal_number(result.signal), result.signal
  data.started_at = self.started_at
  data.duration_ms = math.floor((result.duration or 0) * 1000)
  data.scud_status = self.scud_status
  add_output(data, result, self.conf.output)
  add_usage(data, result.usage)
  return envelope(self, data)
end

return events
