-- The callback protocol: what is told, when, and what an address may do to it.
local callback = require "spec.support.callback"
local fs = require "worker.fs"
local json = require "worker.json"
local server = require "spec.support.server"
local sys = require "worker.core.sys"
local task = require "worker.task"

local function takes_all() return server.http({}, { any = server.status(200) }) end

local function fails(result)
  return { task = function() return result end }
end

describe("callback", function()
  it("tells the start and the end with the keys and values of the published worker", function()
    local fake = takes_all()
    local ran = callback.run(fake)
    assert.equal("success", ran.result.state)
    assert.equal(2, fake:count())
    local first, second = fake.requests[1], fake.requests[2]
    assert.equal("POST /cb/started", first.method .. " " .. first.path)
    assert.equal("POST /cb/completed", second.method .. " " .. second.path)
    assert.equal("application/json", first.headers["content-type"])
    local started, completed = first.json, second.json
    assert.same({ "test-123", "proj-456", "started" }, { started.task_id, started.project_id, started.status })
    assert.same({ "test-123", "completed", "Task executed successfully" },
      { completed.task_id, completed.status, completed.message })
    assert.is_nil(started.message)
    assert.is_nil(completed.error)
  end)

  it("puts ids, times and a sequence into every event", function()
    local fake = takes_all()
    callback.run(fake)
    local started, completed = fake.requests[1].json, fake.requests[2].json
    assert.same({ 1, 2 }, { started.sequence, completed.sequence })
    assert.equal(started.run_id, completed.run_id)
    assert.not_equal(started.event_id, completed.event_id)
    assert.equal(fake.requests[1].headers["webhook-id"], started.event_id)
    assert.matches("^%d%d%d%d%-%d%d%-%d%dT%d%d:%d%d:%d%d%.%d%d%dZ$", completed.time)
    assert.equal("integer", math.type(completed.duration_ms))
    assert.equal(started.started_at, completed.started_at)
    assert.is_string(started.worker_id)
    assert.equal(1, started.attempt)
  end)

  it("has the task begin only when `started` has arrived", function()
    local fake = server.http { ["POST /cb/started"] = server.after(5, server.status(200)),
      ["POST /cb/completed"] = server.status(200) }
    local began
    local before = sys.mono()
    callback.run(fake, { task = function()
      began = sys.mono()
      return { state = "success" }
    end })
    assert.is_true(began - before >= 5)
  end)

  for name, case in pairs {
    ["its exit code"] = { { state = "failed", exit_code = 3, reason = "exit code 3" },
      { reason = "exit", exit_code = 3, error = "exit code 3" } },
    ["its signal"] = { { state = "failed", exit_code = 137, signal = "SIGKILL", reason = "killed by SIGKILL" },
      { reason = "signal", signal = 9, signal_name = "SIGKILL" } },
    ["the time it took"] = { { state = "timeout", reason = "ran longer than 1m" }, { reason = "timeout" } },
    ["want of memory"] = { { state = "oom", exit_code = 137, signal = "SIGKILL" }, { reason = "oom", signal = 9 } },
    ["a program that is not there"] = { { state = "error", reason = "exec: no such file", code = 2 },
      { reason = "spawn", error = "exec: no such file" } },
    ["our own fault"] = { { state = "error", reason = "no disk" }, { reason = "error", error = "no disk" } },
  } do
    it("tells of a task that failed by " .. name, function()
      local fake = takes_all()
      callback.run(fake, fails(case[1]))
      assert.equal("started failed", callback.statuses(fake))
      local told = fake:last()
      assert.equal("/cb/completed", told.path)
      for key, value in pairs(case[2]) do assert.equal(value, told.json[key]) end
      if case[1].signal then assert.is_nil(told.json.exit_code) end
    end)
  end

  it("tells failures at /failed where that is wanted", function()
    local fake = takes_all()
    callback.run(fake, { conf = { failures = "failed" }, task = function() return { state = "failed", exit_code = 1 } end })
    assert.equal("/cb/failed", fake:last().path)
  end)

  it("tells the end of the output only, as valid text, and says that there was more", function()
    local fake = takes_all()
    callback.run(fake, { conf = { output = "1KiB" }, task = function(_, ctx)
      for _ = 1, 3000 do ctx.log("stdout", ("\255\254x"):rep(100)) end
      ctx.log("stdout", "the very end")
      ctx.log("stderr", "short")
      return { state = "success" }
    end })
    local told = json.decode(fake:last().body)
    assert.is_true(#told.stdout <= 1024)
    assert.matches("the very end$", told.stdout)
    assert.equal("short", told.stderr)
    assert.is_true(told.output_truncated)
  end)

  it("names every variable that is missing", function()
    local plain = { url = false, task = false, project = false }
    local _, why = pcall(callback.conf, plain)
    assert.matches("TASK_ID, PROJECT_ID, CALLBACK_URL", why)
    _, why = pcall(callback.conf, { url = "http://127.0.0.1:1/", task = false })
    assert.matches("not set: TASK_ID", why)
  end)

  it("tells that the project is missing, since it can", function()
    local fake = takes_all()
    local ran = callback.run(fake, { conf = { project = false } })
    assert.equal("failed", callback.statuses(fake))
    assert.equal("config", fake:last().json.reason)
    assert.matches("PROJECT_ID", fake:last().json.error)
    assert.equal(0, ran.runs)
  end)

  it("does not run the task when `started` cannot be delivered", function()
    local fake = server.http({}, { any = server.reset "before" })
    local ran = callback.run(fake)
    assert.equal(0, ran.runs)
    assert.equal("start", ran.self.refused)
    assert.equal("failed", ran.self.undelivered.event.status)
    assert.equal("start", ran.self.undelivered.event.reason)
  end)

  it("runs it all the same where that is wanted", function()
    local fake = server.http { ["POST /cb/started"] = server.reset "before", ["POST /cb/completed"] = server.status(200) }
    local ran = callback.run(fake, { conf = { run_anyway = true } })
    assert.equal(1, ran.runs)
    assert.equal("completed", callback.statuses(fake))
  end)

  it("delivers one `started` to an address that comes up late, and runs the task once", function()
    local down = server.reset "before"
    local fake = server.http { ["POST /cb/started"] = server.sequence { down, down, down, server.status(200) },
      ["POST /cb/completed"] = server.status(200) }
    local ran = callback.run(fake)
    assert.equal("started completed", callback.statuses(fake))
    assert.equal(1, ran.runs)
  end)

  it("sends the same event again after a 500, and runs the task once", function()
    local twice = server.sequence { server.status(500), server.status(500), server.status(200) }
    local fake = server.http { ["POST /cb/started"] = server.status(200), ["POST /cb/completed"] = twice }
    local ran = callback.run(fake)
    assert.equal("started completed completed completed", callback.statuses(fake))
    assert.equal(1, ran.runs)
    assert.equal(fake.requests[2].body, fake.requests[4].body)
    assert.is_nil(ran.self.undelivered)
  end)

  it("keeps the end that cannot be delivered in a file and remembers it", function()
    local fake = server.http { ["POST /cb/started"] = server.status(200), ["POST /cb/completed"] = server.close "before" }
    local ran = callback.run(fake)
    local kept = ran.self.undelivered
    assert.equal("completed", kept.event.status)
    local event = json.decode(fs.read(kept.file))
    assert.equal(kept.id, event.id)
    assert.equal("completed", json.decode(event.body).status)
  end)

  for _, status in ipairs { 401, 404, 410, 422, 302 } do
    it(("runs the task although `started` is answered with %d, told once"):format(status), function()
      local fake = server.http { ["POST /cb/started"] = server.status(status, { Location = "/cb/elsewhere" }),
        ["POST /cb/completed"] = server.status(200) }
      assert.equal(1, callback.run(fake).runs)
      assert.equal("started completed", callback.statuses(fake))
    end)
  end

  it("refuses to run the task then when it is strict, and tells that once", function()
    local fake = server.http { ["POST /cb/started"] = server.status(401), ["POST /cb/completed"] = server.status(200) }
    local ran = callback.run(fake, { conf = { strict = true } })
    assert.equal(0, ran.runs)
    assert.equal("started failed", callback.statuses(fake))
    assert.equal("start", fake:last().json.reason)
  end)

  it("tells once that it was ended when the worker is asked to stop", function()
    local fake = takes_all()
    local one, ran = callback.server(fake, { task = function() task.sleep(3600) end })
    local handle = task.start(one.serve, one)
    fake:wait(1)
    task.sleep(1)
    one:drain("stop")
    one:cancel_jobs("ended by SIGTERM")
    handle:join()
    assert.equal("started failed", callback.statuses(fake))
    assert.equal("terminated", fake:last().json.reason)
    assert.equal("ended by SIGTERM", fake:last().json.error)
    assert.equal("cancelled", ran.result.state)
  end)

  it("does not run the task when it is asked to stop while `started` is on its way, and tells that", function()
    local fake = server.http { ["POST /cb/started"] = server.hang(), ["POST /cb/completed"] = server.status(200) }
    local one, ran = callback.server(fake)
    local handle = task.start(one.serve, one)
    fake:wait(1)
    one:cancel_jobs("ended by SIGTERM")
    handle:join()
    assert.equal(0, ran.runs)
    assert.equal("started failed", callback.statuses(fake))
    assert.equal("terminated", fake:last().json.reason)
  end)

  it("gives the last event no more than half of the grace then", function()
    local fake = server.http { ["POST /cb/started"] = server.status(200), ["POST /cb/completed"] = server.hang() }
    local one = callback.server(fake, { task = function() task.sleep(3600) end, conf = { grace = 4 } })
    local handle = task.start(one.serve, one)
    fake:wait(1)
    task.sleep(1)
    local before = sys.mono()
    one:cancel_jobs("ended by SIGTERM")
    handle:join()
    assert.is_true(sys.mono() - before < 2.5)
    assert.equal("failed", one.self.undelivered.event.status)
  end)

  it("stops trying at once when it is told to hurry, and keeps the event", function()
    local fake = server.http { ["POST /cb/started"] = server.status(200), ["POST /cb/completed"] = server.hang() }
    local one = callback.server(fake)
    local handle = task.start(one.serve, one)
    fake:wait(2)
    local before = sys.mono()
    one.self:hurry()
    handle:join()
    assert.is_true(sys.mono() - before < 1)
    assert.is_true(fs.exists(one.self.undelivered.file))
  end)

  it("counts attempts that told no end, and refuses the next where that is wanted", function()
    local fake, spool = takes_all(), callback.folder()
    local function interrupted()
      local one = callback.server(fake, { conf = { spool = spool }, task = function() task.sleep(3600) end })
      local handle = task.start(one.serve, one)
      local before = fake:count()
      fake:wait(before + 1)
      one.plugin.finish = function() error("killed", 0) end
      one:cancel_jobs("gone")
      handle:join()
    end
    interrupted()
    interrupted()
    callback.run(fake, { conf = { spool = spool, once = true } })
    assert.equal("failed", fake:last().json.status)
    assert.equal(3, fake:last().json.attempt)
    assert.matches("attempt 3", fake:last().json.error)
    callback.run(fake, { conf = { spool = spool, once = true } })
    assert.equal("completed", fake:last().json.status)
    assert.equal(1, fake:last().json.attempt)
  end)
end)
