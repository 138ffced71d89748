-- grpc.lua: calls over HTTP/2: unary ones, streams in both directions, and serving them.
--
--   local client <close> = grpc.client { target = "unix:///run/orchestrator.sock" }
--   local reply = client:call("/agent.v1.AgentService/Heartbeat", bytes, { timeout = 10 })
--
-- All calls of a client go over one connection, which is made when it is needed and made anew after
-- it has ended; a server that says GOAWAY finishes the calls it has.  Nothing here pings.
--
-- A call fails with kind "grpc" (code, status: "NOT_FOUND", said: the server's words) when it has
-- been answered, when its time is up or when what came cannot be used; with kind "transport"
-- (reason, and sent: may the server have begun?) when there is no connection any more.
--
--   worker.grpc.status   codes        worker.grpc.frame    messages, metadata, timeouts
--   worker.grpc.call     one call     worker.grpc.server   the other side
local call = require "worker.grpc.call"
local core = require "worker.core.h2"
local err = require "worker.error"
local secret = require "worker.secret"
local server = require "worker.grpc.server"
local sock = require "worker.sock"
local status = require "worker.grpc.status"
local sys = require "worker.core.sys"
local target = require "worker.grpc.target"
local task = require "worker.task"

local grpc = {}

--- `grpc.code.NOT_FOUND`: the codes by name. `grpc.name[5]`: the names by code.
grpc.code, grpc.name = status.CODES, status.NAMES

--- `grpc.error(code, said)`: an error of kind "grpc", to be raised by a handler; code is a number or
-- a name.
function grpc.error(code, said)
  return status.new(status.code(code) or status.CODES.UNKNOWN, said or "")
end

--- `grpc.raise(code, said)`: raise it.
function grpc.raise(code, said)
  error(grpc.error(code, said), 0)
end

--- `grpc.serve{ listen="unix:///path" | "127.0.0.1:0", services={ ["pkg.Service"] = { Method = ... } } }`:
-- a server, listening when the call returns; see its section in the reference.
grpc.serve = server.serve

-- The client ---------------------------------------------------------------------------------------

local client = {}
client.__index = client
client.__name = "grpc.client"

local USUAL = {
  timeout = 30, connect_timeout = 10, max_send = 100 * 1024 * 1024, max_receive = 100 * 1024 * 1024,
  max_header = 16 * 1024, window = 1024 * 1024,
}
local KNOWN = { target = true, tls = true, authority = true, metadata = true, codec = true, on_state = true,
  user_agent = true, proxy = true }

local function offering_h2(tls)
  local all = { alpn = "h2" }
  for name, value in pairs(type(tls) == "table" and tls or {}) do all[name] = value end
  all.key_password = secret.reveal(all.key_password)
  return all
end

--- `grpc.client{ target= }`: nothing is connected yet.  Options: tls (as sock.connect has it; for TCP),
-- timeout (30 s, of a unary call), connect_timeout (10 s), max_send and max_receive (100 MiB, of one
-- message), max_header (16 KiB), window (1 MiB that one stream may hold unread), metadata, authority,
-- user_agent, codec(path) -> {encode=, decode=}, on_state(state, why).
function grpc.client(options)
  local self = setmetatable({
    place = target.parse(options.target), state_now = "idle", links = {}, heads = {},
  }, client)
  for name in pairs(options) do
    if not KNOWN[name] and not USUAL[name] then error("grpc: a client has no option '" .. tostring(name) .. "'", 2) end
  end
  for name, value in pairs(USUAL) do self[name] = options[name] or value end
  self.tls = options.tls and offering_h2(options.tls)
  if self.tls and self.place.unix then
    err.raise("config", ("grpc: %s: there is no TLS over a Unix socket; name host:port, or leave tls out"):format(options.target))
  end
  self.metadata, self.codec, self.on_state = options.metadata, options.codec, options.on_state
  self.proxy, self.target = options.proxy, options.target
  self.authority = options.authority or self.place.authority
  self.user_agent = options.user_agent or "worker/" .. sys.version()
  return self
end

local function set_state(self, state, why)
  if self.state_now == state then return end
  self.state_now = state
  if self.on_state then self.on_state(state, why) end
end

--- `client:state()`: "idle", "connecting", "ready", "transient_failure" or "shutdown".
function client:state()
  return self.state_now
end

-- Stands beside a connection until it is over.
local function watch(self, link)
  local why = link:wait()
  self.links[link] = nil
  link:close()
  if self.link ~= link then return end
  self.link = nil
  if self.state_now ~= "shutdown" then set_state(self, "transient_failure", why) end
end

local function dial(self)
  local conn = sock.connect {
    unix = self.place.unix, address = self.place.address, tls = self.tls, proxy = self.proxy,
    timeout = self.connect_timeout,
  }
  return core.open(conn, { max_header = self.max_header, window = self.window, max_streams = 0 })
end

local function closed()
  return err.new("transport", "grpc: the client is closed", { reason = "closed", sent = false })
end

-- The connection, or nil and why there is none.
local function connect(self)
  local ok, link = pcall(dial, self)
  self.dialling = nil
  if self.state_now == "shutdown" then
    if ok then link:close() end
    return nil, closed()
  elseif not ok then
    if err.is(link, "transport") then link.sent = false end
    set_state(self, "transient_failure", link)
    return nil, link
  end
  self.link = link
  self.links[link] = task.start(watch, self, link)
  set_state(self, "ready")
  return link
end

-- What a task of `connect` comes to, within the time that the caller has.
local function joined(dialling, seconds)
  if not seconds then return true, dialling:join() end
  return task.within(seconds, dialling.join, dialling)
end

-- The connection for a new call.  One attempt serves all who ask meanwhile; it has its own time, and each of
-- them the time of its call.
function client:connection(seconds)
  local link = self.link
  if link and not link:is_going() then return link end
  if self.state_now == "shutdown" then error(closed(), 0) end
  if not self.dialling then
    self.link = nil -- the end of the old one is no news of the new one
    set_state(self, "connecting")
    self.dialling = task.start(connect, self)
  end
  local in_time, ok, found, why = joined(self.dialling, seconds)
  if not in_time then
    err.raise("transport", ("connecting to %s: no connection within the time allowed"):format(self.target),
      { reason = "timeout", sent = false })
  elseif ok and found then
    return found
  end
  error(ok and why or closed(), 0)
end

--- `client:connect([seconds])`: connect now, instead of with the first call.
function client:connect(seconds)
  self:connection(seconds)
end

--- `client:stream(method, options)`: open a call with messages in both directions: send, close_send,
-- receive, cancel.  Options: timeout (none) for all of it, metadata, codec.
function client:stream(method, options)
  return call.open(self, method, options or {})
end

--- `client:call(method, message, options)`: one message there, one back.  The method is a path, or
-- what schema:method() of worker.protobuf gives; the message is bytes, or what the codec encodes.
-- Options: timeout (the client's, 30 s), metadata, codec={encode=, decode=}.  A call that the server
-- surely has not begun with is made once more on a new connection.
function client:call(method, message, options)
  return call.unary(self, method, message, options or {})
end

--- `client:close()`: say goodbye and end the connection; calls under way fail.
function client:close()
  set_state(self, "shutdown")
  local dialling = self.dialling
  if dialling then
    dialling:cancel "the client is closed"
    task.shield(dialling.join, dialling)
  end
  for link, watcher in pairs(self.links) do
    link:close()
    task.shield(watcher.join, watcher)
  end
end

client.__close = client.close

return grpc
