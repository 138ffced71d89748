-- spool.lua: the log bytes of one job on disk, with a ceiling.
--
-- Whoever produces appends, whoever ships reads from an offset and acknowledges; neither waits
-- for the other, a restart of the worker in between changes nothing, and memory does not grow.
-- When more piles up than the ceiling allows, how it began and how it ended are kept, and the gap
-- is counted.
local core = require "worker.core.spool"

local spool = {}

local methods = {}
local meta = { __index = methods, __name = "worker.spool" }

--- `spool.open(path, options)`: open or create a spool; `path` is a directory of its own. `ceiling`
-- (64 MiB) bounds what is kept on disk, `head` (a quarter of it) what is kept of the beginning.
function spool.open(path, options)
  return setmetatable({ handle = core.open(path, options) }, meta)
end

--- `spool:append(stream, text, time)`: add bytes of "stdout", "stderr" or "worker"; returns the
-- offset of the first. A second result is an error: the disk did not take them, they are a gap.
function methods:append(stream, text, time)
  return self.handle:append(stream, text, time)
end

--- `spool:read(offset)`: what is at an offset: `{offset=, next=, stream=, time=, text=}`, or a gap
-- `{offset=, next=, gap=bytes, lines=}`, or nil at the end. Read on at `next`.
function methods:read(offset)
  return self.handle:read(offset)
end

--- `spool:pieces(offset)`: iterate over what there is from an offset (default: the acknowledged
-- one).
function methods:pieces(offset)
  offset = offset or self.handle:stats().acked
  return function()
    local piece = self.handle:read(offset)
    if piece then offset = piece.next end
    return piece
  end
end

--- `spool:ack(offset)`: everything before the offset was delivered; its space is given back.
function methods:ack(offset)
  self.handle:ack(offset)
end

--- `spool:stats()`: start, end, acked (offsets), disk (bytes), dropped (bytes that became gaps).
function methods:stats()
  return self.handle:stats()
end

--- `spool:close()`: the spool stays on disk and can be opened again.
function methods:close()
  self.handle:close()
end

--- `spool:remove()`: close it and remove it from the disk.
function methods:remove()
  self.handle:remove()
end

function meta.__close(self)
  self.handle:close()
end

function meta.__tostring(self)
  return tostring(self.handle)
end

return spool
