-- ws.lua: WebSockets, told the input by a client (its first byte is even) or by a server.
--
-- Whoever hears it ends with messages, a goodbye, or an error object of a kind that there is; after it
-- a well-behaved client is still served.
local core = require "worker.core.text"
local err = require "worker.error"
local fuzz = require "worker.core.fuzz"
local serve = require "worker.serve"
local sock = require "worker.sock"
local task = require "worker.task"
local text = require "worker.text"
local ws = require "worker.ws"

local GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
local HELLO = "GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
  .. "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
local BOUNDS = { max_message = 2000, ping = 0.1, patience = 0.1 }
local KINDS = { wire = true, limit = true, transport = true }

local finding

local function hear(conn)
  local ok, why = task.try(function()
    repeat
      local message, kind = conn:receive(0.1)
      if message then
        assert(#message <= BOUNDS.max_message)
        assert(kind == "binary" or text.valid(message))
        conn:send(message, kind)
      end
    until not message
  end)
  if not ok and not KINDS[err.kind(why)] then finding = why end
end

local function place()
  local path = os.tmpname()
  os.remove(path)
  return path
end

local here, there = place(), place()
local server = serve.http { unix = here, handler = function(request, reply)
  local conn <close> = ws.accept(request, reply, BOUNDS)
  hear(conn)
end }

local said = ""
local listener = sock.listen { unix = there }
task.start(function()
  while true do
    local conn <close> = listener:accept()
    task.try(function()
      local key = conn:head(4096):match "Sec%-WebSocket%-Key: (%S+)"
      conn:write("HTTP/1.1 101 Yes\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
        .. text.base64(core.sha1(key .. GUID)) .. "\r\n\r\n" .. said)
      conn:shutdown()
      while conn:read() do end -- luacheck: ignore 542
    end)
  end
end)

local function from_client(bytes)
  local conn <close> = sock.connect { unix = here }
  conn:write(HELLO .. bytes)
  conn:shutdown()
  task.try(function() while conn:read() do end end) -- luacheck: ignore 542
end

local function from_server(bytes)
  said = bytes
  local conn = ws.connect { url = "ws://x/", unix = there, max_message = BOUNDS.max_message, ping = BOUNDS.ping,
    patience = BOUNDS.patience }
  hear(conn)
  conn:close()
end

while true do
  local input = fuzz.next()
  local tell = (input:byte() or 0) % 2 == 0 and from_client or from_server
  tell(input:sub(2))
  local honest <close> = ws.connect { url = "ws://x/", unix = here }
  honest:send "still here"
  assert(honest:receive(5) == "still here")
  if finding then error(finding, 0) end
  assert(server:counts().refused == 0)
end
