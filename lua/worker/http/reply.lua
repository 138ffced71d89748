-- http/reply.lua: what came back.
--
-- A reply has status, headers, body and json; the latter two are made when first asked for.  A
-- streamed reply has chunks() and events() instead, and holds a connection until it is closed or
-- read to its end.
local errors = require "worker.error"
local json = require "worker.json"
local sys = require "worker.core.sys"
local task = require "worker.task"

local replies = {}

local SAMPLE = 4096        -- bytes of an unexpected answer that are kept
local SHOWN = 200          -- of which a message shows this much
local EVENT = 1024 * 1024  -- longest line, and longest event, of an event stream
local WHOLE = { max_bytes = math.maxinteger } -- a body that was taken is read, whatever its size

local methods = {}

-- Headers ----------------------------------------------------------------------------------------

local headers_meta = {
  __index = function(headers, name)
    return type(name) == "string" and rawget(headers, name:lower()) or nil
  end,
}

-- Names in lower case; a repeated header is kept as a list.  A line that begins with a blank goes
-- on with the one before it (an old way of folding long lines).
local function parse_head(head)
  local headers, lists, last = setmetatable({}, headers_meta), {}, nil
  for line in head:gmatch("([^\r\n]+)\r?\n") do
    local name, value = line:match("^([^:%s]+)%s*:%s*(.-)%s*$")
    if name then
      last = name:lower()
      lists[last] = lists[last] or {}
      table.insert(lists[last], value)
    elseif last and line:find("^[ \t]") then
      local list = lists[last]
      list[#list] = list[#list] .. " " .. line:match("^%s*(.-)%s*$")
    end
  end
  for name, list in pairs(lists) do rawset(headers, name, table.concat(list, ", ")) end
  return headers, lists
end

local function parse_headers(reply)
  local headers, lists = parse_head(rawget(reply, "head") or "")
  rawset(reply, "headers", headers)
  rawset(reply, "header_lists", lists)
end

--- `reply:header(name)`: its value, or nil; the name in any case.  Repeated headers are joined with
-- ", ".
function methods:header(name)
  return self.headers[name]
end

--- `reply:values(name)`: the list of its values, one per line of the reply.
function methods:values(name)
  return self.headers and self.header_lists[name:lower()] or {}
end

-- Retry-After ------------------------------------------------------------------------------------

local MONTHS = { jan = 1, feb = 2, mar = 3, apr = 4, may = 5, jun = 6, jul = 7, aug = 8, sep = 9,
  oct = 10, nov = 11, dec = 12 }

-- Days since 1970 of a date of the Gregorian calendar; the year begins in March, so that the day
-- that leap years add comes last.
local function days(year, month, day)
  if month <= 2 then year, month = year - 1, month + 12 end
  local era = year // 400
  local of_era = year - era * 400
  local of_year = (153 * (month - 3) + 2) // 5 + day - 1
  return era * 146097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719468
end

--- `replies.date(text)`: the three forms of an HTTP date as seconds since 1970; nil for none.
function replies.date(text)
  local day, month, year, h, m, s =
    text:match("^%a+, (%d+)[ -](%a%a%a)[ -](%d+) (%d+):(%d+):(%d+) GMT$")
  if not day then
    month, day, h, m, s, year = text:match("^%a+ (%a%a%a) +(%d+) (%d+):(%d+):(%d+) (%d+)$")
  end
  month = month and MONTHS[month:lower()]
  if not month then return nil end
  year = tonumber(year)
  if year < 100 then year = year + (year < 70 and 2000 or 1900) end
  return days(year, month, tonumber(day)) * 86400 + tonumber(h) * 3600 + tonumber(m) * 60
    + tonumber(s)
end

--- `reply:retry_after()`: how many seconds the server asks to wait, from either form of
-- Retry-After; nil when it does not ask.  A date is measured against the server's own clock.
function methods:retry_after()
  local text = self:header("Retry-After")
  if not text then return nil end
  local seconds = text:match("^%d+$")
  if seconds then return tonumber(seconds) end
  local due = replies.date(text)
  local now = replies.date(self:values("Date")[1] or "") or sys.wall()
  return due and math.max(0, due - now) or nil
end

-- Bodies -----------------------------------------------------------------------------------------

-- One line of what the server said, without the credentials that it may have echoed; nothing of what is
-- private.
local function shown_body(reply)
  if rawget(reply, "request").private then return "" end
  local text = (rawget(reply, "body") or ""):sub(1, SAMPLE)
  local bearer = rawget(reply, "request").client.bearer
  local at = bearer and #bearer >= 6 and text:find(bearer, 1, true)
  while at do
    text = text:sub(1, at - 1) .. "***" .. text:sub(at + #bearer)
    at = text:find(bearer, at, true)
  end
  text = text:gsub("[%c%s]+", " "):match("^%s*(.-)%s*$")
  return #text > SHOWN and text:sub(1, SHOWN) .. "..." or text
end

local function decode_json(reply)
  local body = reply.body
  if body == nil then
    error("http: a streamed reply has no json; read it with chunks()", 3)
  end
  if body == "" and (reply.status == 204 or reply.request.method == "HEAD") then return nil end
  local ok, value = pcall(json.decode, body, WHOLE)
  if ok then return value end
  local private = reply.request.private
  local words = private and "" or (" (%s): %s"):format(tostring(value), shown_body(reply))
  errors.raise("wire", ("%s: answered %d with a body that is not JSON%s"):format(reply.request.label, reply.status, words),
    { sample = not private and body:sub(1, SAMPLE) or nil, status = reply.status, sent = true })
end

local meta = { __name = "http.reply" }

function meta.__index(reply, key)
  if methods[key] then return methods[key] end
  if key == "headers" or key == "header_lists" then
    parse_headers(reply)
    return rawget(reply, key)
  end
  if key == "json" then
    local value = decode_json(reply)
    rawset(reply, "json", value)
    return value
  end
end

function meta.__tostring(reply)
  local state = rawget(reply, "transfer") and "streaming" or "complete"
  return ("http.reply (%s: %s, %s)"):format(reply.request.label, rawget(reply, "status") or "?",
    state)
end

function meta.__close(reply)
  methods.close(reply)
end

--- `reply:close()`: give a streamed reply up; what is not read is not fetched.
function methods:close()
  local transfer = rawget(self, "transfer")
  rawset(self, "transfer", nil)
  if transfer then transfer:close() end
end

--- `reply:read()`: the next bytes of a streamed reply; nil at the end.
function methods:read()
  local transfer = rawget(self, "transfer")
  if not transfer then return nil end
  local piece = transfer:read()
  if not piece then self:close() end
  return piece
end

--- `reply:chunks()`: an iterator over the bytes of a streamed reply, as they come.
function methods:chunks()
  return function() return self:read() end
end

-- Server-sent events -----------------------------------------------------------------------------

local function too_long(reply)
  errors.raise("wire", ("%s: an event of the stream is longer than %d bytes"):format(
    reply.request.label, EVENT), { sent = true })
end

-- Lines end with CR LF, LF or CR; a CR at the end of a chunk may be half of a CR LF.
local function lines_of(reply)
  local text, from, skip_lf = "", 1, false
  local function more()
    if #text - from >= EVENT then too_long(reply) end
    local piece = reply:read()
    if not piece then return false end
    text, from = text:sub(from) .. piece, 1
    if skip_lf and text:byte(1) == 10 then from = 2 end
    skip_lf = false
    return true
  end
  return function()
    local at = text:find("[\r\n]", from)
    while not at do
      if not more() then return nil end
      at = text:find("[\r\n]", from)
    end
    local line = text:sub(from, at - 1)
    local after = text:byte(at) == 13 and text:byte(at + 1) == 10 and 2 or 1
    skip_lf = text:byte(at) == 13 and at == #text
    from = at + after
    return line
  end
end

local function add_field(event, line)
  local name, value = line:match("^([^:]*): ?(.*)$")
  name, value = name or line, value or ""
  if name == "data" then
    event.lines[#event.lines + 1] = value
    event.size = event.size + #value + 1
  elseif name == "event" then
    event.event = value
  elseif name == "id" and not value:find("\0", 1, true) then
    event.id = value
  elseif name == "retry" and value:find("^%d+$") then
    event.retry = tonumber(value) / 1000
  end
end

--- `reply:events()`: an iterator over the server-sent events of a streamed reply: tables with event
-- ("message" when not named), data, id (the last one given) and retry (seconds).
function methods:events()
  local next_line, last_id, first = lines_of(self), nil, true
  return function()
    local event = { lines = {}, size = 0 }
    for line in next_line do
      if first then line, first = line:gsub("^\239\187\191", ""), false end
      if line == "" then
        last_id = event.id or last_id
        if #event.lines > 0 then
          return { event = event.event or "message", data = table.concat(event.lines, "\n"),
            id = last_id, retry = event.retry }
        end
        event = { lines = {}, size = 0 }
      elseif line:byte(1) ~= 58 then
        add_field(event, line)
        if event.size > EVENT then too_long(self) end
      end
    end
    return nil -- an event that the end cut off does not count
  end
end

-- For the client ---------------------------------------------------------------------------------

--- `replies.new(request, status, head, body)`: a reply; a streamed one gets its status later.
function replies.new(request, status, head, body)
  -- with room for json, which most are asked for
  return setmetatable({ request = request, status = status, head = head, body = body, json = nil }, meta)
end

--- `reply:begin(status, head)`: the head of a streamed reply has come.
function methods:begin(status, head)
  self.status, self.head = status, head
end

--- `reply:read_sample()`: instead of a stream, the beginning of an unexpected answer.  That it broke
-- off is less interesting than its status.
function methods:read_sample()
  local pieces, size = {}, 0
  while size < SAMPLE do
    local ok, piece = task.try(self.read, self)
    if not ok or not piece then break end
    pieces[#pieces + 1] = piece
    size = size + #piece
  end
  self:close()
  self.body = table.concat(pieces):sub(1, SAMPLE)
end

--- `replies.guard(reply, transfer)`: closes the transfer at the end of the block, unless `kept`.
function replies.guard(reply, transfer)
  rawset(reply, "transfer", transfer)
  return setmetatable({}, {
    __close = function(guard)
      if not guard.kept then methods.close(reply) end
    end,
  })
end

--- `reply:raise()`: raise this reply as an error of kind "http".
function methods:raise()
  local said = shown_body(self)
  local location = self:header("Location")
  local message = ("%s: answered %d"):format(self.request.label, self.status)
  if location then message = message .. " (a redirect that is not followed)" end
  if said ~= "" then message = message .. ": " .. said end
  errors.raise("http", message, {
    status = self.status, retry_after = self:retry_after(),
    body = self.request.private and "" or (self.body or ""):sub(1, SAMPLE), reply = self, sent = true,
  })
end

return replies
