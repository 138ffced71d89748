-- worker.schema.given: which value of a field counts: flag, environment, file.
--
-- The environment knows a field under the prefix (WORKER_LOG_LEVEL for log.level), then under the
-- names that the field itself lists; a secret also as NAME_FILE, the path of the file that holds
-- it.

local refer = require "worker.schema.refer"
local report = require "worker.schema.report"

local given = {}

local function names_of(run, field, at)
  local names = {}
  if run.env_prefix then names[1] = run.env_prefix .. at.rel:gsub("[.-]", "_"):upper() end
  for _, name in ipairs(type(field.env) == "table" and field.env or { field.env }) do
    names[#names + 1] = name
  end
  return names
end

local function set_origin(run, at, origin, what)
  at.origin, at.origin_path, at.as_text = origin, at.path, true
  run.origins[at.path] = what .. " " .. origin
end

local function secret_file(run, at, name, path)
  set_origin(run, at, name, "environment")
  at.literal = true -- what is in the file is the secret, whatever it looks like
  local value, why, warning = refer.file(path)
  if warning then report.warn(run, at, warning) end
  if not value then report.complain(run, at, why) end
  return value or "", value == nil
end

-- Compose files and manifests set what they do not know to nothing: where that cannot be a value it is none.
local NEVER_EMPTY = { secret = true, url = true, address = true }

local function from_environment(run, field, at)
  for _, name in ipairs(names_of(run, field, at)) do
    local value = run.env(name)
    if value and not (value == "" and NEVER_EMPTY[field[1]]) then
      set_origin(run, at, name, "environment")
      return value
    end
    local path = field[1] == "secret" and run.env(name .. "_FILE")
    if path then return secret_file(run, at, name .. "_FILE", path) end
  end
end

--- `given.find(run, field, value, at)`: the value that counts, when the file says ${value}; notes
-- in at where it is from.  Nil when nobody gave one; a second result is true when it was complained
-- about already.
function given.find(run, field, value, at)
  if not at.rel then return value end
  local flag = run.flags[at.rel]
  if flag ~= nil then
    set_origin(run, at, "--" .. at.rel:gsub("[._]", "-"), "flag")
    if field[1] == "secret" then
      report.warn(run, at, "a secret on the command line shows in the list of processes; "
        .. "better in the environment or in a file")
    end
    return flag
  end
  if value ~= nil and run.env_fills then return value end
  local from, failed = from_environment(run, field, at)
  if from ~= nil then return from, failed end
  return value
end

return given
