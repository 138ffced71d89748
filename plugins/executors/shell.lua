-- shell: runs a job as a process of this machine.
--
-- A job is argv, or a script for /bin/sh.  Every job gets a control group where there are any, so
-- that limits hold and nothing of it gets away; leaving this function, for whatever reason, ends
-- what is left of its tree: TERM, a grace, KILL.
local cgroup = require "worker.cgroup"
local err = require "worker.error"
local fs = require "worker.fs"
local log = require "worker.log"
local process = require "worker.process"

local shell = { kind = "executor", name = "shell", api = 1 }

shell.doc = "Runs jobs as processes of this machine: argv directly, a script by /bin/sh."

shell.config = {
  shell = { "list", of = { "string" }, default = { "/bin/sh" }, min = 1,
    doc = "The program that runs scripts; it gets -c and the script." },
  user = { "string", doc = "Run jobs as this user (the worker must be root)." },
  signal = { "string", default = "TERM", doc = "The first signal when a job is ended." },
  drain = { "duration", default = "1s",
    doc = "How long a job's output is still read when a process it left behind holds it open." },
  merge = { "boolean", default = false, doc = "Give stdout and stderr one pipe, so that their order is kept." },
}

-- One argument may have 128 KiB with its NUL; a longer script is handed over as a file.
local ARGUMENT_MOST = 128 * 1024 - 1

-- A job is a better victim than the worker or what else runs here when memory gets short.
local OOM_SCORE = 500

local NOTHING = {}

local function refuse_nul(text, what)
  local at = text:find("\0", 1, true)
  if at then err.raise("spawn", ("%s has a NUL byte (byte %d): it cannot be run as it is"):format(what, at)) end
end

-- The file of a script too long for an argument, to be closed (and so removed) after the job.
local function long_script(job, ctx)
  local dir = not ctx.workdir and fs.temp_dir("/tmp/worker-script-")
  local path = fs.join(ctx.workdir or dir, ".worker-script")
  fs.write(path, job.script)
  return setmetatable({ path = path, dir = dir }, { __close = function()
    if dir then fs.remove_tree(dir) else fs.remove(path) end
  end })
end

local function command_of(conf, job, long)
  if job.argv then
    for i, word in ipairs(job.argv) do refuse_nul(word, ("argument %d"):format(i)) end
    return job.argv
  end
  if not job.script then err.raise("spawn", "the job has neither argv nor script: there is nothing to run") end
  refuse_nul(job.script, "the script")
  local program, argv = conf.shell, { nil, nil, nil } -- room for sh, -c and the script
  local count = #program
  for i = 1, count do argv[i] = program[i] end
  if long then
    argv[count + 1] = long.path
  else
    argv[count + 1], argv[count + 2] = "-c", job.script
  end
  return argv
end

local function group_of(ctx)
  local group, missing = cgroup.create(nil, ctx.limits, OOM_SCORE)
  for name in pairs(missing) do
    if name ~= "memory" then
      ctx.note(("the limit '%s' is not kept: this machine has no control group for it"):format(name))
    end
  end
  return group, missing
end

-- Without a control group for memory, the address space of each process is bounded instead.
local function rlimits_of(limits, missing)
  return {
    nofile = limits.open_files, fsize = limits.file_size, core = limits.core_size,
    as = missing.memory and limits.memory or nil,
  }
end

-- What the user database says of whom the job runs as; asked once, it may be on another machine.
local people = setmetatable({}, { __mode = "k" })

local function person_of(conf)
  if people[conf] == nil then
    local person = process.user(conf.user)
    if conf.user and not person then err.raise("spawn", ("there is no user '%s' on this machine"):format(conf.user)) end
    people[conf] = person or false
  end
  return people[conf]
end

-- A job at home in nobody's home has its own directory for one, and so has every job that is not to be
-- somebody else.
local function identity_of(conf, ctx)
  local person = person_of(conf)
  local home = conf.user and fs.exists(person.home) and person.home
  return { USER = person and person.name, LOGNAME = person and person.name, HOME = home or ctx.workdir or "/" }
end

