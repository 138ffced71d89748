-- ws/handshake.lua: how an HTTP/1.1 connection becomes a WebSocket (RFC 6455, section 4).
--
-- Both sides prove that they mean it: the client by a key nobody can guess, the server by what it makes
-- of it.  No extension is offered and none is taken: compression costs memory that the other side
-- decides about.
local core = require "worker.core.text"
local err = require "worker.error"
local replies = require "worker.http.reply"
local requests = require "worker.http.request"
local task = require "worker.task"
local text = require "worker.text"

local handshake = {}

local GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
local HEAD_MOST = 16 * 1024
local SAMPLE_MOST, SAMPLE_PATIENCE = 4096, 1
local TOKEN = "^[%w!#$%%&'*+%-.^_`|~]+$"
local OWN = { host = true, upgrade = true, connection = true }
local SCHEMES = { ws = { port = 80 }, http = { port = 80 }, wss = { port = 443, tls = true }, https = { port = 443, tls = true } }

-- What the server makes of the client's key.
local function answer_to(key)
  return text.base64(core.sha1(key .. GUID))
end

-- Whether a list like "keep-alive, Upgrade" has this word.
local function lists(value, word)
  for each in (value or ""):gmatch("[^,%s]+") do
    if each:lower() == word then return true end
  end
  return false
end

--- `handshake.place(url)`: { address=, host= (for the header), target=, tls=, shown= }; raises kind
-- "config" for what is no address of a WebSocket.
function handshake.place(url)
  local scheme, authority, target = tostring(url):match("^(%a+)://([^/?#]+)([^#]*)$")
  local kind = scheme and SCHEMES[scheme:lower()]
  local host, port
  if kind then
    host, port = authority:match("^(%[[%x:.]+%]):?(%d*)$")
    if not host then host, port = authority:match("^([^:@%s]+):?(%d*)$") end
  end
  if not host or target:find("[^\33-\126]") then
    err.raise("config", ("'%s': expected an address like \"wss://host/path\", without a user in it"):format(
      requests.shown(tostring(url))))
  end
  if target == "" or target:sub(1, 1) == "?" then target = "/" .. target end
  return {
    address = ("%s:%s"):format(host, port ~= "" and port or kind.port), host = authority, target = target,
    tls = kind.tls, shown = requests.shown(url),
  }
end

local function check_header(name, value)
  if not name:find(TOKEN) or value:find("[%z\1-\8\10-\31\127]") then
    err.raise("config", ("'%s' is no header field that can be sent"):format(text.sample(name)))
  end
  if OWN[name:lower()] or name:lower():find("^sec%-websocket%-") then
    err.raise("config", ("the header %s belongs to the handshake"):format(name))
  end
end

local function request_of(place, key, options)
  local lines = {
    ("GET %s HTTP/1.1"):format(place.target), "Host: " .. place.host, "Upgrade: websocket",
    "Connection: Upgrade", "Sec-WebSocket-Key: " .. key, "Sec-WebSocket-Version: 13",
  }
  if options.protocols then
    lines[#lines + 1] = "Sec-WebSocket-Protocol: " .. table.concat(options.protocols, ", ")
  end
  local list = requests.headers(options.headers).list
  for i = 1, #list, 2 do
    check_header(list[i], list[i + 1])
    lines[#lines + 1] = list[i] .. ": " .. list[i + 1]
  end
  return table.concat(lines, "\r\n") .. "\r\n\r\n"
end

-- Some words of an answer that is none of ours, for a message.
local function sample(conn)
  local ok, words = task.try(conn.read, conn, SAMPLE_MOST, { timeout = SAMPLE_PATIENCE })
  return ok and words or ""
end

--- `handshake.ask(conn, place, options)`: the client's side; the protocol the server chose, or nil.
-- Raises kind "http" for a status other than 101, "wire" for what is no handshake.
function handshake.ask(conn, place, options)
  local key = text.base64(core.random(16))
  conn:write(request_of(place, key, options))
  local head = conn:head(HEAD_MOST)
  local status = head and head:match("^HTTP/1%.1 (%d%d%d)[ \r]")
  if not status then err.wire(place.shown .. ": the answer is not HTTP/1.1", head) end
  local reply = replies.new({ label = "GET " .. place.shown, client = {} }, tonumber(status), head, "")
  if reply.status ~= 101 then
    reply.body = sample(conn)
    reply:raise()
  end
  local chosen = reply:header "Sec-WebSocket-Protocol"
  local offered = {}
  for _, name in ipairs(options.protocols or {}) do offered[name] = true end
  local wrong = not lists(reply:header "Upgrade", "websocket") and "Upgrade"
    or not lists(reply:header "Connection", "upgrade") and "Connection"
    or reply:header "Sec-WebSocket-Accept" ~= answer_to(key) and "Sec-WebSocket-Accept"
    or reply:header "Sec-WebSocket-Extensions" and "Sec-WebSocket-Extensions"
    or chosen and not offered[chosen] and "Sec-WebSocket-Protocol"
  if wrong then err.wire(("%s: the server's %s is not an answer to our handshake"):format(place.shown, wrong), head) end
  return chosen
end

-- The first of our protocols that the client offers; refuses a client that offers others only.
local function choose(request, ours, refuse)
  local offered = request:header "Sec-WebSocket-Protocol"
  if not offered or not ours then return nil end
  for _, name in ipairs(ours) do
    if lists(offered, name:lower()) then return name end
  end
  refuse(400, "expected one of the protocols " .. table.concat(ours, ", "))
end

-- A browser says which page it acts for; by default none may.
local function allowed(origin, origins)
  if not origin or origins == "*" then return true end
  for _, each in ipairs(origins or {}) do
    if each == origin then return true end
  end
  return false
end

--- `handshake.answer(request, reply, options, refuse)`: the server's side: the bare connection, and
-- the protocol; `refuse` is that of worker.serve.
function handshake.answer(request, reply, options, refuse)
  if request.method ~= "GET" or not lists(request:header "Upgrade", "websocket")
    or not lists(request:header "Connection", "upgrade") then
    refuse(426, "a WebSocket is spoken here", { Upgrade = "websocket", Connection = "Upgrade" })
  end
  if request:header "Sec-WebSocket-Version" ~= "13" then
    refuse(426, "version 13 of the protocol is spoken here", { ["Sec-WebSocket-Version"] = 13 })
  end
  local key = request:header "Sec-WebSocket-Key" or ""
  if #key ~= 24 or #(text.unbase64(key) or "") ~= 16 then refuse(400, "Sec-WebSocket-Key is not 16 bytes of base64") end
  if not allowed(request:header "Origin", options.origins) then refuse(403, "not for pages of this origin") end
  local protocol = choose(request, options.protocols, refuse)
  return reply:upgrade("websocket", {
    ["Sec-WebSocket-Accept"] = answer_to(key), ["Sec-WebSocket-Protocol"] = protocol,
  }), protocol
end

return handshake
