local baaaht = require "spec.support.baaaht"
local err = require "worker.error"
local grpc = require "worker.grpc"
local sys = require "worker.core.sys"
local task = require "worker.task"
local text = require "worker.text"

local wait_for, asked, ended, said = baaaht.wait_for, baaaht.asked, baaaht.ended, baaaht.said

-- A task that takes so long and is well.
local function takes(seconds)
  return function(_, ctx)
    ctx.log("stdout", "begun\n")
    task.sleep(seconds)
    return { state = "success", exit_code = 0 }
  end
end

local at_once = takes(0)

local function agents(fake)
  local list = {}
  for _, agent in pairs(fake.agents) do list[#list + 1] = agent end
  return list
end

local function agent_of(fake)
  return wait_for(function() return agents(fake)[1] end)
end

describe("baaaht registers", function()
  it("once, as a worker, with name, host, pid as text and what it can do; then a heartbeat at once", function()
    local fake = baaaht.fake()
    baaaht.worker(fake, { labels = { zone = "b" }, tags = { "t" } }, { run = at_once, container = true, name = "mine" })
    local agent = agent_of(fake)
    wait_for(function() return agent.beats == 1 end)
    assert.equal(1, #asked(fake, "Register"))
    local request = agent.request
    assert.same({ "mine", "AGENT_TYPE_WORKER" }, { request.name, request.type })
    assert.same({ sys.hostname(), tostring(sys.pid()), sys.version(), { "t" } }, { request.metadata.hostname,
      request.metadata.pid, request.metadata.version, request.metadata.tags })
    assert.same({ "worker", "b" }, { request.metadata.labels.component, request.metadata.labels.zone })
    assert.matches("^linux/%w+$", request.metadata.labels.runtime)
    local can = request.capabilities
    assert.same({ 5, true, true, { "grpc" }, 7 }, { can.max_concurrent_tasks, can.supports_streaming,
      can.supports_cancellation, can.supported_protocols, #can.supported_tasks })
    assert.is_true(can.resource_limits.nano_cpus >= 1000000000 and can.resource_limits.memory_bytes > 1 << 20)
    local beat = asked(fake, "Heartbeat")[1].body
    assert.equal(agent.id, beat.agent_id)
    assert.is_true(beat.resources.memory_usage > 0 and beat.resources.memory_limit > beat.resources.memory_usage)
  end)

  it("under the name of its host when it has none", function()
    local fake = baaaht.fake()
    baaaht.worker(fake, {}, { run = at_once })
    assert.equal("worker-" .. sys.hostname(), agent_of(fake).request.name)
  end)

  it("with what it can really do: no tool without a container, no file tool without a workspace", function()
    local fake = baaaht.fake()
    baaaht.worker(fake, {}, { run = at_once })
    assert.same({}, agent_of(fake).request.capabilities.supported_tools)
    assert.same({ "code_execution", "data_processing", "custom" }, agent_of(fake).request.capabilities.supported_tasks)
    local other, third = baaaht.fake(), baaaht.fake()
    baaaht.worker(other, {}, { run = at_once, container = true })
    assert.same({ "command", "fetch_url", "web_search" }, agent_of(other).request.capabilities.supported_tools)
    baaaht.worker(third, { tools = { workspaces = { ["*"] = "/srv" } } }, { run = at_once, container = true })
    assert.is_true(#agent_of(third).request.capabilities.supported_tools >= 8)
  end)

  it("with the headers of a gRPC call and a time of at most 8 digits", function()
    local fake = baaaht.fake()
    baaaht.worker(fake, {}, { run = at_once })
    agent_of(fake)
    local head = asked(fake, "Register")[1].headers
    assert.same({ "POST", "http", "/agent.v1.AgentService/Register", "application/grpc", "trailers" },
      { head[":method"], head[":scheme"], head[":path"], head["content-type"], head.te })
    assert.matches("^%d+[numSMH]$", head["grpc-timeout"])
    assert.is_true(#head["grpc-timeout"] <= 9)
  end)

  it("and leaves with a reason when it is asked to stop", function()
    local fake = baaaht.fake()
    local worker = baaaht.worker(fake, {}, { run = at_once })
    local agent = agent_of(fake)
    assert.equal(0, worker:stop())
    assert.equal("worker stops", fake.left[agent.id])
    assert.same({}, agents(fake))
  end)
end)

describe("baaaht's heartbeat", function()
  it("keeps its pace: one a second, whatever the answers take, and never two at once", function()
    local fake = baaaht.fake()
    local now, most = 0, 0
    fake:bend_all("Heartbeat", function(_, _, go)
      now = now + 1
      most = math.max(most, now)
      task.sleep(0.4)
      now = now - 1
      return go()
    end)
    baaaht.worker(fake, { heartbeat_interval = "1s" }, { run = at_once })
    agent_of(fake)
    task.sleep(10)
    local beats = #asked(fake, "Heartbeat")
    assert.is_true(beats >= 10 and beats <= 12, tostring(beats))
    assert.equal(1, most)
  end)

  it("names the tasks that run", function()
    local fake = baaaht.fake { jobs = { "one" } }
    baaaht.worker(fake, { heartbeat_interval = "1s" }, { run = takes(5) })
    local agent = agent_of(fake)
    wait_for(function() return agent.last and #agent.last.active_tasks == 1 end)
    assert.same({ fake.list[1].id }, agent.last.active_tasks)
    ended(fake, 1)
    wait_for(function() return #agent.last.active_tasks == 0 end)
  end)

  it("answered that nobody knows this worker: it registers again, what runs goes on", function()
    local fake = baaaht.fake { jobs = { "one" } }
    baaaht.worker(fake, { heartbeat_interval = "1s" }, { run = takes(5) })
    local first = agent_of(fake)
    wait_for(function() return #fake.list[1].told.stdout > 0 end)
    fake.agents[first.id] = nil
    local second = wait_for(function() return agents(fake)[1] end)
    assert.not_equal(first.id, second.id)
    assert.equal("COMPLETED", said(ended(fake, 1)))
    fake:add "two"
    fake.list[2].agent = second.id
    assert.equal("COMPLETED", said(ended(fake, 2)))
  end)
end)

describe("baaaht runs", function()
  it("a task: it runs, its output, how it ended, in this order; every message has the task's id", function()
    local fake = baaaht.fake { jobs = { "echo hi" } }
    baaaht.worker(fake, {}, { run = function(_, ctx)
      ctx.log("stdout", "out")
      ctx.log("stderr", "err")
      return { state = "success", exit_code = 0 }
    end })
    local row = ended(fake, 1)
    assert.equal("status", row.told.messages[1])
    assert.equal("complete", row.told.messages[#row.told.messages])
    assert.same({ "TASK_STATE_RUNNING", "TASK_STATE_COMPLETED" }, row.told.statuses)
    assert.same({ "out", "err" }, { table.concat(row.told.stdout), table.concat(row.told.stderr) })
    assert.same({ 0, 1 }, row.told.progress)
    assert.is_nil(row.told.nameless)
    local result = row.told.complete.result
    assert.same({ 0, "out", "out", "" }, { result.exit_code, result.output_data, result.output_text, result.error_text })
    assert.equal(row.id, row.told.complete.task_id)
    assert.is_true(result.execution_duration_ns >= 0 and result.completed_at.seconds > 1700000000)
  end)

  it("a command with its arguments, environment, input and limits #realtime", function()
    local fake = baaaht.fake { jobs = { { command = 'cat; echo "$1 $A"; exit 3', arguments = { "x y" }, environment = { A = "b" },
      input = "in\0put\n" } } }
    baaaht.worker(fake)
    local row = ended(fake, 1)
    assert.equal("FAILED", said(row))
    local result = row.told.complete.result
    assert.same({ 3, "in\0put\nx y b\n", "in\0put\nx y b\n", "failed" },
      { result.exit_code, result.output_data, result.error_text, result.metadata.state })
  end)

  it("whatever it runs in, with its session: policies may be a session's own", function()
    for _, container in ipairs { true, false } do
      local got
      local fake = baaaht.fake { jobs = { { command = "true", session = "s-1" } } }
      baaaht.worker(fake, {}, { container = container, run = function(job)
        got = job.session
        return { state = "success", exit_code = 0 }
      end })
      ended(fake, 1)
      assert.equal("s-1", got)
    end
  end)

  it("a tool in a container, with what its plugin says", function()
    local dir = baaaht.dir()
    dir:write("a.txt", "text")
    local got
    local fake = baaaht.fake { jobs = { { type = "file_operation", command = "read", parameters = { path = "a.txt" } } } }
    baaaht.worker(fake, { tools = { workspaces = { ["*"] = dir.root } } }, { container = true, run = function(job)
      got = job
      return { state = "success", exit_code = 0 }
    end })
    assert.equal("COMPLETED", said(ended(fake, 1)))
    assert.same({ "file_read", "alpine:3.19", 30, { "spec" } }, { got.tool, got.image, got.timeout, got.executor })
    assert.same({ { source = dir.root, target = "/workspace", write = false } }, got.container.mounts)
  end)

  it("each task once, although the list goes on naming it", function()
    local fake, runs = baaaht.fake { jobs = { "one", "two" } }, 0
    baaaht.worker(fake, { task_poll = "500ms", heartbeat_interval = "1s" }, { run = function()
      runs = runs + 1
      return { state = "success", exit_code = 0 }
    end })
    ended(fake, 1)
    ended(fake, 2)
    task.sleep(20)
    assert.same({ 2, 1, 1 }, { runs, fake.list[1].told.ends, fake.list[2].told.ends })
    assert.equal("TASK_STATE_UNSPECIFIED", fake.list[1].state)
    assert.is_true(#asked(fake, "ListTasks") > 20)
  end)

  it("tasks of a heartbeat whose answer got lost, each once", function()
    local fake, runs = baaaht.fake { jobs = { "one", "two" } }, 0
    fake:bend("Heartbeat", function(_, call, go)
      go()
      call.connection:close()
      task.sleep(3600)
    end)
    baaaht.worker(fake, { task_poll = "1h", reconnect_interval = "1s" }, { run = function()
      runs = runs + 1
      return { state = "success", exit_code = 0 }
    end })
    ended(fake, 1)
    ended(fake, 2)
    task.sleep(60)
    assert.equal(2, runs)
  end)

  it("soon, between two heartbeats", function()
    local fake = baaaht.fake()
    baaaht.worker(fake, { heartbeat_interval = "1h", task_poll = "2s" }, { run = at_once })
    local agent = agent_of(fake)
    task.sleep(5)
    fake:add "late"
    ended(fake, 1)
    assert.equal(1, agent.beats)
  end)

  it("8 tasks on 5 places: 5 at once, 3 wait, all end", function()
    local fake, now, most = baaaht.fake { jobs = { "1", "2", "3", "4", "5", "6", "7", "8" } }, 0, 0
    local worker = baaaht.worker(fake, { heartbeat_interval = "1s" }, { run = function()
      now = now + 1
      most = math.max(most, now)
      task.sleep(10)
      now = now - 1
      return { state = "success", exit_code = 0 }
    end })
    for i = 1, 8 do assert.equal("COMPLETED", said(ended(fake, i))) end
    assert.equal(5, most)
    assert.equal(8, worker.server.done)
    assert.is_true(agent_of(fake).beats >= 20)
  end)

  it("a task that may be repeated again when it fails, as often as it says, and tells one end", function()
    for _, container in ipairs { false, true } do
      local fake, runs = baaaht.fake { jobs = { { command = "x", retry_on_failure = true, max_retries = 2 },
        { command = "x", max_retries = 2 } } }, {}
      baaaht.worker(fake, {}, { container = container, policies = { { "again" } }, run = function(job)
        runs[job.id] = (runs[job.id] or 0) + 1
        return { state = "failed", exit_code = 1 }
      end })
      local first, second = ended(fake, 1), ended(fake, 2)
      assert.same({ 3, 1, 1, 1 }, { runs[first.id], runs[second.id], first.told.ends, second.told.ends })
    end
  end)

  it("4 MB of output, all of it in order, stdout and stderr apart #realtime", function()
    local command = [[i=0; while [ $i -lt 64 ]; do head -c 65536 /dev/urandom | tee -a out; echo "e $i" >&2; i=$((i+1)); done
      sha256sum <out >sum; cat sum >&2]]
    local fake = baaaht.fake { jobs = { command } }
    baaaht.worker(fake)
    local told = ended(fake, 1).told
    local stdout, stderr = table.concat(told.stdout), table.concat(told.stderr)
    assert.equal(4 << 20, #stdout)
    assert.equal(text.sha256(stdout), stderr:match("e 63\n(%x+)"))
    for _, part in ipairs(told.stdout) do assert.is_true(#part <= 32 * 1024) end
    local kept = told.complete.result.output_data
    assert.is_true(kept:sub(1, 1 << 19) == stdout:sub(1, 1 << 19) and kept:sub(-(1 << 19)) == stdout:sub(-(1 << 19)))
    assert.is_true(#kept < 2200000)
  end)

  it("output that is no text: as bytes, with nothing where text is asked for #realtime", function()
    local fake = baaaht.fake { jobs = { [[printf 'a\000b\377\303'; printf '\251\n' >&2; exit 1]] } }
    baaaht.worker(fake)
    local row = ended(fake, 1)
    local result = row.told.complete.result
    assert.same({ "a\0b\xff\xc3", "a\0b\xff\xc3", "", "\u{FFFD}\n" }, { table.concat(row.told.stdout), result.output_data,
      result.output_text, result.error_text })
  end)

  it("a task with 5 MB of input", function()
    local fake, got = baaaht.fake(), nil
    local input = ("0123456789abcdef"):rep(5 << 16)
    fake:add { command = "cat", input = input }
    baaaht.worker(fake, { task_poll = "1h" }, { run = function(job)
      got = #job.stdin
      return { state = "success", exit_code = 0 }
    end })
    ended(fake, 1)
    assert.equal(#input, got)
  end)

  it("a task larger than max_recv_msg_size: refused in words, the next one runs", function()
    local fake = baaaht.fake()
    fake:add { command = "cat", input = ("x"):rep(100000) }
    baaaht.worker(fake, { max_recv_msg_size = 65536, heartbeat_interval = "1s" }, { run = at_once })
    local row = ended(fake, 1)
    assert.equal("FAILED RESOURCE_EXHAUSTED", said(row))
    assert.matches("larger than max_recv_msg_size", row.told.error.message)
    fake:add "small"
    assert.equal("COMPLETED", said(ended(fake, 2)))
  end)
end)

describe("baaaht ends", function()
  it("a task that runs too long: TIMEOUT, after the task's own time", function()
    local fake = baaaht.fake { jobs = { { command = "sleep", timeout = "1s" } } }
    baaaht.worker(fake, {}, { run = takes(3600), policies = { { "timeout" } } })
    local began = sys.mono()
    local row = ended(fake, 1)
    assert.equal("TIMEOUT TIMEOUT", said(row))
    assert.is_true(sys.mono() - began < 3)
  end)

  it("a task that is cancelled while it runs: soon, CANCELLED, its place is free", function()
    local fake = baaaht.fake { jobs = { "one" } }
    local worker = baaaht.worker(fake, { cancel_poll = "1s" }, { run = takes(3600), slots = 1 })
    wait_for(function() return #fake.list[1].told.stdout > 0 end)
    local began = sys.mono()
    fake:cancel(fake.list[1])
    assert.equal("CANCELLED CANCELLED", said(ended(fake, 1)))
    assert.is_true(sys.mono() - began < 2)
    wait_for(function() return worker.server.running == 0 end)
  end)

  it("nothing that was cancelled before it came", function()
    local fake, runs = baaaht.fake { jobs = { "one", "two" } }, 0
    fake:cancel(fake.list[1])
    baaaht.worker(fake, {}, { run = function()
      runs = runs + 1
      return { state = "success", exit_code = 0 }
    end })
    ended(fake, 2)
    task.sleep(10)
    assert.same({ 1, 0, {} }, { runs, fake.list[1].told.ends, fake.list[1].told.messages })
  end)

  it("nothing by the orchestrator's word on the stream alone", function()
    local fake = baaaht.fake { jobs = { "one" } }
    fake:bend("StreamTask", function(_, call, go)
      call:send { complete = { task_id = fake.list[1].id } }
      call:send { status = { state = "TASK_STATE_CANCELLED" } }
      return go()
    end)
    baaaht.worker(fake, {}, { run = takes(5) })
    assert.equal("COMPLETED", said(ended(fake, 1)))
  end)

  it("a task that the orchestrator has forgotten, and works on", function()
    local fake, cancelled = baaaht.fake { jobs = { "one" } }, nil
    baaaht.worker(fake, { heartbeat_interval = "1s" }, { run = function(job, ctx)
      ctx.log("stdout", "begun")
      local _ <close> = setmetatable({}, { __close = function() cancelled = job.id end })
      if job.argv[3] == "one" then task.sleep(3600) end
      return { state = "success", exit_code = 0 }
    end })
    local row = fake.list[1]
    wait_for(function() return #row.told.stdout > 0 end)
    fake.tasks[row.id] = nil
    wait_for(function() return cancelled end)
    fake:add "two"
    assert.equal("COMPLETED", said(ended(fake, 2)))
    assert.equal(0, row.told.ends)
  end)

  it("what it is told of a stream whose task nobody knows, at once and without hanging", function()
    local fake = baaaht.fake { jobs = { "one" } }
    fake:bend_all("StreamTask", function() grpc.raise("NOT_FOUND", "task not found") end)
    local worker = baaaht.worker(fake, {}, { run = takes(3) })
    wait_for(function() return worker.server.done == 1 end)
    fake:bend_all("StreamTask", nil)
    fake:add "two"
    assert.equal("COMPLETED", said(ended(fake, 2)))
  end)

  it("with an error for every task that cannot be, never with silence", function()
    local kinds = {
      { type = "unspecified", command = "echo" }, { type = "file_operation", command = "frobnicate" },
      { type = "tool_execution", command = "" }, { type = "network_request", command = "fetch_url" },
      { type = "file_operation", command = "read", parameters = { path = "../../etc/passwd" } },
      { type = "file_operation", command = "read", parameters = { path = "x" },
        constraints = { denied_operations = { "read" } } },
      { type = "custom", command = "" },
    }
    local fake = baaaht.fake { jobs = kinds }
    baaaht.worker(fake, {}, { run = at_once, container = true })
    local list = {}
    for i in ipairs(kinds) do
      list[i] = said(ended(fake, i))
      assert.matches("%w", fake.list[i].told.error.message)
    end
    assert.same({ "FAILED INVALID_ARGUMENT", "FAILED UNIMPLEMENTED", "FAILED INVALID_ARGUMENT", "FAILED INVALID_ARGUMENT",
      "FAILED FAILED_PRECONDITION", "FAILED PERMISSION", "FAILED INVALID_ARGUMENT" }, list)
  end)

  it("a command that its constraints do not allow, without containers, too: PERMISSION", function()
    local fake = baaaht.fake { jobs = {
      { command = "rm", constraints = { denied_operations = { "rm" } } },
      { command = "rm", constraints = { allowed_operations = { "ls" } } },
      { command = "ls", constraints = { allowed_operations = { "ls" } } },
    } }
    baaaht.worker(fake, {}, { run = at_once })
    assert.equal("FAILED PERMISSION", said(ended(fake, 1)))
    assert.equal("FAILED PERMISSION", said(ended(fake, 2)))
    assert.equal("COMPLETED", said(ended(fake, 3)))
  end)

  it("a tool without a container to run it in: UNAVAILABLE", function()
    local fake = baaaht.fake { jobs = { { type = "file_operation", command = "read" } } }
    baaaht.worker(fake, {}, { run = at_once })
    assert.equal("FAILED UNAVAILABLE", said(ended(fake, 1)))
  end)

  it("tasks while the engine is away: UNAVAILABLE, heartbeats go on, the next one works when it is back", function()
    local fake, away = baaaht.fake { jobs = { "one" } }, true
    local function check() if away then err.raise("unusable", "no engine answers") end end
    baaaht.worker(fake, { heartbeat_interval = "1s" }, { run = at_once, check = check, container = true })
    local row = ended(fake, 1)
    assert.equal("FAILED UNAVAILABLE", said(row))
    assert.matches("no engine answers", row.told.error.message)
    away = false
    task.sleep(40)
    assert.is_true(agent_of(fake).beats >= 40)
    fake:add "two"
    assert.equal("COMPLETED", said(ended(fake, 2)))
  end)
end)

describe("baaaht's connection", function()
  -- What a worker's log would say, as states.
  local function state_of(worker)
    return worker.server.plugin.connection(worker.conf)
  end

  it("is Idle, Connecting, Ready, TransientFailure, Ready again, and Shutdown", function()
    local fake = baaaht.fake()
    local worker = baaaht.worker(fake, { heartbeat_interval = "1s", reconnect_interval = "2s" }, { run = at_once })
    assert.equal("Idle", state_of(worker))
    wait_for(function() return state_of(worker) == "Ready" end)
    fake:stop()
    wait_for(function() return state_of(worker) == "TransientFailure" end)
    fake:start()
    wait_for(function() return state_of(worker) == "Ready" end)
    worker:stop()
    assert.equal("Shutdown", state_of(worker))
  end)

  it("that cannot be made at start is tried for dial_timeout, then the worker ends", function()
    local fake = baaaht.fake()
    fake:stop()
    local began = sys.mono()
    local worker = baaaht.worker({ url = fake.address }, { dial_timeout = "3s" }, { run = at_once })
    local _, code = worker.handle:join()
    assert.equal(69, code)
    local took = sys.mono() - began
    assert.is_true(took >= 2.9 and took < 5, tostring(took))
  end)

  it("that is lost is made anew, as often as the worker may, then it ends", function()
    local fake = baaaht.fake()
    local worker = baaaht.worker(fake, { heartbeat_interval = "1s", reconnect_interval = "2s", reconnect_max_attempts = 3 },
      { run = at_once })
    agent_of(fake)
    fake:stop()
    local _, code = worker.handle:join()
    assert.equal(69, code)
  end)

  it("that is made again and again and never answers is none", function()
    local fake = baaaht.fake()
    local worker = baaaht.worker(fake, { heartbeat_interval = "1s", reconnect_interval = "1s", reconnect_max_attempts = 3 },
      { run = at_once })
    local agent = agent_of(fake)
    wait_for(function() return agent.beats >= 2 end)
    fake:bend_all("Heartbeat", function(_, call)
      call.connection:close()
      task.sleep(3600)
    end)
    local _, code = worker.handle:join()
    assert.equal(69, code)
  end)

  it("that does not want this worker ends it with 77", function()
    local fake = baaaht.fake()
    fake:bend_all("Register", function() grpc.raise("UNAUTHENTICATED", "who are you?") end)
    local _, code = baaaht.worker(fake, {}, { run = at_once }).handle:join()
    assert.equal(77, code)
  end)

  it("that is lost for an hour is back, and the worker is known by its old id", function()
    local fake = baaaht.fake { jobs = { "one" } }
    baaaht.worker(fake, { heartbeat_interval = "1s" }, { run = takes(600) })
    local agent = agent_of(fake)
    wait_for(function() return #fake.list[1].told.stdout > 0 end)
    fake:stop()
    task.sleep(3600)
    fake:start()
    assert.equal("COMPLETED", said(ended(fake, 1)))
    fake:add "two"
    assert.equal("COMPLETED", said(ended(fake, 2)))
    assert.equal(1, #asked(fake, "Register"))
    assert.is_not_nil(fake.agents[agent.id])
  end)

  it("whose orchestrator has lost its memory: a new id, its old tasks are ended", function()
    local fake, ended_here = baaaht.fake { jobs = { "one" } }, false
    baaaht.worker(fake, { heartbeat_interval = "1s", reconnect_interval = "1s" }, { run = function(job, ctx)
      local _ <close> = setmetatable({}, { __close = function() ended_here = true end })
      ctx.log("stdout", "begun")
      if job.argv[3] == "one" then task.sleep(36000) end
      return { state = "success", exit_code = 0 }
    end })
    local agent = agent_of(fake)
    wait_for(function() return #fake.list[1].told.stdout > 0 end)
    fake:stop()
    fake.agents, fake.tasks, fake.list = {}, {}, {}
    task.sleep(30)
    fake:start()
    fake:add "two"
    assert.equal("COMPLETED", said(ended(fake, 1)))
    assert.not_equal(agent.id, agent_of(fake).id)
    wait_for(function() return ended_here end)
  end)

  it("that is said goodbye to: what runs ends on it, what comes takes a new one", function()
    local fake = baaaht.fake { jobs = { "one" } }
    baaaht.worker(fake, { heartbeat_interval = "1s", reconnect_interval = "1s" }, { run = takes(5) })
    wait_for(function() return #fake.list[1].told.stdout > 0 end)
    fake:retire(10)
    assert.equal("COMPLETED", said(fake.list[1]))
    assert.equal(1, fake.list[1].told.streams)
    fake:start()
    fake:add "two"
    assert.equal("COMPLETED", said(ended(fake, 2)))
  end)

  it("on which a call is not answered, reset or late: the worker tries again and lives", function()
    local fake = baaaht.fake()
    local function silent() task.sleep(3600) end
    local function reset(_, call) call.stream:reset(8) task.sleep(3600) end
    local function late() grpc.raise("DEADLINE_EXCEEDED", "too late") end
    fake:bend("Heartbeat", silent, reset, late)
    local worker = baaaht.worker(fake, { heartbeat_interval = "2s", rpc_timeout = "1s" }, { run = at_once })
    local agent = agent_of(fake)
    wait_for(function() return agent.beats >= 2 end)
    assert.equal(1, #asked(fake, "Register"))
    fake:add "one"
    assert.equal("COMPLETED", said(ended(fake, 1)))
    assert.equal("ready", worker.server.state)
  end)

  it("that looks alive and answers nothing is given up after three heartbeats, for another one", function()
    local fake = baaaht.fake()
    local worker = baaaht.worker(fake, { heartbeat_interval = "2s", rpc_timeout = "1s", reconnect_interval = "1s" },
      { run = at_once })
    local agent = agent_of(fake)
    wait_for(function() return agent.beats >= 2 end)
    local first = asked(fake, "Heartbeat")[1].connection
    for _, route in ipairs { "Heartbeat", "ListTasks" } do
      fake:bend_all(route, function(_, call, go)
        if call.connection == first then task.sleep(3600) end
        return go()
      end)
    end
    local beats = agent.beats
    wait_for(function() return agent.beats > beats + 1 end)
    assert.equal(1, #asked(fake, "Register"))
    assert.equal("Ready", state_of(worker))
    fake:add "one"
    assert.equal("COMPLETED", said(ended(fake, 1)))
  end)

  it("on which a stream breaks in the middle: it is opened anew, the end is told once", function()
    local fake = baaaht.fake { jobs = { "one" } }
    fake:bend("StreamTask", function(_, call, go)
      task.start(function()
        task.sleep(2)
        call.stream:reset(2)
      end)
      return go()
    end)
    baaaht.worker(fake, {}, { run = function(_, ctx)
      for i = 1, 10 do
        ctx.log("stdout", i .. "\n")
        task.sleep(0.5)
      end
      return { state = "success", exit_code = 0 }
    end })
    local row = ended(fake, 1)
    assert.equal("COMPLETED", said(row))
    assert.same({ 2, 1 }, { row.told.streams, row.told.ends })
    assert.matches("10\n$", table.concat(row.told.stdout))
  end)

  -- One that takes nothing for so long, and then all.
  local function pausing(seconds)
    return function(_, _, go)
      task.sleep(seconds)
      return go()
    end
  end

  it("on which output is taken late: signs of life give way to it, none of it is lost", function()
    local fake = baaaht.fake { jobs = { "one" } }
    fake:bend("StreamTask", pausing(8))
    local large = ("x"):rep(32 * 1024)
    baaaht.worker(fake, { task_poll = "100ms" }, { run = function(_, ctx)
      for _ = 1, 32 do ctx.log("stdout", large) end -- one window: the last one waits in part
      task.sleep(3) -- signs of life come in between
      ctx.log("stdout", "the end")
      task.sleep(8)
      return { state = "success", exit_code = 0 }
    end })
    local row = ended(fake, 1)
    assert.equal("COMPLETED", said(row))
    assert.equal(#large * 32 + 7, #table.concat(row.told.stdout))
    assert.same({ 1, 1 }, { row.told.streams, row.told.ends })
  end)

  it("on which a stream takes nothing any more, while heartbeats are answered: it is opened anew", function()
    local fake = baaaht.fake { jobs = { "one" } }
    fake:bend("StreamTask", pausing(100000))
    baaaht.worker(fake, { rpc_timeout = "5s" }, { run = function(_, ctx)
      for _ = 1, 64 do ctx.log("stdout", ("x"):rep(32 * 1024)) end
      return { state = "success", exit_code = 0 }
    end })
    local row = ended(fake, 1)
    assert.equal("COMPLETED", said(row))
    assert.equal(1, row.told.ends)
  end)

  it("on which odd things are said: fields and values that nobody knows, no task, bytes that are none", function()
    local fake = baaaht.fake()
    local function raw(bytes)
      return function(_, call, go)
        go()
        call.codec = nil
        return text.unhex((bytes:gsub(" ", "")))
      end
    end
    fake:bend("Heartbeat", raw "a20601 78 0a020801 12015a", raw "0aff", raw "0a80808080808080808001",
      raw "ffffffffffffffffffffff01", raw "5b5b5b5b", raw "")
    fake:bend("GetTaskStatus", raw "", raw "0a03 2063 7000")
    baaaht.worker(fake, { heartbeat_interval = "1s" }, { run = at_once })
    local agent = agent_of(fake)
    wait_for(function() return agent.beats >= 8 end)
    fake:add "one"
    assert.equal("COMPLETED", said(ended(fake, 1)))
  end)
end)

describe("baaaht stops", function()
  it("while a task runs: it is cancelled, told, and the worker leaves", function()
    local fake = baaaht.fake { jobs = { "one" } }
    local worker = baaaht.worker(fake, {}, { run = takes(3600) })
    local agent = agent_of(fake)
    wait_for(function() return #fake.list[1].told.stdout > 0 end)
    worker.server:drain("the test")
    worker.server:cancel_jobs("the worker stops")
    worker.handle:join()
    assert.equal("CANCELLED CANCELLED", said(fake.list[1]))
    assert.equal("worker stops", fake.left[agent.id])
  end)

  it("while the orchestrator is away", function()
    local fake = baaaht.fake()
    local worker = baaaht.worker(fake, { heartbeat_interval = "1s" }, { run = at_once })
    agent_of(fake)
    fake:stop()
    task.sleep(20)
    assert.equal(0, worker:stop())
  end)
end)

describe("baaaht's settings", function()
  local plugin = require "spec.support.plugin"

  it("are the ones that its people know", function()
    local _, conf = plugin.get("protocol", "baaaht")
    assert.same({ "unix:///tmp/baaaht-grpc.sock", 30, 10, 104857600, 104857600, 5, 0, 30 }, { conf.orchestrator_addr,
      conf.dial_timeout, conf.rpc_timeout, conf.max_recv_msg_size, conf.max_send_msg_size, conf.reconnect_interval,
      conf.reconnect_max_attempts, conf.heartbeat_interval })
  end)

  it("that are zero are the defaults", function()
    local _, conf = plugin.get("protocol", "baaaht", { dial_timeout = 0, max_recv_msg_size = 0, heartbeat_interval = "0s" })
    assert.same({ 30, 104857600, 30 }, { conf.dial_timeout, conf.max_recv_msg_size, conf.heartbeat })
  end)

  it("take every form of an address, and say which there are", function()
    for _, address in ipairs { "unix:///tmp/x.sock", "unix:x.sock", "unix-abstract:x", "localhost:50051",
      "dns:///h.example:1" } do
      assert.equal(address, select(2, plugin.get("protocol", "baaaht", { orchestrator_addr = address })).orchestrator_addr)
    end
    local ok, why = pcall(plugin.get, "protocol", "baaaht", { orchestrator_addr = "http://x" })
    assert.is_false(ok)
    assert.matches("orchestrator_addr: .*unix:///path", why)
  end)
end)
