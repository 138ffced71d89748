-- frames.lua: HTTP/2 frame by frame, for peers that misbehave on purpose.
--
--   local frames = require "spec.support.frames"
--
--   local fake = frames.server(function(peer, n)          the n-th connection, after the greetings
--     local id = peer:request()                           the next request: its stream and its body
--     peer:send(frames.head(id), frames.data(id, frames.message "hi"), frames.status(id, 0))
--   end)
--   ... grpc.client { target = fake.address } ...
--   local peer <close> = frames.client(server.address)    the other side
--
--   peer:send(frame, ...)     peer:raw(bytes)     peer:drip(bytes): one byte at a time
--   peer:next([seconds]) -> { type="DATA", flags=, id=, payload= } or nil, "end" or why not
--   peer:wait(type) -> frame  skips others; they are in peer.seen
--   peer:stay()               reads on until the other side ends
--
-- Frames: frames.frame(type, flags, id, payload), frames.headers(id, list, flags), frames.data(id,
-- bytes, flags), frames.reset(id, code), frames.settings{ [3]=1 }, frames.window(id, n), frames.ping(),
-- frames.goaway(last, code, text).  For gRPC: frames.head(id), frames.status(id, code, said),
-- frames.message(bytes), frames.answer(id, bytes): all three.
local server = require "spec.support.server"
local sock = require "worker.sock"
local task = require "worker.task"

local frames = {}

frames.PREFACE = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

local TYPES = { [0] = "DATA", "HEADERS", "PRIORITY", "RST_STREAM", "SETTINGS", "PUSH_PROMISE", "PING", "GOAWAY",
  "WINDOW_UPDATE", "CONTINUATION" }
local NUMBERS = {}
for number, name in pairs(TYPES) do NUMBERS[name] = number end

frames.END_STREAM, frames.ACK, frames.END_HEADERS, frames.PADDED = 1, 1, 4, 8

function frames.frame(type, flags, id, payload)
  return string.pack(">I3BBI4", #payload, NUMBERS[type] or type, flags, id) .. payload
end

-- Fields as literals that touch no table, so that blocks can be put together freely.
local function number(n, most, first)
  if n < most then return string.char(first | n) end
  local bytes = { string.char(first | most) }
  n = n - most
  while n >= 128 do
    bytes[#bytes + 1] = string.char(n % 128 | 128)
    n = n // 128
  end
  bytes[#bytes + 1] = string.char(n)
  return table.concat(bytes)
end

function frames.block(list)
  local parts = {}
  for i = 1, #list, 2 do
    parts[#parts + 1] = "\0" .. number(#list[i], 127, 0) .. list[i] .. number(#list[i + 1], 127, 0) .. list[i + 1]
  end
  return table.concat(parts)
end

function frames.headers(id, list, flags)
  return frames.frame("HEADERS", flags or frames.END_HEADERS, id, frames.block(list))
end

function frames.data(id, bytes, flags) return frames.frame("DATA", flags or 0, id, bytes) end
function frames.padded(id, bytes, padding, flags)
  return frames.frame("DATA", (flags or 0) | frames.PADDED, id, string.char(padding) .. bytes .. ("\0"):rep(padding))
end
function frames.reset(id, code) return frames.frame("RST_STREAM", 0, id, string.pack(">I4", code)) end
function frames.window(id, n) return frames.frame("WINDOW_UPDATE", 0, id, string.pack(">I4", n)) end
function frames.ping(flags) return frames.frame("PING", flags or 0, 0, "12345678") end
function frames.goaway(last, code, text)
  return frames.frame("GOAWAY", 0, 0, string.pack(">I4I4", last, code) .. (text or ""))
end
function frames.settings(list)
  local parts = {}
  for key, value in pairs(list or {}) do parts[#parts + 1] = string.pack(">I2I4", key, value) end
  return frames.frame("SETTINGS", 0, 0, table.concat(parts))
end

function frames.head(id)
  return frames.headers(id, { ":status", "200", "content-type", "application/grpc" })
end
function frames.status(id, code, said)
  local list = { "grpc-status", tostring(code) }
  if said then list[3], list[4] = "grpc-message", said end
  return frames.headers(id, list, frames.END_HEADERS | frames.END_STREAM)
end
function frames.message(bytes) return string.pack(">Bs4", 0, bytes) end
function frames.answer(id, bytes)
  return frames.head(id) .. frames.data(id, frames.message(bytes)) .. frames.status(id, 0)
end
function frames.ask(id, path)
  return frames.headers(id, { ":method", "POST", ":scheme", "http", ":path", path, ":authority", "x",
    "content-type", "application/grpc", "te", "trailers" })
end

-- Peers --------------------------------------------------------------------------------------------

local methods = {}
local meta = { __index = methods, __name = "spec.frames.peer" }

local function new(conn)
  return setmetatable({ conn = conn, seen = {} }, meta)
end

function methods:raw(bytes) self.conn:write(bytes) end
function methods:send(...) self.conn:write(table.concat { ... }) end
function methods:drip(bytes)
  for i = 1, #bytes do
    self.conn:write(bytes:sub(i, i))
    task.sleep(0.001)
  end
end

function methods:next(seconds)
  local ok, head = pcall(self.conn.read_exactly, self.conn, 9, { timeout = seconds or 60 })
  if not ok then
    if head.kind == "cancelled" then error(head, 0) end
    return nil, head.reason
  elseif not head then
    return nil, "end"
  end
  local size, type, flags, id = string.unpack(">I3BBI4", head)
  local frame = { type = TYPES[type] or type, flags = flags, id = id,
    payload = size > 0 and self.conn:read_exactly(size) or "" }
  if frame.type == "RST_STREAM" then frame.code = string.unpack(">I4", frame.payload) end
  if frame.type == "GOAWAY" then frame.last, frame.code = string.unpack(">I4I4", frame.payload) end
  table.insert(self.seen, frame)
  return frame
end

function methods:wait(type, id)
  while true do
    local frame, why = self:next()
    if not frame then error(("waited for %s, but: %s"):format(type, why), 2) end
    if frame.type == type and (not id or frame.id == id) then return frame end
  end
end

function methods:request()
  local id, body = self:wait "HEADERS".id, {}
  while true do
    local frame, why = self:next()
    if not frame then error("waited for the rest of a request, but: " .. why, 2) end
    if frame.type == "DATA" and frame.id == id then
      body[#body + 1] = frame.payload
      if frame.flags & frames.END_STREAM ~= 0 then return id, table.concat(body) end
    end
  end
end

function methods:stay()
  while self:next(100000) do end -- luacheck: ignore 542
end

function methods:count(type)
  local count = 0
  for _, frame in ipairs(self.seen) do
    if frame.type == type then count = count + 1 end
  end
  return count
end

function methods:close() self.conn:close() end
meta.__close = methods.close

--- A server of frames; fn(peer, n) for each connection.  Options: settings (a table, or false to say
-- nothing at all), where (for sock.listen).
function frames.server(fn, options)
  options = options or {}
  return server.tcp(function(conn, n)
    local peer = new(conn)
    conn:read_exactly(#frames.PREFACE)
    if options.settings ~= false then
      peer:send(frames.settings(options.settings), frames.frame("SETTINGS", frames.ACK, 0, ""))
    end
    fn(peer, n)
  end, options.where)
end

--- A client of frames, greeted.
function frames.client(address, settings)
  local peer = new(sock.connect { address = address })
  peer:raw(frames.PREFACE .. frames.settings(settings))
  return peer
end

return frames
