-- `worker exec` with jobs that misbehave in every way a shell allows: the right result each time,
-- nothing left running, and little memory.
local json = require "worker.json"
local program = require "spec.support.program"
local scratch = require "spec.support.scratch"
local sys = require "worker.core.sys"

local MEMORY_MOST = 20 * 1024 -- KiB; the sanitizers need more, see memory_is_small
local SANITIZED = program.binary:find("/asan/", 1, true)

describe("worker exec #realtime", function()
  local dir

  before_each(function() dir = scratch.dir() end)
  after_each(function() getmetatable(dir).__close(dir) end)

  local function start(options)
    table.insert(options, 1, "exec")
    options.env = options.env or {}
    options.env.TMPDIR = dir.root
    return program.start(options)
  end

  local function exec(options)
    local run <close> = start(options)
    return run:wait()
  end

  local function script(text, more)
    local options = more or {}
    options[#options + 1] = "--script"
    options[#options + 1] = text
    return exec(options)
  end

  local function memory_is_small(result)
    assert.is_true(result.memory > 0)
    if not SANITIZED then
      assert.is_true(result.memory < MEMORY_MOST, ("the worker took %d KiB"):format(result.memory))
    end
  end

  -- The job's processes, and its folder.
  local function nothing_is_left(tag)
    if tag then assert.same({}, program.of_tag(tag)) end
    assert.same({}, require("worker.fs").list(dir.root))
  end

  it("ends with the exit code of the job", function()
    assert.equal(0, script("true").code)
    local result = script("exit 3")
    assert.equal(3, result.code)
    assert.equal("", result.stderr)
    nothing_is_left()
  end)

  it("runs a command with its arguments as they are", function()
    local result = exec { "--", "printf", "%s|", "a b", "", "$HOME" }
    assert.equal("a b||$HOME|", result.stdout)
    assert.equal(0, result.code)
  end)

  it("says 128+N for a job that a signal ended", function()
    assert.equal(137, script("kill -9 $$").code)
    assert.equal(143, script("kill -TERM $$").code)
    assert.equal(134, script("kill -ABRT $$").code)
  end)

  it("says 127 for a program that is not there and 126 for one that cannot be run", function()
    local result = exec { "--", "no-such-program-here" }
    assert.equal(127, result.code)
    assert.matches("no%-such%-program%-here", result.stderr)
    assert.equal(126, exec { "--", dir:write("plain", "text") }.code)
  end)

  it("does not wait for a background child that holds stdout open", function()
    local tag = program.tag()
    local result = script(("sleep %s & echo hi"):format(tag))
    assert.equal(0, result.code)
    assert.equal("hi\n", result.stdout)
    assert.matches("left behind", result.stderr)
    nothing_is_left(tag)
  end)

  it("ends what setsid hides from it", function()
    local tag = program.tag()
    local result = script(("setsid sleep %s & wait"):format(tag), { "--timeout", "1s", "--grace", "1s" })
    assert.equal(124, result.code)
    assert.matches("timeout", result.stderr)
    nothing_is_left(tag)
  end)

  it("ends a daemon that forked twice and closed everything", function()
    local tag = program.tag()
    local result = script(("(setsid sh -c 'sleep %s & exit' </dev/null >/dev/null 2>&1 &); exit 0"):format(tag))
    assert.equal(0, result.code)
    nothing_is_left(tag)
  end)

  it("ends 200 children when the time is up", function()
    local tag = program.tag()
    local result = script(("i=0; while [ $i -lt 200 ]; do sleep %s & i=$((i+1)); done; wait"):format(tag),
      { "--timeout", "1s" })
    assert.equal(124, result.code)
    nothing_is_left(tag)
  end)

  it("ends a job that ignores TERM with KILL after the grace", function()
    local tag = program.tag()
    local result = script(("trap '' TERM; while :; do sleep %s; done"):format(tag),
      { "--timeout", "200ms", "--grace", "300ms" })
    assert.equal(124, result.code)
    nothing_is_left(tag)
  end)

  it("passes output of any size on, in little memory", function()
    local size = sys.env "WORKER_SPEC_FULL" and 1 << 30 or 128 << 20
    local result = script(("head -c %d /dev/zero"):format(size), { count_only = true })
    assert.equal(0, result.code)
    assert.equal(size, result.bytes.stdout)
    memory_is_small(result)
  end)

  it("passes one line of 64 MiB on, in little memory", function()
    local result = script("head -c 67108864 /dev/zero | tr '\\0' x; echo", { count_only = true })
    assert.equal(0, result.code)
    assert.equal(67108865, result.bytes.stdout)
    assert.matches("xxx\n$", result.stdout)
    memory_is_small(result)
  end)

  it("passes any bytes on", function()
    assert.equal("\255\254\0", script([[printf '\377\376\000']]).stdout)
  end)

  it("keeps stdout and stderr apart", function()
    local result = script("echo out; echo err >&2")
    assert.equal("out\n", result.stdout)
    assert.equal("err\n", result.stderr)
  end)

  it("runs a script of 300 KiB", function()
    local path = dir:write("big.sh.json", json.encode { script = "# " .. ("x"):rep(300 << 10) .. "\necho done; exit 4\n" })
    local result = exec { "--job", path }
    assert.equal("done\n", result.stdout)
    assert.equal(4, result.code)
  end)

  it("refuses a script with a NUL byte instead of cutting it", function()
    local path = dir:write("nul.json", [[{"script": "echo a\u0000b"}]])
    local result = exec { "--job", path }
    assert.equal("", result.stdout)
    assert.is_true(result.code ~= 0)
    assert.matches("NUL byte", result.stderr)
  end)

  it("gives the job nothing of its own environment", function()
    local result = exec { "--", "env", env = { NOTIFY_SOCKET = "/run/x", WORKER_TOKEN = "t0ps3cret",
      SECRET_OF_MINE = "hidden", LISTEN_FDS = "3", WORKER_LOG_LEVEL = "warn" } }
    assert.is_nil(result.stdout:find("NOTIFY_SOCKET", 1, true))
    assert.is_nil(result.stdout:find("t0ps3cret", 1, true))
    assert.is_nil(result.stdout:find("SECRET_OF_MINE", 1, true))
    assert.is_nil(result.stdout:find("LISTEN_FDS", 1, true))
    assert.matches("WORKER_JOB_ID=exec%-", result.stdout)
  end)

  it("gives the job no file descriptor but its three", function()
    local result = exec { "--", "ls", "/proc/self/fd" } -- 3 is the directory that ls itself reads
    assert.equal("0\n1\n2\n3\n", result.stdout)
  end)

  it("gives the job none of those that the worker was started with", function()
    local result = exec { "--", "ls", "/proc/self/fd",
      wrap = { "sh", "-c", [[exec "$0" "$@" 3</dev/null 5</dev/null 9</dev/null]] } }
    assert.equal("0\n1\n2\n3\n", result.stdout)
  end)

  it("gives the job the signals as they are by default", function()
    local result = exec { "--", "grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status" }
    assert.matches("SigBlk:%s*0000000000000000", result.stdout)
    assert.matches("SigIgn:%s*0000000000000000", result.stdout)
  end)

  it("masks a secret that arrives in pieces", function()
    local result = exec { "--secret", "TOKEN", "--env", "TOKEN=hunter2-hunter2", "--script",
      "printf hunter2-; sleep 0.1; echo hunter2; printf %s $TOKEN | base64 >&2" }
    assert.equal("***\n", result.stdout)
    assert.is_nil(result.stderr:find("aHVudGVyMi1odW50ZXIy", 1, true))
  end)

  it("tells the result as JSON when asked to", function()
    local value = json.decode(script("echo hi; exit 3", { "--json" }).stdout)
    assert.equal("failed", value.state)
    assert.equal(3, value.exit_code)
    assert.equal("hi\n", value.stdout)
    assert.is_true(value.usage.peak_memory > 0)
  end)

  for name, code in pairs { TERM = 143, INT = 130, HUP = 129, QUIT = 131 } do
    it("ends the job when it gets SIG" .. name, function()
      local tag = program.tag()
      local run <close> = start { "--script", ("echo up >&2; sleep %s"):format(tag) }
      run:says "up"
      run:signal(name)
      assert.equal(code, run:wait().code)
      nothing_is_left(tag)
    end)
  end

  it("leaves no process of the job when it is killed itself", function()
    local tag = program.tag()
    local run <close> = start { "--script", ("setsid sleep %s & echo up >&2; sleep %s"):format(tag, tag) }
    run:says "up"
    run:signal "KILL"
    program.eventually(function() return #program.of_tag(tag) == 0 end)
  end)

  it("names memory as the reason when the job needs too much", function()
    local result = script("head -c 300M /dev/zero | tail -c 290M", { "--memory", "32MiB", "--json" })
    local value = json.decode(result.stdout)
    if value.state == "failed" then return pending "there is no control group for memory here" end
    assert.equal("oom", value.state)
    assert.matches("memory", value.reason)
  end)

  it("says that its output finds no room, and ends what it ran", function()
    local tag = program.tag()
    local result = program.run { "exec", "--script", ("echo hi; sleep %s"):format(tag), env = { TMPDIR = dir.root },
      wrap = { "sh", "-c", '"$@" > /dev/full', "sh" } }
    assert.equal(74, result.code)
    assert.matches("writing output: No space left on device", result.stderr)
    nothing_is_left(tag)
  end)

  it("ends when nobody reads its output any more", function()
    local tag = program.tag()
    local result = program.run { "exec", "--script", ("yes %s"):format(tag), env = { TMPDIR = dir.root },
      wrap = { "sh", "-c", '"$@" | head -n 1', "sh" } }
    assert.equal(tag .. "\n", result.stdout)
    nothing_is_left(tag)
  end)

  it("tells what is wrong with a job file, or with its limits, and runs nothing", function()
    dir:write("job.yaml", "script: touch ran\nlimits: { memroy: 1GiB, pids: 0 }\n")
    local result = program.run { "exec", "--job", dir:path "job.yaml", cwd = dir.root }
    assert.equal(65, result.code, result.stderr)
    assert.matches('job%.yaml:2:11: limits%.memroy: unknown key; did you mean "memory"%?', result.stderr)
    assert.matches("job%.yaml:2:%d+: limits%.pids: expected at least 1, got 0", result.stderr)
    result = program.run { "exec", "--pids", "0", "--", "touch", "ran", cwd = dir.root }
    assert.equal(64, result.code)
    assert.matches("%-%-pids: expected at least 1, got 0", result.stderr)
    assert.is_nil(dir:read "ran")
  end)
end)
