-- A worker at work on a directory: real jobs, real signals, real kill -9.
local fs = require "worker.fs"
local json = require "worker.json"
local process = require "worker.process"
local program = require "spec.support.program"
local sites = require "spec.support.site"
local sys = require "worker.core.sys"
local task = require "worker.task"

local JOBS = 1000

describe("worker run #realtime", function()
  local site

  before_each(function() site = sites.new() end)
  after_each(function() getmetatable(site).__close(site) end)

  -- Jobs that write down that they ran: one line each, appended as a whole.
  local function drop_many(n, script)
    for i = 1, n do
      site:drop(("job-%d.sh"):format(i), script or ("echo $WORKER_JOB_ID >> %s"):format(site.dir:path "ran"))
    end
  end

  local function counts_of_ran()
    local counts, lines = {}, 0
    for id in (site.dir:read "ran" or ""):gmatch("[^\n]+") do
      counts[id] = (counts[id] or 0) + 1
      lines = lines + 1
    end
    return counts, lines
  end

  local function states()
    local list = {}
    for _, id in ipairs(site:list "done") do
      local state = json.decode(site:read("done", id, "result.json")).state
      list[state] = (list[state] or 0) + 1
    end
    return list
  end

  local function nothing_is_left()
    assert.same({}, site:list "inbox")
    assert.same({}, site:list "running")
    assert.same({}, fs.list(site.work))
  end

  it("runs 1,000 jobs dropped at once, each exactly once", function()
    drop_many(JOBS)
    local run = site:once { "--slots", "8" }
    assert.equal(0, run.code, run.stderr)
    local counts, lines = counts_of_ran()
    assert.equal(JOBS, lines)
    for i = 1, JOBS do assert.equal(1, counts["job-" .. i]) end
    assert.same({ success = JOBS }, states())
    assert.is_true(run.memory < 32 << 10 or program.binary:find("/asan/", 1, true) ~= nil)
    nothing_is_left()
  end)

  -- The limits of open files are those of a login shell, and of what gives less than a job may have.
  local function under(limits, slots, seconds)
    drop_many(slots, ("sleep %g"):format(seconds))
    return site:once { "--slots", tostring(slots), wrap = { "sh", "-c", limits .. '; exec "$0" "$@"' } }
  end

  it("has files for all its slots, whatever the usual limit is", function()
    if tonumber(process.run({ argv = { "sh", "-c", "ulimit -Hn" } }).stdout) < 4096 then
      return pending "more than 4096 open files may not be had here"
    end
    local run = under("ulimit -Sn 256", 60, 2)
    assert.equal(0, run.code, run.stderr)
    assert.same({ success = 60 }, states())
    assert.is_nil(run.stderr:find("few_files", 1, true))
  end)

  it("works with fewer slots where there are files for fewer, and says so", function()
    local run = under("ulimit -n 100", 8, 0.01)
    assert.equal(0, run.code, run.stderr)
    assert.same({ success = 8 }, states())
    assert.matches("8 slots need 160 open files, this worker may have 100: it works with 3 of them", run.stderr, 1, true)
  end)

  it("does not begin where there are files for none", function()
    local run = under("ulimit -n 50", 1, 0)
    assert.equal(71, run.code, run.stderr)
    assert.matches("this worker may have 50 open files and needs 64 at least", run.stderr, 1, true)
  end)

  it("shares 1,000 jobs with two other workers, each exactly once", function()
    drop_many(JOBS)
    local runs = {}
    for i = 1, 3 do
      runs[i] = site:start { "--slots", "8", "--once", "--state", site.dir:path("state" .. i) }
    end
    local worked = 0
    for i = 1, 3 do
      local result = runs[i]:wait()
      assert.equal(0, result.code, result.stderr)
      if result.stderr:find("%d+ success") then worked = worked + 1 end
      getmetatable(runs[i]).__close(runs[i])
    end
    assert.is_true(worked >= 2) -- one that starts late may find nothing left
    local _, lines = counts_of_ran()
    assert.equal(JOBS, lines)
    assert.same({ success = JOBS }, states())
    nothing_is_left()
  end)

  it("loses no job and runs none twice when one of three workers is killed in the middle", function()
    drop_many(JOBS, ("echo $WORKER_JOB_ID >> %s; sleep 0.01"):format(site.dir:path "ran"))
    -- not closed before the end: that would end its keeper, too, which has to clean up
    local victim <close> = site:start { "--slots", "8", "--state", site.dir:path "state1" }
    local others = {
      site:start { "--slots", "8", "--state", site.dir:path "state2" },
      site:start { "--slots", "8", "--state", site.dir:path "state3" },
    }
    program.eventually(function() return #(site:list "done" or {}) > 100 end)
    victim:signal "KILL"
    for _, run in ipairs(others) do
      program.eventually(function() return #(site:list "inbox") == 0 end)
      run:signal "TERM"
      assert.equal(0, run:wait().code)
      getmetatable(run).__close(run)
    end
    -- The next worker takes over what the dead one left.
    local last = site:once { "--slots", "8" }
    assert.equal(0, last.code, last.stderr)
    local counts = counts_of_ran()
    for id, n in pairs(counts) do assert.equal(1, n, id) end
    local by_state = states()
    assert.equal(JOBS, (by_state.success or 0) + (by_state.error or 0))
    assert.is_true((by_state.error or 0) <= 8)
    -- The keeper of the dead one works beside us.
    program.eventually(function() return #fs.list(site.work) == 0 end)
    nothing_is_left()
  end)

  it("keeps signals of its process group from jobs that are just being started", function()
    drop_many(200)
    local run = site:start { "--slots", "2" }
    run:says "worker%.started"
    -- To a job USR2 would be the end; to the worker it is a question.
    while #(site:list "inbox") > 0 do
      process.run { env = {}, argv = { "/bin/sh", "-c", ("kill -s USR2 -- -$0; "):rep(20), tostring(run:pid()) } }
    end
    run:signal "TERM"
    assert.equal(0, run:wait().code)
    getmetatable(run).__close(run)
    assert.same({ success = 200 }, states())
  end)

  it("reports a job that its death interrupted as an error and does not run it again", function()
    local tag = program.tag()
    site:drop("long.sh", ("echo x >> %s; sleep %s"):format(site.dir:path "ran", tag))
    site:drop("waiting.sh", "echo fine")
    local run <close> = site:start {}
    site:mark "ran"
    run:signal "KILL"
    run:wait()
    program.eventually(function() return #program.of_tag(tag) == 0 end)
    assert.equal(0, site:once().code)
    local result = site:result "long"
    assert.equal("error", result.state)
    assert.matches("interrupted", result.reason)
    assert.equal("x\n", site.dir:read "ran")
    assert.equal("success", site:result("waiting").state)
    nothing_is_left()
  end)

  it("finishes what runs and takes nothing more after TERM; then ends with 0", function()
    site:drop("a.sh", ("touch %s; sleep 0.4; echo done"):format(site.dir:path "up"))
    local run <close> = site:start {}
    site:mark "up"
    site:drop("b.sh", "true")
    run:signal "TERM"
    assert.equal(0, run:wait().code)
    assert.equal("success", site:result("a").state)
    assert.same({ "b.sh" }, site:list "inbox")
  end)

  it("cancels what still runs when the time to stop is over, and ends with 80", function()
    local tag = program.tag()
    site:drop("a.sh", ("touch %s; sleep %s"):format(site.dir:path "up", tag))
    local run <close> = site:start { "--shutdown-timeout", "300ms" }
    site:mark "up"
    run:signal "TERM"
    local result = run:wait()
    assert.equal(80, result.code, result.stderr)
    assert.equal("cancelled", site:result("a").state)
    assert.same({}, program.of_tag(tag))
    nothing_is_left()
  end)

  it("cancels at once at the second TERM", function()
    local tag = program.tag()
    site:drop("a.sh", ("touch %s; sleep %s"):format(site.dir:path "up", tag))
    local run <close> = site:start {}
    site:mark "up"
    run:signal "TERM"
    run:says "server%.draining"
    run:signal "INT"
    assert.equal(80, run:wait().code)
    assert.equal("cancelled", site:result("a").state)
    assert.same({}, program.of_tag(tag))
  end)

  it("takes the TERM of timeout(1), for the process and for its group, as one", function()
    for i = 1, 5 do
      site:drop(i .. ".sh", ("touch %s; sleep 1.2"):format(site.dir:path("up" .. i)))
      local run <close> = site:start { wrap = { "timeout", "0.8" }, "--state", site.dir:path("state" .. i) }
      site:mark("up" .. i)
      assert.equal(124, run:wait().code)
      assert.equal("success", site:result(i .. "").state)
    end
  end)

  it("leaves at once at the third, and nothing of its jobs stays", function()
    local tag = program.tag()
    site:drop("a.sh", ("trap '' TERM; touch %s; while :; do sleep %s; done"):format(site.dir:path "up", tag))
    local run <close> = site:start {}
    site:mark "up"
    run:signal "TERM"
    run:says "server%.draining"
    task.sleep(0.02)
    run:signal "TERM"
    run:says "worker%.stopping"
    task.sleep(0.02)
    run:signal "TERM"
    assert.equal(80, run:wait().code)
    program.eventually(function() return #program.of_tag(tag) == 0 end)
  end)

  it("cancels at QUIT", function()
    local tag = program.tag()
    site:drop("a.sh", ("touch %s; sleep %s"):format(site.dir:path "up", tag))
    local run <close> = site:start {}
    site:mark "up"
    run:signal "QUIT"
    assert.equal(80, run:wait().code)
    assert.equal("cancelled", site:result("a").state)
  end)

  it("lets jobs run as long as they like after USR1", function()
    site:drop("a.sh", ("touch %s; sleep 0.6; echo done"):format(site.dir:path "up"))
    local run <close> = site:start { "--shutdown-timeout", "100ms" }
    site:mark "up"
    run:signal "USR1"
    assert.equal(0, run:wait().code)
    assert.equal("success", site:result("a").state)
  end)

  it("lives through HUP and PIPE", function()
    local run <close> = site:start {}
    run:says "worker%.started"
    site:drop("before.sh", "true")
    site:result "before"
    run:signal "HUP"
    run:signal "PIPE"
    site:drop("a.sh", "true")
    assert.equal("success", site:result("a").state)
    run:signal "TERM"
    assert.equal(0, run:wait().code)
  end)

  it("takes no job when none could have a directory, and says why", function()
    site:drop("a.sh", "true")
    local run = site:once { "--workspace", "/proc/no/such/place" }
    assert.equal(74, run.code, run.stderr)
    assert.matches("jobs could have no directory: making directory /proc/no", run.stderr, 1, true)
    assert.same({ "a.sh" }, site:list "inbox")
  end)

  it("works for a user whose home is missing, from a place that is that user's own", function()
    if sys.uid() ~= 0 then return pending "only root becomes somebody else" end
    local place = "/tmp/worker-60017"
    local function as_stranger()
      return process.run { user = "60017", group = "60017", env = { PATH = "/usr/bin:/bin", HOME = "/nonexistent" },
        argv = { site.dir:path "worker", "run", "--protocol", "local", "--dir", site.root, "--once", program.plugins } }
    end
    site:drop("a.sh", "pwd")
    fs.chown(site.root, 60017, -1)
    fs.chown(site:path "inbox", 60017, -1)
    fs.write(site.dir:path "worker", (fs.read(program.binary, 1 << 28)), { mode = 493 }) -- 0755
    fs.chmod(site.dir.root, 493)
    fs.remove_tree(place)
    local run = as_stranger()
    assert.equal(0, run.exit_code, run.stderr)
    assert.matches(place .. "/work/", site:read("done", "a", "stdout.log"), 1, true)
    assert.equal(60017, fs.stat(place).uid)
    fs.chown(place, 60018, -1)
    run = as_stranger()
    assert.equal(78, run.exit_code, run.stderr)
    assert.matches(place .. " is not a directory of ours: say with --state", run.stderr, 1, true)
    fs.remove_tree(place)
  end)

  it("ends with 77 when the server refuses it, and with 82 when a twin has its state", function()
    site.dir:write("p/protocols/closed.lua", [[
      local err = require "worker.error"
      return { kind = "protocol", name = "closed", api = 1, claim = function() end,
        open = function() err.raise("http", "401 from the server", { status = 401 }) end }]])
    site.dir:write("p/protocols/busy.lua", [[
      local task = require "worker.task"
      return { kind = "protocol", name = "busy", api = 1, open = function() end,
        claim = function() task.sleep(1) end }]])
    local refused = program.run { "run", "--protocol", "closed", "--state", site.dir:path "s1", site.dir:path "p" }
    assert.equal(77, refused.code)
    assert.matches("401 from the server", refused.stderr)
    local twin = { "run", "--protocol", "busy", "--state", site.dir:path "s2", site.dir:path "p" }
    local first <close> = program.start(twin)
    program.eventually(function() return fs.exists(site.dir:path("s2", "journal")) end)
    task.sleep(0.1)
    local second = program.run(twin)
    assert.equal(82, second.code, second.stderr)
    assert.matches("another worker", second.stderr)
    assert.matches("%-%-state", second.stderr)
    first:signal "KILL"
    first:wait()
  end)

  it("makes no wake-ups while it is idle", function()
    local run <close> = site:start {}
    site:drop("first.sh", "true")
    site:result "first"
    local function switches()
      return tonumber(fs.read(("/proc/%d/status"):format(run:pid())):match("voluntary_ctxt_switches:%s*(%d+)"))
    end
    task.sleep(0.3)
    local before = switches()
    task.sleep(1)
    assert.is_true(switches() - before <= 5, ("%d wake-ups"):format(switches() - before))
    run:signal "TERM"
    assert.equal(0, run:wait().code)
  end)
end)
