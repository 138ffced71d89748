local archive = require "worker.archive"
local fs = require "worker.fs"
local process = require "worker.process"
local scratch = require "spec.support.scratch"
local task = require "worker.task"

-- A tar file written by hand, so that it can say anything: a list of { name=, type=, link=, text= }.
local function field(value, width) return value .. ("\0"):rep(width - #value) end

local function octal(number, width) return ("%0" .. (width - 1) .. "o\0"):format(number) end

local function header(entry)
  local size = entry.size or #(entry.text or "")
  local head = field(entry.name, 100) .. octal(entry.mode or 420, 8) .. octal(0, 8) .. octal(0, 8)
    .. octal(size, 12) .. octal(1000000000, 12) .. (" "):rep(8) .. (entry.type or "0") .. field(entry.link or "", 100)
    .. "ustar\00000" .. ("\0"):rep(80) .. ("\0"):rep(155) .. ("\0"):rep(12)
  local sum = 0
  for i = 1, #head do sum = sum + head:byte(i) end
  return head:sub(1, 148) .. ("%06o\0 "):format(sum) .. head:sub(157)
end

local function tar(entries)
  local parts = {}
  for _, entry in ipairs(entries) do
    local text = entry.text or ""
    parts[#parts + 1] = header(entry) .. text .. ("\0"):rep(-#text % 512)
  end
  return table.concat(parts) .. ("\0"):rep(1024)
end

describe("worker.archive", function()
  local dir, target

  before_each(function()
    dir = scratch.dir()
    target = dir:path("inside", "target")
    fs.mkdir(target, { parents = true })
  end)
  after_each(function() getmetatable(dir).__close(dir) end)

  local function unpack(entries, options)
    return archive.unpack(dir:write("a.tar", tar(entries)), target, options)
  end

  -- Refused with this reason, and nothing was written beside the target.
  local function refuses(reason, entries, options)
    local before = #fs.list(dir:path())
    local ok, why = task.try(unpack, entries, options)
    assert.is_false(ok)
    assert.equal("file", why.kind)
    assert.matches(reason, why.message)
    assert.same({ "target" }, fs.list(dir:path "inside"))
    assert.is_true(#fs.list(dir:path()) <= before + 1)
  end

  it("unpacks what tar has packed, with its modes and links", function()
    dir:write("src/bin/run.sh", "#!/bin/sh\necho hi\n")
    fs.chmod(dir:path "src/bin/run.sh", 493)
    dir:write("src/" .. ("long/"):rep(30) .. "name.txt", "deep")
    fs.symlink("bin/run.sh", dir:path "src/link")
    process.run { argv = { "/bin/tar", "-C", dir:path "src", "-czf", dir:path "a.tar.gz", "." },
      env = { PATH = "/usr/bin:/bin" } }
    archive.unpack(dir:path "a.tar.gz", target)
    assert.equal("deep", dir:read("inside/target/" .. ("long/"):rep(30) .. "name.txt"))
    assert.equal(493, fs.stat(fs.join(target, "bin/run.sh")).mode & 511)
    assert.equal("bin/run.sh", fs.readlink(fs.join(target, "link")))
  end)

  it("packs the files of a directory, and unpacks them again", function()
    dir:write("src/a/one", "1")
    dir:write("src/state.json", "{}")
    dir:write("secret", "not this")
    fs.symlink("../secret", dir:path "src/out")
    assert.equal(3, archive.pack(dir:path "b.tar.gz", dir:path "src"))
    assert.equal(2, archive.unpack(dir:path "b.tar.gz", target))
    assert.equal("1", dir:read "inside/target/a/one")
    assert.is_false(fs.exists(fs.join(target, "out")))
  end)

  it("packs no more than it may, and leaves nothing then", function()
    dir:write("src/big", ("x"):rep(2000))
    local ok, why = task.try(archive.pack, dir:path "b.tar.gz", dir:path "src", { bytes = 1000 })
    assert.is_false(ok)
    assert.matches("more than the allowed 1000 bytes", why.message)
    assert.is_false(fs.exists(dir:path "b.tar.gz"))
  end)

  it("refuses names that lead upwards or begin at the root", function()
    refuses("leads upwards", { { name = "../out", text = "x" } })
    refuses("leads upwards", { { name = "a/../../out", text = "x" } })
    refuses("absolute name", { { name = dir:path "out", text = "x" } })
  end)

  it("refuses symbolic links that lead out", function()
    for _, link in ipairs { "/etc", "..", "../..", "a/../../..", "" } do
      refuses("leads out", { { name = "l", type = "2", link = link } })
    end
    refuses("leads out", { { name = "d/", type = "5" }, { name = "d/l", type = "2", link = "../../x" } })
  end)

  it("refuses a link that would step out through another link", function()
    refuses("leads out", { { name = "here", type = "2", link = "." },
      { name = "out", type = "2", link = "here/here/../.." } })
  end)

  it("writes through no link, not even one that stays inside", function()
    refuses("no directory", { { name = "d/", type = "5" }, { name = "l", type = "2", link = "d" },
      { name = "l/x", text = "x" } })
  end)

  it("replaces a link by a file of the same name", function()
    unpack { { name = "real", text = "real" }, { name = "l", type = "2", link = "real" }, { name = "l", text = "new" } }
    assert.equal("real", dir:read "inside/target/real")
    assert.equal("new", dir:read "inside/target/l")
  end)

  it("refuses hard links to what the archive did not bring", function()
    dir:write("victim", "precious")
    refuses("absolute name", { { name = "h", type = "1", link = dir:path "victim" } })
    refuses("leads upwards", { { name = "h", type = "1", link = "../../victim" } })
    refuses("second name of no file", { { name = "h", type = "1", link = "nothing" } })
    refuses("second name of no file", { { name = "s", type = "2", link = "x" }, { name = "h", type = "1", link = "s" } })
  end)

  it("makes hard links inside", function()
    unpack { { name = "a", text = "same" }, { name = "b/c", type = "1", link = "a" } }
    assert.equal("same", dir:read "inside/target/b/c")
    assert.equal(fs.stat(fs.join(target, "a")).inode, fs.stat(fs.join(target, "b/c")).inode)
  end)

  it("refuses devices and pipes", function()
    for _, kind in ipairs { "3", "4", "6" } do
      refuses("no file, directory or link", { { name = "x", type = kind } })
    end
  end)

  it("takes no set-user-id bits over", function()
    unpack { { name = "x", text = "x", mode = 2541 } }
    assert.equal(493, fs.stat(fs.join(target, "x")).mode & 4095)
  end)

  it("bounds bytes and entries", function()
    refuses("more than the allowed 99 bytes", { { name = "a", text = ("x"):rep(100) } }, { bytes = 99 })
    refuses("more than the allowed 1 entries", { { name = "a" }, { name = "b" } }, { entries = 1 })
  end)

  it("refuses what is cut off, empty or no archive", function()
    dir:write("src/a", ("x"):rep(100000))
    archive.pack(dir:path "b.tar.gz", dir:path "src")
    local whole = dir:read "b.tar.gz"
    for _, text in ipairs { whole:sub(1, #whole - 20), "", "no archive", tar({ { name = "a", size = 5000 } }):sub(1, 700) } do
      local ok, why = task.try(archive.unpack, dir:write("c", text), target)
      assert.is_false(ok)
      assert.matches("cannot be read", why.message)
    end
  end)

  it("tells the files below a directory, without links", function()
    dir:write("src/b/c", "123")
    dir:write("src/a", "")
    fs.symlink("a", dir:path "src/l")
    assert.same({ { name = "a", size = 0 }, { name = "b/c", size = 3 } }, archive.files(dir:path "src"))
  end)
end)

describe("worker.archive's cache", function()
  local dir, cache, fetched

  before_each(function()
    dir, fetched = scratch.dir(), 0
    cache = archive.cache(dir:path "cache", { keep = 1 })
  end)
  after_each(function() getmetatable(dir).__close(dir) end)

  local function fetch(content)
    return function(path)
      fetched = fetched + 1
      task.sleep(1)
      fs.write(path, tar { { name = "file", text = content } })
    end
  end

  it("fetches once for all who ask at the same time", function()
    local paths = task.all { table.unpack((function()
      local list = {}
      for i = 1, 5 do
        list[i] = function()
          local held <close> = cache:hold("ws", "r1", fetch "one")
          task.sleep(5)
          return fs.read(fs.join(held.path, "file"))
        end
      end
      return list
    end)()) }
    assert.same({ "one", "one", "one", "one", "one" }, paths)
    assert.equal(1, fetched)
  end)

  it("removes what is not used, never what is", function()
    local first <close> = cache:hold("ws", "r1", fetch "one")
    for i = 2, 4 do cache:hold("ws", "r" .. i, fetch "x"):close() end
    assert.equal(2, cache:prune "ws")
    assert.equal("one", fs.read(fs.join(first.path, "file")))
    first:close()
  end)

  it("leaves nothing of an archive that was refused, and tries again", function()
    local function bad(path) fs.write(path, tar { { name = "../x", text = "x" } }) end
    assert.is_false((task.try(cache.hold, cache, "ws", "r1", bad)))
    assert.same({ "r1.lock" }, fs.list(dir:path "cache/ws"))
    local held <close> = cache:hold("ws", "r1", fetch "good")
    assert.equal("good", fs.read(fs.join(held.path, "file")))
  end)

  it("removes what a crash has left half done", function()
    cache:hold("ws", "r1", fetch "one"):close()
    fs.mkdir(dir:path "cache/ws/r2.new-abc")
    cache:prune "ws"
    assert.is_false(fs.exists(dir:path "cache/ws/r2.new-abc"))
    assert.is_true(fs.exists(dir:path "cache/ws/r1"))
  end)

  it("keeps a name from a server inside its folder", function()
    local held <close> = cache:hold("../..", "/etc/../x", fetch "one")
    assert.is_true(fs.is_within(held.path, dir:path "cache"))
    assert.equal(2, select(2, held.path:sub(#dir:path "cache" + 1):gsub("/", "")))
  end)
end)
