-- worker.schema.explain: a spec as documentation, and as YAML to copy.

local verify = require "worker.schema.verify"
local yaml = require "worker.yaml"

local explain = {}

local WIDTH = 90

-- ---- words ----

local function field_of(short)
  return type(short) == "string" and { short } or short or { "any" }
end

local function type_words(field)
  local kind = field[1]
  if kind == "list" then return "list of " .. type_words(field_of(field.of)) end
  if kind == "map" then return "map of names to " .. type_words(field_of(field.of)) end
  if kind == "enum" then return table.concat(field.values, " | ") end
  if kind == "url" then return "address" end
  if kind == "integer" then return "whole number" end
  if kind == "one_of" then
    local words = {}
    for index, one in ipairs(field.of) do words[index] = type_words(field_of(one)) end
    return table.concat(words, " or ")
  end
  return kind == "bytes" and "size" or kind == "any" and "anything" or kind
end

-- A value on one line, as it would stand in a file.
local function flow(value)
  if type(value) ~= "table" then
    local text = yaml.scalar(value)
    if text:find('^"') or not text:find("[%[%]{},]") or type(value) ~= "string" then return text end
    return '"' .. text .. '"'
  end
  local parts = {}
  if #value > 0 then
    for index, item in ipairs(value) do parts[index] = flow(item) end
    return "[ " .. table.concat(parts, ", ") .. " ]"
  end
  for key, item in pairs(value) do
    parts[#parts + 1] = yaml.scalar(tostring(key)) .. ": " .. flow(item)
  end
  table.sort(parts)
  return #parts > 0 and "{ " .. table.concat(parts, ", ") .. " }" or "{}"
end

--- `explain.flow(value)`: a value on one line; lists and maps in brackets.
explain.flow = flow

-- The value of a field, as it would stand behind the colon.
local function outermost(value, field)
  if type(value) ~= "table" then return yaml.scalar(value) end
  return field[1] == "list" and next(value) == nil and "[]" or flow(value)
end

-- Required fields first, then by name: the order in which a person needs them.
local function ordered(fields, skip)
  local names = {}
  for name, field in pairs(fields) do
    if type(field) == "table" and not (skip and skip[name]) then names[#names + 1] = name end
  end
  table.sort(names, function(a, b)
    local ra, rb = fields[a].required or false, fields[b].required or false
    if ra ~= rb then return ra end
    return a < b
  end)
  return names
end

local function wrapped(text, prefix)
  local lines, line = {}, prefix
  for word in text:gmatch("%S+") do
    if #line + #word + 1 > WIDTH and line ~= prefix then
      lines[#lines + 1] = line
      line = prefix
    end
    line = line .. (line == prefix and "" or " ") .. word
  end
  lines[#lines + 1] = line
  return lines
end

local function append(lines, more)
  table.move(more, 1, #more, #lines + 1, lines)
end

-- ---- documentation ----

local function facts(field)
  local words = { type_words(field) }
  if field.required then words[#words + 1] = "required" end
  if field.default ~= nil then words[#words + 1] = "default " .. outermost(field.default, field) end
  if field.min then words[#words + 1] = ("at least %s"):format(field.min) end
  if field.max then words[#words + 1] = ("at most %s"):format(field.max) end
  if field.values and field[1] ~= "enum" then
    words[#words + 1] = "one of " .. table.concat(field.values, " | ")
  end
  if field.pattern then words[#words + 1] = "pattern " .. field.pattern end
  if field.env then
    local names = type(field.env) == "table" and table.concat(field.env, ", ") or field.env
    words[#words + 1] = "environment " .. names
  end
  if field.deprecated then words[#words + 1] = "deprecated" end
  return table.concat(words, ", ")
end

-- The record that a field holds: itself, or what its list or map holds.
local function inside(field)
  if field[1] == "record" then return field.fields end
  local of = (field[1] == "list" or field[1] == "map") and field_of(field.of)
  return of and inside(of)
end

local function explain_fields(lines, fields, indent)
  local names, width = ordered(fields), 0
  for _, name in ipairs(names) do width = math.max(width, #name) end
  for _, name in ipairs(names) do
    local field = fields[name]
    lines[#lines + 1] = ("%s%-" .. width .. "s  %s"):format(indent, name, facts(field))
    local prefix = indent .. (" "):rep(width + 2)
    if field.doc then append(lines, wrapped(field.doc, prefix)) end
    if type(field.deprecated) == "string" then append(lines, wrapped(field.deprecated, prefix)) end
    if field.example ~= nil then
      lines[#lines + 1] = prefix .. "example: " .. outermost(field.example, field)
    end
    local within = inside(field)
    if within then explain_fields(lines, within, prefix) end
  end
end

function explain.text(plugin)
  local fields = verify.fields_of(plugin)
  local lines = { ("%s %s"):format(plugin.kind or "plugin", plugin.name or "?"), "" }
  if plugin.doc then
    append(lines, wrapped(plugin.doc, "  "))
    lines[#lines + 1] = ""
  end
  if #ordered(fields) == 0 then
    lines[#lines + 1] = "  Nothing to configure."
  else
    explain_fields(lines, fields, "  ")
  end
  return table.concat(lines, "\n") .. "\n"
end

-- ---- samples ----

local PLACEHOLDERS = {
  string = "text", integer = 1, number = 1, boolean = true, duration = "30s", size = "64MiB",
  bytes = "64MiB", path = "/path/to/it", address = "127.0.0.1:9252", secret = "${file:/run/secrets/NAME}", any = "anything",
}

local function placeholder(field)
  if field.example ~= nil then return field.example end
  if field.default ~= nil then return field.default end
  if field.values then return field.values[1] end
  if field[1] == "url" then return (field.schemes and field.schemes[1] or "https") .. "://host.example" end
  if field[1] == "list" then return { placeholder(field_of(field.of)) } end
  if field[1] == "map" then return { NAME = placeholder(field_of(field.of)) } end
  if field[1] == "one_of" then return placeholder(field_of(field.of[1])) end
  return PLACEHOLDERS[field[1]]
end

local sample_fields

local function sample_field(lines, name, field, indent, off)
  local note = field.required and " Required." or ""
  append(lines, wrapped((field.doc or "") .. note, indent .. "# "))
  local mark = (off or not field.required) and "#" or ""
  if field[1] ~= "record" then
    lines[#lines + 1] = ("%s%s%s: %s"):format(indent, mark, name, outermost(placeholder(field), field))
    return
  end
  lines[#lines + 1] = ("%s%s%s:"):format(indent, mark, name)
  sample_fields(lines, field.fields, indent .. "  ", nil, mark == "#")
end

function sample_fields(lines, fields, indent, skip, off)
  for _, name in ipairs(ordered(fields, skip)) do
    if not fields[name].deprecated then sample_field(lines, name, fields[name], indent, off) end
  end
end

function explain.sample(plugin, options)
  options = options or {}
  local indent, lines = options.indent or "", {}
  local first = options.key
  if first == nil and plugin.kind == "protocol" then
    first = "protocol: " .. plugin.name
  elseif first == nil and type(plugin.name) == "string" then
    first, indent = plugin.name .. ":", indent .. "  "
  end
  if first then lines[1] = (options.indent or "") .. first end
  local skip = {}
  for _, name in ipairs(options.skip or {}) do skip[name] = true end
  sample_fields(lines, verify.fields_of(plugin), indent, skip)
  return table.concat(lines, "\n") .. "\n"
end

return explain
