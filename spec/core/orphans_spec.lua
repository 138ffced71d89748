-- What a job leaves behind where there are no control groups: adopted, reaped, and ended.
local orphans = require "worker.core.orphans"
local process = require "worker.process"
local task = require "worker.task"

local ENV = { PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" }

local function spawn(script)
  return process.spawn { argv = { "sh", "-c", script }, env = ENV }
end

-- Not by a child of ours: that would be one more process in what is looked at.
local function state_of(pid)
  local file <close> = io.open(("/proc/%d/status"):format(pid))
  return file and (file:read("a") or ""):match("State:%s+(%a)") or nil
end

local function alive(pid)
  local state = state_of(pid)
  return state ~= nil and state ~= "Z" and state ~= "X"
end

local function parent_of(pid)
  local file <close> = assert(io.open(("/proc/%d/status"):format(pid)))
  return math.tointeger(file:read("a"):match("PPid:%s+(%d+)"))
end

local function numbers(child, count)
  local text, list = "", {}
  for _, piece in child:output() do
    text = text .. piece
    if select(2, text:gsub("\n", "")) >= count then break end
  end
  for number in text:gmatch("%d+") do list[#list + 1] = math.tointeger(number) end
  return list
end

local function within(seconds, check)
  for _ = 1, seconds * 100 do
    if check() then return true end
    task.sleep(0.01)
  end
  return check()
end

describe("the reaper of orphans", function()
  it("adopts what a job leaves behind and reaps it #realtime", function()
    orphans.reap()
    local before = orphans.counts()
    local child <close> = spawn("(sh -c 'echo $$; exec sleep 0.1' &) & wait")
    local pid = numbers(child, 1)[1]
    assert.is_true(within(5, function() return not state_of(pid) end))
    assert.is_true(orphans.counts() > before)
  end)

  it("leaves the exit status of our own children alone, among many orphans #realtime", function()
    orphans.reap()
    for code = 1, 20 do
      local child <close> = spawn(("(sleep 0 &) & (true &) & exit %d"):format(code))
      assert.equal(code, child:wait().exit_code)
    end
  end)

  it("reaps an orphan that lies behind a zombie of ours #realtime", function()
    local first <close> = spawn("exit 7") -- stays a zombie until it is closed
    assert.equal(7, first:wait().exit_code)
    assert.equal("Z", state_of(first.pid))
    local second <close> = spawn("(sh -c 'echo $$; exec true' &) & wait")
    local pid = numbers(second, 1)[1]
    assert.is_true(within(5, function() return not state_of(pid) end))
    assert.equal("Z", state_of(first.pid))
  end)

  -- The keeper is one of ours, too, once a job had a control group.
  it("owns a child of ours until it is closed", function()
    local _, before = orphans.counts()
    local child = spawn("true")
    child:wait()
    assert.equal(before + 1, (select(2, orphans.counts())))
    child:close()
    assert.equal(before, (select(2, orphans.counts())))
  end)
end)

describe("a job's tree without a control group", function()
  local function ended(script, count)
    local child = spawn(script)
    local pids = numbers(child, count)
    assert.equal(count, #pids)
    for _, pid in ipairs(pids) do assert.is_true(alive(pid)) end
    child:close()
    for _, pid in ipairs(pids) do assert.is_false(alive(pid)) end
  end

  it("is killed with all its children, deaf ones too #realtime", function()
    ended("trap '' TERM; echo $$; sleep 1000 & echo $!; wait", 2)
  end)

  it("is killed with those in sessions of their own #realtime", function()
    ended("setsid sh -c 'echo $$; exec sleep 1000' & wait", 1)
  end)

  it("is killed with daemons: two forks and a session of their own #realtime", function()
    ended("(setsid sh -c 'echo $$; exec sleep 1000' &) & wait; sleep 1000", 1)
  end)

  it("is killed with daemons whose parents have long gone #realtime", function()
    local child = spawn("(setsid sh -c 'echo $$; exec sleep 1000' &) & exit 0")
    local pid = numbers(child, 1)[1]
    child:wait()
    assert.is_true(within(5, function() return parent_of(pid) ~= child.pid end))
    child:close()
    assert.is_false(alive(pid))
  end)

  it("is killed with what emptied its environment #realtime", function()
    ended("env -i /bin/sh -c '(/bin/sh -c \"echo \\$\\$; exec sleep 1000\" &) &' & wait; sleep 1000", 1)
  end)

  it("is killed with what left session, parents and environment, when no other job runs #realtime",
    function()
      ended("(setsid env -i /bin/sh -c 'echo $$; exec sleep 1000' &) & wait; sleep 1000", 1)
    end)

  it("leaves the tree of another job alone #realtime", function()
    local other <close> = spawn("setsid sh -c 'echo $$; exec sleep 1000' & wait")
    local theirs = numbers(other, 1)[1]
    ended("setsid sh -c 'echo $$; exec sleep 1000' & wait", 1)
    assert.is_true(alive(theirs))
  end)

  it("is counted and signalled as a whole #realtime", function()
    local child <close> = spawn("setsid sleep 1000 & setsid sleep 1000 & echo 1; wait")
    numbers(child, 1)
    local tree <close> = orphans.tree(child.pid)
    assert.is_true(within(5, function() return tree:signal(0) == 3 end))
    assert.equal(3, tree:signal(15))
    assert.is_true(within(5, function() return tree:signal(0) == 0 end))
    tree:kill()
  end)

  it("has a tag no other job has", function()
    local one, two, all = orphans.tag(), orphans.tag(), orphans.tag_all()
    assert.not_equal(one, two)
    assert.equal(all, one:sub(1, #all))
    assert.equal(all, two:sub(1, #all))
    assert.matches("^WORKER_JOB_TAG=%x+%.%d+%.$", one)
  end)
end)
