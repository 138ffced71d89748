-- worker exec: one job, here and now, with the same executors and policies as a job of a server.
local agent = require "worker.agent"
local args = require "worker.args"
local err = require "worker.error"
local events = require "worker.events"
local json = require "worker.json"
local fs = require "worker.fs"
local log = require "worker.log"
local out = require "worker.core.out"
local places = require "worker.places"
local record = require "worker.record"
local schema = require "worker.schema"
local sys = require "worker.core.sys"
local task = require "worker.task"
local text = require "worker.text"

local EXIT = { timeout = 124, error = 125, cannot_run = 126, not_found = 127, usage = 64, data = 65, config = 78,
  unread = 141, unwritten = 74 } -- as if SIGPIPE had ended us; our output found no room
local ENOENT = 2

local command = {
  summary = "run one job here and now; the exit code is the job's",
  usage = "[options] [--] CMD [ARGS...] | --script TEXT | --job FILE",
  doc = "The output of the job goes where the worker's own goes. The exit code is that of the job, "
    .. "128+N when signal N ended it; 124 when it took too long, 125 when the worker could not run "
    .. "it, 126 when the program cannot be run, 127 when there is no such program.",
  stop_at_word = true,
  options = {
    script = { "string", value = "TEXT", doc = "Run this by /bin/sh instead of a command." },
    job = { "string", value = "FILE", doc = "Run the job of this file (JSON or YAML)." },
    timeout = { "duration", value = "TIME", doc = "How long it may take." },
    env = { "list", value = "NAME=VALUE", doc = "Add this to its environment." },
    pass = { "list", value = "NAME", doc = "Hand it this variable of the worker's own." },
    secret = { "list", value = "NAME", doc = "Mask the value of this variable in the output." },
    cwd = { "string", value = "DIR", doc = "Run it there; in an empty directory of its own otherwise." },
    memory = { "size", value = "SIZE", doc = "Most memory." },
    cpus = { "number", min = 0.01, value = "N", doc = "Most processors." },
    pids = { "integer", min = 1, value = "N", doc = "Most processes." },
    grace = { "duration", value = "TIME", doc = "Time between TERM and KILL (5s)." },
    keep = { "flag", doc = "Leave its directory behind." },
    executor = { "string", value = "NAME", doc = "What runs it: an executor plugin (shell)." },
    image = { "string", value = "NAME", doc = "The image of its container (executors docker and gvisor)." },
    plugins = { "list", value = "DIR", doc = "Look for plugins here." },
    json = { "flag", doc = "Print the result as JSON, instead of the job's output." },
  },
  examples = {
    { "worker exec -- make test", "run a command" },
    { "worker exec --timeout 30s --memory 512MiB --script 'sort big.txt | uniq -c'", "with limits" },
  },
}

-- The job ----------------------------------------------------------------------------------------------

local function environment_of(options)
  local env = {}
  for _, name in ipairs(options.pass or {}) do env[name] = sys.env(name) end
  for _, pair in ipairs(options.env or {}) do
    local name, value = pair:match("^([^=]+)=(.*)$")
    if not name then args.usage(("--env: expected NAME=VALUE, got '%s'"):format(pair)) end
    env[name] = value
  end
  return env
end

