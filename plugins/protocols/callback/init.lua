-- callback: one task, told by the environment; its start and its end are POSTs to the orchestrator.
--
-- `started` is delivered before the task begins, one event about its end on every way out that can be
-- caught.  What does not arrive is kept in a file.  README.md beside this file has the wire.
local delivery = require "worker.delivery"
local err = require "worker.error"
local events = require "callback.events"
local fs = require "worker.fs"
local http = require "worker.http"
local input = require "callback.input"
local log = require "worker.log"
local process = require "worker.process"
local scud = require "callback.scud"
local secret = require "worker.secret"
local task = require "worker.task"
local text = require "worker.text"
local time = require "worker.time"
local webhook = require "worker.webhook"

local callback = { kind = "protocol", name = "callback", api = 1 }

callback.doc = "Runs one task that the environment names, and tells an address when it starts and ends."

-- What does not arrive is kept by the plugin itself.
callback.keeps_record = true
callback.claim_breaks = true
callback.output = 128 * 1024

callback.config = {
  -- no "url": orchestrators put a name and a password into this one
  url = { "string", env = { "CALLBACK_URL", "DESCARTES_CALLBACK_URL" }, example = "https://host.example/api/callback",
    doc = "Where events go (CALLBACK_URL)." },
  task = { "string", env = { "TASK_ID", "DESCARTES_TASK_ID" }, min = 1, max = 512, example = "7",
    doc = "The task to run (TASK_ID)." },
  project = { "string", env = { "PROJECT_ID", "DESCARTES_PROJECT_ID" }, doc = "Its project (PROJECT_ID)." },
  token = { "secret", env = "CALLBACK_TOKEN", doc = "Sent as a bearer token with every event." },
  secret = { "secret", env = "CALLBACK_SECRET",
    doc = "Signs every event as Standard Webhooks has it: whsec_..., or two of them while one replaces the other." },
  style = { "enum", values = { "descartes", "cloudevents", "cloudevents-binary" }, default = "descartes",
    doc = "How an event looks." },
  address = { "enum", values = { "suffix", "plain" }, default = "suffix",
    doc = "suffix adds /started and so on to the address, plain leaves it as it is." },
  failures = { "enum", values = { "completed", "failed" }, default = "completed",
    doc = "The suffix that a failed task is told at." },
  heartbeat = { "duration", min = "500ms", doc = "Tell this often that the task still runs; not at all if absent." },
  progress = { "boolean", default = false, doc = "Put the last line of output into heartbeats." },
  strict = { "boolean", default = false, doc = "Do not run the task when `started` is refused (a 4xx)." },
  run_anyway = { "boolean", default = false, doc = "Run the task even when `started` cannot be delivered." },
  delivery = { "record", doc = "How hard to try.", fields = {
    connect = { "duration", default = "5s", doc = "For the connection." },
    try = { "duration", default = "15s", doc = "For one try." },
    start = { "duration", default = "1m", doc = "For all tries of `started`." },
    finish = { "duration", default = "5m", doc = "For all tries of the end." },
    first = { "duration", default = "500ms", doc = "Wait after the first failure; doubles from there." },
    most = { "duration", default = "30s", doc = "Longest wait between two tries." },
  } },
  grace = { "duration", default = "5s",
    doc = "All there is once the worker is asked to stop: one half for the task, one to tell its end." },
  spool = { "path", example = "/var/lib/worker/callback",
    doc = "Where undelivered events and counts of attempts are kept; in the worker's state folder if absent." },
  output = { "size", default = "8KiB", max = "32KiB", doc = "How much of the end of each output stream is told." },
  argv = { "list", of = { "string" }, default = {}, example = { "claude", "-p", "{{prompt}}" },
    doc = "The command; {{task_id}}, {{title}}, {{prompt}}, {{file}} and so on are filled in." },
  script = { "string", doc = "Run this by a shell instead; it finds the task in its environment." },
  dir = { "path", default = ".", doc = "Where the task runs; its .scud is looked for there." },
  pass = { "list", of = { "string" },
    default = { "HOME", "LANG", "TZ", "ANTHROPIC_*", "PROVIDER", "MODEL", "FLY_*", "TRACEPARENT", "http_proxy",
      "https_proxy", "no_proxy", "SSL_CERT_FILE" },
    doc = "Names of the worker's own environment that the task may see; * at the end for any rest." },
  timeout = { "duration", doc = "How long the task may take." },
  attempt = { "integer", env = { "TASK_ATTEMPT", "CLOUD_RUN_TASK_ATTEMPT" }, min = 0,
    doc = "Which attempt this is; counted in the spool if absent." },
  once = { "boolean", default = false, doc = "Refuse a task whose earlier attempt told no end." },
  scud = { "enum", values = { "auto", "yes", "no" }, default = "auto",
    doc = "Whether the task is one of .scud/tasks/tasks.scg; auto if there is such a file." },
  tag = { "string", env = "SCUD_TAG", doc = "The tag of the SCUD task; needed where ids are there more than once." },
  verify = { "string", doc = "A command that has to succeed after the task (needs the policy verify)." },
  write_back = { "boolean", default = true, doc = "Write the SCUD task's new status into its file." },
}

