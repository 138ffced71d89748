-- From a task as the orchestrator has it to a job that an executor can run.
local err = require "worker.error"
local host = require "baaaht.host"
local tools = require "worker.tools"

local tasks = {}

local NANO = 1e9
local NEVER = 300 * 24 * 3600 -- no limit of time is none; the timeout policy may still set one

local RETRIES_MOST = 10
local NO_RULES = { allowed_operations = {}, denied_operations = {} }

local COMMANDS = { TASK_TYPE_CODE_EXECUTION = true, TASK_TYPE_DATA_PROCESSING = true, TASK_TYPE_CUSTOM = true }

local OVER = { TASK_STATE_COMPLETED = true, TASK_STATE_FAILED = true, TASK_STATE_CANCELLED = true, TASK_STATE_TIMEOUT = true }

--- `tasks.is_over(task)`: whether there is nothing left to do.
function tasks.is_over(task) return OVER[task.state] == true end

--- `tasks.is_waiting(task)`: whether nobody has said yet that it runs.  A task that was handed out has a
-- state without a name, and so has one whose heartbeat was lost.
function tasks.is_waiting(task)
  return task.state == "TASK_STATE_UNSPECIFIED" or task.state == "TASK_STATE_PENDING" or task.state == "TASK_STATE_QUEUED"
end

local function refuse(code, message) err.raise("refused", message, { code = code }) end

local function positive(n) return n and n > 0 and n or nil end

local function least(a, b) return a and b and math.min(a, b) or a or b end

local function has(list, word)
  for _, one in ipairs(list) do
    if one == word then return true end
  end
  return false
end

-- The one thing that is done here is the command itself.
local function check_rules(rules, command)
  local allowed, denied = rules.allowed_operations, rules.denied_operations
  if has(denied, command) or #allowed > 0 and not has(allowed, command) then
    refuse("PERMISSION", "the task's constraints do not allow its command")
  end
end

-- Where there are no containers a command is a process of this machine, as whoever runs the worker without
-- them wants it.
local function command(task)
  local config = task.config
  if not COMMANDS[task.type] then
    refuse("UNAVAILABLE", ("a task of the type %s runs in a container, and this worker has no executor for that"):format(
      tostring(task.type)))
  elseif config.command == "" then
    refuse("INVALID_ARGUMENT", "the task has no command")
  end
  local rules = config.constraints or NO_RULES
  check_rules(rules, config.command)
  local argv = { "/bin/sh", "-c", config.command, "sh" }
  return {
    session = task.session_id, -- a policy may be a session's own
    argv = table.move(config.arguments, 1, #config.arguments, #argv + 1, argv), env = config.environment,
    cwd = config.working_directory ~= "" and config.working_directory or nil,
    stdin = config.input_data ~= "" and config.input_data or nil,
    timeout = (least(positive(config.timeout_ns), positive(rules.max_execution_time_ns)) or NEVER * NANO) / NANO,
    limits = { memory = positive(rules.max_memory_bytes) },
    retries = config.retry_on_failure and math.min(math.max(config.max_retries, 0), RETRIES_MOST) or nil,
  }
end

local function tool(task, conf, executors)
  local config = task.config
  local job = tools.job({
    id = task.id, session_id = task.session_id, type = task.type, command = config.command, parameters = config.parameters,
    arguments = config.arguments, input_data = config.input_data, environment = config.environment,
    working_directory = config.working_directory, timeout_ns = config.timeout_ns, max_retries = config.max_retries,
    retry_on_failure = config.retry_on_failure, constraints = config.constraints,
  }, conf.tools)
  job.executor = executors -- never as a process of this machine
  return job
end

local NOTHING = { command = "", arguments = {}, environment = {}, working_directory = "", timeout_ns = 0, max_retries = 0,
  retry_on_failure = false, input_data = "", parameters = {} }

--- `tasks.fill(job, task, conf, worker)`: the job of a task; raises kind "refused" with a `code` when there
-- can be none.
function tasks.fill(job, task, conf, worker)
  task.config = task.config or NOTHING
  local executors = host.containers(worker)
  local made = #executors > 0 and tool(task, conf, executors) or command(task)
  made.id = nil
  for name, value in pairs(made) do job[name] = value end
end

return tasks