local function job_of(options, words)
  local given = (options.script and 1 or 0) + (options.job and 1 or 0) + (#words > 0 and 1 or 0)
  if given ~= 1 and not (given == 0 and options.image) then
    args.usage(given == 0 and "there is nothing to run: give a command, --script or --job"
      or "give one of a command, --script and --job")
  end
  local job = { id = "exec-" .. text.random_id(6), env = environment_of(options), cwd = options.cwd,
    timeout = options.timeout, secrets = {} }
  if #words > 0 then job.argv = words end
  job.image = options.image
  job.script = options.script
  job.limits = { memory = options.memory, cpus = options.cpus, pids = options.pids and math.tointeger(options.pids) }
  for _, name in ipairs(options.secret or {}) do
    job.secrets[#job.secrets + 1] = job.env[name] or sys.env(name)
  end
  return job
end

local function read_job(job, path)
  local jobfile = require "worker.jobfile"
  local ok, read = pcall(jobfile.read, path)
  if not ok then
    if err.is(read, "config") then read.kind = "data" end -- the job is wrong, not the worker's settings
    error(read, 0)
  end
  for key, value in pairs(read) do
    if key == "env" then
      for name, text_ in pairs(value) do job.env[name] = job.env[name] or text_ end
    else
      job[key] = job[key] == nil and value or job[key]
    end
  end
  return job
end

-- The policies of a job that no file speaks of.
local function policies_of(registry, options)
  local list = {}
  for _, wanted in ipairs {
    { "limits", {} }, { "timeout", { default = options.timeout or 365 * 86400 } },
    { "workspace", { keep = options.keep and "always" or "never" } }, { "env", {} }, { "mask", {} },
  } do
    local plugin, why = registry:get("policy", wanted[1])
    if not plugin then err.raise("config", why) end
    local conf, problems = schema.check(plugin, wanted[2], nil, wanted[1])
    if not conf then err.raise("config", tostring(problems[1])) end
    list[#list + 1] = { name = wanted[1], plugin = plugin, conf = conf }
  end
  return list
end

local function executor_of(registry, name)
  local plugin, why = registry:get("executor", name or "shell")
  if not plugin then err.raise("config", why) end
  local conf, problems = schema.check(plugin, {}, nil, plugin.name)
  if not conf then err.raise("config", tostring(problems[1])) end
  return { plugin = plugin, conf = conf }
end

-- Running ----------------------------------------------------------------------------------------------

-- A server with one job, whose output goes to ours.
local function protocol_of(job, state)
  local handed
  return {
    kind = "protocol", name = "exec", api = 1, config = {}, keeps_record = true,
    open = function() return {} end,
    claim = function()
      if handed then return "end" end
      handed = true
      return job
    end,
    log = not state.silent and function(_, _, chunk)
      local ok, why = pcall(state[chunk.stream].write, state[chunk.stream], chunk.text)
      if ok then return end
      if err.is(why, "cancelled") then error(why, 0) end
      state.broken = why
      state.server:cancel_jobs("nobody reads its output")
      err.raise("http", tostring(why), { status = 410 })
    end or nil,
    batch = { seconds = 0.005 },
    output = state.silent,
    finish = function(_, _, result) state.result = result end,
  }
end

local function exit_code(state)
  local result = state.result
  if not result then return EXIT.error end
  if state.broken then return state.broken.name == "EPIPE" and EXIT.unread or EXIT.unwritten end
  if result.state == "timeout" then return EXIT.timeout end
  if result.state == "cancelled" then return 128 + (state.signal or 15) end
  if result.state == "error" then
    if not result.code then return EXIT.error end
    return result.code == ENOENT and EXIT.not_found or EXIT.cannot_run
  end
  return result.exit_code or EXIT.error
end

local SIGNALS = { INT = 2, TERM = 15, QUIT = 3, HUP = 1 }

local function watch_signals(state)
  local signals <close> = sys.signals { "TERM", "INT", "QUIT", "HUP" }
  while true do
    local name = signals:wait()
    state.signal = SIGNALS[name]
    state.server:cancel_jobs("ended by SIG" .. name)
  end
end

local function tell(state, options)
  local result = state.result or { state = "error", reason = "there is no result" }
  if state.broken and state.broken.name ~= "EPIPE" then
    io.stderr:write(("worker exec: error: %s\n"):format(tostring(state.broken)))
  elseif options.json then
    io.stdout:write(json.encode({
      state = result.state, reason = result.reason, exit_code = result.exit_code, signal = result.signal,
      duration = result.duration, usage = result.usage,
      stdout = result.output and result.output.stdout, stderr = result.output and result.output.stderr,
    }, { pretty = true }), "\n")
  elseif result.state ~= "success" and result.state ~= "failed" and not state.broken then
    io.stderr:write(("worker exec: %s: %s\n"):format(result.state, result.reason or ""))
  end
end

local function temporary()
  local dir = sys.env "TMPDIR"
  local stat = dir and dir ~= "" and fs.stat(dir)
  return stat and stat.type == "dir" and dir or "/tmp"
end

function command.run(options, words)
  local job = job_of(options, words)
  if options.job then read_job(job, options.job) end
  if not options.log_level then log.setup { level = "warn" } end
  local registry = require("worker.registry").open(places.plugin_dirs(options.plugins or {}))
  local state = { silent = options.json, stdout = out.open(1), stderr = out.open(2) }
  state.worker = state.stderr
  local _ <close> = state.stdout
  local _ <close> = state.stderr
  state.server = agent.new {
    name = "exec", plugin = protocol_of(job, state), conf = {}, slots = 1,
    executor = executor_of(registry, options.executor), policies = { run = policies_of(registry, options) },
    events = events.new(), record = record.none(), grace = options.grace,
    workspace = temporary(),
  }
  local watcher = task.start(watch_signals, state)
  state.server:serve()
  watcher:cancel()
  watcher:join()
  tell(state, options)
  return exit_code(state)
end

return command
