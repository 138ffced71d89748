-- worker.config.flags: what the command line and the environment give, and what they give by
-- mistake.
--
-- A flag is known by its name with dashes ("log-level"), a field by its path ("log.level").  Each
-- part of the configuration takes the flags that belong to it; what is left was a mistake.

local schema = require "worker.schema"
local text = require "worker.text"

local flags = {}

local PREFIX = "WORKER_"
-- Variables with the prefix that are not fields; a job of a worker may run a worker itself.
local OTHER_VARIABLES = { WORKER_CONFIG = true, WORKER_LUA = true, WORKER_PATIENCE = true, WORKER_CGROUP = true,
  WORKER_KEEPER = true, WORKER_JOB_ID = true, WORKER_JOB_TAG = true }

local function add_names(names, fields, prefix)
  for name, field in pairs(fields) do
    if type(field) == "table" then
      names[(prefix .. name):gsub("[._]", "-")] = prefix .. name
      if field[1] == "record" then add_names(names, field.fields, prefix .. name .. ".") end
    end
  end
  return names
end

local function sorted(set)
  local names = {}
  for name in pairs(set) do names[#names + 1] = name end
  table.sort(names)
  return names
end

--- `flags.given(options)`: the flags as text, by name.
function flags.given(given)
  local result = {}
  for name, value in pairs(given or {}) do
    result[name:gsub("_", "-")] = type(value) == "string" and value or tostring(value)
  end
  return result
end

--- `flags.note(load, fields)`: these fields can be flags.
function flags.note(load, fields)
  for flag in pairs(add_names({}, fields, "")) do load.known[flag] = true end
end

--- `flags.take(load, fields)`: takes from load.flags what belongs to these fields: path -> text.
function flags.take(load, fields)
  local mine = {}
  for flag, path in pairs(add_names({}, fields, "")) do
    load.known[flag] = true
    if load.flags[flag] ~= nil then
      mine[path], load.flags[flag] = load.flags[flag], nil
    end
  end
  return mine
end

--- `flags.complain(load)`: about every flag that nobody took; nothing while a plugin is missing,
-- which might have taken it.
function flags.complain(load)
  if load.unsure then return end
  for _, flag in ipairs(sorted(load.flags)) do
    local message
    if load.known[flag] and load.several then
      message = ("--%s could mean any of the %d servers: set it in the file"):format(flag, load.several)
    else
      local near = text.nearest(flag, sorted(load.known))
      message = ("there is no option --%s here%s"):format(flag,
        near and ("; did you mean --%s?"):format(near) or "")
    end
    load.problems[#load.problems + 1] = schema.problem(message)
  end
end

--- `flags.warn_variables(load, variables)`: a variable that looks like a slip of the pen is worth a
-- word; others with the prefix may be somebody else's.
function flags.warn_variables(load, variables)
  local ours = {}
  for name in pairs(variables) do
    if name:find("^" .. PREFIX) and not OTHER_VARIABLES[name] then ours[name] = true end
  end
  if not next(ours) then return end
  local names, known = {}, {}
  for flag in pairs(load.known) do
    local name = PREFIX .. flag:gsub("-", "_"):upper()
    names[#names + 1], known[name], known[name .. "_FILE"] = name, true, true
  end
  table.sort(names)
  for _, name in ipairs(sorted(ours)) do
    local near = not known[name] and text.nearest(name, names)
    if near then
      load.warnings[#load.warnings + 1] =
        schema.problem(("%s in the environment means nothing; did you mean %s?"):format(name, near))
    end
  end
end

return flags