local function request_of(conf, job, ctx, long, group, missing)
  return {
    argv = command_of(conf, job, long), cwd = job.cwd or ctx.workdir, stdin = job.stdin,
    env = { identity_of(conf, ctx), ctx.env or NOTHING, job.env or NOTHING }, merge = conf.merge, user = conf.user,
    nice = ctx.limits.nice, cgroup = group, oom_score_adj = not group and OOM_SCORE or nil,
    rlimits = rlimits_of(ctx.limits, missing),
  }
end

-- How it ended: a job's result, as far as its leader knows.
local function result_of(code, signal, core, cpu, wall, peak_memory)
  local state, reason = "success", nil
  if code ~= 0 then state, reason = "failed", process.exit_reason { code = code, signal = signal, core = core } end
  return { state = state, reason = reason, exit_code = signal and 128 + signal or code,
    usage = { cpu = cpu, wall = wall, peak_memory = peak_memory }, signal = signal and process.signal_name(signal) }
end

-- What its group knows better: the processor's time and the memory of all of it.
local function add_whole(result, group, ctx)
  local usage, whole = result.usage, group:usage()
  usage.cpu, usage.peak_memory = whole.cpu or usage.cpu, whole.memory_peak or usage.peak_memory
  if not cgroup.out_of_memory(whole) then return end
  if result.state == "success" then
    ctx.note("a process of the job was killed: it needed more memory than it may have")
  else
    result.state, result.reason = "oom", "it needed more memory than it may have"
  end
end

-- What this machine cannot do is said once, at start.
function shell.check()
  cgroup.open()
end

-- Memory and swap together, as a plan has them.
local function whole_swap(limits)
  return limits.memory and limits.swap and limits.memory + limits.swap
end

-- A process has the network and the files of this machine, whatever a policy would like.
function shell.plan(conf, _, ctx)
  local limits, who = ctx.limits, person_of(conf) or fs.stat "/proc/self"
  return {
    isolation = "process", user = ("%d:%d"):format(who.uid, who.gid),
    cpus = limits.cpus, memory = limits.memory, memory_swap = whole_swap(limits), pids = limits.pids,
    network = "host", read_only = false, privileged = who.uid == 0, mounts = {},
    fixed = { network = true, read_only = true },
  }
end

-- What a policy has made of it.
local function review(conf, job, ctx)
  local plan = shell.plan(conf, job, ctx)
  ctx.review(plan, true)
  ctx.limits.cpus, ctx.limits.memory, ctx.limits.pids = plan.cpus, plan.memory, plan.pids
  if plan.memory and plan.memory_swap then ctx.limits.swap = math.max(plan.memory_swap - plan.memory, 0) end
end

-- What was made for the job by us is his who it runs as.  Once: what he has put there himself, for a second
-- try to find it, may be a link to what is not his.
local function give_away(conf, ctx, long)
  local uid = person_of(conf).uid
  if ctx.workdir then fs.chown(ctx.workdir, uid, -1) end
  if long then fs.give(long.dir or long.path, uid) end
  for _, path in ipairs(ctx.given or NOTHING) do fs.give(path, uid) end
  ctx.given = nil
end

-- From its birth to the end of all that came of it.
local function live(conf, job, ctx, group, missing)
  local long <close> = not job.argv and #(job.script or "") > ARGUMENT_MOST and long_script(job, ctx) or nil
  if conf.user then give_away(conf, ctx, long) end
  local child <close> = process.spawn(request_of(conf, job, ctx, long, group, missing))
  local _ <close> = not group and cgroup.keep("session", child.pid) or nil
  local ending <close> = process.ending(child, { signal = conf.signal, grace = ctx.grace })
  for stream, text in child:output(conf.drain) do ctx.log(stream, text) end
  local result = result_of(child:exit())
  ending:done()
  if child.leaked then
    ctx.note("a process that the job left behind still held its output open; it is ended")
    log.warn("job.leaked", ("job %s left a process behind that held its output open"):format(ctx.id), { job = ctx.id })
  end
  return result
end

-- What a group has used is all of it only when nothing is left there.
function shell.run(conf, job, ctx)
  if ctx.review then review(conf, job, ctx) end
  local group, missing = group_of(ctx)
  local _ <close> = group
  local result = live(conf, job, ctx, group, missing)
  if group then add_whole(result, group, ctx) end
  return result
end

return shell
