-- What can be said of a baaaht orchestrator and of this worker on it: the options of its own worker
-- under their names, and a few that it does not have.
local grpc = require "worker.grpc"
local tools = require "worker.tools"

local config = {}

local MEGABYTES_100 = 104857600

config.fields = tools.fields {
  orchestrator_addr = { "string", default = "unix:///tmp/baaaht-grpc.sock", env = "ORCHESTRATOR_URL",
    doc = "Where the orchestrator is: unix:///path, unix-abstract:name, host:port or dns:///host:port." },
  tls = { "record", example = { ca = "/etc/worker/ca.pem" },
    doc = "TLS to an orchestrator at host:port, where something in front of it speaks that; spoken if anything is set.",
    fields = {
      enabled = { "boolean", default = false, doc = "Speak it, and trust whom the system trusts." },
      ca = { "path", doc = "Certificates to trust, instead of the system's." },
      cert = { "path", doc = "Our certificate, where the server asks for one." },
      key = { "path", doc = "Its key." },
      key_password = { "secret", doc = "What the key is kept under." },
      name = { "string", doc = "Whom the certificate must belong to, when it is not the host." },
    } },
  dial_timeout = { "duration", default = "30s", doc = "How long connecting may take; at start, how long it is tried." },
  rpc_timeout = { "duration", default = "10s", doc = "How long one call may take." },
  max_recv_msg_size = { "size", default = MEGABYTES_100, doc = "Largest message to take." },
  max_send_msg_size = { "size", default = MEGABYTES_100, doc = "Largest message to send." },
  reconnect_interval = { "duration", default = "5s",
    doc = "Wait between two tries to connect again, at random down to half of it." },
  reconnect_max_attempts = { "integer", default = 0, min = 0,
    doc = "How often to try that before giving up; 0 is for ever." },
  heartbeat_interval = { "duration", default = "30s", doc = "How often the orchestrator hears that this worker lives." },
  max_concurrent_tasks = { "integer", default = 5, min = 1, max = 10000,
    doc = "How many tasks run at a time; the same as slots." },
  task_poll = { "duration", default = "2s", min = "100ms",
    doc = "How often to look for tasks that no heartbeat has brought." },
  cancel_poll = { "duration", default = "1s", min = "100ms",
    doc = "How often a running task asks whether it was cancelled." },
  description = { "string", default = "Runs tools in containers", doc = "What the orchestrator shows of this worker." },
  labels = { "map", of = { "string" }, default = {}, doc = "More labels of this worker." },
  tags = { "list", of = { "string" }, default = {}, doc = "Tags of this worker." },
}

-- Nothing is as good as the default for these: that is what people have in their scripts.
local NEVER_ZERO = { "dial_timeout", "rpc_timeout", "max_recv_msg_size", "max_send_msg_size", "reconnect_interval",
  "heartbeat_interval" }
local SECONDS = { dial_timeout = 30, rpc_timeout = 10, reconnect_interval = 5, heartbeat_interval = 30 }

--- `config.tls(conf)`: how TLS is spoken, as worker.grpc has it; nil when it is not.
function config.tls(conf)
  local tls = conf.tls
  if not (tls.enabled or tls.ca or tls.cert or tls.name) then return nil end
  return { ca_file = tls.ca, cert = tls.cert, key = tls.key, key_password = tls.key_password, name = tls.name }
end

-- A rule over all of it.
function config.check(conf)
  for _, name in ipairs(NEVER_ZERO) do
    if conf[name] == 0 then conf[name] = SECONDS[name] or MEGABYTES_100 end
  end
  conf.heartbeat, conf.beat = conf.heartbeat_interval, conf.cancel_poll
  local ok, why = pcall(grpc.client, { target = conf.orchestrator_addr, tls = config.tls(conf) })
  if not ok then return why.message or tostring(why), "orchestrator_addr" end
end

return config
