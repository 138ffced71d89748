-- engine.lua: a container engine that answers by a script, on a Unix socket.
--
--   local fake = engines.fake { output = engines.frame(1, "hi\n"), exit = 3 }
--   local docker <close> = engine.open { host = fake.host }
--   fake.daemon.requests, fake.daemon:count "POST /{v}/containers/create"   see spec.support.server
--
-- It has one image, `there` with any tag, and every container it is asked to make ends as the options
-- say: `output` (bytes, or a list of pieces sent one by one, or a function(conn)), `exit`, `state` (what inspecting adds),
-- `routes` (answers instead of the usual ones), `version`, `image`, `containers` (those already there),
-- `address` (instead of a Unix socket).
local json = require "worker.json"
local server = require "spec.support.server"
local sys = require "worker.core.sys"
local task = require "worker.task"
local text = require "worker.text"

local engines = {}

--- One frame of the engine's stream.
function engines.frame(stream, bytes)
  return (">BxxxI4"):pack(stream, #bytes) .. bytes
end

local function attach(options)
  return function(_, reply)
    local conn = reply:upgrade("tcp", { ["Content-Type"] = "application/vnd.docker.raw-stream" })
    if type(options.output) == "function" then return options.output(conn) end
    for _, piece in ipairs(type(options.output) == "table" and options.output or { options.output or "" }) do
      conn:write(piece)
      task.sleep(0.01)
    end
  end
end

local function not_found(what)
  return server.json(404, { message = "No such " .. what })
end

function engines.fake(options)
  options = options or {}
  local state = { Running = false, OOMKilled = false, Error = "", ExitCode = options.exit or 0,
    StartedAt = "2026-01-01T00:00:00.000000001Z", FinishedAt = "2026-01-01T00:00:02.5Z" }
  for name, value in pairs(options.state or {}) do state[name] = value end
  local version = { ["Api-Version"] = options.version or "1.41" }
  local image = options.image or { Id = "sha256:1", Config = { User = "" } }
  local routes = {
    ["GET /_ping"] = server.text(200, "OK", version),
    ["GET /{v}/info"] = server.json(200,
      { Runtimes = { runc = { path = "runc" } }, KernelVersion = "6.1", Architecture = "x86_64" }),
    ["GET /{v}/containers/json"] = server.json(200, json.array(options.containers or {})),
    ["GET /{v}/images/{name}/json"] = function(request, reply)
      if request.params.name:match "^[^:]+" == "there" then return reply:json(200, image) end
      return not_found("image")(request, reply)
    end,
    ["POST /{v}/containers/create"] = server.json(201, { Id = "c1", Warnings = json.array {} }),
    ["POST /{v}/containers/{id}/attach"] = attach(options),
    ["POST /{v}/containers/{id}/start"] = server.empty(204),
    ["POST /{v}/containers/{id}/wait"] = server.json(200, { StatusCode = options.exit or 0 }),
    ["POST /{v}/containers/{id}/stop"] = server.empty(204),
    ["GET /{v}/containers/{id}/json"] = server.json(200, { State = state }),
    ["DELETE /{v}/containers/{id}"] = server.empty(204),
  }
  for route, answer in pairs(options.routes or {}) do routes[route] = answer end
  local unix = not options.address and (options.unix or ("/tmp/worker-engine-%d-%s"):format(sys.pid(), text.random_id(8)))
  local daemon = server.http(routes, { unix = unix or nil, address = options.address,
    any = server.json(404, { message = "page not found" }) })
  return { daemon = daemon, host = unix and "unix://" .. unix or "tcp://" .. daemon.address, unix = unix }
end

return engines
