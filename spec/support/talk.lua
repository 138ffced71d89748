-- talk.lua: bare connections, and the client side of HTTP at its barest.
--
--   local talk = require "spec.support.talk"
--   local text, how = talk.rest(conn)      everything that comes, and how it ended: "end" or the
--                                          reason of the error ("reset", "timeout")
--   talk.statuses(text)                    { 200, 404 } for the answers in it
--   talk.server(options)                   an echoing serve.http that ends with the test
--   talk.say(server, text, keep_open)      a fresh connection that has said this; without keep_open it
--                                          has also ended its direction
--   talk.answer(server, text)              all that is answered to this
--   local near, far, listener = talk.pair(options)   the two ends of one connection
--   talk.close(...)                        close all of these
--   talk.failure(fn, ...)                  the error it raises; it must
--   talk.path(name)                        a path where nothing is yet
local serve = require "worker.serve"
local sock = require "worker.sock"
local spec = require "worker.spec"

local talk = {}

local servers = {}

spec.after_each(function()
  for server in pairs(servers) do server:close() end
  servers = {}
end)

function talk.pair(options)
  local listener = sock.listen(options or { address = "127.0.0.1:0" })
  local address = listener:address()
  local unix = address:match("^unix:(.*)$")
  local near = sock.connect { unix = unix, address = not unix and address or nil }
  return near, listener:accept(), listener
end

function talk.close(...)
  for _, handle in ipairs { ... } do handle:close() end
end

function talk.failure(fn, ...)
  local ok, why = pcall(fn, ...)
  if ok then error("expected an error", 2) end
  return why
end

function talk.path(name)
  local path = os.tmpname()
  os.remove(path)
  return path .. "-" .. name
end

function talk.rest(conn, seconds)
  local pieces = {}
  while true do
    local ok, data = pcall(conn.read, conn, 65536, { timeout = seconds or 200 })
    if not ok or not data then
      conn:close()
      return table.concat(pieces), ok and "end" or data.reason
    end
    pieces[#pieces + 1] = data
  end
end

function talk.statuses(text)
  local list = {}
  for status in text:gmatch("HTTP/1%.1 (%d%d%d) ") do list[#list + 1] = tonumber(status) end
  return list
end

local function echo(request, reply)
  reply:text(200, request.method .. " " .. request.path .. " " .. request.body)
end

function talk.server(options)
  local all = { handler = echo, address = not options.unix and "127.0.0.1:0" or nil }
  for name, value in pairs(options) do all[name] = value end
  local server = serve.http(all)
  servers[server] = true
  return server
end

function talk.say(server, text, keep_open)
  local conn = sock.connect { address = not server.unix and server.address or nil, unix = server.unix }
  conn:write(text)
  if not keep_open then conn:shutdown() end
  return conn
end

function talk.answer(server, text)
  return (talk.rest(talk.say(server, text)))
end

return talk