--- What is missing is told in one go, by the names that people set.
function callback.check(conf)
  if conf.url and not conf.url:find("^https?://[^/?#]") then
    return 'expected an address like "https://host.example/callback"', "url"
  end
  if conf.url and conf.task then return end
  local missing = {}
  for _, pair in ipairs { { "task", "TASK_ID" }, { "project", "PROJECT_ID" }, { "url", "CALLBACK_URL" } } do
    if not conf[pair[1]] then missing[#missing + 1] = pair[2] end
  end
  return "not set: " .. table.concat(missing, ", "), conf.url and "task" or "url"
end

-- Attempts -------------------------------------------------------------------------------------------

local function attempts_file(conf)
  local name = text.sha256((conf.project or "") .. "\0" .. conf.task)
  return fs.join(conf.spool, "attempt-" .. name:sub(1, 16))
end

-- How often this task was begun here without an end that was told.
local function count_attempt(conf)
  local before = tonumber((fs.read(attempts_file(conf), 32) or "0"):match("^%d+")) or 0
  local ok, why = pcall(function()
    fs.mkdir(conf.spool, { parents = true, mode = 448 })
    fs.write(attempts_file(conf), tostring(before + 1))
  end)
  if not ok then log.debug("callback.attempt", "attempts are not counted: " .. tostring(why)) end
  return before
end

-- Delivery -------------------------------------------------------------------------------------------

local function warn_about(self, answer, event)
  if answer.json and answer.json.error ~= nil then
    local said = type(answer.json.error) == "table" and answer.json.error.message or answer.json.error
    log.warn("callback.answer", ("%s: the answer to %s is %d, but has an error: %s"):format(self.conf.task,
      event.data.status, answer.status, text.sample(tostring(said))))
  end
end

-- Try until the time is up, or the worker is asked to hurry.
local function send(self, event, budget, tries)
  local limits = self.conf.delivery
  local answer = task.race {
    function()
      return (delivery.send(self.client, event, {
        keys = self.keys, try = limits.try, first = limits.first, most = limits.most, for_ = budget,
        tries = tries,
        on_retry = function(why, _, seconds)
          log.info("callback.retry", ("%s did not arrive: %s; again in %.1f s"):format(event.data.status,
            tostring(why), seconds))
        end,
      }))
    end,
    function()
      while not self.hurried do self.hurry_signal:wait() end
      err.raise("transport", "the worker was told to wait no longer", { reason = "closed" })
    end,
  }
  warn_about(self, answer, event)
  return answer
end

local function is_refusal(why)
  return err.is(why, "http") and why.status >= 300 and why.status < 500 and why.status ~= 408 and why.status ~= 429
end

-- What must not be lost: on disk, and in self.undelivered for whoever can tell a person.
local function keep(self, event, why)
  local ok, path = pcall(delivery.keep, self.conf.spool, event, why)
  self.undelivered = { id = event.id, url = events.url(self.conf, event.data.status):gsub("//[^/@]*@", "//"),
    file = ok and path or nil, error = tostring(why), event = event.data }
  log.error("callback.undelivered", ("%s could not be delivered: %s; %s"):format(event.data.status, tostring(why),
    ok and ("it is kept in %s: `worker callback deliver %s` sends it"):format(path, path)
    or "it could not be kept: " .. tostring(path)))
end

-- The contract ---------------------------------------------------------------------------------------

--- The client for events; also for what sends kept ones later.
function callback.open(conf)
  if conf.token then secret.register(conf.token) end
  if conf.secret then secret.register(conf.secret) end
  local password = conf.url:match("^%a+://[^/?#]*:([^/?#:]*)@")
  if password then secret.register(password) end
  conf.spool = conf.spool or "worker-callback"
  return {
    conf = conf, keys = webhook.keys(conf.secret), sequence = 0, run_id = text.random_id(),
    client = http.client { base = conf.url, bearer = conf.token, connect_timeout = conf.delivery.connect },
    worker_id = process.inherited("HOSTNAME") or fs.read("/proc/sys/kernel/hostname", 256):match("%S+") or "worker",
    machine_id = process.inherited("FLY_MACHINE_ID"), attempt = conf.attempt or 1, hurry_signal = task.signal(),
    -- For who wants to see before anything is sent.
    prepare = input.prepare, started = events.started, ended = events.ended,
    -- Wait no longer for a server that does not answer.
    hurry = function(self)
      self.hurried = true
      self.hurry_signal:fire(100)
    end,
  }
end

function callback.claim(self)
  if self.claimed then return "end" end
  self.claimed = true
  return input.job(self.conf)
end

-- Whatever is wrong with the task is found out before anybody hears that it has started.
function callback.fetch(self, job)
  local before = count_attempt(self.conf)
  self.attempt = self.conf.attempt or before + 1
  local ok, why = task.try(input.prepare, self, job)
  if ok and self.conf.once and before > 0 then
    ok, why = false, err.new("config", ("this is attempt %d, and an earlier one told no end"):format(before + 1))
  end
  if ok then return end
  self.refused, self.why = err.is(why, "config") and "config" or "error", tostring(why)
  error(why, 0)
end

local function stop_if_asked(self, answer, ctx)
  if not (answer.json and answer.json.cancel == true) then return end
  self.cancelled = true
  ctx.cancel("cancelled")
  task.yield() -- the cancel is raised here
end

function callback.start(self, job, ctx)
  self.ctx = ctx
  self.started_at = time.iso()
  local ok, answer = task.try(send, self, events.started(self), self.conf.delivery.start)
  if ok then
    stop_if_asked(self, answer, ctx)
  elseif is_refusal(answer) and not self.conf.strict or self.conf.run_anyway then
    log.warn("callback.start", ("`started` was not taken: %s; task %s runs all the same"):format(tostring(answer), job.id))
  else
    self.refused, self.why = "start", "`started` could not be delivered: " .. tostring(answer)
    error(answer, 0)
  end
  if self.node and self.conf.write_back then
    scud.begin(self.node)
    self.begun = true
  end
end

-- No answer is no reason to stop; one that says so is.
function callback.beat(self, job)
  if not self.conf.heartbeat then return "keep" end
  local event = events.running(self, self.ctx)
  local ok, answer = task.try(delivery.try, self.client, event, { keys = self.keys, try = self.conf.delivery.try })
  local gone = not ok and err.is(answer, "http") and (answer.status == 404 or answer.status == 410)
  if gone or ok and answer.json and answer.json.cancel == true then
    log.info("callback.cancelled", ("the orchestrator ends task %s"):format(job.id))
    self.cancelled = true
    return "cancel"
  end
  if not ok then log.debug("callback.heartbeat", "a heartbeat did not arrive: " .. tostring(answer)) end
  return "keep"
end

-- Once asked to stop there is half of the grace left.
local function budget_of(self, result)
  local stopping = result.state == "cancelled" and not self.cancelled
  return stopping and self.conf.grace / 2 or self.conf.delivery.finish
end

function callback.finish(self, _, result)
  if self.begun then self.scud_status = scud.settle(self.node, result.state) end
  local event = events.ended(self, result)
  -- where `started` did not arrive in all its time, one more try must do
  local ok, why = task.try(send, self, event, budget_of(self, result), self.refused == "start" and 1 or nil)
  if not ok then keep(self, event, why) end
  fs.remove(attempts_file(self.conf))
end

function callback.close(self)
  input.clean(self)
  self.client:close()
end

return callback
