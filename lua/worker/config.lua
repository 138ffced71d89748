-- worker.config: the worker's configuration, from flags, environment, files and defaults.
--
-- Flags win over the environment (WORKER_*), that over the file, that over defaults; where each
-- value is from is remembered.  The fields of a plugin are checked against the plugin's own table.
-- All that a person got wrong is collected as a list of located messages: nothing here raises for
-- it.

local files = require "worker.config.files"
local flags = require "worker.config.flags"
local fs = require "worker.fs"
local places = require "worker.places"
local parts = require "worker.config.parts"
local schema = require "worker.schema"
local spec = require "worker.config.spec"
local sys = require "worker.core.sys"

local config = {}

local PRIVATE = 448 -- 0700

local function new_load(options)
  local env = options.env
  if type(env) == "table" then
    env = function(name) return options.env[name] end
  end
  return {
    env = env or sys.env, flags = flags.given(options.flags), known = {},
    protocol_flags = options.protocol_flags or {}, executor_flags = options.executor_flags or {},
    problems = {}, warnings = {}, origins = {}, sections = {}, own = {},
  }
end

-- Where nobody has a home: made at once, since in /tmp anybody could make it for us.
local function homeless_dir(load)
  local path = ("/tmp/worker-%d"):format(sys.uid())
  pcall(fs.mkdir, path, { mode = PRIVATE })
  local stat = fs.lstat(path)
  if not stat or stat.type ~= "dir" or stat.uid ~= sys.uid() then
    load.problems[#load.problems + 1] = schema.problem(path .. " is not a directory of ours: say with --state where "
      .. "the worker keeps what must survive a restart")
  end
  return path
end

local function state_dir(load)
  local env = load.env
  local given, home = env("STATE_DIRECTORY"), env("HOME")
  if given then return (given:gsub(":.*", "")) end
  if sys.uid() == 0 then return "/var/lib/worker" end
  local kept = env("XDG_STATE_HOME") or home and fs.exists(home) and fs.join(home, ".local/state")
  return kept and fs.join(kept, "worker") or homeless_dir(load)
end

-- Folders on the command line win over those of the file, these over the ones that need no name.
local function open_registry(options, top)
  if options.registry and not top.plugins then return options.registry end
  local dirs = places.plugin_dirs(top.plugins or {}, options.dirs or {})
  return require("worker.registry").open(dirs)
end

-- A folder that is not there is no folder with plugins; it is said, because it was meant to be one.
local function check_folders(load, list)
  for _, dir in ipairs(list or {}) do
    if not places.is_directory(dir) then
      load.problems[#load.problems + 1] = schema.problem(("plugins: there is no folder %s"):format(dir))
    end
  end
end

-- What is checked entry by entry is taken as it was read, because the marks know those tables.
local function as_read(load, path, checked, raw)
  return checked and parts.is_from_file(load, path) and raw or checked
end

local function policies_as_read(load, top, raw)
  local given = {}
  for which, list in pairs(top.policies or {}) do
    given[which] = as_read(load, "policies." .. which, list, raw.policies and raw.policies[which])
  end
  return given
end

-- What can be looked at further when the outer shape was wrong somewhere.
local function salvage(raw)
  local policies = {}
  for _, which in ipairs { "claim", "run", "finish" } do
    local list = type(raw.policies) == "table" and raw.policies[which]
    if type(list) == "table" then policies[which] = list end
  end
  return {
    servers = type(raw.servers) == "table" and raw.servers or nil, policies = policies,
    events = type(raw.events) == "table" and raw.events or nil,
  }
end

-- Where health is served, how the log looks and who is told of events (while the variable `when` is
-- set) may come from a protocol: the first that says so.
local function take_suggestions(load, conf, raw)
  for _, server in ipairs(conf.servers) do
    local suggests = server.suggests
    if raw.events == nil and #conf.events == 0 and suggests.events and load.env(suggests.events.when) then
      conf.events = parts.sinks(load, suggests)
    end
    if conf.health and conf.health.address == nil then
      parts.suggest(load, conf.health, "address", suggests.health, "health.address", server.plugin)
    end
    conf.suggested_log = conf.suggested_log or suggests.log
    conf.suggested_output = conf.suggested_output or suggests.log_output
  end
end

local function assemble(load, options, top, raw)
  load.registry = open_registry(options, top)
  check_folders(load, top.plugins)
  local servers = parts.servers(load, as_read(load, "servers", top.servers, raw.servers) or {})
  parts.settle(load, top)
  local conf = {
    name = top.name or sys.hostname(), given_name = top.name,
    log = top.log, shutdown = top.shutdown, health = top.health,
    state = top.state or state_dir(load), registry = load.registry, servers = servers,
    policies = parts.policies(load, policies_as_read(load, top, raw)),
    events = parts.sinks(load, { events = as_read(load, "events", top.events, raw.events) or {} }),
    origins = load.origins, files = load.files, sections = load.sections,
  }
  conf.workspace = top.workspace or fs.join(conf.state, "work")
  take_suggestions(load, conf, raw)
  if #conf.servers == 0 and #(raw.servers or {}) == 0 and #load.problems == 0 then
    load.problems[1] = schema.problem("there is no server to work for: give --protocol NAME, or "
      .. "`servers:` in worker.yaml (`worker plugins` lists what there is)")
  end
  return conf
end

--- `config.load(options)`: the configuration, or nil; the problems, and the warnings (tostring
-- gives the line to print).  Options: config (path, from --config), flags (name -> text, as on the
-- command line without the dashes), protocol_flags and executor_flags (path of the field -> text),
-- dirs (folders with plugins), registry (one that is open already), env (a table or function
-- instead of the real environment), etc (instead of "/etc/worker").
--
-- The configuration: name (given_name when somebody gave it), servers = { { name, protocol, plugin,
-- conf, slots, executor, executors } }, policies = { claim, run, finish } (lists of
-- { name, plugin, conf }, as executors are), events (sinks: { name, plugin, conf, only, output, queue,
-- keep }), log,
-- shutdown, state, workspace, registry, origins (path -> where a value is from), files, suggested_log
-- (the format that a protocol would have where no person reads along), suggested_output (where it goes).
function config.load(options)
  options = options or {}
  local load = new_load(options)
  local paths, named_by, closed = files.find { config = options.config, env = load.env, etc = options.etc }
  local raw
  load.files = paths
  for _, why in ipairs(closed or {}) do
    load.warnings[#load.warnings + 1] = schema.problem(("%s; going on without a configuration from there"):format(why))
  end
  raw, load.marks, load.problems = files.load(paths, named_by)
  if #load.problems > 0 then return nil, load.problems, load.warnings end

  local given = flags.take(load, spec.top)
  local top = parts.check(load, spec.top, raw, "", { env_prefix = "WORKER_", flags = given })
  -- the rest is looked at all the same, so that every mistake is told in one go
  local conf = assemble(load, options, top or salvage(raw), raw)
  flags.complain(load)
  local variables = options.env == nil and sys.env() or options.env
  if type(variables) == "table" then flags.warn_variables(load, variables) end
  if #load.problems > 0 then conf = nil end
  return conf, schema.in_order(load.problems), load.warnings
end

--- `config.show(conf)`: every value with where it is from, one per line, secrets hidden.
function config.show(conf)
  return require "worker.config.print".show(conf)
end

--- `config.sample(registry)`: a worker.yaml to begin with: every setting with its documentation,
-- all that has a default commented out.
function config.sample(registry)
  return require "worker.config.print".sample(registry)
end

return config
