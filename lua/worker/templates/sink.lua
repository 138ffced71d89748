-- sink.lua: what `worker new sink` writes.  @NAME@ is the plugin's name, @VAR@ the same as a Lua name.
return {
  folder = "sinks",
  plugin = [==[
-- @NAME@: tells somebody what happens in the worker.
--
-- publish is called with one event after the other and raises when one did not arrive.  The worker
-- keeps the queue, repeats what failed and opens the sink anew, so there is no loop here.
local http = require "worker.http"

local @VAR@ = { kind = "sink", name = "@NAME@", api = 1 }

@VAR@.doc = "Sends every event to a server, as JSON."

@VAR@.config = {
  url   = { "url", required = true, doc = "Where events go.", example = "https://host.example/events" },
  token = { "secret", doc = "Sent as a bearer token." },
}

function @VAR@.open(conf)
  return { api = http.client { base = conf.url, bearer = conf.token } }
end

function @VAR@.publish(self, event)
  self.api:post("", { json = event, headers = { ["Idempotency-Key"] = event.id } })
end

function @VAR@.close(self)
  self.api:close()
end

return @VAR@
]==],
  spec = [==[
-- The sink @NAME@ against a server that keeps what it gets.
local registry = require "worker.registry"
local schema = require "worker.schema"
local serve = require "worker.serve"

local @VAR@ = assert(registry.open({ "plugins" }):get("sink", "@NAME@"))

describe("the sink @NAME@", function()
  local got, answer

  local function server()
    got, answer = {}, 204
    return serve.http { address = "127.0.0.1:0", handler = serve.routes {
      ["POST /events"] = function(request, reply)
        got[#got + 1] = request:json()
        reply:empty(answer)
      end,
    } }
  end

  local function open(server)
    return @VAR@.open(assert(schema.check(@VAR@, { url = server.url .. "/events" })))
  end

  it("hands over an event", function()
    local server <close> = server()
    local self = open(server)
    @VAR@.publish(self, { id = "1", name = "job.finished", job = { id = "7" } })
    assert.equal("7", got[1].job.id)
    @VAR@.close(self)
  end)

  it("raises what the server says, so that the worker tries again", function()
    local server <close> = server()
    local self = open(server)
    answer = 503
    local ok, why = pcall(@VAR@.publish, self, { id = "1", name = "job.finished" })
    assert.is_false(ok)
    assert.equal(503, why.status)
    @VAR@.close(self)
  end)
end)
]==],
  next = {
    "worker spec spec/plugins/@NAME@_spec.lua", "worker explain @NAME@",
    "add it to `events:` in worker.yaml",
  },
}
