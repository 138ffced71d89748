-- queue: tasks of Crucible's queue service.  Wire: GET /tasks/next, POST /tasks/{id}/complete or /fail.
--
-- A task that was pulled is gone from the queue: there is no lease, and nobody else will get it.  So a pull
-- is not broken off, what it brings is run even when the worker stops, and whatever cannot be run is
-- reported as that.  A task that the queue does not know (any more) is final.
local err = require "worker.error"
local http = require "worker.http"
local json = require "worker.json"
local log = require "worker.log"
local secret = require "worker.secret"
local task = require "worker.task"
local text = require "worker.text"
local ws = require "worker.ws"

local config = require "queue.config"
local report = require "queue.report"
local tasks = require "queue.task"
local words = require "queue.words"

local queue = { kind = "protocol", name = "queue", api = 1 }

queue.doc = "Takes tasks of code from Crucible's queue service and runs them in containers, Python first."
queue.config = config.fields
queue.suggests = config.suggests
queue.slots_field = "concurrency"
queue.output = 256 * 1024 -- of each stream, head and tail: twice that and once more fit into a report
queue.heard = words.heard
queue.health = words.health

local TIMEOUT = 30
local KEPT = 4              -- seconds: the server closes an idle connection after five
local TASK_MOST = 64 * 1024 * 1024
local SMALL = 8 * 1024      -- a report for whoever takes no larger one
local STEP, STEP_MOST = 5, 30
local NOTICE_WAIT = 30      -- the queue is asked this often, however quiet its WebSocket
local NO_SOCKET, LOST_SOCKET = 600, 30

-- Notices ------------------------------------------------------------------------------------------------

local function hear(self, socket)
  local _ <close> = socket
  while socket:receive() do
    self.noticed = true
    self.notice:fire()
  end
end

-- The queue's WebSocket, as long as the worker lives: heard while every slot is busy, too, since a queue asks
-- now and then whether anybody is there.
local function listen(self)
  while true do
    local ok, why = task.try(ws.connect, { url = self.base .. "/ws", headers = self.headers, timeout = TIMEOUT })
    if ok then
      self.listening = true
      log.info("queue_websocket_connected", "the queue tells when there is a task", { queue_url = words.shown(self.base) })
      task.try(hear, self, why)
      self.listening = false
      self.notice:fire() -- whoever waits for one polls from now on
      log.info("queue_websocket_lost", "the queue is polled until it has a WebSocket again")
    else
      log.debug("queue_websocket_unavailable", "the queue is polled: " .. tostring(why))
    end
    task.sleep((ok or err.is(why, "transport")) and LOST_SOCKET or NO_SOCKET)
  end
end

-- Until the queue says that there is something, or it is time to ask anyway.  Nothing has been taken, so
-- this may be broken off.  Seconds to the next pull.
local function wait_notice(self)
  if not self.listening then return self.conf.poll end
  if not self.noticed then
    self.claim_breaks = true
    self.notice:wait(NOTICE_WAIT)
    self.claim_breaks = nil
  end
  self.noticed = false
  return 0
end

function queue.open(conf)
  if conf.code == "auto" then conf.code = tasks.is_apart() and "stdin" or "file" end
  local key = conf.api_key and secret.reveal(conf.api_key) or ""
  local headers = key ~= "" and { ["X-API-Key"] = key } or {}
  local base = conf.url:gsub("/+$", "")
  local take = conf.take
  local self = {
    conf = conf, base = base, headers = headers, failures = 0, notice = task.signal(),
    api = http.client { base = base, headers = headers, timeout = TIMEOUT, max_idle = KEPT, max_body = TASK_MOST },
    -- a queue that knows these spares us the others; Crucible's own takes no notice
    query = { engine = take.engines[1] and table.concat(take.engines, ","),
      language = take.languages[1] and table.concat(take.languages, ",") },
  }
  if conf.websocket == "auto" then self.listener = task.start(listen, self) end
  return self
end

function queue.close(self)
  if self.listener then
    self.listener:cancel("the worker stops")
    self.listener:join()
  end
  self.api:close()
end

-- Pulling -------------------------------------------------------------------------------------------------

-- Each failure in a row costs five seconds more.  401 and 403 come from whoever stands in front of the
-- queue and may pass, so they are no reason to give up.
local function failed(self, why)
  self.failures = self.failures + 1
  why.pause = math.min(STEP * self.failures, STEP_MOST)
  error(why, 0)
end

local function is_nothing(value)
  return not value or value == json.null or value == 0 or value == "" or type(value) == "table" and next(value) == nil
end

-- An answer that is none: nil for a queue that has nothing, else an error.
local function refused(reply)
  if reply.status == 404 and not reply.body:find('"Not Found"', 1, true) then return nil end
  local hint = reply.status == 404 and ": there is no queue at this address; see QUEUE_SERVICE_URL" or ""
  return err.new("wire", ("it answered with status %d%s"):format(reply.status, hint),
    { status = reply.status, sample = text.sample(reply.body, 200), retry_after = reply:retry_after() })
end

-- What the queue has for us, decoded; nil for nothing.
local function pull(self)
  local ok, reply = task.try(self.api.get, self.api, "/tasks/next", { query = self.query, expect = "any" })
  if not ok then return failed(self, reply) end
  if reply.status ~= 200 then
    local why = refused(reply)
    if why then failed(self, why) end
    return nil
  end
  local readable, value = task.try(json.decode, reply.body)
  if not readable then failed(self, value) end
  return not is_nothing(value) and value or nil
end

-- To the end of the line, as if it had just come.  Whether the queue took it.
local function give_back(self, value)
  local ok, why = task.try(self.api.post, self.api, "/tasks", { json = { eval_id = value.eval_id, code = value.code,
    language = value.language, engine = value.engine, timeout = value.timeout } })
  if not ok then log.warn("queue.not_returned", "a task for other workers could not be given back: " .. tostring(why)) end
  return ok
end

function queue.claim(self)
  local value = pull(self)
  local ok, job = task.try(tasks.read, value, self.conf)
  if value and not ok then failed(self, job) end
  self.failures = 0
  if not value then return nil, wait_notice(self) end
  if tasks.fits(job, self.conf.take) then return job end
  if self.conf.take.others == "return" and give_back(self, value) then return nil, self.conf.poll end
  job.problem = ("this worker takes no tasks for engine '%s' in %s"):format(job.engine, job.language)
  return job
end

function queue.start(_, job)
  if job.problem then err.raise("refused", job.problem) end
end

-- Reporting -----------------------------------------------------------------------------------------------

local function post(self, job, way, body)
  local path = ("/tasks/%s/%s"):format(text.percent_encode(job.eval_id or job.id), way)
  return self.api:post(path, { body = body, headers = { ["Content-Type"] = "application/json" } })
end

-- The answer, or false when the queue does not know the task: then there is nobody to tell.
local function tell(self, job, result, most)
  local way, encoded, body = report.of(self.conf, job, result, most)
  local ok, reply = task.try(post, self, job, way, encoded)
  if ok then return reply, way, body end
  if err.is(reply, "http") and reply.status == 404 then return false, way, body end
  if err.is(reply, "http") and reply.status == 413 and not most then return tell(self, job, result, SMALL) end
  error(reply, 0)
end

function queue.finish(self, job, result)
  local reply, way, body = tell(self, job, result)
  local unknown = not reply or reply.body:find('"not_found"', 1, true)
  words.reported(self.conf, job, way, body, unknown and "; the queue does not know it (any more)" or "")
end

return queue
