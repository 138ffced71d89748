local cgroup = require "worker.core.cgroup"
local err = require "worker.error"
local process = require "worker.process"
local sys = require "worker.core.sys"
local task = require "worker.task"

local ENV = { PATH = "/usr/local/bin:/usr/bin:/bin" }

local function sh(script, options)
  options = process.env({ env = ENV }, options)
  options.argv = { "/bin/sh", "-c", script }
  return process.spawn(options)
end

local function read(child)
  local text = { stdout = "", stderr = "" }
  for stream, piece in child:output() do text[stream] = text[stream] .. piece end
  return text
end

local function state_of(pid)
  local file <close> = io.open("/proc/" .. pid .. "/stat")
  return (file and file:read "a" or ""):match("%) (%a)")
end

-- A process that is only waited for no longer counts.
local function alive(pid)
  local state = state_of(pid)
  return state ~= nil and state ~= "Z" and state ~= "X"
end

local function wait_until(what)
  for _ = 1, 1000 do
    if what() then return true end
    task.sleep(0.01)
  end
end

-- Processes that sleep for that odd number of seconds: every test has its own.
local function sleepers(mark)
  local pattern = tostring(mark):gsub("^.", "[%0]") -- grep is not to find itself
  local files = process.run {
    argv = { "sh", "-c", 'grep -lsxz "$0" /proc/[0-9]*/cmdline', pattern }, env = ENV,
  }
  local pids = {}
  for pid in files.stdout:gmatch("/proc/(%d+)/") do
    if alive(pid) then pids[#pids + 1] = pid end
  end
  return pids
end

describe("the example of the reference", function()
  it("runs a program, reads it, and says how it ended", function()
    local child <close> = process.spawn { argv = { "sh", "-c", "echo hello; exit 3" }, env = ENV }
    local lines = {}
    for stream, text in child:output() do lines[#lines + 1] = stream .. ": " .. text end
    local result = child:wait()
    assert.same({ "stdout: hello\n" }, lines)
    assert.equal("exit code 3", process.exit_reason(result))
  end)
end)

describe("a result", function()
  it("is there as values, too", function()
    local child <close> = sh("kill -9 $$")
    local code, signal, core, cpu, wall, peak_memory = child:exit()
    local result = child:wait()
    assert.same({ nil, 9, false }, { code, signal, core })
    assert.same({ result.usage.cpu, result.usage.wall, result.usage.peak_memory }, { cpu, wall, peak_memory })
  end)

  it("has the exit code and the usage", function()
    local child <close> = sh("exit 3")
    local result = child:wait()
    assert.equal(3, result.code)
    assert.equal(3, result.exit_code)
    assert.is_nil(result.signal)
    assert.is_true(result.usage.cpu > 0 and result.usage.wall > 0)
    assert.is_true(result.usage.peak_memory > 1 << 19)
  end)

  it("has the signal that ended it", function()
    local child <close> = sh("kill -9 $$")
    local result = child:wait()
    assert.is_nil(result.code)
    assert.same({ 9, 137 }, { result.signal, result.exit_code })
    assert.equal("killed by SIGKILL", process.exit_reason(result))
  end)

  it("counts the processor time of the children it waited for", function()
    local child <close> = sh("sh -c 'i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done'")
    assert.is_true(child:wait().usage.user > 0.01)
  end)
end)

describe("output", function()
  it("comes as it is, byte for byte", function()
    local child <close> = sh([[printf '\377\376\000']])
    assert.equal("\255\254\0", read(child).stdout)
  end)

  it("keeps the two streams apart, or merges them", function()
    local child <close> = sh("echo out; echo err >&2")
    assert.same({ stdout = "out\n", stderr = "err\n" }, read(child))
    local merged <close> = sh("echo out; echo err >&2", { merge = true })
    assert.same({ stdout = "out\nerr\n", stderr = "" }, read(merged))
  end)

  it("may be one line of 64 MiB at bounded memory", function()
    local child <close> = sh("head -c 67108864 /dev/zero | tr '\\0' x")
    -- The collector lets the heap grow to three times what was there before it runs, and after a thousand
    -- specs that alone is more than what is looked for here.
    local pause = collectgarbage("setpause", 110)
    collectgarbage()
    local before, size, most = sys.memory(), 0, 0
    for _, text in child:output() do
      size = size + #text
      most = math.max(most, sys.memory() - before)
    end
    collectgarbage("setpause", pause)
    assert.equal(64 << 20, size)
    assert.is_true(most < before + (10 << 20), "Lua held " .. most .. " bytes more")
  end)

  it("waits while nobody asks for it", function()
    local child <close> = sh("head -c 8000000 /dev/zero; echo done >&2")
    task.within(0.2, child.wait, child)
    assert.is_true(alive(child.pid))
    assert.equal(8000000, #read(child).stdout)
    assert.equal(0, child:wait().code)
  end)

  it("beyond its limit is read and dropped", function()
    local child <close> = sh("head -c 300000 /dev/zero", { output_limit = 1000 })
    assert.equal(1000, #read(child).stdout)
    assert.equal(299000, child.dropped)
    assert.equal(0, child:wait().code)
  end)

  it("of a chatty child comes in few pieces", function()
    local child <close> = sh("i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done")
    local pieces = 0
    for _ in child:output() do pieces = pieces + 1 end
    assert.is_true(pieces < 5000, pieces .. " pieces for 20000 lines")
  end)

  it("is all read by somebody slow, and nobody is said to hold it open", function()
    local child <close> = sh("head -c 700000 /dev/zero")
    local bytes = 0
    for _, text in child:output(0.05) do
      bytes = bytes + #text
      local began = os.clock()
      repeat until os.clock() - began > 0.1 -- keeping everybody else from their turn
    end
    assert.equal(700000, bytes)
    assert.is_false(child.leaked)
  end)

  it("ends when only something in the background still holds it open", function()
    local child <close> = sh("sleep 6071 & echo hi")
    assert.equal("hi\n", read(child).stdout)
    assert.is_true(child.leaked)
    assert.equal(0, child:wait().code)
    assert.is_true(wait_until(function() return #sleepers(6071) == 1 end))
    child:close()
    assert.same({}, sleepers(6071))
  end)

  it("that was written before the leader's exit is all there, however late it is read", function()
    local child <close> = sh("head -c 50000 /dev/zero; sleep 6072 &")
    child:wait()
    local size = 0
    for _, text in child:output(0) do size = size + #text end
    assert.equal(50000, size)
  end)
end)

describe("input", function()
  it("may be a string of 3 MiB", function()
    local text = ("0123456789abcde\n"):rep(3 << 16)
    local child <close> = sh("cat; cksum < /dev/stdin >&2", { stdin = text })
    local got = read(child)
    assert.is_true(got.stdout == text)
  end)

  it("may be written as one goes", function()
    local child <close> = process.spawn { argv = { "/bin/cat" }, stdin = true }
    local text = ("x"):rep(1 << 20)
    local writer = task.start(function()
      local ok = child:write(text) and child:write("end")
      child:finish_input()
      return ok
    end)
    assert.equal(text .. "end", read(child).stdout)
    assert.same({ true, true }, { writer:join() })
  end)

  it("that nobody reads any more is refused", function()
    local child <close> = sh("exec <&-; exec sleep 6073", { stdin = true })
    assert.is_true(wait_until(function() return not child:write("x") end))
  end)
end)

describe("the environment", function()
  local function seen(env, argv)
    local child <close> = process.spawn { argv = argv or { "/usr/bin/env" }, env = env }
    return (read(child).stdout:gsub("WORKER_JOB_TAG=%x+%.%d+%.\n", ""))
  end

  it("is what was given, nothing else", function()
    assert.equal("A=1\nB=x=y\nz\n", seen { A = "1", B = "x=y\nz" })
    assert.equal("A=\nB=2\nC=false\n", seen { A = "", B = 2, C = false })
    assert.equal("", seen {})
    assert.equal("", seen(nil))
  end)

  it("may be a list of tables, which make one", function()
    assert.equal("A=3\nAB=1\nC=4\n",
      seen { { A = "1", AB = "1", B = "1" }, {}, { A = "2", B = false, C = "3" }, { A = "3", C = 4, D = false } })
    assert.equal("PATH=/usr/bin:/bin\n", seen({ { PATH = "/nowhere" }, { PATH = "/usr/bin:/bin" } }, { "env" }))
    assert.error_matches(function() seen { { A = "1" }, "B" } end, "field 'env': expected a table, got string")
    assert.error_matches(function() seen { { A = "1" }, { [2] = "B" } } end, "env: '2' cannot name a variable")
    assert.error_matches(function() seen { { A = "1" }, { B = "\0" } } end, "the variable B holds a NUL byte")
  end)

  it("is not disturbed by a value that changes it when it is asked for its text", function()
    local env = { A = "1", C = "3" }
    env.B = setmetatable({}, { __tostring = function()
      env.A, env.C = nil, nil
      for i = 1, 100 do env["N" .. i] = ("x"):rep(1000) end
      collectgarbage()
      return ("y"):rep(5)
    end })
    assert.equal("A=1\nB=yyyyy\nC=3\n", seen(env))
  end)

  it("may be larger than any job needs", function()
    local env, sum = {}, 0
    for i = 1, 3000 do env["N" .. i] = i end
    for number in seen({ env, { N1 = false } }):gmatch "=(%d+)\n" do sum = sum + number end
    assert.equal(3000 * 3001 // 2 - 1, sum)
  end)

  it("is made from layers", function()
    assert.same({ A = "1", C = "3" }, process.env({ A = "1", B = "2" }, { B = false, C = "3" }))
    assert.same({ A = "2" }, process.env(nil, { A = "1" }, nil, { A = "2" }, nil))
    assert.error_matches(function() process.env({}, "A=1") end, "table expected, got string")
  end)
end)

describe("stopping", function()
  it("begins with a signal that a program may answer", function()
    local child <close> = sh("trap 'echo bye; exit 5' TERM; echo up; while :; do sleep 0.05; done")
    local output = child:output()
    assert.same({ "stdout", "up\n" }, { output() })
    assert.equal(5, child:stop({ grace = 60 }).code)
  end)

  it("is heard by what is suspended", function()
    local child <close> = sh("trap 'exit 5' TERM; kill -STOP $$; while :; do sleep 0.05; done")
    assert.is_true(wait_until(function() return state_of(child.pid) == "T" end))
    assert.equal(5, child:stop({ grace = 60 }).code)
  end)

  it("ends with KILL for what does not answer", function()
    local child <close> = sh("trap '' TERM; echo up; while :; do sleep 0.05; done")
    child:output()()
    assert.equal(9, child:stop({ grace = 0.1 }).signal)
  end)

  it("reaches what left the session", function()
    local child <close> = sh("setsid sleep 6074 & wait")
    assert.is_true(wait_until(function() return #sleepers(6074) == 1 end))
    assert.equal(15, child:stop().signal)
    assert.same({}, sleepers(6074))
  end)

  it("reaches what left the session and lost its parent", function()
    local child <close> = sh("(setsid sh -c 'sleep 6075 & sleep 6075' & ) ; exit 0")
    assert.is_true(wait_until(function() return #sleepers(6075) == 2 end))
    assert.equal(0, child:wait().code)
    child:close()
    assert.same({}, sleepers(6075))
  end)

  it("reaches two hundred children", function()
    local child <close> = sh("for i in $(seq 200); do sleep 6076 & done; wait")
    assert.is_true(wait_until(function() return #sleepers(6076) == 200 end))
    child:stop()
    assert.same({}, sleepers(6076))
  end)

  it("leaves other children alone", function()
    local other <close> = sh("(setsid sleep 6077 &); exec sleep 6077")
    assert.is_true(wait_until(function() return #sleepers(6077) == 2 end))
    local child = sh("setsid sleep 6078 & wait")
    assert.is_true(wait_until(function() return #sleepers(6078) == 1 end))
    child:close()
    assert.same({}, sleepers(6078))
    assert.equal(2, #sleepers(6077))
    assert.is_true(alive(other.pid))
  end)

  it("may be one signal, to the leader or to the tree", function()
    local child <close> = sh("sleep 6079 & wait")
    assert.is_true(wait_until(function() return #sleepers(6079) == 1 end))
    assert.is_true(child:kill("USR1", "leader"))
    assert.equal(10, child:wait().signal)
    assert.equal(1, #sleepers(6079))
    assert.is_false(child:kill("TERM"))
    assert.is_true(child:kill("SIGTERM", "tree"))
    assert.is_true(wait_until(function() return #sleepers(6079) == 0 end))
    assert.has_error(function() child:kill("NOSUCH") end)
  end)
end)

describe("a child in a control group", function()
  it("is born there, and its whole tree ends with the group", function()
    local place <close> = cgroup.open "auto"
    if not place then return pending("no control groups here") end
    local group <close> = place:create("spec", {})
    local child <close> = sh("cat /proc/self/cgroup; setsid sleep 6080 & wait", { cgroup = group })
    local _, text = child:output()()
    assert.matches("spec", text)
    assert.is_true(wait_until(function() return #sleepers(6080) == 1 end))
    assert.equal(15, child:stop().signal)
    assert.same({}, sleepers(6080))
    assert.is_false(group:populated())
    group:close()
    assert.is_false(group:populated())
  end)
end)

describe("a cancel", function()
  local function cancelled(fn)
    local handle = task.start(fn)
    task.sleep(0.05)
    handle:cancel()
    local ok, why = handle:join()
    assert.is_false(ok)
    assert.is_true(err.is(why, "cancelled"))
  end

  it("while reading leaves nothing", function()
    cancelled(function()
      local child <close> = sh("sleep 6081 & sleep 6081")
      for _ in child:output() do end -- luacheck: ignore
    end)
    assert.same({}, sleepers(6081))
  end)

  it("while waiting leaves nothing", function()
    cancelled(function()
      local child <close> = sh("setsid sleep 6082 & wait")
      child:wait()
    end)
    assert.same({}, sleepers(6082))
  end)

  it("while starting leaves nothing", function()
    for _ = 1, 20 do
      local handle = task.start(function()
        local child <close> = sh("sleep 6083")
        child:wait()
      end)
      task.yield()
      handle:cancel()
      handle:join()
    end
    assert.is_true(wait_until(function() return #sleepers(6083) == 0 end))
  end)
end)

describe("the worker's death", function()
  it("is the child's", function()
    local child <close> = process.spawn {
      argv = { "/proc/self/exe", "spec", "spec/support/parent.lua" }, env = ENV,
    }
    local _, pid = child:output()()
    pid = pid:match("%d+")
    assert.is_true(alive(pid))
    child:kill("KILL", "leader")
    assert.is_true(wait_until(function() return not alive(pid) end))
  end)
end)
