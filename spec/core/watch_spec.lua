local fs = require "worker.fs"
local scratch = require "spec.support.scratch"
local sys = require "worker.core.sys"
local task = require "worker.task"
local watch = require "worker.core.watch"

describe("a watch", function()
  it("wakes when a file was written, moved in or linked", function()
    local dir <close> = scratch.dir()
    fs.mkdir(dir:path("inbox"))
    dir:write("outside", "x")
    local inbox <close> = watch.open(dir:path("inbox"))
    for _, act in ipairs {
      function() dir:write("inbox/a", "1") end,
      function() fs.rename(dir:path("outside"), dir:path("inbox/b")) end,
      function() fs.link(dir:path("inbox/a"), dir:path("inbox/c")) end,
      function() fs.mkdir(dir:path("inbox/d")) end,
    } do
      local actor = task.start(function() task.sleep(60) act() end)
      assert.equal("changed", inbox:wait())
      actor:join()
      inbox:wait(0)
    end
  end)

  it("does not miss what came while nobody waited", function()
    local dir <close> = scratch.dir()
    local handle <close> = watch.open(dir.root)
    dir:write("a", "1")
    dir:write("b", "2")
    assert.equal("changed", handle:wait(100))
    assert.is_nil(handle:wait(0))
  end)

  it("says nil when the time is up", function()
    local dir <close> = scratch.dir()
    local handle <close> = watch.open(dir.root)
    local before = sys.mono()
    assert.is_nil(handle:wait(3600))
    assert.is_true(sys.mono() - before >= 3600)
  end)

  it("says rescan when more has happened than the kernel notes", function()
    local dir <close> = scratch.dir()
    local handle <close> = watch.open(dir.root)
    local limit = tonumber(io.open("/proc/sys/fs/inotify/max_queued_events"):read("l"))
    if limit > 100000 then pending("max_queued_events is " .. limit) return end
    -- Two names in turn, so that no event equals the one before it.
    for _ = 1, limit // 2 + 10 do
      for _, name in ipairs { "a", "b" } do
        io.open(dir:path(name), "w"):close()
      end
    end
    assert.equal("rescan", handle:wait(100))
  end)

  it("says gone when the directory is removed", function()
    local dir <close> = scratch.dir()
    fs.mkdir(dir:path("inbox"))
    local handle <close> = watch.open(dir:path("inbox"))
    fs.rmdir(dir:path("inbox"))
    assert.equal("gone", handle:wait(100))
    assert.equal("gone", handle:wait(100))
  end)

  it("asks for a look now and then where there is no notice", function()
    local dir <close> = scratch.dir()
    local handle <close> = watch.open(dir.root, { polling = true, poll = 5 })
    assert.is_true(handle:polled())
    local before = sys.mono()
    assert.equal("rescan", handle:wait())
    assert.equal("rescan", handle:wait(100))
    assert.is_true(sys.mono() - before >= 10)
    assert.is_nil(handle:wait(1))
  end)

  it("is waited on by one task at a time, until it is closed or the task cancelled", function()
    local dir <close> = scratch.dir()
    local handle = watch.open(dir.root)
    local waiting = task.start(function() return handle:wait() end)
    task.yield()
    assert.error_matches(function() handle:wait() end, "another task waits on this watch")
    waiting:cancel("enough")
    assert.is_false((waiting:join()))
    waiting = task.start(function() return handle:wait() end)
    task.yield()
    handle:close()
    assert.same({ true, "gone" }, { waiting:join() })
    assert.error_matches(function() handle:wait() end, "this watch is closed")
  end)

  it("needs a directory", function()
    local dir <close> = scratch.dir()
    assert.error_matches(function() watch.open(dir:path("none")) end, "No such file or directory")
    assert.error_matches(function() watch.open(dir:write("file", "")) end, "not a directory")
  end)
end)
