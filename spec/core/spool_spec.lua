local fs = require "worker.fs"
local scratch = require "spec.support.scratch"
local spool = require "worker.core.spool"
local task = require "worker.task"

local MIB = 1 << 20

-- Everything from an offset on: the text, with gaps as "<bytes/lines>".
local function read_all(handle, offset)
  local parts = {}
  while true do
    local piece = handle:read(offset)
    if not piece then return table.concat(parts) end
    assert(piece.next > offset and piece.offset == offset, "reading goes forward")
    parts[#parts + 1] = piece.text or ("<%d/%d>"):format(piece.gap, piece.lines)
    offset = piece.next
  end
end

local function segments(dir, name)
  local list = fs.list(dir:path(name))
  local found = {}
  for _, file in ipairs(list) do
    if file ~= "acked" then found[#found + 1] = file end
  end
  return found
end

-- Numbered lines, 16 bytes each. The others get their turn: a flood is made of many of these.
local function lines(from, count)
  task.yield()
  local list = {}
  for i = from, from + count - 1 do list[#list + 1] = ("line %010d\n"):format(i) end
  return table.concat(list)
end

describe("the spool", function()
  it("gives back what was appended, chunk by chunk, with its stream and time", function()
    local dir <close> = scratch.dir()
    local handle <close> = spool.open(dir:path("s"))
    assert.equal(0, handle:append("stdout", "one\n", 1000.5))
    assert.equal(4, handle:append("stderr", "\0\255", 1001))
    assert.same({ offset = 0, next = 4, stream = "stdout", time = 1000.5, text = "one\n" },
      handle:read(0))
    assert.same({ offset = 4, next = 6, stream = "stderr", time = 1001, text = "\0\255" },
      handle:read(4))
    assert.same({ offset = 2, next = 4, stream = "stdout", time = 1000.5, text = "e\n" },
      handle:read(2))
    assert.is_nil(handle:read(6))
    assert.is_nil(handle:read(1 << 40))
  end)

  it("splits what is larger than a chunk", function()
    local dir <close> = scratch.dir()
    local handle <close> = spool.open(dir:path("s"))
    local text = lines(1, 20000)
    handle:append("stdout", text)
    assert.equal(65536, #handle:read(0).text)
    assert.is_true(text == read_all(handle, 0))
    assert.equal(text:sub(100001, 100010), handle:read(100000).text:sub(1, 10))
  end)

  it("is found again after a restart, and goes on at the same offset", function()
    local dir <close> = scratch.dir()
    for i = 0, 2 do
      local handle <close> = spool.open(dir:path("s"))
      assert.equal(i * 4, handle:append("stdout", ("%d..\n"):format(i)))
      handle:ack(i * 4 + 1)
    end
    local handle <close> = spool.open(dir:path("s"))
    assert.same({ 9, 12 }, { handle:stats().acked, handle:stats()["end"] })
    assert.equal("2..\n", read_all(handle, 8))
  end)

  it("keeps the head and the tail, and counts what is missing in between", function()
    local dir <close> = scratch.dir()
    local handle <close> = spool.open(dir:path("s"), { ceiling = 2 * MIB, head = MIB // 2 })
    local total = 8 * MIB
    for at = 0, total // 16 - 1, 2048 do handle:append("stdout", lines(at, 2048)) end
    local stats = handle:stats()
    assert.equal(total, stats["end"])
    assert.is_true(stats.disk <= 2 * MIB, "disk: " .. stats.disk)

    local text = read_all(handle, 0)
    local head, bytes, count, tail = text:match("^(.-)<(%d+)/(%d+)>(.*)$")
    assert.equal(stats.dropped, tonumber(bytes))
    assert.equal(total, #head + bytes + #tail)
    assert.equal(bytes // 16, tonumber(count))
    assert.is_true(#head >= MIB // 2 and #tail >= MIB, "head and tail are kept")
    assert.is_true(head == lines(0, #head // 16))
    assert.is_true(tail == lines((total - #tail) // 16, #tail // 16))
  end)

  it("finds the same gap after a restart", function()
    local dir <close> = scratch.dir()
    local before
    do
      local handle <close> = spool.open(dir:path("s"), { ceiling = 2 * MIB })
      for at = 0, 6 * MIB // 16 - 1, 2048 do handle:append("stdout", lines(at, 2048)) end
      before = read_all(handle, 0)
    end
    local handle <close> = spool.open(dir:path("s"), { ceiling = 2 * MIB })
    assert.is_true(before == read_all(handle, 0))
  end)

  it("gives the disk space back as the log is acknowledged", function()
    local dir <close> = scratch.dir()
    local handle <close> = spool.open(dir:path("s"), { ceiling = 2 * MIB })
    for at = 0, 2047 do
      handle:append("stdout", lines(at * 256, 256))
      if at % 16 == 15 then handle:ack((at + 1) * 4096) end
    end
    assert.same({ 0, 8 * MIB }, { handle:stats().dropped, handle:stats()["end"] })
    assert.is_true(handle:stats().disk < MIB // 2)
    assert.is_true(#segments(dir, "s") <= 2)
    handle:ack(5)
    assert.equal(8 * MIB, handle:stats().acked)
  end)

  it("loses the torn end of a crash and nothing before it", function()
    local dir <close> = scratch.dir()
    do
      local handle = spool.open(dir:path("s"))
      for i = 0, 9 do handle:append("stdout", lines(i, 1)) end
      -- What a crash leaves: the segment under its working name, cut anywhere.
      local name = segments(dir, "s")[1]
      local whole = dir:read("s/" .. name)
      handle:close()
      for size = 0, #whole, 7 do
        local other = ("s%d"):format(size)
        dir:write(other .. "/" .. name, whole:sub(1, size))
        local again <close> = spool.open(dir:path(other))
        assert.equal(lines(0, size // 56), read_all(again, 0))
        assert.equal(size // 56 * 16, again:append("stdout", "on\n"))
        assert.equal(lines(0, size // 56) .. "on\n", read_all(again, 0))
      end
    end
  end)

  it("makes a gap of a damaged chunk and reads on behind it", function()
    local dir <close> = scratch.dir()
    do
      local handle <close> = spool.open(dir:path("s"))
      for i = 0, 9 do handle:append("stdout", lines(i, 1)) end
    end
    local file = assert(io.open(dir:path("s", segments(dir, "s")[1]), "r+b"))
    file:seek("set", 56 * 3 + 45)
    file:write("?")
    file:close()
    local handle <close> = spool.open(dir:path("s"))
    assert.equal(lines(0, 3) .. "<16/1>" .. lines(4, 6), read_all(handle, 0))
  end)

  it("is not confused by other files in its directory", function()
    local dir <close> = scratch.dir()
    dir:write("s/notes.txt", "hello")
    dir:write("s/0000000000000000-zz.open", "hello")
    dir:write("s/acked", ("\0"):rep(500))
    local handle <close> = spool.open(dir:path("s"))
    handle:append("stdout", "x")
    assert.equal("x", read_all(handle, 0))
  end)

  it("leaves nothing when it is removed", function()
    local dir <close> = scratch.dir()
    local handle = spool.open(dir:path("s"), { ceiling = 2 * MIB })
    handle:append("stdout", lines(0, 20000))
    handle:remove()
    assert.is_false(fs.exists(dir:path("s")))
    assert.error_matches(function() handle:read(0) end, "this spool is closed")
    assert.equal("worker.spool (closed)", tostring(handle))
  end)

  it("takes any amount in little memory", function()
    local dir <close> = scratch.dir()
    local handle <close> = spool.open(dir:path("s"), { ceiling = 2 * MIB })
    local chunk = ("y"):rep(65536)
    collectgarbage()
    local before = collectgarbage("count")
    for _ = 1, 1024 do handle:append("stdout", chunk) end
    assert.is_true(collectgarbage("count") - before < 512)
    assert.equal(64 * MIB, handle:stats()["end"])
    assert.is_true(handle:stats().disk <= 2 * MIB)
  end)
end)
