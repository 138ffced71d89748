-- engine/order.lua: a job as the container that is ordered from the engine.
--
-- What a job asks for in job.container is checked against what its executor allows; asking for more
-- is an error that names the switch, never silently less.
local err = require "worker.error"
local fs = require "worker.fs"
local json = require "worker.json"
local owner = require "worker.engine.owner"

local order = {}

local NOBODY = "65534:65534"
local OOM_SCORE = 500 -- a job is a better victim than the worker when memory gets short
local CPU = 1000000000
local PROFILE_MOST = 1024 * 1024

-- These describe the worker's machine, not the inside of a container.
local HOST_ONLY = { PATH = true, HOME = true, TMPDIR = true, USER = true, SHELL = true, LANG = true }

-- Asked and allowed -----------------------------------------------------------------------------------

-- What a job may say of its container, and what that must be.
local MAY_ASK = {
  network = "string", user = "string", read_only = "boolean", capabilities = "table", no_new_privileges = "boolean",
  runtime = "string", ulimits = "table", init = "boolean", tty = "boolean", tmpfs = "table", mounts = "table",
  labels = "table", stop_signal = "string", entrypoint = "boolean", hostname = "string",
}

-- Asking for less is always fine.
local HARMLESS = { network = "none", read_only = true, no_new_privileges = true }

local function check_asked(asked)
  if type(asked) ~= "table" then err.raise("engine", "the job's `container` must be a table") end
  for name, value in pairs(asked) do
    if not MAY_ASK[name] then err.raise("engine", ("the job's `container` has no field '%s'"):format(tostring(name))) end
    if type(value) ~= MAY_ASK[name] then
      err.raise("engine", ("the job's container.%s must be a %s"):format(name, MAY_ASK[name]))
    end
  end
end

local function same(a, b)
  return a == b or type(a) == "table" and type(b) == "table" and json.encode(a) == json.encode(b)
end

local granted = setmetatable({}, { __mode = "k" })

--- `order.grant(container)`: what this table asks for is by the configuration's word, not by that of
-- whoever wrote the job: it needs no `allow` and no `mount_roots`.  Nothing that arrives as text can
-- be such a table.  Gives it back.
function order.grant(container)
  granted[container] = true
  return container
end

-- The job's word where it is allowed, else the executor's.
local function chooser(conf, asked)
  local allowed = {}
  for _, name in ipairs(conf.allow or {}) do allowed[name] = true end
  return function(name)
    local wanted = asked[name]
    if wanted == nil or same(wanted, conf[name]) then return conf[name] end
    if wanted == HARMLESS[name] or allowed[name] or granted[asked] then return wanted end
    err.raise("engine", ("the job asks for container.%s = %s, which is not allowed here: add '%s' to the executor's `allow`")
      :format(name, json.encode(wanted), name))
  end
end

-- Users and limits ------------------------------------------------------------------------------------

-- nil when that is the image's to say, and it is not known yet.
local function user_of(choose, image)
  local user = choose "user"
  if user ~= "auto" then return user end
  if not image then return nil end
  local own = type(image.Config) == "table" and image.Config.User or ""
  local name = own:match("^[^:]*")
  return (name == "" or name == "root" or name:find("^0+$")) and NOBODY or own
end

local function least(a, b)
  if a and b then return math.min(a, b) end
  return a or b
end

