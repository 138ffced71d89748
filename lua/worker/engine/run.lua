-- engine/run.lua: one job in one container, from what it asks for to its result.
--
-- Whose fault was it?  Before the container runs: ours, or that of whoever asked for what cannot be
-- had; always an error, and kind "unusable" while the engine itself is what is missing, so that
-- another executor may take the job.  Once it runs: the job's, unless the engine failed.
local cache = require "worker.engine.cache"
local cgroup = require "worker.cgroup"
local err = require "worker.error"
local fs = require "worker.fs"
local log = require "worker.log"
local order = require "worker.engine.order"
local plans = require "worker.engine.plan"
local process = require "worker.process"
local sys = require "worker.core.sys"
local task = require "worker.task"
local time = require "worker.time"

local run = {}

local GRACE = 5
local SCRIPT_MOST = 128 * 1024 - 1 -- of one argument
local SCRIPT_PATH = "/.worker-script"
local ENOENT, EACCES = 2, 13
local SIGNALLED = 128

-- The image of jobs that name none is there before the first of them, whose time it would cost.  Without
-- it those jobs fail, and say why; others may name an image of their own.
local function bring_image(engine, conf)
  if not conf.image or conf.pull ~= "missing" or engine.sought[conf.image] then return end
  engine.sought[conf.image] = true -- once in its life: the next ones look for it themselves
  local ok, why = task.try(engine.need, engine, conf.image, { pull = conf.pull, timeout = conf.pull_timeout,
    told = function(words) log.info("image.pull", words, { image = conf.image }) end })
  if not ok then log.warn("image.missing", tostring(why), { image = conf.image }) end
end

--- `run.check(engine, conf, sandbox, trusting)`: see worker.engine.  Who is about to talk to the engine
-- anyway need not ask first whether it is still there: `trusting`.
function run.check(engine, conf, sandbox, trusting)
  if not (trusting and engine.is_ready) then engine:ready() end
  if not trusting then bring_image(engine, conf) end
  if not sandbox then return end
  local ok, name, why = task.try(engine.runtime, engine, conf.runtime or sandbox)
  if not ok then err.raise("unusable", tostring(name)) end
  if not name then err.raise("unusable", why) end
  return name
end

-- Before it runs ------------------------------------------------------------------------------------------

-- An engine that goes away before anything of the job has run makes it unusable, no more.
local function before_start(fn, ...)
  local results = table.pack(task.try(fn, ...))
  if results[1] then return table.unpack(results, 2, results.n) end
  if err.is(results[2], "engine") and results[2].away then err.raise("unusable", results[2].message) end
  error(results[2], 0)
end

local function image_of(engine, conf, job, ctx)
  local name = job.image or conf.image
  if not name then
    err.raise("engine", "the job names no image, and the executor's configuration has no `image` for such jobs")
  end
  if not order.may_name(conf, name) then
    err.raise("engine", ("the image %s is not among those that jobs may use here: see the executor's `images`"):format(name))
  end
  return engine:need(name, { pull = conf.pull, timeout = conf.pull_timeout, told = ctx.note or function() end })
end

-- A script that is too long for an argument is handed over as a file.
local function files_of(conf, job)
  local files, argv = {}, nil
  for path, text in pairs(job.files or {}) do files[path] = text end
  if job.script and #job.script > SCRIPT_MOST then
    files[SCRIPT_PATH] = job.script
    argv = { conf.shell[1], SCRIPT_PATH }
  end
  return next(files) and files, argv
end

-- A directory for the job's files beside its own, gone at the end.
local function files_dir(ctx)
  local dir = fs.temp_dir((ctx.workdir and ctx.workdir .. "-" or "/tmp/worker-") .. "files-")
  local kept = cgroup.keep("dir", fs.realpath(dir)) -- should the worker be killed
  return setmetatable({ path = dir }, { __close = function()
    local _ <close> = kept
    fs.remove_tree(dir)
  end })
end

local function give_workspace(conf, spec, ctx)
  local uid, gid = spec.User:match("^(%d+):?(%d*)$")
  if conf.workspace and ctx.workdir and uid and sys.uid() == 0 then
    fs.chown(ctx.workdir, tonumber(uid), tonumber(gid) or -1)
  end
end

-- What would be created for a job: the argv of a long script is a file's.
local function spec_of(engine, conf, job, ctx, image, argv)
  local what = setmetatable({ script = not argv and job.script or false, argv = argv or job.argv }, { __index = job })
  return order.of(engine, conf, what, ctx, image)
end

--- `run.plan(engine, conf, job, ctx)`: what a job would be run as, as far as that is known without asking
-- the engine.
function run.plan(engine, conf, job, ctx)
  local _, argv = files_of(conf, job)
  return plans.of(spec_of(engine, conf, job, ctx, nil, argv))
end

-- Policies have had a look at the plan before the engine was asked for anything; this is what it is
-- going to be told.
local function review(spec, image, ctx)
  if not ctx.review then return end
  local plan = plans.of(spec, image)
  ctx.review(plan, true)
  plans.apply(spec, plan)
