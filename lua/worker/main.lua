-- main.lua: from the command line to a command, and from what it raised to an exit code.
--
-- A mistake of a person is told in a sentence on stderr, with the nearest right word and where to
-- read on; a traceback means a bug, always.
local args = require "worker.args"
local commands = require "worker.commands"
local err = require "worker.error"
local exit = require "worker.exit"
local log = require "worker.log"
local shelf = require "worker.tools.shelf"
local sys = require "worker.core.sys"

local main = {}

local STDERR = 2
local EPIPE = 32

-- Which command ----------------------------------------------------------------------------------------

local function takes_value(word)
  for key, option in pairs(commands.GLOBALS) do
    if word == args.long(key, option) or option.short and word == "-" .. option.short then
      return args.placeholder(option) ~= nil, true
    end
    if word:find(args.long(key, option) .. "=", 1, true) == 1 or word == "--no-" .. key then
      return false, true
    end
  end
  return false, word:find("^%-[vqhV]+$") ~= nil
end

-- The first word that is no option, when only options of every command stand before it.
local function first_word(argv)
  local at = 1
  while at <= #argv do
    local word = argv[at]
    if not word:find("^%-.") then return at end
    local value, known = takes_value(word)
    if not known then return nil end
    at = at + (value and 2 or 1)
  end
end

local function is_directory(path)
  return require("worker.places").is_directory(path)
end

local function no_such_command(word)
  args.usage(("there is no command or directory '%s'%s"):format(word,
    args.nearest(word, commands.names(), "'%s'")))
end

--- `main.split(argv)`: the command's name, or nil where none is given, and the words without it.
function main.split(argv)
  local at = first_word(argv)
  local word = at and argv[at]
  if not word then return nil, argv end
  if not commands.exists(word) then
    if not is_directory(word) then no_such_command(word) end
    return nil, argv
  end
  local rest = table.move(argv, 1, #argv, 1, {})
  table.remove(rest, at)
  return word, rest
end

-- Running it -------------------------------------------------------------------------------------------

local function log_format(values)
  if values.log_format and values.log_format ~= "auto" then return values.log_format end
  if sys.isatty(STDERR) then return "text" end
  return sys.env("JOURNAL_STREAM") and "journal" or "logfmt"
end

local function setup_log(values, usual)
  local level = values.log_level or values.verbose and "debug" or values.quiet and "warn" or usual or "info"
  log.setup {
    level = level, format = log_format(values),
    color = require("worker.terminal").color(values.color, STDERR),
  }
end

local function parse(command, argv)
  local options = commands.with_globals(command.options)
  if command.parse then return command.parse(argv, options) end
  if command.server then return args.for_run(argv, options) end
  local values, words = args.parse(argv, options, {
    words = command.words, stop_at_word = command.stop_at_word,
  })
  return values, words, nil, options
end

local function wants_general_help(name, argv)
  if name then return false end
  for _, word in ipairs(argv) do
    if word ~= "--help" and word ~= "-h" then return false end
  end
  return #argv > 0
end

-- Until a configuration says more, tools are those in the folders that need not be named.
local function shipped_tools()
  local opened
  local function open()
    opened = opened or require("worker.registry").open(require("worker.places").plugin_dirs()):shelf()
    return opened
  end
  return {
    get = function(_, name) return open():get(name) end,
    names = function() return open():names() end,
  }
end

local function dispatch(state, argv)
  local name, rest = main.split(argv)
  if wants_general_help(name, rest) then
    io.stdout:write(require("worker.help").general())
    return exit.OK
  end
  if not name and args.parse(rest, commands.GLOBALS, { lenient = true }).version then name = "version" end
  state.name = name or "run"
  if not commands.exists(state.name) then no_such_command(state.name) end
  local command = commands.get(state.name)
  local values, words, registry, options = parse(command, rest)
  if values.help then
    io.stdout:write(require("worker.help").command(state.name, command, options))
    return exit.OK
  end
  if values.version then command, values = commands.get("version"), {} end
  setup_log(values, command.log_level)
  shelf.set(shipped_tools())
  return command.run(values, words, registry)
end

-- What went wrong --------------------------------------------------------------------------------------

local function tell_problems(why)
  for _, problem in ipairs(why.problems) do io.stderr:write(tostring(problem), "\n") end
end

local function tell(state, why)
  if why.problems then
    tell_problems(why)
  else
    io.stderr:write("worker: ", why.message, "\n")
  end
  if why.hint then io.stderr:write("  ", why.hint, "\n") end
  if why.kind == "usage" then
    io.stderr:write(("Try: worker %s\n"):format(state.name and state.name .. " --help" or "--help"))
  end
end

-- A bug keeps the traceback of the place where it was raised.
local function with_traceback(why)
  if err.is(why) then return why end
  return err.new("bug", tostring(why), { traceback = debug.traceback(nil, 2) })
end

-- A reader that went away (`worker plugins | head`) is no mistake; a full disk is.
local function flush(code)
  local ok, why, number = io.stdout:flush()
  if ok or number == EPIPE then return code end
  io.stderr:write("worker: the output cannot be written: ", why, "\n")
  return exit.IOERR
end

--- `main.run(program, ...)`: do what the command line says; returns the exit code.
function main.run(_, ...)
  local state = {}
  local ok, result = xpcall(dispatch, with_traceback, state, { ... })
  if ok then return flush(result or exit.OK) end
  local code = exit.of_kind(err.kind(result))
  if code then
    tell(state, result)
    return code
  end
  io.stderr:write("worker: internal error: ", tostring(result), "\n", result.traceback or "", "\n")
  return exit.SOFTWARE
end

return main
