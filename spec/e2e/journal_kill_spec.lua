-- The promise of the journal, tried with real kills: what was reported written is there, what was
-- reported dropped is not, and nothing is torn.  JOURNAL_KILL_ROUNDS makes it longer; the seed of a
-- failing run is in its message and in JOURNAL_KILL_SEED one repeats it.
local fs = require "worker.fs"
local journal = require "worker.core.journal"
local process = require "worker.process"
local scratch = require "spec.support.scratch"
local sys = require "worker.core.sys"
local task = require "worker.task"
local writer = require "spec.support.journal_writer"

local ROUNDS = tonumber(sys.env("JOURNAL_KILL_ROUNDS")) or 60
local SEED = tonumber(sys.env("JOURNAL_KILL_SEED")) or 20261121
local SELF = fs.readlink("/proc/self/exe")

local function start(dir, seed)
  return process.spawn {
    argv = { SELF, "spec", "spec/support/journal_writer.lua" },
    env = process.env(sys.env(), {
      JOURNAL_WRITER_DIR = dir, JOURNAL_WRITER_SEED = tostring(seed),
    }),
  }
end

-- Let it write for a while after it has begun, then kill it.
local function disturb(dir, seed)
  local size = (fs.stat(dir:path("told")) or { size = 0 }).size
  local child <close> = start(dir.root, seed)
  for _ = 1, 5000 do
    local told = fs.stat(dir:path("told"))
    if told and told.size > size then break end
    task.sleep(0.001)
  end
  task.sleep(math.random() ^ 2 * 0.06)
  child:kill("KILL")
  assert(child:wait().signal == 9, "the writer ended by itself")
end

-- What the writers have told: the last word on every key.
local function last_words(dir)
  local said = {}
  for word, key in dir:read("told"):gmatch("(%a+) (%S+)\n") do
    said[key] = word
  end
  return said
end

local function check(dir, message)
  local book <close>, report = journal.open(dir:path("journal"), writer.OPTIONS)
  local live = {}
  for _, record in ipairs(book:list()) do
    live[record.key] = book:get(record.key, record.kind)
    assert(live[record.key] == writer.payload(record.key), message .. ": torn: " .. record.key)
  end
  local said = last_words(dir)
  for key, word in pairs(said) do
    assert(word ~= "put" or live[key], message .. ": lost: " .. key)
    assert(word ~= "dropped" or not live[key], message .. ": came back: " .. key)
  end
  for key in pairs(live) do
    assert(said[key], message .. ": from nowhere: " .. key)
  end
  assert(report.damaged == 0, message .. ": damaged in the middle")
  return #book:list()
end

describe("a journal whose writer is killed #realtime", function()
  it("has every record that was reported written, and none that is torn", function()
    local dir <close> = scratch.dir()
    math.randomseed(SEED)
    local records = 0
    for round = 1, ROUNDS do
      disturb(dir, SEED + round)
      records = records + check(dir, ("seed %d, round %d"):format(SEED, round))
    end
    assert.is_true(records > ROUNDS)
    local _, drops = dir:read("told"):gsub("dropped", "")
    assert.is_true(drops > ROUNDS, "drops: " .. drops)
  end)
end)

