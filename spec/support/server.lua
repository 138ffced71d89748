-- server.lua: fake servers that answer by a script, and misbehave on purpose.
--
--   local server = require "spec.support.server"
--
--   local fake = server.http {
--     ["POST /v1/claim"]      = server.sequence { server.json(200, { id = "7" }), server.empty(204) },
--     ["POST /v1/jobs/{id}"]  = function(request, reply) reply:json(200, { id = request.params.id }) end,
--     ["GET /broken"]         = server.reset "after",
--   }
--   ... use fake.url ...
--   assert.equal("POST", fake.requests[1].method)
--
-- A fake listens on a free port of 127.0.0.1 (server.http(routes, { unix = path }) on a socket file)
-- and is closed when the test ends.  It remembers what it was asked:
--
--   fake.url  fake.address  fake.unix
--   fake.requests[i]    { method, path, target, query, params, route, headers, body, json }; json is
--                       decoded when it is looked at
--   fake:count(route)   how many requests came in for a route, e.g. "POST /v1/claim" (all without)
--   fake:last()         the last request
--   fake:connections()  how many connections have been made since the start
--   fake:open()         how many are open now
--   fake:wait(n, [route])  wait until n requests have come in (5 s of the spec's time at most)
--   fake:close()
--
-- A route's answer is a function(request, reply), as worker.serve has it, or one of these.
--
-- Answers as they should be:
--   server.json(status, value, headers)    server.text(status, text, headers)
--   server.empty(status, headers)          server.status(n, headers)    a status and nothing else
--   server.chunks({ "a", "b" }, { every=seconds, status=, headers= })   a chunked body
--   server.sequence { first, second, ... } one after the other; the last one stays
--   server.after(seconds, answer)          the same answer, later
--
-- Answers as they come:
--   server.reset "before"    a reset before the request was taken: it is not in fake.requests
--   server.reset "after"     a reset after it was taken: the work may be done, the answer is lost
--   server.close "before" | "after"   the same, with an orderly end instead of a reset
--   server.hang()            takes the request and never answers, until the client goes away
--   server.slow { headers=, body=, byte_every=, text=, status= }
--                            seconds before the head, before the body, and after every byte of it
--   server.truncated(n, { total=, how="close"|"reset" })
--                            n bytes of a body that was announced with more
--   server.wrong_length { says=, text= }   a body longer than announced, then nothing more
--   server.garbage(bytes)    these bytes for an answer, then the end
--   server.raw(bytes, { keep=true })       the same; with keep the connection stays open
--
-- Where none of these will do, reply:hijack() gives a function the bare connection, and
-- server.tcp(function(conn, n) ... end) is a server that knows nothing of HTTP: called for each
-- connection, the n-th; the connection is closed when the function returns.
local serve = require "worker.serve"
local sock = require "worker.sock"
local spec = require "worker.spec"
local task = require "worker.task"

local server = {}

local MAX_BODY = 64 * 1024 * 1024
local PATIENCE = 5

local fakes = {} -- all that are open

spec.after_each(function()
  for fake in pairs(fakes) do fake:close() end
end)

-- Requests as they are remembered ------------------------------------------------------------------

local record_meta = {}

function record_meta.__index(record, key)
  if key ~= "json" then return nil end
  return require("worker.json").decode(record.body)
end

local function remember(fake, request)
  local record = setmetatable({
    method = request.method, path = request.path, target = request.target, query = request.query,
    params = request.params, route = request.route, headers = request.headers,
    body = request:read_body(),
  }, record_meta)
  table.insert(fake.requests, record)
  fake.asked:fire(1 << 30)
end

-- Fakes --------------------------------------------------------------------------------------------

local methods = {}
local fake_meta = { __index = methods, __name = "spec.server" }

function methods:count(route)
  if not route then return #self.requests end
  local count = 0
  for _, record in ipairs(self.requests) do
    if record.route == route then count = count + 1 end
  end
  return count
end

function methods:last()
  return self.requests[#self.requests]
end

function methods:wait(n, route)
  local done = task.within(PATIENCE, function()
    while self:count(route) < n do self.asked:wait() end
  end)
  if not done then
    error(("waited for %d requests, %d came"):format(n, self:count(route)), 2)
  end
end

function methods:connections()
  return self.listener:counts().accepted
end

function methods:open()
  return self.listener:counts().open
end

function methods:close()
  fakes[self] = nil
  self.stop()
end
fake_meta.__close = methods.close

-- An answer is {run=, early=} or a function; early ones act before the request is taken.
local function perform(fake, answer, request, reply)
  if type(answer) == "table" and answer.choose then answer = answer:choose() end
  if type(answer) == "table" and answer.early then return answer.run(request, reply) end
  remember(fake, request)
  local run = type(answer) == "table" and answer.run or answer
  return run(request, reply)
end

--- `server.http(routes, options)`: a fake HTTP server; options are those of serve.http, and `any`, an
-- answer for whatever no route matches.
function server.http(routes, options)
  local fake = setmetatable({ requests = {}, asked = task.signal() }, fake_meta)
  local table_of_routes = {}
  for route, answer in pairs(routes) do
    table_of_routes[route] = function(request, reply) perform(fake, answer, request, reply) end
  end
  local any = options and options.any
  if any then
    table_of_routes["ANY /{rest...}"] = function(request, reply) perform(fake, any, request, reply) end
  end
  local all = {
    handler = serve.routes(table_of_routes), lazy_body = true, max_body = MAX_BODY,
    max_connections = 2000, address = not (options and options.unix) and "127.0.0.1:0" or nil,
  }
  for name, value in pairs(options or {}) do all[name] = value end
  local http = serve.http(all)
  fake.url, fake.address, fake.unix, fake.listener = http.url, http.address, http.unix, http.listener
  fake.stop = function() http:close() end
  fakes[fake] = true
  return fake
end

--- `server.tcp(fn, options)`: a fake of anything; fn(conn, n) for each connection.
function server.tcp(fn, options)
  local where = options or { address = "127.0.0.1:0" }
  local listener = sock.listen(where)
  local main = task.start(function()
    task.scope(function(scope)
      local n = 0
      while true do
        local conn = listener:accept()
        n = n + 1
        scope:spawn(function(number)
          local held <close> = conn
          local ok, why = task.try(fn, held, number)
          if not ok and why.kind ~= "transport" then error(why, 0) end
        end, n)
      end
    end)
  end)
  local fake = setmetatable({ listener = listener, unix = where.unix }, fake_meta)
  fake.address = listener:address()
  fake.url = "http://" .. fake.address
  fake.stop = function()
    main:cancel("the fake is closed")
    local ok, why = main:join()
    listener:close()
    if not ok and why.kind ~= "cancelled" then error(why, 0) end
  end
  fakes[fake] = true
  return fake
end

-- Answers as they should be ------------------------------------------------------------------------

function server.json(status, value, headers)
  return function(_, reply) reply:json(status, value, headers) end
end

function server.text(status, text, headers)
  return function(_, reply) reply:text(status, text, headers) end
end

function server.empty(status, headers)
  return function(_, reply) reply:empty(status, headers) end
end

function server.status(n, headers)
  return server.empty(n, headers)
end

function server.chunks(pieces, options)
  options = options or {}
  return function(_, reply)
    local stream = reply:stream(options.status or 200, options.headers)
    for _, piece in ipairs(pieces) do
      stream:write(piece)
      if options.every then task.sleep(options.every) end
    end
  end
end

local sequence_meta = {}
sequence_meta.__index = sequence_meta

function sequence_meta:choose()
  self.at = math.min(self.at + 1, #self.answers)
  local answer = self.answers[self.at]
  return type(answer) == "table" and answer.choose and answer:choose() or answer
end

function server.sequence(answers)
  return setmetatable({ answers = answers, at = 0 }, sequence_meta)
end

function server.after(seconds, answer)
  return function(request, reply)
    task.sleep(seconds)
    local run = type(answer) == "table" and answer.run or answer
    return run(request, reply)
  end
end

-- Answers as they come -----------------------------------------------------------------------------

local function ending(how, when)
  if when ~= "before" and when ~= "after" then
    error("expected \"before\" or \"after\" (the request was taken)", 3)
  end
  return {
    early = when == "before",
    run = function(_, reply)
      local conn = reply:hijack()
      conn[how](conn)
    end,
  }
end

function server.reset(when) return ending("reset", when) end

function server.close(when) return ending("close", when) end

function server.hang()
  return function(_, reply)
    local conn = reply:hijack()
    while conn:read() do end -- luacheck: ignore 542
  end
end

function server.slow(options)
  local text = options.text or "slow but complete\n"
  return function(_, reply)
    local conn = reply:hijack()
    task.sleep(options.headers or 0)
    conn:write(("HTTP/1.1 %d OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n")
      :format(options.status or 200, #text))
    task.sleep(options.body or 0)
    if not options.byte_every then return conn:write(text) end
    for i = 1, #text do
      conn:write(text:sub(i, i))
      task.sleep(options.byte_every)
    end
  end
end

function server.truncated(n, options)
  options = options or {}
  return function(_, reply)
    local conn = reply:hijack()
    conn:write(("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%s")
      :format(options.total or n + 100, ("x"):rep(n)))
    if options.how == "reset" then
      task.sleep(0.05) -- a reset overtakes what the other side has not read yet
      conn:reset()
    end
  end
end

function server.wrong_length(options)
  local text = options and options.text or "0123456789"
  local says = options and options.says or 5
  return function(_, reply)
    local conn = reply:hijack()
    conn:write(("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%s")
      :format(says, text))
    while conn:read() do end -- luacheck: ignore 542
  end
end

function server.raw(bytes, options)
  return function(_, reply)
    local conn = reply:hijack()
    conn:write(bytes)
    while options and options.keep and conn:read() do end -- luacheck: ignore 542
  end
end

function server.garbage(bytes)
  return server.raw(bytes or "\0\1\2 this is not HTTP at all \255\r\n\r\n")
end

return server
