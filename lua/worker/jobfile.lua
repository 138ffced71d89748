-- jobfile.lua: a job written in a file: JSON, YAML, or a shell script.
--
-- What can be wrong is told with file, line and column, as for the configuration.
local err = require "worker.error"
local fs = require "worker.fs"
local json = require "worker.json"
local process = require "worker.process"
local schema = require "worker.schema"
local yaml = require "worker.yaml"

local jobfile = {}

local MOST = 16 * 1024 * 1024

jobfile.fields = {
  argv = { "list", of = { "string" }, min = 1, doc = "Program and arguments." },
  script = { "string", doc = "Text for /bin/sh." },
  env = { "map", of = { "string" }, default = {}, doc = "Environment of the job." },
  cwd = { "path", doc = "Where it runs; in a directory of its own if absent." },
  stdin = { "string", doc = "What it reads." },
  timeout = { "duration", doc = "How long it may take." },
  secrets = { "list", of = { "string" }, default = {}, doc = "Values that must not be seen in its output." },
  limits = { "record", doc = "How much of the machine it may use.", fields = {
    memory = { "size", doc = "Most memory." },
    swap = { "size", doc = "Most swap on top of it." },
    cpus = { "number", min = 0.01, doc = "Most processors at once." },
    pids = { "integer", min = 1, doc = "Most processes and threads." },
    file_size = { "size", doc = "Largest file it may write." },
    open_files = { "integer", min = 8, doc = "Most files open in one process." },
    core_size = { "size", doc = "Largest core dump." },
    nice = { "integer", min = -20, max = 19, doc = "Added to its priority: higher is more patient." },
  } },
  image = { "string", doc = "The image of its container, for executors that run containers." },
  container = { "map", of = "any", doc = "What else its container is like: network, user, mounts, tty, ..." },
  files = { "map", of = { "string" }, keys = "^/", doc = "Files that its container has, by their path there." },
  executor = { "one_of", of = { "string", { "list", of = { "string" }, min = 1 } },
    doc = "What should run it: an executor of this worker, or a list of them to choose from." },
  strict = { "boolean", default = false, doc = "Run it on the first of them or not at all." },
  labels = { "map", of = { "string" }, doc = "Anything to be found again in the result." },
}

local function script_of(source, name)
  local at = source:find("\0", 1, true)
  if at then err.raise("config", ("%s: byte %d: a script must not have a NUL byte"):format(name, at)) end
  return { script = source }
end

local readers = {
  sh = script_of,
  json = function(source) return json.decode(source) end,
  yaml = function(source, name) return yaml.decode(source, { name = name }) end,
}
readers.yml = readers.yaml

local function extension_of(name) return name:match("^[^.].*%.(%w+)$") end

--- `jobfile.is(name)`: whether a file of this name is a job file.
function jobfile.is(name)
  return readers[extension_of(name) or ""] ~= nil
end

-- YAML names its place itself, with the file in front.
local function refuse(name, why)
  if not err.is(why) then error(why, 0) end
  local named = why.message:sub(1, #name + 1) == name .. ":"
  err.raise("config", named and why.message or ("%s: %s"):format(name, why.message))
end

--- `jobfile.parse(name, source)`: the job, or an error of kind "config" whose message names file,
-- line and column.
function jobfile.parse(name, source)
  local reader = readers[extension_of(name) or ""]
  if not reader then err.raise("config", name .. ": a job file ends in .json, .yaml or .sh") end
  local ok, value, marks = pcall(reader, source, name)
  if not ok then refuse(name, value) end
  if reader == script_of then return value end
  local job, problems = schema.check(jobfile.fields, value, marks, "")
  if not job then
    local lines = {}
    for i, problem in ipairs(problems) do -- what was JSON has no places
      lines[i] = (marks and "" or name .. ": ") .. tostring(problem)
    end
    err.raise("config", table.concat(lines, "\n"))
  end
  local wrong = process.check_env(job.env)
  if wrong then err.raise("config", ("%s: env: %s"):format(name, wrong)) end
  local own_program = job.image and not job.argv and not job.script
  if not own_program and (job.argv == nil) == (job.script == nil) then
    err.raise("config", name .. ": a job has either argv or script" .. (job.argv and ", not both" or ""))
  end
  return job
end

--- `jobfile.read(path)`: the job of a file.
function jobfile.read(path)
  local source, why = fs.read(path, MOST)
  if not source then err.raise("config", tostring(why)) end
  return jobfile.parse(fs.base(path), source)
end

return jobfile
