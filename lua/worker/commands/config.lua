-- config.lua: `worker config`: the configuration to begin with, and the one that is in force.
local args = require "worker.args"
local err = require "worker.error"

local VERBS = { "sample", "show", "check" }

local command = {
  summary = "print a sample configuration, or the one in force with where each value is from",
  usage = "sample|show|check [options] [PLUGIN_DIR...]",
  doc = "sample prints a worker.yaml to begin with, every setting with its documentation. show prints "
    .. "every value and where it is from (option, environment, file and line, default), secrets "
    .. "hidden. check is `worker check`. Takes the same options as `worker run`.",
  server = true,
  complete = VERBS,
  options = {},
  examples = {
    { "worker config sample > worker.yaml", "a file to begin with" },
    { "worker config show --protocol local --dir jobs", "what would be in force" },
  },
}

--- The verb comes first, the rest is the command line of a server.
function command.parse(argv, options)
  local verb = argv[1]
  for _, one in ipairs(VERBS) do
    if verb == one then
      local values, dirs, registry, all = args.for_run(table.move(argv, 2, #argv, 1, {}), options)
      values.verb = verb
      return values, dirs, registry, all
    end
  end
  local values, words = args.parse(argv, options, { lenient = true })
  if values.help or values.version then return values, words end
  if not verb or verb:find("^%-") then args.usage("say what to do: worker config sample, show or check") end
  args.usage(("there is no `worker config %s`%s"):format(verb, args.nearest(verb, VERBS, "'%s'")))
end

local verbs = {}

function verbs.sample(_, _, registry)
  io.stdout:write(require("worker.config").sample(registry))
  return 0
end

function verbs.show(options, dirs)
  local config = require "worker.config"
  local conf, problems, warnings = config.load(args.to_config(options, dirs))
  for _, warning in ipairs(warnings or {}) do io.stderr:write("warning: ", tostring(warning), "\n") end
  if not conf then err.raise("config", "the configuration is wrong", { problems = problems }) end
  io.stdout:write(config.show(conf))
  return 0
end

function verbs.check(options, dirs)
  return require("worker.commands.check").run(options, dirs)
end

function command.run(options, dirs, registry)
  return verbs[options.verb](options, dirs, registry)
end

return command
