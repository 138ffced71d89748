-- acme: an adapter to read and to copy.  Acme CI does not exist; its wire looks like most:
--
--   POST /agents                 { name }            { agent }
--   POST /agents/{agent}/next    waits for work      204, or { build, commands, variables, ticket }
--   PUT  /builds/{build}/alive   { ticket }          200; 410: a person stopped it; 409: not yours now
--   POST /builds/{build}/output  ?from=0             bytes as the build prints them
--   POST /builds/{build}/end     { ticket, outcome, exit_code }
--
-- Nothing here loops, repeats or waits between two tries: that is the worker's part.
local error = require "worker.error"
local http = require "worker.http"

local acme = { kind = "protocol", name = "acme", api = 1, doc = "Builds for Acme CI, which does not exist." }

acme.config = {
  url   = { "url", required = true, doc = "Address of Acme.", example = "https://ci.example" },
  token = { "secret", required = true, doc = "Lets this worker in." },
  agent = { "string", default = "worker", doc = "What Acme calls this worker." },
  wait  = { "duration", default = "30s", doc = "How long Acme may think about a request for work." },
  beat  = { "duration", default = "10s", doc = "How often to ask whether a build is still ours." },
}

function acme.open(conf)
  local api = http.client { base = conf.url, bearer = conf.token, timeout = conf.wait + 10 }
  local agent = api:post("/agents", { json = { name = conf.agent } }).json.agent
  return { api = api, work = http.url("/agents", agent, "next") }
end

function acme.claim(self)
  local reply = self.api:post(self.work, { expect = { 200, 204, 404 } })
  if reply.status == 204 then return nil end      -- nothing now; the worker asks again
  if reply.status == 404 then error.gone() end    -- Acme forgot us; the worker opens anew
  local work = reply.json
  return { id = work.build, script = work.commands, env = work.variables, ticket = work.ticket }
end

function acme.beat(self, job)
  local reply = self.api:put(http.url("/builds", job.id, "alive"), {
    json = { ticket = job.ticket }, expect = { 200, 409, 410 } })
  return ({ [200] = "keep", [409] = "lost", [410] = "cancel" })[reply.status]
end

function acme.log(self, job, chunk)
  self.api:post(http.url("/builds", job.id, "output"), { query = { from = chunk.offset }, body = chunk.text })
end

function acme.finish(self, job, result)
  self.api:post(http.url("/builds", job.id, "end"), {
    json = { ticket = job.ticket, outcome = result.state, exit_code = result.exit_code } })
end

return acme
