-- grpc/server.lua: serving calls: for fakes, and for programs that play an orchestrator.
--
-- Every connection is a task, every call is one more.  A call that the client has given up, or whose
-- time is over, is cancelled where it waits.
local core = require "worker.core.h2"
local err = require "worker.error"
local frame = require "worker.grpc.frame"
local log = require "worker.log"
local sock = require "worker.sock"
local status = require "worker.grpc.status"
local sys = require "worker.core.sys"
local target = require "worker.grpc.target"
local task = require "worker.task"
local text = require "worker.text"

local server = {}

local CODES = status.CODES

local USUAL = {
  max_send = 100 * 1024 * 1024, max_receive = 100 * 1024 * 1024, max_header = 16 * 1024, window = 1024 * 1024,
  max_streams = 100, max_connections = 128,
}

-- One call -----------------------------------------------------------------------------------------

local methods = {}
local meta = { __index = methods, __name = "grpc.server.call" }

--- `call:begin(metadata)`: send the head of the answer now, with metadata.
function methods:begin(metadata)
  if self.begun then return end
  self.begun = true
  self.stream:respond(frame.put_metadata({ ":status", "200", "content-type", "application/grpc" }, metadata))
end

--- `call:receive()`: the next message; nil when the client has sent all.
function methods:receive()
  local bytes = frame.read(self.stream, self.server.options.max_receive)
  local codec = self.codec
  if bytes == nil or not (codec and codec.decode) then return bytes end
  local ok, message = task.try(codec.decode, bytes)
  if ok then return message end
  error(status.new(CODES.INTERNAL, "the message cannot be read: " .. tostring(message)), 0)
end

--- `call:send(message)`: false when the client takes no more.
function methods:send(message)
  self:begin()
  if self.codec and self.codec.encode then message = self.codec.encode(message) end
  return frame.write(self.stream, frame.check(message, self.server.options.max_send, self.path))
end

--- `call:left()`: seconds until the client gives up; nil when it has not said.
function methods:left()
  return self.deadline and self.deadline - sys.mono()
end

