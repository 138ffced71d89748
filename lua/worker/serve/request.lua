-- request.lua: reading one HTTP/1.1 request, strictly.
--
-- Whatever could be read in two ways is refused: bare CR or LF, folded lines, NUL, a second
-- Content-Length or Host, Content-Length beside Transfer-Encoding, any coding but chunked.  Two
-- programs on one path that disagree about where a request ends is how requests are smuggled.
--
-- A refusal is raised as {status=, why=, headers=} and becomes the answer; the connection ends with it,
-- because nobody knows where the next request would begin.
local sys = require "worker.core.sys"

local request = {}

local MAX_HEADERS = 100
local MAX_CHUNK_LINE = 256
local TOKEN = "[%w!#$%%&'*+%-.^_`|~]+"

local refusal_meta = { __name = "worker.serve.refusal" }

--- `request.refuse(status, why [, headers])`: end this conversation with an error answer.
function request.refuse(status, why, headers)
  error(setmetatable({ status = status, why = why, headers = headers }, refusal_meta), 0)
end

--- `request.is_refusal(value)`: whether an error came from request.refuse.
function request.is_refusal(value)
  return getmetatable(value) == refusal_meta
end

local refuse = request.refuse

-- Percent decoding; nil when it is not well-formed.
local function decode(text)
  if not text:find("%", 1, true) then return text end
  local bad
  local plain = text:gsub("%%(.?.?)", function(hex)
    if not hex:find("^%x%x$") then
      bad = true
      return ""
    end
    return string.char(tonumber(hex, 16))
  end)
  if bad then return nil end
  return plain
end
request.decode = decode

local function parse_query(text)
  local query = {}
  for pair in text:gmatch("[^&]+") do
    local name, value = pair:match("^([^=]*)=?(.*)$")
    name, value = decode((name:gsub("%+", " "))), decode((value:gsub("%+", " ")))
    if not name or not value then refuse(400, "the query is not well-formed") end
    if query[name] == nil then query[name] = value end
  end
  return query
end

-- The path and query of a target in origin form, absolute form, or "*".
local function parse_target(self, target)
  if target:find("[^\33-\126]") or target:find("#", 1, true) then
    refuse(400, "the request target is not well-formed")
  end
  local rest = target:match("^[hH][tT][tT][pP][sS]?://[^/?]+(.*)$")
  if rest then
    target = rest:sub(1, 1) == "/" and rest or "/" .. rest
  elseif target:sub(1, 1) ~= "/" and not (target == "*" and self.method == "OPTIONS") then
    refuse(400, "the request target is not well-formed")
  end
  local path, query = target:match("^([^?]*)%??(.*)$")
  if not decode(path) then refuse(400, "the path is not well-formed") end
  self.path, self.query_string = path, query
  self.query = query ~= "" and parse_query(query) or {}
end

local function parse_request_line(self, head)
  local method, target, major, minor, after =
    head:match("^(" .. TOKEN .. ") ([^ \r\n]+) HTTP/(%d)%.(%d)\r\n()")
  if not method then refuse(400, "the request line is not well-formed") end
  if #target > self.limits.max_target then refuse(414, "the request target is too long") end
  if major ~= "1" then refuse(505, "only HTTP/1.1 and HTTP/1.0 are spoken here") end
  self.method, self.target = method, target
  self.version = minor == "0" and 1.0 or 1.1
  parse_target(self, target)
  return after
end

local SINGLE = { ["content-length"] = true, ["host"] = true }

local function parse_headers(self, head, at)
  local headers, count = {}, 0
  for line in head:gmatch("([^\r\n]*)\r\n", at) do
    if line == "" then break end
    count = count + 1
    if count > MAX_HEADERS then refuse(431, "too many header fields") end
    local name, value = line:match("^(" .. TOKEN .. "):[ \t]*(.-)[ \t]*$")
    if not name or value:find("[%z\1-\8\10-\31\127]") then
      refuse(400, "a header field is not well-formed")
    end
    name = name:lower()
    if headers[name] and SINGLE[name] then refuse(400, "more than one " .. name) end
    headers[name] = headers[name] and headers[name] .. ", " .. value or value
  end
  self.headers = headers
end

