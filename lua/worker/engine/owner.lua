-- engine/owner.lua: whose container is it?
--
-- Every container of ours says in its labels which worker made it, in which life, for which job.  A
-- life is this boot of the machine, the process, and when the process began: a container is an orphan
-- when its owner is us and its life is over.  Whatever says otherwise, or nothing, is not touched.
local containers = require "worker.engine.container"
local fs = require "worker.fs"
local log = require "worker.log"
local sys = require "worker.core.sys"
local time = require "worker.time"

local owner = {}

local function first_line(path)
  local text = fs.read(path, 4096)
  return text and text:match("^[^\n]+") or "?"
end

-- When a process began, in ticks since the boot: with its number that names it.  The fields are
-- counted behind the name, which may hold anything.
local function began(pid)
  local text = fs.read(("/proc/%d/stat"):format(pid), 4096)
  local rest = text and text:match("^.*%)%s(.*)$")
  if not rest then return nil end
  local at = 0
  for word in rest:gmatch("%S+") do
    at = at + 1
    if at == 20 then return word end
  end
end

-- Process numbers mean something only where they were given.
local function process_space() return fs.readlink "/proc/self/ns/pid" or "?" end

local life

local function this_life()
  life = life or {
    boot = first_line "/proc/sys/kernel/random/boot_id",
    run = ("%d %s %s"):format(sys.pid(), began(sys.pid()) or "?", process_space()),
  }
  return life
end

--- `owner.name()`: what a worker that was told no name labels its containers with.
function owner.name() return sys.hostname() end

--- `owner.labels(engine, job_id, more)`: the labels of a container.
function owner.labels(engine, job_id, more)
  local labels = {}
  for name, value in pairs(more or {}) do labels[name] = tostring(value) end
  labels["worker.owner"] = engine.owner
  labels["worker.run"] = this_life().run
  labels["worker.boot"] = this_life().boot
  labels["worker.job"] = job_id
  labels["worker.started"] = time.format(sys.wall(), 3)
  return labels
end

-- A life in another space of processes (a worker in a container) cannot be looked at: it is ours only
-- when somebody gave us the name that is on it; host names may be the same in several.
local function is_over(engine, labels)
  local mine = this_life()
  if not labels["worker.boot"] or not labels["worker.run"] then return false end
  if labels["worker.boot"] ~= mine.boot then return engine.address.is_local or engine.owner_given end
  if labels["worker.run"] == mine.run then return false end
  local pid, start, space = (labels["worker.run"] or ""):match("^(%d+) (%S+) (%S+)$")
  if not pid then return false end
  if space ~= process_space() then return engine.owner_given end
  return began(tonumber(pid)) ~= start
end

--- `owner.sweep(engine)`: remove the containers of our dead lives; how many.
function owner.sweep(engine)
  local removed = 0
  for _, one in ipairs(engine:containers { label = { "worker.owner=" .. engine.owner } }) do
    local labels = type(one.Labels) == "table" and one.Labels or {}
    if labels["worker.owner"] == engine.owner and is_over(engine, labels) and engine:remove(containers.named(engine, one.Id)) then
      removed = removed + 1
      log.warn("container.orphan", ("a container that a dead worker left for job %s is removed"):format(
        tostring(labels["worker.job"])), { job = labels["worker.job"], container = tostring(one.Id):sub(1, 12) })
    end
  end
  return removed
end

return owner
