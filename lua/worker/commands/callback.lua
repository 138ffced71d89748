-- worker callback: one task from the environment, told to an address when it starts and ends; then exit.
local agent = require "worker.agent"
local args = require "worker.args"
local config = require "worker.config"
local delivery = require "worker.delivery"
local err = require "worker.error"
local events = require "worker.events"
local exit = require "worker.exit"
local fs = require "worker.fs"
local json = require "worker.json"
local log = require "worker.log"
local out = require "worker.core.out"
local record = require "worker.record"
local sys = require "worker.core.sys"
local task = require "worker.task"

local SIGNALS = { INT = 2, TERM = 15, QUIT = 3, HUP = 1 }
local TIMED_OUT, NO_RESULT, CANNOT_RUN, NOT_FOUND = 124, 125, 126, 127
local ENOENT = 2
local ECHO_PATIENCE, ECHO_LAST = 5, 1 -- seconds for whoever reads our output, and once we are asked to stop

local command = {
  summary = "run one task and tell an address when it starts and ends",
  usage = "[options] [--] [CMD ARGS...] | deliver FILE... [options]",
  doc = "The task comes from TASK_ID, PROJECT_ID and CALLBACK_URL (or --task, --project, --url). The exit code is 0 "
    .. "when its end was told, whatever it was; 69 when its start could not be told and it was not run, 78 when it "
    .. "cannot be run as it is, 80 when the worker was asked to stop, 84 when its end could not be told: then the "
    .. "event is kept in a file, and on stderr as a line of JSON.",
  server = true,
  options = {
    reflect_exit_status = { "flag", doc = "End with the exit code of the task, as `worker exec` does." },
    echo = { "flag", doc = "Print the task's output, as logs of machines expect it; --no-echo does not." },
    dry_run = { "flag", doc = "Check everything, reach the address, print what would be sent; run nothing." },
  },
  examples = {
    { "worker callback -- claude -p '{{prompt}}'", "the SCUD task of TASK_ID, done by an agent" },
    { "worker callback --dry-run -- make", "look before it runs" },
    { "worker callback deliver /var/lib/worker/callback/*.json", "send what could not be delivered" },
  },
}

-- The command line -------------------------------------------------------------------------------------

