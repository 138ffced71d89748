local process = require "worker.process"
local plugin = require "spec.support.plugin"
local program = require "spec.support.program"
local scratch = require "spec.support.scratch"
local sys = require "worker.core.sys"
local task = require "worker.task"

describe("the executor shell #realtime", function()
  local dir

  before_each(function() dir = scratch.dir() end)
  after_each(function() getmetatable(dir).__close(dir) end)

  local function run(job, fields, more)
    local shell, conf = plugin.get("executor", "shell", fields)
    local ctx = plugin.ctx { workdir = dir.root, env = { PATH = "/usr/bin:/bin" }, id = "spec" }
    for name, value in pairs(more or {}) do ctx[name] = value end
    local ok, result = pcall(shell.run, conf, job, ctx)
    return result, ctx.said, ok
  end

  it("keeps apart what is the job's fault and what is ours", function()
    assert.equal("success", run({ argv = { "true" } }).state)
    local failed = run { script = "exit 3" }
    assert.same({ "failed", 3, "exit code 3" }, { failed.state, failed.exit_code, failed.reason })
    local killed = run { script = "kill -9 $$" }
    assert.same({ "failed", 137, "SIGKILL" }, { killed.state, killed.exit_code, killed.signal })
    local missing, _, ok = run { argv = { "no-such-program" } }
    assert.is_false(ok)
    assert.equal("spawn", missing.kind)
    assert.equal("ENOENT", missing.name)
  end)

  it("tells what the job used", function()
    local usage = run({ script = "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done" }).usage
    assert.is_true(usage.cpu > 0)
    assert.is_true(usage.wall > 0)
    assert.is_true(usage.peak_memory > 0)
  end)

  it("refuses a job with nothing to run and one with a NUL byte", function()
    assert.matches("neither argv nor script", tostring(run {}))
    assert.matches("the script has a NUL byte %(byte 2%)", tostring(run { script = "a\0b" }))
    assert.matches("argument 2 has a NUL byte", tostring(run { argv = { "echo", "\0" } }))
  end)

  it("runs scripts just below and above what one argument may hold", function()
    for _, size in ipairs { 128 * 1024 - 2, 128 * 1024 - 1, 128 * 1024, 1 << 20 } do
      local tail = "\necho $((1+1))"
      local _, said = run { script = "#" .. ("x"):rep(size - #tail - 1) .. tail }
      assert.equal("2\n", said.stdout)
    end
  end)

  it("leaves nothing of a long script behind when the job has no directory", function()
    local fs = require "worker.fs"
    local function count()
      local n = 0
      for _, name in ipairs(fs.list "/tmp") do n = n + (name:find("^worker%-script%-") and 1 or 0) end
      return n
    end
    local before = count()
    local shell, conf = plugin.get("executor", "shell")
    shell.run(conf, { script = "#" .. ("x"):rep(200000) }, plugin.ctx { env = { PATH = "/bin" } })
    assert.equal(before, count())
  end)

  it("gives it its input", function()
    local _, said = run { argv = { "cat" }, stdin = ("x"):rep(300000) }
    assert.equal(300000, #said.stdout)
    local _, nothing = run { argv = { "cat" } }
    assert.is_nil(nothing.stdout)
  end)

  it("keeps the order of both streams when they share one pipe", function()
    local _, said = run({ script = "echo 1; echo 2 >&2; echo 3" }, { merge = true })
    assert.equal("1\n2\n3\n", said.stdout)
  end)

  it("runs scripts with another shell", function()
    local _, said = run({ script = "x=(1 2 3); echo ${#x[@]}" }, { shell = { "/bin/bash", "-e" } })
    assert.equal("3\n", said.stdout)
  end)

  it("asks with the signal it is told to, before it insists", function()
    local handle = task.start(function()
      return run({ script = "trap 'echo got INT; exit 0' INT; echo up; while :; do sleep 0.05; done" }, { signal = "INT" },
        { log = function(stream, text) dir.said = (dir.said or "") .. stream .. text end })
    end)
    program.eventually(function() return dir.said and dir.said:find "up" end)
    handle:cancel "enough"
    handle:join()
    local fs = require "worker.fs"
    assert.is_true(fs.exists(dir.root))
  end)

  it("notes a process that was left behind, and ends it", function()
    local tag = program.tag()
    local result, said = run({ script = ("sleep %s & echo hi"):format(tag) }, { drain = "50ms" })
    assert.equal("success", result.state)
    assert.equal("hi\n", said.stdout)
    assert.matches("left behind", said.worker)
    assert.same({}, program.of_tag(tag))
  end)

  it("tells a job whom it runs as; its own directory is its home", function()
    local me = process.user()
    local _, said = run { script = "echo $USER $LOGNAME $HOME" }
    assert.equal(("%s %s %s\n"):format(me.name, me.name, dir.root), said.stdout)
    _, said = run({ script = "echo $USER $HOME" }, {}, { env = { USER = "somebody", HOME = "/elsewhere" } })
    assert.equal("somebody /elsewhere\n", said.stdout)
  end)

  it("runs as another user, in a directory that is his; his home is the job's, where he has one", function()
    local result, said = run({ script = "id -un; touch mine; echo $USER $LOGNAME $HOME" }, { user = "nobody" })
    if sys.uid() ~= 0 then return pending "only root can do that" end
    assert.equal(("nobody\nnobody nobody %s\n"):format(dir.root), said.stdout)
    assert.equal("success", result.state)
    said = select(2, run({ script = "echo $USER $LOGNAME $HOME" }, { user = "daemon" }))
    assert.equal("daemon daemon /usr/sbin\n", said.stdout)
    assert.matches("there is no user 'nobody%-here'", tostring(run({ script = "true" }, { user = "nobody-here" })))
  end)
end)
