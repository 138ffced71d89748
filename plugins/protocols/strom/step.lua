-- From what a claim says to what runs.
--
--   type shell   (first servers)  cmd: code of the shell; script: a file of the workspace
--   type script                   script: code; source: a file; cmd: code, from servers in between
--
-- Code of the shell is run by sh -c; code of another language is written to a file beside the
-- workspace's own, so that it finds its neighbours, and removed afterwards.
local error = require "worker.error"
local fs = require "worker.fs"
local json = require "worker.json"
local process = require "worker.process"
local text = require "worker.text"

local step = {}

local NEVER = 300 * 24 * 3600 -- no limit of time is none; the timeout policy may still set one
local ID_MOST = 200
local INLINE_MOST = 96 * 1024 -- of one argument
local PRIVATE = 448           -- 0700

-- Programs that can run a language, the first one found wins; `add` makes dependencies available.
local PYTHON = { ext = "py", tools = {
  { "uv", "run", with = "--with" }, { "python3", add = { "python3", "-m", "pip", "install", "-q" } },
  { "python", add = { "python", "-m", "pip", "install", "-q" } },
} }
local JAVASCRIPT = { ext = "js", tools = {
  { "bun", "run", add = { "bun", "install" } }, { "node", add = { "npm", "install", "--no-save", "--silent" } },
} }
local TYPESCRIPT = { ext = "ts", tools = { { "bun", "run", add = { "bun", "install" } }, { "deno", "run" } } }
local GO = { ext = "go", tools = { { "go", "run" } } }
local LANGUAGES = {
  python = PYTHON, python3 = PYTHON, py = PYTHON, javascript = JAVASCRIPT, js = JAVASCRIPT, node = JAVASCRIPT,
  typescript = TYPESCRIPT, ts = TYPESCRIPT, go = GO, golang = GO,
}

-- Reading ------------------------------------------------------------------------------------------------

local function is_uuid(value)
  return type(value) == "string" and value:find("^%x+%-%x+%-%x+%-%x+%-%x+$") ~= nil and #value == 36
end

