-- ws/frame.lua: one frame of a WebSocket, read and written (RFC 6455, section 5).
--
-- Everything a frame says about itself is checked before its first byte of content is read: a frame
-- that is too long, or not allowed here, costs its fourteen bytes of head.  What is wrong is raised
-- as {code=, why=}: the code belongs into the close frame that answers it.
local core = require "worker.core.text"
local err = require "worker.error"

local frame = {}

frame.MORE, frame.TEXT, frame.BINARY, frame.CLOSE, frame.PING, frame.PONG = 0, 1, 2, 8, 9, 10
frame.NORMAL, frame.GOING, frame.BROKEN, frame.NO_CODE, frame.NOT_TEXT, frame.TOO_BIG, frame.FAILED =
  1000, 1001, 1002, 1005, 1007, 1009, 1011

local CONTROL_MOST = 125
local KNOWN = { [0] = true, true, true, [8] = true, [9] = true, [10] = true }

local violation_meta = { __name = "worker.ws.violation" }

--- `frame.violate(code, why)`: raise: the other side broke a rule.
function frame.violate(code, why)
  error(setmetatable({ code = code, why = why }, violation_meta), 0)
end

--- `frame.is_violation(value)`: whether an error came from frame.violate.
function frame.is_violation(value)
  return getmetatable(value) == violation_meta
end

--- `frame.encode(opcode, payload, masked)`: the bytes of a frame that is a message of its own.
function frame.encode(opcode, payload, masked)
  local n, bit = #payload, masked and 128 or 0
  local head
  if n < 126 then
    head = string.pack(">BB", 128 | opcode, bit | n)
  elseif n < 65536 then
    head = string.pack(">BBI2", 128 | opcode, bit | 126, n)
  else
    head = string.pack(">BBI8", 128 | opcode, bit | 127, n)
  end
  if not masked then return head .. payload end
  local key = core.random(4)
  return head .. key .. core.mask(payload, key)
end

-- The first n bytes of the head.  They are kept in `self`, so that who gives up waiting in the middle
-- of a frame can come back to it.
local function head_bytes(self, n, wait)
  while #self.head < n do
    local more = self.sock:read_exactly(n - #self.head, wait)
    if not more then
      err.raise("transport", "the connection ended without a goodbye", { reason = "closed", sent = true })
    end
    self.head = self.head .. more
  end
  return self.head
end

local function check_first(first, opcode, short)
  if first & 0x70 ~= 0 then
    frame.violate(frame.BROKEN, "a reserved bit is set (compression was not agreed on)")
  end
  if not KNOWN[opcode] then frame.violate(frame.BROKEN, ("there is no opcode %d"):format(opcode)) end
  if opcode >= 8 and (first & 0x80 == 0 or short > CONTROL_MOST) then
    frame.violate(frame.BROKEN, "a control frame is whole and has 125 bytes at most")
  end
end

-- The length of the content and that of the head in front of the mask.
local function length_of(self, short, wait)
  if short < 126 then return short, 2 end
  local size, least = 2, 126
  if short == 127 then size, least = 8, 65536 end
  local head = head_bytes(self, 2 + size, wait)
  local length = string.unpack(">I" .. size, head, 3)
  if length < least then -- a negative one is one beyond 2^63
    frame.violate(frame.BROKEN, "a length is not written in the shortest form")
  end
  return length, 2 + size
end

--- `frame.read(self, room, wait)`: the next frame from self.sock: opcode, content, whether the message
-- ends with it. `room`: how many bytes of a message may still come; self.client: the mask is ours to
-- send, not to receive; self.open: a message has begun; `wait`: the options of a read.
function frame.read(self, room, wait)
  local first, second = head_bytes(self, 2, wait):byte(1, 2)
  local opcode, short = first & 15, second & 127
  check_first(first, opcode, short)
  if (second & 128 ~= 0) == self.client then
    frame.violate(frame.BROKEN, self.client and "a server does not mask" or "a client masks every frame")
  end
  if opcode < 8 and (opcode == frame.MORE) ~= (self.open ~= nil) then
    frame.violate(frame.BROKEN, self.open and "a message begins inside another" or "nothing to go on with")
  end
  local length, size = length_of(self, short, wait)
  if opcode < 8 and length > room then frame.violate(frame.TOO_BIG, "the message is too long") end
  local head = head_bytes(self, self.client and size or size + 4, wait)
  local payload = length == 0 and "" or self.sock:read_exactly(length, wait)
  if not payload then
    err.raise("transport", "the connection ended inside a frame", { reason = "closed", sent = true })
  end
  self.head = ""
  if not self.client then payload = core.mask(payload, head:sub(size + 1)) end
  return opcode, payload, first & 128 ~= 0
end

return frame
