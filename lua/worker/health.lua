-- health.lua: what the outside may ask: /health /livez /readyz /metrics /status /status.json.
--
-- Served by the worker's own loop, so an answer proves that the loop turns.  Nothing here changes
-- anything, and a slow or silent client costs one of a bounded number of connections and no job.
local json = require "worker.json"
local link = require "worker.link"
local page = require "worker.statuspage"
local serve = require "worker.serve"
local sys = require "worker.core.sys"
local task = require "worker.task"

local health = {}

local CONNECTIONS_MOST = 128
local UNREAD_MOST = 64 * 1024
local STALE = 60 -- seconds without a good answer after which a server counts as away

-- Each probe: a name, and nil or what is wrong.
local function probes(self)
  local list = {}
  for _, server in ipairs(self.runner.servers) do
    local age = self.stats.contacts[server.name] and sys.mono() - self.stats.contacts[server.name]
    local wrong
    if server.draining then
      wrong = "draining"
    elseif server.state ~= "ready" then
      wrong = self.stats.errors[server.name] or server.state
    elseif age and age > STALE and server.running < server.slots then
      wrong = ("no answer for %d s"):format(age)
    end
    list[#list + 1] = { name = "server " .. server.name, wrong = wrong }
  end
  if #list == 0 then list[1] = { name = "servers", wrong = "none" } end
  return list
end

local function readiness(self, request, reply)
  local lines, ready = {}, true
  for i, probe in ipairs(probes(self)) do
    ready = ready and not probe.wrong
    lines[i] = ("[%s] %s%s"):format(probe.wrong and "-" or "+", probe.name, probe.wrong and ": " .. probe.wrong or "")
  end
  local verdict = ready and "ok" or "not ready"
  local verbose = request.query.verbose ~= nil or not ready
  reply:text(ready and 200 or 503, (verbose and table.concat(lines, "\n") .. "\n" or "") .. verdict .. "\n")
end

-- The orchestrator's own form, where its protocol knows one: people have probes and dashboards for it.
local function as_known(self, summary)
  for _, server in ipairs(self.runner.servers) do
    if server.plugin.health then
      summary.executors, summary.done = json.array(server.executors:usable()), server.done
      local ok, body = task.try(server.plugin.health, server.conf, summary)
      if ok and type(body) == "table" then return body end
      link.report_bug(server, "health", body)
    end
  end
  return summary
end

local function summary(self)
  local well, running = true, 0
  for _, probe in ipairs(probes(self)) do well = well and not probe.wrong end
  for _, server in ipairs(self.runner.servers) do
    running = running + server.running
    well = well and not server.trouble.since
  end
  return as_known(self, { status = well and "healthy" or "degraded", version = sys.version(), running = running })
end

local function feeds(self)
  return self.runner.sinks and self.runner.sinks.feeds
end

local function describe(self)
  local conf = self.runner.conf -- the one in force: another after a reload
  return self.stats:describe(self.runner.servers, feeds(self), conf and conf.name)
end

local function routes(self)
  return serve.routes {
    ["GET /livez"] = function(_, reply) reply:text(200, "ok\n") end,
    ["GET /readyz"] = function(request, reply) readiness(self, request, reply) end,
    ["GET /ready"] = function(request, reply) readiness(self, request, reply) end,
    ["GET /health"] = function(_, reply) reply:json(200, summary(self)) end,
    ["GET /metrics"] = function(_, reply)
      reply:send(200, { ["Content-Type"] = "text/plain; version=0.0.4; charset=utf-8" },
        self.stats:text(self.runner.servers, feeds(self)))
    end,
    ["GET /status.json"] = function(_, reply) reply:json(200, describe(self)) end,
    ["GET /status"] = function(_, reply) reply:html(200, page.html(describe(self))) end,
    ["GET /"] = function(_, reply) reply:send(302, { Location = "/status" }, "") end,
  }
end

--- `health.open(address, stats, runner)`: listen; "host:port", or the path of a Unix socket.  Returns
-- the server, to be closed.
function health.open(address, stats, runner)
  local self = { stats = stats, runner = runner }
  local unix = address:find("/", 1, true) and address or nil
  return serve.http {
    address = not unix and address or nil, unix = unix, handler = routes(self),
    max_connections = CONNECTIONS_MOST, max_body = 0, idle_timeout = 15, header_timeout = 5, send_buffer = UNREAD_MOST,
  }
end

return health
