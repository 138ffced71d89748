-- The queue service as a worker meets it: what it is asked, what it is told, what goes wrong.
local http = require "worker.http"
local json = require "worker.json"
local queue = require "spec.support.queue"
local server = require "spec.support.server"
local sock = require "worker.sock"
local sys = require "worker.core.sys"
local task = require "worker.task"
local vulcan = require "spec.support.vulcan"

local asked, lines, reported, wait_for = queue.asked, queue.lines, queue.reported, queue.wait_for

-- A program that prints and ends like this.
local function ends(exit_code, stdout, stderr)
  return function(_, ctx)
    if stdout then ctx.log("stdout", stdout) end
    if stderr then ctx.log("stderr", stderr) end
    return { state = exit_code == 0 and "success" or "failed", exit_code = exit_code }
  end
end

local function sleeps(seconds)
  return function()
    task.sleep(seconds)
    return { state = "success", exit_code = 0 }
  end
end

-- One task on a worker of its own: its report, the fake, the worker.
local function run_one(job, run, fields, options)
  local fake = queue.fake()
  local id = fake:add(job)
  options = options or {}
  options.run = run
  local worker = queue.worker(fake, fields, options)
  return reported(fake, id), fake, worker
end

-- When the n-th pull came, seen from the one before.
local function gaps(fake)
  local list, pulls = {}, asked(fake, "next")
  for i = 2, #pulls do list[i - 1] = math.floor(pulls[i].at - pulls[i - 1].at + 0.5) end
  return list
end

