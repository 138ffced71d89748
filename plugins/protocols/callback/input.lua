-- callback.input: the job that the task becomes: its command, environment and input.
--
-- What a task says reaches the command as arguments, environment, a file and standard input: never as
-- a part of a shell's text.
local cgroup = require "worker.cgroup"
local err = require "worker.error"
local fs = require "worker.fs"
local process = require "worker.process"
local scud = require "callback.scud"
local text = require "worker.text"

local input = {}

local ENV_MOST = 32 * 1024 -- a longer text is in the file only
local PRIVATE_FILE = 384   -- 0600
local SECRET_NAMES = { "KEY", "TOKEN", "SECRET", "PASSWORD", "CREDENTIAL" }

-- The worker's own: what calls the orchestrator is nothing for the task.
local NEVER = { CALLBACK_URL = true, DESCARTES_CALLBACK_URL = true, CALLBACK_TOKEN = true, CALLBACK_SECRET = true,
  CALLBACK_TOKEN_FILE = true, CALLBACK_SECRET_FILE = true, NOTIFY_SOCKET = true, WATCHDOG_USEC = true,
  WATCHDOG_PID = true, LISTEN_FDS = true, LISTEN_PID = true, LISTEN_FDNAMES = true, CREDENTIALS_DIRECTORY = true,
  INVOCATION_ID = true, JOURNAL_STREAM = true }

local function passes(list, name)
  if NEVER[name] or name:find("^WORKER_") then return false end
  for _, wanted in ipairs(list) do
    local prefix = wanted:match("^(.*)%*$")
    if wanted == name or prefix and name:sub(1, #prefix) == prefix then return true end
  end
  return false
end

local function is_secret(name)
  for _, word in ipairs(SECRET_NAMES) do
    if name:upper():find(word, 1, true) then return true end
  end
  return false
end

-- What of the worker's environment the task may see, and which of it must not be seen by others.
local function inherited(conf)
  local env, secrets = {}, {}
  for name, value in pairs(process.inherited()) do
    if passes(conf.pass, name) then
      env[name] = value
      if is_secret(name) and value ~= "" then secrets[#secrets + 1] = value end
    end
  end
  return env, secrets
end

local function values_of(self)
  local conf, node = self.conf, self.node
  local values = { task_id = conf.task, project_id = conf.project, attempt = tostring(self.attempt) }
  if node then
    values.tag, values.title, values.description = node.tag, node.title, node.description or ""
    values.details, values.test_strategy = node.details or "", node.test_strategy or ""
    values.prompt, values.file = scud.prompt(node, conf.verify), self.file
  end
  return values
end

-- {{name}} in an argument; what is filled in is not looked at again.
local function fill(word, values)
  return (word:gsub("{{([%w_]+)}}", function(name)
    if values[name] then return values[name] end
    err.raise("config", ("there is nothing to put in for {{%s}} in the argument '%s'"):format(name, text.sample(word)))
  end))
end

local function add_task(env, values)
  for name, value in pairs(values) do
    local as = name == "file" and "TASK_FILE" or name:find("_id$") and name:upper() or "TASK_" .. name:upper()
    if #value <= ENV_MOST and not value:find("\0", 1, true) then env[as] = value end
  end
  env.SCUD_TASK_ID = values.tag and values.task_id
end

-- Should the worker be killed, its keeper removes the directory.
local function write_file(self)
  self.dir = fs.temp_dir("/tmp/worker-task-")
  self.kept = cgroup.keep("dir", fs.realpath(self.dir))
  self.file = fs.join(self.dir, "task.json")
  fs.write(self.file, scud.encode(self.node), { mode = PRIVATE_FILE })
end

--- Before anything is looked up: a job that knows only its id.
function input.job(conf)
  local env, secrets = inherited(conf)
  return {
    id = conf.task, env = env, secrets = secrets, timeout = conf.timeout, cwd = fs.realpath(conf.dir),
    beat_every = conf.heartbeat or 86400, verify = conf.verify,
  }
end

--- Find the task and make the job complete; raises kind "config" when it cannot be run.
function input.prepare(self, job)
  local conf = self.conf
  if not conf.project then err.raise("config", "PROJECT_ID is not set") end
  if not job.cwd then err.raise("config", ("there is no directory %s"):format(conf.dir)) end
  if #conf.argv == 0 and not conf.script then
    err.raise("config", "there is nothing to run: give a command, as `worker callback -- CMD ARGS`, argv or script")
  end
  local dir = fs.join(conf.dir, ".scud")
  if conf.scud == "yes" or conf.scud == "auto" and scud.exists(dir) then
    self.node = scud.find(dir, conf.task, conf.tag)
    write_file(self)
  end
  local values = values_of(self)
  job.script = #conf.argv == 0 and conf.script or nil
  if not job.script then
    job.argv = {}
    for i, word in ipairs(conf.argv) do job.argv[i] = fill(word, values) end
  end
  add_task(job.env, values)
  job.stdin = values.prompt
end

--- What was made for the task goes away.
function input.clean(self)
  if not self.dir then return end
  fs.remove_tree(self.dir)
  self.kept:close()
  self.dir = nil
end

return input
