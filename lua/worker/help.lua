-- help.lua: help texts, made from the tables of the commands so that they cannot disagree.
local args = require "worker.args"
local commands = require "worker.commands"
local exit = require "worker.exit"
local sys = require "worker.core.sys"
local terminal = require "worker.terminal"

local help = {}

local LEFT_MOST = 30

help.SIGNALS = {
  { "TERM, INT", "first: take no more jobs, let the running ones finish (for shutdown.timeout, then "
    .. "they are cancelled); second: cancel them now; third: exit at once" },
  { "QUIT", "cancel the running jobs at once, report them, exit" },
  { "USR1", "take no more jobs, let the running ones finish, however long that takes" },
  { "HUP", "read the configuration and the plugins again: servers that changed are replaced, jobs go on; "
    .. "with a mistake in it everything stays as it is" },
  { "USR2", "tell in the log what every server and job is doing" },
}

local function option_words(key, option)
  local long = args.long(key, option)
  local words = option.short and ("-%s, %s"):format(option.short, long) or "    " .. long
  if (option[1] == "flag" or option[1] == "boolean") and option.negatable ~= false
    and not option.short then
    words = words:gsub("%-%-", "--[no-]", 1)
  end
  local placeholder = args.placeholder(option)
  return placeholder and words .. " " .. placeholder or words
end

local function default_words(option)
  local default = option.default
  if default == nil or type(default) == "table" or default == "" or default == false then return "" end
  return (" (default: %s)"):format(tostring(default))
end

local function option_doc(option)
  local doc = (option.doc or "") .. default_words(option)
  if option[1] == "list" or option[1] == "map" then doc = doc .. " May be repeated." end
  if option.required then doc = doc .. " Required." end
  if option.env then doc = doc .. (" Environment: %s."):format(
    type(option.env) == "table" and table.concat(option.env, ", ") or option.env) end
  return doc
end

local function options_table(options, wanted)
  local list = {}
  for key, option in pairs(options) do
    if not option.hidden and wanted(key, option) then list[#list + 1] = { args.long(key, option), key, option } end
  end
  table.sort(list, function(a, b) return a[1] < b[1] end)
  local rows = {}
  for i, item in ipairs(list) do rows[i] = { option_words(item[2], item[3]), option_doc(item[3]) } end
  return terminal.columns(rows, { indent = 2, most = LEFT_MOST })
end

local function section(out, title, body)
  if body ~= "" then out[#out + 1] = ("\n%s:\n%s"):format(title, body) end
end

-- The options of each plugin in a section of its own.
local function plugin_sections(out, options)
  local seen = {}
  for _, option in pairs(options) do
    if option.plugin and not seen[option.plugin] then seen[#seen + 1], seen[option.plugin] = option.plugin, true end
  end
  table.sort(seen)
  for _, plugin in ipairs(seen) do
    section(out, ("Options of '%s'"):format(plugin), options_table(options, function(_, option)
      return option.plugin == plugin
    end))
  end
end

local function examples_text(examples)
  local out = {}
  for _, example in ipairs(examples or {}) do
    out[#out + 1] = ("  %s\n      %s\n"):format(example[1], terminal.wrap(example[2], terminal.width(), 6))
  end
  return table.concat(out)
end

--- `help.command(name, command, options)`: the help of one command; options are all it has, with
-- those of the plugins that were named (left out: its own).
function help.command(name, command, options)
  options = options or commands.options_of(name)
  local out = {
    ("worker %s: %s\n"):format(name, command.summary),
    ("\nUsage: worker %s %s\n"):format(name, command.usage or ""),
  }
  if command.doc then out[#out + 1] = "\n" .. terminal.wrap(command.doc, terminal.width(), 0) .. "\n" end
  section(out, "Options", options_table(options, function(key, option)
    return not commands.GLOBALS[key] and not option.plugin
  end))
  plugin_sections(out, options)
  section(out, "Options of every command", options_table(options, function(key)
    return commands.GLOBALS[key] ~= nil
  end))
  section(out, "Examples", examples_text(command.examples))
  return table.concat(out)
end

--- `help.general()`: what `worker --help` prints.
function help.general()
  local out = {
    ("worker %s: takes jobs from an orchestrator, runs them, streams their logs, reports results\n"):format(
      sys.version()),
    "\nUsage: worker [--protocol NAME] [options] [PLUGIN_DIR...]\n       worker COMMAND [options] ...\n",
  }
  for _, group in ipairs(commands.GROUPS) do
    local rows = {}
    for i, name in ipairs(group[2]) do rows[i] = { name, commands.get(name).summary } end
    section(out, group[1], terminal.columns(rows, { indent = 2 }))
  end
  section(out, "Options of every command", options_table(commands.GLOBALS, function() return true end))
  out[#out + 1] = "\nWithout a command it is `worker run`.  `worker help COMMAND` tells more;\n"
    .. "`worker help exit-codes` and `worker help signals` tell the rest.\n"
  return table.concat(out)
end

help.topics = {}

--- `help.topics["exit-codes"]()`: what the exit codes say.
help.topics["exit-codes"] = function()
  local rows = {}
  for i, row in ipairs(exit.MEANINGS) do rows[i] = { ("%3d"):format(row[1]), row[2] } end
  return "Exit codes of worker (worker exec ends with the code of its job, 128 + n for signal n):\n\n"
    .. terminal.columns(rows, { indent = 2 })
end

--- `help.topics.signals()`: what the signals do.
function help.topics.signals()
  return "Signals to a running worker:\n\n" .. terminal.columns(help.SIGNALS, { indent = 2 })
end

return help
