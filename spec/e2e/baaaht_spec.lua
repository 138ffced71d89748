-- The worker as a child on baaaht's orchestrator as another child: real processes, real kills.  The specs
-- speak to the orchestrator as somebody does who gives it tasks.
local grpc = require "worker.grpc"
local program = require "spec.support.program"
local proto = require "worker.proto"
local protobuf = require "worker.protobuf"
local scratch = require "spec.support.scratch"
local task = require "worker.task"
local text = require "worker.text"

local schema = protobuf.load(proto.load { "plugins/protocols/baaaht/agent.proto" })

local methods = {}
local meta = { __index = methods }

-- An orchestrator that keeps results, at a Unix socket.
local function new_site()
  local site = setmetatable({ dir = scratch.dir(), runs = {} }, meta)
  site.dir:write("jobs.yaml", "[]\n")
  site.target = "unix://" .. site.dir:path "o.sock"
  site:start()
  return site
end

function methods:start()
  self.server = program.start { "serve", "baaaht", "--quiet", "--address", self.target, "--jobs", self.dir:path "jobs.yaml",
    "--set", "keep-results=true" }
  program.eventually(function() return table.concat(self.server.stdout):find("baaaht on ", 1, true) end)
  self.client = grpc.client { target = self.target, codec = function(path)
    return schema:method(path:match("^/(.-)/(.*)$")).client
  end }
end

function methods:kill(signal)
  self.server:signal(signal or "KILL")
  self.server:wait()
  getmetatable(self.server).__close(self.server)
  self.client:close()
end

function meta:__close()
  for _, run in ipairs(self.runs) do getmetatable(run).__close(run) end
  self:kill()
  getmetatable(self.dir).__close(self.dir)
end

function methods:call(method, message) return (self.client:call("/agent.v1.AgentService/" .. method, message)) end

