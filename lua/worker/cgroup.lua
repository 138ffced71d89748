-- cgroup.lua: the control groups jobs live in, and what ends them should the worker be killed.
--
-- One place per worker, found when it is first needed (or at start, to tell a person what is
-- missing), and one group per job in it:
--
--   local group, missing = cgroup.create("7", { memory = 64 * 1024 * 1024, pids = 100 })
--
-- `group` is nil where this host has no control groups for us; a job is then ended by what
-- worker.process finds of it in /proc.  `missing` has the limits that nobody here keeps: the caller
-- uses resource limits instead, or refuses.
--
-- WORKER_CGROUP (auto, v2, v1 or none) narrows what is used, WORKER_KEEPER=off leaves the keeper out.
local core = require "worker.core.cgroup"
local err = require "worker.error"
local log = require "worker.log"
local orphans = require "worker.core.orphans"
local sys = require "worker.core.sys"

local cgroup = {}

local LIMITS = { "memory", "swap", "cpus", "pids" }
local NOTHING = {}
local MODES = { auto = true, v2 = true, v1 = true, none = true }

-- What is open now: {place=, reason=, can=, notes=, keeper=}; nil before.
local state

-- The keeper ------------------------------------------------------------------------------------

local function start_keeper()
  if sys.env("WORKER_KEEPER") == "off" then return nil end
  return orphans.keeper()
end

local function note(kind, text)
  if not state.keeper then return end
  local ok, why = pcall(state.keeper.note, state.keeper, kind, text)
  if not ok then
    log.warn("keeper.missing", ("jobs may outlive a kill -9 of this worker: %s"):format(tostring(why)))
  end
end

-- The place -------------------------------------------------------------------------------------

local function lines_of(text)
  local lines = {}
  for line in text:gmatch("[^\n]+") do lines[#lines + 1] = line end
  return lines
end

local function names_of(can)
  local names = {}
  for _, name in ipairs(LIMITS) do
    if can[name] then names[#names + 1] = name end
  end
  return #names > 0 and table.concat(names, ", ") or "nothing"
end

-- A person who runs a worker should see this once; it is no reason to disturb one who runs a job.
local function announce(found)
  if not found.place then
    log.info("cgroup.none", "no control groups: memory and cpu of jobs cannot be limited, and "
      .. "processes they leave behind are looked for in /proc (`worker doctor` says more)",
      { reason = found.reason })
    return
  end
  log.info("cgroup.ready", ("control groups: %s of jobs can be limited"):format(names_of(found.can)),
    { path = found.place:paths()[1] })
end

local function find(mode)
  local place, reason = core.open(mode)
  if not place then return { can = {}, notes = lines_of(reason), reason = reason } end
  return { place = place, can = place:can(), notes = lines_of(place:notes()) }
end

local function mode_of(mode)
  mode = mode or sys.env("WORKER_CGROUP") or "auto"
  if not MODES[mode] then
    err.raise("config", ("WORKER_CGROUP is '%s'; expected auto, v2, v1 or none"):format(mode))
  end
  return mode
end

--- `cgroup.open(mode)`: find the place now, once; later calls change nothing.  Without a mode the
-- environment decides, else the best there is.
function cgroup.open(mode)
  if state then return end
  orphans.reap()
  state = find(mode_of(mode))
  state.keeper = start_keeper()
  announce(state)
  if state.place then
    for _, path in ipairs(state.place:paths()) do note("group", path) end
  else
    note("tag", orphans.tag_all())
  end
end

--- `cgroup.close()`: kill and remove the groups that are left; the keeper goes too.  The end of the
-- worker does the same.
function cgroup.close()
  if not state then return end
  if state.place then state.place:close() end
  if state.keeper then state.keeper:close() end
  state = nil
end

--- `cgroup.describe()`: {can = {memory = true, ...}, notes = {"why something is missing", ...},
-- path = "/sys/fs/cgroup/..."}.  The keys of `can`: memory, swap, cpus, pids (limits), cpu_time
-- (measured), birth, kill, oom_group (v2 alone).
function cgroup.describe()
  cgroup.open()
  return { can = state.can, notes = state.notes, path = state.place and state.place:paths()[1] }
end

-- Jobs -------------------------------------------------------------------------------------------

-- Somebody (a system service that tidies up) may have removed our empty group: make it again.
local function create(name, limits, score)
  local ok, group = pcall(state.place.create, state.place, name, limits, score)
  if ok then return group end
  if type(group) ~= "table" or state.place:count() > 0 then error(group, 0) end
  log.warn("cgroup.again", ("%s; making a new place"):format(tostring(group)))
  cgroup.close()
  cgroup.open()
  return state.place and state.place:create(name, limits, score)
end

--- `cgroup.create(name, limits, oom_score_adj)`: a group for one job, to be handed to process.spawn as
-- `cgroup` and closed when the job is over (closing kills what is left).  Without a name (nil) any group
-- will do: where it has no limits it may have served other jobs, which costs the kernel far less.  Limits:
-- memory, swap (bytes), cpus (1.5 is one and a half), pids.  A memory limit without one for swap allows no
-- swap.  The score, 0 to 1000, makes its processes better victims when memory runs out, once they have
-- lived for 0.1 to 0.2 seconds; process.spawn gives it at once, which costs each job some 30 us.
-- Returns nil where there are no control groups; second result: {memory = true, ...}, the limits that
-- were asked for and that nobody keeps.
function cgroup.create(name, limits, oom_score_adj)
  if not state then cgroup.open() end
  limits = limits or NOTHING
  local missing = {}
  if state.place and not (limits.memory or limits.swap or limits.cpus or limits.pids) then
    return create(name, nil, oom_score_adj), missing
  end
  local asked = { memory = limits.memory, swap = limits.swap, cpus = limits.cpus, pids = limits.pids }
  if not state.place then
    for limit in pairs(asked) do missing[limit] = true end
    return nil, missing
  end
  local swap_asked = asked.swap
  if asked.memory and not asked.swap then asked.swap = 0 end
  local group = create(name, asked, oom_score_adj)
  missing = group:unenforced()
  if not swap_asked then missing.swap = nil end
  return group, missing
end

--- `cgroup.out_of_memory(usage)`: whether the kernel killed something in the group for want of
-- memory, by the usage taken from `group:usage()`.
function cgroup.out_of_memory(usage)
  return (usage.oom_kills or 0) > 0
end

local kept = {}
kept.__index = kept
kept.__close = function(self) self:close() end

function kept:close()
  if state and self.keeper == state.keeper and self.keeper then
    self.keeper:forget(self.kind, self.text)
  end
  self.keeper = nil
end

--- `cgroup.keep(kind, what)`: should the worker be killed, the keeper ends this too: "dir" with an
-- absolute path, of a directory or a file, is removed, "session" with the pid of its leader is killed.  Close the result when
-- it is over.
function cgroup.keep(kind, what)
  cgroup.open()
  if kind == "session" then
    local start = orphans.start(what)
    if not start then return setmetatable({}, kept) end
    what = ("%d %d"):format(what, start)
  end
  note(kind, what)
  return setmetatable({ kind = kind, text = what, keeper = state.keeper }, kept)
end

--- `cgroup.keeper_pid()`: the keeper's process, or nil when there is none.
function cgroup.keeper_pid()
  local pid = state and state.keeper and state.keeper:pid()
  return pid ~= 0 and pid or nil
end

return cgroup
