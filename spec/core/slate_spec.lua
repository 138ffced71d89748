-- A directory that one job after the other uses: that nothing which was done to it goes unseen, at
-- whatever moment it was done.
local fs = require "worker.fs"
local names = require "worker.core.fs"
local scratch = require "spec.support.scratch"
local sys = require "worker.core.sys"
local task = require "worker.task"

local TICKS = 0.03 -- seconds: the kernel's clock for files has gone on

local function sh(command, ...)
  return os.execute(command:format(...) .. " 2>/dev/null")
end

-- What is true of one in memory has to be true of one on the disk.
local places = { [""] = "on the disk" }
if sh "test -w /dev/shm" then places["/dev/shm/"] = "in memory" end

for root, where in pairs(places) do
  describe("a slate " .. where, function()
    local dir, path, mark

    before_each(function()
      dir = scratch.dir()
      path = root == "" and dir:path "slate" or fs.temp_dir(root .. "worker-slate-")
      if root == "" then fs.mkdir(path, { mode = 448 }) end
      mark = names.mark(path)
    end)

    after_each(function()
      sh("chattr -i %s; umount %s", path, path)
      fs.remove_tree(path)
      getmetatable(dir).__close(dir)
    end)

    local function found()
      local word
      word, mark = names.found(path, mark)
      return word
    end

    -- Examined once, and from then on known by its time.
    local function settle()
      task.sleep(TICKS)
      for _ = 1, 3 do assert.equal("same", found()) end
    end

    local function put(name) fs.write(fs.join(path, name), "") end

    it("that nobody touches stays the same #realtime", function()
      for _ = 1, 100 do assert.equal("same", found()) end
      settle()
    end)

    it("shows a file that was made in the moment it was made itself", function()
      put "x"
      assert.equal("full", found())
    end)

    it("shows what was done in the moment it was last examined", function()
      for i = 1, 2000 do
        assert.equal("same", found())
        put "x"
        assert.equal("full", found(), i)
        fs.remove(fs.join(path, "x"))
      end
    end)

    it("shows what was done in any moment after that #realtime", function()
      for i = 1, 300 do
        fs.chmod(path, 493)
        assert.equal("same", found())
        -- Nearly a tick, or just more than one, after its own last change.
        local until_then = sys.mono() + i % 12 * 0.0005
        while sys.mono() < until_then do assert.equal("same", found()) end
        put "x"
        assert.equal("full", found(), i)
        fs.remove(fs.join(path, "x"))
      end
    end)

    it("shows what came and went, and a time that was set back #realtime", function()
      settle()
      put "x"
      fs.remove(fs.join(path, "x"))
      assert(sh("touch -d '2001-01-01' %s", path))
      assert.equal("same", found())
      put ".x"
      assert(sh("touch -d '2001-01-01' %s", path))
      assert.equal("full", found())
    end)

    it("is given its permissions back #realtime", function()
      settle()
      fs.chmod(path, 511)
      assert.equal("same", found())
      assert.equal(448, fs.stat(path).mode & 4095)
      settle()
      fs.chmod(path, 0)
      fs.chmod(path, 448)
      assert.equal("same", found())
    end)

    it("that is another directory, or none, is not the same #realtime", function()
      settle()
      fs.rename(path, path .. ".old")
      assert.equal("other", found())
      fs.mkdir(path, { mode = 448 })
      assert.equal("other", found())
      fs.remove_tree(path)
      fs.symlink(path .. ".old", path)
      assert.equal("other", found())
      fs.remove(path)
      fs.rename(path .. ".old", path)
      assert.equal("same", found())
    end)

    it("that has an attribute is not the same #realtime", function()
      settle()
      if not sh("python3 -c 'import os; os.setxattr(\"%s\", \"user.x\", b\"1\")'", path) then
        return pending "no attributes here"
      end
      assert.equal("other", found())
    end)

    it("that may not be changed is not the same #realtime", function()
      settle()
      if not sh("chattr +i %s", path) then return pending "no flags here" end
      assert.equal("other", found())
      assert(sh("chattr -i %s", path))
      assert.equal("same", found())
    end)

    it("that has a mount on it is not the same, be it itself #realtime", function()
      settle()
      if not sh("mount --bind %s %s", path, path) then return pending "nothing can be mounted here" end
      assert.equal("other", found())
      assert(sh("umount %s && mount -t tmpfs none %s", path, path))
      assert.equal("other", found())
      assert(sh("umount %s", path))
      assert.equal("same", found())
    end)
  end)
end
