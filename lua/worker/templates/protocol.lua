-- protocol.lua: what `worker new protocol` writes.  @NAME@ is the plugin's name, @VAR@ the same as a
-- Lua name.
return {
  folder = "protocols",
  plugin = [==[
-- @NAME@: how a worker talks to @NAME@.  HTTP with JSON; claims that wait; leases.
--
-- Every loop is the worker's: asking again, backing off, heartbeats, repeating a report until it has
-- arrived.  Here stands only what the wire looks like.  Change paths and fields to your server's.
local http = require "worker.http"
local error = require "worker.error"

local @VAR@ = { kind = "protocol", name = "@NAME@", api = 1 }

@VAR@.doc = "Takes jobs from @NAME@."

@VAR@.config = {
  url   = { "url", required = true, doc = "Address of the server.", example = "https://ci.example" },
  token = { "secret", required = true, doc = "Lets this worker in." },
  queue = { "string", default = "default", doc = "The queue to take jobs from." },
  wait  = { "duration", default = "20s", doc = "How long the server may think about a claim." },
}

-- Connect and register.  Called again whenever the server says that it does not know us.
function @VAR@.open(conf)
  local api = http.client { base = conf.url, bearer = conf.token, timeout = conf.wait + 10 }
  local worker = api:post("/workers", { json = { queue = conf.queue } }).json
  return { api = api, id = worker.id, wait = conf.wait }
end

-- Ask once for a job.  nil: none now, ask again.  "end": there will never be another one.
function @VAR@.claim(self)
  local reply = self.api:post("/claim", {
    json = { worker = self.id, wait = self.wait }, expect = { 200, 204, 404 },
  })
  if reply.status == 204 then return nil end
  if reply.status == 404 then error.gone() end

  local job = reply.json
  return { id = job.id, script = job.script, env = job.env, timeout = job.timeout, lease = job.lease }
end

-- The job runs: is it still ours?
function @VAR@.beat(self, job)
  local reply = self.api:put(http.url("/jobs", job.id, "lease"), {
    json = { lease = job.lease }, expect = { 200, 409, 410 },
  })
  if reply.status == 410 then return "cancel" end -- a person stopped it
  if reply.status == 409 then return "lost" end   -- somebody else has it now
  return "keep"
end

-- A piece of output, in order: chunk.stream, chunk.offset, chunk.text, chunk.time.
function @VAR@.log(self, job, chunk)
  self.api:post(http.url("/jobs", job.id, "log"), { query = { at = chunk.offset }, body = chunk.text })
end

-- The end: "success", "failed", "timeout", "cancelled", "oom", "lost" or "error".
function @VAR@.finish(self, job, result)
  self.api:post(http.url("/jobs", job.id, "result"), {
    json = { lease = job.lease, state = result.state, exit_code = result.exit_code },
  })
end

function @VAR@.close(self)
  self.api:close()
end

return @VAR@
]==],
  spec = [==[
-- The @NAME@ protocol against a small server that speaks the same wire.
local err = require "worker.error"
local registry = require "worker.registry"
local schema = require "worker.schema"
local serve = require "worker.serve"

local @VAR@ = assert(registry.open({ "plugins" }):get("protocol", "@NAME@"))

describe("the protocol @NAME@", function()
  local server, self, answers, asked

  -- What the server answers to the next request for each route; `asked` remembers the requests.
  local function answer(route)
    return function(request, reply)
      asked[#asked + 1] = { route = route, body = request:read_body(), target = request.target }
      local status, value = table.unpack(answers[route])
      if value then reply:json(status, value) else reply:empty(status) end
    end
  end

  before_each(function()
    asked, answers = {}, { ["POST /workers"] = { 200, { id = "w1" } } }
    local routes = {}
    for _, route in ipairs { "POST /workers", "POST /claim", "PUT /jobs/{id}/lease", "POST /jobs/{id}/log",
      "POST /jobs/{id}/result" } do
      routes[route] = answer(route)
    end
    server = serve.http { address = "127.0.0.1:0", handler = serve.routes(routes) }
    self = @VAR@.open(assert(schema.check(@VAR@, { url = server.url, token = "a long enough token" })))
  end)

  after_each(function()
    @VAR@.close(self)
    server:close()
  end)

  it("takes a job", function()
    answers["POST /claim"] = { 200, { id = "7", script = "make test", lease = "x" } }
    local job = @VAR@.claim(self)
    assert.equal("7", job.id)
    assert.equal("make test", job.script)
  end)

  it("takes nothing when there is nothing", function()
    answers["POST /claim"] = { 204 }
    assert.is_nil(@VAR@.claim(self))
  end)

  it("says so when the server no longer knows this worker", function()
    answers["POST /claim"] = { 404 }
    local ok, why = pcall(@VAR@.claim, self)
    assert.is_false(ok)
    assert.equal("gone", err.kind(why))
  end)

  it("tells a job that was stopped from one that was taken away", function()
    answers["PUT /jobs/{id}/lease"] = { 200 }
    assert.equal("keep", @VAR@.beat(self, { id = "7", lease = "x" }))
    answers["PUT /jobs/{id}/lease"] = { 410 }
    assert.equal("cancel", @VAR@.beat(self, { id = "7", lease = "x" }))
    answers["PUT /jobs/{id}/lease"] = { 409 }
    assert.equal("lost", @VAR@.beat(self, { id = "7", lease = "x" }))
  end)

  it("ships output with its offset", function()
    answers["POST /jobs/{id}/log"] = { 204 }
    @VAR@.log(self, { id = "7" }, { stream = "stdout", offset = 5, text = "hello\n" })
    assert.equal("/jobs/7/log?at=5", asked[#asked].target)
    assert.equal("hello\n", asked[#asked].body)
  end)

  it("reports the result, and may do so twice", function()
    answers["POST /jobs/{id}/result"] = { 200, {} }
    for _ = 1, 2 do @VAR@.finish(self, { id = "7", lease = "x" }, { state = "failed", exit_code = 3 }) end
    assert.matches('"failed"', asked[#asked].body)
  end)

  it("lets the worker know when the server has trouble", function()
    answers["POST /claim"] = { 503 }
    local ok, why = pcall(@VAR@.claim, self)
    assert.is_false(ok)
    assert.equal("http", err.kind(why))
  end)
end)
]==],
  next = {
    "worker spec spec/plugins/@NAME@_spec.lua", "worker explain @NAME@",
    "WORKER_TOKEN=... worker --protocol @NAME@ --url https://... plugins/",
  },
}
