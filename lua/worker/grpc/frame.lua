-- grpc/frame.lua: messages on a stream of HTTP/2, and metadata in its headers; the same for both sides.
local err = require "worker.error"
local status = require "worker.grpc.status"
local text = require "worker.text"

local frame = {}

--- `frame.lead(bytes)`: what goes in front of a message.
function frame.lead(bytes)
  return string.pack(">BI4", 0, #bytes)
end

--- `frame.write(stream, bytes, ends)`: one message; false when the other side takes no more.
function frame.write(stream, bytes, ends)
  return stream:write(bytes, ends, string.pack(">BI4", 0, #bytes))
end

-- The length in a prefix, if it is one that we want.
local function length(compressed, size, most, where)
  if compressed ~= 0 then
    error(status.new(status.CODES.UNIMPLEMENTED, "the message is compressed, and nobody offered that", where), 0)
  elseif size > most then
    error(status.too_big(("a message of %d bytes is over the ceiling of %d"):format(size, most), where), 0)
  end
  return size
end

--- `frame.only(bytes, most, where)`: the one message that these bytes are; nil when they are none.
function frame.only(bytes, most, where)
  if bytes == "" then return nil end
  local size = #bytes >= 5 and length(string.byte(bytes), string.unpack(">I4", bytes, 2), most, where)
  if not size or #bytes < 5 + size then
    error(status.new(status.CODES.INTERNAL, ("the other side ended in a message, after %d bytes of it"):format(#bytes),
      where), 0)
  elseif #bytes > 5 + size then
    error(status.new(status.CODES.INTERNAL, "the server answered twice", where), 0)
  end
  return bytes:sub(6)
end

--- `frame.read(stream, most, where)`: the next message's bytes, or nil at the end.  Its length is
-- looked at before there is memory for it.
function frame.read(stream, most, where)
  local prefix = stream:read_exactly(5)
  if not prefix then return nil end
  local compressed, announced = string.unpack(">BI4", prefix)
  local size = length(compressed, announced, most, where)
  if size == 0 then return "" end
  local bytes = stream:read_exactly(size)
  if bytes then return bytes end
  error(status.new(status.CODES.INTERNAL, ("the other side ended before the %d bytes of a message"):format(size),
    where), 0)
end

--- `frame.check(bytes, most, where)`: raises when a message to be sent is none, or too large.
function frame.check(bytes, most, where)
  if type(bytes) ~= "string" then
    error(("%s: a message must be bytes (or give a codec), got %s"):format(where, type(bytes)), 0)
  elseif #bytes > most then
    error(status.too_big(("a message of %d bytes is over the ceiling of %d"):format(#bytes, most), where), 0)
  end
  return bytes
end

-- Metadata -----------------------------------------------------------------------------------------

local function check_pair(name, value)
  if type(name) ~= "string" or not name:find("^[0-9a-z_.-]+$") or name:find("^grpc%-") then
    err.raise("config", ("grpc: %q cannot be the name of metadata"):format(tostring(name)))
  elseif type(value) ~= "string" or not name:find("%-bin$") and value:find("[^\x20-\x7e]") then
    err.raise("config", ("grpc: the metadata '%s' must be printable ASCII (bytes go under a name in -bin)"):format(name))
  end
end

--- `frame.put_metadata(headers, metadata)`: append metadata to a list of headers.
function frame.put_metadata(headers, metadata)
  for name, value in pairs(metadata or {}) do
    check_pair(name, value)
    headers[#headers + 1] = name
    headers[#headers + 1] = name:find("%-bin$") and text.base64(value):gsub("=+$", "") or value
  end
  return headers
end

--- `frame.get_metadata(headers)`: what in a header block is metadata.
function frame.get_metadata(headers)
  local metadata = {}
  for name, value in pairs(headers) do
    if not name:find("^:") and not name:find("^grpc%-") and name ~= "content-type" and name ~= "te" then
      metadata[name] = name:find("%-bin$") and text.unbase64(value) or value
    end
  end
  return metadata
end

-- Deadlines ----------------------------------------------------------------------------------------

local UNITS = { { "n", 1e-9 }, { "u", 1e-6 }, { "m", 1e-3 }, { "S", 1 }, { "M", 60 }, { "H", 3600 } }

local function timeout_text(seconds)
  for _, unit in ipairs(UNITS) do
    local count = seconds / unit[2]
    if count < 1e8 then return ("%d%s"):format(math.max(1, math.floor(count)), unit[1]) end
  end
  return "99999999H"
end

local last_seconds, last_text

--- `frame.timeout(seconds)`: as grpc-timeout says it: eight digits at most, the finest unit they reach.
function frame.timeout(seconds)
  if seconds ~= last_seconds then -- most calls have the time of the one before
    last_seconds, last_text = seconds, timeout_text(seconds)
  end
  return last_text
end

--- `frame.seconds(value)`: the other way; nil when it is no timeout.
function frame.seconds(value)
  local count, letter = value:match("^(%d+)(%a)$")
  if not count or #count > 8 then return nil end
  for _, unit in ipairs(UNITS) do
    if unit[1] == letter then return tonumber(count) * unit[2] end
  end
end

return frame
