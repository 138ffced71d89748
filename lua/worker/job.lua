-- job.lua: what a job and a result look like, checked where they enter the worker.
local process = require "worker.process"
local secret = require "worker.secret"

local job = {}

-- How a job can end.  `failed` is the job's own fault, `error` is ours (safe to try elsewhere).
job.STATES = {
  success = true, failed = true, timeout = true, cancelled = true, lost = true, oom = true, error = true,
}

local ID_MOST = 512

local function is_list_of_strings(value)
  if type(value) ~= "table" or #value == 0 then return false end
  for _, word in ipairs(value) do
    if type(word) ~= "string" then return false end
  end
  return true
end

local function is_map_of_strings(value)
  if type(value) ~= "table" then return false end
  for name, text in pairs(value) do
    if type(name) ~= "string" or type(text) ~= "string" then return false end
  end
  return true
end

local function is_list_of_secrets(value)
  if type(value) ~= "table" then return false end
  for _, one in ipairs(value) do
    if type(one) ~= "string" and not secret.is(one) then return false end
  end
  return true
end

--- `job.has_id(value)`: whether it is a table with an id that can be reported.
function job.has_id(value)
  return type(value) == "table" and type(value.id) == "string" and #value.id > 0 and #value.id <= ID_MOST
end

--- `job.check(value)`: nil when it is a job, else what is wrong with it.
function job.check(value)
  if type(value) ~= "table" then return ("a job is a table, not a %s"):format(type(value)) end
  local id = value.id
  if type(id) ~= "string" or #id == 0 or #id > ID_MOST then return "a job needs an id: a string of 1 to 512 bytes" end
  if value.argv ~= nil and not is_list_of_strings(value.argv) then return "argv must be a list of strings" end
  if value.script ~= nil and type(value.script) ~= "string" then return "script must be a string" end
  if value.timeout ~= nil and not (type(value.timeout) == "number" and value.timeout >= 0) then
    return "timeout must be a number of seconds"
  end
  if value.retries ~= nil and math.type(value.retries) ~= "integer" then return "retries must be a whole number" end
  if value.image ~= nil and type(value.image) ~= "string" then return "image must be a string" end
  if value.cwd ~= nil and type(value.cwd) ~= "string" then return "cwd must be a string" end
  if value.stdin ~= nil and type(value.stdin) ~= "string" then return "stdin must be a string" end
  if value.executor ~= nil and type(value.executor) ~= "string" and not is_list_of_strings(value.executor) then
    return "executor must be a name or a list of names"
  end
  if value.strict ~= nil and type(value.strict) ~= "boolean" then return "strict must be true or false" end
  if value.container ~= nil and type(value.container) ~= "table" then return "container must be a table" end
  if value.files ~= nil and not is_map_of_strings(value.files) then return "files must map paths to texts" end
  local env = value.env
  if env ~= nil then
    if not is_map_of_strings(env) then return "env must map names to strings" end
    local wrong = process.check_env(env)
    if wrong then return "env: " .. wrong end
  end
  if value.limits ~= nil and type(value.limits) ~= "table" then return "limits must be a table" end
  if value.secrets ~= nil and not is_list_of_secrets(value.secrets) then
    return "secrets must be a list of strings"
  end
end

--- `job.check_result(value)`: a result as an executor or policy returned it; one that is none becomes
-- an `error` that says so.
function job.check_result(value)
  if type(value) == "table" and job.STATES[value.state] then return value end
  return { state = "error", reason = ("the executor returned no result (a %s), or a policy around it did"):format(
    type(value) == "table" and "table without a state" or type(value)) }
end

return job
