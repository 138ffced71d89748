-- joblog.lua: a job's output on its way from the executor to the server.
--
-- The executor's side writes; the shipper's side reads chunks in order and says when one has
-- arrived.  In between lies a queue in memory with a ceiling.  When it is full, what follows goes to
-- a spool on disk, which keeps head and tail and counts what it had to drop, until the shipper has
-- caught up; without a spool, writing waits: the job then feels the slow server.  A job may be held up
-- like that for a moment in all, also with a spool: one that is but a little faster than its server
-- would otherwise send everything through the disk.
--
-- A chunk is { stream=, offset=, text=, time= }: offset counts all bytes of the job's output before
-- it, time is the wall clock when it was written.
local err = require "worker.error"
local log = require "worker.log"
local sys = require "worker.core.sys"
local task = require "worker.task"

local joblog = {}

local MEMORY_MOST = 1024 * 1024
local PATIENCE = 1      -- seconds that a job may wait for the server, in all
local PIECE = 64 * 1024 -- what a spool takes at once
local BATCH = { bytes = 64 * 1024, seconds = 0.2 }

local methods = {}
local meta = { __index = methods, __name = "worker.joblog" }

local chunk_meta = {}
chunk_meta.__index = chunk_meta

--- `chunk:lines()`: an iterator over the lines of the chunk's text, without their newlines.
function chunk_meta:lines()
  local at, text = 1, self.text
  return function()
    if at > #text then return nil end
    local stop = text:find("\n", at, true) or #text + 1
    local line = text:sub(at, stop - 1)
    at = stop + 1
    if line:byte(-1) == 13 then line = line:sub(1, -2) end
    return line
  end
end

--- `joblog.new(options)`: options: batch = { bytes=, seconds=, lines= }, spool = a function that opens
-- a spool (see worker.spool), called when it is first needed; memory = bytes; patience = seconds that
-- writing may wait before it goes there.
function joblog.new(options)
  options = options or {}
  local batch = options.batch or {}
  return setmetatable({
    queue = {}, first = 1, last = 0, held = 0,
    written = 0, -- bytes ever written
    lines_only = batch.lines, unfinished = {},
    batch_bytes = batch.bytes or BATCH.bytes,
    batch_seconds = batch.seconds or BATCH.seconds,
    memory = options.memory or MEMORY_MOST, open_spool = options.spool, patience = options.patience or PATIENCE,
    filled = task.signal(), emptied = task.signal(),
  }, meta)
end

-- Writing --------------------------------------------------------------------------------------------

local function push(self, stream, text)
  self.last = self.last + 1
  self.queue[self.last] = {
    stream = stream, text = text, offset = self.written, time = sys.wall(),
  }
  self.written = self.written + #text
  self.held = self.held + #text
  self.filled:fire()
end

local function drop(self, size)
  self.dropped = (self.dropped or 0) + size
end

-- The spool's offsets begin at 0 when it is first used; ours have come further by then.
local function start_spool(self)
  local ok, spool = pcall(self.open_spool)
  if not ok then
    if err.is(spool, "cancelled") then error(spool, 0) end
    log.warn("spool.failed", "output waits in memory only: " .. tostring(spool))
    self.open_spool = nil
    return nil
  end
  self.spool, self.spool_base, self.spool_at = spool, self.written, 0
  return spool
end

local function spill(self, stream, text)
  local spool = self.spool or start_spool(self)
  if not spool then return false end
  for at = 1, #text, PIECE do spool:append(stream, text:sub(at, at + PIECE - 1), sys.wall()) end
  self.written = self.written + #text
  self.filled:fire()
  return true
end

-- For a server that wants whole lines: an unfinished one waits here, for each stream, until its rest
-- has come; otherwise what another stream says in between would cut it.  Not longer than a batch.
local function whole_lines(self, stream, text)
  local rest = self.unfinished[stream]
  if rest then text = rest .. text end
  local stop = text:match("^.*()\n") or #text >= self.batch_bytes and #text or 0
  self.unfinished[stream] = stop < #text and text:sub(stop + 1) or nil
  return text:sub(1, stop)
end

local function wait_a_moment(self)
  while self.held > self.memory and self.patience > 0 and not self.abandoned do
    local began = sys.mono()
    self.emptied:wait(self.patience)
    self.patience = self.patience - (sys.mono() - began)
  end
end

