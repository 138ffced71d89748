-- The event sink `redis`, with a real server that is killed in between.
local json = require "worker.json"
local redis = require "spec.support.redis"
local sink = require "spec.support.sink"
local task = require "worker.task"

local function next_of(ear)
  local channel, message = ear:message(60)
  assert.is_string(channel, "nothing came")
  return channel, json.decode(message)
end

local function open(server, more)
  local fields = { url = server.url, tls = server.tls and { ca = server.ca } or nil }
  for name, value in pairs(more or {}) do fields[name] = value end
  return sink.open("redis", fields)
end

describe("the event sink redis #realtime", function()
  it("publishes events as JSON, each on the channel of its name", function()
    local server <close> = redis.start()
    local ear <close> = server:listen("worker:job.claimed", "worker:job.finished")
    local told <close> = open(server)
    told:job "7"
    told:finished("7", { state = "failed", exit_code = 3, output = { stdout = "not asked for" } })
    local channel, event = next_of(ear)
    assert.equal("worker:job.claimed", channel)
    assert.equal("7", event.job.id)
    channel, event = next_of(ear)
    assert.equal("worker:job.finished", channel)
    assert.same({ state = "failed", exit_code = 3 }, event.result)
  end)

  it("has channels of a person's choice", function()
    local server <close> = redis.start()
    local ear <close> = server:listen "jobs/ci/w/job.claimed/a%1{b}/{nothing}"
    local told <close> = open(server, { channel = "jobs/{server}/{worker}/{name}/{job}/{nothing}" })
    told:job "a%1{b}"
    assert.equal("a%1{b}", select(2, next_of(ear)).job.id)
  end)

  it("says who it is, and speaks TLS", function()
    local server <close> = redis.start { password = "a-long-password", tls = true }
    local ear <close> = server:listen "worker:job.claimed"
    local told <close> = open(server)
    told:job "7"
    assert.equal("7", select(2, next_of(ear)).job.id)
  end)

  it("goes on when the server was killed and came back: what happened meanwhile arrives", function()
    local server <close> = redis.start()
    local ear = server:listen "worker:job.claimed"
    local told <close> = open(server)
    told:job "1"
    assert.equal("1", select(2, next_of(ear)).job.id)
    ear:close()
    server:kill()
    for i = 2, 50 do told:job(tostring(i)) end
    local waiting = told:waiting()
    server:start()
    ear = server:listen "worker:job.claimed"
    assert.equal(49, waiting)
    for i = 2, 50 do assert.equal(tostring(i), select(2, next_of(ear)).job.id) end
    assert.equal(0, told.counts.dropped)
    ear:close()
  end)

  it("waits for a server that is loading, and for a person who mends the password", function()
    local server <close> = redis.start { password = "the-right-one" }
    local told <close> = open(server, { url = server.url:gsub("the%-right%-one", "the-wrong-one") })
    told:job "1"
    task.sleep(0.2)
    assert.equal(1, told:waiting())
    local admin <close> = server:connect()
    local ear <close> = server:listen "worker:job.claimed"
    admin:call("CONFIG", "SET", "requirepass", "the-wrong-one")
    told:apply()
    assert.equal("1", select(2, next_of(ear)).job.id)
  end)
end)

describe("the format queue of the sink redis #realtime", function()
  local RESULT = { state = "success", exit_code = 0, duration = 1.5, executor = "docker",
    output = { stdout = "42\n", stderr = "" } }

  -- What is published about one result: the channel and the message.
  local function published(result)
    local server <close> = redis.start()
    local ear <close> = server:listen("evaluation:running", "evaluation:completed", "evaluation:failed")
    local told <close> = open(server, { format = "queue", output = true })
    local job = { id = "eval_1", timeout = 30 }
    told:emit("job.claimed", { job = job })
    told:emit("job.started", { job = job, ctx = {} })
    told:emit("job.finished", { job = job, ctx = {}, result = result })
    local channel, running = next_of(ear)
    assert.equal("evaluation:running", channel)
    assert.same({ "eval_1", "w", 30 }, { running.eval_id, running.executor_id, running.timeout })
    assert.is_nil(ear:message(0.05)) -- its server does not know yet
    told:emit("job.reported", { job = job, result = result })
    return next_of(ear)
  end

  -- What the storage workers make of evaluation:completed; both want texts and an object.
  local function stored(message)
    local older, newer = message.result, message
    for _, read in ipairs { older, newer } do
      assert.is_string(read.output)
      assert.is_string(read.error)
      assert.is_table(read.metadata)
      assert.is_falsy(json.is_array(read.metadata))
    end
    assert.same({ older.output, older.error }, { newer.output, newer.error })
    assert.is_number(newer.exit_code)
    assert.is_string(newer.executor_id)
    assert.matches("^%d+%-%d%d%-%d%dT.*Z$", newer.completed_at)
    return newer
  end

  it("tells a success in the shapes of both consumers", function()
    local channel, message = published(RESULT)
    assert.equal("evaluation:completed", channel)
    local read = stored(message)
    assert.same({ "eval_1", "completed", "42\n", "", 0 },
      { read.eval_id, read.status, read.output, read.error, read.exit_code })
    assert.equal("docker", read.metadata.engine)
    assert.equal("eval_1", message.result.id)
  end)

  it("tells everything else as failed, with the reason", function()
    local channel, message = published { state = "failed", exit_code = 3, reason = "exit code 3",
      output = { stdout = "", stderr = "no\n" } }
    assert.equal("evaluation:failed", channel)
    assert.same({ "eval_1", "exit code 3", "failed", "no\n", 3, "w" }, { message.eval_id, message.error, message.status,
      message.output, message.exit_code, message.worker_id })
    channel, message = published { state = "timeout", reason = "ran longer than 2s" }
    assert.equal("evaluation:failed", channel)
    assert.same({ "timeout", "ran longer than 2s", "", -1 },
      { message.status, message.error, message.output, message.exit_code })
    assert.same({ "failed", "oom" }, (function()
      local _, told = published { state = "oom" }
      return { told.status, told.error }
    end)())
  end)
end)

describe("the settings of the sink redis", function()
  local function problem(fields)
    local conf, problems = sink.check("redis", fields)
    return conf == nil and table.concat(problems, "\n") or nil
  end

  it("are checked before anything happens", function()
    assert.matches("url: is required", problem {})
    assert.matches('url: .*expected an address like "redis://', problem { url = "http://:geheim@h" })
    assert.is_nil(problem { url = "http://:geheim@h" }:find("geheim", 1, true))
    assert.matches("format: .*output: true", problem { url = "redis://h", format = "queue" })
    assert.is_nil(problem { url = "redis://h", format = "queue", output = true })
  end)
end)
