-- reply.lua: answering one HTTP/1.1 request.
--
-- An answer with a known body is one write.  A stream is chunked (in HTTP/1.0 it ends with the
-- connection).  What a handler gives as a header is checked, so that text from elsewhere cannot add
-- a header or an answer of its own.
local reply = {}

local REASONS = {
  [100] = "Continue", [101] = "Switching Protocols", [200] = "OK", [201] = "Created",
  [202] = "Accepted", [204] = "No Content", [206] = "Partial Content", [301] = "Moved Permanently",
  [302] = "Found", [303] = "See Other", [304] = "Not Modified", [307] = "Temporary Redirect",
  [308] = "Permanent Redirect", [400] = "Bad Request", [401] = "Unauthorized",
  [403] = "Forbidden", [404] = "Not Found", [405] = "Method Not Allowed",
  [406] = "Not Acceptable", [408] = "Request Timeout", [409] = "Conflict", [410] = "Gone",
  [411] = "Length Required", [412] = "Precondition Failed", [413] = "Content Too Large",
  [414] = "URI Too Long", [415] = "Unsupported Media Type", [417] = "Expectation Failed",
  [422] = "Unprocessable Content", [425] = "Too Early", [426] = "Upgrade Required",
  [429] = "Too Many Requests", [431] = "Request Header Fields Too Large",
  [500] = "Internal Server Error", [501] = "Not Implemented", [502] = "Bad Gateway",
  [503] = "Service Unavailable", [504] = "Gateway Timeout", [505] = "HTTP Version Not Supported",
}

local methods = {}
local meta = { __index = methods, __name = "worker.serve.reply" }

--- `reply.new(conn, request, options)`: the answer to a request; `request` is nil when it could not
-- even be read.
function reply.new(conn, request, options)
  return setmetatable({
    conn = conn, request = request, keep = request ~= nil and request.keep,
    version = request and request.version or 1.1,
    waiters = options.waiters,
    wait = { timeout = options.write_timeout },
  }, meta)
end

-- The date changes once a second; so does its text.
local date_at, date_text
local function http_date()
  local now = os.time()
  if now ~= date_at then date_at, date_text = now, os.date("!%a, %d %b %Y %H:%M:%S GMT", now) end
  return date_text
end

