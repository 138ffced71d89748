local journal = require "worker.core.journal"
local scratch = require "spec.support.scratch"
local sys = require "worker.core.sys"
local task = require "worker.task"

-- The live records as "key/kind" = payload.
local function live(handle)
  local found = {}
  for _, record in ipairs(handle:list()) do
    found[record.key .. "/" .. record.kind] = handle:get(record.key, record.kind)
  end
  return found
end

local function overwrite(path, at, bytes)
  local file = assert(io.open(path, "r+b"))
  file:seek("set", at)
  file:write(bytes)
  file:close()
end

local function slurp(path)
  local file = assert(io.open(path, "rb"))
  local text = file:read("a")
  file:close()
  return text
end

local function spew(path, text)
  local file = assert(io.open(path, "wb"))
  file:write(text)
  file:close()
end

describe("the journal", function()
  it("sums up like every CRC-32C, with and without the processor's help", function()
    assert.same({ 0xe3069283, 0xe3069283 }, { journal.crc("123456789") })
    for n = 0, 70 do
      local fast, plain = journal.crc(("x\0y"):rep(n))
      assert.equal(plain, fast)
    end
  end)

  it("keeps the last payload of each key and kind until the key is dropped", function()
    local dir <close> = scratch.dir()
    do
      local handle <close> = journal.open(dir:path("j"))
      handle:put("a", "claim", "one")
      handle:put("a", "result", "two")
      handle:put("b", "claim", "")
      handle:put("a", "claim", "three")
      handle:drop("b")
      handle:drop("never there")
    end
    local handle <close>, report = journal.open(dir:path("j"))
    assert.same({ ["a/claim"] = "three", ["a/result"] = "two" }, live(handle))
    assert.same({ records = 2, cut = 0, damaged = 0, damaged_bytes = 0, damaged_at = 0 }, report)
  end)

  it("takes any bytes as key, kind and payload", function()
    local dir <close> = scratch.dir()
    local bytes = ("\0\255\n"):rep(100)
    do
      local handle <close> = journal.open(dir:path("j"))
      handle:put(bytes, "k\0k", bytes:rep(1000))
    end
    local handle <close> = journal.open(dir:path("j"))
    assert.equal(bytes:rep(1000), handle:get(bytes, "k\0k"))
  end)

  it("lets many writers share one sync", function()
    local dir <close> = scratch.dir()
    local handle <close> = journal.open(dir:path("j"))
    local writers = {}
    for i = 1, 200 do
      writers[i] = function() handle:put("k" .. i, "claim", "x") end
    end
    task.all(writers)
    local stats = handle:stats()
    assert.equal(200, stats.records)
    assert.is_true(stats.syncs <= 5, "syncs: " .. stats.syncs)
  end)

  it("writes a lazy record at once, and behind one that is being synced", function()
    local dir <close> = scratch.dir()
    local handle <close> = journal.open(dir:path("j"))
    local turns = sys.turns()
    handle:put("a", "claim", "one", true)
    handle:put("b", "claim", "two", true)
    handle:drop("a", true)
    assert.equal(turns, sys.turns())
    assert.equal(0, handle:stats().syncs)
    local copied = slurp(dir:path("j"))
    local writer = task.start(handle.put, handle, "c", "claim", "synced")
    task.yield()
    handle:put("c", "claim", "lazy", true)
    writer:join()
    spew(dir:path("copy"), copied)
    do
      local after_a_kill <close> = journal.open(dir:path("copy"))
      assert.same({ ["b/claim"] = "two" }, live(after_a_kill))
    end
    assert.same({ ["b/claim"] = "two", ["c/claim"] = "lazy" }, live(handle))
    assert.error_matches(function() handle:put("", "k", "", true) end, "key has 1 to 1024 bytes")
  end)

  it("refuses a key, kind or payload beyond its bounds and takes the largest", function()
    local dir <close> = scratch.dir()
    local handle <close> = journal.open(dir:path("j"))
    assert.error_matches(function() handle:put("", "k", "") end, "key has 1 to 1024 bytes")
    assert.error_matches(function() handle:put(("x"):rep(1025), "k", "") end, "this has 1025")
    assert.error_matches(function() handle:put("x", ("k"):rep(33), "") end, "at most 32 bytes")
    assert.error_matches(function() handle:put("x", "k", ("p"):rep((16 << 20) + 1)) end, "16777216")
    handle:put(("x"):rep(1024), ("k"):rep(32), ("p"):rep(16 << 20))
    assert.equal(16 << 20, #handle:get(("x"):rep(1024), ("k"):rep(32)))
  end)

  it("belongs to one owner, who is named to the other", function()
    local dir <close> = scratch.dir()
    local _ <close> = journal.open(dir:path("j"))
    local ok, why = pcall(journal.open, dir:path("j"))
    assert.is_false(ok)
    assert.equal("EBUSY", why.name)
    assert.matches("held by process %d+", why.message)
  end)

  it("is readable by its owner alone", function()
    local dir <close> = scratch.dir()
    do local _ <close> = journal.open(dir:path("j")) end
    os.execute(("chmod 644 '%s'"):format(dir:path("j")))
    local _ <close> = journal.open(dir:path("j"))
    local stat = io.popen(("stat -c %%a '%s'"):format(dir:path("j")))
    assert.equal("600", stat:read("l"))
    stat:close()
  end)

  it("refuses a file that is something else, and leaves it alone", function()
    local dir <close> = scratch.dir()
    dir:write("j", "my diary, more than thirty-two bytes of it")
    assert.error_matches(function() journal.open(dir:path("j")) end, "not a journal of worker")
    assert.equal("my diary, more than thirty-two bytes of it", dir:read("j"))
  end)

  it("begins anew when its creation was interrupted", function()
    local dir <close> = scratch.dir()
    dir:write("j", "worker\0J\1")
    local handle <close>, report = journal.open(dir:path("j"))
    assert.equal(9, report.cut)
    handle:put("a", "claim", "x")
  end)

  it("stops a writer that is cancelled, and goes on", function()
    local dir <close> = scratch.dir()
    local handle <close> = journal.open(dir:path("j"))
    local writer = task.start(function() handle:put("a", "claim", "x") end)
    task.yield()
    writer:cancel("enough")
    assert.is_false((writer:join()))
    handle:put("b", "claim", "y")
    assert.equal("y", handle:get("b", "claim"))
  end)

  it("fails what is queued when it is closed", function()
    local dir <close> = scratch.dir()
    local handle = journal.open(dir:path("j"))
    local results = {}
    local writers = {}
    for i = 1, 300 do
      writers[i] = task.start(function()
        results[i] = { pcall(handle.put, handle, "k" .. i, "c", "x") }
      end)
    end
    task.yield()
    handle:close()
    for i = 1, 300 do writers[i]:join() end
    assert.is_true(results[1][1])
    assert.is_false(results[300][1])
    assert.matches("was closed", results[300][2].message)
    assert.error_matches(function() handle:put("a", "b", "c") end, "this journal is closed")
  end)
end)

describe("a journal that was cut or damaged", function()
  -- Ten records of different sizes, and where each of them ends.
  local function written(dir)
    local ends = {}
    local handle <close> = journal.open(dir:path("j"))
    for i = 1, 10 do
      handle:put("key" .. i, "claim", ("p"):rep(i * 7))
      ends[i] = handle:stats().file_bytes
    end
    return ends
  end

  it("loses the torn record and no other, wherever it is torn", function()
    local dir <close> = scratch.dir()
    local ends = written(dir)
    local whole = slurp(dir:path("j"))
    for size = 32, #whole do
      spew(dir:path("j"), whole:sub(1, size))
      local handle <close>, report = journal.open(dir:path("j"))
      local good, last = 0, 32
      while ends[good + 1] and ends[good + 1] <= size do
        good = good + 1
        last = ends[good]
      end
      assert.equal(good, report.records)
      assert.equal(size - last, report.cut)
      assert.equal(0, report.damaged)
      for i = 1, good do
        assert.equal(("p"):rep(i * 7), handle:get("key" .. i, "claim"))
      end
      handle:put("after", "claim", "x")
      assert.equal("x", handle:get("after", "claim"))
    end
  end)

  it("loses the damaged record and no other, whatever byte is damaged", function()
    local dir <close> = scratch.dir()
    local ends = written(dir)
    local whole = slurp(dir:path("j"))
    for at = 32, #whole - 1, 3 do
      spew(dir:path("j"), whole)
      overwrite(dir:path("j"), at, string.char(whole:byte(at + 1) ~ 0x40))
      local hit = 1
      while ends[hit] <= at do hit = hit + 1 end
      local handle <close>, report = journal.open(dir:path("j"))
      assert.equal(9, report.records)
      assert.is_nil(handle:get("key" .. hit, "claim"))
      assert.equal(hit < 10 and 1 or 0, report.damaged)
      for i = 1, 10 do
        if i ~= hit then assert.equal(("p"):rep(i * 7), handle:get("key" .. i, "claim")) end
      end
    end
  end)

  it("keeps the damaged file aside and writes a clean one", function()
    local dir <close> = scratch.dir()
    written(dir)
    overwrite(dir:path("j"), 40, "ruined")
    do
      local handle <close>, report = journal.open(dir:path("j"))
      assert.same({ 1, 32 }, { report.damaged, report.damaged_at })
      handle:put("later", "claim", "x")
      assert.equal(1, handle:stats().compactions)
    end
    local handle <close>, report = journal.open(dir:path("j"))
    assert.same({ 10, 0 }, { report.records, report.damaged })
    assert.equal("x", handle:get("later", "claim"))
    assert.matches("ruined", dir:read("j.damaged"))
  end)

  it("does not take a journal inside a payload for its own", function()
    local dir <close> = scratch.dir()
    written(dir)
    local inner = slurp(dir:path("j"))
    do
      local handle <close> = journal.open(dir:path("outer"))
      handle:put("a", "claim", inner)
      handle:put("b", "claim", "x")
    end
    overwrite(dir:path("outer"), 36, "bad!")
    local handle <close>, report = journal.open(dir:path("outer"))
    assert.same({ 1, 1 }, { report.records, report.damaged })
    assert.equal("x", handle:get("b", "claim"))
  end)

  it("raises for a payload that went bad on the disk", function()
    local dir <close> = scratch.dir()
    local handle <close> = journal.open(dir:path("j"))
    handle:put("a", "claim", "a payload of some length")
    overwrite(dir:path("j"), handle:stats().file_bytes - 4, "!!!!")
    assert.error_matches(function() handle:get("a", "claim") end, "at byte 32 is damaged")
  end)
end)

describe("compaction of a journal", function()
  it("bounds the file by what is live, and loses nothing written meanwhile", function()
    local dir <close> = scratch.dir()
    local path = dir:path("j")
    do
      local handle <close> = journal.open(path, { compact_bytes = 20000 })
      handle:put("old", "claim", "kept")
      local writers = {}
      for w = 1, 4 do
        writers[w] = function()
          for i = 1, 100 do
            handle:put("k" .. w, "claim", ("x"):rep(500) .. i)
            handle:put("gone" .. w, "claim", "y")
            if i % 10 == 0 then handle:drop("gone" .. w) end
          end
        end
      end
      task.all(writers)
      local stats = handle:stats()
      assert.is_true(stats.compactions >= 3, "compactions: " .. stats.compactions)
      assert.is_true(stats.file_bytes < 60000, "bytes: " .. stats.file_bytes)
    end
    local handle <close>, report = journal.open(path)
    assert.equal(0, report.damaged + report.cut)
    local expected = { ["old/claim"] = "kept" }
    for w = 1, 4 do expected["k" .. w .. "/claim"] = ("x"):rep(500) .. 100 end
    assert.same(expected, live(handle))
  end)

  it("keeps the order in which records were written", function()
    local dir <close> = scratch.dir()
    local handle <close> = journal.open(dir:path("j"), { compact_bytes = 1000 })
    for i = 1, 50 do handle:put("k" .. i, "claim", "x") end
    for i = 1, 45 do handle:drop("k" .. i) end
    handle:put("k46", "claim", "again")
    while handle:stats().compactions == 0 do task.sleep(0.001) end
    local keys = {}
    for _, record in ipairs(handle:list()) do keys[#keys + 1] = record.key end
    assert.same({ "k47", "k48", "k49", "k50", "k46" }, keys)
  end)

  it("makes room in a full journal, and says so when there is none to make", function()
    local dir <close> = scratch.dir()
    local options = { max_bytes = 20000, compact_bytes = 1 << 30 }
    local handle <close> = journal.open(dir:path("j"), options)
    for i = 1, 100 do handle:put("same", "claim", ("x"):rep(1000) .. i) end
    for i = 1, 17 do handle:put("k" .. i, "claim", ("x"):rep(1000)) end
    local ok, why = pcall(handle.put, handle, "much", "claim", ("x"):rep(3000))
    assert.is_false(ok)
    assert.equal("ENOSPC", why.name)
    assert.matches("is full: %d+ of 20000 bytes are live", why.message)
    handle:drop("k1")
    handle:drop("k2")
    handle:drop("k3")
    handle:put("much", "claim", ("x"):rep(3000))
    assert.equal(3000, #handle:get("much", "claim"))
  end)

  it("bounds the number of live records", function()
    local dir <close> = scratch.dir()
    local handle <close> = journal.open(dir:path("j"), { max_records = 3 })
    for i = 1, 3 do handle:put("k" .. i, "claim", "x") end
    assert.error_matches(function() handle:put("k4", "claim", "x") end, "is full: 3 live records")
    handle:put("k2", "claim", "replaced")
    handle:drop("k1")
    handle:put("k4", "claim", "x")
  end)
end)
