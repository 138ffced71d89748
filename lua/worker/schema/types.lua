-- worker.schema.types: the simple types, one table each.
--
--   expected(field)      what a person should have written, for "expected ..., got ..."
--   read(field, value)   the value as the program gets it, or nil (and, where it helps, the reason)
--   text(field, text)    the same from the command line or the environment, where all is text;
--                        without it the text is read as it is
--   measure(value)       what min and max are compared with; without it the value itself
--   limit(bound)         how min and max are written in the field, when not as plain numbers
--
-- Types that contain others (list, map, record, one_of) live in worker.schema.

local time = require "worker.time"

local types = {}

local function always(words)
  return function() return words end
end

local function is_text(_, value)
  if type(value) == "string" then return value end
end

local function length(value)
  return utf8.len(value) or #value
end

types.any = {
  expected = always "anything",
  read = function(_, value) return value end,
}

types.string = {
  expected = always "text", read = is_text, measure = length, unit = " characters",
}

-- Only the bare fact that it is text can be wrong; the value is never repeated in a message.
types.secret = {
  expected = always 'a secret, best as "${file:/run/secrets/NAME}"',
  read = function(_, value)
    if type(value) == "string" and value ~= "" then return value end
  end,
  hidden = true, measure = length, unit = " characters",
}

types.path = {
  expected = always "the path of a file or directory",
  read = function(_, value)
    if type(value) == "string" and value ~= "" and not value:find("\0") then return value end
  end,
}

types.integer = {
  expected = always "a whole number",
  read = function(_, value)
    if type(value) == "number" then return math.tointeger(value) end
  end,
  text = function(_, text)
    return text:find("^[+-]?%d+$") and math.tointeger(tonumber(text)) or nil
  end,
}

local function finite(value)
  if value and value == value and value ~= math.huge and value ~= -math.huge then return value end
end

types.number = {
  expected = always "a number",
  read = function(_, value) return type(value) == "number" and finite(value) or nil end,
  text = function(_, text)
    return text:find("^[+-]?[%d.]+[eE]?[+-]?%d*$") and finite(tonumber(text)) or nil
  end,
}

local TRUTH = {
  ["true"] = true, yes = true, on = true, ["1"] = true,
  ["false"] = false, no = false, off = false, ["0"] = false,
}

types.boolean = {
  expected = always "true or false",
  read = function(_, value)
    if type(value) == "boolean" then return value end
  end,
  text = function(_, text) return TRUTH[text:lower()] end,
}

types.duration = {
  expected = always 'a duration like "30s" or "1h30m"',
  read = function(_, value) return (time.parse_duration(value)) end,
  limit = time.parse_duration,
  show = time.format_duration,
}

types.size = {
  expected = always 'a size like "64MiB" or "10GB"',
  read = function(_, value) return (time.parse_size(value)) end,
  limit = time.parse_size,
  show = time.format_size,
}
types.bytes = types.size

types.enum = {
  expected = function(field)
    local words = {}
    for index, word in ipairs(field.values or {}) do words[index] = ('"%s"'):format(word) end
    return "one of " .. table.concat(words, ", ")
  end,
  read = function(field, value)
    for _, word in ipairs(field.values or {}) do
      if word == value then return value end
    end
  end,
}

-- ---- addresses ----

local PORT_MOST, UNIX_MOST = 65535, 107

-- What the kernel can listen at: no names of hosts, because a name server has no say in that.
local function is_host(host)
  if host == "" or host == "*" or host == "localhost" then return true end
  if host:find("^%[[%x.]*:[%x:.]*%%?%w*%]$") then return true end
  local octets = 0
  for octet in host:gmatch("%d+") do
    octets = octets + 1
    if tonumber(octet) > 255 then return false end
  end
  return octets == 4 and host:find("^%d+%.%d+%.%d+%.%d+$") ~= nil
end

-- Where something listens.  Port 0 is any that is free; a path has a slash before any colon.
types.address = {
  expected = always 'an address like "127.0.0.1:9252", the path of a Unix socket with a slash in it, or "off"',
  read = function(_, value)
    if type(value) ~= "string" then return nil end
    if value == "off" then return value end
    if value:find("^[^:]*/") then
      if value:find("\0") then return nil end
      return #value <= UNIX_MOST and value or nil, ("a path of at most %d bytes"):format(UNIX_MOST)
    end
    local host, port = value:match("^(.*):(%d+)$")
    if not host or not is_host(host) then return nil end
    if #port > 5 or tonumber(port) > PORT_MOST then return nil, "a port from 1 to 65535 in the address" end
    return value
  end,
}

local function one_of_schemes(field, scheme)
  for _, known in ipairs(field.schemes or { "http", "https" }) do
    if known == scheme then return true end
  end
  return false
end

-- The authority without a name and password, which have no place in a value that logs may show.
local function check_authority(authority)
  if authority:find("@") then
    return nil, "an address without name and password (they would show in logs; use a secret field)"
  end
  local port = authority:match(":(%d*)$")
  if port and (port == "" or tonumber(port) < 1 or tonumber(port) > 65535) then
    return nil, "a port from 1 to 65535 in the address"
  end
  local host = authority:gsub(":%d*$", "")
  return host ~= "" and (host:find("^[%w._-]+$") or host:find("^%[[%x:.]+%]$")) and true or nil
end

types.url = {
  expected = function(field)
    local scheme = field.schemes and field.schemes[1] or "https"
    local rest = scheme == "unix" and ":///run/x.sock" or "://host.example"
    return ('an address like "%s%s"'):format(scheme, rest)
  end,
  read = function(field, value)
    if type(value) ~= "string" or value:find("[%s%c\"<>\\^`{|}\127-\255]") then return nil end
    local scheme, rest = value:match("^(%a[%w+.-]*)://(.+)$")
    if not scheme or not one_of_schemes(field, scheme:lower()) then return nil end
    if scheme == "unix" then return rest:find("^/") and value or nil end
    local fine, reason = check_authority(rest:match("^[^/?#]*"))
    return fine and value or nil, reason
  end,
}

return types
