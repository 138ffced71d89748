-- Strøm's steps in real containers: the binary, a real dockerd and runc.
local docker = require "spec.support.docker"
local program = require "spec.support.program"
local strom = require "spec.support.strom"

local IMAGE = "busybox:spec"

describe("strom in containers #realtime", function()
  local daemon, missing

  setup(function()
    daemon, missing = docker.start()
    if daemon then daemon:image(IMAGE) end
  end)

  teardown(function()
    if daemon then daemon:stop() end
  end)

  local function need()
    local why = docker.excuse(daemon, missing)
    if why then pending(why) end
    return not why
  end

  -- A worker for both kinds of steps; the engine of the specs has no bridge.
  local function start(fake, dir)
    local path = dir:write("worker.yaml", ([[
servers:
- protocol: strom
  server_url: %s
  worker_token: %s
  poll_interval_secs: 100ms
  cancel_poll: 200ms
  workspace_dir: %s
  max_concurrent: 4
  capabilities: [ script, docker ]
  executor: [ shell, docker: { host: "%s", image: "%s", pull: never } ]
]]):format(fake.url, strom.TOKEN, dir:path "ws", daemon.host, IMAGE))
    return program.start { "run", "--config", path, "--state", dir:path "state", program.plugins }
  end

  local function ended(job)
    return program.eventually(function()
      local step = job.steps[1]
      return (step.status == "completed" or step.status == "failed") and step
    end)
  end

  it("scripts, sources and images run, each where it belongs, and what they leave arrives", function()
    if not need() then return end
    local dir = strom.dir()
    dir:write("repo/data.txt", "from the workspace")
    dir:write("repo/bin/x.sh", "#!/bin/sh\necho \"source $1 in $PWD\"")
    require("worker.fs").chmod(dir:path "repo/bin/x.sh", 493)
    local fake = strom.fake { workspace = dir:path "repo" }
    local run <close> = start(fake, dir)
    local script = fake:add { runner = "docker", script = "cat data.txt; echo; touch data.txt; id -u; echo OUTPUT: '{\"n\":1}'; "
      .. "echo '{\"kept\":7}' >$STATE_OUT_DIR/state.json; mkdir $ARTIFACTS_DIR/a; echo all well >$ARTIFACTS_DIR/a/report.txt" }
    local source = fake:add { runner = "docker", source = "bin/x.sh", args = { "a b" } }
    local language = fake:add { runner = "docker", script = "echo \"$0 $1\"", interpreter = "sh -e", args = { "c d" } }
    local image = fake:add { type = "docker", image = IMAGE, command = { "echo", "from the image" } }
    local shown = fake:add { type = "docker", image = IMAGE, cmd = "ls -d /artifacts /workspace; exit 3" }
    local here = fake:add { script = "test -d /workspace || echo on the machine" }

    local step = ended(script)
    assert.equal("completed", step.status, step.error)
    local printed = strom.lines(script, "stdout")
    assert.same({ "from the workspace", "65534" }, { printed[1], printed[2] })
    assert.matches("data.txt: Read%-only file system", table.concat(strom.lines(script, "stderr"), "\n"))
    assert.same({ n = 1 }, step.output)
    assert.equal("all well\n", step.artifacts["a/report.txt"].body)
    assert.is_truthy(fake.states["default/task"])

    assert.equal("completed", ended(source).status)
    assert.same({ "source a b in /workspace" }, strom.lines(source, "stdout"))
    assert.equal("completed", ended(language).status)
    assert.same({ "/.stroem_script.sh c d" }, strom.lines(language, "stdout"))
    assert.equal("completed", ended(image).status)
    assert.same({ "from the image" }, strom.lines(image, "stdout"))
    assert.same({ "failed", 3 }, { ended(shown).status, shown.steps[1].exit_code })
    assert.same({ "/artifacts" }, strom.lines(shown, "stdout"))
    assert.equal("completed", ended(here).status)
    assert.same({ "on the machine" }, strom.lines(here, "stdout"))
    assert.same({}, daemon:containers())
    run:signal "TERM"
    assert.equal(0, run:wait().code)
  end)

  it("a step over its time, and one that is cancelled, take their containers along", function()
    if not need() then return end
    local dir = strom.dir()
    local fake = strom.fake()
    local run <close> = start(fake, dir)
    local late = fake:add { runner = "docker", script = "sleep 600 & sleep 600", timeout = 2 }
    local gone = fake:add { runner = "docker", script = "echo there; sleep 600" }
    program.eventually(function() return strom.lines(gone, "stdout")[1] == "there" end)
    fake.store:cancel(gone.id)
    assert.same({ "failed", -1 }, { ended(late).status, late.steps[1].exit_code })
    assert.matches("timed out", late.steps[1].error)
    assert.equal("failed", ended(gone).status)
    program.eventually(function() return #daemon:containers() == 0 end)
    run:signal "TERM"
    assert.equal(0, run:wait().code)
  end)
end)
