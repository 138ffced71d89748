-- strom: takes steps of workflows from a Strøm server.
--
-- The wire and nothing else; what a step says is read in step.lua, its workspace and state are
-- brought by files.lua, its OUTPUT: and STATE: lines are found by output.lua, and what is sent back
-- is written in report.lua.
local error = require "worker.error"
local files = require "strom.files"
local fs = require "worker.fs"
local http = require "worker.http"
local json = require "worker.json"
local log = require "worker.log"
local output = require "strom.output"
local report = require "strom.report"
local step = require "strom.step"
local task = require "worker.task"
local mono = require("worker.time").mono

local strom = { kind = "protocol", name = "strom", api = 1 }

strom.doc = "Takes steps of workflows from a Strøm server, of the first version or the latest. Reads "
  .. "worker-config.yaml (or the file STROEM_CONFIG names) and STROEM__* as Strøm's own worker does."

strom.config = require "strom.config".fields
strom.check = require "strom.config".check
strom.suggests = require "strom.config".suggests
strom.own_file = { env = "STROEM_CONFIG", name = "worker-config.yaml" }
strom.slots_field = "max_concurrent"
strom.hands_out_retries = true
strom.claims = 8 -- the server hands out each step once, whoever asks

strom.output = 64 * 1024 -- of stderr, for the error of a step that fails
strom.batch = { lines = true, seconds = 0.5 }

local REFUSALS = 3   -- claims answered by 500, one after the other, while heartbeats are taken
local JSON = { ["Content-Type"] = "application/json" }

local function host() return (fs.read("/proc/sys/kernel/hostname") or "worker"):gsub("%s+$", "") end

-- What the server answers is its own affair only as far as it can be read.
local function must(reply, field, kind)
  local value = type(reply.json) == "table" and reply.json[field]
  if type(value) ~= kind then error.wire(("the server's answer has no %s '%s'"):format(kind, field)) end
  return value
end

