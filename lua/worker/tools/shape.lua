-- tools/shape.lua: what a tool plugin says of its container, as data.
--
-- Beside `config` (its arguments) and `command` (arguments to argv) a tool says these things; sizes
-- and times may be written as in a configuration ("64MiB", "30s").
local schema = require "worker.schema"

local shape = {}

shape.fields = {
  group = { "enum", values = { "file", "network", "other" }, default = "other",
    doc = "What kind of task it is for: operations of a task are looked for in the group of its type first." },
  operations = { "list", of = { "string" }, default = {}, doc = "What tasks call it, beside its name." },
  image = { "string", required = true, min = 1, max = 255, doc = "The image of its container." },
  cpus = { "number", required = true, min = 0.01, doc = "Most processors." },
  memory = { "size", required = true, min = "6MiB", doc = "Most memory." },
  pids = { "integer", required = true, min = 1, doc = "Most processes." },
  timeout = { "duration", required = true, min = "1s", doc = "How long it may take when the task does not say." },
  workspace = { "enum", values = { "read", "write" }, doc = "How it sees the workspace; not at all if absent." },
  optional = { "boolean", default = false, doc = "Whether it can do without a workspace." },
  network = { "boolean", default = false, doc = "Whether it has a network." },
  paths = { "list", of = { "string" }, default = {}, doc = "Which of its arguments are paths in the workspace." },
  from = { "map", of = { "list", of = { "one_of", of = { "string", "integer" } } }, default = {},
    doc = "Other names of arguments in tasks; a number is a place among the unnamed ones, * all of those." },
  input = { "string", doc = "The argument that a task's input stands for." },
  flags = { "list", of = { "string" }, default = {}, doc = "Options that unnamed arguments may repeat: it has them anyway." },
}

local function data_of(plugin)
  local data = {}
  for name in pairs(shape.fields) do data[name] = plugin[name] end
  return data
end

-- Every name that points to an argument has to be one.
local function wrong_name(plugin, checked)
  local arguments = plugin.config or {}
  for _, name in ipairs(checked.paths) do
    if not arguments[name] then return ("paths: there is no argument '%s'"):format(name) end
  end
  for name in pairs(checked.from) do
    if not arguments[name] then return ("from: there is no argument '%s'"):format(name) end
  end
  if checked.input and not arguments[checked.input] then
    return ("input: there is no argument '%s'"):format(checked.input)
  end
  if #checked.paths > 0 and not checked.workspace then return "paths: a tool without a workspace has none" end
end

local read = setmetatable({}, { __mode = "k" })

--- `shape.read(plugin)`: what it says, checked and with defaults; or nil and what is wrong.
function shape.read(plugin)
  if read[plugin] then return read[plugin] end
  local checked, problems = schema.check(shape.fields, data_of(plugin), nil, "", { env = function() end })
  if not checked then return nil, tostring(problems[1]) end
  local why = wrong_name(plugin, checked)
  if why then return nil, why end
  read[plugin] = checked
  return checked
end

return shape