end

-- While it runs -------------------------------------------------------------------------------------------

local function pump(output, write)
  for stream, text in output:pieces() do write(stream, text) end
end

-- Closed when the job is not let to its end: stop, and hear what it says meanwhile.
local function ending(box, output, grace, write)
  return setmetatable({}, { __close = function(self)
    if self.over then return end
    task.shield(pcall, task.scope, function(scope)
      scope:spawn(pcall, pump, output, write)
      local ok, why = task.try(box.stop, box, grace)
      if not ok then log.warn("container.stop_failed", "a container could not be stopped: " .. tostring(why)) end
      task.within(1, scope.wait, scope)
    end)
  end })
end

-- What the engine says when the program itself cannot be started is about the job.  When it says nothing,
-- the job may run, unless it never heard us.
local function start(box)
  local ok, why = task.try(box.start, box)
  if ok then return end
  if err.is(why, "engine") and why.away and why.sent == false then err.raise("unusable", why.message) end
  local said = err.is(why, "engine") and not why.away and why.message:lower() or ""
  local code = (said:find("no such file", 1, true) or said:find("not found", 1, true)) and ENOENT
    or said:find("permission denied", 1, true) and EACCES
  if said:find("exec", 1, true) and code then err.raise("spawn", why.message, { code = code }) end
  error(why, 0)
end

-- The output ends when the engine does; waiting then says so.
local function follow(box, output, job, write)
  task.scope(function(scope)
    if job.stdin then scope:spawn(pcall, output.input, output, job.stdin) end
    local ok, why = task.try(pump, output, write)
    if not ok and not err.is(why, "transport") then error(why, 0) end
    if not ok then
      box:state() -- is it the engine that has gone?
      err.raise("engine", "the engine broke the container's output off: " .. tostring(why), { away = true })
    end
  end)
  return box:wait()
end

-- Afterwards ----------------------------------------------------------------------------------------------

local function wall_of(state)
  local began, ended = time.parse(state.StartedAt or ""), time.parse(state.FinishedAt or "")
  return began and ended and ended > began and ended - began or nil
end

local function result_of(code, state)
  local result = { exit_code = code, usage = { wall = wall_of(state) } }
  if state.OOMKilled and code ~= 0 then
    result.state, result.reason = "oom", "it needed more memory than it may have"
  elseif code == 0 then
    result.state = "success"
  elseif (state.Error or "") ~= "" then
    result.state, result.reason = "error", "the engine could not run it: " .. state.Error
  else
    result.state = "failed"
    result.reason = ("exit code %d"):format(code)
    if code > SIGNALLED and code <= SIGNALLED + 64 then
      result.signal = process.signal_name(code - SIGNALLED)
      result.reason = result.reason .. (" (%s)"):format(result.signal)
    end
  end
  return result
end

local function run_box(engine, spec, job, ctx, write)
  local box <close> = engine:container()
  local output <close> = before_start(function()
    task.shield(box.create, box, spec)
    return box:attach()
  end)
  local unfinished <close> = ending(box, output, ctx.grace or GRACE, write)
  start(box)
  local code = follow(box, output, job, write)
  local state = box:state()
  unfinished.over = true
  return result_of(code, state)
end

-- The whole -----------------------------------------------------------------------------------------------

local function from_cache(store, key, ctx)
  local entry = key and store:get(key)
  if not entry then return nil end
  for _, piece in ipairs(entry.pieces) do ctx.log(piece[1], piece[2]) end
  local result = { cached = true }
  for name, value in pairs(entry.result) do result[name] = value end
  return result
end

local stores = setmetatable({}, { __mode = "k" })

local function store_of(conf)
  if not conf.cache or conf.cache.entries == 0 then return nil end
  stores[conf] = stores[conf] or cache.new(conf.cache)
  return stores[conf]
end

--- `run.job(engine, conf, job, ctx, sandbox)`: see worker.engine.
function run.job(engine, conf, job, ctx, sandbox)
  local runtime = run.check(engine, conf, sandbox, true)
  local image = before_start(image_of, engine, conf, job, ctx)
  local files, argv = files_of(conf, job)
  local spec = spec_of(engine, conf, job, ctx, image, argv)
  if not files then review(spec, image, ctx) end
  if runtime then spec.HostConfig.Runtime = runtime end
  local store = store_of(conf)
  local key = store and cache.key(spec, image, job)
  local seen = from_cache(store, key, ctx)
  if seen then return seen end
  local dir <close> = files and files_dir(ctx) or nil
  if files then
    order.put_files(engine, conf, spec, dir.path, files)
    review(spec, image, ctx)
  end
  give_workspace(conf, spec, ctx)
  local write, pieces = ctx.log, nil
  if key then write, pieces = store:recorder(ctx.log) end
  local result = run_box(engine, spec, job, ctx, write)
  result.runtime = runtime
  if key then store:put(key, result, pieces) end
  return result
end

return run