local function ulimits_of(choose, limits)
  local values = { nofile = limits.open_files, fsize = limits.file_size, core = limits.core_size }
  for name, value in pairs(choose "ulimits" or {}) do values[name] = value end
  local list = json.array {}
  for name, value in pairs(values) do list[#list + 1] = { Name = name, Soft = value, Hard = value } end
  table.sort(list, function(a, b) return a.Name < b.Name end)
  return list
end

-- Files -------------------------------------------------------------------------------------------------

-- The engine's name for a path of ours.
local function translate(conf, path)
  local best
  for ours in pairs(conf.path_map) do
    if fs.is_within(path, ours) and (not best or #ours > #best) then best = ours end
  end
  return best and fs.join(conf.path_map[best], fs.clean(path):sub(#fs.clean(best) + 1)) or path
end

local function bind(conf, source, target, write)
  return { Type = "bind", Source = translate(conf, source), Target = target, ReadOnly = not write }
end

-- A mount that a job asks for: where it really leads must be below one of the roots.
local function asked_mount(conf, mount, is_granted)
  if type(mount) ~= "table" or type(mount.source) ~= "string" or not tostring(mount.target):find("^/") then
    err.raise("engine", "a mount of a job needs a source and an absolute target")
  end
  local real, why = fs.realpath(mount.source)
  if not real then err.raise("engine", ("mount: %s"):format(tostring(why))) end
  if is_granted then return bind(conf, real, mount.target, mount.write == true) end
  for _, root in ipairs(conf.mount_roots) do
    local top = fs.realpath(root)
    if top and fs.is_within(real, top) then return bind(conf, real, mount.target, mount.write == true) end
  end
  err.raise("engine", ("the job asks for a mount of %s, which is in none of the executor's `mount_roots`"):format(mount.source))
end

local function need_local(engine, what)
  if engine.address.is_local then return end
  err.raise("engine", ("the engine at %s is on another machine: %s cannot be handed to it"):format(engine.address.shown, what))
end

-- What a job mounts where its own directory would be is what it wants to see there.
local function is_taken(list, target)
  for _, mount in ipairs(list) do
    if fs.clean(mount.Target) == fs.clean(target) then return true end
  end
  return false
end

local function mounts_of(engine, conf, asked, ctx)
  local list = json.array {}
  for _, mount in ipairs(conf.mounts) do
    local real, why = fs.realpath(mount.source)
    if engine.address.is_local and not real then err.raise("engine", ("mount: %s"):format(tostring(why))) end
    list[#list + 1] = bind(conf, engine.address.is_local and real or mount.source, mount.target, mount.write)
  end
  for _, mount in ipairs(asked.mounts or {}) do
    if granted[asked] then need_local(engine, mount.source) end
    list[#list + 1] = asked_mount(conf, mount, granted[asked])
  end
  if conf.workspace and ctx.workdir and not is_taken(list, conf.workspace) then
    need_local(engine, "the job's directory")
    list[#list + 1] = bind(conf, fs.realpath(ctx.workdir) or ctx.workdir, conf.workspace, true)
  end
  return list
end

-- A mount over a directory of the image takes that one's permissions along; being its owner helps.
local function tmpfs_of(conf, asked, user)
  local uid, gid = (user or ""):match("^(%d+):?(%d*)$")
  local whose = uid and (",uid=%s,gid=%s"):format(uid, gid ~= "" and gid or "0") or ""
  local map = {}
  for path, size in pairs(asked.tmpfs or conf.tmpfs) do
    if type(path) ~= "string" or not path:find("^/") or math.type(size) ~= "integer" then
      err.raise("engine", "container.tmpfs must map absolute paths to sizes in bytes")
    end
    map[path] = ("size=%d,mode=1777"):format(size) .. whose
  end
  return next(map) and map or nil
end

-- Programs ----------------------------------------------------------------------------------------------

-- The image's own entry point runs only when there is nothing else to run, or when asked for.
local function set_program(spec, conf, job, asked)
  local argv = job.argv
  if job.script then
    argv = table.move(conf.shell, 1, #conf.shell, 1, {})
    argv[#argv + 1] = job.script
  end
  if not argv then return end
  for i, word in ipairs(argv) do
    if word:find("\0", 1, true) then err.raise("spawn", ("argument %d has a NUL byte: it cannot be run"):format(i)) end
  end
  spec[asked.entrypoint and "Cmd" or "Entrypoint"] = json.array(table.move(argv, 1, #argv, 1, {}))
end

local function env_of(conf, job, ctx, image)
  local all, from_image = {}, {}
  for _, pair in ipairs(image and type(image.Config) == "table" and image.Config.Env or {}) do
    from_image[pair:match("^[^=]*")] = true
  end
  if not from_image.HOME then all.HOME = conf.workspace or "/tmp" end
  for name, value in pairs(ctx.env or {}) do
    if not HOST_ONLY[name] then all[name] = value end
  end
  for _, map in ipairs { conf.env, job.env or {} } do
    for name, value in pairs(map) do all[name] = value end
  end
  local list = json.array {}
  for name, value in pairs(all) do list[#list + 1] = ("%s=%s"):format(name, value) end
  table.sort(list)
  return list
end

local function security_of(conf, choose)
  local list = json.array {}
  if choose "no_new_privileges" then list[1] = "no-new-privileges" end
  if conf.seccomp then
    local profile, why = fs.read(conf.seccomp, PROFILE_MOST)
    if not profile then err.raise("engine", ("seccomp: %s"):format(tostring(why))) end
    list[#list + 1] = "seccomp=" .. profile
  end
  return list
end

-- The whole ---------------------------------------------------------------------------------------------

local function host_config(engine, conf, asked, choose, ctx, user)
  local limits = ctx.limits or {}
  local memory = least(conf.memory, limits.memory)
  local cpus = least(conf.cpus, limits.cpus)
  return {
    NetworkMode = choose "network", ReadonlyRootfs = choose "read_only",
    CapDrop = { "ALL" }, CapAdd = json.array(choose "capabilities"), SecurityOpt = security_of(conf, choose),
    Memory = memory, MemorySwap = memory and memory + least(conf.swap, limits.swap),
    NanoCpus = cpus and math.floor(cpus * CPU) or nil, PidsLimit = least(conf.pids, limits.pids),
    Tmpfs = tmpfs_of(conf, asked, user), Mounts = mounts_of(engine, conf, asked, ctx),
    Ulimits = ulimits_of(choose, limits), OomScoreAdj = OOM_SCORE,
    Runtime = choose "runtime", Init = asked.init or conf.init or nil,
    -- we hear the output ourselves; a second copy on the engine's disk has no end
    LogConfig = { Type = "none", Config = json.object {} },
  }
end

--- `order.of(engine, conf, job, ctx, image)`: what to create; `image` is what the engine knows of it, nil
-- before it was asked.
function order.of(engine, conf, job, ctx, image)
  local asked = job.container or {}
  check_asked(asked)
  local choose = chooser(conf, asked)
  local user = user_of(choose, image)
  local spec = {
    Image = job.image or conf.image, User = user, Env = env_of(conf, job, ctx, image),
    WorkingDir = job.cwd or conf.workspace, Tty = asked.tty or false, Hostname = asked.hostname,
    AttachStdout = true, AttachStderr = true, AttachStdin = job.stdin ~= nil, OpenStdin = job.stdin ~= nil,
    StdinOnce = job.stdin ~= nil, StopSignal = "SIG" .. (asked.stop_signal or conf.stop_signal):gsub("^SIG", ""),
    HostConfig = host_config(engine, conf, asked, choose, ctx, user),
  }
  local labels = {}
  for _, map in ipairs { conf.labels, asked.labels or {} } do
    for name, value in pairs(map) do labels[tostring(name)] = value end
  end
  spec.Labels = owner.labels(engine, job.id, labels)
  set_program(spec, conf, job, asked)
  return spec
end

--- `order.put_files(engine, conf, spec, dir, files)`: the job's files { [path inside] = text } as they
-- lie in `dir`, readable and not writable.
function order.put_files(engine, conf, spec, dir, files)
  need_local(engine, "the job's files")
  local number = 0
  for path, text in pairs(files) do
    if not path:find("^/") then err.raise("engine", ("the path of a job's file must be absolute, not '%s'"):format(path)) end
    number = number + 1
    local here = fs.join(dir, tostring(number))
    fs.write(here, text)
    fs.chmod(here, 292) -- 0444: whoever the container runs as
    table.insert(spec.HostConfig.Mounts, bind(conf, fs.realpath(here), path, false))
  end
end

--- `order.may_name(conf, image)`: whether jobs may use this image here.
function order.may_name(conf, image)
  if image == conf.image then return true end
  for _, glob in ipairs(conf.images) do
    local pattern = "^" .. glob:gsub("[%^%$%(%)%%%.%[%]%+%-%?]", "%%%0"):gsub("%*", ".*") .. "$"
    if image:find(pattern) then return true end
  end
  return false
end

return order