-- Of what the configuration says, in today's words.
local function abilities_of(conf, rooms)
  local list, is = json.array {}, {}
  for _, name in ipairs(conf.capabilities) do is[name] = true end
  if is.script or is.shell then list[1] = "script" end
  if is.docker then list[#list + 1] = "docker" end
  if is.docker and not rooms.box then
    error.raise("config", "capabilities has docker, but no executor here runs containers: add one, as in "
      .. "executor: [shell, docker]")
  end
  return list
end

-- Unknown names in a claim do no harm, and servers of the first version call scripts "shell".
local function offer_of(conf, worker_id, abilities)
  local list = json.array(table.move(abilities, 1, #abilities, 1, {}))
  if list[1] == "script" then list[#list + 1] = "shell" end
  return {
    worker_id = worker_id, capabilities = list,
    tags = #conf.tags > 0 and json.array(conf.tags) or nil, exclusive = conf.exclusive or nil,
  }
end

local function register(api, conf, abilities)
  local reply = api:post("/worker/register", { expect = { 200, 400, 422 }, json = {
    name = conf.worker_name or host(), capabilities = abilities,
    tags = #conf.tags > 0 and json.array(conf.tags) or nil, exclusive = conf.exclusive or nil,
    version = "worker",
  } })
  if reply.status ~= 200 then
    error.raise("config", ("the server does not take this worker: %s"):format(reply.body))
  end
  return must(reply, "worker_id", "string")
end

function strom.open(conf, about)
  local rooms = step.rooms(about.executors)
  local abilities = abilities_of(conf, rooms)
  local api = http.client {
    base = conf.server_url, bearer = conf.worker_token,
    timeout = conf.request_timeout_secs, connect_timeout = conf.connect_timeout_secs,
  }
  local kept = files.new(api, conf) -- before the server counts on us
  local worker_id = register(api, conf, abilities)
  return {
    api = api, conf = conf, worker_id = worker_id, offer = offer_of(conf, worker_id, abilities), refusals = 0, refused = 0,
    idle = conf.poll_interval_secs, files = kept, rooms = rooms,
  }
end

-- Whoever answers 200 with a page is not this server.
local function taken(reply)
  if type(reply.json) ~= "table" then error.wire("the server's answer is no JSON object") end
end

local function heartbeat(self, id)
  taken(self.api:post("/worker/heartbeat", { json = { worker_id = id } }))
end

-- An unknown worker's claims fail with 500 as soon as there is work for it, and nothing else tells:
-- its heartbeats are taken all the same.
local function claim_failed(self, reply, asked)
  if asked >= self.refused then -- several under way at once are one
    self.refusals, self.refused = self.refusals + 1, mono()
  end
  if self.refusals < REFUSALS or self.unwell or not task.try(heartbeat, self, self.worker_id) then
    error.raise("http", "the server failed to hand out a step (500)", { status = reply.status })
  end
  error.gone("claims keep failing while heartbeats are taken; registering anew")
end

-- A claim's answer carries secrets: no message may quote it.
function strom.claim(self)
  local asked = mono()
  local reply = self.api:post("/worker/jobs/claim", { json = self.offer, expect = { 200, 422, 500 }, private = true })
  if reply.status == 500 then claim_failed(self, reply, asked) end
  self.refusals = 0
  if reply.status == 422 then -- the step is failed already, on the server's side
    log.warn("strom.unrendered", "the server could not fill in a step's templates and has failed the step")
    return nil
  end
  local known, claim = reply.json, json.decode(reply.body, { null = json.null })
  if type(claim) ~= "table" or json.is_array(claim) or claim.job_id == nil then
    error.wire("the answer to a claim is not what a Strøm server says")
  end
  self.old = claim.workspace == nil -- the first version has no such field
  if claim.job_id == json.null then return nil end
  local job = step.read(known, self.conf, self.rooms)
  job.worker = self.worker_id
  return job
end

local function at(job, ...) return http.url("/worker/jobs", job.job, ...) end

function strom.fetch(self, job, ctx)
  if job.problem then error.raise("wire", job.problem) end
  job.place = self.files:bring(job, ctx)
  job.watch = output.watch(self.api, job, ctx)
  step.prepare(job, ctx)
end

function strom.start(self, job)
  local path, body = at(job, "steps", job.step, "start"), { json = { worker_id = job.worker } }
  report.insist(function() taken(self.api:post(path, body)) end)
end

-- The server fails the steps of a worker that it does not hear of: so those of an earlier registration
-- have their own.
function strom.pulse(self, jobs)
  self.unwell = true
  local ids = { [self.worker_id] = true }
  for _, job in ipairs(jobs) do ids[job.worker or self.worker_id] = true end
  for id in pairs(ids) do heartbeat(self, id) end
  self.unwell = false
end

function strom.beat(self, job)
  if self.never_cancels then return "keep" end
  local reply = self.api:get(at(job, "cancelled"), { expect = { 200, 404 } })
  self.never_cancels = self.old and reply.status == 404 -- older than cancelling
  return reply.status == 200 and must(reply, "cancelled", "boolean") and "cancel" or "keep"
end

-- Bodies are made once, so that a repeated one says the same, and those that arrived are not sent again.
function strom.log(self, job, chunk)
  chunk.bodies = chunk.bodies or report.logs(job, chunk, self.old)
  while chunk.bodies[1] do
    taken(self.api:post(at(job, "logs"), { body = chunk.bodies[1], headers = JSON }))
    table.remove(chunk.bodies, 1)
  end
end

function strom.collect(self, job, ctx, result)
  if not job.watch then return end -- it never came that far
  result.value = job.watch:finish()
  self.files:send_states(job, ctx)
  return self.files:send_artifacts(job, ctx, result)
end

-- Sent until there is an answer, and not again after one: the server would fire its hooks twice.  A
-- result that the server cannot store must not leave the step running.
function strom.finish(self, job, result)
  local path = at(job, "steps", job.step, "complete")
  local least = report.must_be_small(self, job)
  local body = least and report.least(result, least) or report.complete(result)
  local reply = self.api:post(path, { body = body, headers = JSON, expect = { 200, 400, 413, 422, 500 } })
  if reply.status == 200 then return taken(reply) end
  if reply.status == 500 then report.refused(self, job, reply) end
  log.warn("strom.result_refused", ("job %s: the server refuses its result (%d): reporting less of it"):format(
    job.id, reply.status), { job = job.id })
  taken(self.api:post(path, { body = report.least(result, reply.status), headers = JSON }))
end

function strom.close(self) self.api:close() end

return strom
