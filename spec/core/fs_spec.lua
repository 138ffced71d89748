local disk = require "worker.core.disk"
local file = require "worker.core.file"
local fs = require "worker.fs"
local names = require "worker.core.fs"
local scratch = require "spec.support.scratch"
local sys = require "worker.core.sys"
local task = require "worker.task"

local function sh(command, ...)
  assert(os.execute(command:format(...)), command)
end

local function as_root(reason)
  if sys.uid() == 0 then return true end
  pending("needs root: " .. reason)
  return false
end

describe("reading and writing files", function()
  it("replaces a file as a whole and leaves nothing beside it", function()
    local dir <close> = scratch.dir()
    dir:write("f", "old")
    disk.write(dir:path("f"), ("new"):rep(100000))
    disk.write(dir:path("g"), "synced", { sync = true, mode = 384 })
    assert.equal(300000, #dir:read("f"))
    assert.equal("synced", dir:read("g"))
    assert.equal(384, names.stat(dir:path("g")).mode)
    assert.same({ "f", "g" }, fs.list(dir.root))
  end)

  it("leaves the old file when the new one cannot be written", function()
    local dir <close> = scratch.dir()
    fs.mkdir(dir:path("taken"))
    dir:write("taken/x", "")
    for _, sync in ipairs { false, true } do
      local ok, why = pcall(disk.write, dir:path("taken"), "x", { sync = sync })
      assert.is_false(ok)
      assert.equal("file", why.kind)
    end
    assert.error_matches(function() disk.write(dir:path("no", "where"), "x") end, "No such file")
    assert.same({ "taken" }, fs.list(dir.root))
  end)

  it("reads up to a bound", function()
    local dir <close> = scratch.dir()
    dir:write("f", ("x"):rep(1000))
    assert.equal(1000, #file.read(dir:path("f"), 1000))
    local ok, why = pcall(file.read, dir:path("f"), 999)
    assert.same({ false, "limit" }, { ok, why.kind })
    assert.equal("", file.read(dir:write("empty", ""), 0))
    local none, absent = file.read(dir:path("none"), 10)
    assert.same({ nil, "ENOENT" }, { none, absent.name })
    assert.matches("^Linux version", file.read("/proc/version", 10000))
  end)

  it("refuses pipes, devices and directories without waiting for them", function()
    local dir <close> = scratch.dir()
    sh("mkfifo '%s'", dir:path("pipe"))
    assert.error_matches(function() file.read(dir:path("pipe"), 10) end, "it is a fifo, not a file")
    assert.error_matches(function() file.open(dir.root) end, "it is a dir, not a file")
    assert.error_matches(function() file.open("/dev/zero", "r") end, "it is a char, not a file")
  end)

  it("appends, syncs and tells the size of an open file", function()
    local dir <close> = scratch.dir()
    for i = 1, 2 do
      local log <close> = file.open(dir:path("log"), "a")
      log:write(("x"):rep(i))
      log:sync()
      assert.equal(i == 1 and 1 or 3, log:size())
    end
    local log = file.open(dir:path("log"), "r")
    assert.same({ "xx", "x" }, { log:read(2), log:read(2) })
    assert.is_nil(log:read(2))
    log:close()
    assert.error_matches(function() log:read(1) end, "this file is closed")
    assert.equal("worker.file (closed)", tostring(log))
  end)

  it("copies a file of any size with its permissions", function()
    local dir <close> = scratch.dir()
    sh("head -c 20000000 /dev/urandom > '%s'; chmod 711 '%s'", dir:path("from"), dir:path("from"))
    assert.equal(20000000, disk.copy(dir:path("from"), dir:path("to")))
    sh("cmp '%s' '%s'", dir:path("from"), dir:path("to"))
    assert.equal(457, names.stat(dir:path("to")).mode) -- 0711
    assert.is_true(disk.copy("/proc/version", dir:path("version"), { sync = true }) > 10)
    assert.error_matches(function() disk.copy(dir:path("none"), dir:path("x")) end, "No such file")
    assert.same({ "from", "to", "version" }, fs.list(dir.root))
  end)

  it("leaves nothing of a copy that is cancelled", function()
    local dir <close> = scratch.dir()
    sh("truncate -s 400M '%s'", dir:path("from"))
    local copying = task.start(disk.copy, dir:path("from"), dir:path("to"))
    task.yield()
    copying:cancel("enough")
    assert.is_false((copying:join()))
    while sys.live()["loop.outside"] ~= 0 do task.sleep(0.01) end
    assert.same({ "from" }, fs.list(dir.root))
  end)
end)

describe("opening beneath a directory", function()
  for _, walk in ipairs { false, true } do
    it("stays there, whatever the path says" .. (walk and " (old kernels)" or ""), function()
      local dir <close> = scratch.dir()
      dir:write("secret", "s")
      dir:write("job/sub/f", "x")
      sh("cd '%s/job' && ln -s ../secret up && ln -s sub/f down && ln -s sub across", dir.root)
      local root = dir:path("job")
      local function content(path)
        local opened <close> = assert(file.open_beneath(root, path, "r", nil, walk))
        return opened:read(10)
      end
      assert.equal("x", content("sub/f"))
      assert.equal("x", content("./sub//f"))
      for _, path in ipairs { "../secret", "/etc/passwd", "sub/../../secret" } do
        assert.error_matches(function() content(path) end, "leads out of")
      end
      for _, path in ipairs { "up", "down", "across/f" } do
        assert.is_false((pcall(content, path)))
      end
      assert.same({ nil, "ENOENT" }, { (function()
        local none, why = file.open_beneath(root, "sub/none", "r", nil, walk)
        return none, why.name
      end)() })
      do
        local made <close> = file.open_beneath(root, "sub/new", "w", 416, walk)
        made:write("n")
      end
      assert.equal("n", dir:read("job/sub/new"))
      assert.is_false((pcall(file.open_beneath, root, "up", "w", nil, walk)))
      assert.equal("s", dir:read("secret"))
    end)
  end
end)

describe("names and directories", function()
  it("answer nil where something is absent or there already", function()
    local dir <close> = scratch.dir()
    local function answer(fn, ...)
      local result, why = fn(...)
      return result or why.name
    end
    local a, b, none = dir:write("a", ""), dir:write("b", ""), dir:path("none")
    assert.equal("ENOENT", answer(names.rename, none, b))
    assert.equal("EEXIST", answer(names.rename, a, b, true))
    assert.equal("EEXIST", answer(names.link, a, b))
    assert.equal("ENOENT", answer(names.unlink, none))
    assert.equal("EEXIST", answer(names.mkdir, a))
    assert.equal("ENOTEMPTY", answer(names.rmdir, dir.root))
    assert.equal("ENOENT", answer(names.stat, none))
    assert.equal("ENOENT", answer(names.list, none, 10))
    assert.equal("ENOENT", answer(names.readlink, none))
    assert.equal("ENOENT", answer(names.realpath, none))
    assert.is_true(names.rename(a, b))
    assert.is_true(names.unlink(b))
    assert.same({}, fs.list(dir.root))
  end)

  it("make a path of directories, and say what is in the way", function()
    local dir <close> = scratch.dir()
    names.mkdirs(dir:path("a//b/c/"))
    names.mkdirs(dir:path("a/b/c"))
    assert.equal("dir", names.stat(dir:path("a/b/c")).type)
    dir:write("a/f", "")
    assert.error_matches(function() names.mkdirs(dir:path("a/f/g")) end, "Not a directory")
    assert.error_matches(function() names.mkdirs("") end, "without a name")
  end)

  it("list a bounded number of names, of one type when asked", function()
    local dir <close> = scratch.dir()
    for i = 1, 20 do dir:write("f" .. i, "") end
    fs.mkdir(dir:path("d"))
    names.symlink("nowhere", dir:path("l"))
    local list, more = names.list(dir.root, 5)
    assert.same({ 5, true }, { #list, more })
    list, more = names.list(dir.root, 22)
    assert.same({ 22, false }, { #list, more })
    assert.same({ "d" }, (names.list(dir.root, 10, "dir")))
    assert.same({ "l" }, (names.list(dir.root, 10, "link")))
    assert.equal(20, #names.list(dir.root, 100, "file"))
  end)

  it("tell what there is, following a link or not", function()
    local dir <close> = scratch.dir()
    local path = dir:write("f", "12345")
    names.chmod(path, 416)
    names.symlink("f", dir:path("l"))
    local there, link = names.stat(dir:path("l")), names.stat(dir:path("l"), true)
    assert.same({ "file", 5, 416 }, { there.type, there.size, there.mode })
    assert.equal("link", link.type)
    assert.equal("f", names.readlink(dir:path("l")))
    assert.equal(names.realpath(path), names.realpath(dir:path("l")))
    assert.is_true(names.space(dir.root).bytes_total > names.space(dir.root).bytes_free)
    local private = names.temp_dir(dir:path("t-"))
    assert.equal(448, names.stat(private).mode)
  end)

  it("give a link away and not its target", function()
    if not as_root("chown") then return end
    local dir <close> = scratch.dir()
    local path = dir:write("f", "")
    names.symlink("f", dir:path("l"))
    names.chown(dir:path("l"), 1234, -1)
    assert.same({ 0, 1234 }, { names.stat(path).uid, names.stat(dir:path("l"), true).uid })
  end)
end)

describe("a lock", function()
  it("is held by one handle at a time, shared by several readers", function()
    local dir <close> = scratch.dir()
    do
      local _ <close> = assert(file.lock(dir:path("l")))
      local none, why = file.lock(dir:path("l"))
      assert.same({ nil, "EBUSY" }, { none, why.name })
      assert.equal("EBUSY", select(2, file.lock(dir:path("l"), true)).name)
    end
    local one <close> = assert(file.lock(dir:path("l"), true))
    local two <close> = assert(file.lock(dir:path("l"), true))
    assert.is_nil((file.lock(dir:path("l"))))
    assert.equal("worker.lock (open)", tostring(one))
    assert.is_truthy(two)
  end)
end)

describe("removing a tree", function()
  it("removes everything and follows nothing", function()
    local dir <close> = scratch.dir()
    dir:write("kept/f", "x")
    dir:write("tree/a/b/c", "x")
    sh("cd '%s/tree' && ln -s ../kept link && ln -s ../../kept a/link && mkfifo a/pipe && " ..
      "touch \"$(printf 'new\\nline')\" ./-rf && ln -s /etc/passwd p", dir.root)
    assert.equal(10, disk.remove_tree(dir:path("tree")))
    assert.same({ "kept" }, fs.list(dir.root))
    assert.equal("x", dir:read("kept/f"))
    assert.equal(0, disk.remove_tree(dir:path("none")))
    names.symlink("kept", dir:path("link"))
    disk.remove_tree(dir:path("link"))
    assert.same({ "kept" }, fs.list(dir.root))
  end)

  it("removes an empty directory at once", function()
    local dir <close> = scratch.dir()
    dir:write("tree/a", "x")
    names.unlink(dir:path("tree/a"))
    local turns = sys.turns()
    assert.equal(1, disk.remove_tree(dir:path("tree")))
    assert.equal(turns, sys.turns())
    assert.same({}, fs.list(dir.root))
  end)

  it("can leave the directory itself", function()
    local dir <close> = scratch.dir()
    dir:write("tree/a/b", "x")
    disk.remove_tree(dir:path("tree"), true)
    assert.same({}, fs.list(dir:path("tree")))
  end)

  it("manages what is nested deeper than any path", function()
    local dir <close> = scratch.dir()
    sh("cd '%s' && perl -e 'mkdir q(tree); chdir q(tree); for (1..1000) " ..
      "{ mkdir q(dddddddddd); chdir q(dddddddddd); open F, q(>f) or die }'", dir.root)
    assert.equal(2001, disk.remove_tree(dir:path("tree")))
    assert.same({}, fs.list(dir.root))
  end)

  it("manages many entries while other tasks go on", function()
    local dir <close> = scratch.dir()
    sh("mkdir '%s/tree' && cd '%s/tree' && seq 5000 | xargs touch", dir.root, dir.root)
    local turns, removing = 0, task.start(disk.remove_tree, dir:path("tree"))
    while removing:state() ~= "dead" do
      turns = turns + 1
      task.sleep(0.001)
    end
    assert.same({ true, 5001 }, { removing:join() })
    assert.is_true(turns > 2, "turns: " .. turns)
  end)

  it("insists where permissions and flags are against it", function()
    local dir <close> = scratch.dir()
    dir:write("tree/a/b/f", "x")
    dir:write("tree/im/f", "x")
    sh("cd '%s/tree' && chmod 0 a/b/f a/b a && (chattr +i im/f im 2>/dev/null; true)", dir.root)
    disk.remove_tree(dir:path("tree"))
    assert.same({}, fs.list(dir.root))
  end)

  it("does not enter what is mounted, says so, and removes the rest", function()
    if not as_root("mount") then return end
    local dir <close> = scratch.dir()
    dir:write("kept/f", "x")
    fs.mkdir(dir:path("tree/a/mnt"), { parents = true })
    dir:write("tree/b/f", "x")
    local mount = "mount --bind '%s' '%s' 2>/dev/null"
    if not os.execute(mount:format(dir:path("kept"), dir:path("tree/a/mnt"))) then
      pending("mount is not allowed here")
      return
    end
    local ok, why = pcall(disk.remove_tree, dir:path("tree"))
    sh("umount '%s'", dir:path("tree/a/mnt"))
    assert.is_false(ok)
    assert.matches("removing .*/tree/.../mnt: ", why.message)
    assert.equal("x", dir:read("kept/f"))
    assert.same({ "a" }, fs.list(dir:path("tree")))
  end)

  it("gives up on a directory that is filled faster than it is emptied", function()
    local dir <close> = scratch.dir()
    fs.mkdir(dir:path("tree"))
    sh("(while :; do : > '%s/tree/'$$ || exit; mkdir '%s/tree/d' 2>/dev/null; done) " ..
      "2>/dev/null & echo $! > '%s'", dir.root, dir.root, dir:path("pid"))
    pcall(disk.remove_tree, dir:path("tree"))
    sh("kill -9 $(cat '%s') 2>/dev/null; sleep 0.05", dir:path("pid"))
    disk.remove_tree(dir:path("tree"))
    assert.same({ "pid" }, fs.list(dir.root))
  end)

  it("stops when it is cancelled", function()
    local dir <close> = scratch.dir()
    sh("mkdir '%s/tree' && cd '%s/tree' && seq 5000 | xargs touch", dir.root, dir.root)
    local removing = task.start(disk.remove_tree, dir:path("tree"))
    task.yield()
    removing:cancel("enough")
    assert.is_false((removing:join()))
    assert.equal("cancelled", select(2, removing:join()).kind)
  end)
end)