-- A worker: words of its command line, and its environment.
function methods:work(words, env)
  local all = { "--protocol", "baaaht", "--executor", "shell", "--state", self.dir:path "state", "--log-output", "stderr",
    "--heartbeat-interval", "500ms", env = { ORCHESTRATOR_URL = self.target, HOME = self.dir.root } }
  for name, value in pairs(env or {}) do all.env[name] = value or nil end
  table.move(words or {}, 1, #(words or {}), #all + 1, all)
  all[#all + 1] = program.plugins
  local run = program.start(all)
  self.runs[#self.runs + 1] = run
  return run
end

-- The id under which a worker is registered, as its log says.
local function agent_of(run, before)
  return program.eventually(function()
    local last
    for id in table.concat(run.stderr):gmatch("registered as agent (%x+)") do last = id end
    return last ~= before and last
  end)
end

function methods:execute(agent, config)
  if type(config) == "string" then config = { command = config } end
  return self:call("ExecuteTask", { agent_id = agent, session_id = "s", type = "TASK_TYPE_CUSTOM", config = config }).task_id
end

function methods:task(id) return self:call("GetTaskStatus", { task_id = id }).task end

-- The task, once it has a result or an error.
function methods:ended(id)
  return program.eventually(function()
    local one = self:task(id)
    return (one.result or one.error) and one
  end)
end

-- What its people can say, and what comes of it: as an option, as a variable, by itself.
local SETTINGS = {
  { "orchestrator-addr", "unix:///x", "servers[1].orchestrator_addr: unix:///x", "unix:///tmp/baaaht-grpc.sock" },
  { "name", "my-worker", "name: my-worker" }, { "dial-timeout", "60s", "servers[1].dial_timeout: 1m", "30s" },
  { "rpc-timeout", "1m30s", "servers[1].rpc_timeout: 1m30s", "10s" },
  { "max-recv-msg-size", "1048576", "servers[1].max_recv_msg_size: 1MiB", "100MiB" },
  { "max-send-msg-size", "1048576", "servers[1].max_send_msg_size: 1MiB", "100MiB" },
  { "reconnect-interval", "500ms", "servers[1].reconnect_interval: 500ms", "5s" },
  { "reconnect-max-attempts", "3", "servers[1].reconnect_max_attempts: 3", "0" },
  { "heartbeat-interval", "7s", "servers[1].heartbeat_interval: 7s", "30s" },
  { "log-level", "debug", "log.level: debug", "info" }, { "log-format", "json", "log.format: json" },
  { "log-output", "/x.log", "log.output: /x.log" },
}

describe("the settings of baaaht #realtime", function()
  local function shown(words, env)
    local dir <close> = scratch.dir()
    local all = { "config", "show", "--protocol", "baaaht", env = env or {} }
    all.env.HOME = dir.root
    table.move(words, 1, #words, #all + 1, all)
    local ended = program.run(all)
    assert.equal(0, ended.code, ended.stderr)
    return ended.stdout
  end

  local function has(said, line, from)
    for one in said:gmatch("[^\n]+") do
      if one:find(line, 1, true) == 1 and one:find("# " .. from, 1, true) then return true end
    end
    return false
  end

  it("are what they are when nobody says anything", function()
    local said = shown {}
    for _, row in ipairs(SETTINGS) do
      local path = row[3]:match("^(.-): ")
      if row[4] then assert.is_true(has(said, path .. ": " .. row[4], "default"), row[1] .. "\n" .. said) end
    end
  end)

  it("are options and variables", function()
    local words, env = {}, {}
    for _, row in ipairs(SETTINGS) do
      words[#words + 1], words[#words + 2] = "--" .. row[1], row[2]
      env["WORKER_" .. row[1]:gsub("-", "_"):upper()] = row[2]
    end
    local by_options, by_variables = shown(words), shown({}, env)
    for _, row in ipairs(SETTINGS) do
      assert.is_true(has(by_options, row[3], "flag"), row[1] .. "\n" .. by_options)
      assert.is_true(has(by_variables, row[3], "environment"), row[1] .. "\n" .. by_variables)
    end
  end)
end)

describe("a worker on baaaht #realtime", function()
  it("runs tasks of all ends over a Unix socket, and stops with 0", function()
    local site <close> = new_site()
    local run = site:work()
    local agent = agent_of(run)
    local ids = {}
    for i = 1, 40 do
      ids[i] = site:execute(agent, i % 4 == 0 and { command = "sleep 60", timeout_ns = 300000000 }
        or ("echo %d; exit %d"):format(i, i % 4 - 1))
    end
    for i, id in ipairs(ids) do
      local one = site:ended(id)
      if i % 4 == 0 then
        assert.same({ "TASK_STATE_TIMEOUT", "TIMEOUT" }, { one.state, one.error.code })
      else
        assert.same({ i % 4 == 1 and "TASK_STATE_COMPLETED" or "TASK_STATE_FAILED", i % 4 - 1, i .. "\n" },
          { one.state, one.result.exit_code, one.result.output_text })
      end
    end
    run:signal "TERM"
    assert.equal(0, run:wait().code)
  end)

  it("takes the address from the environment, or from the option, which wins; over TCP too", function()
    local site <close> = new_site()
    assert.is_truthy(agent_of(site:work()))
    local wrong = { ORCHESTRATOR_URL = "unix:///nowhere", WORKER_STATE = site.dir:path "other" }
    assert.is_truthy(agent_of(site:work({ "--orchestrator-addr", site.target, "--state", site.dir:path "s2" }, wrong)))
    local tcp <close> = program.start { "serve", "baaaht", "--quiet", "--address", "127.0.0.1:0" }
    local address = program.eventually(function() return table.concat(tcp.stdout):match("on (127%S+)\n") end)
    local run = site:work({ "--state", site.dir:path "s3" }, { ORCHESTRATOR_URL = address })
    run:says "success"
  end)

  it("reads the file people have, WORKER_* over it, options over those; logs where they look", function()
    local site <close> = new_site()
    site.dir:write(".config/baaaht/config.yaml", ("orchestrator_addr: %s\nname: from-file\nlog_format: json\ndocker: {}\n")
      :format(site.target))
    local run <close> = program.start { "--protocol", "baaaht", "--executor", "shell", "--state", site.dir:path "state",
      "--log-level", "debug", program.plugins, env = { HOME = site.dir.root, WORKER_HEARTBEAT_INTERVAL = "200ms" } }
    program.eventually(function() return table.concat(run.stdout):find('"agent_id"', 1, true) end)
    run:signal "TERM"
    local ended = run:wait()
    assert.equal("", ended.stderr)
    assert.matches('^{"ts"', ended.stdout)
  end)

  it("gives up with 69 when nobody is there for dial_timeout", function()
    local dir <close> = scratch.dir()
    local ended = program.run { "--protocol", "baaaht", "--executor", "shell", "--state", dir:path "state",
      "--dial-timeout", "1s", "--orchestrator-addr", "unix://" .. dir:path "none.sock", "--log-output", "stderr", program.plugins,
      env = { HOME = dir.root } }
    assert.equal(69, ended.code)
  end)

  it("survives two deaths of the orchestrator in mid-task: registered anew, the lost task ended, no busy loop", function()
    local site <close> = new_site()
    local run = site:work { "--reconnect-interval", "200ms" }
    local agent = agent_of(run)
    for _ = 1, 2 do
      local tag = program.tag()
      local id = site:execute(agent, "echo begun; sleep " .. tag)
      program.eventually(function() return site:task(id).state == "TASK_STATE_RUNNING" and #program.of_tag(tag) > 0 end)
      site:kill()
      task.sleep(1)
      site:start()
      agent = agent_of(run, agent)
      program.eventually(function() return #program.of_tag(tag) == 0 end)
      assert.equal("again\n", site:ended(site:execute(agent, "echo again")).result.output_text)
    end
    local _, connects = table.concat(run.stderr):gsub("connection: ", "")
    assert.is_true(connects < 100, tostring(connects))
  end)

  it("cancels a task that somebody cancels, with all its processes", function()
    local site <close> = new_site()
    local run = site:work()
    local tag = program.tag()
    local id = site:execute(agent_of(run), ("sleep %s & setsid sleep %s & sleep %s"):format(tag, tag, tag))
    program.eventually(function() return #program.of_tag(tag) >= 3 end)
    assert.is_true(site:call("CancelTask", { task_id = id }).cancelled)
    program.eventually(function() return #program.of_tag(tag) == 0 end)
    assert.equal("CANCELLED", site:ended(id).error.code)
  end)

  it("ends in time when it is asked to with a task that runs, and tells it; twice ends it at once", function()
    local site <close> = new_site()
    local run = site:work { "--shutdown-timeout", "500ms" }
    local id = site:execute(agent_of(run), "echo begun; sleep 600")
    program.eventually(function() return site:task(id).state == "TASK_STATE_RUNNING" end)
    run:signal "TERM"
    assert.equal(80, run:wait().code)
    assert.equal("CANCELLED", site:ended(id).error.code)

    run = site:work()
    id = site:execute(agent_of(run), "echo begun; sleep 600")
    program.eventually(function() return site:task(id).state == "TASK_STATE_RUNNING" end)
    run:signal "TERM"
    run:says "taking no more jobs"
    task.sleep(0.02)
    run:signal "TERM"
    assert.equal(80, run:wait().code)
    assert.equal("CANCELLED", site:ended(id).error.code)
  end)

  it("killed with a task that runs: nothing is left, its next life tells the end of it", function()
    local site <close> = new_site()
    local run = site:work()
    local tag = program.tag()
    local id = site:execute(agent_of(run), "sleep " .. tag)
    program.eventually(function() return #program.of_tag(tag) > 0 end)
    run:signal "KILL"
    run:wait()
    program.eventually(function() return #program.of_tag(tag) == 0 end)
    site:work()
    local one = site:ended(id)
    assert.same({ "TASK_STATE_FAILED", "INTERNAL" }, { one.state, one.error.code })
    assert.matches("interrupted", one.error.message)
  end)

  it("takes 50 MB of input", function()
    for _ = 1, 2 do collectgarbage() end -- what the tests before it left, with and without finalizers
    local site <close> = new_site()
    local run = site:work()
    local agent, input = agent_of(run), ("0123456789abcdef"):rep(50 << 10)
    local method = schema:method("agent.v1.AgentService", "ExecuteTask")
    for _ = 1, 6 do
      task.sleep(0) -- how much a task may take at once is bounded
      input = input .. input
    end
    assert.equal(50 << 20, #input)
    local bytes = method.request.encode { agent_id = agent, session_id = "s", type = "TASK_TYPE_CUSTOM",
      config = { command = "sha256sum", input_data = input } }
    task.sleep(0)
    local id = site.client:call(method.path, bytes, { codec = { decode = method.response.decode } }).task_id
    run:says "success" -- asking again and again would move it all each time
    assert.equal(text.sha256(input), site:ended(id).result.output_text:match("%x+"))
  end)
end)
