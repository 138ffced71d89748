-- ws.lua: WebSockets: messages in both directions over one connection (RFC 6455).
--
-- A client dials (`ws.connect`), a handler of worker.serve accepts (`ws.accept`); what they get is the
-- same thing.  Pings of the other side are answered while somebody receives, and a side that has
-- been silent for `ping` seconds is asked whether it is still there.  Whoever breaks a rule is told
-- which (close code 1002, 1007, 1009), cut off, and raised here as kind "wire" or "limit".
--
--   ws.frame       one frame        ws.handshake   from HTTP to here
local err = require "worker.error"
local frame = require "worker.ws.frame"
local handshake = require "worker.ws.handshake"
local request = require "worker.serve.request"
local sock = require "worker.sock"
local sys = require "worker.core.sys"
local task = require "worker.task"
local text = require "worker.text"

local ws = {}

local CONNECT = 10
local MESSAGE = 1024 * 1024
local MESSAGE_MOST = 64 * 1024 * 1024
local PING = 30
local PATIENCE = 30     -- for a frame that has begun, and for the other side to take ours
local GOODBYE = 2       -- for the other side's close frame
local PIECES = 1024     -- fragments that are kept apart before they become one

local methods = {}
local meta = { __index = methods, __name = "worker.ws" }

local function new(conn, client, protocol, shown, options)
  return setmetatable({
    sock = conn, client = client, protocol = protocol, shown = shown,
    most = math.min(options.max_message or MESSAGE, MESSAGE_MOST), ping = options.ping or PING,
    wait = { timeout = options.patience or PATIENCE },
    head = "", heard = sys.mono(), turn = task.semaphore(1), ended = task.signal(),
  }, meta)
end

--- `ws.connect{ url="ws://host/path" | "wss://...", headers=, protocols= }`: a connection whose handshake
-- is done; raises kind "transport", kind "http" for a server that answers something else, or "wire".
-- `timeout` (10 s) covers all of it. `unix` and `tls` as worker.sock has them; `max_message` (1 MiB, 64
-- MiB at most) bounds what is received; `ping` (30 s); `patience` (30 s): how long one frame may take.
function ws.connect(options)
  local place = handshake.place(options.url)
  local shown = place.shown
  local done, conn, protocol = task.within(options.timeout or CONNECT, function()
    local conn = sock.connect {
      address = not options.unix and place.address or nil, unix = options.unix,
      tls = place.tls and (options.tls or true) or nil, timeout = options.timeout or CONNECT, proxy = options.proxy,
    }
    local ok, protocol = pcall(handshake.ask, conn, place, options)
    if ok then return conn, protocol end
    conn:close()
    error(protocol, 0)
  end)
  if not done then
    err.raise("transport", ("%s: no handshake within %g s"):format(shown, options.timeout or CONNECT),
      { reason = "timeout" })
  end
  return new(conn, true, protocol, shown, options)
end

--- `ws.accept(request, reply [, options])`: in a handler of worker.serve: the connection, or the request
-- is refused there. Options: `protocols` (ours, best first), `origins` (pages of browsers that may
-- connect: a list, or "*"; none), `max_message`, `ping`, `patience`.
function ws.accept(req, reply, options)
  options = options or {}
  local conn, protocol = handshake.answer(req, reply, options, request.refuse)
  return new(conn, false, protocol, req.path, options)
end

-- Writing ----------------------------------------------------------------------------------------------

-- One frame at a time: whoever receives answers pings while others send.
local function write(self, opcode, payload, wait)
  local turn <close> = self.turn:take() -- luacheck: ignore turn
  self.sock:write(frame.encode(opcode, payload, self.client), wait or self.wait)
end

local function must_be_open(self)
  if self.over or self.said_goodbye then
    err.raise("transport", self.shown .. ": the WebSocket is closed", { reason = "closed" })
  end
end

--- `conn:send(message [, kind])`: all of it, as "text" (UTF-8, the default) or "binary"; waits while the
-- other side is slow.
function methods:send(message, kind)
  if kind ~= "binary" and not text.valid(message) then
    error("ws: the message is not UTF-8: send it as \"binary\", or through text.repair", 2)
  end
  must_be_open(self)
  write(self, kind == "binary" and frame.BINARY or frame.TEXT, message)
end

-- The end ----------------------------------------------------------------------------------------------

local function finish(self)
  self.over = true
  self.sock:close()
  self.ended:fire(1 << 20)
end

-- Our close frame, once; that it does not arrive is no news.
local function say_goodbye(self, code, reason)
  if self.said_goodbye or self.over then return end
  self.said_goodbye = true
  local payload = not code and "" or string.pack(">I2", code) .. text.cut(reason or "", 123)
  task.try(write, self, frame.CLOSE, payload, { timeout = GOODBYE })
end

local function may_be_code(code)
  return code >= 1000 and code <= 1003 or code >= 1007 and code <= 1014 or code >= 3000 and code <= 4999
end

