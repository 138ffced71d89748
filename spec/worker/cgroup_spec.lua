local cgroup = require "worker.cgroup"
local core = require "worker.core.cgroup"
local err = require "worker.error"
local process = require "worker.process"

local ENV = { PATH = "/usr/bin:/bin" }
local MIB = 1024 * 1024

local function have(mode)
  local place = core.open(mode)
  if place then place:close() end
  return place ~= nil
end

describe("worker.cgroup", function()
  after_each(cgroup.close)

  if have("auto") then
    it("holds a job within limits and ends all of it", function()
      local group, missing = cgroup.create("7", { memory = 64 * MIB, pids = 100 })
      local child = process.spawn {
        argv = { "sh", "-c", "setsid sleep 1000 & exit 3" }, env = ENV, cgroup = group,
      }
      assert.equal(3, child:wait().exit_code)
      assert.is_true(group:populated())
      child:close()
      assert.is_false(group:populated())
      assert.is_false(cgroup.out_of_memory(group:usage()))
      group:close()
      for limit in pairs(missing) do
        assert.is_nil(cgroup.describe().can[limit])
      end
    end)

    it("gives a job no swap beyond its memory unless asked to", function()
      local group <close>, missing = cgroup.create("8", { memory = 64 * MIB })
      assert.is_nil(missing.swap)
      assert.is_true(group:path() ~= "")
    end)

    it("makes a new place when somebody has removed the one there was", function()
      cgroup.open()
      local before = cgroup.describe().path
      local removed = process.run { argv = { "rmdir", before }, env = ENV }
      if removed.exit_code ~= 0 then return end -- we live in it ourselves: nobody can
      local group <close> = cgroup.create("9")
      assert.not_equal(before, cgroup.describe().path)
      assert.is_true(group:path():find(cgroup.describe().path, 1, true) == 1)
    end)
  end

  it("makes no group where there is nothing, and names every limit that was asked for", function()
    cgroup.open("none")
    local group, missing = cgroup.create("7", { memory = 64 * MIB, pids = 100 })
    assert.is_nil(group)
    assert.same({ memory = true, pids = true }, missing)
    assert.same({}, cgroup.describe().can)
  end)

  it("starts the keeper with the first thing to keep, and ends it", function()
    assert.is_nil(cgroup.keeper_pid())
    cgroup.open("none")
    local pid = cgroup.keeper_pid()
    assert.is_true(pid > 1)
    local kept <close> = cgroup.keep("dir", "/tmp/worker-no-such-directory")
    assert.equal(pid, cgroup.keeper_pid())
    kept:close()
    cgroup.close()
    assert.is_nil(io.open(("/proc/%d/stat"):format(pid)))
  end)

  it("refuses a mode it does not know", function()
    local ok, why = pcall(cgroup.open, "v3")
    assert.is_false(ok)
    assert.is_true(err.is(why, "config"))
    assert.matches("expected auto, v2, v1 or none", why.message)
  end)
end)
