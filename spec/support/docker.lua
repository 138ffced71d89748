-- docker.lua: a real dockerd for the specs, with runc and, where it is installed, gVisor's runsc.
--
--   local daemon <close> = docker.start()       or nil and why there can be none
--   daemon.host                                 "unix:///tmp/.../docker.sock"
--   daemon:image("busybox:spec")                an image of busybox, made here
--   daemon:python("python:3.11-slim")           an image with Python, which is made once (a minute) and kept
--   daemon:kill()   daemon:restart()            kill -9; up again over the same data
--   daemon:containers()                         ids of all containers there are; of those "running"
--
-- It has its own directory, socket and data, no bridge and no firewall rules, and is ended by its
-- process id, with what it started and mounted.
local engine = require "worker.engine"
local fs = require "worker.fs"
local process = require "worker.process"
local sys = require "worker.core.sys"
local task = require "worker.task"

local docker = {}

local PATIENCE = 60
local LINKS = { "sh", "cat", "echo", "id", "sleep", "true", "yes", "head", "dd", "touch", "printf", "wc", "tr", "ls", "kill",
  "nc", "env", "sha256sum", "seq", "mkdir", "grep", "find", "sed", "test", "wget" }

local methods = {}
local meta = { __index = methods }

local function on_path(program)
  for _, dir in ipairs { "/usr/sbin", "/usr/bin", "/sbin", "/bin" } do
    if fs.exists(dir .. "/" .. program) then return dir .. "/" .. program end
  end
end

--- Why there can be no daemon here; nil when there can.
function docker.missing()
  if sys.uid() ~= 0 then return "only root can start dockerd" end
  for program, package in pairs { dockerd = "docker.io", runc = "runc", busybox = "busybox-static" } do
    if not on_path(program) then return ("%s is not installed: apt-get install %s"):format(program, package) end
  end
end

--- Whether this machine lets us do what a container engine does.
function docker.could_run()
  local ok, result = task.try(process.run, { argv = { "/usr/bin/unshare", "--mount", "--net", "--pid", "--fork", "true" } })
  return sys.uid() == 0 and ok and result.exit_code == 0
end

--- Why a spec has to go without the daemon, or without gVisor under it; nil when it need not.  Where
-- containers were asked for and can run, going without them is a failure.
function docker.excuse(daemon, missing, sandbox)
  local why = not daemon and missing
    or sandbox and not on_path "runsc" and "runsc is not installed: apt-get install runsc" or nil
  if why and sys.env "WORKER_CONTAINERS" and docker.could_run() then error(why, 0) end
  return why
end

local function answers(self)
  local client <close> = engine.open { host = self.host }
  return (task.try(client.ping, client))
end

