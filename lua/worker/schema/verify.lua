-- worker.schema.verify: is a spec itself in order?
--
-- The mistakes of a plugin's author are found here, by the specs that every plugin has to pass, and
-- not by the person who writes a configuration for it.

local types = require "worker.schema.types"

local ATTRIBUTES = {
  required = "boolean", default = "any", doc = "string", min = "any", max = "any", values = "table",
  pattern = "string", env = "any", example = "any", deprecated = "any", of = "any", keys = "string",
  fields = "table", schemes = "table",
}

local CONTAINERS = { list = "of", map = "of", record = "fields", one_of = "of" }

local verify_fields

local function try(found, path, field, what, complaint)
  local why = field[what] ~= nil and complaint(field, field[what])
  if why then found[#found + 1] = ("%s: its %s does not pass: %s"):format(path, what, why) end
end

local function verify_attributes(found, path, field)
  for key, value in pairs(field) do
    local wanted = ATTRIBUTES[key]
    if key == 1 then
      wanted = "string"
    elseif not wanted then
      found[#found + 1] = ("%s: unknown attribute %s"):format(path, tostring(key))
    end
    if wanted and wanted ~= "any" and type(value) ~= wanted then
      found[#found + 1] = ("%s: %s must be a %s"):format(path, tostring(key), wanted)
    end
  end
end

local function verify_inside(found, path, field, complaint)
  local kind = field[1]
  if kind == "record" then
    verify_fields(found, path .. ".", field.fields, complaint)
  elseif kind == "one_of" then
    for index, one in ipairs(field.of) do
      local inner = type(one) == "string" and { one } or one
      if not types[inner[1]] and not CONTAINERS[inner[1]] then
        found[#found + 1] = ("%s: alternative %d has no known type"):format(path, index)
      elseif CONTAINERS[inner[1]] and inner[CONTAINERS[inner[1]]] then
        verify_inside(found, path, inner, complaint)
      end
    end
  elseif type(field.of) == "table" and CONTAINERS[field.of[1]] and field.of[CONTAINERS[field.of[1]]] then
    verify_inside(found, path, field.of, complaint)
  end
end

local function verify_field(found, path, field, complaint)
  local kind = field[1]
  if not types[kind] and not CONTAINERS[kind] then
    found[#found + 1] = ("%s: unknown type %s"):format(path, tostring(kind))
    return
  end
  verify_attributes(found, path, field)
  if not field.doc or field.doc == "" then
    found[#found + 1] = path .. ": has no doc"
  end
  if field.required and field.default ~= nil then
    found[#found + 1] = path .. ": is required and has a default; it can only be one of them"
  end
  if kind == "enum" and not field.values then found[#found + 1] = path .. ": an enum needs values" end
  if (kind == "record" or kind == "one_of") and not field[CONTAINERS[kind]] then
    found[#found + 1] = ("%s: a %s needs %s"):format(path, kind, CONTAINERS[kind])
    return
  end
  verify_inside(found, path, field, complaint)
  try(found, path, field, "default", complaint)
  try(found, path, field, "example", complaint)
end

function verify_fields(found, prefix, fields, complaint)
  local names = {}
  for name in pairs(fields) do names[#names + 1] = tostring(name) end
  table.sort(names)
  for _, name in ipairs(names) do
    local field = fields[name]
    if type(field) == "table" then
      verify_field(found, prefix .. name, field, complaint)
    elseif not (name == "check" and type(field) == "function") then
      found[#found + 1] = prefix .. name .. ": is not a field; write { \"type\", doc = ... }"
    end
  end
end

local verify = {}

--- `verify.fields_of(spec)`: the fields of a plugin, or the table of fields itself.
function verify.fields_of(spec)
  if type(spec.kind) == "string" then return spec.config or {} end
  return spec
end

--- `verify.spec(fields, complaint)`: what is wrong with them, as a list of texts. complaint(field, value)
-- says why a value does not pass, nil when it does.
function verify.spec(fields, complaint)
  local found = {}
  verify_fields(found, "", fields, complaint)
  return found
end

return verify
