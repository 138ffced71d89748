-- kill -9 of a worker, for real: the binary under test as a child, with a job, and the axe.
local cgroup = require "worker.cgroup"
local process = require "worker.process"
local sys = require "worker.core.sys"
local task = require "worker.task"

local ENV = { PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" }
local WORKER = ("/proc/%d/exe"):format(sys.pid())

local function read(path)
  local file <close> = io.open(path)
  return file and file:read("a") or nil
end

local function alive(pid)
  local state = (read(("/proc/%d/status"):format(pid)) or ""):match("State:%s+(%a)")
  return state ~= nil and state ~= "Z" and state ~= "X"
end

local function within(seconds, check)
  for _ = 1, seconds * 100 do
    if check() then return true end
    task.sleep(0.01)
  end
  return check()
end

local function exists(path)
  local ok, _, code = os.rename(path, path)
  return ok or code == 16
end

local function sh(script)
  return process.run({ argv = { "sh", "-c", script }, env = ENV }).stdout
end

local function keeper_of(worker)
  local children = read(("/proc/%d/task/%d/children"):format(worker, worker)) or ""
  for pid in children:gmatch("%d+") do
    if read(("/proc/%s/comm"):format(pid)) == "keeper\n" then return math.tointeger(pid) end
  end
end

-- Its output goes to a file: the worker is killed, and nobody shall wait for the end of a pipe.
local function victim(mode, test)
  local dir = os.tmpname()
  os.remove(dir)
  local out = dir .. ".out"
  sh(("mkdir -p %s/a/b && echo x > %s/a/b/c && chmod 0 %s/a; touch %s.file"):format(dir, dir, dir, dir))
  -- A group of its own, or the tree of this spec would take what the keeper has to.
  local worker = process.spawn {
    argv = { "sh", "-c", ('exec %s spec spec/support/victim.lua > %s 2>&1'):format(WORKER, out) },
    env = process.env(ENV, {
      WORKER_CGROUP = mode, VICTIM_DIR = dir, WORKER_LUA = sys.env("WORKER_LUA") or false,
    }),
  }
  local ready = within(20, function() return (read(out) or ""):find("\nall set\n", 1, true) ~= nil end)
  local text = read(out)
  if not ready then
    worker:close()
    error("the victim is not ready: " .. tostring(text))
  end
  local jobs = {}
  for pid in text:gmatch("job (%d+)") do jobs[#jobs + 1] = math.tointeger(pid) end
  local group = text:match("group (/%S+)")
  local ok, why = pcall(test, {
    worker = worker, jobs = jobs, keeper = math.tointeger(text:match("keeper (%d+)")),
    group = group, dir = dir, out = out,
  })
  -- The keeper shall do its work before the end of the tree takes it too.
  worker:kill("KILL")
  local tidy = within(10, function() return not group or not exists(group) end)
  worker:close()
  sh(("chmod -R u+rwx %s 2>/dev/null; rm -rf %s %s %s.file"):format(dir, dir, out, dir))
  if not ok then error(why, 0) end
  assert.is_true(tidy)
end

local function all_dead(pids)
  return within(10, function()
    for _, pid in ipairs(pids) do
      if alive(pid) then return false end
    end
    return true
  end)
end

local function can(mode)
  local core = require "worker.core.cgroup"
  if mode == "none" then return true end
  local place = core.open(mode)
  if place then place:close() end
  return place ~= nil
end

describe("the keeper", function()
  for _, mode in ipairs { "v2", "v1", "none" } do
    local name = ("ends the jobs of a worker killed with -9, cgroup %s #realtime"):format(mode)
    if not can(mode) then
      pending(name .. " (not to be had here)")
    else
      it(name, function()
        victim(mode, function(it)
          assert.equal(3, #it.jobs)
          for _, pid in ipairs(it.jobs) do assert.is_true(alive(pid)) end
          assert.is_true(alive(it.keeper))
          it.worker:kill("KILL")
          assert.is_true(all_dead(it.jobs))
          assert.is_true(within(10, function() return not alive(it.keeper) end))
          assert.is_false(exists(it.dir))
          assert.is_false(exists(it.dir .. ".file"))
          if it.group then assert.is_false(exists(it.group)) end
        end)
      end)
    end
  end

  it("goes with a worker that ends by itself, and touches nothing #realtime", function()
    victim("auto", function(it)
      sh("touch " .. it.dir .. "/end")
      assert.equal(0, it.worker:wait().exit_code)
      assert.is_false(alive(it.keeper))
      assert.is_true(exists(it.dir))
      if it.group then assert.is_false(exists(it.group)) end
    end)
  end)

  it("is replaced when it is killed, and the next one knows everything #realtime", function()
    victim("auto", function(it)
      sh("kill -9 " .. it.keeper)
      local second
      assert.is_true(within(10, function()
        second = keeper_of(it.worker.pid)
        return second ~= nil and second ~= it.keeper
      end))
      it.worker:kill("KILL")
      assert.is_true(all_dead(it.jobs))
      assert.is_true(within(10, function() return not exists(it.dir) end))
    end)
  end)

  it("holds no file, no directory and no name of the worker's #realtime", function()
    victim("auto", function(it)
      assert.equal("/dev/null\n/dev/null\n/dev/null\n",
        sh(("for i in 0 1 2; do readlink /proc/%d/fd/$i; done"):format(it.keeper)))
      assert.equal("4\n", sh(("ls /proc/%d/fd | wc -l"):format(it.keeper)))
      assert.equal("/\n", sh(("readlink /proc/%d/cwd"):format(it.keeper)))
      assert.is_nil((read(("/proc/%d/cmdline"):format(it.keeper))):find("worker", 1, true))
      assert.is_nil((read(("/proc/%d/comm"):format(it.keeper))):find("worker", 1, true))
    end)
  end)

  it("is not started before there is something to keep", function()
    assert.is_nil(cgroup.keeper_pid())
  end)
end)