local function launch(self)
  self.child = process.spawn {
    argv = { on_path "dockerd", "--config-file", fs.join(self.dir, "daemon.json"), "--data-root", fs.join(self.dir, "data"),
      "--exec-root", fs.join(self.dir, "exec"), "-H", self.host, "--pidfile", fs.join(self.dir, "pid"),
      "--bridge=none", "--iptables=false", "--cgroup-parent", "/" .. fs.base(self.dir) },
    env = { PATH = "/usr/sbin:/usr/bin:/sbin:/bin", HOME = self.dir }, merge = true,
  }
  self.said = {}
  self.reader = task.start(function()
    for _, text in self.child:output() do
      self.said[#self.said + 1] = text
      if #self.said > 200 then table.remove(self.said, 1) end
    end
  end)
  local up = task.within(PATIENCE, function()
    while not answers(self) do task.sleep(0.05) end
  end)
  if not up then error("dockerd does not come up: " .. table.concat(self.said), 0) end
end

--- Start one.
function docker.start()
  local why = docker.missing()
  if why then return nil, why end
  local dir = fs.temp_dir "/tmp/worker-docker-"
  local self = setmetatable({ dir = dir, host = "unix://" .. fs.join(dir, "docker.sock") }, meta)
  local runsc = on_path "runsc"
  fs.write(fs.join(dir, "daemon.json"), runsc and ([[{"runtimes":{"runsc":{"path":"%s",
    "runtimeArgs":["--network=none","--ignore-cgroups"]}}}]]):format(runsc) or "{}")
  local ok, failed = pcall(launch, self)
  if ok then return self end
  self:stop()
  return nil, failed
end

--- An image with busybox in it; `more`: { [path] = text } of programs beside it.
function methods:image(name, more)
  local root = fs.join(self.dir, "root")
  fs.mkdir(fs.join(root, "bin"), { parents = true })
  for _, folder in ipairs { "tmp", "etc" } do fs.mkdir(fs.join(root, folder)) end
  fs.chmod(fs.join(root, "tmp"), 1023) -- 1777
  fs.copy(on_path "busybox", fs.join(root, "bin/busybox"), { mode = 493 })
  for _, link in ipairs(LINKS) do fs.symlink("busybox", fs.join(root, "bin", link)) end
  for path, text in pairs(more or {}) do
    fs.write(fs.join(root, path), text)
    fs.chmod(fs.join(root, path), 493)
  end
  local tar = process.run { argv = { "/bin/tar", "-C", root, "-c", "." }, output_limit = 64 << 20 }
  fs.remove_tree(root)
  local client <close> = engine.open { host = self.host }
  client:import(name, tar.stdout)
end

--- An image with Python 3.11: true, or nil and what keeps it from being made.
function methods:python(name)
  local made = process.run { argv = { "/bin/sh", "config/python-image.sh" },
    env = { PATH = "/usr/sbin:/usr/bin:/sbin:/bin", HOME = sys.env "HOME", XDG_CACHE_HOME = sys.env "XDG_CACHE_HOME" } }
  if made.exit_code ~= 0 then return nil, "no image with Python can be made: " .. made.stderr end
  local client <close> = engine.open { host = self.host }
  local repository, tag = name:match "^(.+):(.+)$"
  client:call("POST", "/images/create", { query = { fromSrc = "-", repo = repository, tag = tag },
    file = made.stdout:match "^[^\n]+", headers = { ["Content-Type"] = "application/x-tar" }, timeout = 300 })
  return true
end

--- The ids of all containers, or of those in this state.
function methods:containers(state)
  local client <close> = engine.open { host = self.host }
  local ids = {}
  for _, one in ipairs(client:containers(state and { status = { state } })) do ids[#ids + 1] = one.Id end
  return ids
end

-- Its containerd, and the shims of containers that were not removed, have its directory on their
-- command line.
local function of_its_own(self)
  local pids = {}
  for _, name in ipairs(fs.list("/proc")) do
    local pid = tonumber(name)
    local line = pid and select(2, pcall(fs.read, "/proc/" .. name .. "/cmdline"))
    if type(line) == "string" and line:find(self.dir, 1, true) then pids[#pids + 1] = pid end
  end
  return pids
end

--- kill -9 of the daemon alone: its containers go on.
function methods:kill()
  self.child:kill("KILL", "leader")
  self.child:wait()
end

--- The daemon up again after a kill.
function methods:restart()
  self.reader:cancel()
  self.reader:join()
  fs.remove(fs.join(self.dir, "pid")) -- what it names is not reaped yet
  self.left = self.left or {}
  self.left[#self.left + 1] = self.child
  launch(self)
end

local function unmount_all(self)
  for line in (fs.read("/proc/self/mounts", 1 << 22) or ""):gmatch("[^\n]+") do
    local place = line:match("^%S+ (%S+)")
    if place:find(self.dir, 1, true) == 1 then process.run { argv = { "/bin/umount", "-l", place } } end
  end
end

-- The control groups above those of the containers, which the engine leaves; in each hierarchy there is.
local function remove_groups(self)
  for _, hierarchy in ipairs(fs.list "/sys/fs/cgroup") do
    task.try(fs.rmdir, fs.join("/sys/fs/cgroup", hierarchy, fs.base(self.dir)))
  end
  task.try(fs.rmdir, fs.join("/sys/fs/cgroup", fs.base(self.dir)))
end

function methods:stop()
  self.child:kill("TERM", "leader")
  task.within(20, self.child.wait, self.child)
  for _, pid in ipairs(of_its_own(self)) do process.run { argv = { "/bin/kill", "-KILL", tostring(pid) } } end
  for _, child in ipairs(self.left or {}) do child:close() end
  self.child:close()
  self.reader:join()
  unmount_all(self)
  remove_groups(self)
  fs.remove_tree(self.dir)
end
meta.__close = methods.stop

return docker