local function strings(value)
  local list = {}
  for _, item in ipairs(type(value) == "table" and value or {}) do
    if type(item) == "string" then list[#list + 1] = item end
  end
  return list
end

local function word(value) return type(value) == "string" and value ~= "" and value or nil end

local function id_of(claim)
  local name = claim.step_name
  if #name > ID_MOST then name = text.cut(name, ID_MOST - 65) .. "-" .. text.sha256(name) end
  return claim.job_id .. "/" .. name
end

-- What keeps it from running, for the person who reads the step's error.
local function problem_of(claim)
  local spec, runner = claim.action_spec, claim.runner
  local kind = tostring(claim.action_type)
  if kind ~= "script" and kind ~= "shell" or runner ~= nil and runner ~= "local" and runner ~= "none" then
    return ("Unknown action type / runner combination: %s/%s"):format(kind, tostring(runner))
  end
  if type(spec) ~= "table" or json.is_array(spec) then return "the step came without an action_spec" end
  if not (word(spec.script) or word(spec.source) or word(spec.cmd)) then
    return "the action must contain script or source"
  end
end

--- `step.read(claim, conf)`: the job of a claim that has one.  What can be reported becomes a job, even if
-- it cannot be run: it would stay `running` on the server otherwise.
function step.read(claim, conf)
  if not is_uuid(claim.job_id) or not word(claim.step_name) then
    error.wire("the server handed out a step without a usable job_id and step_name")
  end
  local seconds = math.type(claim.timeout_secs) == "integer" and claim.timeout_secs >= 0 and claim.timeout_secs
  return {
    id = id_of(claim), job = claim.job_id, step = claim.step_name, task = word(claim.task_name),
    workspace = word(claim.workspace), revision = word(claim.revision), action = word(claim.action_name),
    kind = claim.action_type, spec = claim.action_spec, problem = problem_of(claim),
    timeout = seconds or NEVER, limit = seconds or nil, beat_every = conf.cancel_poll,
    state = claim.state_storage_key ~= nil, global_state = claim.global_state_storage_key ~= nil,
    events = type(claim.event_source_config) == "table" and claim.event_source_config or nil,
  }
end

-- The command ----------------------------------------------------------------------------------------------

local function quote(value) return "'" .. value:gsub("'", "'\\''") .. "'" end

local function quoted(list, from)
  local words = {}
  for i = from or 1, #list do words[#words + 1] = quote(list[i]) end
  return table.concat(words, " ")
end

-- One way to run the file: install what it depends on (for code of the step itself), then become the
-- program.
local function branch(tool, dependencies, own_code)
  local install, with = "", ""
  if #dependencies > 0 and tool.add and own_code then
    install = ("%s %s || exit 1; "):format(quoted(tool.add), quoted(dependencies))
  end
  if tool.with then
    for _, one in ipairs(dependencies) do with = with .. " " .. tool.with .. " " .. quote(one) end
  end
  local rest = quoted(tool, 2)
  return ('if command -v %s >/dev/null 2>&1; then %sexec %s %s%s "$@"; fi'):format(
    quote(tool[1]), install, quote(tool[1]), rest, with)
end

local function tools_of(spec, language)
  local own = word(spec.interpreter)
  if not own then return language.tools end
  local tool = {}
  for part in own:gmatch("%S+") do tool[#tool + 1] = part end
  return { tool }
end

-- A shell looks for the interpreter, because it knows the PATH that the job really has.
local function finder(spec, language, own_code)
  local lines, names, name = {}, {}, word(spec.language) or "this"
  for i, tool in ipairs(tools_of(spec, language)) do
    lines[i], names[i] = branch(tool, strings(spec.dependencies), own_code), tool[1]
  end
  lines[#lines + 1] = ("echo %s >&2; exit 127"):format(
    quote(("no interpreter for %s here; tried: %s"):format(name, table.concat(names, ", "))))
  return { "/bin/sh", "-c", table.concat(lines, "\n"), "sh" }
end

local function with_args(argv, spec, file)
  if file then argv[#argv + 1] = file end
  for _, item in ipairs(strings(spec.args)) do argv[#argv + 1] = item end
  return argv
end

-- A file in the workspace, which other steps may share, gone when the step is reported.
local function write_code(ctx, place, code, ext)
  local path = fs.join(place.cwd, ("_stroem_script_%s.%s"):format(text.random_id(), ext))
  fs.write(path, code, { mode = PRIVATE })
  ctx.own { close = function() fs.remove(path) end }
  return path
end

-- Actions of a library are files below _libraries/NAME.
local function source_path(job, place, name)
  local library = job.action and job.action:match("^([^.]+)%.")
  local path = fs.join(place.cwd, library and fs.join("_libraries", library), name)
  if name:sub(1, 1) == "/" or not fs.is_within(path, place.cwd) then
    error.raise("spawn", ("the source '%s' leads out of the workspace"):format(name))
  end
  local stat = fs.stat(path)
  if not stat or stat.type ~= "file" then
    error.raise("spawn", ("the source '%s' is not a file of the workspace"):format(fs.clean(path:sub(#place.cwd + 2))))
  end
  return path
end

local function run_code(job, ctx, place, code)
  local spec = job.spec
  local language = LANGUAGES[tostring(spec.language):lower()]
  if language or word(spec.interpreter) then
    local file = write_code(ctx, place, code, language and language.ext or "sh")
    job.argv = with_args(finder(spec, language, true), spec, file)
  elseif #strings(spec.args) == 0 then
    job.script = code
  elseif #code <= INLINE_MOST then
    job.argv = with_args({ "/bin/sh", "-c", code, "sh" }, spec)
  else
    job.argv = with_args({ "/bin/sh" }, spec, write_code(ctx, place, code, "sh"))
  end
end

local function run_source(job, place, name)
  local spec = job.spec
  local path = source_path(job, place, name)
  local language = LANGUAGES[tostring(spec.language):lower()]
  if not language and not word(spec.interpreter) then
    job.argv = with_args({ path }, spec)
    return
  end
  job.argv = with_args(finder(spec, language, false), spec, path)
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

local function environment(job, ctx, place)
  local env = {}
  add_strings(env, job.spec.env)
  env.STROEM_JOB_ID, env.STROEM_STEP_NAME = job.job, job.step
  env.STROEM_TASK_NAME, env.STROEM_WORKSPACE = job.task or "", job.workspace or ""
  add_strings(env, place.env)
  add_strings(env, job.events and job.events.env)
  resolve(env, ctx)
  return env
end

--- `step.prepare(job, ctx)`: the job's argv or script, cwd and env, once its files are there.
function step.prepare(job, ctx)
  local spec, place = job.spec, job.place
  job.cwd = place.cwd
  local file = word(spec.source) or job.kind == "shell" and word(spec.script)
  if file then
    run_source(job, place, file)
  else
    run_code(job, ctx, place, word(spec.script) or spec.cmd)
  end
  job.env = environment(job, ctx, place)
end

return step
