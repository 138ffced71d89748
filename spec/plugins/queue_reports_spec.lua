-- What the queue is told about the end of a task, in both dialects, and what comes of answers that go wrong.
local err = require "worker.error"
local json = require "worker.json"
local queue = require "spec.support.queue"
local server = require "spec.support.server"
local task = require "worker.task"
local text = require "worker.text"
local vulcan = require "spec.support.vulcan"

local asked, lines, reported, wait_for = queue.asked, queue.lines, queue.reported, queue.wait_for

-- One task whose program does this, on a worker of its own: what was reported and how, the fake.
local function run(program, fields, job)
  local fake = queue.fake()
  local id = fake:add(job or { eval_id = "a", code = "x", timeout = 2 })
  queue.worker(fake, fields, { run = program })
  local report = reported(fake, id)
  return report.body, report.way, fake
end

local function ends(exit_code, stdout, stderr, more)
  return function(_, ctx)
    if stdout then ctx.log("stdout", stdout) end
    if stderr then ctx.log("stderr", stderr) end
    local result = { state = exit_code == 0 and "success" or "failed", exit_code = exit_code }
    for name, value in pairs(more or {}) do result[name] = value end
    return result
  end
end

local function hangs(_, ctx)
  ctx.log("stdout", "so far")
  task.sleep(1e6)
end

local function breaks() err.raise("engine", "the engine broke off", { away = true }) end

-- The whole body but for what differs from run to run.
local function lasting(body)
  local copy = {}
  for name, value in pairs(body) do copy[name] = name ~= "duration" and value or nil end
  return copy
end

