local fs = require "worker.fs"
local joblog = require "worker.joblog"
local spool = require "worker.spool"
local task = require "worker.task"
local time = require "worker.time"

local function read_all(log, got, each)
  for chunk in function() return log:next() end do
    got[#got + 1] = chunk
    if each then each(chunk) end
    log:arrived(chunk)
  end
end

local function text_of(got, stream)
  local parts = {}
  for _, chunk in ipairs(got) do
    if not stream or chunk.stream == stream then parts[#parts + 1] = chunk.text end
  end
  return table.concat(parts)
end

describe("worker.joblog", function()
  it("hands output over in order, with the offset of its first byte", function()
    local log, got = joblog.new(), {}
    local reader = task.start(read_all, log, got)
    log:write("stdout", "one\n")
    log:write("stderr", "two\n")
    task.sleep(1)
    log:write("stdout", "three\n")
    log:close()
    assert.is_true(reader:join())
    assert.equal("one\ntwo\nthree\n", text_of(got))
    assert.same({ 0, 4, 8 }, { got[1].offset, got[2].offset, got[3].offset })
    assert.equal("stderr", got[2].stream)
  end)

  it("gathers small writes into one chunk", function()
    local log, got = joblog.new(), {}
    local reader = task.start(read_all, log, got)
    for i = 1, 100 do log:write("stdout", i .. "\n") end
    log:close()
    reader:join()
    assert.equal(1, #got)
  end)

  it("cuts at lines for a server that wants whole lines", function()
    local log, got = joblog.new { batch = { lines = true } }, {}
    local reader = task.start(read_all, log, got)
    log:write("stdout", "a whole line\nand a be")
    task.sleep(5)
    assert.equal("a whole line\n", text_of(got))
    log:write("stdout", "ginning\nlast")
    log:close()
    reader:join()
    assert.equal("a whole line\nand a beginning\nlast", text_of(got))
    local lines = {}
    for _, chunk in ipairs(got) do
      for line in chunk:lines() do lines[#lines + 1] = line end
    end
    assert.same({ "a whole line", "and a beginning", "last" }, lines)
  end)

  it("cuts a line that is longer than a batch", function()
    local log, got = joblog.new { batch = { lines = true, bytes = 1000 } }, {}
    local reader = task.start(read_all, log, got)
    log:write("stdout", ("x"):rep(3500) .. "\n")
    log:close()
    reader:join()
    assert.equal(4, #got)
    assert.equal(3501, #text_of(got))
  end)

  it("cuts a long line behind a whole character", function()
    local log, got = joblog.new { batch = { lines = true, bytes = 1000 } }, {}
    local reader = task.start(read_all, log, got)
    log:write("stdout", "x" .. ("é"):rep(1000))
    log:close()
    reader:join()
    assert.equal("x" .. ("é"):rep(1000), text_of(got))
    for _, chunk in ipairs(got) do assert.truthy(utf8.len(chunk.text)) end
  end)

  it("keeps a line whole that another stream interrupts", function()
    local log, got = joblog.new { batch = { lines = true } }, {}
    local reader = task.start(read_all, log, got)
    log:write("stdout", "one ")
    log:write("stderr", "a warning\n")
    log:write("stdout", "line\nrest")
    log:close()
    reader:join()
    local lines = {}
    for _, chunk in ipairs(got) do
      for line in chunk:lines() do lines[#lines + 1] = chunk.stream .. ": " .. line end
    end
    assert.same({ "stderr: a warning", "stdout: one line", "stdout: rest" }, lines)
  end)

  it("makes the writer wait while the reader is slow", function()
    local log, written = joblog.new { memory = 10000 }, 0
    local writer = task.start(function()
      for _ = 1, 10 do log:write("stdout", ("y"):rep(5000)) written = written + 1 end
      log:close()
    end)
    task.sleep(10)
    assert.is_true(written <= 3)
    local got = {}
    read_all(log, got)
    writer:join()
    assert.equal(50000, #text_of(got))
  end)

  it("lets the writer go when nobody takes the output any more", function()
    local log = joblog.new { memory = 1000 }
    local writer = task.start(function()
      for _ = 1, 10 do log:write("stdout", ("z"):rep(1000)) end
      log:close()
    end)
    task.sleep(1)
    log:abandon()
    assert.is_true(writer:join())
    assert.equal(10000, log.dropped)
  end)

  it("goes over to a spool when the reader is slow, and back", function()
    local dir = fs.temp_dir("/tmp/joblog-")
    local log = joblog.new { memory = 10000, batch = { bytes = 4000 }, spool = function()
      return spool.open(fs.join(dir, "spool"))
    end }
    local expected = {}
    for i = 1, 200 do
      expected[i] = ("%d:%s\n"):format(i, ("w"):rep(i * 7))
      log:write(i % 3 == 0 and "stderr" or "stdout", expected[i])
    end
    assert.is_true(fs.exists(fs.join(dir, "spool")))
    local got = {}
    local reader = task.start(read_all, log, got)
    task.sleep(10)
    assert.is_false(fs.exists(fs.join(dir, "spool")))
    log:write("stdout", "after\n")
    log:close()
    reader:join()
    assert.equal(table.concat(expected) .. "after\n", text_of(got))
    local offset = 0
    for _, chunk in ipairs(got) do
      assert.equal(offset, chunk.offset)
      offset = offset + #chunk.text
    end
    fs.remove_tree(dir)
  end)

  it("holds a job up for a moment before it goes over to a spool, and never again", function()
    local dir, opened = fs.temp_dir("/tmp/joblog-"), 0
    local log = joblog.new { memory = 1000, batch = { bytes = 400 }, patience = 2, spool = function()
      opened = opened + 1
      return spool.open(fs.join(dir, "spool" .. opened))
    end }
    local reader = task.start(function()
      for chunk in function() return log:next() end do
        task.sleep(0.1)
        log:arrived(chunk)
      end
    end)
    for _ = 1, 10 do log:write("stdout", ("x"):rep(400)) end -- the reader keeps up with some waiting
    assert.equal(0, opened)
    local began = time.mono()
    for _ = 1, 100 do log:write("stdout", ("x"):rep(400)) end
    assert.equal(1, opened)
    local waited = time.mono() - began
    assert.is_true(waited > 0.5 and waited < 2.5)
    task.sleep(60)
    began = time.mono()
    for _ = 1, 100 do log:write("stdout", ("x"):rep(400)) end
    assert.is_true(time.mono() - began < 0.5)
    log:close()
    reader:join()
    fs.remove_tree(dir)
  end)

  it("tells in the log what the spool had to drop", function()
    local dir = fs.temp_dir("/tmp/joblog-")
    local log = joblog.new { memory = 1000, spool = function()
      return spool.open(fs.join(dir, "spool"), { ceiling = 2 << 20 })
    end }
    for i = 1, 400 do log:write("stdout", ("%06d %s\n"):format(i, ("v"):rep(9992))) end
    log:close()
    local got = {}
    read_all(log, got)
    local text = text_of(got)
    assert.matches("^000001 ", text)
    assert.matches("\n000400 v+\n$", text)
    assert.matches("%.%.%. %d+ bytes %(%d+ lines%) dropped %.%.%.\n", text_of(got, "worker"))
    fs.remove_tree(dir)
  end)
end)
