-- engine/stream.lua: what a container writes, as the engine sends it.
--
-- Attaching turns an HTTP connection into a plain stream of bytes.  Without a terminal it carries
-- frames: one byte for the stream, three of nothing, four for the size, then that many bytes; frames
-- are cut anywhere by the reads.  With a terminal the bytes are bare.
local err = require "worker.error"
local json = require "worker.json"
local sock = require "worker.sock"
local task = require "worker.task"

local stream = {}

local HEADER = 8
local HEAD_MOST = 64 * 1024
local ANSWER_PATIENCE = 30
local NAMES = { [0] = "stdout", [1] = "stdout", [2] = "stderr", [3] = "stderr" } -- 3: the engine's own words

-- Splitting frames -----------------------------------------------------------------------------------

local function read_header(header)
  local number, size = (">I1xxxI4"):unpack(header)
  local name = NAMES[number]
  if not name then
    err.wire(("the engine's stream has a frame for stream %d: there is none"):format(number), header)
  end
  return name, size
end

--- `stream.splitter()`: { feed=, broken= }: feed(chunk) gives a list of { name, text }, neighbours of
-- the same stream put together; broken() tells whether the bytes so far end inside a frame.
function stream.splitter()
  local header, left, name = "", 0, nil
  local function feed(chunk)
    local pieces, at = {}, 1
    while at <= #chunk do
      if left == 0 then
        local more = chunk:sub(at, at + HEADER - #header - 1)
        header, at = header .. more, at + #more
        if #header == HEADER then
          name, left = read_header(header)
          header = ""
        end
      else
        local text = chunk:sub(at, at + left - 1)
        left, at = left - #text, at + #text
        local last = pieces[#pieces]
        if last and last[1] == name then
          last[#last + 1] = text
        else
          pieces[#pieces + 1] = { name, text }
        end
      end
    end
    for i, piece in ipairs(pieces) do pieces[i] = { piece[1], table.concat(piece, "", 2) } end
    return pieces
  end
  return { feed = feed, broken = function() return left > 0 or header ~= "" end }
end

-- Attaching --------------------------------------------------------------------------------------------

local methods = {}
local meta = { __index = methods, __name = "worker.engine.stream" }

local function answer_text(conn, head)
  local size = tonumber(head:lower():match("\r\ncontent%-length:%s*(%d+)"))
  local ok, body = task.try(function()
    if size then return conn:read_exactly(math.min(size, HEAD_MOST), { timeout = ANSWER_PATIENCE }) end
    return conn:read(4096, { timeout = 1 })
  end)
  local is_json, value = pcall(json.decode, ok and body or "")
  return is_json and type(value) == "table" and value.message or ok and body or "no explanation"
end

--- `stream.attach(address, path, tty)`: the stream that the engine gives for this path.  Raises kind
-- "transport", or "http" with the status and message of a refusal.
function stream.attach(address, path, tty)
  local conn = sock.connect(address.sock)
  local self = setmetatable({ conn = conn, queue = {}, taken = 0, splitter = not tty and stream.splitter() or nil }, meta)
  local ok, why = pcall(function()
    conn:write(("POST %s HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n\r\n")
      :format(path, address.authority))
    local head = conn:head(HEAD_MOST, { timeout = ANSWER_PATIENCE })
    local status = tonumber((head or ""):match("^HTTP/1%.%d (%d%d%d)"))
    if not status then err.raise("transport", "attach: the engine ended the connection", { reason = "closed" }) end
    if status ~= 101 and status ~= 200 then
      local said = answer_text(conn, head)
      err.raise("http", said, { status = status, body = json.encode { message = said } })
    end
  end)
  if ok then return self end
  conn:close()
  error(why, 0)
end

-- A container that ends before it has read all of its stdin has the connection closed over bytes of
-- ours: that arrives as a reset, behind the last of the output, and is an end like any other.
local function read(self)
  local ok, chunk = task.try(self.conn.read, self.conn, 65536)
  if ok then return chunk end
  if self.has_input and chunk.reason == "reset" then return nil end
  error(chunk, 0)
end

--- `output:pieces()`: an iterator over what the container writes: stream, text.  A second one goes on
-- where the first was left.
function methods:pieces()
  return function()
    while true do
      -- not taken out of the list: moving thousands of them up by one, each time, would keep everybody waiting
      self.taken = self.taken + 1
      local piece = self.queue[self.taken]
      if piece then return piece[1], piece[2] end
      local chunk = read(self)
      if not chunk then
        if self.splitter and self.splitter.broken() then
          err.raise("transport", "the container's output breaks off", { reason = "closed" })
        end
        return nil
      end
      if not self.splitter then return "stdout", chunk end
      self.queue, self.taken = self.splitter.feed(chunk), 0
    end
  end
end

--- `output:input(text)`: what the container reads from its stdin, and the end of it.
function methods:input(text)
  self.has_input = true
  self.conn:write(text)
  self.conn:shutdown()
end

--- `output:close()`: hear no more of it.
function methods:close() self.conn:close() end
meta.__close = methods.close

return stream