describe("the queue is told, as worker-service does,", function()
  it("of a program that ends well: completed, with its output", function()
    local body, way, fake = run(ends(0, "hi\n"))
    assert.equal("complete", way)
    assert.same({ id = "a", status = "completed", output = "hi\n", stdout = "hi\n", stderr = "", exit_code = 0,
      state = "success", engine = "docker", worker_id = "w-7" }, lasting(body.output))
    local request = asked(fake, "complete")[1]
    assert.equal("application/json", request.headers["content-type"])
    assert.is_nil(request.headers["x-api-key"])
    assert.equal(1, #asked(fake, "complete"))
    assert.is_nil(fake.tasks.a)
  end)

  it("of exit code 3: failed, its stdout, and beside it stderr and the code", function()
    local body, way = run(ends(3, "out\n", "err\n"))
    assert.equal("complete", way)
    assert.same({ "failed", "out\n", "err\n", 3 },
      { body.output.status, body.output.output, body.output.stderr, body.output.exit_code })
  end)

  it("of a program that only wrote to stderr: that is its output", function()
    assert.equal("err\n", run(ends(1, nil, "err\n")).output.output)
    assert.equal("", run(ends(0)).output.output)
  end)

  it("of one that takes too long: timeout, with the seconds, and what it had printed", function()
    local body, way = run(hangs)
    assert.equal("complete", way)
    assert.same({ "timeout", "Timeout after 2 seconds", "so far" },
      { body.output.status, body.output.error, body.output.stdout })
    assert.is_nil(body.output.output)
  end)

  it("of one that needed too much memory: failed, and why", function()
    local body = run(function() return { state = "oom", exit_code = 137, reason = "too much memory" } end)
    assert.same({ "failed", "oom", 137, "too much memory", "" },
      { body.output.status, body.output.state, body.output.exit_code, body.output.reason, body.output.output })
  end)

  it("of an engine that failed: error, never the program's own failure", function()
    local body, way = run(breaks)
    assert.same({ "complete", "error", "the engine broke off" }, { way, body.output.status, body.output.error })
  end)

  it("of gVisor: its runtime, and what that is worth", function()
    local fake = queue.fake { jobs = { { eval_id = "g", code = "x", engine = "gvisor" } } }
    queue.worker(fake, nil, { run = ends(0, "9\n", nil, { runtime = "runsc" }) })
    local output = reported(fake, "g").body.output
    assert.same({ "runsc", "production-grade", "gvisor", "9\n" },
      { output.runtime, output.security, output.engine, output.output })
  end)

  it("of a task that no engine ran: a failure with the reason", function()
    local fake = queue.fake { jobs = { { eval_id = "a", code = "x", engine = "gvisor" } } }
    queue.worker(fake, nil, { engines = { "docker" }, strict = true })
    local report = reported(fake, "a")
    assert.equal("fail", report.way)
    assert.same({ error = report.body.error }, report.body)
    assert.matches("gvisor: it is not among the executors", report.body.error)
    assert.matches("gvisor", lines("task_failed")[1].error)
  end)

  it("of a task that is cancelled because the worker stops: a failure", function()
    local fake = queue.fake { jobs = { { eval_id = "a", code = "x", timeout = 600 } } }
    local worker = queue.worker(fake, nil, { run = hangs })
    wait_for(function() return worker.server.running == 1 end)
    worker.server:drain("stop")
    worker.server:cancel_jobs("the worker stops")
    local report = reported(fake, "a")
    assert.same({ "fail", { error = "the worker stops" } }, { report.way, report.body })
  end)

  it("that the result is one from before, where it is", function()
    assert.is_true(run(ends(0, "x", nil, { cached = true })).output.cached)
  end)
end)

describe("the queue is told, as queue-worker does,", function()
  local dialect = { dialect = "queue-worker" }

  it("of a program that ends: completed, whatever its exit code", function()
    for code, wanted in pairs { [0] = "", [3] = "err\n" } do
      local body, way = run(ends(code, "out\n", "err\n"), dialect)
      assert.equal("complete", way)
      assert.same({ "a", "completed", "out\n", code, "w-7", wanted }, { body.output.eval_id, body.output.status,
        body.output.output, body.output.exit_code, body.output.executor_id, body.output.error })
    end
  end)

  it("of one that needed too much memory: completed with 137, and the reason beside it", function()
    local body, way = run(function() return { state = "oom", exit_code = 137, reason = "too much memory" } end, dialect)
    assert.same({ "complete", 137, "oom" }, { way, body.output.exit_code, body.output.state })
  end)

  it("of one that takes too long, and of an engine that failed: failures", function()
    local body, way = run(hangs, dialect)
    assert.same({ "fail", { error = "Execution exceeded 2s timeout" } }, { way, body })
    body, way = run(breaks, dialect)
    assert.same({ "fail", { error = "the engine broke off" } }, { way, body })
  end)
end)

describe("the queue's reports", function()
  it("are UTF-8 whatever the program printed", function()
    local body, _, fake = run(ends(0, "\xff\xfe\0ok\n"))
    assert.equal("\u{FFFD}\u{FFFD}\0ok\n", body.output.output)
    assert.is_true(text.valid(asked(fake, "complete")[1].body))
  end)

  it("have the head and the tail of a flood, with the gap counted, in at most a mebibyte", function()
    local line = ("x"):rep((1 << 20) - 1) .. "\n"
    local body, _, fake = run(function(_, ctx)
      ctx.log("stdout", "begin\n")
      for _ = 1, 200 do
        ctx.log("stdout", line)
        task.yield() -- an engine's output comes in pieces, too
      end
      ctx.log("stdout", "the end\n")
      return { state = "success", exit_code = 0 }
    end, nil, { eval_id = "a", code = "x", timeout = 600 })
    assert.matches("^begin\n", body.output.output)
    assert.matches("\nthe end\n$", body.output.output)
    local gap = tonumber(body.output.output:match "%.%.%. (%d+) bytes %(%d+ lines%) dropped %.%.%.")
    assert.equal((200 << 20) + 14 - (256 << 10), gap)
    assert.equal(gap, body.output.stdout_dropped)
    assert.is_nil(body.output.stderr_dropped)
    assert.is_true(#asked(fake, "complete")[1].body <= 1 << 20)
  end)

  it("stay below a mebibyte also where every byte becomes six", function()
    local body, _, fake = run(ends(0, ("\1"):rep(200000), ("\2"):rep(200000)))
    assert.is_true(#asked(fake, "complete")[1].body <= 1 << 20)
    assert.is_true(body.output.stdout_dropped >= 200000 - 96 * 1024)
    assert.is_true(#body.output.stdout > 10000)
  end)

  it("are shortened for whoever stands in front of the queue and takes less", function()
    local fake = queue.fake { jobs = { { eval_id = "a", code = "x" } } }
    fake:bend_all("complete", function(request, reply, go)
      if #request.body > 10000 then return reply:empty(413) end
      return reply:send(go())
    end)
    queue.worker(fake, nil, { run = ends(0, ("x"):rep(100000) .. "end") })
    local body = reported(fake, "a").body
    assert.matches("end$", body.output.output)
    assert.is_true(body.output.stdout_dropped > 90000)
    assert.equal(2, #asked(fake, "complete"))
  end)

  for _, what in ipairs { "before", "after" } do
    it(("whose connection breaks %s the queue has them are sent again, and never become failures"):format(what), function()
      local fake = queue.fake { jobs = { { eval_id = "a", code = "x" }, { eval_id = "b", code = "x" } } }
      local deed = what == "after" and vulcan.after or vulcan.instead
      fake:bend("complete", deed(server.reset "after"))
      local runs = 0
      queue.worker(fake, nil, { run = function()
        runs = runs + 1
        return { state = "success", exit_code = 0 }
      end })
      reported(fake, "b")
      assert.equal(2, runs)
      assert.equal(3, #asked(fake, "complete"))
      assert.equal(asked(fake, "complete")[1].body, asked(fake, "complete")[2].body)
      assert.equal(0, #asked(fake, "fail"))
      assert.equal("completed", fake:report("a").body.output.status)
      wait_for(function() return #lines "task_completed_successfully" == 2 end)
    end)
  end

  it("that are answered with 500 and 503 are sent again", function()
    local fake = queue.fake { jobs = { { eval_id = "a", code = "x" } } }
    fake:bend("complete", vulcan.instead(server.text(500, "no")), vulcan.instead(server.empty(503)))
    queue.worker(fake)
    reported(fake, "a")
    assert.equal(3, #asked(fake, "complete"))
    wait_for(function() return #lines "task_completed_successfully" == 1 end)
  end)

  it("that are refused with 400, 401 or 422 are final, and the next task comes", function()
    for _, status in ipairs { 400, 401, 422 } do
      local fake = queue.fake { jobs = { { eval_id = "a", code = "x" }, { eval_id = "b", code = "x" } } }
      fake:bend("complete", vulcan.instead(server.json(status, { detail = "no" })))
      queue.worker(fake)
      reported(fake, "b")
      assert.equal(2, #asked(fake, "complete"))
      assert.equal(0, #asked(fake, "fail"))
    end
  end)

  it("that the queue does not know are final: it was restarted, or cleared", function()
    local fake = queue.fake { jobs = { { eval_id = "a", code = "x" } } }
    local forgotten = false
    queue.worker(fake, nil, { run = function(job)
      if not forgotten then fake:forget() end
      forgotten = true
      task.sleep(1)
      return { state = job.eval_id == "c" and "error" or "success", reason = "broken" }
    end })
    wait_for(function() return #asked(fake, "complete") == 1 end)
    fake:add { eval_id = "b", code = "x" }
    reported(fake, "b")
    task.sleep(600)
    assert.equal(2, #asked(fake, "complete"))
    assert.matches("does not know it", lines("task_completed_successfully")[1].message)
  end)

  it("arrive when the queue comes back within the hour", function()
    local fake = queue.fake { jobs = { { eval_id = "a", code = "x" } } }
    queue.worker(fake, nil, { run = function()
      fake:stop()
      return { state = "success", exit_code = 0 }
    end })
    wait_for(function() return not fake.http end)
    task.sleep(1800)
    fake:start()
    reported(fake, "a")
    assert.equal(1, #fake.reports)
  end)

  it("arrive after a job that was longer than the server keeps a connection", function()
    local fake = queue.fake { jobs = { { eval_id = "a", code = "x", timeout = 60 } } }
    queue.worker(fake, nil, { run = function()
      task.sleep(30)
      return { state = "success", exit_code = 0 }
    end })
    reported(fake, "a")
    assert.equal(1, #asked(fake, "complete"))
  end)

  it("are the same bytes each time, with nothing in them that JSON does not have", function()
    local _, _, fake = run(ends(0, "1"))
    local body = asked(fake, "complete")[1].body
    assert.same(json.decode(body), json.decode(json.encode(json.decode(body))))
    assert.is_true(json.valid(body))
  end)
end)
