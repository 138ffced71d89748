-- executor.lua: what `worker new executor` writes.  @NAME@ is the plugin's name, @VAR@ the same as a
-- Lua name.
return {
  folder = "executors",
  plugin = [==[
-- @NAME@: how jobs are run.
--
-- run blocks until the job is over.  When the job is cancelled, that is raised where it waits, and
-- `<close>` kills whatever is left of the job.
local cgroup = require "worker.cgroup"
local process = require "worker.process"

local @VAR@ = { kind = "executor", name = "@NAME@", api = 1 }

@VAR@.doc = "Runs a job as a program of this machine."

@VAR@.config = {
  shell = { "path", default = "/bin/sh", doc = "What runs the scripts of jobs." },
  path  = { "string", default = "/usr/local/bin:/usr/bin:/bin", doc = "PATH given to jobs." },
}

function @VAR@.run(conf, job, ctx)
  local group <close>, missing = cgroup.create(nil, ctx.limits)
  for name in pairs(missing) do ctx.note("this machine cannot keep the limit " .. name) end
  local child <close> = process.spawn {
    argv = job.argv or { conf.shell, "-c", job.script },
    cwd = ctx.workdir, cgroup = group,
    env = { { PATH = conf.path }, ctx.env or {}, job.env or {} },
  }
  for stream, text in child:output() do ctx.log(stream, text) end

  local exit = child:wait()
  return {
    state = exit.exit_code == 0 and "success" or "failed",
    exit_code = exit.exit_code, signal = exit.signal, usage = exit.usage,
  }
end

return @VAR@
]==],
  spec = [==[
-- The executor @NAME@ with real programs.
local registry = require "worker.registry"
local schema = require "worker.schema"

local @VAR@ = assert(registry.open({ "plugins" }):get("executor", "@NAME@"))

describe("the executor @NAME@", function()
  local output

  local function run(job)
    output = {}
    local ctx = { workdir = "/tmp", limits = {}, secrets = {}, env = { COLOUR = "blue", SHAPE = "round" } }
    function ctx.log(stream, text) output[stream] = (output[stream] or "") .. text end
    return @VAR@.run(assert(schema.check(@VAR@, {})), job, ctx)
  end

  it("runs a script and hands on what it prints", function()
    local result = run { id = "1", script = "echo out; echo err >&2" }
    assert.equal("success", result.state)
    assert.same({ stdout = "out\n", stderr = "err\n" }, output)
  end)

  it("runs a program with its arguments as they are", function()
    assert.equal("success", run({ id = "1", argv = { "/bin/echo", "a  b", "$HOME" } }).state)
    assert.equal("a  b $HOME\n", output.stdout)
  end)

  it("says how a job failed", function()
    local result = run { id = "1", script = "exit 3" }
    assert.equal("failed", result.state)
    assert.equal(3, result.exit_code)
  end)

  it("gives the job its variables and nothing of the worker's", function()
    run { id = "1", script = "echo $COLOUR $SHAPE; echo ${HOME:-none}", env = { COLOUR = "red" } }
    assert.equal("red round\nnone\n", output.stdout)
  end)
end)
]==],
  next = {
    "worker spec spec/plugins/@NAME@_spec.lua", "worker explain @NAME@",
    "worker --protocol local --dir jobs --executor @NAME@ plugins/",
  },
}
