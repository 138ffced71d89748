-- What a child is born with, and what is said when it cannot be born.
local cgroup = require "worker.core.cgroup"
local core = require "worker.core.process"
local fs = require "worker.fs"
local process = require "worker.process"
local program = require "spec.support.program"
local scratch = require "spec.support.scratch"
local sys = require "worker.core.sys"
local task = require "worker.task"

local PATH = "/usr/local/bin:/usr/bin:/bin"

local function run(options)
  options.env = process.env({ PATH = PATH }, options.env)
  return process.run(options)
end

local function sh(script, options)
  options = options or {}
  options.argv = { "/bin/sh", "-c", script }
  return run(options)
end

local function refused(options)
  local ok, why = pcall(run, options)
  assert.is_false(ok)
  assert.equal("spawn", why.kind)
  return why
end

local function write_file(path, text, mode)
  local file <close> = assert(io.open(path, "w"))
  file:write(text)
  file:close()
  sh("chmod " .. mode .. " " .. path)
end

for _, plain in ipairs { false, true } do
  local way = plain and "by a plain clone" or "by clone3"

  describe("a child born " .. way, function()
    local function born(script, options)
      options = options or {}
      options.plain = plain
      return sh(script, options).stdout
    end

    it("leads a session and a group of its own", function()
      local stat = born("cat /proc/$$/stat")
      local pid, group, session = stat:match("^(%d+) %(sh%) %u %d+ (%d+) (%d+)")
      assert.equal(pid, group)
      assert.equal(pid, session)
    end)

    it("sees three files, however many we have open", function()
      local open = {}
      for i = 1, 500 do open[i] = assert(io.open("/dev/null")) end
      local seen = born("exec ls /proc/self/fd")
      for i = 1, 500 do open[i]:close() end
      assert.equal("0\n1\n2\n3\n", seen) -- 3 is the directory that ls reads
    end)

    it("sees the files it was given under the numbers it was given", function()
      local fds = { [5] = 2, [9] = 1 }
      assert.equal("0\n1\n2\n3\n5\n9\n", born("exec ls /proc/self/fd", { fds = fds }))
    end)

    it("has no signal blocked and none ignored", function()
      local status = born("cat /proc/self/status")
      assert.equal(0, tonumber(status:match("SigBlk:%s*(%x+)"), 16))
      assert.equal(0, tonumber(status:match("SigIgn:%s*(%x+)"), 16))
    end)

    it("ends quietly when its reader does, as SIGPIPE is not ignored", function()
      assert.equal("y\n", born("yes | head -n 1"))
    end)

    it("reads /dev/null when it was given no input", function()
      assert.equal("/dev/null\n", born("readlink /proc/self/fd/0"))
    end)

    it("tells the step and the reason when it cannot be", function()
      local why = refused { argv = { "/no/such/thing" }, plain = plain }
      assert.equal("ENOENT", why.name)
      assert.equal("exec /no/such/thing", why.step)
    end)

    it("may be one of three hundred at once", function()
      local list = {}
      for i = 1, 300 do
        list[i] = function() return sh("echo " .. i, { plain = plain }).stdout end
      end
      for i, text in ipairs(task.all(list)) do assert.equal(i .. "\n", text) end
    end)
  end)
end

describe("what a child is given", function()
  it("limits", function()
    local out = sh("ulimit -n; ulimit -Hn; ulimit -f; ulimit -c", {
      rlimits = { nofile = { 100, 200 }, fsize = 512 * 1024, core = 0 },
    }).stdout
    assert.equal("100\n200\n1024\n0\n", out)
  end)

  -- What a worker's children are given that was started under other limits.
  local function given(limits, request)
    local dir <close> = scratch.dir()
    local file = dir:write("given_spec.lua", ([[
      local process = require "worker.process"
      it("is asked", function()
        local argv = { "/bin/sh", "-c", "ulimit -n; ulimit -Hn" }
        local ok, result = pcall(process.run, { argv = argv, rlimits = %s })
        io.stderr:write(ok and result.stdout or result.step .. "\n")
      end)
    ]]):format(request))
    local said = run { argv = { "/bin/sh", "-c", limits .. '; exec "$0" spec "$1"', program.binary, file } }
    return (said.stderr:gsub("\n", " "))
  end

  it("the limit of open files that the worker was started with", function()
    assert.equal("290 300 ", given("ulimit -Sn 290; ulimit -Hn 300", "nil"))
  end)

  it("no more than may be had, where it should have at most more than that", function()
    local asked = given("ulimit -n 300", "{ nofile = { 350, 400 } }")
    if asked == "350 400 " then return pending "this user may raise limits" end
    assert.equal("300 300 ", asked)
    assert.equal("290 300 ", given("ulimit -n 300", "{ nofile = { 290, 400 } }"))
  end)

  it("umask, nice, oom_score_adj, no new privileges", function()
    local out = sh("umask; nice; cat /proc/self/oom_score_adj; grep NoNew /proc/self/status", {
      umask = tonumber("027", 8), nice = 5, oom_score_adj = 300, new_privileges = false,
    }).stdout
    local nice = math.min(19, tonumber(sh("nice").stdout) + 5) -- on top of our own
    assert.equal(("0027\n%d\n300\nNoNewPrivs:\t1\n"):format(nice), out)
  end)

  it("a user, with that user's groups and output that user may open", function()
    if sys.uid() ~= 0 then return pending("needs root") end
    local out = sh("id -un; id -gn; id -G; echo again > /dev/stdout", { user = "nobody" }).stdout
    assert.equal("nobody\nnogroup\n65534\nagain\n", out)
  end)

  it("a user and a group by number", function()
    if sys.uid() ~= 0 then return pending("needs root") end
    local out = sh("id -u; id -g; id -G", { user = 4321, group = 8765 }).stdout
    assert.equal("4321\n8765\n8765\n", out)
  end)

  it("the program its own PATH names, seen from its own directory", function()
    sh("mkdir -p /tmp/spawn_spec/bin")
    write_file("/tmp/spawn_spec/bin/tool", "#!/bin/sh\necho found\n", "755")
    local out = run { argv = { "tool" }, cwd = "/tmp/spawn_spec", env = { PATH = "/nowhere:bin" } }
    assert.equal("found\n", out.stdout)
    sh("rm -r /tmp/spawn_spec")
  end)
end)

