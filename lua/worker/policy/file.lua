-- policy/file.lua: a policy as a file has it.
--
-- YAML or JSON.  ${NAME} and ${NAME:-instead} in texts are variables of the environment; everywhere
-- but in `mode`, which nobody outside the file decides.
local fields = require "worker.policy.fields"
local fs = require "worker.fs"
local schema = require "worker.schema"
local sys = require "worker.core.sys"
local yaml = require "worker.yaml"

local file = {}

local MOST = 1 << 20

local function missing(marks, container, key, path, variable)
  local name, line, column = yaml.where(marks, container, key)
  local place = name and ("%s:%d:%d: "):format(name, line, column) or ""
  return schema.problem(("%s%s: the environment has no %s; ${%s:-TEXT} does without"):format(place, path, variable, variable),
    { file = name, line = line, column = column, path = path })
end

local function expanded(text, complain)
  return (text:gsub("%${([%a_][%w_]*)(:?%-?)([^}]*)}", function(name, mark, instead)
    local value = sys.env(name)
    if mark == ":-" then return value ~= nil and value ~= "" and value or instead end
    if mark ~= "" or instead ~= "" then return nil end
    return value or complain(name)
  end))
end

local function expand(tree, marks, problems, path)
  for key, value in pairs(tree) do
    local at = type(key) == "number" and ("%s[%d]"):format(path, key) or path == "" and key or path .. "." .. key
    if type(value) == "table" then
      expand(value, marks, problems, at)
    elseif type(value) == "string" and at ~= "mode" then
      tree[key] = expanded(value, function(name)
        problems[#problems + 1] = missing(marks, tree, key, at, name)
        return ""
      end)
    end
  end
end

--- `file.parse(name, source)`: the policy, or nil; and the list of what is wrong with it, each with file,
-- line and column.
function file.parse(name, source)
  local ok, tree, marks = yaml.parse(source, { name = name })
  if not ok then return nil, { schema.problem(tree.message) } end
  if tree == nil then tree, marks = {}, {} end
  if type(tree) ~= "table" then return nil, { schema.problem(name .. ":1:1: expected a map, like `mode: strict`") } end
  local problems = {}
  expand(tree, marks, problems, "")
  local policy, more = schema.check(fields.all, tree, marks, "", { env = function() end })
  table.move(more, 1, #more, #problems + 1, problems)
  if #problems > 0 then return nil, schema.in_order(problems) end
  return policy, problems
end

--- `file.read(path)`: the same for a file.
function file.read(path)
  local source, why = fs.read(path, MOST)
  if not source then
    return nil, { schema.problem(("%s; `worker policy sample > %s` writes one to begin with"):format(tostring(why), path)) }
  end
  return file.parse(path, source)
end

return file
