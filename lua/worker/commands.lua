-- commands.lua: the commands of `worker`, and the options that all of them have.
--
-- A command is a module worker.commands.<name> that returns
--
--   { summary = "one line", usage = "[options] [DIR...]", doc = "a paragraph, may be left out",
--     options = { ... } (see worker.args), words = { least, most },
--     examples = { { "worker ...", "what it does" } },
--     run = function(options, words) -> exit code }
--
-- `server = true` says that the command line names a server: the fields of its plugins are options
-- too, and run gets (options, folders, registry).  stop_at_word: options end at the first word.
-- log_level: what its log tells when nobody says ("info").
-- parse(argv, options) instead does it all itself and returns what args.for_run does.
-- complete: what its words are, for shells ("directory", "file", "plugin", "tool", "command", { words }).
local commands = {}

commands.GROUPS = {
  { "Work", { "run", "exec", "tool", "callback", "check" } },
  { "Plugins", { "plugins", "explain", "new", "proto", "serve", "policy", "spec" } },
  { "This machine", { "config", "doctor", "completion", "version", "help" } },
}

commands.GLOBALS = {
  help = { "flag", short = "h", doc = "Show this help." },
  version = { "flag", short = "V", doc = "Show the version." },
  verbose = { "count", short = "v", doc = "Tell more of what happens." },
  quiet = { "flag", short = "q", doc = "Tell only what went wrong." },
  log_level = {
    "enum", values = { "debug", "info", "warn", "error" }, value = "LEVEL", env = "WORKER_LOG_LEVEL",
    doc = "What the log tells: debug, info, warn or error.",
  },
  log_format = {
    "enum", values = { "auto", "text", "logfmt", "json", "journal" }, value = "FORMAT",
    env = "WORKER_LOG_FORMAT",
    doc = "How the log looks: text, logfmt, json, journal, or auto (text on a terminal, journal "
      .. "under systemd, else logfmt).",
  },
  color = { "flag", doc = "Colours, or none; otherwise on a terminal unless NO_COLOR is set." },
}

local is_known = {}
for _, group in ipairs(commands.GROUPS) do
  for _, name in ipairs(group[2]) do is_known[name] = true end
end

--- `commands.exists(name)`: whether it is a command of this binary.
function commands.exists(name)
  return is_known[name] == true
end

--- `commands.get(name)`: the command; its mistakes in loading are raised.
function commands.get(name)
  return (require("worker.commands." .. name))
end

--- `commands.names()`: all commands, in the order of the groups.
function commands.names()
  local names = {}
  for _, group in ipairs(commands.GROUPS) do
    table.move(group[2], 1, #group[2], #names + 1, names)
  end
  return names
end

--- `commands.with_globals(options)`: these options and those that every command has.
function commands.with_globals(options)
  local all = {}
  for key, option in pairs(commands.GLOBALS) do all[key] = option end
  for key, option in pairs(options or {}) do all[key] = option end
  return all
end

--- `commands.options_of(name)`: all options of a command, those of any server included where it takes
-- the command line of one.
function commands.options_of(name)
  local command = commands.get(name)
  local options = commands.with_globals(command.options)
  return command.server and require("worker.args.server").options(options) or options
end

return commands