-- How the body is framed: self.length, or self.chunked.
local function parse_framing(self, limits)
  local headers = self.headers
  local length, coding = headers["content-length"], headers["transfer-encoding"]
  if coding then
    if length then refuse(400, "both content-length and transfer-encoding") end
    if self.version < 1.1 then refuse(400, "transfer-encoding in HTTP/1.0") end
    if coding:lower() ~= "chunked" then refuse(501, "only the chunked transfer coding is known") end
    self.chunked = true
  elseif length then
    if not length:find("^%d+$") then refuse(400, "content-length is not a number") end
    if #length > 15 or tonumber(length) > limits.max_body then
      refuse(413, ("the body may have %d bytes"):format(limits.max_body))
    end
    self.length = math.tointeger(tonumber(length))
  elseif self.version < 1.1 and (self.method == "POST" or self.method == "PUT") then
    refuse(411, "a body in HTTP/1.0 needs a content-length")
  else
    self.length = 0
  end
  local expect = headers["expect"]
  if expect and expect:lower() ~= "100-continue" then refuse(417, "expect: 100-continue only") end
  self.expects = expect ~= nil and self.version >= 1.1 and self.length ~= 0
end

local function wants_keep(self)
  local said = "," .. (self.headers["connection"] or ""):lower():gsub("[ \t]", "") .. ","
  if said:find(",close,", 1, true) then return false end
  return self.version >= 1.1 or said:find(",keep-alive,", 1, true) ~= nil
end

local methods = {}
local meta = { __index = methods, __name = "worker.serve.request" }

--- `request.parse(head, conn, limits)`: a request from the bytes of its head; its body is still on
-- the connection.
function request.parse(head, conn, limits)
  if head:find("\0", 1, true) or head:find("^\n") or head:find("[^\r]\n") or head:find("\r[^\n]") then
    refuse(400, "lines end with CR LF, and no NUL is allowed")
  end
  local self = setmetatable({ conn = conn, limits = limits, params = {} }, meta)
  local after = parse_request_line(self, head)
  parse_headers(self, head, after)
  if self.version >= 1.1 and not self.headers["host"] then refuse(400, "no host field") end
  parse_framing(self, limits)
  self.keep = wants_keep(self)
  if self.length == 0 then self.body = "" end
  return self
end

--- `request:header(name)`: the value of a header field, whatever its case; nil when absent.
function methods:header(name)
  return self.headers[name:lower()]
end

-- What is left of the time for the body, as the options of a read.
local function left(self)
  self.wait = self.wait or {}
  self.wait.timeout = math.max(0, self.deadline - sys.mono())
  return self.wait
end

local function must(data)
  if not data then refuse(400, "the body ended early") end
  return data
end

local function read_trailers(self)
  local conn, total = self.conn, 0
  repeat
    local line = must(conn:line(self.limits.max_header, left(self)))
    total = total + #line
    if total > self.limits.max_header then refuse(431, "the trailers are too long") end
    if line:sub(-2) ~= "\r\n" then refuse(400, "a trailer is not well-formed") end
  until line == "\r\n"
end

local function read_chunked(self)
  local conn, pieces, total = self.conn, {}, 0
  while true do
    local line = must(conn:line(MAX_CHUNK_LINE, left(self)))
    local hex = line:match("^(%x+)[ \t]*\r\n$") or line:match("^(%x+)[ \t]*;[^\r\n%z]*\r\n$")
    if not hex or #hex > 8 then refuse(400, "a chunk is not well-formed") end
    local size = tonumber(hex, 16)
    if size == 0 then break end
    total = total + size
    if total > self.limits.max_body then
      refuse(413, ("the body may have %d bytes"):format(self.limits.max_body))
    end
    pieces[#pieces + 1] = must(conn:read_exactly(size, left(self)))
    if must(conn:read_exactly(2, left(self))) ~= "\r\n" then
      refuse(400, "a chunk is not well-formed")
    end
  end
  read_trailers(self)
  return table.concat(pieces)
end

--- `request:read_body()`: the whole body, read from the connection at the first call.
function methods:read_body()
  if self.body then return self.body end
  if self.failed then refuse(400, "the body could not be read") end
  self.failed = true -- until it has succeeded: half a body is nobody's
  self.deadline = sys.mono() + self.limits.body_timeout
  self.limits.waiters:add(self.conn)
  if self.expects then self.conn:write("HTTP/1.1 100 Continue\r\n\r\n", left(self)) end
  if self.chunked then
    self.body = read_chunked(self)
  else
    self.body = must(self.conn:read_exactly(self.length, left(self)))
  end
  self.limits.waiters:drop(self.conn)
  self.failed = false
  return self.body
end

--- `request:json()`: the body as JSON; anything else is answered with 400.
function methods:json()
  local ok, value = pcall(require("worker.json").decode, self:read_body())
  if not ok then refuse(400, "the body is not JSON") end
  return value
end

return request
