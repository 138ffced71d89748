-- baaaht.lua: baaaht's orchestrator and a worker on it, in the process of the specs (see spec.support.stage).
--
--   local fake = baaaht.fake { jobs = { "echo hi" } }
--   local worker = baaaht.worker(fake, { heartbeat_interval = "1s" }, { run = function(job, ctx) ... end })
--   local row = baaaht.ended(fake, 1)          the first task, once its end was told
--
-- With `container = true` the executor calls itself one, so that tools may run there.
local fakes = require "worker.fakes.baaaht"
local registry = require "worker.registry"
local shelf = require "worker.tools.shelf"
local stage = require "spec.support.stage"

local baaaht = setmetatable({}, { __index = stage })

shelf.set(registry.open { "plugins" }:shelf())

--- A fake that remembers what it was asked in fake.seen; over TCP, so that it needs no file.
function baaaht.fake(options) return stage.fake(fakes, options) end

--- A worker on the fake: fields of its configuration; options of stage.worker, and container.
function baaaht.worker(fake, fields, options)
  local all = { protocol = "baaaht", fields = { orchestrator_addr = fake.url }, slots = 5 }
  for name, value in pairs(options or {}) do all[name] = value end
  for name, value in pairs(fields or {}) do all.fields[name] = value end
  all.isolation = all.container and "container" or nil
  return stage.worker(all)
end

--- The row of a task, once n ends of it were told (1).
function baaaht.ended(fake, number, n)
  return stage.wait_for(function()
    local row = fake.list[number]
    return row and row.told.ends >= (n or 1) and row
  end)
end

--- What was said of a task as text: its last state and, of an error, its code.
function baaaht.said(row)
  local told = row.told
  local state = (told.statuses[#told.statuses] or "nothing"):gsub("^TASK_STATE_", "")
  return told.error and state .. " " .. told.error.code or state
end

return baaaht
