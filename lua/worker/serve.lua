-- serve.lua: a small HTTP/1.1 server: health, metrics and status pages, the control socket, fakes.
--
--   local server <close> = serve.http {
--     address = "127.0.0.1:9252",
--     handler = serve.routes { ["GET /livez"] = function(request, reply) reply:text(200, "ok\n") end },
--   }
--
-- Every connection is a task, so a slow client delays nobody.  What a client may cost is bounded in
-- bytes (max_header, max_body), in time (idle, header, body, write) and in number: at
-- max_connections the oldest of those makes room whose clients keep the server waiting, be it for a
-- request or for reading an answer; when all are being served, the newcomer is told 503.  For those
-- answers a few connections more are kept.
local err = require "worker.error"
local log = require "worker.log"
local reply = require "worker.serve.reply"
local request = require "worker.serve.request"
local routes = require "worker.serve.routes"
local sock = require "worker.sock"
local sys = require "worker.core.sys"
local task = require "worker.task"
local waiters = require "worker.serve.waiters"

local serve = {}

local SPARE_CONNECTIONS = 32 -- for answering 503
local LINGER_SECONDS = 2
local LINGER_BYTES = 1024 * 1024

local USUAL = {
  max_connections = 128, max_header = 16 * 1024, max_target = 8 * 1024,
  max_body = 256 * 1024,
  idle_timeout = 60, header_timeout = 10, body_timeout = 30, write_timeout = 30,
}

local methods = {}
local meta = { __index = methods, __name = "worker.serve.server" }

-- One conversation ---------------------------------------------------------------------------------

-- Closing while the client still sends would reset the connection and take our last answer along;
-- so it is read out for a moment, within bounds.
local function linger(server, conn)
  server.waiters:add(conn)
  local deadline, left = sys.mono() + LINGER_SECONDS, LINGER_BYTES
  task.try(function()
    conn:shutdown()
    while left > 0 do
      local data = conn:read(65536, { timeout = math.max(0, deadline - sys.mono()) })
      if not data then break end
      left = left - #data
      task.yield()
    end
  end)
end

local function refuse(server, conn, status, why, headers)
  local answer = reply.new(conn, nil, server.options)
  task.try(answer.text, answer, status, ("%d %s: %s\n"):format(status, reply.reason(status), why),
    headers or status == 503 and { ["Retry-After"] = 1 } or nil)
  linger(server, conn)
end

-- The head of the next request; nil when there will be none.
local function next_head(server, conn)
  local options = server.options
  server.waiters:add(conn)
  server.idle[conn] = true
  local there, data = task.try(conn.wait, conn, { timeout = options.idle_timeout })
  server.idle[conn] = nil
  if not there or not data then return nil end

  local ok, head = task.try(conn.head, conn, options.max_header, { timeout = options.header_timeout })
  server.waiters:drop(conn)
  if ok then return head end
  if not err.is(head) then error(head, 0) end
  if head.kind == "limit" then
    local begin = conn:read(options.max_header)
    if begin and begin:find("\n", 1, true) then request.refuse(431, "the header is too long") end
    request.refuse(414, "the request line is too long")
  elseif head.reason == "timeout" then
    request.refuse(408, "the header took too long")
  end
  return nil
end

local function next_request(server, conn)
  local head = next_head(server, conn)
  if head == "\r\n" then head = next_head(server, conn) end -- one empty line before is tolerated
  return head and request.parse(head, conn, server.options)
end

local function handler_failed(server, conn, req, answer, why)
  log.error("serve.handler_failed", ("%s %s: %s"):format(req.method, req.path, tostring(why)),
    { traceback = err.is(why) and why.traceback or nil })
  if answer.started then
    conn:reset() -- what was sent is not the whole
  else
    refuse(server, conn, 500, "the handler failed")
  end
  return false
end

-- Whether the connection can go on.
local function answer_one(server, conn, req)
  local answer = reply.new(conn, req, server.options)
  local ok, why = task.try(function()
    if not server.options.lazy_body then req:read_body() end
    server.options.handler(req, answer)
    if answer.open_stream then answer.open_stream:close() end
  end)
  if answer.hijacked then return false end
  if not ok then
    if request.is_refusal(why) and not answer.started then error(why, 0) end
    if not conn:is_open() then return false end
    if err.is(why, "transport") and (answer.started or req.failed) then
      if why.reason == "timeout" and not answer.started then
        request.refuse(408, "the body took too long")
      end
      return false -- the client has gone, or is as good as gone
    end
    return handler_failed(server, conn, req, answer, why)
  end
  if not answer.started then
    return handler_failed(server, conn, req, answer, "the handler gave no answer")
  end
  if not answer.keep and not req.body then linger(server, conn) end
  return answer.keep
