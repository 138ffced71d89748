-- worker.schema.check: the walk over a spec and the value beside it.
--
-- Every function here takes the run (see worker.schema.report), the field, the value and where it
-- stands, and returns what the program gets; nil after it has complained.  A value goes through
-- three doors: references are put in (expand), text from flags and environment is taken apart
-- (split_text), and then its type reads it.

local given = require "worker.schema.given"
local refer = require "worker.schema.refer"
local report = require "worker.schema.report"
local secret = require "worker.secret"
local text = require "worker.text"
local types = require "worker.schema.types"
local yaml = require "worker.yaml"

local below, complain, warn = report.below, report.complain, report.warn

local SHOWN_MOST = 60

-- ---- words ----

local function is_list(run, value)
  local mark = run.marks[value]
  if mark then return mark.kind == "list" end
  return #value > 0 or next(value) == nil
end

local function is_map(run, value)
  local mark = run.marks[value]
  if mark then return mark.kind == "map" end
  return #value == 0
end

local function shown(run, value)
  if type(value) == "string" then
    if #value > SHOWN_MOST then value = text.cut(value, SHOWN_MOST) .. "..." end
    return ('"%s"'):format(value:gsub("%c", "?"))
  end
  if type(value) == "number" then return ("the number %s"):format(value) end
  if type(value) == "table" then return is_list(run, value) and "a list" or "a map" end
  if type(value) == "boolean" then return tostring(value) end
  return "nothing"
end

-- `of = "string"` is short for `of = { "string" }`.
local function field_of(short)
  return type(short) == "string" and { short } or short or { "any" }
end

local function expected(field)
  if field[1] == "list" then return "a list, like [ a, b ]" end
  if field[1] == "map" then return "a map of names to values" end
  if field[1] == "record" then return "a map of fields" end
  if field[1] == "one_of" then
    local words = {}
    for index, one in ipairs(field.of) do words[index] = expected(field_of(one)) end
    return table.concat(words, ", or ")
  end
  return types[field[1]].expected(field)
end

-- What was found instead; of a secret only what kind of thing it was.
local function got(run, field, value)
  if not (types[field[1]] and types[field[1]].hidden) then return shown(run, value) end
  return value == "" and "nothing" or "a " .. type(value)
end

local function mismatch(run, field, value, at, what)
  local hint = ""
  if field[1] == "string" and (type(value) == "number" or type(value) == "boolean") then
    hint = "; put it in quotes"
  elseif type(value) == "string" and field.values then
    local near = text.nearest(value, field.values)
    if near then hint = ('; did you mean "%s"?'):format(near) end
  end
  local found = got(run, field, value)
  complain(run, at, ("expected %s, got %s%s"):format(what or expected(field), found, hint))
end

-- ---- values ----

local check_value

local function check_bounds(run, field, value, at)
  local kind = types[field[1]]
  local measured = kind and kind.measure and kind.measure(value) or value
  if type(measured) == "table" then measured = #measured end
  if type(measured) ~= "number" then return true end
  for _, side in ipairs { "min", "max" } do
    local bound = field[side]
    local limit = bound and (kind and kind.limit and kind.limit(bound) or bound)
    if limit and (side == "min" and measured < limit or side == "max" and measured > limit) then
      local unit = type(value) == "table" and " entries" or kind.unit or ""
      local found = kind and kind.show and kind.show(value) or measured
      complain(run, at, ("expected at %s %s%s, got %s"):format(
        side == "min" and "least" or "most", bound, unit, found))
      return false
    end
  end
  return true
end

local function check_simple(run, field, value, at)
  local kind, read = types[field[1]], types[field[1]].read
  if at.as_text and kind.text and type(value) == "string" then read = kind.text end
  local result, what = read(field, value)
  if result == nil then return mismatch(run, field, value, at, what) end
  if field.pattern and type(result) == "string" and not result:find(field.pattern) then
    return mismatch(run, field, value, at, "text that fits the pattern " .. field.pattern)
  end
  if field.values and field[1] ~= "enum" and not types.enum.read(field, result) then
    return mismatch(run, field, value, at, types.enum.expected(field))
  end
  if (field.min or field.max) and not check_bounds(run, field, result, at) then return nil end
  return result
end

