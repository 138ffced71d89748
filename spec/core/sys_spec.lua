-- The process: its signals, its environment, its clocks.
local lone = require "spec.support.lone"
local sys = require "worker.core.sys"
local task = require "worker.task"

local function send(name)
  os.execute(("kill -%s %d"):format(name, sys.pid()))
end

describe("signals", function()
  it("come to whoever waits for them, in the order in which they came #realtime", function()
    local signals <close> = sys.signals { "USR1", "USR2" }
    send "USR1"
    assert.equal("USR1", signals:wait(10))
    send "USR2"
    task.sleep(0.05)
    send "USR1"
    assert.equal("USR2", signals:wait(10))
    assert.equal("USR1", signals:wait(10))
  end)

  it("that came before anybody asked are kept #realtime", function()
    local signals <close> = sys.signals { "USR1" }
    send "USR1"
    task.sleep(0.05)
    assert.equal("USR1", signals:wait(0))
    assert.is_nil(signals:wait(0))
  end)

  it("are waited for no longer than asked", function()
    local signals <close> = sys.signals { "USR1" }
    local began = sys.mono()
    assert.is_nil(signals:wait(3))
    assert.is_true(sys.mono() - began >= 3)
  end)

  it("wake who waits when their handle is closed", function()
    local signals = sys.signals { "USR1" }
    local handle = task.start(signals.wait, signals)
    task.sleep(1)
    signals:close()
    local ok, name = handle:join()
    assert.is_true(ok)
    assert.is_nil(name)
    assert.has_error(function() signals:wait() end)
  end)

  it("have one who waits, and leave with a task that is cancelled", function()
    local signals <close> = sys.signals { "USR1" }
    local handle = task.start(signals.wait, signals)
    task.sleep(1)
    local ok, why = pcall(signals.wait, signals)
    assert.is_false(ok)
    assert.matches("another task waits for these signals", why)
    handle:cancel()
    assert.is_false((handle:join()))
    assert.is_nil(signals:wait(0))
  end)

  it("that no program can wait for are refused by name", function()
    for _, name in ipairs { "KILL", "CHLD", "nonsense" } do
      local ok, why = pcall(sys.signals, { name })
      assert.is_false(ok)
      assert.matches("signal '" .. name .. "' cannot be waited for", why)
    end
  end)

  it("nobody waits for end the program as they would any other", function()
    local ended = lone.run [[ os.execute("kill -TERM " .. sys.pid()) task.sleep(60) ]]
    assert.equal(143, ended.code)
  end)
end)

describe("the environment", function()
  it("is read by name or as a table", function()
    assert.equal(os.getenv "PATH", sys.env "PATH")
    assert.equal(os.getenv "PATH", sys.env().PATH)
    assert.is_nil(sys.env "NO_SUCH_VARIABLE")
  end)

  it("forgets a secret: it is in no child, and not in /proc either", function()
    local ended = lone.run([[
      sys.unsetenv "TOKEN"
      print(sys.env "TOKEN", sys.env "OTHER")
      print(io.open("/proc/self/environ"):read("a"):find("hunter2hunter2", 1, true))
      print(io.popen("env"):read("a"):find("TOKEN", 1, true))
    ]], { env = { TOKEN = "hunter2hunter2", OTHER = "stays" } })
    assert.equal("nil\tstays\nnil\nnil\n", ended.stdout, ended.stderr)
  end)

  it("may be asked to forget what is not there", function()
    sys.unsetenv "NO_SUCH_VARIABLE"
    assert.is_nil(sys.env "NO_SUCH_VARIABLE")
  end)
end)

describe("who and where", function()
  it("users are found by name and by number", function()
    local root = { name = "root", uid = 0, gid = 0, home = "/root" }
    assert.same(root, sys.user "root")
    assert.same(root, sys.user "0")
    assert.equal(sys.uid(), sys.user().uid)
    for _, name in ipairs { "nobody-of-that-name", "-1", "" } do assert.is_nil(sys.user(name)) end
  end)

  it("a pipe is no terminal and has no width", function()
    local ended = lone.run [[ print(sys.isatty(1), sys.terminal_width(1)) ]]
    assert.equal("false\n", ended.stdout)
  end)

  it("time is told as RFC 3339, at any precision", function()
    assert.equal("1970-01-01T00:00:00Z", sys.iso(0, 0))
    assert.equal("2001-09-09T01:46:40.250Z", sys.iso(3, 1e9 + 0.25))
    assert.matches("^%d%d%d%d%-%d%d%-%d%dT%d%d:%d%d:%d%d%.%d%d%d%d%d%dZ$", sys.iso(6))
  end)

  it("an exit status is 0 to 255", function()
    assert.has_error(function() sys.exit_status(256) end)
    assert.has_error(function() sys.exit_status(-1) end)
    assert.equal(42, lone.run("sys.exit_status(42)").code)
  end)
end)

describe("virtual time", function()
  it("jumps over what nobody is busy in", function()
    local began, wall = sys.mono(), sys.wall()
    task.sleep(86400)
    assert.is_true(sys.mono() - began >= 86400)
    assert.is_true(sys.wall() - wall >= 86400)
  end)
end)
