-- From a task of the queue to a job: what runs it, for how long, and where.
local err = require "worker.error"
local fs = require "worker.fs"
local process = require "worker.process"
local text = require "worker.text"

local task = {}

local ID_MOST = 500
local NAME_MOST = 100
local MOUNTS_MOST = 1024 * 1024
local PYTHON = {
  file = { command = { "python", "-u", "/code.py" }, file = "/code.py" },
  stdin = { command = { "python", "-u", "-" }, file = "-" },
}
local OTHER_NAMES = { python3 = "python", py = "python" }

-- The queue checks nothing: what is no word is as good as absent, and none is long.
local function word(value, default)
  if type(value) ~= "string" or value == "" then return default end
  return text.cut(value, NAME_MOST)
end

-- A number of any size, or anything at all.
local function seconds_of(value, conf)
  local seconds = tonumber(tostring(value)) or conf.timeout
  return math.max(1, math.min(seconds, conf.timeout_most))
end

-- What names it in the worker; the queue's own id may be of any length.
local function id_of(eval_id)
  if #eval_id <= ID_MOST then return eval_id end
  return text.cut(eval_id, ID_MOST - 65) .. "-" .. text.sha256(eval_id)
end

-- The command; the code is one of its words, or its input, or in a file.
local function add_program(job, way, code)
  local inside = false
  job.argv = {}
  for i, part in ipairs(way.command) do
    inside = inside or part == "{code}"
    job.argv[i] = part == "{code}" and code or part
  end
  if way.file == "-" then
    job.stdin = code
  elseif not inside then
    job.files = { [way.file] = code }
  end
end

--- `task.is_apart()`: whether a container engine would not see the files of this worker: it is elsewhere,
-- or the worker is in a container itself, whose root is made of layers.
function task.is_apart()
  local engine = process.inherited "DOCKER_HOST" or ""
  if engine ~= "" and not engine:find "^unix:" then return true end
  local mounts = "\n" .. (fs.read("/proc/self/mounts", MOUNTS_MOST) or "")
  return mounts:find "\n%S+ / [%w.-]*overlay" ~= nil
end

--- `task.read(value, conf)`: the job of a task.  What can be reported becomes a job even if it cannot be
-- run, with the `problem`: the queue hands it out to nobody else.
function task.read(value, conf)
  if type(value) ~= "table" or type(value.eval_id) ~= "string" then
    err.wire("a task without an eval_id was taken from the queue: nobody can report on it", tostring(value))
  end
  if value.eval_id == "" then err.wire "a task with an empty eval_id was taken from the queue: it cannot be reported" end
  local language = word(value.language, "python")
  local job = {
    id = id_of(value.eval_id), eval_id = value.eval_id, engine = word(value.engine, "docker"), language = language,
    timeout = seconds_of(value.timeout, conf), wanted = value.timeout,
  }
  job.executor = job.engine
  local name = OTHER_NAMES[language] or language
  local way = conf.languages[language] or conf.languages[name] or name == "python" and PYTHON[conf.code]
  if type(value.code) ~= "string" then
    job.problem = "the task's code is no text"
  elseif not way then
    job.problem = ("this worker has no way to run the language '%s': see its `languages`"):format(language)
  else
    job.image = way.image
    add_program(job, way, value.code)
  end
  return job
end

local function is_among(list, value)
  for _, one in ipairs(list) do
    if one == value then return true end
  end
  return #list == 0
end

--- `task.fits(job, take)`: whether this worker takes such tasks.
function task.fits(job, take)
  return is_among(take.engines, job.engine) and is_among(take.languages, job.language)
end

return task
