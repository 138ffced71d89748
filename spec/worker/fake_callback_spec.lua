-- The address that `worker serve callback` plays, with the worker it is for.
local callback = require "worker.fakes.callback"
local http = require "worker.http"
local program = require "spec.support.program"
local scratch = require "spec.support.scratch"

describe("worker serve callback #realtime", function()
  local function work(fake, ...)
    local dir <close> = scratch.dir()
    local env = { TASK_ID = "7", PROJECT_ID = "demo", CALLBACK_URL = fake.url .. "/hook", WORKER_STATE = dir:path "state" }
    return program.run { env = env, "callback", "--", ... }
  end

  it("takes the events of a task, in order", function()
    local fake <close> = callback.serve {}
    local run = work(fake, "echo", "hello")
    assert.equal(0, run.code, run.stderr)
    local started, completed = fake.events[1], fake.events[2]
    assert.same({ "started", "7", 2 }, { started.status, started.task_id, #fake.events })
    assert.same({ "completed", "hello\n" }, { completed.status, completed.stdout })
  end)

  it("may end the task by its answers", function()
    local fake <close> = callback.serve { cancel = true }
    work(fake, "sleep", "600")
    assert.same({ "failed", "cancelled" }, { fake.events[2].status, fake.events[2].reason })
  end)

  it("answers with any status, and refuses what is no event", function()
    local fake <close> = callback.serve { status = 503 }
    local api = http.client { base = fake.url }
    for body, status in pairs { ["{}"] = 503, ["[1"] = 400, ["3"] = 400 } do
      local ok, why = pcall(api.post, api, "/hook/started", { body = body })
      assert.same({ false, status }, { ok, why.status })
    end
  end)

  it("hands out no jobs", function()
    assert.error_matches(function() callback.serve { jobs = { "echo hi" } } end, "no jobs to hand out")
  end)
end)
