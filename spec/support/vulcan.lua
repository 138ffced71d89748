-- vulcan.lua: Vulcan's server and a worker on it, in the process of the specs (see spec.support.stage).
--
--   local fake = vulcan.fake { jobs = { "echo hi" }, heartbeat_timeout = 3, check_interval = 1 }
--   local worker = vulcan.worker(fake, { poll = "1s" }, { run = function(job, ctx) ... end })
local fakes = require "worker.fakes.vulcan"
local stage = require "spec.support.stage"

local vulcan = setmetatable({}, { __index = stage })

vulcan.TENANT = "00000000-0000-0000-0000-000000000001"

--- A fake that remembers what it was asked in fake.seen.
function vulcan.fake(options) return stage.fake(fakes, options) end

--- A worker on the fake: fields of its configuration; options of stage.worker, and url.
function vulcan.worker(fake, fields, options)
  local all = { protocol = "vulcan", fields = { tenant = vulcan.TENANT, poll = "1s" } }
  for name, value in pairs(options or {}) do all[name] = value end
  all.fields.url = all.url or fake.url
  for name, value in pairs(fields or {}) do all.fields[name] = value end
  return stage.worker(all)
end

--- How many workers the fake has in this state.
function vulcan.workers(fake, status)
  local n = 0
  for _, worker in pairs(fake.store.workers) do
    if not status or worker.status == status then n = n + 1 end
  end
  return n
end

return vulcan
