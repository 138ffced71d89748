-- The queue's tasks in real containers: the binary, a real dockerd with runc and runsc, real Python.
local docker = require "spec.support.docker"
local http = require "worker.http"
local json = require "worker.json"
local program = require "spec.support.program"
local queue = require "spec.support.queue"
local redis = require "spec.support.redis"
local scratch = require "spec.support.scratch"
local sys = require "worker.core.sys"
local task = require "worker.task"

local IMAGE = "python:3.11-slim"

-- What a task may do to its worker, and what has to come of it.
local PRINTS = "print('hi')"
local FAILS = "import sys\nprint('out')\nprint('err', file=sys.stderr)\nsys.exit(3)"
local SLEEPS = "import time\nprint('so far', flush=True)\ntime.sleep(600)"
local EATS = "x = bytearray(200 << 20)\nprint(len(x))"
local BOMBS = "import os, time\nfor _ in range(1000):\n  try:\n    if os.fork() == 0: time.sleep(60)\n"
  .. "  except OSError: pass\nprint('alive')"
local FLOODS = "import sys\nfor _ in range(200): sys.stdout.write('x' * ((1 << 20) - 1) + '\\n')\nprint('the end')"
local BYTES = "import os\nos.write(1, b'\\xff\\xfe\\x00')"
local CALLS = "import urllib.request\nurllib.request.urlopen('http://1.1.1.1/', timeout=5)"
local WRITES_ROOT = "open('/x', 'w')"
local WRITES_ETC = "open('/etc/passwd', 'a')"
local WRITES_TMP = "open('/tmp/x', 'w').write('x' * (1 << 20))\nprint(open('/tmp/x').read(1))"
local FILLS_TMP = "f = open('/tmp/x', 'wb')\nwhile True: f.write(b'x' * (1 << 20))"
local LOOKS = "import os\nprint(os.getuid(), sorted(k for k in os.environ if 'KEY' in k), os.path.exists('/var/run/docker.sock'))"
local UNICODE = "# -*- coding: utf-8 -*-\r\nprint('größe \u{1F600}')\r\n#" .. ("x"):rep(200 * 1024)