-- The end of a call, on the wire.
local function conclude(self, code, said)
  local trailers = frame.put_metadata({ "grpc-status", tostring(code) }, self.trailers)
  if said and said ~= "" then
    table.insert(trailers, "grpc-message")
    table.insert(trailers, text.percent_encode(said:sub(1, 1024), " !\"#$&'()*+,/:;<=>?@[\\]^`{|}"))
  end
  if self.begun then
    self.stream:finish(trailers)
  else
    table.move(trailers, 1, #trailers, 5)
    trailers[1], trailers[2], trailers[3], trailers[4] = ":status", "200", "content-type", "application/grpc"
    self.stream:respond(trailers, true)
  end
end

local function run_unary(self, fn)
  local message = self:receive()
  if message == nil then error(status.new(CODES.INTERNAL, "the call has no message"), 0) end
  local reply = fn(message, self)
  self:send(reply == nil and "" or reply)
end

local function run(self, entry)
  if entry.unary then return run_unary(self, entry.unary) end
  entry.stream(self)
end

local function outcome(self, ok, why)
  if ok then return CODES.OK end
  if err.is(why, "grpc") then return why.code, why.said end
  if err.is(why, "transport") then return CODES.UNAVAILABLE, why.message end
  if err.is(why, "wire") then return CODES.INTERNAL, why.message end
  if err.is(why, "cancelled") then return CODES.UNAVAILABLE, "the server is closing" end
  log.error("grpc.handler_failed", self.path .. ": " .. tostring(why),
    { traceback = err.is(why) and why.traceback or nil })
  return CODES.UNKNOWN, "the handler failed"
end

local function answer(self, entry)
  local ok, why = pcall(run, self, entry)
  conclude(self, outcome(self, ok, why))
  if not err.is(why, "cancelled") then self.stream:sent() end
end

-- Finding the method -------------------------------------------------------------------------------

local function refuse(stream, http, code, said)
  stream:respond({ ":status", http, "content-type", "application/grpc", "grpc-status", tostring(code),
    "grpc-message", said }, true)
  stream:sent()
end

local function entry_of(services, path)
  local service, method = path:match("^/([^/]+)/([^/]+)$")
  local entry = service and services[service] and services[service][method]
  if type(entry) == "function" then entry = { unary = entry } end
  return entry
end

local function codec_of(own, entry, path)
  return entry.codec or entry.method and entry.method.server or own.options.codec and own.options.codec(path)
end

local function begin(own, stream, link)
  local head = stream:head()
  if head[":method"] ~= "POST" then return refuse(stream, "405", CODES.INTERNAL, "calls are POST") end
  if not (head["content-type"] or ""):find("^application/grpc") then
    return refuse(stream, "415", CODES.INVALID_ARGUMENT, "this is a gRPC server")
  end
  local seconds = head["grpc-timeout"] and frame.seconds(head["grpc-timeout"])
  if head["grpc-timeout"] and not seconds then return refuse(stream, "400", CODES.INTERNAL, "malformed grpc-timeout") end
  local entry = entry_of(own.options.services, head[":path"])
  if not entry then
    return refuse(stream, "200", CODES.UNIMPLEMENTED, "unknown method " .. head[":path"]:gsub("[^%w./_]", "?"))
  end
  if (head["grpc-encoding"] or "identity") ~= "identity" then
    return refuse(stream, "200", CODES.UNIMPLEMENTED, "compression is not offered")
  end
  if seconds then stream:limit(seconds) end
  return setmetatable({
    stream = stream, path = head[":path"], server = own, connection = link, metadata = frame.get_metadata(head),
    codec = codec_of(own, entry, head[":path"]), head = head,
    deadline = seconds and sys.mono() + seconds, trailers = {},
  }, meta), entry
end

-- A handler is ended with its stream; it may be waiting for anything.
local function serve_call(own, stream, link)
  local held <close> = stream -- luacheck: ignore held
  local self, entry = begin(own, stream, link)
  if not self then return end
  own.calls = own.calls + 1
  task.scope(function(scope)
    local handler = scope:spawn(answer, self, entry)
    scope:spawn(function()
      stream:over()
      handler:cancel("the call is over")
    end)
    handler:join()
  end)
end

-- Connections --------------------------------------------------------------------------------------

local function count(own)
  own.busy = own.busy + 1
  return setmetatable({}, { __close = function()
    own.busy = own.busy - 1
    own.calm:fire(1 << 30)
  end })
end

local function serve_stream(own, stream, link)
  local counted <close> = count(own) -- luacheck: ignore counted
  local ok, why = task.try(serve_call, own, stream, link)
  if not ok and not err.is(why, "transport") then log.error("grpc.failed", tostring(why)) end
end

local function serve_connection(own, conn)
  local options = own.options
  local link <close> = core.open(conn, { server = true, max_header = options.max_header, window = options.window,
    max_streams = options.max_streams })
  own.links[link] = true
  task.scope(function(scope)
    local places = task.semaphore(options.max_streams)
    local stream = link:accept()
    while stream do
      local place = places:take()
      scope:spawn(function(one)
        local held <close> = place -- luacheck: ignore held
        serve_stream(own, one, link)
      end, stream)
      stream = link:accept()
    end
  end)
  own.links[link] = nil
end

local function accept_all(own)
  task.scope(function(scope)
    while true do
      local ok, conn = task.try(own.listener.accept, own.listener)
      if ok then
        scope:spawn(function()
          local held <close> = conn -- luacheck: ignore held
          local done, why = task.try(serve_connection, own, conn)
          if not done and not err.is(why, "transport") then log.error("grpc.failed", tostring(why)) end
        end)
      elseif conn.reason == "closed" then
        break
      else
        log.warn("grpc.accept_failed", tostring(conn))
        task.sleep(0.1)
      end
    end
    scope:wait()
  end)
end

local server_methods = {}
local server_meta = { __index = server_methods, __name = "grpc.server" }

--- `server.serve(options)`: see grpc.serve.
function server.serve(options)
  local all = {}
  for name, value in pairs(USUAL) do all[name] = value end
  for name, value in pairs(options) do all[name] = value end
  local place = target.parse(all.listen)
  local listener = sock.listen {
    address = place.address, unix = place.unix, mode = all.mode, max_connections = all.max_connections,
  }
  local own = setmetatable({
    listener = listener, options = all, address = listener:address(), links = {}, calls = 0, busy = 0,
    calm = task.signal(), target = place.unix and all.listen or listener:address(),
  }, server_meta)
  own.main = task.start(accept_all, own)
  return own
end

--- `server:goaway()`: tell every client to make no new calls on its connection; those it has go on.
function server_methods:goaway()
  for link in pairs(self.links) do link:goaway() end
end

--- `server:close([grace])`: no new calls; those under way get `grace` seconds (0), then they are cut off.
function server_methods:close(grace)
  self.listener:close()
  if grace and grace > 0 then
    self:goaway()
    task.within(grace, function()
      while self.busy > 0 do self.calm:wait() end
    end)
  end
  self.main:cancel("the server is closing")
  task.shield(self.main.join, self.main)
end

server_meta.__close = server_methods.close

return server