-- Spawners repeat the path of the program in front of its arguments: "worker callback /app/worker".
local function without_program(argv)
  local words = table.move(argv, 1, #argv, 1, {})
  if words[1] and words[1]:find("^/.*worker$") then table.remove(words, 1) end
  return words
end

local function split(argv)
  for at, word in ipairs(argv) do
    if word == "--" then
      return table.move(argv, 1, at - 1, 1, {}), table.move(argv, at + 1, #argv, 1, {})
    end
  end
  return argv, {}
end

local function take_files(argv)
  if argv[1] ~= "deliver" then return nil end
  table.remove(argv, 1)
  local files = {}
  while argv[1] and argv[1]:sub(1, 1) ~= "-" do files[#files + 1] = table.remove(argv, 1) end
  if #files == 0 then args.usage("deliver: say which files: worker callback deliver FILE...") end
  return files
end

function command.parse(argv, options)
  -- from here on a signal waits until there is a task whose end can be told
  local signals = sys.signals { "TERM", "INT", "QUIT", "HUP" }
  local given, words = split(without_program(argv))
  local files = take_files(given)
  local line = { "--protocol", "callback" }
  -- a kept event knows its address, and no task is looked for
  if files then line = { "--protocol", "callback", "--url", delivery.load(files[1]).url, "--task", "-" } end
  local values, dirs, registry, all = args.for_run(table.move(given, 1, #given, #line + 1, line), options)
  values.files, values.words, values.signals = files, words, signals
  return values, dirs, registry, all
end

local function tell(list, mark)
  for _, problem in ipairs(list or {}) do io.stderr:write(mark, tostring(problem), "\n") end
end

-- A worker.yaml may have defaults for the worker and its policies; its other servers mean nothing here.
-- The plugins that the command line has loaded are not loaded again: the task waits for this.
local function load(options, folders, registry)
  local asked = args.to_config(options, folders)
  asked.registry = registry
  local conf, problems, warnings = config.load(asked)
  tell(warnings, "worker: warning: ")
  if not conf then return tell(problems, "worker: ") end
  local entry = conf.servers[1]
  if #options.words > 0 then entry.conf.argv = options.words end
  entry.conf.spool = entry.conf.spool or fs.join(conf.state, "callback")
  return conf, entry
end

-- Running ----------------------------------------------------------------------------------------------

local function add_verify(conf, entry)
  if not entry.conf.verify then return end
  for _, policy in ipairs(conf.policies.run) do
    if policy.name == "verify" then return end
  end
  local plugin, why = conf.registry:get("policy", "verify")
  if not plugin then err.raise("config", why) end
  table.insert(conf.policies.run, { name = "verify", plugin = plugin, conf = {} })
end

-- The first signal ends the task, the next one the waiting for an address that does not answer.  What
-- comes before there is a task waits for it: its end is told, too.
local function watch_signals(state, signals)
  while true do
    local name = signals:wait()
    while not state.begun do state.beginning:wait() end
    if not state.signal then
      state.signal = SIGNALS[name]
      state.server:drain("asked to by SIG" .. name)
      state.server:cancel_jobs("ended by SIG" .. name)
    else
      state.server.self:hurry()
    end
  end
end

local function listen(state)
  local all = events.new()
  all:listen(function(name, facts)
    if name == "job.started" then
      state.begun = true
      state.beginning:fire(100)
    elseif name == "job.finished" then
      state.result = facts.result
    end
  end)
  return all
end

local function reflected(result, signal)
  if result.state == "timeout" then return TIMED_OUT end
  if result.state == "cancelled" then return 128 + (signal or SIGNALS.TERM) end
  if result.state == "error" then
    if not result.code then return NO_RESULT end
    return result.code == ENOENT and NOT_FOUND or CANNOT_RUN
  end
  return result.exit_code or NO_RESULT
end

local function exit_code(state, options, code)
  local self, result = state.server.self or {}, state.result
  if not result then return code ~= 0 and code or exit.SOFTWARE end
  if self.refused == "start" then return exit.UNAVAILABLE end
  if self.undelivered then return exit.UNDELIVERED end
  if self.refused then return exit.CONFIG end
  if options.reflect_exit_status then return reflected(result, state.signal) end
  return state.signal and result.state == "cancelled" and exit.CANCELLED or exit.OK
end

-- The task's output goes where ours goes.  Who does not read it holds up neither the task nor its end.
local function echoing(plugin, state)
  local echo = setmetatable({ batch = { seconds = 0.05 } }, { __index = plugin })
  function echo.log(_, _, chunk)
    if state.unread then return end
    local to = chunk.stream == "stdout" and state.stdout or state.stderr
    local limit = state.signal and ECHO_LAST or ECHO_PATIENCE
    local ok, read = task.try(task.within, limit, to.write, to, chunk.text)
    state.unread = not (ok and read)
  end
  return echo
end

local function run(conf, entry, options, signals)
  add_verify(conf, entry)
  local state = { beginning = task.signal(), stdout = out.open(1), stderr = out.open(2) }
  local _ <close> = state.stdout
  local _ <close> = state.stderr
  local plugin = options.echo == false and entry.plugin or echoing(entry.plugin, state)
  state.server = agent.new {
    name = entry.name, plugin = plugin, conf = entry.conf, slots = 1, executor = entry.executor,
    policies = conf.policies, events = listen(state), record = record.none(), workspace = conf.workspace,
    spool_dir = fs.join(conf.state, "spool"), grace = entry.conf.grace / 2,
  }
  local watcher = task.start(watch_signals, state, signals)
  local code = state.server:serve()
  watcher:cancel()
  watcher:join()
  local undelivered = state.server.self and state.server.self.undelivered
  if undelivered then io.stderr:write(json.encode { undelivered = undelivered }, "\n") end
  return exit_code(state, options, code)
end

-- Looking ----------------------------------------------------------------------------------------------

local function show(event)
  io.stdout:write("POST ", (event.url:gsub("//[^/@]*@", "//***@")), "\n")
  local names = {}
  for name in pairs(event.headers) do names[#names + 1] = name end
  table.sort(names)
  for _, name in ipairs(names) do io.stdout:write(name, ": ", event.headers[name], "\n") end
  io.stdout:write(event.body, "\n\n")
end

local function reach(self, conf)
  local ok, reply = task.try(self.client.request, self.client, {
    method = "OPTIONS", path = conf.url, expect = "any", timeout = conf.delivery.try,
  })
  io.stdout:write(ok and ("reached: it answers OPTIONS with %d\n"):format(reply.status)
    or ("not reached: %s\n"):format(tostring(reply)))
  return ok
end

local function dry_run(entry)
  local plugin, conf = entry.plugin, entry.conf
  local self = plugin.open(conf)
  local job = plugin.claim(self)
  local ok, why = task.try(self.prepare, self, job)
  if not ok then self.refused, self.why = "config", tostring(why) end
  if ok then io.stdout:write("would run ", json.encode(job.argv or job.script), "\n\n") end
  if ok then show(self:started()) end
  show(self:ended(ok and { state = "success", exit_code = 0 } or { state = "error" }))
  if ok then show(self:ended { state = "failed", exit_code = 1, reason = "exit code 1" }) end
  io.stdout:write(ok and "the task can be run\n" or ("the task cannot be run: %s\n"):format(tostring(why)))
  local reached = reach(self, conf)
  plugin.close(self)
  if not ok then return exit.CONFIG end
  return reached and exit.OK or exit.UNAVAILABLE
end

-- Delivering -------------------------------------------------------------------------------------------

local function deliver_one(entry, path)
  local event, limits = delivery.load(path), entry.conf.delivery
  entry.conf.url = event.url
  local self = entry.plugin.open(entry.conf)
  local ok, why = task.try(delivery.send, self.client, event, {
    keys = self.keys, try = limits.try, first = limits.first, most = limits.most, for_ = limits.start,
  })
  self.client:close()
  if not ok then
    log.error("callback.undelivered", ("%s: %s"):format(path, tostring(why)))
    return false
  end
  fs.remove(path)
  log.info("callback.delivered", ("%s: delivered"):format(path))
  return true
end

local function deliver(entry, files)
  local code = exit.OK
  for _, path in ipairs(files) do
    if not deliver_one(entry, path) then code = exit.UNDELIVERED end
  end
  return code
end

function command.run(options, folders, registry)
  local signals <close> = options.signals
  local conf, entry = load(options, folders, registry)
  if not conf then return exit.CONFIG end
  if not (options.files or options.dry_run) then return run(conf, entry, options, signals) end
  signals:close()
  if options.files then return deliver(entry, options.files) end
  return dry_run(entry)
end

return command
