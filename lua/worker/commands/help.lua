-- help.lua: `worker help`: what there is, and how to use it.
local args = require "worker.args"
local commands = require "worker.commands"

local command = {
  summary = "tell about a command, about exit-codes or signals",
  usage = "[COMMAND | exit-codes | signals]",
  words = { 0, 1 },
  complete = "command",
  examples = { { "worker help run", "the same as worker run --help" } },
}

-- A command that reads its line itself has the options of its plugins, too.
local function options_of(one)
  if not one.parse then return nil end
  local _, _, _, options = one.parse({ "--help" }, commands.with_globals(one.options))
  return options
end

function command.run(_, words)
  local help = require "worker.help"
  local name = words[1]
  local text
  if not name then
    text = help.general()
  elseif help.topics[name] then
    text = help.topics[name]()
  elseif commands.exists(name) then
    text = help.command(name, commands.get(name), options_of(commands.get(name)))
  else
    local known = commands.names()
    for topic in pairs(help.topics) do known[#known + 1] = topic end
    args.usage(("there is no command '%s'%s"):format(name, args.nearest(name, known, "'%s'")))
  end
  io.stdout:write(text)
  return 0
end

return command
