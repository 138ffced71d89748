-- The log lines of Crucible's worker: its names of events, its fields.
local log = require "worker.log"
local text = require "worker.text"
local time = require "worker.time"

local words = {}

local function say(level, event, message, fields)
  fields.timestamp = time.iso()
  log[level](event, message, fields)
  return true
end

local function task_line(conf, job, more)
  local fields = { eval_id = text.cut(job.eval_id or job.id, 500), engine = job.engine, worker = conf.worker_id }
  for name, value in pairs(more or {}) do fields[name] = value end
  return fields
end

local heard = {}

heard["executor.ready"] = function(_, facts)
  return say("info", facts.executor .. "_engine_initialized", ("the engine %s works"):format(facts.executor), {})
end

heard["executor.back"] = heard["executor.ready"]

heard["executor.failing"] = function(_, facts)
  return say("warn", facts.executor .. "_engine_unavailable", ("the engine %s cannot be used: %s"):format(facts.executor,
    tostring(facts.error)), { error = tostring(facts.error) })
end

heard["server.opened"] = function(conf, facts)
  local engines = table.concat(facts.executors or {}, ", ")
  if engines == "" then say("error", "no_execution_engines_available", "no engine works; no task is taken until one does", {}) end
  return say("info", "worker_started", ("%s takes tasks from %s"):format(conf.worker_id, words.shown(conf.url)),
    { worker_id = conf.worker_id, engines = engines })
end

heard["server.failing"] = function(conf, facts)
  local why = facts.error
  if why.status then
    return say("error", "failed_to_get_task", "the queue gave no task: " .. tostring(why),
      { status_code = why.status, response = why.sample or "" })
  elseif why.kind == "transport" then
    return say("error", "queue_connection_failed", ("the queue cannot be reached: %s; trying again, less and less often")
      :format(tostring(why)), { queue_url = words.shown(conf.url) })
  end
  return say("error", "worker_error", tostring(why), { error = tostring(why) })
end

heard["server.draining"] = function(_, facts)
  return say("info", "worker_shutting_down", "no more tasks are taken: " .. facts.reason, {})
end

heard["server.closed"] = function(conf)
  return say("info", "worker_stopped", conf.worker_id .. " has stopped", { worker_id = conf.worker_id })
end

heard["job.started"] = function(conf, facts)
  return say("info", "processing_task_started", ("task %s begins"):format(facts.job.id), task_line(conf, facts.job))
end

heard["job.fallback"] = function(conf, facts)
  return say("warn", "engine_fallback", ("task %s runs on %s instead of %s%s; %s"):format(facts.job.id, facts.used,
    facts.asked, facts.weaker and ", which shields this machine better" or "", facts.reason),
    task_line(conf, facts.job, { requested = facts.asked, using = facts.used }))
end

-- Told when it is reported.
heard["job.finished"] = function() return true end

--- `words.heard(conf, event, facts)`: see the contract of protocols.
function words.heard(conf, event, facts)
  if heard[event] then return heard[event](conf, facts) end
end

--- `words.reported(conf, job, way, body, note)`: the queue has the report, or never will.
function words.reported(conf, job, way, body, note)
  if way == "fail" then
    return say("error", "task_failed", ("task %s: %s%s"):format(job.id, body.error, note),
      task_line(conf, job, { error = body.error }))
  end
  local output = body.output
  return say("info", "task_completed_successfully", ("task %s: %s%s"):format(job.id, output.status, note),
    task_line(conf, job, { status = output.status, output_length = utf8.len(output.output or "", 1, -1, true) or #output.output,
      exit_code = output.exit_code }))
end

--- `words.shown(url)`: an address without the credentials in it.
function words.shown(url) return (url:gsub("^(%a+://)[^/?#]*@", "%1")) end

--- `words.health(conf, worker)`: what /health answers, in the form of either worker.
function words.health(conf, worker)
  local engines = require("worker.json").array(worker.executors)
  if conf.dialect == "worker-service" then
    return { status = worker.status, worker_id = conf.worker_id, engines = engines, queue_url = words.shown(conf.url) }
  end
  return { status = worker.status, service = "queue-worker", details = {
    worker_id = conf.worker_id, status = worker.running > 0 and "busy" or "idle", tasks_routed = worker.done,
    executors = { total = #engines, healthy = #engines, health = engines },
  } }
end

return words
