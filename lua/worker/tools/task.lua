-- tools/task.lua: a task of an orchestrator as a job for an executor of containers.
--
-- The task says which tool and with what; the tool's own data says in which container; where the
-- workspace lies is the configuration's word alone.  A task may ask for less than its tool has, for
-- more time, and for nothing else.
local err = require "worker.error"
local fs = require "worker.fs"
local order = require "worker.engine.order"
local paths = require "worker.tools.paths"
local schema = require "worker.schema"
local shape = require "worker.tools.shape"
local shelf = require "worker.tools.shelf"
local text = require "worker.text"

local tasks = {}

local NANO = 1e9
local RETRIES_MOST = 10
local NOBODY = "65534:65534"
local SHELL_TOOL = "command"

local function refuse(message, code)
  err.raise("refused", message, { code = code or "INVALID_ARGUMENT" })
end

-- What a task may be ------------------------------------------------------------------------------------

local TEXTS, WORDS = { "map", of = { "string" } }, { "list", of = { "string" } }

local FIELDS = {
  id = { "string", min = 1 }, session_id = { "string" }, labels = TEXTS, tool = { "string" }, type = { "any" },
  operation = { "string" }, command = { "string" }, parameters = { "map", of = { "any" } }, arguments = WORDS,
  input_data = { "string" }, environment = TEXTS, working_directory = { "string" }, timeout_ns = { "number" },
  max_retries = { "integer" }, retry_on_failure = { "boolean" },
  constraints = { "record", fields = {
    max_memory_bytes = { "number" }, max_cpu_ns = { "number" }, max_execution_time_ns = { "number" },
    allowed_operations = WORDS, denied_operations = WORDS,
  } },
}

-- A task as it came, its known fields checked; the others are its adapter's own.
local function checked(task)
  local known = {}
  for name in pairs(FIELDS) do known[name] = task[name] end
  local fine, problems = schema.check(FIELDS, known, nil, "task", { env = function() end })
  return fine or refuse(tostring(problems[1]))
end

-- Which tool --------------------------------------------------------------------------------------------

local TYPES = { "code_execution", "file_operation", "network_request", "data_processing", "container_operation",
  "tool_execution", "custom" }

-- The groups in which the operation of a task is looked for, in this order; of the others the
-- operation is text for a shell.
local GROUPS = {
  file_operation = { "file", "network" },
  network_request = { "network" },
  tool_execution = { "file", "network", "other" },
}

local function type_of(value)
  local name = TYPES[math.tointeger(value)] or type(value) == "string" and value:lower():gsub("^task_type_", "")
  for _, known in ipairs(TYPES) do
    if name == known then return name end
  end
  refuse(("a task has the type %s: expected one of %s"):format(
    value == nil and "nothing" or text.sample(tostring(value)), table.concat(TYPES, ", ")))
end

local function answers_to(name, data, operation)
  if name == operation then return true end
  for _, other in ipairs(data.operations) do
    if other == operation then return true end
  end
  return false
end

local function find_in(group, operation)
  for _, name in ipairs(shelf.names()) do
    local tool = shelf.find(name)
    local data = tool and shape.read(tool)
    if data and data.group == group and answers_to(name, data, operation) then return name end
  end
end

