-- `worker callback` with real processes, signals and connections.
local fs = require "worker.fs"
local json = require "worker.json"
local program = require "spec.support.program"
local scratch = require "spec.support.scratch"
local server = require "spec.support.server"
local task = require "worker.task"

describe("worker callback #realtime", function()
  local dir, fake

  before_each(function()
    dir = scratch.dir()
    fake = server.http({}, { any = server.status(200) })
  end)
  after_each(function() getmetatable(dir).__close(dir) end)

  local function start(options)
    local words = { "callback", cwd = dir.root, wrap = options.wrap,
      count_only = options.count_only, env = {
      WORKER_STATE = dir:path "state", WORKER_WORKSPACE = dir:path "work",
      WORKER_CONFIG = dir:write("worker.yaml", ("plugins: [ %s ]\n"):format(program.plugins)),
      TASK_ID = "t-1", PROJECT_ID = "p-1", CALLBACK_URL = fake.url .. "/cb" } }
    for name, value in pairs(options.env or {}) do words.env[name] = value or nil end
    table.move(options, 1, #options, #words + 1, words)
    return program.start(words)
  end

  local function run(options)
    local one <close> = start(options)
    return one:wait()
  end

  local function told() return fake:last().json end

  local function statuses()
    local words = {}
    for i, request in ipairs(fake.requests) do words[i] = request.json.status end
    return table.concat(words, " ")
  end

  local function nothing_is_left(tag)
    -- What is killed may take a moment to die on a busy machine.
    program.eventually(function() return #program.of_tag(tag) == 0 end)
    assert.same({}, fs.list(dir:path "work") or {})
  end

  it("runs the task between the two events and ends with 0", function()
    local result = run { "--", "sh", "-c", "echo $TASK_ID of $PROJECT_ID" }
    assert.equal(0, result.code)
    assert.equal("started completed", statuses())
    assert.equal("t-1 of p-1\n", told().stdout)
    assert.equal("t-1 of p-1\n", result.stdout)
    assert.equal("", run({ "--no-echo", "--", "echo", "hi" }).stdout)
  end)

  it("neither stops nor waits for long when nobody reads its output", function()
    local result = run { "--", "sh", "-c", "yes | head -c 3000000; echo done >&2",
      wrap = { "sh", "-c", '"$@" | head -n 1; true', "sh" } }
    assert.equal("y\n", result.stdout)
    assert.equal("started completed", statuses())
  end)

  it("takes the names that Descartes sets, and a program's path for an argument", function()
    local env = { TASK_ID = false, PROJECT_ID = false, CALLBACK_URL = false, DESCARTES_TASK_ID = "d",
      DESCARTES_PROJECT_ID = "q", DESCARTES_CALLBACK_URL = fake.url }
    assert.equal(0, run({ "/app/worker", "--", "true", env = env }).code)
    assert.equal("/completed d", fake:last().path .. " " .. told().task_id)
  end)

  it("takes the task of the command line before that of the environment", function()
    run { "--task", "b", "--", "true" }
    assert.equal("b", told().task_id)
  end)

  it("names every variable that is missing, tells nobody and ends with 78", function()
    local result = run { "--", "true", env = { CALLBACK_URL = false, PROJECT_ID = false } }
    assert.equal(78, result.code)
    assert.matches("not set: PROJECT_ID, CALLBACK_URL", result.stderr)
    assert.equal(0, fake:count())
  end)

  it("tells of a missing project or command, and ends with 78", function()
    assert.equal(78, run({ "--", "true", env = { PROJECT_ID = false } }).code)
    assert.equal("config", told().reason)
    assert.equal(78, run({}).code)
    assert.matches("nothing to run", told().error)
  end)

  for name, case in pairs {
    ["an exit code"] = { "exit 3", 3, { reason = "exit", exit_code = 3 } },
    ["a signal"] = { "kill -9 $$", 137, { reason = "signal", signal = 9 } },
    ["another signal"] = { "kill -SEGV $$", 139, { reason = "signal", signal = 11 } },
    ["a timeout"] = { "trap '' TERM; setsid sleep 70 & sleep 70", 124, { reason = "timeout" } },
  } do
    it(("ends with 0 when %s was told, or reflects it"):format(name), function()
      local line = { "--timeout", "300ms", "--grace", "400ms", "--", "sh", "-c", case[1] }
      assert.equal(0, run(line).code)
      for key, value in pairs(case[3]) do assert.equal(value, told()[key]) end
      table.insert(line, 1, "--reflect-exit-status")
      assert.equal(case[2], run(line).code)
      assert.equal("started failed started failed", statuses())
    end)
  end

  it("tells of a command that is not there or cannot be run", function()
    assert.equal(127, run({ "--reflect-exit-status", "--", "no-such-program-here" }).code)
    assert.equal("spawn", told().reason)
    assert.equal(126, run({ "--reflect-exit-status", "--", dir:write("plain", "text") }).code)
    assert.equal("spawn", told().reason)
  end)

  for name, number in pairs { TERM = 143, INT = 130 } do
    it("ends the task and tells that, when it gets SIG" .. name, function()
      for options, code in pairs { [{}] = 80, [{ "--reflect-exit-status" }] = number } do
        local tag = program.tag()
        local line = table.move({ "--", "sh", "-c", ("setsid sleep %s & trap '' TERM INT; echo up; sleep %s; sleep %s")
          :format(tag, tag, tag) }, 1, 4, #options + 1, options)
        table.insert(line, 1, "--grace=1s")
        local before = fake:count()
        local one <close> = start(line)
        fake:wait(before + 1)
        program.eventually(function() return #program.of_tag(tag) >= 3 end)
        one:signal(name)
        assert.equal(code, one:wait().code)
        assert.equal("terminated", told().reason)
        assert.equal("ended by SIG" .. name, told().error)
        nothing_is_left(tag)
      end
      assert.equal("started failed started failed", statuses())
    end)
  end

  it("keeps the event and says so when it is told a second time to stop while nobody answers", function()
    fake = server.http { ["POST /cb/started"] = server.status(200), ["POST /cb/completed"] = server.hang() }
    local one <close> = start { "--grace", "1m", "--", "sleep", program.tag() }
    fake:wait(1)
    one:signal "TERM"
    fake:wait(2)
    one:signal "INT"
    local result = one:wait()
    assert.equal(84, result.code)
    local line = json.decode(result.stderr:match("({\"undelivered\".-})\n"))
    assert.equal("failed", line.undelivered.event.status)
    assert.is_true(fs.exists(line.undelivered.file))
  end)

  it("does not run the task without an address that listens, and ends with 69", function()
    local url = fake.url
    fake:close()
    local marker = dir:path "marker"
    local result = run { "--delivery-start", "1s", "--", "touch", marker, env = { CALLBACK_URL = url } }
    assert.equal(69, result.code)
    assert.is_false(fs.exists(marker))
  end)

  it("delivers later what could not be delivered, signed and with the same id", function()
    fake = server.http { ["POST /cb/started"] = server.status(200), ["POST /cb/completed"] = server.sequence {
      server.reset "before", server.status(400), server.status(200) } }
    local result = run { "--delivery-finish", "1s", "--delivery-first", "10ms", "--", "true" }
    assert.equal(84, result.code)
    local file = json.decode(result.stderr:match("({\"undelivered\".-})\n")).undelivered.file
    local id = told().event_id
    result = run { "deliver", file, env = { CALLBACK_URL = false, TASK_ID = false, CALLBACK_SECRET = ("s"):rep(24) } }
    assert.equal(0, result.code)
    assert.equal(id, fake:last().headers["webhook-id"])
    assert.matches("^v1,", fake:last().headers["webhook-signature"])
    assert.is_false(fs.exists(file))
  end)

  it("shows the task none of its own secrets, and masks those that the task has", function()
    local result = run { "-v", "--", "sh", "-c", "env; echo $ANTHROPIC_API_KEY >&2", env = {
      CALLBACK_SECRET = ("s3cret"):rep(5), CALLBACK_TOKEN = "callback-t0ken", ANTHROPIC_API_KEY = "sk-ant-0123456789" } }
    for _, text in ipairs { fake:last().body, result.stderr, result.stdout } do
      for _, hidden in ipairs { "sk-ant-0123456789", "callback-t0ken", "s3crets3cret", "CALLBACK_" } do
        if hidden ~= "CALLBACK_" or text == fake:last().body then assert.is_nil(text:find(hidden, 1, true)) end
      end
    end
    assert.matches("ANTHROPIC_API_KEY=%*%*%*", told().stdout)
    assert.equal("***\n", told().stderr)
  end)

  it("warns of an error in an answer that says 200", function()
    fake = server.http({}, { any = server.json(200, { error = { message = "Parse error: a map" } }) })
    local result = run { "--", "true" }
    assert.equal(0, result.code)
    assert.matches("Parse error: a map", result.stderr)
  end)

  it("stays small while the task writes without end", function()
    local result = run { "--", "sh", "-c", "head -c 100000000 /dev/urandom; echo; echo the end", count_only = true }
    assert.equal(0, result.code)
    assert.matches("the end\n$", told().stdout)
    assert.is_true(told().output_truncated)
    if not program.binary:find("/asan/", 1, true) then assert.is_true(result.memory < 24 * 1024) end
  end)

  it("does not wonder about what a job of another worker finds in its environment", function()
    local result = run { "--", "true", env = { WORKER_JOB_ID = "a", WORKER_JOB_TAG = "b", WORKER_CGROUP = "auto" } }
    assert.is_nil(result.stderr:find("means nothing", 1, true))
  end)

  it("has the verification decide", function()
    assert.equal(0, run({ "--verify", "test -e made", "--", "touch", "made" }).code)
    assert.equal("completed", told().status)
    fs.remove(dir:path "made")
    run { "--verify", "test -e made", "--", "true" }
    assert.equal("failed verify", told().status .. " " .. told().reason)
  end)

  it("runs a SCUD task with its text on standard input", function()
    dir:write(".scud/tasks/tasks.scg", "# SCUD Graph v1\n# Phase: a\n\n@nodes\nt-1 | Paint | P | 3 | H\n")
    run { "--", "head", "-n", "1" }
    assert.equal("# Task t-1: Paint\n", told().stdout)
    assert.matches("t%-1 | Paint | D |", dir:read ".scud/tasks/tasks.scg")
  end)

  it("prints what it would send and reaches the address, and runs nothing", function()
    local result = run { "--dry-run", "--", "touch", "made" }
    assert.equal(0, result.code)
    assert.equal("OPTIONS", fake:last().method)
    assert.equal(1, fake:count())
    assert.matches('"status":"started"', result.stdout)
    assert.matches('"status":"failed"', result.stdout)
    assert.is_false(fs.exists(dir:path "made"))
    fake:close()
    assert.equal(69, run({ "--dry-run", "--", "true" }).code)
    assert.equal(78, run({ "--dry-run" }).code)
  end)

  it("leaves no task behind, whenever it is killed", function()
    for delay = 0, 0.1, 0.01 do
      local tag = program.tag()
      local one <close> = start { "--", "sh", "-c", ("setsid sleep %s & sleep %s & wait"):format(tag, tag) }
      task.sleep(delay)
      one:signal "KILL"
      one:wait()
      program.eventually(function() return #program.of_tag("sleep\0" .. tag) == 0 end)
    end
    local tag = program.tag()
    local one <close> = start { "--", "sh", "-c", ("(setsid sleep %s &); trap '' TERM; sleep %s"):format(tag, tag) }
    program.eventually(function() return #program.of_tag("sleep\0" .. tag) == 2 end)
    one:signal "KILL"
    program.eventually(function() return #program.of_tag(tag) == 0 end)
  end)
end)
