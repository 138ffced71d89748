-- slots.lua: how many jobs at a time there are open files for.
local log = require "worker.log"
local sys = require "worker.core.sys"

local slots = {}

-- The most a job costs: its pipes, its process, its control group and what is read there, a connection,
-- its log; and what the worker has open beside its jobs.
local FILES_PER_JOB, FILES_BESIDE = 12, 64

--- `slots.refusal([limit])`: why there are too few open files for any worker, or nil.
function slots.refusal(limit)
  limit = limit or sys.open_files() or math.huge
  if limit >= FILES_BESIDE then return nil end
  return ("this worker may have %d open files and needs %d at least: LimitNOFILE= in the unit or ulimit -Hn gives more")
    :format(limit, FILES_BESIDE)
end

--- `slots.grant(servers, [limit]) -> { [server] = slots }`: what each gets of the slots it asks for, which
-- is all of them unless the limit of open files is too low for that; then less, in proportion, but one.
function slots.grant(servers, limit)
  limit = limit or sys.open_files() or math.huge
  local asked, granted, given = 0, {}, 0
  for _, server in ipairs(servers) do asked = asked + server.slots end
  local share = math.min(1, (limit - FILES_BESIDE) / FILES_PER_JOB / asked)
  for _, server in ipairs(servers) do
    granted[server] = math.max(1, math.floor(server.slots * share))
    given = given + granted[server]
  end
  if given < asked then
    log.warn("worker.few_files", ("%d slots need %d open files, this worker may have %d: it works with %d of them; "
      .. "LimitNOFILE= in the unit or ulimit -Hn gives more"):format(asked, asked * FILES_PER_JOB + FILES_BESIDE,
      limit, given))
  end
  return granted
end

return slots
