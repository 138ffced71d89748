-- protobuf/wire.lua: the bytes of protobuf: varints, fixed numbers, lengths, and how each scalar is written.
--
-- Reading happens in a reader { s=, at=, ... }: the whole text, never a copy of a part of it, so that a
-- message in a message costs nothing.  Every read is given where its message ends and must stay in it.
local err = require "worker.error"

local wire = {}

local byte, char, pack, sub, unpack = string.byte, string.char, string.pack, string.sub, string.unpack

wire.VARINT, wire.FIXED64, wire.BYTES, wire.GROUP, wire.END_GROUP, wire.FIXED32 = 0, 1, 2, 3, 4, 5

--- `wire.fail(r, pos, why)`: raise kind "wire": which field of which message, which byte, what is wrong.
function wire.fail(r, pos, why)
  err.wire(("protobuf: %s: byte %d: %s"):format(r.at, pos, why))
end

-- Reading ------------------------------------------------------------------------------------------------

--- `wire.varint(r, pos, last)`: a number of up to 64 bits and the place behind it.
function wire.varint(r, pos, last)
  local s, value, shift = r.s, 0, 0
  local start = pos
  while pos <= last do
    local b = byte(s, pos)
    pos = pos + 1
    -- of the tenth byte only one bit is left
    if shift == 63 and b > 1 then
      wire.fail(r, start, b < 0x80 and "a number of more than 64 bits" or "a number of more than 10 bytes")
    end
    value = value | (b & 0x7f) << shift
    if b < 0x80 then return value, pos end
    shift = shift + 7
  end
  wire.fail(r, start, "the message ends in the middle of a number")
end

--- `wire.span(r, pos, last)`: a length; where what it measures begins and ends.
function wire.span(r, pos, last)
  local length, from = wire.varint(r, pos, last)
  if math.ult(last - from + 1, length) then
    wire.fail(r, pos, ("%u bytes are announced, %d are there"):format(length, last - from + 1))
  end
  return from, from + length - 1
end

local function fixed(r, pos, last, size)
  if last - pos + 1 < size then wire.fail(r, pos, "the message ends in the middle of a number") end
  return pos + size
end

--- `wire.skip(r, tag, pos, last, depth)`: over a field that nobody knows; the place behind it.
function wire.skip(r, tag, pos, last, depth)
  local kind = tag & 7
  if kind == wire.VARINT then
    return select(2, wire.varint(r, pos, last))
  elseif kind == wire.BYTES then
    return select(2, wire.span(r, pos, last)) + 1
  elseif kind == wire.FIXED64 or kind == wire.FIXED32 then
    return fixed(r, pos, last, kind == wire.FIXED64 and 8 or 4)
  elseif kind == wire.GROUP then
    return wire.skip_group(r, tag >> 3, pos, last, depth + 1)
  end
  wire.fail(r, pos, ("the wire type %d %s"):format(kind, kind == wire.END_GROUP and "ends what never began"
    or "does not exist"))
end

--- `wire.skip_group(r, number, pos, last, depth)`: over the fields of a group, which only old messages have.
function wire.skip_group(r, number, pos, last, depth)
  if depth > r.depth then wire.fail(r, pos, ("deeper than %d"):format(r.depth)) end
  while pos <= last do
    local tag, after = wire.tag(r, pos, last)
    if tag & 7 == wire.END_GROUP then
      if tag >> 3 ~= number then wire.fail(r, pos, "the end of another group") end
      return after
    end
    pos = wire.skip(r, tag, after, last, depth)
  end
  wire.fail(r, pos, "the message ends in the middle of a group")
end

--- `wire.tag(r, pos, last)`: the number of a field and its wire type, as one.
function wire.tag(r, pos, last)
  local tag, after = wire.varint(r, pos, last)
  if tag >> 32 ~= 0 or tag < 8 then wire.fail(r, pos, ("there is no field of the number %d"):format(tag >> 3)) end
  return tag, after
end

-- Writing ------------------------------------------------------------------------------------------------

--- `wire.to_varint(n)`: as bytes.
function wire.to_varint(n)
  if n >= 0 and n < 0x80 then return char(n) end
  local bytes, count = {}, 0
  repeat
    count = count + 1
    bytes[count] = n & 0x7f | 0x80
    n = n >> 7
  until n == 0
  bytes[count] = bytes[count] & 0x7f
  return char(table.unpack(bytes, 1, count))
end

-- Scalars ------------------------------------------------------------------------------------------------
--
-- Each: wire, default, read(r, pos, last) -> value, place behind; write(value) -> bytes, raising a
-- plain text for what it cannot write.  Of text and bytes the length is left to who writes them, so that
-- what may be large is not copied for it.

