-- From what a claim says to what runs, and where.
--
--   type shell   (first servers)  cmd: code of the shell; script: a file of the workspace
--   type script                   script: code; source: a file; cmd: code, from servers in between
--   type docker                   an image, and what runs in it
--
-- Scripts with the runner docker, and images, run in a container; so do all steps where the worker has
-- no executor but such.
local engine = require "worker.engine"
local error = require "worker.error"
local given = require "strom.given"
local json = require "worker.json"
local process = require "worker.process"
local program = require "strom.program"
local room = require "strom.room"
local text = require "worker.text"

local step = {}

local NEVER = 300 * 24 * 3600 -- no limit of time is none; the timeout policy may still set one
local ID_MOST = 200

local word = given.word

-- Reading ------------------------------------------------------------------------------------------------

local function is_uuid(value)
  return type(value) == "string" and value:find("^%x+%-%x+%-%x+%-%x+%-%x+$") ~= nil and #value == 36
end

local function id_of(claim)
  local name = claim.step_name
  if #name > ID_MOST then name = text.cut(name, ID_MOST - 65) .. "-" .. text.sha256(name) end
  return claim.job_id .. "/" .. name
end

-- The executors of this worker by the room that they are: { here = names, box = names }, either may be nil.
function step.rooms(executors)
  local rooms = {}
  for _, one in ipairs(executors) do
    local name = one.isolation == "process" and "here" or "box"
    rooms[name] = rooms[name] or {}
    table.insert(rooms[name], one.name)
  end
  return rooms
end

local LOCAL = { ["local"] = true, none = true }

-- The room it needs, if this worker has that.
local function room_of(claim, rooms)
  local kind, runner = claim.action_type, claim.runner
  if kind == "docker" or kind == "script" and runner == "docker" then return rooms.box and "box" end
  if kind ~= "script" and kind ~= "shell" or runner ~= nil and not LOCAL[runner] then return nil end
  return rooms.here and "here" or "box"
end

-- What is there but of another type than it should be: something else would run, or without a limit.
local function mistyped(claim)
  local seconds = claim.timeout_secs
  if claim.workspace ~= nil and not word(claim.workspace) then return "workspace" end
  if claim.revision ~= nil and type(claim.revision) ~= "string" then return "revision" end
  if seconds ~= nil and not (math.type(seconds) == "integer" and seconds >= 0) then return "timeout_secs" end
  local args = type(claim.action_spec) == "table" and claim.action_spec.args
  if args and (type(args) ~= "table" or #given.words(args) ~= #args) then return "args" end
end

-- What keeps it from running, for the person who reads the step's error.
local function problem_of(claim, where)
  local spec, wrong = claim.action_spec, mistyped(claim)
  if wrong then return ("the step came with a field of the wrong type: %s"):format(wrong) end
  if not where then
    return ("Unknown action type / runner combination: %s/%s"):format(tostring(claim.action_type), tostring(claim.runner))
  end
  if type(spec) ~= "table" or json.is_array(spec) then return "the step came without an action_spec" end
  if claim.action_type ~= "docker" and not (word(spec.script) or word(spec.source) or word(spec.cmd)) then
    return "the action must contain script or source"
  end
end

-- The image of a script is this worker's own choice first, that of an action of type docker its own.
local function image_of(claim, conf)
  local spec = type(claim.action_spec) == "table" and claim.action_spec or {}
  local own = word(claim.action_image) or word(spec.image)
  return claim.action_type == "docker" and own or conf.runner_image or own
end

--- `step.read(claim, conf, rooms)`: the job of a claim that has one.  What can be reported becomes a job,
-- even if it cannot be run: it would stay `running` on the server otherwise.
function step.read(claim, conf, rooms)
  if not is_uuid(claim.job_id) or not word(claim.step_name) then
    error.wire("the server handed out a step without a usable job_id and step_name")
  end
  local seconds = math.type(claim.timeout_secs) == "integer" and claim.timeout_secs
  local where = room_of(claim, rooms)
  return {
    id = id_of(claim), job = claim.job_id, step = claim.step_name, task = word(claim.task_name),
    workspace = word(claim.workspace), revision = word(claim.revision), action = word(claim.action_name),
    kind = claim.action_type, spec = claim.action_spec, problem = problem_of(claim, where),
    room = where, executor = rooms.here and rooms.box and rooms[where] or nil,
    image = where == "box" and image_of(claim, conf) or nil,
    timeout = seconds or NEVER, limit = seconds or nil, beat_every = conf.cancel_poll,
    state = claim.state_storage_key ~= nil, global_state = claim.global_state_storage_key ~= nil,
    events = type(claim.event_source_config) == "table" and claim.event_source_config or nil,
  }
end

-- The environment --------------------------------------------------------------------------------------------

-- Values like ref+vault://... are looked up by `vals`; what comes back is secret.
local function resolve(env, ctx)
  local refs = {}
  for name, value in pairs(env) do
    if value:find("^ref%+") then refs[name] = value end
  end
  if next(refs) == nil then return end
  local run = process.run { argv = { "vals", "eval", "-f", "-", "-o", "json" }, stdin = json.encode(refs),
    env = process.env({ PATH = "/usr/local/bin:/usr/bin:/bin", HOME = process.inherited("HOME") or "/" }) }
  if run.exit_code ~= 0 then
    error.raise("spawn", "Failed to resolve secrets: vals: " .. text.sample(run.stderr, 300))
  end
  for name, value in pairs(json.decode(run.stdout)) do
    if refs[name] and type(value) == "string" then
      env[name], ctx.secrets[#ctx.secrets + 1] = value, value
    end
  end
end

local function add_strings(env, values)
  for name, value in pairs(type(values) == "table" and values or {}) do
    if type(name) == "string" and type(value) == "string" then env[name] = value end
  end
end

local function environment(job, ctx, dirs)
  local env = {}
  add_strings(env, job.spec.env)
  env.STROEM_JOB_ID, env.STROEM_STEP_NAME = job.job, job.step
  env.STROEM_TASK_NAME, env.STROEM_WORKSPACE = job.task or "", job.workspace or ""
  add_strings(env, dirs)
  add_strings(env, job.events and job.events.env)
  resolve(env, ctx)
  return env
end

-- What is to run; whether that goes to the image's own program.
local function set_program(job, where)
  local spec = job.spec
  if job.kind == "docker" then return program.of_image(job) end
  local file = word(spec.source) or job.kind == "shell" and word(spec.script)
  if file then
    program.of_source(job, where, file)
  else
    program.of_code(job, where, word(spec.script) or spec.cmd)
  end
end

--- `step.prepare(job, ctx)`: the job's argv or script, cwd and env, once its files are there; in a
-- container it sees them by our word, not by the server's.
function step.prepare(job, ctx)
  local where = room[job.room](job, ctx)
  local entrypoint = set_program(job, where)
  job.cwd = where.cwd or word(job.spec.workdir)
  job.env = environment(job, ctx, where.env)
  if where.mounts then job.container = engine.grant { mounts = where.mounts, entrypoint = entrypoint } end
end

return step
