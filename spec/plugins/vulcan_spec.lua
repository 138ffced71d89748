local json = require "worker.json"
local program = require "spec.support.program"
local registry = require "worker.registry"
local server = require "spec.support.server"
local sys = require "worker.core.sys"
local task = require "worker.task"
local vulcan = require "spec.support.vulcan"

local wait_for, asked = vulcan.wait_for, vulcan.asked

local function done(fake, n)
  return function()
    local ended = 0
    for _, row in ipairs(fake.store.list) do
      if row.status == "completed" or row.status == "failed" then ended = ended + 1 end
    end
    return ended >= (n or #fake.store.list)
  end
end

-- A job that takes so long and is well.
local function takes(seconds)
  return function()
    task.sleep(seconds)
    return { state = "success", exit_code = 0 }
  end
end

-- One script on a real worker: the fragment's row.
local function run(script, fields)
  local fake = vulcan.fake { jobs = { { script = script } } }
  vulcan.worker(fake, fields)
  wait_for(done(fake))
  return fake.store.list[1], fake
end

describe("vulcan runs", function()
  it("the happy path: completed, no message, the worker holds nothing #realtime", function()
    local row, fake = run "echo hi"
    assert.equal("completed", row.status)
    assert.equal(0, row.exit_code)
    assert.is_nil(row.error_message)
    assert.equal("completed", fake.store.chains[row.chain].status)
    assert.is_nil(fake.store.workers[row.worker].current)
    assert.equal(1, row.attempt)
  end)

  it("a failing script: failed with its stderr verbatim, and its exit code in the body #realtime", function()
    local row = run "echo err >&2; exit 3"
    assert.same({ "failed", "err\n", 3 }, { row.status, row.error_message, row.told.exit_code })
  end)

  it("a failing script that says nothing: the message names the code #realtime", function()
    assert.equal("Script exited with code 4", run("exit 4").error_message)
  end)

  it("a script that a signal ends: exit code -1, the signal is named, the next one runs #realtime", function()
    local fake = vulcan.fake { jobs = { "kill -9 $$", "echo next" } }
    vulcan.worker(fake)
    wait_for(done(fake))
    local row = fake.store.list[1]
    assert.equal(-1, row.told.exit_code)
    assert.equal("Script exited with code -1 (killed by SIGKILL)", row.error_message)
    assert.equal("completed", fake.store.list[2].status)
  end)

  it("a script over its time with children: reported soon, and no process of the group is left #realtime", function()
    local tag = program.tag()
    local row = run(("sleep %s & sleep %s; echo x"):format(tag, tag), { script_timeout = "300ms" })
    assert.same({ "failed", "Script execution timed out", -1 }, { row.status, row.error_message, row.told.exit_code })
    assert.same({}, program.of_tag(tag))
  end)

  it("a script that leaves a process behind on its output: reported at once, and it is ended #realtime", function()
    local tag = program.tag()
    local row = run(("sleep %s & echo hi"):format(tag))
    assert.equal("completed", row.status)
    wait_for(function() return #program.of_tag(tag) == 0 end)
  end)

  it("huge output: 100 MB on stdout is no matter, 10 MB on stderr become a message under 2 MiB #realtime", function()
    local fake = vulcan.fake { jobs = { "head -c 100000000 /dev/zero",
      [[head -c 10000000 /dev/zero | tr '\0' '\001' >&2; echo the end >&2; exit 1]] } }
    vulcan.worker(fake)
    wait_for(done(fake))
    assert.equal("completed", fake.store.list[1].status)
    local message = fake.store.list[2].error_message
    assert.matches("the end\n$", message)
    assert.is_true(#message > 200000)
    for _, seen in ipairs(asked(fake, "POST /work/result")) do assert.is_true(#seen.body < 2 * 1024 * 1024) end
  end)

  it("NUL and broken characters on stderr: failed on the server, not stuck #realtime", function()
    local row = run([[printf 'a\000b\377c' >&2; exit 2]])
    assert.same({ "failed", "a\u{FFFD}b\u{FFFD}c" }, { row.status, row.error_message })
  end)

  it("a null script: nothing, and says so; the worker goes on #realtime", function()
    local fake = vulcan.fake { jobs = { {}, "echo next" } }
    local ran = 0
    vulcan.worker(fake, nil, { run = function()
      ran = ran + 1
      return { state = "success", exit_code = 0 }
    end })
    wait_for(done(fake))
    local row = fake.store.list[1]
    assert.same({ "failed", "No script to execute", 1 }, { row.status, row.error_message, row.told.exit_code })
    assert.equal(1, ran)
  end)

  it("an empty script: completed with exit 0 #realtime", function()
    local row = run ""
    assert.same({ "completed", 0 }, { row.status, row.exit_code })
  end)

  it("a script of 200 KiB #realtime", function()
    local row = run("# " .. ("x"):rep(200 * 1024) .. "\necho the end of it >&2; exit 9")
    assert.same({ "the end of it\n", 9 }, { row.error_message, row.told.exit_code })
  end)

  it("a script with a NUL: reported as an error that names it #realtime", function()
    local row = run "echo a\0b"
    assert.matches("^Script could not be run: .*NUL", row.error_message)
    assert.equal(-1, row.told.exit_code)
  end)

  it("with stdin at its end: `cat` ends at once #realtime", function()
    local row = run "cat; echo done >&2; exit 5"
    assert.same({ "done\n", 5 }, { row.error_message, row.told.exit_code })
  end)

  it("a script that prints and is killed: its stderr, then how it ended #realtime", function()
    assert.equal("so far\nScript exited with code -1 (killed by SIGTERM)", run("echo so far >&2; kill $$").error_message)
  end)

  it("a fragment cancelled at the second signal: failed, and told so #realtime", function()
    local fake = vulcan.fake { jobs = { "sleep 1000" } }
    local worker = vulcan.worker(fake)
    wait_for(function() return fake.store.list[1].status == "running" and worker.server.running == 1 end)
    worker.server:drain("stop")
    worker.server:cancel_jobs("the worker stops")
    worker.handle:join()
    local row = fake.store.list[1]
    assert.same({ "failed", -1 }, { row.status, row.told.exit_code })
    assert.matches("Script was cancelled: the worker stops", row.error_message)
  end)

  it("with environment and secrets of this worker, the secrets masked in the message #realtime", function()
    local fake = vulcan.fake { jobs = { 'echo "$GREETING $TOKEN" >&2; exit 1' } }
    vulcan.worker(fake, nil, { policies = { { "workspace" },
      { "env", { set = { GREETING = "hello" }, secrets = { TOKEN = "hunter2-hunter2" } } }, { "mask" } } })
    wait_for(done(fake))
    assert.equal("hello ***\n", fake.store.list[1].error_message)
  end)
end)

describe("vulcan claims", function()
  it("as its group says: unset or empty takes everything, a name takes only that", function()
    local jobs = { { script = "a", machine = "default" }, { script = "b", machine = "other" }, "c" }
    for _, group in ipairs { false, "" } do
      local fake = vulcan.fake { jobs = jobs }
      local worker = vulcan.worker(fake, { group = group or nil }, { run = takes(1) })
      wait_for(done(fake))
      assert.matches('"machine_group":null', fake.seen[1].body)
      worker:stop()
    end
    local fake = vulcan.fake { jobs = jobs }
    vulcan.worker(fake, { group = "default" }, { run = takes(1) })
    task.sleep(60)
    assert.same({ "completed", "pending", "pending" }, { fake.store.list[1].status, fake.store.list[2].status,
      fake.store.list[3].status })
  end)

  it("from an empty queue by one kept connection, a request every interval", function()
    local fake = vulcan.fake()
    vulcan.worker(fake, { poll = "5s", heartbeat = "1000s", dead_after = "9999s" }, { run = takes(1) })
    task.sleep(100)
    local polls = asked(fake, "POST /work/request")
    assert.is_true(#polls >= 19 and #polls <= 21)
    for i = 2, #polls do assert.is_true(polls[i].at - polls[i - 1].at >= 4.9) end
    assert.is_true(fake.listener:counts().accepted <= 3)
  end)

  it("nothing from a 204 with a body, a 200 with null, an empty 200; and the next job is not lost", function()
    local fake = vulcan.fake { jobs = { "a" } }
    fake:bend("POST /work/request",
      function(_, reply)
        reply:send(204, { ["content-type"] = "application/json", ["content-length"] = 4 })
        reply.conn:write("null")
      end, vulcan.body "null", vulcan.body "")
    vulcan.worker(fake, nil, { run = takes(1) })
    wait_for(done(fake))
    assert.equal(1, fake.store.list[1].attempt)
    assert.equal(1, fake.store.list[1].reports)
  end)

  it("one step after the other, also behind one that failed, and steps of one turn at the same time", function()
    local fake = vulcan.fake { jobs = {
      { script = "0", chain = "c" }, { script = "0b", chain = "c" }, { script = "1", chain = "c", sequence = 1 } } }
    local running, most, order = 0, 0, {}
    local function script(job)
      running = running + 1
      most = math.max(most, running)
      order[#order + 1] = job.script
      task.sleep(5)
      running = running - 1
      return { state = "failed", exit_code = 1 }
    end
    for _ = 1, 2 do vulcan.worker(fake, nil, { run = script }) end
    wait_for(done(fake))
    assert.equal(2, most)
    assert.equal("1", order[3])
    assert.is_true(fake.store.list[3].started >= fake.store.list[1].told.at)
  end)

  it("with a registration of its own for each fragment that runs or is reported, used again and again", function()
    for slots, most in pairs { [1] = 1, [5] = 10 } do
      local fake = vulcan.fake()
      for i = 1, 30 do fake:add(tostring(i)) end
      vulcan.worker(fake, nil, { run = takes(3), slots = slots })
      wait_for(done(fake))
      assert.is_true(vulcan.workers(fake) >= slots and vulcan.workers(fake) <= most)
      for _, row in ipairs(fake.store.list) do assert.equal(1, row.reports) end
    end
  end)
end)

describe("vulcan, a fragment that is handed out again", function()
  it("by a claim that is under way when it ends runs and is reported once, where its registration may count as dead", function()
    local fake = vulcan.fake { jobs = { "a" } }
    local row, worker, asked_for, runs = fake.store.list[1], nil, 0, 0
    fake:bend_all("POST /work/request", function(_, reply, go)
      asked_for = asked_for + 1
      if asked_for ~= 2 then return reply:send(go()) end
      for _, member in pairs(worker.server.self.members) do member.late = member.late or member.id == row.worker end
      for _, seen in pairs(fake.store.workers) do
        if seen.current == row.id then seen.status, seen.current = "error", nil end
      end
      row.status, row.attempt, fake.store.unsorted = "pending", 2, true
      local answer = table.pack(go())
      task.sleep(8)
      return reply:send(table.unpack(answer, 1, answer.n))
    end)
    worker = vulcan.worker(fake, nil, { slots = 2, run = function()
      runs = runs + 1
      return takes(3)()
    end })
    task.sleep(60)
    assert.same({ "completed", 1, 1 }, { row.status, row.reports, runs })
    for _, seen in pairs(fake.store.workers) do assert.is_nil(seen.current) end
  end)

  it("while its report is on the way leaves no registration behind that holds it", function()
    local fake, runs = vulcan.fake { jobs = { "a" } }, 0
    local row = fake.store.list[1]
    fake:bend("POST /work/result", function(_, reply, go)
      for _, worker in pairs(fake.store.workers) do
        if worker.current == row.id then worker.status, worker.current = "error", nil end
      end
      row.status, row.attempt, fake.store.unsorted = "pending", 2, true
      task.sleep(8)
      return reply:send(go())
    end)
    local worker = vulcan.worker(fake, nil, { slots = 3, run = function()
      runs = runs + 1
      return takes(3)()
    end })
    task.sleep(60)
    assert.same({ 1, "completed" }, { runs, row.status })
    for _, seen in pairs(fake.store.workers) do assert.is_nil(seen.current) end
    worker:stop()
    task.sleep(60)
    assert.same({ "completed", 2 }, { row.status, row.attempt })
  end)
end)

describe("vulcan stays known", function()
  it("while many claims wait for a registration that takes long: what runs is not handed out again", function()
    local fake, registered = vulcan.fake(), 0
    for i = 1, 40 do fake:add(tostring(i)) end
    fake:bend_all("POST /workers/register", function(_, reply, go)
      registered = registered + 1
      if registered > 2 then task.sleep(4) end
      return reply:send(go())
    end)
    vulcan.worker(fake, nil, { slots = 32, run = takes(300) })
    task.sleep(290)
    for _, row in ipairs(fake.store.list) do assert.is_true(row.attempt <= 1) end
    assert.equal(0, vulcan.workers(fake, "error"))
  end)

  it("while a script runs: heartbeats go on, the fragment is not handed out again", function()
    local fake = vulcan.fake { jobs = { "long" }, heartbeat_timeout = 3, check_interval = 1 }
    vulcan.worker(fake, { heartbeat = "1s", dead_after = "3s" }, { run = takes(60) })
    wait_for(done(fake))
    assert.equal(1, fake.store.list[1].attempt)
    assert.equal(0, vulcan.workers(fake, "error"))
  end)

  it("when its row is gone while it is idle: one new registration, and work goes on", function()
    local fake = vulcan.fake()
    vulcan.worker(fake, { heartbeat = "2s", poll = "2s" }, { run = takes(1) })
    for _ = 1, 5 do
      task.sleep(10)
      for _, row in pairs(fake.store.workers) do fake.store:forget(row) end
    end
    task.sleep(10)
    assert.equal(6, #asked(fake, "POST /workers/register"))
    fake:add("echo hi")
    wait_for(done(fake))
  end)

  it("when its row is gone while a script runs: the result arrives under the new id", function()
    local fake = vulcan.fake { jobs = { "a" } }
    vulcan.worker(fake, { heartbeat = "1000s", dead_after = "9999s" }, { run = takes(20) })
    task.sleep(10)
    local old = next(fake.store.workers)
    fake.store:forget(fake.store.workers[old])
    wait_for(done(fake))
    local row = fake.store.list[1]
    assert.same({ "completed", 1 }, { row.status, row.reports })
    assert.not_equal(old, row.told.worker)
    assert.equal(2, #asked(fake, "POST /workers/register"))
  end)

  it("after an outage while idle: a fresh registration, no heartbeats of one that is dead", function()
    local fake = vulcan.fake { heartbeat_timeout = 3, check_interval = 1 }
    vulcan.worker(fake, { heartbeat = "1s", dead_after = "3s" }, { run = takes(1) })
    task.sleep(5)
    fake:stop()
    task.sleep(5)
    fake:start()
    wait_for(function() return vulcan.workers(fake, "error") == 1 and vulcan.workers(fake, "active") == 1 end)
    task.sleep(20)
    assert.same({ 1, 2 }, { vulcan.workers(fake, "active"), vulcan.workers(fake) })
    fake:add("echo hi")
    wait_for(done(fake))
    assert.equal("active", fake.store.workers[fake.store.list[1].told.worker].status)
  end)

  it("after an outage while a script runs: the result arrives once, heartbeats are back in a moment", function()
    local fake = vulcan.fake { jobs = { "a" }, heartbeat_timeout = 30, check_interval = 10 }
    vulcan.worker(fake, nil, { run = takes(160) })
    for i = 1, 2 do
      task.sleep(25)
      fake:stop()
      task.sleep(45)
      fake:start()
      local back = sys.mono()
      wait_for(function() return vulcan.workers(fake, "error") == i and vulcan.workers(fake, "active") == 1 end)
      assert.is_true(sys.mono() - back <= 12)
    end
    wait_for(done(fake))
    assert.equal("completed", fake.store.list[1].status)
    task.sleep(120)
    assert.same({ 1, "completed" }, { fake.store.list[1].reports, fake.store.list[1].status })
    assert.equal(1, vulcan.workers(fake, "active"))
  end)

  it("with its ids in a file that a preStop hook can read", function()
    local dir <close> = require("spec.support.scratch").dir()
    local path = dir:path "id"
    local fake = vulcan.fake()
    vulcan.worker(fake, { id_file = path }, { run = takes(1) })
    task.sleep(3)
    local file = assert(io.open(path))
    assert.equal(next(fake.store.workers) .. "\n", file:read("a"))
    file:close()
  end)
end)

describe("vulcan loses nothing", function()
  it("of a claim whose answer is lost: it registers anew, and the fragment comes back and is run", function()
    for _, lost in ipairs { server.reset "after", server.hang(), server.truncated(5) } do
      local fake = vulcan.fake { jobs = { "a" }, heartbeat_timeout = 3, check_interval = 1 }
      fake:bend("POST /work/request", vulcan.after(lost))
      local worker = vulcan.worker(fake, { heartbeat = "1s", dead_after = "3s", request_timeout = "1s" }, { run = takes(1) })
      wait_for(done(fake))
      local row = fake.store.list[1]
      assert.same({ "completed", 2, 1 }, { row.status, row.attempt, row.reports })
      worker:stop()
    end
  end)

  it("of a fragment that other slots run, when a claim is lost", function()
    local fake = vulcan.fake { jobs = { "a", "b" }, heartbeat_timeout = 3, check_interval = 1 }
    fake:bend("POST /work/request", function(_, reply, go) reply:send(go()) end, vulcan.after(server.reset "after"))
    vulcan.worker(fake, { heartbeat = "1s", dead_after = "3s" }, { run = takes(30), slots = 3 })
    wait_for(done(fake))
    assert.same({ 1, 2 }, { fake.store.list[1].attempt, fake.store.list[2].attempt })
  end)

  it("of a result whose fragment is gone: it is given up at once, and new work is taken", function()
    local fake = vulcan.fake { jobs = { "a", "b" } }
    vulcan.worker(fake, nil, { run = takes(5) })
    wait_for(function() return fake.store.list[1].status == "running" end)
    fake.store.fragments[fake.store.list[1].id] = nil
    wait_for(done(fake, 1))
    assert.equal("completed", fake.store.list[2].status)
    assert.equal(2, #asked(fake, "POST /work/result"))
  end)

  it("of a result that is too large for who stands in front of the server: a short one is sent", function()
    local fake = vulcan.fake { jobs = { "a" } }
    fake:bend("POST /work/result", vulcan.instead(server.text(413, "<html>too large</html>")))
    vulcan.worker(fake, nil, { run = function(_, ctx)
      ctx.log("stderr", ("x"):rep(100000) .. "the end")
      return { state = "failed", exit_code = 1 }
    end })
    wait_for(done(fake))
    assert.matches("^%.%.%. x+the end$", fake.store.list[1].error_message)
    assert.is_true(#fake.store.list[1].error_message < 2000)
  end)

  it("of a fragment that is handed out again while it still runs here: it runs once, is reported once", function()
    local fake, runs = vulcan.fake { jobs = { "a" }, heartbeat_timeout = 3, check_interval = 1 }, 0
    vulcan.worker(fake, { heartbeat = "1s", dead_after = "3s" }, { slots = 3, run = function()
      runs = runs + 1
      task.sleep(60)
      return { state = "success", exit_code = 0 }
    end })
    task.sleep(5)
    fake:stop()
    task.sleep(10)
    fake:start()
    wait_for(done(fake))
    task.sleep(30)
    assert.same({ 1, 1, "completed" }, { runs, fake.store.list[1].reports, fake.store.list[1].status })
  end)

  it("of what a kill leaves of a job: the report is the same, however the job ended", function()
    local plugin = registry.open({ "plugins" }):get("protocol", "vulcan")
    local function report_of(job, result)
      local told
      local api = { post = function(_, _, options) told = options.json end }
      plugin.finish({ holds = {}, asking = 0, mending = 0, settled = task.signal(), api = api }, job, result)
      return told
    end
    local usage, stderr = { cpu = 0.1, wall = 1.5 }, { stderr = "no\n" }
    for _, result in ipairs {
      { state = "success", exit_code = 0 }, { state = "failed", exit_code = 3 },
      { state = "failed", exit_code = 3, output = stderr },
      { state = "failed", exit_code = 137, signal = "SIGKILL", reason = "killed by SIGKILL", output = stderr },
      { state = "timeout", reason = "ran longer than 5m", output = stderr },
      { state = "oom", exit_code = 137, reason = "memory" },
      { state = "cancelled", reason = "cancelled" }, { state = "error", reason = "start: no", kind = "spawn", output = stderr },
    } do
      result.usage, result.duration, result.executor = usage, 1.5, "shell"
      for _, script in ipairs { "true", false } do
        local job = { id = "f", script = script or nil, chain_id = "c", attempt = 1, member = "w", timeout = 300.0 }
        local left, left_result = plugin.brief(job, result)
        assert.same(report_of(job, result),
          report_of(json.decode(json.encode(left)), json.decode(json.encode(left_result))))
      end
    end
  end)

  it("of what finished before a restart: it is reported under the old id, which then holds nothing", function()
    local fake = vulcan.fake { jobs = { "a" }, heartbeat_timeout = 3, check_interval = 1 }
    local old = fake.store:register(vulcan.TENANT)
    local row = fake.store:claim(old)
    local kept = setmetatable({ left = function()
      return { { job = { id = row.id, script = "a", member = old.id }, started = true,
        result = { state = "success", exit_code = 0 } } }
    end }, { __index = require("worker.record").none() })
    vulcan.worker(fake, { heartbeat = "1s" }, { run = takes(1), record = kept })
    task.sleep(30)
    assert.same({ "completed", 1, 1 }, { row.status, row.attempt, row.reports })
  end)
end)

describe("vulcan bears", function()
  local ENDPOINTS = { "/workers/register", "/workers/heartbeat", "/work/request", "/work/result" }
  local BAD = {
    ["a 500"] = server.json(500, { error = "Database error: connection lost" }),
    ["a 502 with HTML"] = server.text(502, "<html><h1>Bad Gateway</h1></html>", { ["Content-Type"] = "text/html" }),
    ["a reset before"] = server.reset "before", ["a reset after"] = server.reset "after",
    ["an answer that hangs"] = server.hang(),
    ["no HTTP at all"] = server.garbage(),
    ["half an answer"] = server.truncated(10),
    ["a body that drips without end"] = server.slow { text = ("x"):rep(100000), byte_every = 1 },
  }
  local WRONG = { "{", '{"worker_id":', "null", "[]", "7", '"x"', "{}", '{"worker_id":7,"status":"Active"}',
    '{"fragment_id":7,"chain_id":"c","run_script":"x","attempt":1}',
    '{"fragment_id":"f","chain_id":"c","run_script":"x","attempt":"1"}',
    '{"run_script":"rm -rf /","attempt":1}', '{"x":"' .. ("y"):rep(10000000) .. '"}', "\255\254", ("["):rep(100000) }

  for _, path in ipairs(ENDPOINTS) do
    for what, answer in pairs(BAD) do
      it(("%s at %s: again later, and everything is done in the end"):format(what, path), function()
        local fake = vulcan.fake { jobs = { "a", "b" }, heartbeat_timeout = 30, check_interval = 10 }
        local act = vulcan.instead(answer)
        fake:bend("POST " .. path, act, act, act)
        vulcan.worker(fake, nil, { run = takes(20) })
        wait_for(done(fake))
        for _, row in ipairs(fake.store.list) do
          assert.same({ "completed", 1 }, { row.status, row.reports })
        end
      end)
    end

    it(("nonsense with status 200 at %s: nothing is run by mistake, and everything is done in the end"):format(path), function()
      local fake, ran = vulcan.fake { jobs = { "a", "b" } }, {}
      local acts = {}
      for i, body in ipairs(WRONG) do acts[i] = vulcan.body(body) end
      fake:bend("POST " .. path, table.unpack(acts))
      vulcan.worker(fake, nil, { run = function(job)
        ran[#ran + 1] = job.script
        task.sleep(10)
        return { state = "success", exit_code = 0 }
      end })
      if path == "/work/result" then return task.sleep(60) end
      wait_for(done(fake))
      assert.same({ "a", "b" }, ran)
    end)
  end

  it("a server that fails: claims and registrations back off 1, 2, 4 ... 60 s and start over after success", function()
    local fake = vulcan.fake()
    fake:bend_all("POST /work/request", vulcan.instead(server.json(500, { error = "no" })))
    vulcan.worker(fake, nil, { run = takes(1) })
    task.sleep(400)
    local polls = asked(fake, "POST /work/request")
    for i = 2, #polls do
      local most = math.min(60, 2 ^ (i - 2))
      local gap = polls[i].at - polls[i - 1].at
      assert.is_true(gap >= most / 2 - 0.1 and gap <= most + 0.2, ("gap %d: %.1f s"):format(i, gap))
    end
    fake:bend_all("POST /work/request", nil)
    task.sleep(70)
    local seen = #asked(fake, "POST /work/request")
    fake:bend("POST /work/request", vulcan.instead(server.json(500, { error = "no" })))
    task.sleep(5)
    assert.is_true(#asked(fake, "POST /work/request") >= seen + 3)
  end)

  it("a request for work that hangs: heartbeats go on", function()
    local fake = vulcan.fake { heartbeat_timeout = 3, check_interval = 1 }
    fake:bend_all("POST /work/request", vulcan.instead(server.hang()))
    vulcan.worker(fake, { heartbeat = "1s", dead_after = "3s" }, { run = takes(1), slots = 2 })
    task.sleep(29)
    assert.equal(0, vulcan.workers(fake, "error"))
    assert.is_true(#asked(fake, "POST /workers/heartbeat") >= 25)
  end)

  it("heartbeats that fail: again after 1, 2, 4, 8 s, never later than the interval", function()
    local fake = vulcan.fake()
    fake:bend_all("POST /workers/heartbeat", vulcan.instead(server.json(500, { error = "no" })))
    vulcan.worker(fake, { poll = "1000s" }, { run = takes(1) })
    task.sleep(100)
    local beats = asked(fake, "POST /workers/heartbeat")
    for i = 2, #beats do assert.is_true(beats[i].at - beats[i - 1].at <= math.min(10, 2 ^ (i - 2)) + 0.2) end
  end)

  it("a 404 that is not the server's: it is not taken for being forgotten", function()
    local fake = vulcan.fake { jobs = { "a" } }
    fake:bend("POST /work/request", vulcan.instead(server.empty(404)))
    vulcan.worker(fake, nil, { run = takes(1) })
    wait_for(done(fake))
    assert.equal(1, #asked(fake, "POST /workers/register"))
  end)
end)

describe("vulcan stops", function()
  it("idle: at once, even in the middle of a poll's pause or a backoff, with no request after", function()
    local fake = vulcan.fake()
    local worker = vulcan.worker(fake, { poll = "1000s" }, { run = takes(1) })
    task.sleep(5)
    local before, began = #fake.seen, sys.mono()
    assert.equal(0, worker:stop())
    assert.is_true(sys.mono() - began < 1)
    assert.equal(before, #fake.seen)
  end)

  it("in mid-script: heartbeats go on, the result is delivered, nothing more is asked for", function()
    local fake = vulcan.fake { jobs = { "a", "b" }, heartbeat_timeout = 3, check_interval = 1 }
    local worker = vulcan.worker(fake, { heartbeat = "1s", dead_after = "3s" }, { run = takes(200) })
    task.sleep(5)
    assert.equal(0, worker:stop())
    assert.same({ "completed", "pending" }, { fake.store.list[1].status, fake.store.list[2].status })
    assert.equal(1, #asked(fake, "POST /work/request"))
    assert.equal(0, vulcan.workers(fake, "error"))
  end)

  it("while it registers: at once", function()
    local fake = vulcan.fake()
    fake:bend_all("POST /workers/register", vulcan.instead(server.hang()))
    local worker = vulcan.worker(fake, nil, { run = takes(1) })
    task.sleep(5)
    local began = sys.mono()
    worker:stop()
    assert.is_true(sys.mono() - began < 1)
  end)
end)
