-- facts/kernel.lua: kernel, control groups, namespaces, limits, rights.
local cgroup = require "worker.cgroup"
local core = require "worker.core.facts"
local read = require "worker.facts.read"
local sys = require "worker.core.sys"

local kernel = { name = "kernel" }

local DELEGATE = "run as a systemd service with Delegate=yes, or in a container with a "
  .. "writable /sys/fs/cgroup"

local function version()
  local system = core.system()
  local major, minor = system.release:match("^(%d+)%.(%d+)")
  local text = ("Linux %s, %s"):format(system.release, system.machine)
  local number = tonumber(major) * 1000 + tonumber(minor)
  if number >= 5014 then return "yes", text end
  if number >= 5009 then
    return "partly", text, "5.14 brings cgroup.kill, which ends a job in one write"
  end
  return "no", text, "the worker needs Linux 5.9 or newer"
end

-- Control groups -----------------------------------------------------------------------------------

local function mounted(kind)
  for line in (read.text("/proc/self/mountinfo") or ""):gmatch("[^\n]+") do
    local point, type = line:match("^%S+ %S+ %S+ %S+ (%S+) .* %- (%S+) ")
    if type == kind then return point end
  end
end

local function v1_controllers()
  local names = {}
  for line in (read.text("/proc/self/mountinfo") or ""):gmatch("[^\n]+") do
    local options = line:match(" %- cgroup %S+ (.*)$")
    for name in (options or ""):gmatch("[^,]+") do
      if name == "memory" or name == "pids" or name == "cpu" then names[#names + 1] = name end
    end
  end
  table.sort(names)
  return names
end

local function v2()
  local point = mounted("cgroup2")
  if not point then return "no", "not mounted", "boot with systemd.unified_cgroup_hierarchy=1" end
  local found = cgroup.describe()
  if not found.can.birth then
    return "no", ("mounted at %s, not writable for us"):format(point), DELEGATE
  end
  if found.can.oom_group and found.can.pids then
    return "yes", ("our group is %s"):format(found.path)
  end
  return "partly", ("%s, but without controllers for us: it ends jobs and limits nothing"):format(point)
end

local function v1()
  local names = v1_controllers()
  if #names == 0 then return "no", "no controllers mounted (v2 does not need them)" end
  return "yes", table.concat(names, ", ")
end

local function limit(name, what)
  return function()
    local found = cgroup.describe()
    if not found.can[name] then
      return "no", ("no control group limits the %s of jobs"):format(what), DELEGATE
    end
    if not found.can.birth then return "yes", "by cgroup v1" end
    return "yes", found.can.oom_group and "by cgroup v2" or "by cgroup v1, beside v2"
  end
end

local function ending()
  local found = cgroup.describe()
  if found.can.kill then
    return "yes", "cgroup.kill: the whole job at once, wherever its processes hide"
  end
  if found.path then return "partly", "a loop of signals over the job's group" end
  return "partly", "by session, descent and environment, found in /proc", DELEGATE
end

local function keeper()
  cgroup.open()
  local pid = cgroup.keeper_pid()
  if pid then return "yes", ("process %d ends the jobs should this worker be killed"):format(pid) end
  return "no", "jobs may outlive a kill -9 of this worker", "unset WORKER_KEEPER"
end

-- Namespaces, limits, rights -----------------------------------------------------------------------

local function user_namespaces()
  local may, why = core.user_namespace()
  if may then return "yes", "jobs could have users of their own" end
  local switch = read.number("/proc/sys/kernel/unprivileged_userns_clone") == 0
    and "sysctl kernel.unprivileged_userns_clone=1"
    or read.number("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == 1
    and "an AppArmor profile with `userns` for the worker"
    or read.number("/proc/sys/user/max_user_namespaces") == 0
    and "sysctl user.max_user_namespaces=15000"
    or nil
  return "no", ("refused: %s"):format(why), switch
end

local function open_files()
  local limits = core.limits().nofile
  if not limits then return "yes", "no limit" end
  local soft, hard = limits[1], limits[2] or math.huge
  local text = ("%d, at most %s"):format(soft, hard == math.huge and "any number" or hard)
  if hard < 4096 then return "partly", text, "LimitNOFILE=65536 in the unit, or ulimit -n" end
  return "yes", text
end

local function processes()
  local most, limits = read.number("/proc/sys/kernel/pid_max"), core.limits().nproc
  local text = ("the kernel has %s numbers"):format(most or "?")
  if limits then text = text .. (", this user may have %d"):format(limits[1]) end
  if limits and limits[1] < 256 then return "partly", text, "LimitNPROC in the unit, or ulimit -u" end
  return "yes", text
end

local RIGHTS = { chown = 0, kill = 5, setgid = 6, setuid = 7, sys_admin = 21, sys_resource = 24 }

local function rights()
  local set = math.tointeger(tonumber(read.field(read.text("/proc/self/status"), "CapEff") or "0", 16))
  local has = {}
  for name, bit in pairs(RIGHTS) do has[name] = set & (1 << bit) ~= 0 end
  return has
end

local function switch_user()
  local has = rights()
  if has.setuid and has.setgid then return "yes", "jobs can run as another user" end
  return "no", ("jobs run as user %d"):format(sys.uid()),
    "start as root, or give CAP_SETUID and CAP_SETGID"
end

local function raise_limits()
  if rights().sys_resource then return "yes", "limits can be raised for jobs" end
  return "partly", "limits of jobs can be lowered, not raised", "CAP_SYS_RESOURCE, if jobs need more"
end

local function confinement()
  local status = read.text("/proc/self/status")
  local seccomp, nnp = read.field(status, "Seccomp"), read.field(status, "NoNewPrivs")
  if seccomp == "2" then
    return "partly", "system calls are filtered (seccomp): some jobs may be refused things"
  elseif nnp == "1" then
    return "partly", "no new privileges: sudo and other set-uid programs do not work in jobs"
  end
  return "yes", "no filter on system calls, set-uid programs work"
end

kernel.questions = {
  { "kernel version", version },
  { "cgroup v2", v2 },
  { "cgroup v1", v1 },
  { "memory limit", limit("memory", "memory") },
  { "cpu limit", limit("cpus", "processor time") },
  { "process limit", limit("pids", "number of processes") },
  { "ending jobs", ending },
  { "keeper", keeper },
  { "user namespaces", user_namespaces },
  { "open files", open_files },
  { "processes", processes },
  { "other users", switch_user },
  { "raising limits", raise_limits },
  { "confinement", confinement },
}

return kernel
