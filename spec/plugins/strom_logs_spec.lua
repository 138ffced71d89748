-- The protocol strom: live logs, cancelling, stopping.
local json = require "worker.json"
local server = require "spec.support.server"
local strom = require "spec.support.strom"
local task = require "worker.task"
local time = require "worker.time"

local function ok() return { state = "success", exit_code = 0 } end

describe("strom, logs:", function()
  local function printing(many, every)
    return function(_, ctx)
      for i = 1, many do
        ctx.log("stdout", ("line %d\n"):format(i))
        task.sleep(every)
      end
      return ok()
    end
  end

  it("a line is there within about a second of being printed, while the step runs", function()
    local fake = strom.fake { jobs = { "x" } }
    strom.worker(fake, nil, { run = printing(10, 1) })
    local _, job = strom.wait_job(fake.store.list[1])
    assert.equal(10, #job.log)
    for _, entry in ipairs(job.log) do
      assert.is_true(entry.at - time.parse(entry.ts) < 1.5, ("%f"):format(entry.at - time.parse(entry.ts)))
    end
    assert.is_true(#strom.asked(fake, strom.LOGS) >= 8)
  end)

  it("times are UTC of one width, rise, and never come twice", function()
    local fake = strom.fake { jobs = { "x" } }
    strom.worker(fake, nil, { run = function(_, ctx)
      for _ = 1, 100 do ctx.log("stdout", "same\nsame\n") end
      return ok()
    end })
    local _, job = strom.wait_job(fake.store.list[1])
    local last = ""
    for _, entry in ipairs(job.log) do
      assert.matches("^%d%d%d%d%-%d%d%-%d%dT%d%d:%d%d:%d%d%.%d%d%d%d%d%d%d%d%dZ$", entry.ts)
      assert.is_true(entry.ts > last)
      last = entry.ts
    end
    assert.equal(200, #job.log)
  end)

  it("a server that takes no logs for a while holds nothing up, and gets them once and in order", function()
    local fake = strom.fake { jobs = { "x" } }
    local ended
    local print_lines = printing(20, 1)
    strom.worker(fake, nil, { run = function(...)
      local result = print_lines(...)
      ended = time.mono()
      return result
    end })
    local began = time.mono()
    fake:bend_all(strom.LOGS, strom.instead(server.json(500, { error = "x" })))
    task.sleep(15)
    fake:bend_all(strom.LOGS, nil)
    local step, job = strom.wait_job(fake.store.list[1])
    assert.equal("completed", step.status)
    assert.is_true(ended - began < 21)
    assert.equal(20, #job.log)
    for i, entry in ipairs(job.log) do assert.equal("line " .. i, entry.line) end
  end)

  it("a body is repeated as it was, and of several those that arrived are not", function()
    local fake = strom.fake { jobs = { "x" } }
    fake:bend(strom.LOGS, function(_, reply, go) reply:send(go()) end, strom.after(server.reset "after"))
    strom.worker(fake, nil, { run = function(_, ctx)
      ctx.log("stdout", ("\n"):rep(20000))
      return ok()
    end })
    strom.wait_job(fake.store.list[1])
    local asked = strom.asked(fake, strom.LOGS)
    assert.equal(4, #asked)
    assert.equal(asked[2].body, asked[3].body)
    assert.not_equal(asked[1].body, asked[2].body)
  end)

  it("logs that are refused for good end neither the step nor its report", function()
    local fake = strom.fake { jobs = { "x" } }
    fake:bend_all(strom.LOGS, strom.instead(server.json(400, { error = "no" })))
    strom.worker(fake, nil, { run = printing(3, 1) })
    assert.equal("completed", strom.wait_job(fake.store.list[1]).status)
    assert.equal(1, #strom.asked(fake, strom.LOGS))
  end)

  it("what is printed last is there when the step ends", function()
    local fake = strom.fake { jobs = { "x" } }
    local there
    fake:bend_all(strom.COMPLETE, function(_, reply, go)
      there = strom.lines(fake.store.list[1])
      reply:send(go())
    end)
    strom.worker(fake, nil, { run = function(_, ctx)
      ctx.log("stderr", "the end")
      return ok()
    end })
    assert.equal("completed", strom.wait_job(fake.store.list[1]).status)
    assert.same({ "the end" }, there)
  end)

  it("an empty list of lines is never sent", function()
    local fake = strom.fake { jobs = { "x" } }
    strom.worker(fake, nil, { run = function() return ok() end })
    strom.wait_job(fake.store.list[1])
    assert.equal(0, #strom.asked(fake, strom.LOGS))
  end)
end)

describe("strom, cancelling:", function()
  local function until_cancelled() task.sleep(100000) end

  it("a cancelled step is ended and reported as failed, and its slot is free", function()
    local fake = strom.fake { jobs = { "x" } }
    local worker = strom.worker(fake, nil, { run = function(job)
      return job.script == "y" and ok() or until_cancelled()
    end })
    local job = fake.store.list[1]
    strom.wait_for(function() return job.steps[1].status == "running" end)
    fake.store:cancel(job.id)
    local step = strom.wait_job(job)
    assert.same({ "failed", -1, "cancelled", 1 }, { step.status, step.exit_code, job.status, step.completes })
    assert.matches("Job cancelled", step.error)
    assert.equal("completed", strom.wait_job(fake:add "y").status)
    assert.equal(0, worker:stop())
  end)

  it("the whole tree of a cancelled step is ended #realtime", function()
    local fake = strom.fake { jobs = { "(trap '' TERM; sleep 777 & sleep 777) & setsid sleep 777 & echo up; wait" } }
    strom.worker(fake, nil, {})
    local job = fake.store.list[1]
    strom.wait_for(function() return #job.log > 0 end)
    fake.store:cancel(job.id)
    assert.equal("failed", strom.wait_job(job).status)
    -- what is left over would be told by the count of children after this test
    assert.matches("Job cancelled", job.steps[1].error)
  end)

  it("a server that restarts forgets who was cancelled: the step runs to its end, the job stays cancelled", function()
    local fake = strom.fake { jobs = { "x" } }
    strom.worker(fake, { cancel_poll = "10s" }, { run = function()
      task.sleep(30)
      return ok()
    end })
    local job = fake.store.list[1]
    strom.wait_for(function() return job.steps[1].status == "running" end)
    fake.store:cancel(job.id)
    fake:restart()
    local step = strom.wait_job(job)
    assert.same({ "completed", "cancelled" }, { step.status, job.status })
  end)

  it("questions that fail are asked again", function()
    local fake = strom.fake { jobs = { "x" } }
    fake:bend(strom.CANCELLED, strom.instead(server.text(200, "<html>")), strom.instead(server.reset "before"),
      strom.instead(server.json(200, { cancelled = "maybe" })))
    strom.worker(fake, nil, { run = until_cancelled })
    strom.wait_for(function() return #strom.asked(fake, strom.CANCELLED) > 4 end)
    fake.store:cancel(fake.store.list[1].id)
    assert.equal("failed", strom.wait_job(fake.store.list[1]).status)
  end)
end)

describe("strom, stopping:", function()
  it("no more claims, the running step is finished and reported, heartbeats go on until then", function()
    local fake = strom.fake { jobs = { "x", "y" } }
    local worker = strom.worker(fake, nil, { run = function()
      task.sleep(100)
      return ok()
    end })
    strom.wait_for(function() return fake.store.list[1].steps[1].status == "running" end)
    task.sleep(5)
    assert.equal(0, worker:stop())
    assert.equal("completed", fake.store.list[1].steps[1].status)
    assert.equal("ready", fake.store.list[2].steps[1].status)
    assert.is_true(#strom.asked(fake, strom.HEARTBEAT) >= 4)
  end)

  it("the token and the claim's secrets are in no request but where they belong", function()
    local fake = strom.fake { jobs = { { script = "x", env = { PASSWORD = "hunter22" } } } }
    strom.worker(fake, nil, { run = ok })
    strom.wait_job(fake.store.list[1])
    for _, seen in ipairs(fake.seen) do
      assert.is_nil(seen.body:find(strom.TOKEN, 1, true))
      assert.is_nil(seen.body:find("hunter22", 1, true))
      assert.equal("Bearer " .. strom.TOKEN, seen.headers.authorization)
    end
    assert.truthy(json.encode(fake.store.list[1].steps[1].spec.env):find "hunter22")
  end)
end)
