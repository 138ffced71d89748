-- The protocol strom: steps in containers, up to the order that an executor gets.  Whether a real engine
-- carries it out is in spec/containers.
local fs = require "worker.fs"
local json = require "worker.json"
local strom = require "spec.support.strom"

local WITH_DOCKER = { capabilities = { "script", "docker" } }

-- A worker with an executor for processes and one for containers; who got which job, and what run says.
local function both(fake, fields, run)
  local seen = {}
  local function executor(name, isolation)
    return { name = name, isolation = isolation, run = function(job, ctx)
      seen[#seen + 1] = { by = name, job = job }
      return run and run(job, ctx) or { state = "success", exit_code = 0 }
    end }
  end
  local dir = strom.dir()
  local worker = strom.worker(fake, fields or WITH_DOCKER, { dir = dir,
    executors = { executor("shell", "process"), executor("docker", "container") } })
  return seen, worker
end

-- Run one step; the job as its executor got it, the step, the fake.
local function ordered(fields, more)
  local fake = strom.fake()
  local job = fake:add(fields)
  local config = { capabilities = WITH_DOCKER.capabilities }
  for name, value in pairs(more or {}) do config[name] = value end
  local seen = both(fake, config)
  local step = strom.wait_job(job)
  assert.equal("completed", step.status)
  return seen[1].job, seen[1].by, fake
end

local function mounts_of(job)
  local map = {}
  for _, mount in ipairs(job.container.mounts) do map[mount.target] = mount.write and "write" or "read" end
  return map
end

describe("strom, steps in containers:", function()
  it("a script with the runner docker sees its workspace, its state and its artifacts under Strøm's names", function()
    local job, by = ordered { script = "echo hi", runner = "docker", image = "tools:1" }
    assert.same({ "docker", "tools:1", "echo hi", "/workspace" }, { by, job.image, job.script, job.cwd })
    assert.same({ ["/workspace"] = "read", ["/state"] = "read", ["/state-out"] = "write", ["/global-state"] = "read",
      ["/global-state-out"] = "write", ["/artifacts"] = "write" }, mounts_of(job))
    assert.same({ "/state", "/state-out", "/global-state", "/global-state-out", "/artifacts" }, { job.env.STATE_DIR,
      job.env.STATE_OUT_DIR, job.env.GLOBAL_STATE_DIR, job.env.GLOBAL_STATE_OUT_DIR, job.env.ARTIFACTS_DIR })
    assert.equal("step1", job.env.STROEM_STEP_NAME)
  end)

  it("local steps stay on the machine", function()
    local job, by = ordered { script = "echo hi" }
    assert.equal("shell", by)
    assert.is_nil(job.container)
    assert.is_nil(job.image)
  end)

  it("the worker's own image for scripts comes before the action's; without either it is the executor's", function()
    local fields = { script = "x", runner = "docker", image = "tools:1" }
    assert.equal("mine:2", ordered(fields, { runner_image = "mine:2" }).image)
    assert.is_nil(ordered({ script = "x", runner = "docker" }).image)
  end)

  it("code of another language is a file in the container, and a source is one of the workspace", function()
    local job = ordered { script = "print(1)", language = "python", args = { "a b" }, runner = "docker" }
    assert.same({ ["/.stroem_script.py"] = "print(1)" }, job.files)
    assert.same({ "/bin/sh", "-c" }, { job.argv[1], job.argv[2] })
    assert.same({ "sh", "/.stroem_script.py", "a b" }, { job.argv[4], job.argv[5], job.argv[6] })
    local dir = strom.dir()
    dir:write("bin/x.sh", "echo hi")
    local fake = strom.fake { workspace = dir.root }
    local step = fake:add { source = "bin/x.sh", runner = "docker", args = { "1" } }
    local seen = both(fake)
    assert.equal("completed", strom.wait_job(step).status)
    assert.same({ "/workspace/bin/x.sh", "1" }, seen[1].job.argv)
  end)

  it("an action of type docker is its image's own program, or what it says, and sees its artifacts only", function()
    local function action(fields)
      fields.type, fields.image, fields.runner = "docker", "tool:3", "none"
      local job, by, fake = ordered(fields, { runner_image = "mine:2" })
      assert.same({ "docker", "tool:3" }, { by, job.image })
      assert.same({ ["/artifacts"] = "write" }, mounts_of(job))
      assert.is_nil(job.env.STATE_DIR)
      assert.same({}, strom.asked(fake, strom.WORKSPACE))
      return { job.argv or false, job.container.entrypoint or false, job.cwd or false }
    end
    assert.same({ false, false, false }, action {})
    assert.same({ { "a", "b c" }, true, "/srv" }, action { command = { "a", "b c" }, workdir = "/srv" })
    assert.same({ { "sh", "-c", "echo $X" }, false, false }, action { cmd = "echo $X" })
    assert.same({ { "prog", "-x", "a" }, false, false }, action { entrypoint = { "prog", "-x" }, command = { "a" } })
  end)

  it("what the step leaves in its directories arrives, whoever it ran as", function()
    local fake = strom.fake { storage = true }
    local job = fake:add { script = "x", runner = "docker" }
    both(fake, nil, function(order)
      for _, mount in ipairs(order.container.mounts) do
        if mount.write then assert.equal(511, fs.stat(mount.source).mode & 511) end
        if mount.target == "/artifacts" then fs.write(mount.source .. "/report.txt", "all well") end
      end
      return { state = "success", exit_code = 0 }
    end)
    assert.equal("completed", strom.wait_job(job).status)
    assert.equal("all well", job.steps[1].artifacts["report.txt"].body)
  end)

  it("a link that a step leaves for its state leads to nothing of the worker's", function()
    local dir = strom.dir()
    dir:write("secret.json", '{"key":"of the worker"}')
    local fake = strom.fake { storage = true }
    local job = fake:add { script = "x", runner = "docker" }
    both(fake, nil, function(order, ctx)
      for _, mount in ipairs(order.container.mounts) do
        if mount.target == "/state-out" then fs.symlink(dir:path "secret.json", mount.source .. "/state.json") end
      end
      ctx.log("stdout", 'STATE: {"n":1}\n')
      return { state = "success", exit_code = 0 }
    end)
    assert.equal("completed", strom.wait_job(job).status)
    local tar = strom.asked(fake, strom.STATE)[1].body
    local out = strom.dir()
    out:write("state.tar.gz", tar)
    fs.mkdir(out:path "got")
    require("worker.archive").unpack(out:path "state.tar.gz", out:path "got", {})
    assert.equal('{"n":1}', out:read "got/state.json")
    assert.equal('{"key":"of the worker"}', dir:read "secret.json")
  end)

  it("a worker that says so offers docker, in all of its words; one that does not, does not", function()
    for offered, capabilities in pairs { ['["script"]'] = { "script" }, ['["script","docker"]'] = { "shell", "docker" },
      ['["docker"]'] = { "docker" } } do
      local fake = strom.fake()
      local _, worker = both(fake, { capabilities = capabilities })
      strom.wait_for(function() return #strom.asked(fake, strom.CLAIM) > 0 end)
      assert.equal(offered, json.encode(json.array(json.decode(strom.asked(fake, strom.REGISTER)[1].body).capabilities)))
      local claim = json.decode(strom.asked(fake, strom.CLAIM)[1].body).capabilities
      assert.equal(offered:find("script", 1, true) ~= nil, claim[#claim] == "shell")
      worker:stop()
    end
  end)

  it("docker among the capabilities without an executor for it is a mistake of the configuration", function()
    local worker = strom.worker(strom.fake(), WITH_DOCKER, { run = function() return { state = "success" } end })
    local _, code = worker.handle:join()
    assert.equal(78, code)
    assert.matches("executor: %[shell, docker%]", tostring(worker.server.failure))
  end)

  it("where there is nothing but containers, local steps run in one", function()
    local fake = strom.fake { jobs = { "echo hi" } }
    local got
    strom.worker(fake, nil, { isolation = "container", dir = strom.dir(), run = function(job)
      got = job
      return { state = "success", exit_code = 0 }
    end })
    assert.equal("completed", strom.wait_job(fake.store.list[1]).status)
    assert.same({ "/workspace", "read" }, { got.cwd, mounts_of(got)["/workspace"] })
  end)
end)
