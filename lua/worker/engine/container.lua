-- engine/container.lua: one container, from its creation to its removal.
--
-- It has a name of our own before the engine knows of it: whatever happens to the answer of the
-- request that creates it, it can be found and removed.
local err = require "worker.error"
local stream = require "worker.engine.stream"
local text = require "worker.text"

local container = {}

local CREATE_PATIENCE, REMOVE_PATIENCE = 120, 60
local START_PATIENCE = 120
local STOP_MARGIN = 20 -- on top of the grace: the engine kills, reaps and unmounts

local methods = {}
local meta = { __index = methods, __name = "worker.engine.container" }

--- `container.new(engine)`: a container to be; closing it removes it, if it ever was.
function container.new(engine)
  return setmetatable({ engine = engine, name = "worker-" .. text.random_id() }, meta)
end

--- `container.named(engine, name)`: one that is there already.
function container.named(engine, name)
  return setmetatable({ engine = engine, name = name, tried = true }, meta)
end

local function path_of(self, action)
  return "/containers/" .. self.name .. (action or "")
end

--- `box:create(spec)`: as the Docker Engine API has it.
function methods:create(spec)
  self.tried, self.tty = true, spec.Tty
  self.stdin = spec.OpenStdin
  self.engine:call("POST", "/containers/create", { query = { name = self.name }, json = spec, timeout = CREATE_PATIENCE })
end

--- `box:attach()`: its output from the first byte on; called before start.
function methods:attach()
  return self.engine:judged(function()
    return stream.attach(self.engine.address, self.engine:path(path_of(self, "/attach?stream=1&stdout=1&stderr=1"
      .. (self.stdin and "&stdin=1" or ""))), self.tty)
  end)
end

--- `box:start()`.
function methods:start()
  self.engine:call("POST", path_of(self, "/start"), { timeout = START_PATIENCE })
end

--- `box:wait()`: its exit code, once it has ended.
function methods:wait()
  local reply = self.engine:call("POST", path_of(self, "/wait"), { query = { condition = "not-running" }, timeout = false })
  local said = reply.json
  if type(said) ~= "table" or math.type(said.StatusCode) ~= "integer" then
    err.wire("the engine does not say how the container ended", reply.body)
  end
  return said.StatusCode
end

--- `box:state()`: what the engine knows of it: OOMKilled, Error, StartedAt, FinishedAt, ...
function methods:state()
  local said = self.engine:call("GET", path_of(self, "/json")).json
  return type(said) == "table" and said.State or {}
end

--- `box:stop(grace)`: its stop signal, and KILL after so many seconds; returns when it has ended.
function methods:stop(grace)
  grace = math.max(0, math.ceil(grace))
  self.engine:call("POST", path_of(self, "/stop"),
    { query = { t = grace }, timeout = grace + STOP_MARGIN, expect = { 204, 304 } })
end

--- `box:kill([signal])`: send a signal (KILL) to its first process.
function methods:kill(signal)
  self.engine:call("POST", path_of(self, "/kill"), { query = { signal = signal or "KILL" }, expect = { 204, 404, 409 } })
end

--- `box:remove()`: end it and remove it with its volumes; false when it was gone already.
function methods:remove()
  local reply = self.engine:call("DELETE", path_of(self), { query = { force = "1", v = "1" }, timeout = REMOVE_PATIENCE,
    expect = { 200, 204, 404, 409 } })
  self.tried = nil
  return reply.status ~= 404
end

--- `box:close()`: remove it; when the engine is away, as soon as it is back.
function methods:close()
  if self.tried then self.engine:remove(self) end
end
meta.__close = methods.close

return container
