-- baaaht's orchestrator as it is played: what it answers to whom, its oddities included.
local baaaht = require "spec.support.baaaht"
local fs = require "worker.fs"
local grpc = require "worker.grpc"
local proto = require "worker.proto"
local protobuf = require "worker.protobuf"
local talk = require "spec.support.talk"

local SERVICE = "/agent.v1.AgentService/"
local schema = protobuf.load(proto.load { "plugins/protocols/baaaht/agent.proto" })

describe("baaaht, played,", function()
  local fake, client

  before_each(function()
    fake = baaaht.fake()
    client = grpc.client { target = fake.url, codec = function(path) return schema:method(path:match("^/(.-)/(.*)$")).client end }
  end)
  after_each(function() client:close() end)

  local function call(method, message) return (client:call(SERVICE .. method, message)) end
  local function refused(method, message) return talk.failure(call, method, message).status end
  local function register() return call("Register", { name = "w", type = "AGENT_TYPE_WORKER" }).agent_id end
  local function execute(agent) return call("ExecuteTask", { agent_id = agent, session_id = "s", config = {} }).task_id end

  it("gives every registration an id of its own, 32 hex digits, and knows it until it leaves", function()
    local first, second = register(), register()
    assert.matches("^%x+$", first)
    assert.equal(32, #first)
    assert.not_equal(first, second)
    assert.equal("INVALID_ARGUMENT", refused("Register", {}))
    assert.is_true(call("Unregister", { agent_id = first, reason = "enough" }).success)
    assert.equal("NOT_FOUND", refused("Unregister", { agent_id = first }))
    assert.equal("NOT_FOUND", refused("Heartbeat", { agent_id = first }))
    assert.equal("INVALID_ARGUMENT", refused("Heartbeat", {}))
    assert.same({}, call("Heartbeat", { agent_id = second }).pending_tasks)
  end)

  it("hands a task out once, and lists it for ever", function()
    local agent = register()
    local id = execute(agent)
    assert.equal("TASK_STATE_PENDING", call("GetTaskStatus", { task_id = id }).task.state)
    assert.same({ id }, call("Heartbeat", { agent_id = agent }).pending_tasks)
    assert.same({}, call("Heartbeat", { agent_id = agent }).pending_tasks)
    local list = call("ListTasks", { agent_id = agent })
    assert.same({ 1, id, "TASK_STATE_UNSPECIFIED" }, { list.total_count, list.tasks[1].id, list.tasks[1].state })
    assert.same({}, call("ListTasks", { agent_id = "nobody" }).tasks)
  end)

  it("refuses tasks for nobody, without a session, without a configuration", function()
    local agent = register()
    assert.equal("NOT_FOUND", refused("ExecuteTask", { agent_id = "x", session_id = "s", config = {} }))
    assert.equal("INVALID_ARGUMENT", refused("ExecuteTask", { session_id = "s", config = {} }))
    assert.equal("INVALID_ARGUMENT", refused("ExecuteTask", { agent_id = agent, config = {} }))
    assert.equal("INVALID_ARGUMENT", refused("ExecuteTask", { agent_id = agent, session_id = "s" }))
    assert.equal("NOT_FOUND", refused("GetTaskStatus", { task_id = "x" }))
    assert.equal("INVALID_ARGUMENT", refused("CancelTask", {}))
  end)

  it("does not hand out what was cancelled", function()
    local agent = register()
    local id = execute(agent)
    assert.same({ task_id = id, state = "TASK_STATE_CANCELLED", cancelled = true }, call("CancelTask", { task_id = id }))
    assert.same({}, call("Heartbeat", { agent_id = agent }).pending_tasks)
  end)

  describe("on the stream of a task", function()
    local id, stream

    before_each(function()
      id = execute(register())
      stream = client:stream(SERVICE .. "StreamTask")
    end)
    after_each(function() stream:cancel() end)

    local function ends() return talk.failure(stream.receive, stream).status end

    it("answers heartbeats before it knows whose it is, and wants a task with anything else", function()
      stream:send { heartbeat = {} }
      assert.equal("heartbeat", stream:receive().payload)
      stream:send { progress = { percent = 0.5 } }
      assert.equal("INVALID_ARGUMENT", ends())
    end)

    it("does not take a task that it does not know", function()
      stream:send { task_id = "x", status = {} }
      assert.equal("NOT_FOUND", ends())
    end)

    it("ends well after a word about a task, and with UNKNOWN after none", function()
      stream:send { task_id = id, status = { state = "TASK_STATE_RUNNING" } }
      stream:send({ output = { data = "x", stream_type = "stdout" } }, true)
      assert.is_nil(stream:receive())
      assert.is_true(fake.tasks[id].told.nameless)
      local empty <close> = client:stream(SERVICE .. "StreamTask")
      empty:send({ heartbeat = {} }, true)
      empty:receive()
      local why = talk.failure(empty.receive, empty)
      assert.same({ "UNKNOWN", "EOF" }, { why.status, why.said })
    end)

    it("says input back as output, and breaks at what is no text", function()
      stream:send { task_id = id, input = { data = "hi" } }
      assert.same({ data = "hi", text = "hi", stream_type = "stdout" }, stream:receive().output)
      stream:send { task_id = id, input = { data = "\xff" } }
      assert.equal("INTERNAL", ends())
    end)

    it("takes a cancel, says complete without a result, and ends", function()
      stream:send { task_id = id, cancel = { reason = "enough" } }
      local complete = stream:receive().complete
      assert.same({ id, nil }, { complete.task_id, complete.result })
      assert.is_nil(stream:receive())
      assert.equal("TASK_STATE_CANCELLED", call("GetTaskStatus", { task_id = id }).task.state)
    end)

    it("forgets what it is told, unless it is to keep results", function()
      for _, keep in ipairs { false, true } do
        fake.knobs.keep_results = keep
        local one <close> = client:stream(SERVICE .. "StreamTask")
        one:send { task_id = id, status = { state = "TASK_STATE_COMPLETED" } }
        one:send({ task_id = id, complete = { task_id = id, result = { exit_code = 3 } } }, true)
        assert.is_nil(one:receive())
        local got = call("GetTaskStatus", { task_id = id }).task
        assert.same({ keep and "TASK_STATE_COMPLETED" or "TASK_STATE_PENDING", keep and 3 or nil },
          { got.state, got.result and got.result.exit_code })
      end
      assert.equal(2, fake.tasks[id].told.ends)
    end)
  end)

  it("takes the jobs of a file, and says what is wrong with them", function()
    local row = fake:add { command = "echo", type = "tool_execution", timeout = "1m30s", input = "x", session = "s2" }
    assert.same({ "TASK_TYPE_TOOL_EXECUTION", 90000000000, "x", "s2" }, { row.type, row.config.timeout_ns, row.config.input_data,
      row.session_id })
    assert.equal("job 2: there is nothing called 'comand' in a task", talk.failure(fake.add, fake, { comand = "x" }).message)
    assert.equal('job 2: timeout must be a duration like "30s"', talk.failure(fake.add, fake, { timeout = "soon" }).message)
    assert.equal("config", talk.failure(baaaht.fake, { state = "/nowhere" }).kind)
    assert.is_false(fs.exists "/nowhere")
  end)
end)