local scalars = {}
wire.scalars = scalars

local function whole(value, least, most)
  local n = math.type(value) == "integer" and value or math.type(value) == "float" and math.tointeger(value)
  if not n then
    error(("expected a whole number, got %s"):format(type(value) == "number" and tostring(value) or "a " .. type(value)), 0)
  end
  if least and (n < least or n > most) then error(("expected a number from %d to %d, got %d"):format(least, most, n), 0) end
  return n
end

local function sign32(n) return (n & 0xffffffff ~ 0x80000000) - 0x80000000 end

-- A number as a varint: what is read becomes the value, what is written comes from it.
local function of_varint(from, to, least, most)
  return {
    wire = wire.VARINT, default = 0, packs = true,
    read = function(r, pos, last)
      local n, after = wire.varint(r, pos, last)
      return from(n), after
    end,
    write = function(value) return wire.to_varint(to(whole(value, least, most))) end,
  }
end

local function same(n) return n end
local LEAST32, MOST32, MOST_U32 = -0x80000000, 0x7fffffff, 0xffffffff

local function zig(n) return n << 1 ~ (n < 0 and -1 or 0) end
local function zag(n) return n >> 1 ~ -(n & 1) end

scalars.int32 = of_varint(sign32, same, LEAST32, MOST32)
scalars.int64 = of_varint(same, same)
scalars.uint32 = of_varint(function(n) return n & 0xffffffff end, same, 0, MOST_U32)
scalars.uint64 = of_varint(same, same)
scalars.sint32 = of_varint(function(n) return sign32(zag(n & 0xffffffff)) end, zig, LEAST32, MOST32)
scalars.sint64 = of_varint(zag, zig)

scalars.bool = {
  wire = wire.VARINT, default = false, packs = true,
  read = function(r, pos, last)
    local n, after = wire.varint(r, pos, last)
    return n ~= 0, after
  end,
  write = function(value)
    if type(value) ~= "boolean" then error("expected true or false, got a " .. type(value), 0) end
    return value and "\1" or "\0"
  end,
}

local function of_format(format, size, check)
  return {
    wire = size == 8 and wire.FIXED64 or wire.FIXED32, default = 0, packs = true,
    read = function(r, pos, last)
      local after = fixed(r, pos, last, size)
      return unpack(format, r.s, pos), after
    end,
    write = function(value) return pack(format, check(value)) end,
  }
end

local function number(value)
  if type(value) ~= "number" then error("expected a number, got a " .. type(value), 0) end
  return value
end

scalars.double = of_format("<d", 8, number)
scalars.float = of_format("<f", 4, number)
scalars.fixed64 = of_format("<i8", 8, whole)
scalars.sfixed64 = of_format("<i8", 8, whole)
scalars.fixed32 = of_format("<I4", 4, function(value) return whole(value, 0, MOST_U32) end)
scalars.sfixed32 = of_format("<i4", 4, function(value) return whole(value, LEAST32, MOST32) end)
scalars.double.default, scalars.float.default = 0.0, 0.0

local function text_of(value)
  if type(value) ~= "string" then error("expected text, got a " .. type(value), 0) end
  return value
end

scalars.bytes = {
  wire = wire.BYTES, default = "", write = text_of,
  read = function(r, pos, last)
    local from, to = wire.span(r, pos, last)
    return sub(r.s, from, to), to + 1
  end,
}

scalars.string = {
  wire = wire.BYTES, default = "",
  read = function(r, pos, last)
    local from, to = wire.span(r, pos, last)
    local text = sub(r.s, from, to)
    local _, wrong = utf8.len(text)
    if wrong then wire.fail(r, from + wrong - 1, "text that is not UTF-8") end
    return text, to + 1
  end,
  write = function(value)
    local _, wrong = utf8.len(text_of(value))
    if wrong then error(("expected text in UTF-8: byte %d is none"):format(wrong), 0) end
    return value
  end,
}

--- `wire.enum(values)`: the scalar of an enum { NAME = number }: names where there are any, else numbers.
function wire.enum(values)
  local names = {}
  for name, n in pairs(values) do
    -- of two names for one number the first in the alphabet, so that it is always the same
    if not names[n] or name < names[n] then names[n] = name end
  end
  local plain = scalars.int32
  return {
    wire = wire.VARINT, default = names[0] or 0, packs = true,
    read = function(r, pos, last)
      local n, after = plain.read(r, pos, last)
      return names[n] or n, after
    end,
    write = function(value)
      if type(value) ~= "string" then return plain.write(value) end
      if not values[value] then error(("there is no value '%s'"):format(value), 0) end
      return plain.write(values[value])
    end,
  }
end

return wire