describe("on a full disk", function()
  -- A small file system of its own, or nil and the reason.
  local function small_disk(dir)
    if sys.uid() ~= 0 then return nil, "needs root for a small tmpfs" end
    local at = dir:path("disk")
    fs.mkdir(at)
    local mount = "mount -t tmpfs -o size=2m,nr_inodes=64 tmpfs '%s' 2>/dev/null"
    if not os.execute(mount:format(at)) then
      return nil, "mount is not allowed here"
    end
    return setmetatable({ path = at }, { __close = function()
      os.execute(("umount '%s'"):format(at))
    end })
  end

  local function fill(disk)
    local file <close> = fs.open(disk.path .. "/ballast", "a")
    for size = 16, 0, -1 do
      while pcall(file.write, file, ("b"):rep(1 << size)) do end
    end
  end

  it("a journal refuses what does not fit, keeps what it has, and goes on", function()
    local dir <close> = scratch.dir()
    local disk <close>, why = small_disk(dir)
    if not disk then pending(why) return end
    local path = disk.path .. "/journal"
    do
      local book <close> = journal.open(path)
      book:put("before", "claim", "kept")
      fill(disk)
      local ok, failure = pcall(book.put, book, "large", "claim", ("x"):rep(500000))
      assert.same({ false, "ENOSPC", "file" }, { ok, failure.name, failure.kind })
      -- The space in reserve: what is done can still be dropped.
      book:drop("before")
      assert.is_nil(book:get("before", "claim"))
      local fitted = 0
      while pcall(book.put, book, "k" .. fitted, "claim", ("y"):rep(20000)) do
        fitted = fitted + 1
      end
      assert.is_true(fitted > 0, "small records fit into the reserve")
      fs.remove(disk.path .. "/ballast")
      book:put("large", "claim", ("x"):rep(500000))
      book:put("after", "claim", "on")
      assert.equal(fitted + 2, book:stats().records)
    end
    local book <close>, report = journal.open(path)
    assert.same({ 0, 0 }, { report.cut, report.damaged })
    assert.equal("on", book:get("after", "claim"))
    assert.equal(500000, #book:get("large", "claim"))
    assert.is_nil(book:get("before", "claim"))
  end)

  it("several writers of which one is too large: the others are not harmed", function()
    local dir <close> = scratch.dir()
    local disk <close>, why = small_disk(dir)
    if not disk then pending(why) return end
    local book <close> = journal.open(disk.path .. "/journal")
    book:put("first", "claim", "x")
    fill(disk)
    local failed = {}
    local writers = {}
    for i = 1, 5 do
      local size = i == 3 and 1000000 or 10
      writers[i] = function()
        local ok = pcall(book.put, book, "k" .. i, "claim", ("z"):rep(size))
        if not ok then failed[#failed + 1] = i end
      end
    end
    task.all(writers)
    assert.same({ 3 }, failed)
    assert.equal(5, book:stats().records)
  end)

  it("a spool makes a gap and goes on", function()
    local dir <close> = scratch.dir()
    local disk <close>, why = small_disk(dir)
    if not disk then pending(why) return end
    local spool = require "worker.core.spool"
    local log <close> = spool.open(disk.path .. "/log", { ceiling = 64 << 20 })
    log:append("stdout", "begin\n")
    fill(disk)
    local lost, failure = 0, nil
    for _ = 1, 40 do
      failure = select(2, log:append("stdout", ("f"):rep(9999) .. "\n"))
      if failure then lost = lost + 1 end
    end
    assert.is_true(lost > 35)
    assert.equal("ENOSPC", failure.name)
    fs.remove(disk.path .. "/ballast")
    log:append("stdout", "end\n")
    local text, gap, offset = "", 0, 0
    while log:read(offset) do
      local piece = log:read(offset)
      if piece.gap then
        gap = gap + piece.lines
        assert.equal(piece.lines * 10000, piece.gap)
      else
        text = text .. piece.text
      end
      offset = piece.next
    end
    assert.matches("^begin\n.*end\n$", text)
    assert.equal(lost, gap)
    assert.equal(400010, log:stats()["end"])
  end)
end)

describe("on a failing disk #realtime", function()
  -- Which call fails, from the how-manieth on, how often, and whether no writer need notice.
  local FAULTS = {
    { call = "fdatasync", first = 3, last = 3 },
    { call = "fdatasync", first = 20, last = 24 },
    { call = "fsync", first = 5, last = 12, silent = true },
    { call = "pwrite64", first = 10, last = 10 },
    { call = "pwrite64", first = 30, last = 33 },
    { call = "rename,renameat,renameat2", first = 1, last = 2, silent = true },
    { call = "pwrite64,ftruncate", first = 12, last = 16 },
  }
  for _, fault in ipairs(FAULTS) do
    local name = "a journal survives errors of %s %d to %d"
    it(name:format(fault.call, fault.first, fault.last), function()
      if not os.execute("command -v strace >/dev/null") then pending("needs strace") return end
      local dir <close> = scratch.dir()
      local result = process.run {
        argv = { "strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=" .. fault.call, "-e",
          ("inject=%s:error=EIO:when=%d..%d"):format(fault.call, fault.first, fault.last),
          SELF, "spec", "spec/support/journal_faults.lua" },
        env = process.env(sys.env(), {
          JOURNAL_FAULT_DIR = dir.root, JOURNAL_FAULT_SILENT = fault.silent and "1" or nil,
          ASAN_OPTIONS = "detect_leaks=0", -- the leak check of a sanitized build cannot be traced
        }),
      }
      assert.equal(0, result.exit_code, result.stdout .. result.stderr)
    end)
  end
end)