describe("the queue asks", function()
  it("an empty queue again after a second, and says nothing about it", function()
    local fake = queue.fake()
    queue.worker(fake, { websocket = "off" })
    wait_for(function() return #asked(fake, "next") >= 6 end)
    assert.same({ 1, 1, 1, 1, 1 }, gaps(fake))
    assert.equal(0, #lines "failed_to_get_task" + #lines "worker_error" + #lines "queue_connection_failed")
    assert.equal(#fake.seen, #asked(fake, "next"))
  end)

  it("again at once after a task", function()
    local fake = queue.fake { jobs = { "a", "b", "c" } }
    queue.worker(fake)
    wait_for(function() return #fake.reports == 3 end)
    assert.same({ 0, 0 }, { table.unpack(gaps(fake), 1, 2) })
  end)

  it("a queue that is down after 5, 10, 15, 20, 25, 30, 30 seconds, and from 5 again once it was up", function()
    local fake = queue.fake()
    fake:bend_all("next", vulcan.instead(server.reset "before"))
    queue.worker(fake)
    wait_for(function() return #asked(fake, "next") >= 8 end)
    assert.same({ 5, 10, 15, 20, 25, 30, 30 }, gaps(fake))
    assert.equal(1, #lines "queue_connection_failed")
    fake:bend_all("next", nil)
    wait_for(function() return #asked(fake, "next") >= 11 end)
    fake:bend_all("next", vulcan.instead(server.reset "before"))
    local seen = #asked(fake, "next")
    -- the first one goes out on a kept connection, so that it is repeated at once on a new one
    wait_for(function() return #asked(fake, "next") >= seen + 4 end)
    assert.same({ 0, 5, 10 }, { table.unpack(gaps(fake), seen + 1, seen + 3) })
    assert.equal(2, #lines "queue_connection_failed")
  end)

  it("a queue that is not there yet, however long that takes", function()
    local fake = queue.fake { jobs = { "a" } }
    fake:stop()
    local worker = queue.worker(fake)
    task.sleep(300)
    assert.equal("degraded", http.client({ base = worker:health() }):get("/health").json.status)
    fake:start()
    wait_for(function() return #fake.reports == 1 end)
    assert.equal(fake.url, lines("queue_connection_failed")[1].queue_url)
  end)

  for what, answer in pairs {
    ["500"] = server.text(500, "Internal Server Error"), ["401"] = server.json(401, { detail = "no" }),
    ["403"] = server.text(403, "forbidden"), ["503"] = server.empty(503), ["204"] = server.empty(204),
    ["302"] = server.status(302, { Location = "http://127.0.0.1:1/" }), ["200 with HTML"] = server.text(200, "<html>"),
    ["half a body"] = server.truncated(10, { total = 100 }), ["garbage"] = server.garbage "\0\1\2",
    ["nothing for longer than the patience"] = server.hang(), ["a text"] = server.json(200, "task"),
    ["a task without an id"] = server.json(200, { code = "x" }), ["an empty id"] = server.json(200, { eval_id = "", code = "x" }),
  } do
    it("and hears " .. what .. ": told once, asked again after 5 s, nothing is lost or done twice", function()
      local fake = queue.fake { jobs = { "a" } }
      fake:bend("next", vulcan.instead(answer), vulcan.instead(answer))
      queue.worker(fake)
      wait_for(function() return #fake.reports == 1 end)
      assert.equal(1, #lines "failed_to_get_task" + #lines "worker_error" + #lines "queue_connection_failed")
      task.sleep(10)
      assert.equal(1, #fake.reports)
      local waits = gaps(fake)
      assert.is_true(waits[1] >= 5 and waits[2] >= 10, json.encode(waits))
    end)
  end

  it("and tells the status and the words of a refusal", function()
    local fake = queue.fake()
    fake:bend("next", vulcan.instead(server.json(401, { detail = "who are you" })))
    queue.worker(fake)
    local line = wait_for(function() return lines("failed_to_get_task")[1] end)
    assert.same({ 401, '{"detail":"who are you"}', "error" }, { line.status_code, line.response, line.level })
  end)

  it("a queue whose task cannot be encoded once more, and gets the following task", function()
    local fake = queue.fake { jobs = { { code = "x", unreadable = true }, "b" } }
    queue.worker(fake)
    local _, second = next(fake.tasks)
    assert.is_truthy(second)
    wait_for(function() return #fake.reports == 1 end)
    assert.equal(500, lines("failed_to_get_task")[1].status_code)
    assert.same({ 5 }, { gaps(fake)[1] })
  end)

  it("a queue that says null for an id without a task, and goes on", function()
    local fake = queue.fake { jobs = { "a" } }
    table.insert(fake.line, 1, "gone")
    queue.worker(fake)
    wait_for(function() return #fake.reports == 1 end)
    assert.equal(1, gaps(fake)[1])
  end)

  it("where a 404 means that there is nothing, and where it means a wrong address", function()
    local fake = queue.fake()
    fake:bend("next", vulcan.instead(server.json(404, { detail = "No tasks" })))
    queue.worker(fake)
    wait_for(function() return #asked(fake, "next") >= 3 end)
    assert.same({ 1, 1 }, gaps(fake))
    assert.equal(0, #lines "failed_to_get_task")
    local elsewhere = queue.fake()
    queue.worker(elsewhere, nil, { url = elsewhere.url .. "/api" })
    local line = wait_for(function() return lines("failed_to_get_task")[1] end)
    assert.matches("see QUEUE_SERVICE_URL", line.message)
    local paths = {}
    for _, seen in ipairs(elsewhere.seen) do paths[seen.path] = true end
    assert.is_true(paths["/api/tasks/next"])
  end)

  it("below the address it was given, with or without a slash at its end", function()
    for _, tail in ipairs { "", "/", "//" } do
      local fake = queue.fake { jobs = { "a" } }
      queue.worker(fake, nil, { url = fake.url .. tail })
      wait_for(function() return #fake.reports == 1 end)
      assert.equal("/tasks/next", asked(fake, "next")[1].path)
    end
  end)

  it("with the key in every request, and without a header when there is none or an empty one", function()
    for _, key in ipairs { "k-3f9a77", "", false } do
      local fake = queue.fake { jobs = { "a" } }
      queue.worker(fake, nil, { env = { API_KEY = key or nil } })
      wait_for(function() return #fake.reports == 1 end)
      for _, seen in ipairs(fake.seen) do
        assert.equal(key ~= "" and key or nil, seen.headers["x-api-key"])
      end
    end
  end)

  it("and stops at once while it waits", function()
    local fake = queue.fake()
    fake:stop()
    local worker = queue.worker(fake)
    task.sleep(100)
    local began = sys.mono()
    assert.equal(0, worker:stop())
    assert.is_true(sys.mono() - began < 1)
    assert.equal(1, #lines "worker_shutting_down")
    assert.equal("w-7", lines("worker_stopped")[1].worker_id)
  end)

  it("for no more while it stops, and reports what runs", function()
    local fake = queue.fake { jobs = { "a", "b" } }
    local worker = queue.worker(fake, nil, { run = sleeps(60) })
    wait_for(function() return worker.server.running == 1 end)
    worker:stop()
    assert.equal(1, #fake.reports)
    assert.equal("complete", fake.reports[1].way)
    assert.equal(1, #asked(fake, "next"))
  end)

  it("nothing as long as no engine works, so that no task is taken for nothing", function()
    local fake = queue.fake { jobs = { "a" } }
    local broken = { docker = "no daemon", gvisor = "no daemon" }
    queue.worker(fake, nil, { broken = broken })
    task.sleep(600)
    assert.equal(0, #asked(fake, "next"))
    assert.equal(1, #lines "docker_engine_unavailable")
    assert.equal(1, #lines "no_execution_engines_available")
    broken.docker = nil
    wait_for(function() return #fake.reports == 1 end)
    assert.equal(1, #lines "docker_engine_initialized")
  end)
end)

describe("the queue hands out", function()
  it("a task whose code reaches the container byte by byte, with its command and its limit", function()
    local code = "print('é \u{1F600}')\r\n#\0\t" .. ("x"):rep(200 * 1024)
    local got
    run_one({ code = code, timeout = 7 }, function(job)
      got = job
      return { state = "success" }
    end)
    assert.equal(code, got.files["/code.py"])
    assert.same({ "python", "-u", "/code.py" }, got.argv)
    assert.equal(7, got.timeout)
    assert.is_nil(got.image)
  end)

  it("code for an engine that does not see our files: on standard input", function()
    local got
    local function note(job)
      got = job
      return { state = "success" }
    end
    run_one({ code = "print(1)\0" }, note, { code = "stdin" })
    assert.same({ { "python", "-u", "-" }, "print(1)\0" }, { got.argv, got.stdin })
    assert.is_nil(got.files)
    run_one({ code = "1", language = "sh" }, note, { languages = { sh = { command = { "sh" }, file = "-" } } })
    assert.same({ { "sh" }, "1" }, { got.argv, got.stdin })
  end)

  it("silly timeouts: they are clamped, and the task is reported", function()
    for given, wanted in pairs { [0] = 1, [-4] = 1, [json.number "999999999999999999999"] = 3600, [30] = 30 } do
      local got
      run_one({ code = "x", timeout = given }, function(job)
        got = job.timeout
        return { state = "success" }
      end)
      assert.equal(wanted, got)
    end
  end)

  it("a task without a timeout, a language, an engine: the usual ones", function()
    for _, task_ in ipairs { { eval_id = "a", code = "x" },
      { eval_id = "a", code = "x", timeout = true, language = 7, engine = json.null } } do
      local fake, got = queue.fake(), nil
      fake:bend("next", vulcan.instead(server.json(200, task_)))
      queue.worker(fake, { timeout = "45s" }, { run = function(job, _, name)
        got = { job.timeout, job.language, name }
        return { state = "success" }
      end })
      wait_for(function() return got end)
      assert.same({ 45, "python", "docker" }, got)
    end
  end)

  it("other languages, each with its image and its command", function()
    local fields = { languages = { node = { image = "node:20", command = { "node", "/code.js" }, file = "/code.js" },
      sh = { command = { "sh", "-c", "{code}" } } } }
    local got = {}
    local function note(job)
      got = job
      return { state = "success" }
    end
    run_one({ code = "1", language = "node" }, note, fields)
    assert.same({ "node:20", { "node", "/code.js" }, { ["/code.js"] = "1" } }, { got.image, got.argv, got.files })
    run_one({ code = "echo", language = "sh" }, note, fields)
    assert.same({ "sh", "-c", "echo" }, got.argv)
    assert.is_nil(got.files)
    run_one({ code = "1", language = "py" }, note, fields)
    assert.same({ "python", "-u", "/code.py" }, got.argv)
  end)

  it("a language that nobody here knows: a failure that says so", function()
    local report = run_one({ code = "1", language = "cobol" }, ends(0))
    assert.equal("fail", report.way)
    assert.matches("no way to run the language 'cobol'", report.body.error)
    assert.equal("w-7", lines("task_failed")[1].worker)
  end)

  it("code that is no text: a failure, and the next task", function()
    local fake = queue.fake { jobs = { "b" } }
    fake:bend("next", vulcan.instead(server.json(200, { eval_id = "a", code = { 1 } })))
    queue.worker(fake)
    wait_for(function() return #fake.reports == 2 end)
    assert.same({ "a", "fail" }, { fake.reports[1].id, fake.reports[1].way })
    assert.matches("no text", fake.reports[1].body.error)
    assert.equal("complete", fake.reports[2].way)
  end)

  it("ids with every character: each is reported where it belongs", function()
    for _, id in ipairs { "sp ace?q#h%41é", "a:b", "next", "..", ".", "%2e%2e", "a+b&c=d", "\u{1F600}", "\1\127" } do
      local report = run_one({ eval_id = id, code = "x" }, ends(0))
      assert.equal(id, report.id)
      assert.equal(id, report.body.output.id)
    end
  end)

  it("an id with a slash, which cannot be reported: told, and the next task", function()
    local fake = queue.fake { jobs = { { eval_id = "a/b", code = "x" }, { eval_id = "c", code = "x" } } }
    queue.worker(fake)
    reported(fake, "c")
    assert.matches("does not know it", lines("task_completed_successfully")[1].message)
    local paths = {}
    for _, seen in ipairs(fake.seen) do paths[seen.path] = true end
    assert.is_true(paths["/tasks/a%2Fb/complete"])
  end)

  it("an id of ten thousand characters", function()
    local id = ("é"):rep(5000)
    assert.equal(id, run_one({ eval_id = id, code = "x" }, ends(0)).id)
  end)

  it("an id twice: both run, the second report is final, and is no failure", function()
    local fake = queue.fake { jobs = { { eval_id = "a", code = "old" }, { eval_id = "a", code = "new" } } }
    local codes = {}
    queue.worker(fake, nil, { run = function(job)
      codes[#codes + 1] = job.files["/code.py"]
      return { state = "success" }
    end })
    wait_for(function() return #fake.reports == 1 end)
    task.sleep(600)
    assert.same({ "new" }, codes)
    assert.equal(1, #asked(fake, "complete"))
    assert.equal(0, #asked(fake, "fail"))
  end)

  it("more tasks at once where there are slots, each once", function()
    local fake = queue.fake()
    for i = 1, 50 do fake:add { eval_id = tostring(i), code = "x" } end
    local now, most = 0, 0
    queue.worker(fake, nil, { slots = 8, run = function()
      now = now + 1
      most = math.max(most, now)
      task.sleep(1)
      now = now - 1
      return { state = "success" }
    end })
    wait_for(function() return #fake.reports == 50 end)
    assert.equal(8, most)
  end)

  it("fifty tasks to two workers: each is done once, and begun in order", function()
    local fake, order = queue.fake(), {}
    for i = 1, 50 do fake:add { eval_id = tostring(i), code = "x" } end
    local function note(job)
      order[#order + 1] = tonumber(job.eval_id)
      task.sleep(math.random())
      return { state = "success" }
    end
    queue.worker(fake, nil, { run = note })
    queue.worker(fake, nil, { run = note })
    wait_for(function() return #fake.reports == 50 end)
    for i, number in ipairs(order) do assert.equal(i, number) end
    for _, report in ipairs(fake.reports) do assert.equal(200, report.status) end
  end)
end)

describe("the queue's tasks run", function()
  it("on the engine that they ask for", function()
    for _, name in ipairs { "docker", "gvisor" } do
      local used
      run_one({ code = "x", engine = name }, function(_, _, engine)
        used = engine
        return { state = "success", runtime = engine == "gvisor" and "runsc" or nil }
      end)
      assert.equal(name, used)
    end
    assert.equal(0, #lines "engine_fallback")
  end)

  it("on docker when gVisor is not there, with a warning and a word in the report", function()
    local report, _, worker = run_one({ code = "x", engine = "gvisor" }, ends(0), nil, { broken = { gvisor = "no runsc" } })
    local line = lines("engine_fallback")[1]
    assert.same({ "gvisor", "docker", "warn", "w-7" }, { line.requested, line.using, line.level, line.worker })
    assert.same({ asked = "gvisor", used = "docker", reason = "gvisor: no runsc", weaker = true }, report.body.output.fallback)
    assert.equal("docker", report.body.output.engine)
    assert.same({ "docker" }, http.client({ base = worker:health() }):get("/health").json.engines)
  end)

  it("nowhere else when that is forbidden: a failure with the reason", function()
    local report = run_one({ code = "x", engine = "gvisor" }, ends(0), nil, { broken = { gvisor = "no runsc" }, strict = true })
    assert.equal("fail", report.way)
    assert.matches("no runsc", report.body.error)
  end)

  it("on docker when nobody knows the engine", function()
    local report = run_one({ code = "x", engine = "firecracker" }, ends(0))
    assert.same({ "docker", "completed" }, { report.body.output.engine, report.body.output.status })
    assert.same({ "firecracker", "docker" }, { lines("engine_fallback")[1].requested, lines("engine_fallback")[1].using })
  end)

  it("only if this worker takes them; others go back to the end of the line", function()
    local fake = queue.fake { jobs = { { eval_id = "a", code = "x", engine = "docker", timeout = 7 },
      { eval_id = "b", code = "x", engine = "gvisor" } }, api_key = "secret-key" }
    queue.worker(fake, { take = { engines = { "gvisor" } } }, { env = { API_KEY = "secret-key" } })
    assert.equal("completed", reported(fake, "b").body.output.status)
    task.sleep(10)
    assert.equal("queued", fake.tasks.a.status)
    assert.equal(7, fake.tasks.a.timeout)
    assert.is_nil(fake:report "a")
  end)

  it("only if this worker takes them; others fail where they cannot go back, or should not", function()
    for _, case in ipairs { { { languages = { "node" } }, "key" }, { { languages = { "node" }, others = "fail" }, "" } } do
      local fake = queue.fake { jobs = { { eval_id = "a", code = "x" } }, api_key = case[2] }
      queue.worker(fake, { take = case[1] })
      local report = reported(fake, "a")
      assert.equal("fail", report.way)
      assert.matches("takes no tasks for engine 'docker' in python", report.body.error)
    end
  end)

  it("with the choice made by the queue, where it can", function()
    local fake = queue.fake { jobs = { { eval_id = "a", code = "x" }, { eval_id = "b", code = "x", language = "node" } },
      filters = true }
    queue.worker(fake, { take = { languages = { "node" } }, languages = { node = { command = { "node", "/code" } } } })
    reported(fake, "b")
    assert.equal("queued", fake.tasks.a.status)
    assert.same({ language = "node" }, asked(fake, "next")[1].query)
  end)
end)

describe("the queue's worker", function()
  it("answers /health in the README's form while it works", function()
    local fake = queue.fake { jobs = { "a" } }
    local worker = queue.worker(fake, nil, { run = sleeps(20), env = { API_KEY = "k-3f9a77" } })
    local url = worker:health()
    wait_for(function() return worker.server.running == 1 end)
    local silent <close> = sock.connect { address = url:match "//(.*)$" } -- says nothing, and holds nobody up
    local reply = http.client({ base = url }):get "/health"
    assert.same({ status = "healthy", worker_id = "w-7", engines = { "docker", "gvisor" }, queue_url = fake.url }, reply.json)
    assert.is_nil(reply.body:find "3f9a77")
    assert.is_true(silent:is_open())
  end)

  it("answers /health as queue-worker did, when it is one", function()
    local fake = queue.fake()
    local worker = queue.worker(fake, { dialect = "queue-worker" })
    wait_for(function() return #fake.seen > 0 end)
    assert.same({ status = "healthy", service = "queue-worker", details = { worker_id = "w-7", status = "idle",
      tasks_routed = 0, executors = { total = 2, healthy = 2, health = { "docker", "gvisor" } } } },
      http.client({ base = worker:health() }):get("/health").json)
  end)

  it("tells its life in the README's words and fields", function()
    local report = run_one({ eval_id = "abc", code = "x" }, ends(3, "größe\n"))
    local started = lines("processing_task_started")[1]
    assert.same({ "abc", "docker", "w-7" }, { started.eval_id, started.engine, started.worker })
    assert.matches("^%d%d%d%d%-%d%d%-%d%dT%d%d:%d%d:%d%d.*Z$", started.timestamp)
    local done = lines("task_completed_successfully")[1]
    assert.same({ "failed", 6, "abc", "docker", "w-7" },
      { done.status, done.output_length, done.eval_id, done.engine, done.worker })
    assert.equal("failed", report.body.output.status)
    assert.same({ "w-7", "docker, gvisor" }, { lines("worker_started")[1].worker_id, lines("worker_started")[1].engines })
    assert.equal(1, #lines "docker_engine_initialized")
    assert.equal(1, #lines "gvisor_engine_initialized")
  end)

  it("takes its settings from the README's variables, and has the README's defaults", function()
    local conf = queue.conf({}, { QUEUE_SERVICE_URL = "http://q:1", API_SERVICE_URL = "http://a:2", API_KEY = "k",
      HOSTNAME = "h" })
    assert.same({ "http://q:1", "http://a:2", "h" }, { conf.url, conf.api_url, conf.worker_id })
    assert.equal("k", conf.api_key:reveal())
    local usual, plugin = queue.conf()
    assert.same({ "http://queue:8081", "http://api:8080", "worker-1" }, { usual.url, usual.api_url, usual.worker_id })
    local suggests = plugin.suggests(usual)
    assert.same({ "0.0.0.0:8082", "json", "python:3.11-slim" },
      { suggests.health, suggests.log, suggests.executor[1].docker.image })
    assert.equal("k2", queue.conf({}, { QUEUE_API_KEY = "k2" }).api_key:reveal())
    assert.equal(3, queue.conf({}, { EXECUTOR_COUNT = "3" }).concurrency)
  end)
end)

describe("the queue's WebSocket", function()
  it("brings a task at once, where the queue has one", function()
    local fake = queue.fake { websocket = true }
    queue.worker(fake)
    wait_for(function() return #fake.sockets == 1 end)
    task.sleep(3.5)
    local pulls, at = #asked(fake, "next"), sys.mono()
    local report = reported(fake, fake:add "x")
    assert.is_true(report.at - at < 0.1)
    assert.equal(pulls + 1, #asked(fake, "next") - (asked(fake, "next")[#asked(fake, "next")].at > report.at and 1 or 0))
    assert.equal(1, #lines "queue_websocket_connected")
  end)

  it("spares the queue most of the asking, and never all of it", function()
    local fake = queue.fake { websocket = true }
    queue.worker(fake)
    task.sleep(301)
    local pulls = #asked(fake, "next")
    assert.is_true(pulls >= 10 and pulls <= 12, tostring(pulls))
  end)

  it("is done without where there is none, and sought again now and then", function()
    local fake = queue.fake()
    queue.worker(fake)
    task.sleep(1500)
    local tries = 0
    for _, seen in ipairs(fake.seen) do tries = tries + (seen.path == "/ws" and 1 or 0) end
    assert.equal(3, tries)
    assert.is_true(#asked(fake, "next") > 1000)
    assert.equal(0, #lines "queue_websocket_lost")
  end)

  it("is not lost while every slot is busy", function()
    local fake = queue.fake { websocket = true, jobs = { { eval_id = "a", code = "x", timeout = 600 } } }
    queue.worker(fake, nil, { run = sleeps(500) })
    reported(fake, "a")
    assert.same({ 1, 0 }, { #lines "queue_websocket_connected", #lines "queue_websocket_lost" })
  end)

  it("that is lost is told once, and the queue is polled until there is one again", function()
    local fake = queue.fake { websocket = true }
    queue.worker(fake)
    wait_for(function() return #fake.sockets == 1 end)
    fake:stop()
    task.sleep(100)
    fake:start()
    wait_for(function() return #fake.sockets == 1 end)
    assert.same({ 2, 1 }, { #lines "queue_websocket_connected", #lines "queue_websocket_lost" })
    reported(fake, fake:add "x")
  end)

  it("keeps nobody from stopping at once", function()
    local fake = queue.fake { websocket = true }
    local worker = queue.worker(fake)
    wait_for(function() return #fake.sockets == 1 end)
    task.sleep(5)
    local began = sys.mono()
    worker:stop()
    assert.is_true(sys.mono() - began < 5)
  end)

  it("is not sought when it is switched off", function()
    local fake = queue.fake { websocket = true }
    queue.worker(fake, { websocket = "off" })
    task.sleep(50)
    assert.equal(#fake.seen, #asked(fake, "next"))
    assert.equal(0, #fake.sockets)
  end)
end)