--- `joblog:write(stream, text)`: hand over output; waits while there is no room for it.
function methods:write(stream, text)
  if self.lines_only then text = whole_lines(self, stream, text) end
  if #text == 0 then return end
  if self.abandoned then return drop(self, #text) end
  if self.open_spool and not self.spool and self.held > self.memory then wait_a_moment(self) end
  if self.open_spool and (self.spool or self.held > self.memory) and spill(self, stream, text) then return end
  while self.held > self.memory and not self.abandoned do self.emptied:wait() end
  if self.abandoned then return drop(self, #text) end
  push(self, stream, text)
end

--- `joblog:close()`: nothing more will be written.
function methods:close()
  for stream, text in pairs(self.unfinished) do
    if not (self.spool and spill(self, stream, text)) then push(self, stream, text) end
  end
  self.unfinished = {}
  self.closed = true
  self.filled:fire(1 << 20)
end

--- `joblog:abandon()`: nobody will take the output any more; what comes is counted and dropped.
function methods:abandon()
  self.abandoned = true
  drop(self, self.held)
  self:forget_spool()
  self.queue, self.first, self.last, self.held = {}, 1, 0, 0
  self.emptied:fire(1 << 20)
end

-- Reading --------------------------------------------------------------------------------------------

-- How many bytes of the queue's front belong to one chunk: same stream, up to the batch size.
local function gather(self)
  local front = self.queue[self.first]
  local parts, size, at = {}, 0, self.first
  while at <= self.last and self.queue[at].stream == front.stream and size < self.batch_bytes do
    local text = self.queue[at].text
    local room = self.batch_bytes - size
    parts[#parts + 1] = #text > room and text:sub(1, room) or text
    size = size + #parts[#parts]
    at = at + 1
  end
  return front, table.concat(parts)
end

-- Where to cut for a server that wants whole lines: behind the last newline; a line longer than a
-- batch is cut where the batch ends, but not within a character.
local function cut_at_line(text)
  local stop = text:match("^.*()\n")
  if stop then return text:sub(1, stop) end
  local before = text:match("^(.+)[\xC0-\xFF][\x80-\xBF]?[\x80-\xBF]?$")
  return before or text
end

-- Take `size` bytes off the front of the queue.
local function take(self, size)
  self.held = self.held - size
  while size > 0 do
    local front = self.queue[self.first]
    if #front.text > size then
      front.text = front.text:sub(size + 1)
      front.offset = front.offset + size
      break
    end
    size = size - #front.text
    self.queue[self.first] = nil
    self.first = self.first + 1
  end
  self.emptied:fire(1 << 20)
end

-- Once the queue in memory is empty, its next part comes from the spool.
local function refill(self)
  local spool = self.spool
  if not spool then return end
  while self.held < self.batch_bytes do
    local piece = spool:read(self.spool_at)
    if not piece then break end
    local text = piece.text
    if piece.gap then
      text = ("... %d bytes (%d lines) dropped ...\n"):format(piece.next - piece.offset, piece.lines or 0)
    end
    self.last = self.last + 1
    self.queue[self.last] = { stream = piece.gap and "worker" or piece.stream, text = text,
      offset = self.spool_base + piece.offset, time = piece.time or sys.wall() }
    self.held = self.held + #text
    self.spool_at = piece.next
  end
  spool:ack(self.spool_at)
  if self.first > self.last then self:forget_spool() end
end

-- The shipper has caught up: from here on memory will do again.
function methods:forget_spool()
  if self.spool then self.spool:remove() end
  self.spool = nil
end

-- A full batch goes at once, a smaller one after the batch's time.
local function linger(self)
  local until_ = sys.mono() + self.batch_seconds
  while not self.closed and self.held < self.batch_bytes do
    local left = until_ - sys.mono()
    if left <= 0 or not self.filled:wait(left) then return end
  end
end

--- `joblog:next()`: wait for a chunk; nil when the log is closed and everything was handed out.
function methods:next()
  refill(self)
  while self.first > self.last do
    if self.closed then return nil end
    self.filled:wait()
    refill(self)
  end
  if not self.spool then linger(self) end
  local front, text = gather(self)
  if self.lines_only and #text >= self.batch_bytes then text = cut_at_line(text) end
  local chunk = { stream = front.stream, offset = front.offset, time = front.time, text = text }
  return setmetatable(chunk, chunk_meta)
end

--- `joblog:arrived(chunk)`: the server has this chunk.
function methods:arrived(chunk)
  if not self.abandoned then take(self, #chunk.text) end
end

return joblog