end

local function converse(server, conn)
  repeat
    local req = next_request(server, conn)
    if not req then return end
    server.requests = server.requests + 1
    server.busy = server.busy + 1
    local ok, more = task.try(answer_one, server, conn, req)
    server.busy = server.busy - 1
    server.calm:fire()
    if not ok then error(more, 0) end
    server.waiters:add(conn)
    task.yield() -- who has asked many times already gets one answer in a turn, like everybody
  until not more or server.closing
end

local function serve_connection(server, conn)
  local ok, why = task.try(converse, server, conn)
  if ok or err.is(why, "transport") then return end
  if request.is_refusal(why) then
    refuse(server, conn, why.status, why.why, why.headers)
  else
    log.error("serve.failed", tostring(why))
  end
end

-- Taking connections -------------------------------------------------------------------------------

local function refuse_connection(server, conn)
  server.refused = server.refused + 1
  refuse(server, conn, 503, "too many connections")
end

local function hold(server, conn, fn)
  local held <close> = conn -- luacheck: ignore held
  server.open = server.open + 1
  fn(server, conn)
  server.waiters:forget(conn)
  server.open = server.open - 1
end

local function accept_all(server)
  task.scope(function(scope)
    while true do
      local ok, conn = task.try(server.listener.accept, server.listener)
      if ok then
        local room = server.listener:counts().open <= server.options.max_connections or server.waiters:make_room()
        scope:spawn(hold, server, conn, room and serve_connection or refuse_connection)
      elseif conn.reason == "closed" then
        break
      else
        log.warn("serve.accept_failed", tostring(conn))
        task.sleep(0.1)
      end
    end
    scope:wait()
  end)
end

--- `serve.http{ address="127.0.0.1:0" | unix="/path", handler=function(request, reply) }`: a server,
-- listening when the call returns; `server.url` and `server.address` say where.  Bounds, with their
-- defaults: max_connections 128, max_header 16 KiB, max_target (path and query) 8 KiB, max_body 256
-- KiB, idle_timeout 60, header_timeout 10, body_timeout 30, write_timeout 30 (seconds).  `send_buffer`: bytes of
-- answers that the kernel keeps for one who does not read; by itself it takes megabytes.  `mode` is that of the
-- socket file.  With
-- `lazy_body` the body stays on the wire until the handler calls request:read_body().
function serve.http(options)
  if type(options.handler) ~= "function" then error("serve.http: expected a handler", 2) end
  local all = {}
  for name, value in pairs(USUAL) do all[name] = value end
  for name, value in pairs(options) do all[name] = value end
  local listener = sock.listen {
    address = all.address, unix = all.unix, mode = all.mode, backlog = all.backlog, send_buffer = all.send_buffer,
    max_connections = all.max_connections + SPARE_CONNECTIONS,
  }
  local address = listener:address()
  local server = setmetatable({
    listener = listener, options = all, address = address,
    url = all.unix and "http://localhost" or "http://" .. address, unix = all.unix,
    idle = {}, waiters = waiters.new(), open = 0, busy = 0, requests = 0, refused = 0, calm = task.signal(),
  }, meta)
  all.waiters = server.waiters
  server.main = task.start(accept_all, server)
  return server
end

--- `server:close([grace])`: no new connections and requests; those being answered get `grace`
-- seconds (0) to end, then they are cut off.  Closing twice is fine.
function methods:close(grace)
  self.closing = true
  self.listener:close()
  for conn in pairs(self.idle) do conn:close() end
  if grace and grace > 0 then
    task.within(grace, function()
      while self.busy > 0 do self.calm:wait() end
    end)
  end
  self.main:cancel("the server is closing")
  task.shield(self.main.join, self.main)
end

meta.__close = methods.close

--- `server:counts()`: open connections, requests being answered, and since the start: connections
-- accepted, requests, connections refused for lack of room.
function methods:counts()
  return {
    open = self.open, busy = self.busy, requests = self.requests, refused = self.refused,
    accepted = self.listener:counts().accepted,
  }
end

--- `serve.routes{ ["GET /tasks/{id}"] = function(request, reply) end }`: a handler that chooses by
-- method and path.  {id} is one segment, {rest...} all that follow; both arrive decoded in
-- request.params.  HEAD is answered from GET; 404, 405 with Allow and OPTIONS come by themselves.
serve.routes = routes.new

--- `serve.refuse(status, why [, headers])`: called in a handler: answer with this status and end the
-- connection.
serve.refuse = request.refuse

return serve