describe("the queue in containers #realtime", function()
  local daemon, missing

  setup(function()
    daemon, missing = docker.start()
    local python, why = true, nil
    if daemon then python, why = daemon:python(IMAGE) end
    if python then return end
    daemon:stop()
    daemon, missing = nil, why
  end)

  teardown(function()
    if daemon then daemon:stop() end
  end)

  local function need(sandbox)
    local why = docker.excuse(daemon, missing, sandbox)
    if why then pending(why) end
    return not why
  end

  -- The worker as its README says it is started, but for where its state and its health are.
  local function start(fake, dir, words, host, more)
    local all = { "--protocol", "queue", "--state", dir:path "state", "--health-address", dir:path "health.sock",
      env = { QUEUE_SERVICE_URL = fake.url, API_KEY = "k-3f9a77c2", HOSTNAME = "w-7",
      DOCKER_HOST = host or daemon.host, WORKER_CODE = "file" } }
    for name, value in pairs(more or {}) do all.env[name] = value end
    table.move(words or {}, 1, #(words or {}), #all + 1, all)
    all[#all + 1] = program.plugins
    return program.start(all)
  end

  local function eventually(what) return program.eventually(what) end

  local function reported(fake, id) return eventually(function() return fake:report(id) end) end

  -- Wait until so many tasks are in containers that run; before, the engine is tried out in one.
  local function runs(run, engine, n)
    run:says "worker_started"
    eventually(function() return #engine:containers "running" == n end)
  end

  local function nothing_left() assert.same({}, daemon:containers()) end

  -- The log of a worker, a table for each line.
  local function lines(run, event)
    local list = {}
    for line in table.concat(run.stderr):gmatch "[^\n]+" do
      local ok, value = pcall(json.decode, line)
      if ok and value.event == event then list[#list + 1] = value end
    end
    return list
  end

  it("report 32 tasks of all kinds once and rightly, at bounded memory, and leave nothing", function()
    if not need(true) then return end
    local dir <close> = scratch.dir()
    local fake = queue.fake()
    local wanted = {}
    local function add(n, code, status, more)
      for _ = 1, n do
        local job = { code = code }
        for name, value in pairs(more or {}) do job[name] = value end
        wanted[fake:add(job)] = { status = status, output = more and more.output, exit_code = more and more.exit_code,
          engine = job.engine or "docker" }
      end
    end
    add(5, PRINTS, "completed", { output = "^hi\n$", exit_code = 0 })
    add(2, PRINTS, "completed", { output = "^hi\n$", engine = "gvisor" })
    add(3, FAILS, "failed", { output = "^out\n$", exit_code = 3 })
    add(3, SLEEPS, "timeout", { timeout = 2 })
    add(1, SLEEPS, "timeout", { timeout = 3, engine = "gvisor" })
    add(3, EATS, "failed")
    add(2, BOMBS, "completed", { output = "^alive\n", timeout = 60 })
    add(2, FLOODS, "completed", { output = "^x+\n.*dropped.*\nthe end\n$", timeout = 120 })
    add(2, BYTES, "completed", { output = "^\u{FFFD}\u{FFFD}%z$" })
    add(2, CALLS, "failed", { output = "Network is unreachable" })
    add(1, CALLS, "failed", { output = "Error", engine = "gvisor" })
    add(1, WRITES_ROOT, "failed", { output = "Read%-only file system" })
    add(1, WRITES_ETC, "failed", { output = "Permission denied" })
    add(1, WRITES_TMP, "completed", { output = "^x\n$" })
    add(1, FILLS_TMP, "failed", { output = "No space left on device" })
    add(1, LOOKS, "completed", { output = "^65534 %[%] False\n$" })
    add(1, UNICODE, "completed", { output = "^größe \u{1F600}\n$" })
    assert.equal(32, #fake.line)
    local run <close> = start(fake, dir, { "--slots", "4" })
    eventually(function() return #fake.reports >= 32 end)
    local peak = run:peak()
    run:signal "TERM"
    local ended = run:wait()
    assert.equal(0, ended.code)
    assert.equal(32, #fake.reports)
    for id, want in pairs(wanted) do
      local report = fake:report(id)
      local output = report.body.output
      local told = json.encode { report.way, output.state, output.exit_code or 0, output.reason or "",
        (output.stdout or ""):sub(1, 200), (output.stderr or ""):sub(-300), output.error or "" }
      assert.equal("complete", report.way, told)
      assert.same({ want.status, want.engine }, { output.status, output.engine }, told)
      if want.output then assert.matches(want.output, output.output, 1, false, told) end
      if want.exit_code then assert.equal(want.exit_code, output.exit_code) end
    end
    local memory = { #lines(run, "task_completed_successfully"), #lines(run, "engine_fallback"), #lines(run, "task_failed") }
    assert.same({ 32, 0, 0 }, memory)
    assert.is_true(peak < 64 * 1024, peak .. " KiB")
    assert.is_nil(ended.stderr:find "3f9a77c2")
    nothing_left()
  end)

  it("are not run twice where results are kept, and the second report says so", function()
    if not need() then return end
    local dir <close> = scratch.dir()
    local fake = queue.fake()
    local same = { code = "import time\nprint(time.time())" }
    local first, second, other = fake:add(same), fake:add(same), fake:add { code = same.code .. "\n" }
    dir:write("worker.yaml", ("servers: [ { protocol: queue, executor: { docker: { image: %q, cache: { entries: 10 } } } } ]")
      :format(IMAGE))
    local run <close> = start(fake, dir, { "--config", dir:path "worker.yaml" })
    local fresh, seen, else_ = reported(fake, first), reported(fake, second), reported(fake, other)
    assert.is_nil(fresh.body.output.cached)
    assert.is_true(seen.body.output.cached)
    assert.equal(fresh.body.output.output, seen.body.output.output)
    assert.is_nil(else_.body.output.cached)
    assert.not_equal(fresh.body.output.output, else_.body.output.output)
    run:signal "TERM"
    run:wait()
  end)

  it("go on after their engine died under them and came back, which is told once each", function()
    if not need() then return end
    local dir <close> = scratch.dir()
    local own <close> = assert(docker.start()) -- not the one of the other tests
    assert(own:python(IMAGE))
    local fake = queue.fake { jobs = { { eval_id = "lost", code = SLEEPS, timeout = 600 } } }
    local run <close> = start(fake, dir, nil, own.host)
    runs(run, own, 1)
    task.sleep(1)
    own:kill()
    local output = reported(fake, "lost").body.output
    assert.equal("error", output.status)
    assert.matches("engine", output.error)
    fake:add { eval_id = "next", code = PRINTS }
    run:says "docker_engine_unavailable"
    task.sleep(2)
    assert.equal("queued", fake.tasks.next.status) -- not taken for nothing
    own:restart()
    assert.equal("completed", reported(fake, "next").body.output.status)
    run:signal "TERM"
    run:wait()
    assert.same({ 1, 2 }, { #lines(run, "docker_engine_unavailable"), #lines(run, "docker_engine_initialized") })
    assert.same({}, own:containers())
  end)

  it("run without a file of ours, for engines that see none", function()
    if not need(true) then return end
    local dir <close> = scratch.dir()
    local fake = queue.fake()
    local plain, big = fake:add { code = FAILS, engine = "gvisor" }, fake:add { code = UNICODE }
    local run <close> = start(fake, dir, { "--code", "stdin" })
    local output = reported(fake, plain).body.output
    assert.same({ "failed", 3, "out\n", "err\n" }, { output.status, output.exit_code, output.stdout, output.stderr })
    assert.equal("größe \u{1F600}\n", reported(fake, big).body.output.output)
    run:signal "TERM"
    run:wait()
  end)

  it("go on after the queue and Redis were restarted in the middle of a task, which is told once each", function()
    if not need() then return end
    local dir <close> = scratch.dir()
    local events <close> = redis.start()
    local fake = queue.fake { jobs = { { eval_id = "a", code = "import time\ntime.sleep(4)\nprint(1)" } } }
    local run <close> = start(fake, dir, nil, nil, { REDIS_URL = events.url })
    runs(run, daemon, 1)
    fake:stop()
    fake:forget()
    events:kill()
    task.sleep(6)
    fake:start()
    fake:add { eval_id = "b", code = PRINTS }
    assert.equal("completed", reported(fake, "b").body.output.status)
    run:says "sink%.failing"
    assert.is_true(events:start())
    local ear <close> = events:listen "evaluation:completed"
    run:says "sink%.back"
    fake:add { eval_id = "c", code = PRINTS }
    local _, message
    repeat
      _, message = ear:message(60)
    until json.decode(message).eval_id == "c"
    run:signal "TERM"
    run:wait()
    assert.same({ 1, 1, 1 }, { #lines(run, "sink.failing"), #lines(run, "sink.back"),
      #lines(run, "job.report_late") + #lines(run, "queue_connection_failed") })
    local told = lines(run, "task_completed_successfully")
    assert.equal(3, #told)
    assert.matches("does not know it", told[1].msg)
    assert.equal(3, #fake.reports)
    nothing_left()
  end)

  it("of a worker that was killed are reported as failed by its next life, and nothing is left of them", function()
    if not need() then return end
    local dir <close> = scratch.dir()
    local fake = queue.fake { jobs = { { eval_id = "a", code = SLEEPS, timeout = 600 } } }
    do
      local run <close> = start(fake, dir)
      runs(run, daemon, 1)
      run:signal "KILL"
      run:wait()
    end
    local run <close> = start(fake, dir)
    local report = reported(fake, "a")
    assert.equal("fail", report.way)
    assert.matches("interrupted", report.body.error)
    run:says "container%.orphan"
    nothing_left()
    run:signal "TERM"
    assert.equal(0, run:wait().code)
  end)

  it("are let to their end when the worker is asked to stop, and ended when it is asked again", function()
    if not need() then return end
    local dir <close> = scratch.dir()
    local fake = queue.fake { jobs = { { eval_id = "a", code = "import time\nprint('here', flush=True)\ntime.sleep(3)" },
      { eval_id = "b", code = SLEEPS, timeout = 600 }, { eval_id = "c", code = PRINTS } } }
    local run <close> = start(fake, dir, { "--slots", "2" })
    runs(run, daemon, 2)
    run:signal "TERM"
    assert.equal("completed", reported(fake, "a").body.output.status)
    run:signal "TERM"
    local report = reported(fake, "b")
    assert.equal("fail", report.way)
    run:wait()
    assert.equal("queued", fake.tasks.c.status)
    assert.equal(1, #lines(run, "worker_stopped"))
    nothing_left()
  end)

  it("keep nobody from asking how the worker is: within 100 ms, while every slot is busy", function()
    if not need() then return end
    local dir <close> = scratch.dir()
    local fake = queue.fake()
    for _ = 1, 4 do fake:add { code = FLOODS, timeout = 120 } end
    local run <close> = start(fake, dir, { "--slots", "4" })
    local api <close> = http.client { base = "http://localhost", unix = dir:path "health.sock" }
    runs(run, daemon, 4)
    local slow, asked = 0, 0
    while #fake.reports < 4 do
      local began = sys.mono()
      local body = api:get("/health").json
      slow, asked = slow + (sys.mono() - began > 0.1 and 1 or 0), asked + 1
      assert.same({ "w-7", fake.url }, { body.worker_id, body.queue_url })
      task.sleep(0.02)
    end
    -- other programs of this machine may hold up one or another
    assert.is_true(asked > 20 and slow <= asked // 10, ("%d of %d were slow"):format(slow, asked))
    run:signal "TERM"
    run:wait()
    nothing_left()
  end)

  it("find the defaults of the README in the configuration", function()
    local shown = program.run { "config", "show", "--protocol", "queue", program.plugins }.stdout
    assert.matches('health%.address: "0%.0%.0%.0:8082" .*suggested by queue', shown)
    assert.matches("url: http://queue:8081", shown)
  end)
end)
