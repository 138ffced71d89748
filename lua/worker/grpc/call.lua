-- grpc/call.lua: one call, as who makes it sees it.
--
-- The time of a call is kept below, on its stream: when it is up the server is told (RST_STREAM) and
-- whoever waits for the call wakes, whatever it waits for.
local err = require "worker.error"
local frame = require "worker.grpc.frame"
local status = require "worker.grpc.status"
local sys = require "worker.core.sys"
local task = require "worker.task"

local call = {}

local methods = {}
local meta = { __index = methods, __name = "grpc.call" }

local LATE = 0.05 -- a server that ends a call so shortly before its time meant its time

local function head_of(client, path, options, seconds)
  local headers = {
    ":method", "POST", ":scheme", client.tls and "https" or "http", ":path", path,
    ":authority", client.authority, "content-type", "application/grpc", "te", "trailers",
    "user-agent", client.user_agent,
  }
  if seconds then
    headers[#headers + 1] = "grpc-timeout"
    headers[#headers + 1] = frame.timeout(seconds)
  end
  frame.put_metadata(headers, client.metadata)
  return frame.put_metadata(headers, options.metadata)
end

local function late(path)
  error(status.new(status.CODES.DEADLINE_EXCEEDED, "the time allowed for the call is over", path), 0)
end

-- A method is its path, or what a schema of worker.protobuf knows of it: {path=, client=codec}.
local function method_of(client, method, options)
  local path = type(method) == "table" and method.path or method
  if type(path) ~= "string" or not path:find("^/[^/]+/[^/]+$") then
    error(("grpc: %q is no method; expected \"/package.Service/Method\""):format(tostring(path)), 4)
  end
  return path, options.codec or type(method) == "table" and method.client or client.codec and client.codec(path)
end

-- `body` and `ends`: what is sent along with the head.
local function open(client, path, codec, options, seconds, body, ends)
  local deadline = seconds and sys.mono() + seconds
  local ok, link = task.try(client.connection, client, seconds)
  if not ok then error(err.is(link) and err.wrap(err.new(link.kind, link.message, link), path) or link, 0) end
  local left = deadline and deadline - sys.mono()
  if left and left <= 0 then late(path) end
  local opened, stream = task.try(link.request, link, head_of(client, path, options, left), body, ends, left)
  if not opened then error(status.of_failure(stream, path), 0) end
  return setmetatable({
    stream = stream, path = path, deadline = deadline, client = client, codec = codec,
  }, meta)
end

--- `call.open(client, method, options)`: see client:stream.
function call.open(client, method, options)
  local path, codec = method_of(client, method, options)
  return open(client, path, codec, options, options.timeout)
end

local function encoded(codec, message, client, path)
  if codec and codec.encode then message = codec.encode(message) end
  return frame.check(message, client.max_send, path)
end

local function once(client, path, codec, options, seconds, bytes)
  local small = #bytes <= 64 * 1024
  local one <close> = open(client, path, codec, options, seconds, small and string.pack(">Bs4", 0, bytes) or nil, small)
  if not small then frame.write(one.stream, bytes, true) end
  local reply = one:receive()
  if reply == nil then
    error(status.new(status.CODES.INTERNAL, "the server ended the call without an answer", path), 0)
  elseif one:receive() ~= nil then
    error(status.new(status.CODES.INTERNAL, "the server answered twice", path), 0)
  end
  return reply, one
end

--- `call.unary(client, method, message, options)`: see client:call.
function call.unary(client, method, message, options)
  local path, codec = method_of(client, method, options)
  local bytes = encoded(codec, message, client, path)
  local seconds = options.timeout or client.timeout
  local deadline = sys.mono() + seconds
  local ok, reply, one = task.try(once, client, path, codec, options, seconds, bytes)
  if not ok and err.is(reply, "transport") and reply.reason == "refused" and sys.mono() < deadline then
    reply, one = once(client, path, codec, options, deadline - sys.mono(), bytes)
  elseif not ok then
    error(reply, 0)
  end
  return reply, one
end

-- What a failure below means for this call.
function methods:fail(why)
  local is_late = self.deadline and sys.mono() >= self.deadline - LATE
  error(status.of_failure(why, self.path, is_late), 0)
end

local function checked(self, fn, ...)
  local ok, value = task.try(fn, ...)
  if not ok then self:fail(value) end
  return value
end

-- The end of the answer: nil when all is well, or the error it tells.
local function finish(self)
  self.trailers = frame.get_metadata(self.head["grpc-status"] and self.head or checked(self, self.stream.trailers,
    self.stream))
  local from = self.head["grpc-status"] and self.head or self.stream:trailers()
  local said = status.read(from, self.path)
  if said == false then
    said = status.new(status.CODES.INTERNAL, "the server ended the call without a status", self.path)
  end
  self.over = true
  if said then error(said, 0) end
  return nil
end

local function begin(self)
  if self.head then return end
  local head = checked(self, self.stream.head, self.stream)
  local odd = not head["grpc-status"] and status.of_http(head, self.path)
  if odd then error(odd, 0) end
  self.head, self.headers = head, frame.get_metadata(head)
end

--- `call:receive()`: the next message; nil when the server has ended the call with OK; any other end
-- is raised.
function methods:receive()
  if self.over then return nil end
  begin(self)
  local bytes = checked(self, frame.read, self.stream, self.client.max_receive, self.path)
  if bytes == nil then return finish(self) end
  local codec = self.codec
  if not (codec and codec.decode) then return bytes end
  local ok, message = task.try(codec.decode, bytes)
  if ok then return message end
  if not err.is(message) then error(message, 0) end
  error(status.new(status.CODES.INTERNAL, "the server's message cannot be read: " .. message.message, self.path), 0)
end

--- `call:send(message [, last])`: true; false when the server takes no more, whose reason receive()
-- tells.  Waits while the server is slow.
function methods:send(message, last)
  if self.over then return false end
  local bytes = encoded(self.codec, message, self.client, self.path)
  return checked(self, frame.write, self.stream, bytes, last)
end

--- `call:close_send()`: nothing more will be sent; receiving goes on.
function methods:close_send()
  return checked(self, self.stream.write, self.stream, "", true)
end

--- `call:cancel()`: end it, now; the server is told.
function methods:cancel()
  self.stream:close()
end

meta.__close = methods.cancel

return call
