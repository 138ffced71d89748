-- facts/machine.lua: memory, disk, clock, TLS, container, systemd.
local core = require "worker.core.facts"
local read = require "worker.facts.read"
local sys = require "worker.core.sys"

local machine = { name = "machine" }

local BUILT = 1735689600 -- 2025-01-01: no right clock is before this program was written
local LITTLE_DISK = 1024 * 1024 * 1024
local LITTLE_MEMORY = 256 * 1024 * 1024

local function processors()
  local list = read.field(read.text("/proc/self/status"), "Cpus_allowed_list") or "?"
  local count = 0
  for from, to in (list .. ","):gmatch("(%d+)%-?(%d*),") do
    count = count + (to == "" and 1 or tonumber(to) - tonumber(from) + 1)
  end
  return "yes", ("%d for us (%s)"):format(count, list)
end

local function memory()
  local text = read.text("/proc/meminfo")
  local function bytes(key)
    return (tonumber((read.field(text, key) or ""):match("%d+")) or 0) * 1024
  end
  local available, swap = bytes("MemAvailable"), bytes("SwapTotal")
  local detail = ("%s free of %s, %s"):format(read.size(available), read.size(bytes("MemTotal")),
    swap > 0 and read.size(swap) .. " of swap" or "no swap")
  if available < LITTLE_MEMORY then return "partly", detail, "jobs have little room" end
  return "yes", detail
end

local function temporary()
  local dir = sys.env "TMPDIR"
  return dir and dir ~= "" and dir or "/tmp"
end

local function disk(options)
  local path = options.workdir or temporary()
  local space, why = core.space(path)
  if not space then return "no", ("%s: %s"):format(path, why), ("mkdir -p %s"):format(path) end
  local detail = ("%s: %s free of %s"):format(path, read.size(space.free), read.size(space.total))
  if space.files_free and space.files_free < 10000 then
    return "partly", ("%s, but only %d more files"):format(detail, space.files_free),
      "remove small files"
  elseif space.free < LITTLE_DISK then
    return "partly", detail, "make room, or put workspaces elsewhere"
  end
  return "yes", detail
end

local function writable(options)
  local path = options.workdir or temporary()
  local may, why = core.may(path, "wx")
  if not may then
    return "no", ("%s: %s"):format(path, why), "workspaces need a directory to be made in"
  end
  return "yes", path
end

local function temporary_files()
  local path = temporary()
  local may, why = core.may(path, "wx")
  if not may then
    return "no", ("%s: %s"):format(path, why), "set TMPDIR to a directory we may write to"
  end
  return "yes", path
end

local function clock()
  local now, since_boot = core.clocks()
  local date = os.date("!%Y-%m-%d %H:%M:%S UTC", math.floor(now))
  local detail = ("%s, up %d min"):format(date, since_boot // 60)
  if now < BUILT then
    return "no", detail, "the clock is in the past: TLS will fail; start systemd-timesyncd or chrony"
  end
  return "yes", detail
end

local function synchronised()
  local is, why = core.clock_synchronised()
  if is then return "yes", "the kernel's clock is kept in step" end
  if is == nil then return "unknown", why end
  return "partly", "nobody told the kernel that the clock is right",
    "timedatectl set-ntp true (a host may do it for its guests: then all is well)"
end

local function tls()
  local versions, why = core.tls()
  if not versions then return "no", why, "apt-get install libcurl4 (http:// and Unix sockets work without)" end
  return "yes", versions:match("^%S+ %S+") or versions
end

-- Who contains us: PID 1's environment says so where we may read it, and engines leave marks.
local function container()
  local engine = (read.text("/proc/1/environ") or ""):match("container=([%w_%-]+)")
  if core.may("/.dockerenv") then engine = engine or "docker" end
  if core.may("/run/.containerenv") then engine = engine or "podman" end
  if core.may("/var/run/secrets/kubernetes.io") then engine = "kubernetes" end
  local first = sys.pid() == 1 and "; we are process 1 and reap for all" or ""
  if engine then return "yes", ("inside one (%s)%s"):format(engine, first) end
  return "no", "not in a container" .. first
end

local function systemd()
  if sys.env("NOTIFY_SOCKET") then
    local extras = { "told when we are ready" }
    if sys.env("CREDENTIALS_DIRECTORY") then extras[#extras + 1] = "with credentials" end
    if sys.env("WATCHDOG_USEC") then extras[#extras + 1] = "with a watchdog" end
    return "yes", "a service: " .. table.concat(extras, ", ")
  elseif sys.env("INVOCATION_ID") then
    return "partly", "a service, but not Type=notify", "Type=notify lets systemd know when we are ready"
  elseif core.may("/run/systemd/system") then
    return "no", "runs here, but did not start us"
  end
  return "no", "not running here"
end

machine.questions = {
  { "processors", processors },
  { "memory", memory },
  { "disk", disk },
  { "workspaces", writable },
  { "temporary files", temporary_files },
  { "clock", clock },
  { "clock in step", synchronised },
  { "TLS", tls },
  { "container", container },
  { "systemd", systemd },
}

return machine
