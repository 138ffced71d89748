-- worker.config.spec: what the worker's own configuration may say, apart from plugins.

local event = require "worker.sinks.event"

local spec = {}

local ANY = { "list", of = { "any" } }

-- A list of plugins, whose fields only the plugins know.
local function chain(doc)
  return { ANY[1], of = ANY.of, doc = doc }
end

spec.top = {
  name = { "string", min = 1, max = 200,
    doc = "What this worker is called where servers and logs name it; the host's name if absent." },
  servers = chain "The orchestrators to work for; see `worker plugins`.",
  policies = { "record",
    doc = "What stands around every claim, run and report, outermost first.",
    fields = {
      claim = chain "Around asking for a job.",
      run = chain "Around running a job.",
      finish = chain "Around reporting a result.",
    } },
  events = chain "Who is told what happens: event sinks, each with its own fields; see `worker explain`.",
  plugins = { "list", of = { "path" }, example = { "/opt/worker/plugins" },
    doc = "More folders with plugins; a later one wins." },
  log = { "record",
    doc = "The worker's own log.",
    fields = {
      level = { "enum", values = { "debug", "info", "warn", "error" }, default = "info",
        doc = "Least important lines to print." },
      format = { "enum", values = { "auto", "text", "logfmt", "json", "journal" }, default = "auto",
        doc = "auto is text on a terminal, journal under systemd, else logfmt, or what the protocol suggests." },
      output = { "string", min = 1, example = "/var/log/worker.log",
        doc = "Where lines go: stderr, stdout, or a file to append to, opened anew by SIGHUP; what the protocol "
          .. "suggests if absent, else stderr." },
    } },
  state = { "path", example = "/var/lib/worker",
    doc = "Where the worker keeps what must survive a restart; /var/lib/worker for root if absent." },
  workspace = { "path", example = "/var/lib/worker/work",
    doc = "Where each job gets a folder of its own; work/ in the state folder if absent." },
  health = { "record", doc = "Health, metrics and a status page over HTTP.", fields = {
    address = { "address", doc = "Where to listen, host:port or the path of a Unix socket, or off; "
      .. "where the server's protocol says, else nowhere, if absent.",
      example = "127.0.0.1:9252" },
  } },
  shutdown = { "record",
    doc = "What happens to running jobs when the worker is asked to stop.",
    fields = {
      timeout = { "duration", default = "30s",
        doc = "How long they may go on before they are cancelled." },
      grace = { "duration", default = "10s",
        doc = "How long a cancelled job has between TERM and KILL." },
    } },
}

spec.server = {
  protocol = { "string", required = true, example = "local",
    doc = "How this server talks: the name of a protocol plugin." },
  name = { "string", min = 1, max = 100,
    doc = "What logs call this server; the protocol's name if absent." },
  slots = { "integer", default = 1, min = 1, max = 10000,
    doc = "How many of its jobs run at a time; each needs up to 12 open files, so that a low limit of them means fewer." },
  executor = { "one_of", of = { "string", { "map", of = "any" }, ANY }, default = "shell",
    doc = "What runs its jobs: an executor's NAME, or { NAME: { its fields } }, or a list of them: the first that works." },
  strict = { "boolean", default = false,
    doc = "Never run a job on another executor than the first one it may have." },
}

-- What every event sink knows beside its own fields.
spec.sink = {
  only = { "list", of = { "enum", values = event.NAMES }, example = { "job.finished", "server.failing" },
    doc = "The events to hand to it; all if absent." },
  output = { "boolean", default = false,
    doc = "Tell what jobs printed, too, as far as their protocol keeps it for the result." },
  queue = { "integer", default = 1000, min = 1, max = 100000,
    doc = "How many events may wait for it; beyond that the oldest are dropped." },
  keep = { "duration", default = "10m", min = "1s", doc = "How long an event is tried before it is dropped." },
}

-- The chains of a worker whose file says nothing about policies.
spec.policies = {
  claim = { "backoff" },
  run = { "tee", "drain", "limits", "timeout", "again", "workspace", "env", "mask" },
  finish = { "retry" },
}

return spec
