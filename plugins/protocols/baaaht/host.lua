-- What this worker tells of itself: what it can do, and how its machine is.
local fs = require "worker.fs"
local tools = require "worker.tools"

local host = {}

local NANO = 1000000000

-- Go's names, which its people know.
local RUNTIMES = { x86_64 = "amd64", aarch64 = "arm64", armv7l = "arm", riscv64 = "riscv64" }

local function read(path) return fs.read(path) or "" end

local function meminfo()
  local info = {}
  for name, kilobytes in read("/proc/meminfo"):gmatch("(%w+):%s+(%d+) kB") do info[name] = tonumber(kilobytes) * 1024 end
  return info
end

local function processors()
  return select(2, read("/proc/stat"):gsub("\ncpu%d", ""))
end

local function runtime()
  local arch = read("/proc/sys/kernel/arch"):match("%S+")
  return "linux/" .. (RUNTIMES[arch] or arch or "unknown")
end

--- `host.containers(worker)`: the names of its executors that put a task into a container.
function host.containers(worker)
  local names = {}
  for _, executor in ipairs(worker.executors) do
    if executor.isolation ~= "process" then names[#names + 1] = executor.name end
  end
  return names
end

local function supported_tools(conf)
  local names = {}
  for _, name in ipairs(tools.names()) do
    local about = tools.about(name)
    if not about.workspace or about.optional or next(conf.tools.workspaces) then names[#names + 1] = name end
  end
  return names
end

-- Without containers only commands: a tool is made for one.
local COMMANDS = { "code_execution", "data_processing", "custom" }
local ALL = { "code_execution", "file_operation", "network_request", "data_processing", "container_operation",
  "tool_execution", "custom" }

--- `host.capabilities(conf, worker)`: what can be asked of this worker.
function host.capabilities(conf, worker)
  local closed = #host.containers(worker) > 0
  return {
    supported_tasks = closed and ALL or COMMANDS, supported_tools = closed and supported_tools(conf) or {},
    max_concurrent_tasks = worker.slots, supports_streaming = true, supports_cancellation = true,
    resource_limits = { nano_cpus = processors() * NANO, memory_bytes = meminfo().MemTotal or 0 },
    supported_protocols = { "grpc" },
  }
end

--- `host.metadata(conf, worker)`: who this is.
function host.metadata(conf, worker)
  local labels = { component = "worker", runtime = runtime() }
  for name, value in pairs(conf.labels) do labels[name] = value end
  return {
    version = worker.version, description = conf.description, labels = labels, tags = conf.tags,
    hostname = worker.host, pid = tostring(worker.pid),
  }
end

-- Busy and all ticks of the processors since the machine started.
local function ticks()
  local busy, all, n = 0, 0, 0
  for count in (read("/proc/stat"):match("^cpu ([^\n]*)") or ""):gmatch("%d+") do
    n = n + 1
    all = all + tonumber(count)
    if n ~= 4 and n ~= 5 then busy = busy + tonumber(count) end -- idle, and waiting for a disk
  end
  return busy, all
end

--- `host.resources(before)`: how the machine is now; `before` is kept by the caller from one time to the
-- next: the processors are counted in between.
function host.resources(before)
  local busy, all = ticks()
  local share = before.all and all > before.all and (busy - before.busy) / (all - before.all) or 0
  before.busy, before.all = busy, all
  local info = meminfo()
  local total = info.MemTotal or 0
  local used = total - (info.MemAvailable or total)
  return {
    cpu_percent = share * 100, memory_usage = used, memory_limit = total,
    memory_percent = total > 0 and used / total * 100 or 0,
    pids_count = tonumber(read("/proc/loadavg"):match("/(%d+)")) or 0,
  }
end

return host