local function add_header(lines, name, value)
  if type(value) == "table" then
    for _, each in ipairs(value) do add_header(lines, name, each) end
    return
  end
  value = tostring(value)
  if not name:find("^[%w!#$%%&'*+%-.^_`|~]+$") or value:find("[%z\1-\8\10-\31\127]") then
    error(("not a header field: %q: %q"):format(name, value), 4)
  end
  lines[#lines + 1] = name .. ": " .. value .. "\r\n"
end

local function bodiless(status)
  return status < 200 or status == 204 or status == 304
end

-- The head of an answer; length is the body's, or "chunked", or nil for up to the end.
local function make_head(self, status, headers, length)
  if self.started then error("this request has been answered already", 3) end
  local lines = { ("HTTP/1.1 %d %s\r\n"):format(status, REASONS[status] or "Unknown") }
  for name, value in pairs(headers or {}) do add_header(lines, name, value) end
  add_header(lines, "Date", http_date())
  if length == "chunked" then
    add_header(lines, "Transfer-Encoding", "chunked")
  elseif length and not bodiless(status) then
    add_header(lines, "Content-Length", length)
  end
  if status >= 200 and not self.keep then
    add_header(lines, "Connection", "close")
  elseif status >= 200 and self.version < 1.1 then
    add_header(lines, "Connection", "keep-alive")
  end
  lines[#lines + 1] = "\r\n"
  return table.concat(lines)
end

-- Whoever does not read keeps us waiting.
local function write(self, text)
  self.waiters:add(self.conn)
  self.conn:write(text, self.wait)
  self.waiters:drop(self.conn)
end

local function without_body(self, status)
  return bodiless(status) or self.request ~= nil and self.request.method == "HEAD"
end

-- A body that the handler left unread stands where the next request would begin.
local function settle_keep(self)
  local request = self.request
  if request and request.body == nil then self.keep = false end
end

--- `reply:send(status, headers, body)`: the whole answer; every other form ends here.
function methods:send(status, headers, body)
  body = body or ""
  settle_keep(self)
  local head = make_head(self, status, headers, #body)
  self.started, self.status = true, status
  write(self, without_body(self, status) and head or head .. body)
  self.finished = true
end

local function with_type(headers, kind)
  local all = { ["Content-Type"] = kind }
  for name, value in pairs(headers or {}) do
    if name:lower() == "content-type" then all["Content-Type"] = nil end
    all[name] = value
  end
  return all
end

--- `reply:text(status, text, headers)`: an answer for people.
function methods:text(status, text, headers)
  self:send(status, with_type(headers, "text/plain; charset=utf-8"), text)
end

--- `reply:html(status, html, headers)`: a page.
function methods:html(status, html, headers)
  self:send(status, with_type(headers, "text/html; charset=utf-8"), html)
end

--- `reply:json(status, value, headers)`: an answer for programs.
function methods:json(status, value, headers)
  self:send(status, with_type(headers, "application/json"), require("worker.json").encode(value))
end

--- `reply:empty(status, headers)`: an answer without a body (204 when no status is given).
function methods:empty(status, headers)
  self:send(status or 204, headers)
end

-- Streams ------------------------------------------------------------------------------------------

local stream_methods = {}
local stream_meta = { __index = stream_methods, __name = "worker.serve.stream" }

--- `reply:stream(status, headers)`: an answer in pieces: `stream:write(text)`, `stream:close()`.  A
-- handler that fails in between cuts the connection, so that nobody takes a half for a whole.
function methods:stream(status, headers)
  settle_keep(self)
  local chunked = self.version >= 1.1
  if not chunked then self.keep = false end
  local silent = without_body(self, status)
  local head = make_head(self, status, headers, chunked and not bodiless(status) and "chunked" or nil)
  self.started, self.status = true, status
  write(self, head)
  self.open_stream = setmetatable({ reply = self, chunked = chunked, silent = silent }, stream_meta)
  return self.open_stream
end

--- `stream:write(text)`: one piece; waits while the client is slow.
function stream_methods:write(text)
  if self.closed then error("this stream is closed", 2) end
  if self.silent or text == "" then return end
  local piece = self.chunked and ("%x\r\n%s\r\n"):format(#text, text) or text
  write(self.reply, piece)
end

--- `stream:event{ data=, event=, id=, retry= }`: one server-sent event; data may have several lines.
function stream_methods:event(event)
  local lines = {}
  for _, field in ipairs { "event", "id", "retry" } do
    if event[field] then
      lines[#lines + 1] = field .. ": " .. tostring(event[field]):gsub("[\r\n%z]", " ")
    end
  end
  for line in (tostring(event.data or ""):gsub("\r\n?", "\n") .. "\n"):gmatch("(.-)\n") do
    lines[#lines + 1] = "data: " .. line
  end
  self:write(table.concat(lines, "\n") .. "\n\n")
end

--- `stream:close()`: the answer is complete; it is called for a handler that returns without.
function stream_methods:close()
  if self.closed then return end
  self.closed = true
  if self.chunked and not self.silent then write(self.reply, "0\r\n\r\n") end
  self.reply.finished = true
end

--- `reply:events(headers)`: a stream of server-sent events.
function methods:events(headers)
  local all = with_type(headers, "text/event-stream")
  all["Cache-Control"] = all["Cache-Control"] or "no-cache"
  return self:stream(200, all)
end

--- `reply:hijack()`: the bare connection, for whatever is not HTTP (a fake that misbehaves).  It is
-- closed when the handler returns.
function methods:hijack()
  self.started, self.finished, self.keep, self.hijacked = true, true, false, true
  return self.conn
end

--- `reply:upgrade(protocol, headers)`: answer 101 and hand over the connection.
function methods:upgrade(protocol, headers)
  local all = { Upgrade = protocol, Connection = "Upgrade" }
  for name, value in pairs(headers or {}) do all[name] = value end
  write(self, make_head(self, 101, all))
  return self:hijack()
end

--- `reply.reason(status)`: the standard word for a status.
function reply.reason(status)
  return REASONS[status] or "Unknown"
end

return reply
