-- worker.config.references: how a configuration names plugins.
--
--   shell                            a name
--   timeout: { default: 30m }        a name with fields
--   [ drain, timeout: { ... } ]      several, in order

local references = {}

local function wrong(container, key, path, message)
  return nil, { container = container, key = key, path = path, message = message }
end

-- The one name in { NAME: { fields } }; also when the fields are null, which the marks still know.
local function only_name(value, marks)
  local name
  for key in pairs(marks[value] and marks[value].keys or value) do
    if name ~= nil or type(key) ~= "string" then return nil end
    name = key
  end
  return name
end

local function read_one(value, container, key, path, marks)
  if type(value) == "string" then
    return { name = value, container = container, key = key, path = path }
  end
  local name = type(value) == "table" and only_name(value, marks)
  if not name then
    return wrong(container, key, path, "expected the name of a plugin, or { NAME: { its fields } }")
  end
  local fields = value[name]
  if fields ~= nil and type(fields) ~= "table" then
    return wrong(value, name, path .. "." .. name, "expected a map with the fields of " .. name)
  end
  return {
    name = name, fields = fields, container = value, key = name, of_key = true, path = path,
  }
end

local function is_list(value, marks)
  local mark = marks[value]
  return mark and mark.kind == "list" or not mark and (#value > 0 or next(value) == nil)
end

--- `references.read(value, container, key, marks)`: the list of { name, fields, path, container,
-- key, of_key } that container[key] (whose value is given) stands for; or nil and what is wrong and
-- where.
function references.read(value, container, key, marks)
  if type(value) ~= "table" or not is_list(value, marks) then
    local one, problem = read_one(value, container, key, "", marks)
    return one and { one }, problem
  end
  local list = {}
  for index, item in ipairs(value) do
    local one, problem = read_one(item, value, index, ("[%d]"):format(index), marks)
    if not one then return nil, problem end
    list[index] = one
  end
  return list
end

return references
