-- `worker callback` as PID 1, as in a container without an init: it reaps what is nobody else's child,
-- and signals reach it although nothing is delivered to a PID 1 that did not ask for it.
local fs = require "worker.fs"
local process = require "worker.process"
local program = require "spec.support.program"
local scratch = require "spec.support.scratch"
local server = require "spec.support.server"

local UNSHARE = { "unshare", "--pid", "--fork", "--mount-proc", "--kill-child" }
local ORPHANS = 100

local function can_unshare()
  local argv = table.move(UNSHARE, 1, #UNSHARE, 1, {})
  argv[#argv + 1] = "true"
  local ok, result = pcall(process.run, { argv = argv, env = { PATH = "/usr/sbin:/usr/bin:/sbin:/bin" } })
  return ok and result.code == 0
end

describe("worker callback as PID 1 #realtime", function()
  local dir, fake, able

  before_each(function()
    able = able == nil and can_unshare() or able
    dir = scratch.dir()
  end)
  after_each(function() getmetatable(dir).__close(dir) end)

  local function start(script, more)
    local words = { "callback", cwd = dir.root, wrap = UNSHARE, env = {
      WORKER_STATE = dir:path "state", WORKER_WORKSPACE = dir:path "work",
      WORKER_CONFIG = dir:write("worker.yaml", ("plugins: [ %s ]\n"):format(program.plugins)),
      TASK_ID = "t-1", PROJECT_ID = "p-1", CALLBACK_URL = fake.url .. "/cb" } }
    table.move(more or {}, 1, #(more or {}), #words + 1, words)
    table.move({ "--", "sh", "-c", script }, 1, 4, #words + 1, words)
    return program.start(words)
  end

  -- The worker itself, seen from outside: the child of unshare.
  local function worker_of(one)
    return program.eventually(function()
      local list = fs.read(("/proc/%d/task/%d/children"):format(one:pid(), one:pid()))
      local pid = list and tonumber(list:match("%d+"))
      return pid and (fs.read(("/proc/%d/cmdline"):format(pid)) or ""):find("callback", 1, true) and pid
    end)
  end

  local function signal(one, name)
    process.run { argv = { "kill", "-" .. name, tostring(worker_of(one)) }, env = { PATH = "/usr/bin:/bin" } }
  end

  -- The tree of the task is gone when its end is told: that is looked at while the worker still lives.
  local function watching(tag)
    local seen = {}
    fake = server.http({ ["POST /cb/completed"] = function(_, reply)
      seen.left = #program.of_tag("sleep\0" .. tag)
      reply:empty(200)
    end }, { any = server.status(200) })
    return seen
  end

  local ORPHAN_LOOP = ("i=0; while [ $i -lt %d ]; do (setsid sleep %%s &); i=$((i+1)); done; "):format(ORPHANS)

  it("reaps 100 orphans that end while the task runs", function()
    if not able then return pending "this machine gives no PID namespace" end
    watching "none"
    local one <close> = start(ORPHAN_LOOP:format("0.1")
      .. "sleep 1; cat /proc/1/comm; grep -l '^State:.Z' /proc/[0-9]*/status | wc -l")
    assert.equal(0, one:wait().code)
    assert.equal("worker\n0\n", fake:last().json.stdout)
  end)

  it("leaves none of 100 orphans when the task ends", function()
    if not able then return pending "this machine gives no PID namespace" end
    local tag = program.tag()
    local seen = watching(tag)
    local one <close> = start(ORPHAN_LOOP:format(tag) .. "exit 7")
    assert.equal(0, one:wait().code)
    assert.equal(7, fake:last().json.exit_code)
    assert.equal(0, seen.left)
  end)

  for _, name in ipairs { "TERM", "INT" } do
    it(("ends a task with 100 orphans when it gets SIG%s, and tells that"):format(name), function()
      if not able then return pending "this machine gives no PID namespace" end
      local tag = program.tag()
      local seen = watching(tag)
      local one <close> = start(ORPHAN_LOOP:format(tag) .. ("trap '' TERM; sleep %s; sleep %s"):format(tag, tag),
        { "--grace", "1s" })
      program.eventually(function() return #program.of_tag("sleep\0" .. tag) == ORPHANS + 1 end)
      signal(one, name)
      assert.equal(80, one:wait().code)
      assert.equal("terminated", fake:last().json.reason)
      assert.equal(0, seen.left)
    end)
  end
end)
