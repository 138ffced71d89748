-- The calls of baaaht's AgentService, over one connection that has a state with a name.
local config = require "baaaht.config"
local err = require "worker.error"
local grpc = require "worker.grpc"
local log = require "worker.log"
local protobuf = require "worker.protobuf"

local messages = require "baaaht.messages"

local wire = {}

local SERVICE = "agent.v1.AgentService"

local schema = protobuf.load(messages)

-- Who asks for the states of tasks gets all that these were given as well, again and again, and may pass
-- over it: a message of which fewer fields are known is the same message.
local TASK = { id = { 1, "string" }, state = { 5, "agent.v1.TaskState" } }
local brief = protobuf.load { enums = messages.enums, messages = {
  Task = TASK, GetTaskStatusResponse = { task = { 1, "Task" } },
  ListTasksResponse = { tasks = { 1, "Task", repeated = true } },
} }

-- What its people call the states of a connection.
local STATES = { idle = "Idle", connecting = "Connecting", ready = "Ready", transient_failure = "TransientFailure",
  shutdown = "Shutdown" }

local function codec(path)
  local service, method = path:match("^/([^/]+)/([^/]+)$")
  return schema:method(service, method).client
end

local methods = {}
local meta = { __index = methods }

local function heard(self, state, why)
  local before, now = self.state, STATES[state]
  self.state = now
  log.info("baaaht.connection", ("connection: %s -> %s%s"):format(before, now, why and ": " .. tostring(why) or ""),
    { from = before, to = now, address = self.conf.orchestrator_addr })
end

local function new_client(self)
  local conf, client = self.conf, nil
  client = grpc.client {
    target = conf.orchestrator_addr, tls = config.tls(conf), timeout = conf.rpc_timeout, connect_timeout = conf.dial_timeout,
    max_receive = conf.max_recv_msg_size, max_send = conf.max_send_msg_size, codec = codec,
    on_state = function(state, why)
      if client == self.client then heard(self, state, why) end
    end,
  }
  return client
end

--- `wire.new(conf)`: nothing is connected yet.
function wire.new(conf)
  local self = setmetatable({ conf = conf, state = STATES.idle }, meta)
  self.client = new_client(self)
  return self
end

--- `wire:renew(why)`: give the connection up; the next call makes another one.
function methods:renew(why)
  local old = self.client
  self.client = new_client(self)
  heard(self, "transient_failure", why)
  old:close()
end

--- `wire.is(why, name)`: whether it is an answer with this status.
function wire.is(why, name)
  return err.is(why, "grpc") and why.code == grpc.code[name]
end

--- `wire:call(method, message)`: the answer.
function methods:call(method, message)
  return (self.client:call(("/%s/%s"):format(SERVICE, method), message))
end

--- `wire:states(method, message)`: the same, of the tasks in it the ids and states only.
function methods:states(method, message)
  local path = ("/%s/%s"):format(SERVICE, method)
  return (self.client:call(path, message, {
    codec = { encode = codec(path).encode, decode = brief:message(method .. "Response").decode } }))
end

--- `wire:ask(how, method, message)`: the same as call or states, for who cannot go on without a connection:
-- that it is lost is told with kind "gone", so that the worker connects anew.
function methods:ask(how, method, message)
  local ok, reply = pcall(self[how], self, method, message)
  if ok then return reply end
  if err.is(reply, "transport") then err.gone("the connection is lost: " .. reply.message) end
  error(reply, 0)
end

--- `wire:stream(method)`: a call with messages in both directions.
function methods:stream(method)
  return self.client:stream(("/%s/%s"):format(SERVICE, method))
end

function methods:connect() self.client:connect(self.conf.dial_timeout) end

function methods:close() self.client:close() end

return wire
