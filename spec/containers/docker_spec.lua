-- Jobs in real containers: the binary, a real dockerd, runc and gVisor's runsc.
local docker = require "spec.support.docker"
local engine = require "worker.engine"
local fs = require "worker.fs"
local json = require "worker.json"
local program = require "spec.support.program"
local sites = require "spec.support.site"
local task = require "worker.task"

local IMAGE = "busybox:spec"

describe("containers #realtime", function()
  local daemon, missing

  setup(function()
    daemon, missing = docker.start()
    if daemon then daemon:image(IMAGE) end
  end)

  teardown(function()
    if daemon then daemon:stop() end
  end)

  local function need(sandbox)
    local why = docker.excuse(daemon, missing, sandbox)
    if why then pending(why) end
    return not why
  end

  -- A worker whose one server has these executors, as YAML: { docker = "memory: 64MiB" }, ...
  local function config_of(site, executors, host)
    local lines = { "servers:", "- protocol: local", "  dir: " .. site.root, "  slots: 4", "  executor:" }
    for _, one in ipairs(executors) do
      lines[#lines + 1] = ("  - %s: { host: '%s', image: '%s', pull: never%s }"):format(one[1], host or daemon.host, IMAGE,
        one[2] and ", " .. one[2] or "")
    end
    return site.dir:write("worker.yaml", table.concat(lines, "\n") .. "\n")
  end

  local function start(site, executors, more, host)
    local words = { "--config", config_of(site, executors, host) }
    for _, word in ipairs(more or {}) do words[#words + 1] = word end
    return site:start(words)
  end

  local function exec(words)
    local all = { "exec", "--executor", "docker", "--image", IMAGE, "--json", env = { DOCKER_HOST = daemon.host } }
    for _, word in ipairs(words) do all[#all + 1] = word end
    local run = program.run(all)
    return json.decode(run.stdout), run
  end

  local function nothing_left() assert.same({}, daemon:containers()) end

  it("run a job, its output and exit code as they are", function()
    if not need() then return end
    local result = exec { "--", "sh", "-c", "echo out; echo err >&2; printf '\\377\\0x'; exit 3" }
    assert.equal("failed", result.state)
    assert.equal(3, result.exit_code)
    assert.equal("err\n", result.stderr)
    assert.equal("out\n", result.stdout:sub(1, 4))
    nothing_left()
  end)

  it("report each of a mixed load once and rightly, at bounded memory, and leave nothing", function()
    if not need() then return end
    local site <close> = sites.new()
    local jobs = {
      prints = { "echo hi", "success" },
      fails = { "exit 3", "failed" },
      sleeps = { "sleep 60", "timeout", timeout = 2 },
      eats = { "exec dd if=/dev/zero of=/dev/null bs=200M count=1", "oom" },
      bombs = { "b() { b | b & }; b; sleep 1; echo alive", nil, timeout = 4 },
      floods = { "exec head -c 100000000 /dev/zero", "success" },
      bytes = { "printf '\\377\\376\\0'", "success" },
      network = { "nc -w 1 1.1.1.1 53 </dev/null", "failed" },
      root = { "touch /x", "failed" },
      etc = { "echo x > /etc/passwd", "failed" },
      temp = { "echo x > /tmp/x && cat /tmp/x", "success" },
      nobody = { "test $(id -u) = 65534", "success" },
      fills = { "dd if=/dev/zero of=/tmp/x bs=1M count=200", nil },
    }
    for id, job in pairs(jobs) do
      site:drop(id .. ".json", json.encode { script = job[1], timeout = job.timeout })
    end
    local run <close> = start(site, { { "docker", "memory: 128MiB, pids: 64" } }, { "--once" })
    local ended = run:wait()
    for id, job in pairs(jobs) do
      local result = site:result(id)
      if job[2] then assert.equal(job[2], result.state, id .. ": " .. tostring(result.reason)) end
      assert.equal("docker", result.executor)
    end
    assert.equal(100000000, fs.stat(site:path("done", "floods", "stdout.log")).size)
    assert.equal("\255\254\0", site:read("done", "bytes", "stdout.log"))
    assert.not_equal("success", site:result("fills").state)
    assert.is_true(ended.memory < 40 * 1024, ended.memory .. " KiB")
    nothing_left()
  end)

  it("end with the job when it is cancelled, and hear its last words", function()
    if not need() then return end
    local site <close> = sites.new()
    local run <close> = start(site, { { "docker" } })
    site:drop("a.sh", "trap 'echo bye; exit 0' TERM; echo here; while :; do sleep 0.1; done")
    program.eventually(function() return #daemon:containers() == 1 end)
    run:says "job%.started"
    task.sleep(1)
    run:signal "QUIT"
    run:wait()
    assert.equal("cancelled", site:result("a").state)
    assert.equal("here\nbye\n", site:read("done", "a", "stdout.log"))
    nothing_left()
  end)

  it("of a worker that was killed are removed by the next, and nobody else's", function()
    if not need() then return end
    local site <close> = sites.new()
    local client <close> = engine.open { host = daemon.host, owner = "somebody else" }
    local other <close> = client:container()
    other:create { Image = IMAGE, Entrypoint = { "sleep", "600" },
      Labels = require("worker.engine.owner").labels(client, "theirs") }
    other:start()
    do
      local run <close> = start(site, { { "docker" } })
      site:drop("a.sh", "sleep 600")
      program.eventually(function() return #daemon:containers() == 2 end)
      run:signal "KILL"
      run:wait()
    end
    assert.equal(2, #daemon:containers())
    local run <close> = start(site, { { "docker" } })
    run:says "container%.orphan"
    assert.equal(1, #daemon:containers())
    assert.is_true(other:state().Running)
    run:signal "TERM"
    run:wait()
  end)

  it("that lose their engine are errors; the worker says so once and goes on when it is back", function()
    if not need() then return end
    local site <close> = sites.new()
    local own <close> = assert(docker.start()) -- not the one of the other tests
    own:image(IMAGE)
    local run <close> = start(site, { { "docker" } }, nil, own.host)
    site:drop("a.sh", "sleep 600")
    program.eventually(function() return #own:containers() == 1 end)
    own:kill()
    local lost = site:result "a"
    assert.equal("error", lost.state)
    assert.matches("engine", lost.reason)
    site:drop("b.sh", "echo again")
    run:says "executor%.failing"
    own:restart()
    assert.equal("success", site:result("b").state)
    run:says "executor%.back"
    local _, times = table.concat(run.stderr):gsub("executor%.failing", "")
    assert.equal(1, times)
    program.eventually(function() return #own:containers() == 0 end)
    run:signal "TERM"
    run:wait()
  end)

  it("under gVisor have a kernel of their own, and the same results", function()
    if not need(true) then return end
    local site <close> = sites.new()
    site:drop("kernel.sh", "cat /proc/version; id -u; echo err >&2; exit 5")
    site:drop("sleeps.json", json.encode { script = "sleep 60", timeout = 2 })
    site:drop("file.json", json.encode { argv = { "cat", "/code.txt" }, files = { ["/code.txt"] = "text" } })
    local run <close> = start(site, { { "gvisor" } }, { "--once" })
    run:wait()
    local result = site:result "kernel"
    assert.same({ "failed", 5, "gvisor", "runsc" }, { result.state, result.exit_code, result.executor, result.runtime })
    assert.matches("^Linux version 4%.4%.0.*\n65534\n$", site:read("done", "kernel", "stdout.log"))
    assert.equal("timeout", site:result("sleeps").state)
    assert.equal("text", site:read("done", "file", "stdout.log"))
    nothing_left()
  end)

  it("fall back to the next engine, and say who ran the job and why", function()
    if not need() then return end
    local site <close> = sites.new()
    site:drop("falls.sh", "echo hi")
    site:drop("strict.json", json.encode { script = "echo hi", executor = "gvisor", strict = true })
    site:drop("wants.json", json.encode { script = "echo hi", executor = "docker" })
    local run <close> = start(site, { { "gvisor", "runtime: kata" }, { "docker" } }, { "--once" })
    local ended = run:wait()
    local result = site:result "falls"
    assert.same({ "success", "docker", "gvisor", true },
      { result.state, result.executor, result.fallback.asked, result.fallback.weaker })
    assert.matches("no runtime kata", result.fallback.reason)
    assert.matches("job%.fallback", ended.stderr)
    assert.equal("error", site:result("strict").state)
    assert.matches("no runtime kata", site:result("strict").reason)
    assert.equal("docker", site:result("wants").executor)
    assert.is_nil(site:result("wants").fallback)
    nothing_left()
  end)

  it("without their image are an error that says why, not a failure of the job", function()
    if not need() then return end
    local site <close> = sites.new()
    site:drop("a.json", json.encode { image = "absent:1", script = "true" })
    site:drop("b.json", json.encode { argv = { "nope" } })
    local run <close> = start(site, { { "docker" } }, { "--once" })
    run:wait()
    assert.equal("error", site:result("a").state)
    assert.matches("absent:1 is not on this machine", site:result("a").reason)
    assert.equal("error", site:result("b").state)
    assert.matches('exec: "nope"', site:result("b").reason)
    nothing_left()
  end)
end)