-- From a flag or the environment: "a, b" or "A=1, B=2", or the same as YAML in brackets.
local function split_text(run, field, value, at)
  if value:find("^%s*[%[{]") or field[1] == "record" then
    local ok, result, marks = yaml.parse(value, { name = at.path })
    if not ok then return complain(run, at, result.message) end
    for container, mark in pairs(marks) do run.marks[container] = mark end
    return result
  end
  local result = {}
  for part in value:gmatch("[^,]+") do
    part = part:match("^%s*(.-)%s*$")
    local key, rest = part:match("^([^=]+)=(.*)$")
    if field[1] == "list" then result[#result + 1] = part
    elseif key then result[key] = rest
    else return mismatch(run, field, value, at, "NAME=VALUE, NAME=VALUE") end
  end
  return result
end

local function check_list(run, field, value, at)
  if type(value) ~= "table" or not is_list(run, value) then return mismatch(run, field, value, at) end
  local of, result = field_of(field.of), {}
  for index, item in ipairs(value) do
    local inner = below(at, value, index, ("[%d]"):format(index))
    result[index] = check_value(run, of, item, inner)
  end
  if not check_bounds(run, field, result, at) then return nil end
  return result
end

local function check_map(run, field, value, at)
  if type(value) ~= "table" or not is_map(run, value) then return mismatch(run, field, value, at) end
  local of, result = field_of(field.of), {}
  for key, item in pairs(value) do
    local inner = below(at, value, key)
    if field.keys and not tostring(key):find(field.keys) then
      complain(run, inner, ("a name here must fit the pattern %s"):format(field.keys), true)
    end
    result[key] = check_value(run, of, item, inner)
  end
  return result
end

-- The alternative that has the same outer shape is the one that was meant, and its complaints are
-- worth more than "none of these".
local function check_one_of(run, field, value, at)
  local alike = {}
  local has = type(value) == "table" and (is_list(run, value) and "list" or "map")
  for _, short in ipairs(field.of) do
    local one = field_of(short)
    local trial = report.trial(run, { problems = { count = 0 } })
    local result = check_value(trial, one, value, at)
    if trial.problems.count == 0 then return result end
    local wants = one[1] == "list" and "list" or (one[1] == "map" or one[1] == "record") and "map"
    if wants and wants == has then alike[#alike + 1] = trial.problems end
  end
  if #alike ~= 1 then return mismatch(run, field, value, at) end
  for _, problem in ipairs(alike[1]) do run.problems[#run.problems + 1] = problem end
  run.problems.count = run.problems.count + alike[1].count
end

-- ---- records ----

local function names_of(fields)
  local names = {}
  for name, field in pairs(fields) do
    if type(field) == "table" then names[#names + 1] = name end
  end
  return names
end

local function check_unknown(run, fields, value, at)
  local mark = run.marks[value]
  -- the marks also know keys whose value is null
  for key in pairs(mark and mark.keys or value) do
    if type(fields[key]) ~= "table" then
      local near = text.nearest(tostring(key), names_of(fields))
      local hint = near and ('; did you mean "%s"?'):format(near) or ""
      complain(run, below(at, value, key), "unknown key" .. hint, true)
    end
  end
end

local function any_given(run, fields, at)
  local trial = report.trial(run, { problems = { count = 0 }, warnings = {}, origins = {} })
  for name, field in pairs(fields) do
    local probe = { path = at.path, rel = at.rel and at.rel .. "." .. name }
    if type(field) == "table" and given.find(trial, field, nil, probe) ~= nil then return true end
  end
  return false
end

-- Whether a record that is not there is wanted all the same: when nothing inside is required, or
-- when flags or environment give some of it.
local function record_wanted(run, field, at)
  for _, one in pairs(field.fields) do
    if type(one) == "table" and one.required then return any_given(run, field.fields, at) end
  end
  return true
end

local function default_of(run, field, at)
  if field.default ~= nil then
    -- a default is what it is: nothing is put in, and flags do not reach into it
    at.rel, at.container = nil, nil
    return check_value(report.trial(run, { literal = true }), field, field.default, at)
  end
  if field[1] == "record" and record_wanted(run, field, at) then
    at.container = nil
    return check_value(run, field, {}, at)
  end
end

local function check_field(run, name, field, record, at)
  local inner = below(at, record, name)
  inner.rel = at.rel and (at.rel == "" and name or at.rel .. "." .. name)
  local value, failed = given.find(run, field, record[name], inner)
  if failed then return nil end
  if value == nil then
    if field.required then
      inner.key = nil
      return complain(run, inner, ("is required: %s"):format(field.doc or expected(field)))
    end
    run.origins[inner.path] = "default"
    return default_of(run, field, inner)
  end
  run.origins[inner.path] = run.origins[inner.path] or report.place(run, inner) or "given"
  if field.deprecated then
    local instead = field.deprecated ~= true and "; " .. field.deprecated or ""
    warn(run, inner, "is deprecated" .. instead)
  end
  return check_value(run, field, value, inner)
end

-- A rule over several fields: returns nothing when all is well, else a message and, if one field is
-- to blame, its name.
local function check_rule(run, rule, conf, record, at)
  local ok, message, name = pcall(rule, conf)
  if ok and (message == nil or message == true) then return end
  if type(message) == "table" and message.kind == "cancelled" then error(message, 0) end
  local blamed = ok and name and below(at, record, name)
    or { path = at.path, origin = at.origin, container = record }
  complain(run, blamed, tostring(message or "is not right"))
end

local function check_record(run, field, value, at)
  if type(value) ~= "table" or not is_map(run, value) then return mismatch(run, field, value, at) end
  local fields, conf, before = field.fields, {}, run.problems.count
  check_unknown(run, fields, value, at)
  for name, one in pairs(fields) do
    if type(one) == "table" then conf[name] = check_field(run, name, one, value, at) end
  end
  -- a rule may rely on every field being right
  local rule = field.rule or type(fields.check) == "function" and fields.check
  if rule and run.problems.count == before then check_rule(run, rule, conf, value, at) end
  return conf
end

-- A secret that stands in a file which everybody can read is none.
local function check_literal_secret(run, at)
  local _, file = report.place(run, at)
  if file and refer.is_open(file) then
    warn(run, at, ("everybody on this machine can read %s; chmod 600 it, or keep the secret "
      .. "elsewhere: ${file:PATH}"):format(file))
  end
end

-- A relative path in a file is meant from where the file is.
local function settle_path(run, path, at)
  local home = path:find("^~/") and run.env("HOME")
  if home then return home .. path:sub(2) end
  local _, file = report.place(run, at)
  local dir = file and file:match("^(.*/)[^/]*$")
  if not dir or path:find("^/") then return path end
  return dir .. path:gsub("^%./", "")
end

local containers = { list = check_list, map = check_map, record = check_record, one_of = check_one_of }

-- Puts references in; returns nil when one of them leads nowhere.
local function expand(run, field, value, at)
  if type(value) ~= "string" then return value end
  if at.literal or run.literal or not value:find("${", 1, true) then
    if field[1] == "secret" then check_literal_secret(run, at) end
    return value
  end
  local result, found, warnings = refer.expand(value, run.env)
  if not result then return complain(run, at, found) end
  for _, warning in ipairs(warnings) do warn(run, at, warning) end
  at.as_text = at.as_text or found
  return result
end

-- Text that stands for a table: always for a list, a map or a record; for one_of when it is in
-- brackets.
local function is_split(kind, value)
  return kind ~= "one_of" or value:find("^%s*[%[{]") ~= nil
end

function check_value(run, field, value, at)
  local kind = field[1]
  -- the alternatives of one_of put references in themselves
  if kind ~= "one_of" then value = expand(run, field, value, at) end
  if value == nil then return nil end
  if containers[kind] then
    if at.as_text and type(value) == "string" and is_split(kind, value) then
      value = split_text(run, field, value, at)
      if value == nil then return nil end
    end
    return containers[kind](run, field, value, at)
  end
  local result = check_simple(run, field, value, at)
  if result == nil then return nil end
  if kind == "secret" then return (secret.register(result)) end
  if kind == "path" then return settle_path(run, result, at) end
  return result
end

return {
  record = function(run, fields, value, at, rule)
    return check_value(run, { "record", fields = fields, rule = rule }, value, at)
  end,
  value = function(run, field, value, at)
    return check_value(run, field_of(field), value, at)
  end,
  field_of = field_of,
  expected = expected,
}
