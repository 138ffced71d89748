-- check.lua: `worker check`: read everything a start would read, start nothing.
local args = require "worker.args"
local exit = require "worker.exit"
local registries = require "worker.registry"
local terminal = require "worker.terminal"

local command = {
  summary = "check the configuration and the plugins; start nothing",
  usage = "[options] [PLUGIN_DIR...]",
  doc = "Takes the same options as `worker run`. What is wrong is printed with file, line and column, "
    .. "and the exit code is 78. With --plugins it is the plugins of a folder that are checked, "
    .. "for those who write them: what they declare, and how it is documented.",
  server = true,
  options = {
    plugins = { "list", value = "DIR", doc = "Check only the plugins of this folder, strictly." },
    json = { "flag", doc = "Print JSON." },
  },
  examples = {
    { "worker check --config /etc/worker/worker.yaml", "before a restart" },
    { "worker check --plugins ./plugins", "before a plugin is given away" },
  },
}

-- Plugins ----------------------------------------------------------------------------------------------

local function has_chain(plugin)
  return plugin.claim or plugin.run or plugin.finish
end

-- What is wrong with one plugin, as lines.
local function plugin_problems(entry)
  local problems = { entry.problem }
  if entry.plugin and entry.kind == "policy" and not has_chain(entry.plugin) then
    problems[#problems + 1] = entry.path .. ": a policy needs one of claim, run, finish"
  end
  return problems
end

local function all_plugin_problems(registry)
  local problems = {}
  for _, entry in ipairs(registry:all()) do
    local more = plugin_problems(entry)
    table.move(more, 1, #more, #problems + 1, problems)
  end
  return problems
end

local function plugin_rows(registry)
  local rows = {}
  for _, entry in ipairs(registry:all()) do rows[#rows + 1] = { entry.kind, entry.name, entry.path } end
  return rows
end

-- The configuration ------------------------------------------------------------------------------------

local function texts(list)
  local lines = {}
  for i, problem in ipairs(list or {}) do lines[i] = tostring(problem) end
  return lines
end

-- A broken plugin that the configuration names has been told of already.
local function add_unnamed(problems, more)
  local all = table.concat(problems, "\n")
  for _, problem in ipairs(more) do
    if not all:find(problem, 1, true) then problems[#problems + 1] = problem end
  end
end

local function names_of(list)
  local names = {}
  for i, one in ipairs(list) do names[i] = one.name end
  return #names > 0 and table.concat(names, ", ") or "none"
end

local function config_rows(conf, paint)
  local rows = { {} }
  for i, title in ipairs { "SERVER", "PROTOCOL", "SLOTS", "EXECUTOR" } do rows[1][i] = paint("bold", title) end
  for _, server in ipairs(conf.servers) do
    rows[#rows + 1] = { server.name, server.protocol, tostring(server.slots), names_of(server.executors) }
  end
  return rows
end

local function print_config(conf, paint)
  local policies = {}
  for _, chain in ipairs { "claim", "run", "finish" } do
    policies[#policies + 1] = { "around " .. chain, names_of(conf.policies[chain]) }
  end
  if #conf.events > 0 then policies[#policies + 1] = { "events go to", names_of(conf.events) } end
  io.stdout:write("configuration: ", #conf.files > 0 and table.concat(conf.files, ", ") or "no file",
    "\n\n", terminal.columns(config_rows(conf, paint)), "\n", terminal.columns(policies), "\n")
end

-- The end ----------------------------------------------------------------------------------------------

local function count(n, what)
  return ("%d %s%s"):format(n, what, n == 1 and "" or "s")
end

-- Tells the outcome; what of a good one is printed is left to `show`.
local function finish(options, problems, warnings, show)
  if options.json then
    local json = require "worker.json"
    io.stdout:write(json.encode {
      ok = #problems == 0, problems = json.array(problems), warnings = json.array(warnings),
    }, "\n")
  else
    for _, warning in ipairs(warnings) do io.stderr:write("warning: ", warning, "\n") end
    for _, problem in ipairs(problems) do io.stderr:write(problem, "\n") end
    if #problems > 0 then io.stderr:write(count(#problems, "problem"), "\n") else show() end
  end
  return #problems == 0 and exit.OK or exit.CONFIG
end

local function check_plugins(options)
  local registry = registries.open(options.plugins)
  local problems, rows = all_plugin_problems(registry), plugin_rows(registry)
  if #rows == 0 then
    problems[1] = ("no plugins in %s: they belong into protocols/, executors/, policies/, tools/ and sinks/"):format(
      table.concat(options.plugins, ", "))
  end
  return finish(options, problems, {}, function()
    io.stdout:write(terminal.columns(rows), ("\n%s, all in order\n"):format(count(#rows, "plugin")))
  end)
end

function command.run(options, dirs)
  if options.plugins then return check_plugins(options) end
  local config = require "worker.config"
  local given = args.to_config(options, dirs)
  local conf, found, warned = config.load(given)
  local problems = texts(found)
  local registry = conf and conf.registry or registries.open(require("worker.places").plugin_dirs(dirs))
  add_unnamed(problems, all_plugin_problems(registry))
  return finish(options, problems, texts(warned), function()
    print_config(conf, terminal.painter(terminal.color(options.color)))
    io.stdout:write(count(#registry:all(), "plugin"), ", all in order\n")
  end)
end

return command
