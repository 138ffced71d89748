-- journal.lua: the crash-safe record of claims and results.
--
-- What put() has returned from is on the disk, and whoever opens the journal after a crash finds
-- it. Of each key and kind the last payload is live until the key is dropped.  One process owns a
-- journal.
local core = require "worker.core.journal"
local err = require "worker.error"
local log = require "worker.log"

local journal = {}

local methods = {}
local meta = { __index = methods, __name = "worker.journal" }

--- `journal.open(path, options)`: open or create a journal. `max_bytes` (256 MiB) bounds the file,
-- `max_records` (65536) what is live. A second owner gets an error of kind "locked". What was found
-- damaged is logged; the good records are read all the same.
function journal.open(path, options)
  local ok, handle, report = pcall(core.open, path, options)
  if not ok then
    if err.is(handle) and handle.name == "EBUSY" then handle.kind = "locked" end
    error(handle, 0)
  end
  if report.damaged > 0 then
    log.error("journal.damaged", "parts of the journal are unreadable; the file was kept aside", {
      path = path .. ".damaged", places = report.damaged, bytes = report.damaged_bytes,
      at = report.damaged_at,
    })
  end
  if report.cut > 0 then
    log.info("journal.cut", "an unfinished record at the journal's end was removed", {
      path = path, bytes = report.cut,
    })
  end
  return setmetatable({ handle = handle, report = report }, meta)
end

--- `journal:put(key, kind, payload)`: write a record and wait until it is on the disk. Many waiting
-- at the same time share one sync. Raises kind "file" when the disk does not take it; the journal
-- stays usable. With { lazy = true } it waits until the record is written: a kill -9 loses nothing
-- then, a power cut may.
function methods:put(key, kind, payload, options)
  self.handle:put(key, kind, payload, options and options.lazy)
end

--- `journal:drop(key)`: forget all records of a key, and wait until that is on the disk.
function methods:drop(key, options)
  self.handle:drop(key, options and options.lazy)
end

--- `journal:get(key, kind)`: the live payload, or nil.
function methods:get(key, kind)
  return self.handle:get(key, kind)
end

--- `journal:live()`: iterate over the live records in the order they were written:
-- `for key, kind, payload in journal:live() do`. Putting and dropping meanwhile is allowed.
function methods:live()
  local list, at = self.handle:list(), 0
  return function()
    while at < #list do
      at = at + 1
      local record = list[at]
      local payload = self.handle:get(record.key, record.kind)
      if payload then return record.key, record.kind, payload end
    end
  end
end

--- `journal:stats()`: numbers for metrics: records, queued, file_bytes, live_bytes, written,
-- failed, syncs, sync_seconds, sync_max_seconds, compactions.
function methods:stats()
  return self.handle:stats()
end

--- `journal:close()`: waits for what is being written. Also at the end of a `<close>` variable.
function methods:close()
  self.handle:close()
end

function meta.__close(self)
  self.handle:close()
end

function meta.__tostring(self)
  return tostring(self.handle)
end

return journal
