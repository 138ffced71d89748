-- policy/sample.lua: the default policy as a file, with every setting there is.
local explain = require "worker.schema.explain"
local fields = require "worker.policy.fields"
local yaml = require "worker.yaml"

local HEAD = [[
# What jobs may do here.  What is not said is not allowed: a switch that is missing is off; a limit or a
# list that is missing is none.  ${NAME} and ${NAME:-instead} are variables of the environment.
# `worker policy check FILE` checks a file, `worker policy explain TASK` tries it.
]]
local ORDER = { "id", "name", "description", "mode", "labels", "quotas", "mounts", "network", "images", "security" }

local function names_of(list)
  local names = {}
  for name in pairs(list) do names[#names + 1] = name end
  table.sort(names)
  return names
end

local function shown(field, value)
  if type(value) ~= "table" then return yaml.scalar(value) end
  return field[1] == "list" and #value == 0 and "[]" or explain.flow(value)
end

-- What the default policy says stands there, the rest as an example behind a #.
local function add_field(lines, name, field, value, indent)
  lines[#lines + 1] = ("%s# %s"):format(indent, field.doc)
  if field[1] == "record" then
    lines[#lines + 1] = indent .. name .. ":"
    for _, inner in ipairs(names_of(field.fields)) do
      add_field(lines, inner, field.fields[inner], (value or {})[inner], indent .. "  ")
    end
    return
  end
  local is_set = value ~= nil or field[1] == "boolean"
  if value == nil then value = field.default end
  if not is_set and field.example ~= nil then value = field.example end
  if value == nil then value = field[1] == "string" and "text" or field[1] == "integer" and 1 or "64MiB" end
  lines[#lines + 1] = ("%s%s%s: %s"):format(indent, is_set and "" or "#", name, shown(field, value))
end

--- The text of the file.
return function()
  local lines = {}
  for _, name in ipairs(ORDER) do add_field(lines, name, fields.all[name], fields.default[name], "") end
  return HEAD .. table.concat(lines, "\n") .. "\n"
end