-- The other side's close frame: it is answered with its own code, or without one.
local function heard_goodbye(self, payload)
  local code = #payload >= 2 and string.unpack(">I2", payload) or nil
  local reason = payload:sub(3)
  if #payload == 1 or code and not may_be_code(code) then
    frame.violate(frame.BROKEN, "a close frame without a code that may be sent")
  end
  if not text.valid(reason) then frame.violate(frame.NOT_TEXT, "the reason of the close is not UTF-8") end
  self.code, self.reason = code or frame.NO_CODE, reason
  say_goodbye(self, code)
  finish(self)
end

-- Receiving --------------------------------------------------------------------------------------------

-- What a failure of the connection means for who receives.
local function failed(self, why)
  if frame.is_violation(why) then
    say_goodbye(self, why.code, why.why)
    finish(self)
    err.raise(why.code == frame.TOO_BIG and "limit" or "wire",
      ("%s: %s"):format(self.shown, why.why), { code = why.code })
  end
  if err.is(why, "cancelled") then error(why, 0) end -- it can be received from again
  local closed = self.over
  finish(self)
  if not closed then error(err.is(why) and err.wrap(why, self.shown) or why, 0) end
end

-- Something to read; false after `seconds`.
local function readable(self, seconds)
  local ok, there = task.try(self.sock.wait, self.sock, { timeout = math.max(0, seconds) })
  if ok then return there end
  if err.is(there, "transport") and there.reason == "timeout" then return false end
  error(there, 0)
end

-- Wait until a frame begins; false when that is not before `due`.
local function wait_frame(self, due)
  while self.head == "" do
    local silent_since = self.pinged or self.heard
    local now = sys.mono()
    local there = readable(self, math.min(due, silent_since + self.ping) - now)
    if there ~= false then return true end -- nil, an end, is told by who reads
    if sys.mono() >= due then return false end
    if self.pinged then
      err.raise("transport", ("silent for %.0f s"):format(sys.mono() - self.heard), { reason = "timeout" })
    end
    self.pinged = sys.mono()
    write(self, frame.PING, "")
  end
  return true
end

local function whole(self, opcode)
  local message = table.concat(self.blocks) .. table.concat(self.pieces)
  self.open, self.blocks, self.pieces, self.size = nil, nil, nil, nil
  if opcode == frame.BINARY then return message, "binary" end
  if not text.valid(message) then frame.violate(frame.NOT_TEXT, "a text is not UTF-8") end
  return message, "text"
end

-- A piece of a message; the message when it was the last.
local function add(self, opcode, payload, last)
  if opcode ~= frame.MORE then self.open, self.blocks, self.pieces, self.size = opcode, {}, {}, 0 end
  if payload ~= "" then self.pieces[#self.pieces + 1] = payload end
  self.size = self.size + #payload
  if #self.pieces >= PIECES then
    self.blocks[#self.blocks + 1], self.pieces = table.concat(self.pieces), {}
  end
  if last then return whole(self, self.open) end
end

-- One frame and what becomes of it; a message, when one is complete.
local function step(self)
  local opcode, payload, last = frame.read(self, self.most - (self.size or 0), self.wait)
  self.heard, self.pinged = sys.mono(), nil
  if opcode == frame.PING then
    if not self.said_goodbye then write(self, frame.PONG, payload) end
  elseif opcode == frame.CLOSE then
    heard_goodbye(self, payload)
  elseif opcode ~= frame.PONG then
    return add(self, opcode, payload, last)
  end
end

local function receive(self, due)
  while not self.over do
    if not wait_frame(self, due) then return nil, "timeout" end
    local message, kind = step(self)
    if message then return message, kind end
  end
  return nil, "closed"
end

--- `conn:receive([seconds])`: the next message and its kind, "text" or "binary"; nil and "timeout" when
-- none came in time; nil and "closed" after a goodbye: conn.code and conn.reason are the other side's.
-- A connection that just ends, or is silent, is raised as kind "transport".
function methods:receive(seconds)
  if self.receiving then error("another task is receiving from this WebSocket already", 2) end
  if self.over then return nil, "closed" end
  self.receiving = true
  local ok, message, kind = pcall(receive, self, seconds and sys.mono() + seconds or math.huge)
  self.receiving = false
  if ok then return message, kind end
  failed(self, message)
  return nil, "closed"
end

--- `conn:close([code [, reason]])`: say goodbye (1000), give the other side a moment to say it too, and
-- end the connection. What it still sends is dropped. Closing twice is fine.
function methods:close(code, reason)
  if self.over then return end
  say_goodbye(self, code or frame.NORMAL, reason)
  local due = sys.mono() + GOODBYE
  task.try(function()
    while not self.over and sys.mono() < due do
      if self.receiving then self.ended:wait(due - sys.mono()) else receive(self, due) end
    end
  end)
  finish(self)
end

--- `conn:is_open()`: whether messages can be sent.
function methods:is_open()
  return not (self.over or self.said_goodbye)
end

-- Left by an error, there is no time for manners.
function meta:__close(why)
  if why == nil then return self:close() end
  say_goodbye(self, err.is(why, "cancelled") and frame.GOING or frame.FAILED)
  finish(self)
end

function meta:__tostring()
  return ("worker.ws (%s, %s)"):format(self.shown, self:is_open() and "open" or "closed")
end

return ws
