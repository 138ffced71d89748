-- worker run: work for the servers of the configuration, or for the one on the command line.
local args = require "worker.args"
local config = require "worker.config"
local console = require "worker.console"
local events = require "worker.events"
local log = require "worker.log"
local runner = require "worker.runner"
local sys = require "worker.core.sys"

local STDERR, STDOUT = 2, 1
local EXIT_CANTCREAT, EXIT_CONFIG = 74, 78

local command = {
  summary = "work for an orchestrator (what `worker` does without a command)",
  usage = "[--protocol NAME] [options] [PLUGIN_DIR...]",
  doc = "Claims jobs, runs them, streams their output and reports results, until it is asked to stop. "
    .. "Without --protocol the servers of the configuration file are served.",
  server = true,
  options = {
    protocol = { "string", value = "NAME", env = "WORKER_PROTOCOL",
      doc = "How the server talks: a protocol plugin. Its fields are options too." },
    executor = { "string", value = "NAME", env = "WORKER_EXECUTOR",
      doc = "What runs the jobs: an executor plugin (shell)." },
    slots = { "number", value = "N", doc = "How many jobs run at a time (1)." },
    name = { "string", value = "NAME", doc = "What the logs call this server." },
    config = { "string", value = "FILE", env = "WORKER_CONFIG", doc = "The configuration file." },
    state = { "string", value = "DIR", doc = "Where the worker keeps what must survive a restart." },
    workspace = { "string", value = "DIR", doc = "Where each job gets a folder of its own." },
    shutdown_timeout = { "duration", value = "TIME",
      doc = "How long running jobs may go on once the worker is asked to stop (30s)." },
  },
  examples = {
    { "worker --protocol local --dir jobs plugins/", "take job files from jobs/inbox" },
    { "worker run --config /etc/worker/worker.yaml", "serve what a file says" },
  },
}

local function tell(list, mark)
  for _, problem in ipairs(list) do io.stderr:write(mark, tostring(problem), "\n") end
end

-- The configuration the command line asks for, with the plugins that it has loaded already, if any; as config.load.
local function load(options, folders, registry)
  local asked = args.to_config(options, folders)
  asked.registry = registry
  return config.load(asked)
end

-- At the start a person reads along, and nobody knows yet where the log goes.
local function load_first(options, folders, registry)
  local conf, problems, warnings = load(options, folders, registry)
  tell(warnings or {}, "worker: warning: ")
  if not conf then tell(problems, "worker: ") end
  return conf
end

-- Later there is a log, and who reads it need not see anything else: the configuration, or nil and what is wrong.
local function load_again(options, folders)
  local conf, problems, warnings = load(options, folders)
  for _, warning in ipairs(warnings or {}) do log.warn("config.warning", tostring(warning)) end
  if conf then return conf end
  local lines = {}
  for i, problem in ipairs(problems) do lines[i] = tostring(problem) end
  return nil, table.concat(lines, "; ")
end

-- Whether a person reads along where the log goes.
local function read_by_people(output)
  if output == "stderr" then return sys.isatty(STDERR) or sys.env "JOURNAL_STREAM" end
  return output == "stdout" and sys.isatty(STDOUT)
end

-- What the command line left open, the file may say, and then the protocol.  Whether the log is there.
local function setup_log(conf, options)
  local given = options.log_level or options.verbose or options.quiet
  local format, output = conf.log.format, conf.log.output or conf.suggested_output or "stderr"
  if format == "auto" then
    format = not read_by_people(output) and conf.suggested_log or nil
  end
  log.setup { level = not given and conf.log.level or nil, format = not options.log_format and format or nil }
  local ok, why = pcall(log.setup, { output = output })
  if not ok then log.error("worker.log_failed", tostring(why), { output = output }) end
  return ok
end

local function begin(conf)
  local names = {}
  for i, server in ipairs(conf.servers) do
    names[i] = ("%s (%s, %d slot%s)"):format(server.name, server.protocol, server.slots,
      server.slots == 1 and "" or "s")
  end
  log.info("worker.started", ("worker %s works for %s"):format(sys.version(), table.concat(names, ", ")),
    { version = sys.version() })
end

function command.run(options, folders, registry)
  local conf = load_first(options, folders, registry)
  if not conf then return EXIT_CONFIG end
  if not setup_log(conf, options) then return EXIT_CANTCREAT end
  local shared = { events = events.new(), ended = {} }
  function shared.reload()
    local fresh, why = load_again(options, folders)
    if not fresh then return nil, why end
    setup_log(fresh, options)
    shared.console:attend()
    return fresh
  end
  local terminal = sys.isatty(STDERR) and sys.env("TERM") ~= "dumb"
  shared.console = console.new(shared.events, {
    terminal = terminal, color = terminal and options.color ~= false and sys.env("NO_COLOR") == nil,
  })
  begin(conf)
  local code = runner.new(conf, shared):run()
  log.info("worker.stopped", shared.console:summary(shared.ended), { exit_code = code })
  return code
end

return command