local function known_operations(groups)
  local wanted, names = {}, {}
  for _, group in ipairs(groups) do wanted[group] = true end
  for _, name in ipairs(shelf.names()) do
    local tool = shelf.find(name)
    if tool and wanted[(shape.read(tool) or {}).group] then names[#names + 1] = name end
  end
  return names
end

local function is_there(wanted)
  for _, name in ipairs(shelf.names()) do
    if name == wanted then return true end
  end
end

--- `tasks.route(kind, operation)`: the name of the tool that does an operation of a task of this type
-- (a name in any spelling, or its number); raises kind "refused".
function tasks.route(kind, operation)
  local groups = GROUPS[type_of(kind)]
  if not operation or operation == "" then refuse "the task names no operation" end
  if not groups then return SHELL_TOOL end
  for _, group in ipairs(groups) do
    local name = find_in(group, operation)
    if name then return name end
  end
  local broken = is_there(operation) and select(2, shelf.find(operation))
  if broken then refuse(broken) end
  local names = known_operations(groups)
  local near = text.nearest(operation, names)
  refuse(("no tool does '%s'%s; there are %s"):format(text.sample(operation),
    near and (" (did you mean '%s'?)"):format(near) or "", table.concat(names, ", ")), "UNIMPLEMENTED")
end

local function operation_of(task)
  local named = task.parameters or {}
  for _, value in ipairs { task.operation or "", task.command or "", named.operation or "", named.op or "" } do
    if type(value) ~= "string" then refuse "the operation of a task must be text" end
    if value ~= "" then return value end
  end
end

-- What it is given ----------------------------------------------------------------------------------------

-- Unnamed arguments, without the options that the tool has anyway.
local function unnamed(task, data)
  local list, repeats = {}, {}
  for _, flag in ipairs(data.flags) do repeats[flag] = true end
  for _, word in ipairs(task.arguments or {}) do
    if not repeats[word] then list[#list + 1] = word end
  end
  return list
end

local function find_value(name, task, data, list)
  local named = task.parameters or {}
  if named[name] ~= nil then return named[name] end
  for _, source in ipairs(data.from[name] or {}) do
    if source == "*" and #list > 0 then return list end
    local value = named[source]
    if math.type(source) == "integer" then value = list[source] end
    if value ~= nil then return value end
  end
  local input = task.input_data
  if data.input == name and input and input ~= "" then return input end
end

-- Text, as all parameters of a task are, as what the argument is.
local function typed(field, name, value)
  if type(value) ~= "string" or field[1] == "string" then return value end
  local parsed, why = schema.parse(field, value)
  if parsed == nil then refuse(("%s: %s"):format(name, why)) end
  return parsed
end

local function arguments_of(tool, data, task)
  local list, given = unnamed(task, data), {}
  for name, field in pairs(tool.config or {}) do
    if type(field) == "table" then -- and no rule over all of them
      local value = find_value(name, task, data, list)
      if value ~= nil then given[name] = typed(field, name, value) end
    end
  end
  if tool.name == SHELL_TOOL then given.command = given.command or operation_of(task) end
  local arguments, problems = schema.check(tool.config or {}, given, nil, tool.name, { env = function() end })
  if not arguments then refuse(tostring(problems[1])) end
  return arguments
end

-- Where it works ------------------------------------------------------------------------------------------

-- A name that may stand in a path.
local function fits(session)
  return session:find("^[%w_][%w_.-]*$") ~= nil and #session <= 128
end

local function configured(conf, task)
  local spaces, session = conf.workspaces or {}, task.session_id
  local is_name = session and session ~= "*" and not session:find("=", 1, true) -- and no label
  if is_name and spaces[session] then return spaces[session] end
  local labels = {}
  for name, value in pairs(task.labels or {}) do labels[#labels + 1] = ("%s=%s"):format(name, value) end
  table.sort(labels)
  for _, label in ipairs(labels) do
    if spaces[label] then return spaces[label] end
  end
  return spaces["*"]
end

--- `tasks.workspace(conf, task)`: the directory of this machine that the task works in; nil when the
-- configuration names none for it.
function tasks.workspace(conf, task)
  local path = configured(conf, task)
  if not path or not path:find("{session}", 1, true) then return path end
  local session = task.session_id or ""
  if not fits(session) then
    refuse(("the session '%s' cannot stand in the path of a workspace"):format(text.sample(session)))
  end
  return (path:gsub("{session}", function() return session end))
end

local function need_workspace(conf, task, tool, data)
  if not data.workspace then return nil end
  local source = tasks.workspace(conf, task)
  if not source and not data.optional then
    refuse(("%s needs a workspace, and the configuration names none for the session '%s': set `workspaces`"):format(
      tool.name, text.sample(task.session_id or "")), "FAILED_PRECONDITION")
  end
  return source
end

-- Where it starts, below the workspace: the engine would make a directory that is not there.
local function start_of(source, cwd)
  local start = cwd ~= "" and paths.inside(cwd) or ""
  paths.check(source, start)
  local stat = fs.stat(fs.join(source, start))
  if not stat or stat.type ~= "dir" then
    refuse(("there is no directory '%s' in the workspace"):format(text.sample(cwd)))
  end
  return start
end

-- Every path of its arguments, and where it starts, as the container has them.
local function settle_paths(arguments, tool, data, source, cwd)
  local start = source and start_of(source, cwd)
  for _, name in ipairs(data.paths) do
    if arguments[name] and not source then
      refuse(("%s: %s is a path, and there is no workspace"):format(tool.name, name), "FAILED_PRECONDITION")
    elseif arguments[name] then
      local below = paths.inside(arguments[name], start)
      paths.check(source, below)
      arguments[name] = paths.shown(below)
    end
  end
  return start and paths.shown(start)
end

-- What a tool makes of its arguments: words, and what the program reads.
local function program_of(tool, arguments, conf)
  local argv, stdin = tool.command(arguments, { search_url = conf.search_url })
  local fine = type(argv) == "table" and #argv > 0 and (stdin == nil or type(stdin) == "string")
  for _, word in ipairs(fine and argv or {}) do fine = fine and type(word) == "string" end
  if not fine then err.raise("bug", ("the tool %s returned no list of words"):format(tool.name)) end
  return argv, stdin
end

-- What it may use -----------------------------------------------------------------------------------------

local function positive(value)
  return value and value > 0 and value or nil
end

local function least(a, b)
  return a and b and math.min(a, b) or a or b
end

-- Denied and allowed are words a task's author knows: the operation as asked, the tool's name, or what
-- else it is called.
local function check_operations(tool, data, task)
  local rules, asked = task.constraints or {}, operation_of(task)
  local function named(list)
    for _, word in ipairs(list or {}) do
      if word == asked or answers_to(tool.name, data, word) then return true end
    end
    return false
  end
  if named(rules.denied_operations) or #(rules.allowed_operations or {}) > 0 and not named(rules.allowed_operations) then
    refuse(("the task's constraints do not allow %s"):format(tool.name), "PERMISSION")
  end
end

local function environment_of(task)
  local env = {}
  for name, value in pairs(task.environment or {}) do
    if name == "" or name:find("[=%z]") or value:find("%z") then
      refuse(("the environment has a variable '%s' that cannot be set"):format(text.sample(name)))
    end
    env[name] = value
  end
  return env
end

local function user_of(conf, source)
  if conf.user and conf.user ~= "owner" then return conf.user end
  local stat = source and fs.stat(source)
  return stat and ("%d:%d"):format(stat.uid, stat.gid) or NOBODY
end

local function labels_of(task, tool)
  local labels = {}
  for name, value in pairs(task.labels or {}) do labels[name] = value end
  labels["worker.tool"], labels["worker.session"] = tool.name, task.session_id
  return labels
end

-- By the operator's word, not the task's: no executor has to allow it again.
local function container_of(conf, task, tool, data, source)
  local processor = positive((task.constraints or {}).max_cpu_ns)
  return order.grant {
    network = data.network and (conf.network or "bridge") or "none",
    user = user_of(conf, source), read_only = true, no_new_privileges = true, capabilities = {},
    mounts = source and { { source = source, target = paths.ROOT, write = data.workspace == "write" } } or {},
    ulimits = processor and { cpu = math.max(1, math.ceil(processor / NANO)) } or nil,
    stop_signal = "KILL", -- nothing in there has anything to tidy up
    labels = labels_of(task, tool),
  }
end

--- `tasks.job(task, conf)`: see worker.tools.
function tasks.job(task, conf)
  task, conf = checked(task), conf or {}
  local tool = shelf.get(task.tool or tasks.route(task.type, operation_of(task)))
  local data = shape.read(tool)
  check_operations(tool, data, task)
  local source = need_workspace(conf, task, tool, data)
  local arguments = arguments_of(tool, data, task)
  local cwd = settle_paths(arguments, tool, data, source, task.working_directory or "")
  local argv, stdin = program_of(tool, arguments, conf)
  local rules, timeout = task.constraints or {}, positive(task.timeout_ns)
  local input = task.input_data ~= "" and not data.input and task.input_data or nil
  return {
    id = task.id or text.random_id(), tool = tool.name, session = task.session_id,
    image = data.image, argv = argv, stdin = stdin or input, env = environment_of(task), cwd = cwd or "/tmp",
    timeout = least(timeout and timeout / NANO or data.timeout,
      positive(rules.max_execution_time_ns) and rules.max_execution_time_ns / NANO),
    limits = { cpus = data.cpus, pids = data.pids, memory = least(data.memory, positive(rules.max_memory_bytes)) },
    retries = task.retry_on_failure and math.min(math.max(task.max_retries or 0, 0), RETRIES_MOST) or nil,
    container = container_of(conf, task, tool, data, source),
  }
end

return tasks
