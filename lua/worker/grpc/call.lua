-- grpc/call.lua: one call, as who makes it sees it.
--
-- The time of a call is kept below, on its stream: when it is up the server is told (RST_STREAM) and
-- whoever waits for the call wakes, whatever it waits for.
local err = require "worker.error"
local frame = require "worker.grpc.frame"
local status = require "worker.grpc.status"
local sys = require "worker.core.sys"

local call = {}

local methods = {}
local meta = { __name = "grpc.call" }

local LATE = 0.05       -- a server that ends a call so shortly before its time meant its time
local SMALL = 60 * 1024 -- an answer up to here is read in one piece: less than the smallest window (65535),
                        -- as a server that has filled its window waits and nobody would see that it is more

local CODES = status.CODES

-- Beginning ----------------------------------------------------------------------------------------

-- The head of a method's calls; all but their time and metadata.
local function new_head(client, path)
  if type(path) ~= "string" or not path:find("^/[^/]+/[^/]+$") then
    error(("grpc: %q is no method; expected \"/package.Service/Method\""):format(tostring(path)), 4)
  end
  return {
    ":method", "POST", ":scheme", client.tls and "https" or "http", ":path", path,
    ":authority", client.authority, "content-type", "application/grpc", "te", "trailers",
    "user-agent", client.user_agent,
  }
end

-- A method is its path, or what a schema of worker.protobuf knows of it: {path=, client=codec}.
local function method_of(client, method, options)
  local path = type(method) == "table" and method.path or method
  if not client.heads[path] then client.heads[path] = new_head(client, path) end
  return path, options.codec or type(method) == "table" and method.client or client.codec and client.codec(path)
end

-- It is read at once, so that one for each method will do.
local function head_of(client, path, metadata, seconds)
  local head = client.heads[path]
  if client.metadata or metadata then head = table.move(head, 1, 14, 1, {}) end
  head[15], head[16] = seconds and "grpc-timeout" or nil, seconds and frame.timeout(seconds) or nil
  if client.metadata then frame.put_metadata(head, client.metadata) end
  return metadata and frame.put_metadata(head, metadata) or head
end

local function late(path)
  return status.new(CODES.DEADLINE_EXCEEDED, "the time allowed for the call is over", path)
end

-- A connection, and what is left of the time then.
local function connect(client, path, seconds)
  local link = client.link
  if link and not link:is_going() then return link, seconds end
  local began = sys.mono()
  local ok, found = pcall(client.connection, client, seconds)
  if not ok then
    if not err.is(found, "transport") then error(found, 0) end
    error(err.wrap(err.new("transport", found.message, found), path), 0) -- others hold the same object
  end
  local left = seconds and seconds - (sys.mono() - began)
  if left and left <= 0 then error(late(path), 0) end
  return found, left
end

-- `bytes`: a message that is sent along with the head, and is the last.
local function open(client, path, codec, metadata, seconds, bytes)
  local link, left = connect(client, path, seconds)
  local lead = bytes and frame.lead(bytes)
  local ok, stream = pcall(link.request, link, head_of(client, path, metadata, left), bytes, bytes ~= nil, left, lead)
  if not ok then error(status.of_failure(stream, path), 0) end
  return setmetatable({
    stream = stream, path = path, deadline = left and sys.mono() + left, client = client, codec = codec,
  }, meta)
end

--- `call.open(client, method, options)`: see client:stream.
function call.open(client, method, options)
  local path, codec = method_of(client, method, options)
  return open(client, path, codec, options.metadata, options.timeout)
end

-- Receiving ----------------------------------------------------------------------------------------

-- What comes of a call of the stream below: its value, or what its failure means for this call.
local function checked(self, ok, ...)
  if ok then return ... end
  local is_late = self.deadline and sys.mono() >= self.deadline - LATE
  error(status.of_failure((...), self.path, is_late), 0)
end

local function begin(self, head)
  self.head = head
  local odd = not head["grpc-status"] and status.of_http(head, self.path)
  if odd then error(odd, 0) end