describe("a program that cannot be started", function()
  local dir = "/tmp/spawn_refused"

  before_each(function() sh("mkdir -p " .. dir) end)
  after_each(function() sh("rm -rf " .. dir) end)

  local function message(options) return refused(options).message end

  it("is missing in the PATH", function()
    assert.equal("exec nosuch: No such file or directory in /usr/bin:/bin",
      message { argv = { "nosuch" }, env = { PATH = "/usr/bin:/bin" } })
  end)

  it("is a directory", function()
    assert.equal("exec /tmp: Permission denied (it is a directory)", message { argv = { "/tmp" } })
  end)

  it("may not be executed", function()
    write_file(dir .. "/data", "text", "644")
    local why = refused { argv = { dir .. "/data" } }
    assert.equal("EACCES", why.name)
    assert.equal("exec " .. dir .. "/data: Permission denied", why.message)
  end)

  it("has no interpreter", function()
    write_file(dir .. "/script", "#!/no/such/interpreter\n", "755")
    local why = message { argv = { "./script" }, cwd = dir }
    assert.equal("exec ./script: No such file or directory (the file is there, its interpreter "
      .. "is not)", why)
  end)

  it("is no program", function()
    write_file(dir .. "/odd", "\127not an elf", "755")
    assert.equal("ENOEXEC", refused { argv = { dir .. "/odd" } }.name)
  end)

  it("has no directory to start in", function()
    local why = refused { argv = { "true" }, cwd = "/no/such/dir" }
    assert.equal("chdir /no/such/dir: No such file or directory", why.message)
    assert.equal("chdir /no/such/dir", why.step)
  end)

  it("has files that we have no numbers for, and nothing of it is left", function()
    if not os.execute("command -v prlimit >/dev/null 2>&1") then return pending "prlimit is not installed" end
    local function most(files)
      assert(os.execute(("prlimit --pid %d --nofile=%s: >/dev/null"):format(sys.pid(), files)))
    end
    local function open_files()
      return #fs.list "/proc/self/fd" -- no child may count them: it can be earlier than our own files of it
    end
    collectgarbage() -- what others have left open may be closed at any time
    collectgarbage()
    local before, limit = open_files(), fs.read("/proc/self/limits"):match("Max open files +(%d+)")
    most(before + 20)
    local held = {}
    for file in function() return (io.open("/dev/null")) end do held[#held + 1] = file end
    local said = {}
    for free = 0, 3 do
      said[free] = select(2, pcall(process.spawn, { argv = { "/bin/sleep", "60" } }))
      held[#held]:close()
      held[#held] = nil
    end
    for _, file in ipairs(held) do file:close() end
    most(limit)
    for free = 0, 2 do assert.equal("make a pipe", said[free].step) end
    said[3]:close()
    assert.is_true(open_files() <= before)
    assert.equal("", sh("pgrep -P $PPID sleep").stdout)
  end)

  it("belongs to nobody we know", function()
    assert.equal("look up the user nosuchuser: No such file or directory",
      message { argv = { "true" }, user = "nosuchuser" })
  end)

  it("has an argument longer than the kernel allows", function()
    assert.equal("E2BIG", refused { argv = { "echo", ("x"):rep(200 * 1024) } }.name)
  end)

  it("is given a NUL, which is refused and not cut", function()
    local ok, why = pcall(run, { argv = { "echo", "a\0b" } })
    assert.is_false(ok)
    assert.matches("argument 2 holds a NUL byte", why.message or why)
  end)
end)

describe("what a child is asked for", function()
  -- A value of an environment that does this when it is asked for its text.
  local function trap(act)
    return setmetatable({}, { __tostring = function()
      act()
      return "x"
    end })
  end

  it("is as long as it is, whatever its metatable says", function()
    local argv = setmetatable({ "/bin/echo", "one" }, { __len = function() return (1 << 61) - 1 end })
    assert.equal("one\n", run({ argv = argv }).stdout)
  end)

  it("may change while it is read, which harms nobody", function()
    local argv = { "/bin/echo", ("A"):rep(3000) }
    local out = run { argv = argv, env = { V = trap(function()
      argv[2] = ("B"):rep(3000)
      collectgarbage()
    end) } }
    assert.equal(("B"):rep(3000) .. "\n", out.stdout)
  end)

  it("may lose its control group while it is read, and is not started then", function()
    local place <close> = cgroup.open "auto"
    if not place then return pending "there are no control groups here" end
    local group = place:create("spec")
    local ok, why = pcall(run, { argv = { "/bin/true" }, cgroup = group, env = { V = trap(function() group:close() end) } })
    assert.is_false(ok)
    assert.matches("expected a control group that is open, got worker.cgroup %(closed%)", tostring(why))
  end)

  it("may be inherited", function()
    local options = setmetatable({ argv = { "/bin/sh", "-c", "pwd; echo $A" }, env = { A = "own" } },
      { __index = { cwd = "/usr", env = { A = "other" } } })
    assert.equal("/usr\nown\n", process.run(options).stdout)
    local child <close> = process.spawn(options)
    for _, text in child:output() do assert.equal("/usr\nown\n", text) end
  end)
end)

describe("the core's own handle", function()
  it("tells its state", function()
    local child = core.spawn { argv = { "/bin/sleep", "60" } }
    assert.equal("worker.process (running)", tostring(child))
    child:signal(core.signals.KILL, false)
    assert.equal(9, (select(2, child:wait())))
    assert.equal("worker.process (exited)", tostring(child))
    child:close()
    assert.equal("worker.process (closed)", tostring(child))
    assert.has_error(function() child:wait() end)
  end)

  it("kills what it stands for when it is collected", function()
    local pid = core.spawn({ argv = { "/bin/sleep", "60" } }):pid()
    collectgarbage()
    collectgarbage()
    for _ = 1, 200 do
      if not io.open("/proc/" .. pid .. "/stat") then return end
      task.sleep(0.01)
    end
    error("the child " .. pid .. " is still there")
  end)
end)

describe("the output of a child", function()
  local function child_of(argv)
    return process.spawn { argv = argv, env = { PATH = PATH } }
  end

  -- Everything it ever wrote is in the pipe, and nobody holds that open any more.
  local function read_late(argv)
    local child <close> = child_of(argv)
    local exit, text = child:wait(), ""
    for _, piece in child:output() do text = text .. piece end
    return text, exit
  end

  it("is whole, also where it is read when all is over", function()
    assert.equal("", (read_late { "sh", "-c", ":" }))
    assert.equal("a\nb\n", (read_late { "sh", "-c", "echo a; echo b" }))
    assert.equal(60000, #read_late { "sh", "-c", "head -c 60000 /dev/zero" })
  end)

  it("is whole, also where its pipe was made one of packets, which are read one by one", function()
    if not os.execute("command -v python3 >/dev/null 2>&1") then return pending "python3 is not installed" end
    assert.equal("onetwothree", (read_late { "python3", "-c", [[
import fcntl, os
fcntl.fcntl(1, fcntl.F_SETFL, os.O_DIRECT)
for word in (b"one", b"two", b"three"): os.write(1, word)]] }))
  end)

  it("may be taken back by whoever wrote it, and nobody waits for it", function()
    for _ = 1, 10 do
      local child <close> = child_of { "sh", "-c", "echo x; read y </dev/stdout" }
      task.within(0.02, function()
        for _ in child:output() do task.yield() end
      end)
    end
  end)

  it("blocks the child when the pipe is full, not us", function()
    assert.equal("blocking\n", (read_late { "sh", "-c",
      [[grep -q '^flags:.*[4-7][0-7]\{3\}$' /proc/self/fdinfo/1 && echo it does not || echo blocking]] }))
  end)

  it("ends with a leader that is traced by its own child", function()
    if not os.execute("command -v strace >/dev/null 2>&1") then return pending "strace is not installed" end
    local text, exit = read_late { "strace", "-D", "-o", "/dev/null", "sh", "-c", "echo traced; exit 3" }
    assert.equal("traced\n", text)
    assert.equal(3, exit.exit_code)
  end)
end)
