-- The protocol strom: registering, claiming, and a server that fails.
local json = require "worker.json"
local log = require "worker.log"
local plugin = require "spec.support.plugin"
local schema = require "worker.schema"
local server = require "spec.support.server"
local strom = require "spec.support.strom"
local task = require "worker.task"

local function ok() return { state = "success", exit_code = 0 } end

local function quick(fake, fields, run)
  return strom.worker(fake, fields, { run = run or ok })
end

local function only_worker(fake)
  local id, worker = next(fake.store.workers)
  assert.is_nil(next(fake.store.workers, id))
  return worker
end

describe("strom, registration:", function()
  it("one new active row with the configured name, capabilities, tags and version, and its heartbeat advances", function()
    local fake = strom.fake()
    quick(fake, { tags = { "gpu" }, capabilities = { "shell" } })
    strom.wait_for(function() return next(fake.store.workers) end)
    local worker = only_worker(fake)
    assert.same({ "w", "active", "script", "gpu" },
      { worker.name, worker.status, table.concat(worker.capabilities, ","), table.concat(worker.tags, ",") })
    assert.is_string(worker.version)
    local first = worker.heartbeat
    task.sleep(65)
    assert.is_true(worker.heartbeat - first >= 30)
  end)

  it("a directory that cannot be worked in is a mistake of the configuration, and no step is failed for it", function()
    local fake = strom.fake { jobs = { "echo hi" } }
    local worker = quick(fake, { workspace_dir = "/dev/null/here" })
    local _, code = worker.handle:join()
    assert.equal(78, code)
    assert.matches("workspace_dir: this worker cannot work in /dev/null/here %(.*name another", tostring(worker.server.failure))
    assert.equal(0, #fake.seen)
  end)

  it("a server that is not up yet is waited for, without a busy loop", function()
    local fake = strom.fake()
    fake:stop()
    quick(fake)
    task.sleep(20)
    fake:start()
    strom.wait_for(function() return next(fake.store.workers) end)
    assert.equal(1, #strom.asked(fake, strom.REGISTER))
  end)

  it("a wrong token is told clearly and not tried again", function()
    local fake = strom.fake { token = ("x"):rep(32) }
    local worker = quick(fake)
    local _, code = worker.handle:join()
    assert.equal(77, code)
    assert.equal(1, #fake.seen)
    assert.equal("http", worker.server.failure.kind)
    assert.is_nil(tostring(worker.server.failure):find(strom.TOKEN, 1, true))
  end)

  it("what the server does not take in a worker stops it with the server's words", function()
    local fake = strom.fake()
    fake:bend(strom.REGISTER, strom.instead(server.json(400, { error = "unknown capability: script" })))
    local worker = quick(fake)
    local _, code = worker.handle:join()
    assert.equal(78, code)
    assert.matches("unknown capability: script", tostring(worker.server.failure))
  end)

  local function problems_of(fields)
    local protocol = plugin.get("protocol", "strom", { server_url = "http://x", worker_token = strom.TOKEN })
    local all = { server_url = "http://x", worker_token = strom.TOKEN }
    for name, value in pairs(fields) do all[name] = value end
    local _, problems = schema.check(protocol, all)
    return problems[1] and tostring(problems[1]) or ""
  end

  it("unknown capabilities, abilities as tags, zeros and unknown keys are refused at the start", function()
    assert.matches("capabilities", problems_of { capabilities = { "magic" } })
    assert.matches("is a capability and no label", problems_of { tags = { "docker" } })
    assert.matches("add script or docker", problems_of { capabilities = { "kubernetes" } })
    assert.matches("max_concurrent", problems_of { max_concurrent = 0 })
    assert.matches("poll_interval_secs", problems_of { poll_interval_secs = 0 })
    assert.matches("did you mean \"exclusive\"", problems_of { exclusiv = true })
  end)

  it("empty tags are never an object on the wire", function()
    local fake = strom.fake()
    quick(fake, { tags = {} })
    strom.wait_for(function() return #strom.asked(fake, strom.CLAIM) > 0 end)
    for _, seen in ipairs(fake.seen) do assert.is_nil(seen.body:find("{}", 1, true), seen.body) end
  end)
end)

describe("strom, claims:", function()
  it("null in every field is no work, and is asked for at the configured pace", function()
    local fake = strom.fake()
    quick(fake, { poll_interval_secs = 2 })
    task.sleep(60)
    local claims = strom.asked(fake, strom.CLAIM)
    assert.is_true(#claims >= 7 and #claims <= 40, #claims .. " claims")
    assert.equal(0, #strom.asked(fake, strom.START))
  end)

  it("a step goes claim, tarball, start, logs, complete", function()
    local fake = strom.fake { jobs = { "x" } }
    quick(fake, nil, function(_, ctx)
      ctx.log("stdout", "hello\nOUTPUT: {\"n\":1}\n")
      return ok()
    end)
    local step, job = strom.wait_job(fake.store.list[1])
    local order = {}
    for _, seen in ipairs(fake.seen) do
      if seen.path:find(job.id, 1, true) or seen.route == strom.WORKSPACE then order[#order + 1] = seen.route end
    end
    assert.same({ strom.WORKSPACE, strom.START, strom.LOGS, strom.COMPLETE }, order)
    assert.equal("completed", job.status)
    assert.equal(1, step.output.n)
    assert.same({ "hello", "OUTPUT: {\"n\":1}" }, strom.lines(job, "stdout"))
    assert.equal("step1", job.log[1].step)
  end)

  it("three workers with four slots run two hundred steps, each exactly once", function()
    local jobs, runs = {}, 0
    for i = 1, 200 do jobs[i] = "step " .. i end
    local fake = strom.fake { jobs = jobs }
    for _ = 1, 3 do
      quick(fake, { max_concurrent = 4 }, function()
        runs = runs + 1
        task.sleep(0.5)
        return ok()
      end)
    end
    for _, job in ipairs(fake.store.list) do
      local step = strom.wait_job(job)
      assert.same({ "completed", 1, 1 }, { step.status, step.runs, step.completes })
    end
    assert.equal(200, runs)
  end)

  it("never more than max_concurrent run, a full worker does not claim, and heartbeats go on", function()
    local fake, now, most = strom.fake { jobs = { "1", "2", "3", "4", "5", "6" } }, 0, 0
    quick(fake, { max_concurrent = 2 }, function()
      now = now + 1
      most = math.max(most, now)
      task.sleep(100)
      now = now - 1
      return ok()
    end)
    task.sleep(50)
    assert.equal(2, #strom.asked(fake, strom.CLAIM))
    assert.is_true(#strom.asked(fake, strom.HEARTBEAT) >= 2)
    for _, job in ipairs(fake.store.list) do strom.wait_job(job) end
    assert.equal(2, most)
  end)

  it("labelled steps reach only a worker with the label; an exclusive worker takes no others", function()
    local fake = strom.fake { unmatched_timeout = 30 }
    local gpu = fake:add { script = "x", tags = { "gpu" } }
    local plain = fake:add "x"
    quick(fake, { tags = { "gpu" }, exclusive = true })
    assert.equal("completed", strom.wait_job(gpu).status)
    task.sleep(20)
    assert.equal("ready", plain.steps[1].status)
    quick(fake)
    assert.equal("completed", strom.wait_job(plain).status)
  end)

  it("a step for docker is not taken, and fails as unmatched on the server's side", function()
    local fake = strom.fake { unmatched_timeout = 30, sweep_interval = 10 }
    local job = fake:add { script = "x", runner = "docker" }
    quick(fake)
    assert.matches("No active worker", strom.wait_job(job).error)
    assert.equal(0, job.steps[1].runs)
  end)

  it("are several at once while there are steps, so that a server far away keeps no slot empty", function()
    local fake, asking, most = strom.fake(), 0, 0
    for _ = 1, 40 do fake:add "x" end
    fake:bend_all(strom.CLAIM, function(_, reply, go)
      asking = asking + 1
      most = math.max(most, asking)
      task.sleep(2)
      asking = asking - 1
      return reply:send(go())
    end)
    quick(fake, { max_concurrent = 10 })
    for _, job in ipairs(fake.store.list) do assert.equal("completed", strom.wait_job(job).status) end
    assert.equal(8, most)
    task.sleep(60)
    most = 0
    task.sleep(60)
    assert.equal(1, most)
  end)

  it("that fail together are one failure: nobody registers anew for it", function()
    local fake, asking, failing, failed = strom.fake(), 0, false, 0
    for _ = 1, 20 do fake:add "x" end
    fake:bend_all(strom.CLAIM, function(_, reply, go)
      asking = asking + 1
      failing = failing or (asking >= 4 and failed == 0)
      task.sleep(2)
      asking = asking - 1
      if not failing then return reply:send(go()) end
      failed, failing = failed + 1, asking > 0
      return reply:json(500, { error = "Internal server error" })
    end)
    quick(fake, { max_concurrent = 10 })
    for _, job in ipairs(fake.store.list) do assert.equal("completed", strom.wait_job(job).status) end
    assert.is_true(failed >= 4)
    assert.equal(1, #strom.asked(fake, strom.REGISTER))
  end)

  it("422 means that the server has failed the step: nothing is called for it, and the next one runs", function()
    local fake = strom.fake { jobs = { { script = "{{ nothing }}", unrenderable = true }, "good" } }
    quick(fake)
    assert.equal("completed", strom.wait_job(fake.store.list[2]).status)
    assert.equal("failed", fake.store.list[1].steps[1].status)
    assert.equal(1, #strom.asked(fake, strom.START))
    assert.equal(1, #strom.asked(fake, strom.COMPLETE))
  end)

  it("claims that fail for a while are backed off from, with the same worker id afterwards", function()
    local fake = strom.fake { jobs = { "x" } }
    fake:bend_all(strom.CLAIM, strom.instead(server.json(500, { error = "Internal server error" })))
    fake:bend_all(strom.HEARTBEAT, strom.instead(server.json(500, { error = "Internal server error" })))
    quick(fake)
    task.sleep(30)
    assert.is_true(#strom.asked(fake, strom.CLAIM) < 15)
    fake:bend_all(strom.CLAIM, nil)
    fake:bend_all(strom.HEARTBEAT, nil)
    strom.wait_job(fake.store.list[1])
    assert.equal(1, #strom.asked(fake, strom.REGISTER))
  end)

  it("a worker whose row is gone registers anew, though its heartbeats are taken", function()
    local fake = strom.fake()
    quick(fake)
    strom.wait_for(function() return next(fake.store.workers) end)
    fake.store.workers = {}
    local job = fake:add "x"
    assert.equal("completed", strom.wait_job(job).status)
    assert.equal(2, #strom.asked(fake, strom.REGISTER))
  end)

  it("the steps of an earlier registration are still heard of", function()
    local fake = strom.fake { jobs = { "long" } }
    quick(fake, { max_concurrent = 2 }, function()
      task.sleep(600)
      return ok()
    end)
    strom.wait_for(function() return #strom.asked(fake, strom.START) == 1 end)
    local first = next(fake.store.workers)
    fake.store.workers = {}
    fake:add "next"
    strom.wait_for(function() return #strom.asked(fake, strom.REGISTER) == 2 end)
    local from, heard = #strom.asked(fake, strom.HEARTBEAT), {}
    task.sleep(120)
    for i, asked in ipairs(strom.asked(fake, strom.HEARTBEAT)) do
      if i > from then heard[json.decode(asked.body).worker_id] = true end
    end
    assert.is_true(heard[first])
    assert.is_true(heard[next(fake.store.workers)])
  end)

  it("a page that somebody answers with 200 is no success", function()
    local fake = strom.fake { jobs = { "x" } }
    for _, route in ipairs { strom.START, strom.LOGS, strom.COMPLETE, strom.HEARTBEAT } do
      fake:bend(route, strom.instead(server.text(200, "<html>hello</html>", { ["content-type"] = "text/html" })))
    end
    quick(fake, nil, function(_, ctx)
      ctx.log("stdout", "hi\n")
      return ok()
    end)
    local step, job = strom.wait_job(fake.store.list[1])
    assert.same({ "completed", 1 }, { step.status, step.completes })
    assert.same({ "hi" }, strom.lines(job, "stdout"))
    assert.equal(2, #strom.asked(fake, strom.COMPLETE))
  end)

  it("a question about cancelling that is not answered once is asked again", function()
    local fake = strom.fake { jobs = { "x" } }
    fake:bend(strom.CANCELLED, strom.instead(server.status(404)))
    quick(fake, nil, function() task.sleep(600) end)
    strom.wait_for(function() return #strom.asked(fake, strom.CANCELLED) == 2 end)
    fake.store:cancel(fake.store.list[1].id)
    strom.wait_job(fake.store.list[1])
    assert.equal(1, #strom.asked(fake, strom.COMPLETE))
  end)

  it("a claim's answer is never quoted, as there are secrets in it", function()
    local fake, told, kept = strom.fake { jobs = { "x" } }, {}, {}
    local secret = '{"job_id": "x", "action_spec": {"env": {"TOKEN": "hunter2'
    fake:bend(strom.CLAIM, strom.instead(server.text(200, secret)), strom.instead(server.text(201, secret)),
      strom.instead(server.text(503, secret)))
    for _, level in ipairs { "debug", "info", "warn", "error" } do
      kept[level] = log[level]
      log[level] = function(...) told[#told + 1] = json.encode { ... } end -- luacheck: ignore
    end
    quick(fake)
    local ended = pcall(strom.wait_job, fake.store.list[1])
    for level, original in pairs(kept) do log[level] = original end -- luacheck: ignore
    assert.is_true(ended)
    assert.matches("claim", table.concat(told))
    assert.is_nil(table.concat(told):find("hunter2", 1, true))
  end)

  it("answers that are no claim are backed off from: HTML, cut off, wrong types, nothing", function()
    local fake = strom.fake { jobs = { "x" } }
    fake:bend(strom.CLAIM, strom.instead(server.text(200, "<html>hello</html>")), strom.instead(server.truncated(5)),
      strom.instead(server.json(200, json.array {})), strom.instead(server.json(200, { job_id = 7, step_name = {} })),
      strom.instead(server.json(200, { job_id = "../../x", step_name = "a" })), strom.instead(server.empty(200)),
      strom.instead(server.reset "before"), strom.instead(server.garbage "\0\1\2"))
    local worker = quick(fake)
    assert.equal("completed", strom.wait_job(fake.store.list[1]).status)
    assert.equal(1, #strom.asked(fake, strom.START))
    assert.equal(0, worker:stop())
  end)

  it("a claim that can be reported but not run fails its step", function()
    for why, extra in pairs {
      ["without an action_spec"] = { action_spec = json.null },
      ["a field of the wrong type: workspace"] = { workspace = 5 },
      ["a field of the wrong type: revision"] = { revision = 5 },
      ["a field of the wrong type: timeout_secs"] = { timeout_secs = "5" },
      ["a field of the wrong type: args"] = { action_spec = { type = "script", script = "x", args = { 1 } } },
      ["must contain script or source"] = { action_spec = { type = "script", env = {} } },
      ["Unknown action type / runner combination: teapot/local"] = { action_type = "teapot" },
      ["Unknown action type / runner combination: script/docker"] = { runner = "docker" },
    } do
      local fake = strom.fake { jobs = { { script = "x", extra = extra } } }
      local worker = quick(fake)
      local step, job = strom.wait_job(fake.store.list[1])
      assert.same({ "failed", -1 }, { step.status, step.exit_code })
      assert.matches(why, step.error, 1, true)
      assert.matches(why, strom.lines(job, "stderr")[1], 1, true)
      worker:stop()
    end
  end)

  it("an executor sees steps with names of any kind, and the server gets them back", function()
    for _, name in ipairs { "build[3]", "a b/c?d#e", "π", ("long "):rep(100) } do
      local fake = strom.fake { jobs = { { name = name, script = "x" } } }
      local worker = quick(fake)
      assert.equal("completed", strom.wait_job(fake.store.list[1]).status)
      worker:stop()
    end
  end)
end)

describe("strom, a server that fails:", function()
  it("a start that fails at first is repeated", function()
    local fake = strom.fake { jobs = { "x" } }
    fake:bend(strom.START, strom.instead(server.json(500, { error = "x" })), strom.instead(server.reset "before"))
    quick(fake)
    assert.equal("completed", strom.wait_job(fake.store.list[1]).status)
    assert.equal(3, #strom.asked(fake, strom.START))
  end)

  it("a start that keeps failing is reported, and nothing runs", function()
    local fake, ran = strom.fake { jobs = { "x" } }, false
    fake:bend_all(strom.START, strom.instead(server.json(500, { error = "x" })))
    quick(fake, nil, function() ran = true end)
    local step = strom.wait_job(fake.store.list[1])
    assert.same({ "failed", -1, false }, { step.status, step.exit_code, ran })
    assert.matches("^start: ", step.error)
  end)

  it("a step that comes back before its last report is answered runs once that is over", function()
    local fake = strom.fake()
    fake:bend_all(strom.COMPLETE, function(_, reply, go)
      local status, headers, body = go()
      task.sleep(3)
      return reply:send(status, headers, body)
    end)
    local job = fake:add { script = "x", retries = 2 }
    quick(fake, { max_concurrent = 4 }, function() return { state = "failed", exit_code = 1 } end)
    local step = strom.wait_job(job)
    assert.same({ "failed", 3 }, { step.status, step.runs })
  end)

  it("a result whose first report fails is reported again, once it is taken never", function()
    local fake = strom.fake { jobs = { "x" } }
    fake:bend(strom.COMPLETE, strom.instead(server.json(500, { error = "x" })), strom.instead(server.reset "before"),
      strom.instead(server.status(503)))
    quick(fake)
    local step = strom.wait_job(fake.store.list[1])
    task.sleep(600)
    assert.equal(1, step.completes)
    assert.equal(4, #strom.asked(fake, strom.COMPLETE))
  end)

  it("a result that the server cannot store is reported in few words, so that the step ends", function()
    for _, status in ipairs { 400, 413, 422 } do
      local fake = strom.fake { jobs = { "x" } }
      fake:bend(strom.COMPLETE, strom.instead(server.text(status, "no")))
      local worker = quick(fake)
      local step = strom.wait_job(fake.store.list[1])
      assert.same({ "failed", 2 }, { step.status, #strom.asked(fake, strom.COMPLETE) })
      assert.matches(tostring(status), step.error)
      worker:stop()
    end
  end)

  it("a result that breaks the server again and again is reported in few words, then given up", function()
    local fake = strom.fake { jobs = { "x", "y" } }
    fake:bend_all(strom.COMPLETE, function(request, reply)
      request:read_body()
      reply:json(500, { error = "Internal server error" })
    end)
    quick(fake)
    strom.wait_for(function() return fake.store.list[2].steps[1].runs == 1 end) -- the slot is free again
    local asked = {}
    for _, seen in ipairs(strom.asked(fake, strom.COMPLETE)) do
      if seen.path:find(fake.store.list[1].id, 1, true) then asked[#asked + 1] = seen end
    end
    assert.equal(12, #asked)
    assert.matches("refused the step's output", asked[12].body)
  end)

  it("a server that restarts in the middle of a step gets logs and result, once", function()
    local fake = strom.fake { jobs = { "x" } }
    quick(fake, nil, function(_, ctx)
      for i = 1, 40 do
        ctx.log("stdout", ("line %d\n"):format(i))
        task.sleep(1)
      end
      return ok()
    end)
    task.sleep(10)
    fake:stop()
    task.sleep(20)
    fake:start()
    local step, job = strom.wait_job(fake.store.list[1])
    assert.same({ "completed", 1, 1 }, { step.status, step.completes, step.runs })
    local lines = strom.lines(job)
    assert.equal(40, #lines)
    for i, line in ipairs(lines) do assert.equal("line " .. i, line) end
    assert.equal(1, #strom.asked(fake, strom.REGISTER))
  end)

  it("a step that ends while the server is away for long is reported with all of its log", function()
    local fake = strom.fake { jobs = { "x" }, heartbeat_timeout = 10000 }
    quick(fake, nil, function(_, ctx)
      task.sleep(2)
      ctx.log("stdout", "last words\n")
      return { state = "failed", exit_code = 3 }
    end)
    task.sleep(1.9)
    fake:stop()
    task.sleep(300)
    fake:start()
    local step, job = strom.wait_job(fake.store.list[1])
    assert.same({ "failed", 3, 1 }, { step.status, step.exit_code, step.completes })
    assert.same({ "last words" }, strom.lines(job))
  end)
end)

describe("strom, older servers:", function()
  it("the very first takes chunks of text and has neither workspaces nor cancelling", function()
    local fake = strom.fake { generation = "s0", jobs = { { type = "shell", cmd = "echo hi" } } }
    quick(fake, nil, function(job, ctx)
      ctx.log("stdout", job.script .. "\n")
      task.sleep(20)
      return ok()
    end)
    local step, job = strom.wait_job(fake.store.list[1])
    assert.equal("completed", step.status)
    assert.equal("echo hi\n", job.log[1].chunk)
    assert.equal(0, #strom.asked(fake, strom.WORKSPACE))
    assert.equal(1, #strom.asked(fake, strom.CANCELLED))
  end)

  it("the first releases match by capabilities, and fetch the workspace that is current", function()
    local fake = strom.fake { generation = "s1", jobs = { { type = "shell", cmd = "1" }, { type = "script", script = "2" } } }
    quick(fake)
    for _, job in ipairs(fake.store.list) do assert.equal("completed", strom.wait_job(job).status) end
    local asked = strom.asked(fake, strom.WORKSPACE)
    assert.equal(2, #asked)
    assert.is_nil(asked[1].headers["if-none-match"])
    assert.matches('^"%x+"$', asked[2].headers["if-none-match"])
  end)
end)