end

-- The server has said everything: nil when all is well, else its status is raised.
local function finish(self, tail)
  if self.head["grpc-status"] then tail = self.head end
  self.tail, self.over = tail, true
  local said = status.read(tail, self.path)
  if said == false then
    said = status.new(CODES.INTERNAL, "the server ended the call without a status", self.path)
  end
  if said then error(said, 0) end
end

local function decoded(self, bytes)
  local codec = self.codec
  if not (codec and codec.decode) then return bytes end
  local ok, message = pcall(codec.decode, bytes)
  if ok then return message end
  if not err.is(message, "wire") then error(message, 0) end
  error(status.new(CODES.INTERNAL, "the server's message cannot be read: " .. message.message, self.path), 0)
end

--- `call:receive()`: the next message; nil when the server has ended the call with OK; any other end
-- is raised.
function methods:receive()
  if self.over then return nil end
  local stream = self.stream
  if not self.head then begin(self, checked(self, pcall(stream.head, stream))) end
  local bytes = checked(self, pcall(frame.read, stream, self.client.max_receive, self.path))
  if bytes ~= nil then return decoded(self, bytes) end
  return finish(self, checked(self, pcall(stream.trailers, stream)))
end

-- Exactly one message, and OK.
local function receive_only(self)
  local stream = self.stream
  local head, bytes, tail = checked(self, pcall(stream.all, stream, SMALL))
  local reply
  if head then
    begin(self, head)
    reply = frame.only(bytes, self.client.max_receive, self.path)
    finish(self, tail)
  else
    reply = self:receive()
    if self:receive() ~= nil then error(status.new(CODES.INTERNAL, "the server answered twice", self.path), 0) end
    return reply
  end
  if reply == nil then
    error(status.new(CODES.INTERNAL, "the server ended the call without an answer", self.path), 0)
  end
  return decoded(self, reply)
end

-- Unary calls --------------------------------------------------------------------------------------

local function encoded(codec, message, client, path)
  if codec and codec.encode then message = codec.encode(message) end
  return frame.check(message, client.max_send, path)
end

local function once(client, path, codec, metadata, seconds, bytes)
  local one <close> = open(client, path, codec, metadata, seconds, bytes)
  return receive_only(one), one
end

--- `call.unary(client, method, message, options)`: see client:call.
function call.unary(client, method, message, options)
  local path, codec = method_of(client, method, options)
  local bytes = encoded(codec, message, client, path)
  local seconds = options.timeout or client.timeout
  local began = sys.mono()
  local ok, reply, one = pcall(once, client, path, codec, options.metadata, seconds, bytes)
  if ok then return reply, one end
  if not err.is(reply, "transport") or reply.reason ~= "refused" then error(reply, 0) end
  local left = seconds - (sys.mono() - began)
  if left <= 0 then error(late(path), 0) end
  return once(client, path, codec, options.metadata, left, bytes)
end

-- Sending ------------------------------------------------------------------------------------------

--- `call:send(message [, last])`: true; false when the server takes no more, whose reason receive()
-- tells.  Waits while the server is slow.
function methods:send(message, last)
  if self.over then return false end
  local bytes = encoded(self.codec, message, self.client, self.path)
  return checked(self, pcall(frame.write, self.stream, bytes, last))
end

--- `call:close_send()`: nothing more will be sent; receiving goes on.
function methods:close_send()
  return checked(self, pcall(self.stream.write, self.stream, "", true))
end

--- `call:cancel()`: end it, now; the server is told.
function methods:cancel()
  self.stream:close()
end

meta.__close = methods.cancel

-- The server's metadata is sorted out when somebody wants it.
function meta.__index(self, name)
  local method = methods[name]
  if method then return method end
  local block = name == "headers" and rawget(self, "head") or name == "trailers" and rawget(self, "tail")
  if not block then return nil end
  local metadata = frame.get_metadata(block)
  rawset(self, name, metadata)
  return metadata
end

return call
