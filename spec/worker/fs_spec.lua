local fs = require "worker.fs"
local scratch = require "spec.support.scratch"
local task = require "worker.task"

describe("worker.fs", function()
  it("tries out whether a directory can be worked in", function()
    local dir <close> = scratch.dir()
    fs.workplace(dir:path("a/b"), 448)
    assert.same({}, fs.list(dir:path "a/b"))
    assert.equal(448, fs.stat(dir:path "a/b").mode & 511)
    assert.is_false(pcall(fs.workplace, "/proc/self/no"))
    assert.is_false(pcall(fs.workplace, "/proc/self", 448))
  end)

  it("does what its reference shows", function()
    local dir <close> = scratch.dir()
    local inbox = dir:path("inbox")
    fs.mkdir(inbox, { parents = true })
    local watch <close> = fs.watch(inbox)
    task.start(function()
      task.sleep(5)
      fs.write(fs.join(inbox, "job.json"), "{}")
    end)
    assert.equal("changed", watch:wait(60))

    local claimed = {}
    for _, name in ipairs(fs.list(inbox, { type = "file" })) do
      local taken = fs.join(dir.root, "running-" .. name)
      if fs.move(fs.join(inbox, name), taken) then claimed[#claimed + 1] = fs.read(taken) end
    end
    assert.same({ "{}" }, claimed)
  end)

  it("joins, cuts and cleans paths as text", function()
    assert.equal("/a/b/c", fs.join("/a/", "b", nil, "", "/c/"))
    assert.equal("/", fs.join("/"))
    assert.equal("", fs.join())
    assert.equal("a", fs.join("", "a"))

    assert.same({ "b.txt", "b", "/", "", "a" },
      { fs.base("/a/b.txt"), fs.base("/a/b/"), fs.base("/"), fs.base(""), fs.base("a") })
    assert.same({ "/a", "/", ".", ".", "/", "a" },
      { fs.dir("/a/b.txt"), fs.dir("/a"), fs.dir("a"), fs.dir(""), fs.dir("/"), fs.dir("a//b/") })

    for path, clean in pairs {
      ["/a/./b//../c/"] = "/a/c", ["/../.."] = "/", ["../a/../.."] = "../..",
      ["a/.."] = ".", [""] = ".", ["./a"] = "a", ["/a/..b"] = "/a/..b",
    } do
      assert.equal(clean, fs.clean(path))
    end
  end)

  it("tells whether a path is within another", function()
    for path, root in pairs {
      ["/a/b"] = "/a", ["/a"] = "/a/", ["/a/../a/c"] = "/a", ["x/y"] = ".", ["/"] = "/",
    } do
      assert.is_true(fs.is_within(path, root), path)
    end
    for path, root in pairs {
      ["/ab"] = "/a", ["/a/../b"] = "/a", ["../x"] = ".", ["a"] = "/a", ["/x"] = ".",
    } do
      assert.is_false(fs.is_within(path, root), path)
    end
  end)

  it("moves without replacing and renames with", function()
    local dir <close> = scratch.dir()
    local a, b = dir:write("a", "1"), dir:write("b", "2")
    local moved, why = fs.move(a, b)
    assert.same({ nil, "EEXIST" }, { moved, why.name })
    assert.is_true(fs.rename(a, b))
    assert.equal("1", fs.read(b))
    assert.same({ false, true }, { fs.exists(a), fs.exists(b) })
  end)

  it("makes directories one at a time or with their parents", function()
    local dir <close> = scratch.dir()
    assert.equal("ENOENT", select(2, fs.mkdir(dir:path("a/b"))).name)
    assert.is_true(fs.mkdir(dir:path("a/b"), { parents = true, mode = 448 }))
    assert.is_true(fs.mkdir(dir:path("a/b"), { parents = true }))
    assert.equal("EEXIST", select(2, fs.mkdir(dir:path("a"))).name)
    assert.equal("ENOTEMPTY", select(2, fs.rmdir(dir:path("a"))).name)
    assert.equal(2, fs.remove_tree(dir:path("a")))
  end)

  it("gives away with all that is in it, and nothing that a link leads to", function()
    local dir <close> = scratch.dir()
    fs.mkdir(dir:path("a/b"), { parents = true })
    fs.write(dir:path("a/b/.file"), "x")
    fs.write(dir:path("other"), "x")
    fs.symlink(dir:path("other"), dir:path("a/link"))
    local me = fs.stat(dir.root).uid
    local him = me == 0 and 65534 or me
    fs.give(dir:path("a"), him)
    for _, name in ipairs { "a", "a/b", "a/b/.file", "a/link" } do
      assert.equal(him, fs.lstat(dir:path(name)).uid, name)
    end
    assert.equal(me, fs.stat(dir:path("other")).uid)
  end)

  it("lists sorted names, and says when there are more", function()
    local dir <close> = scratch.dir()
    for _, name in ipairs { "c", "a", "b" } do dir:write(name, "") end
    assert.same({ "a", "b", "c" }, (fs.list(dir.root)))
    assert.is_true(select(2, fs.list(dir.root, { most = 2 })))
    assert.equal("ENOENT", select(2, fs.list(dir:path("none"))).name)
  end)

  it("lets one hold a lock", function()
    local dir <close> = scratch.dir()
    local lock = assert(fs.lock(dir:path("l")))
    assert.equal("EBUSY", select(2, fs.lock(dir:path("l"))).name)
    lock:close()
    local again <close> = assert(fs.lock(dir:path("l")))
    assert.is_truthy(again)
  end)

  it("knows the free space of a file system", function()
    local free = fs.disk_free("/")
    assert.is_true(free.bytes_free > 0 and free.bytes_free <= free.bytes_total)
    assert.is_true(free.inodes_free <= free.inodes_total)
    fs.sync_dir("/tmp")
  end)
end)
