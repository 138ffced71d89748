-- outage.lua: telling a failure once when it begins and once when it ends.
--
-- A server that is down for an hour is two lines in the log, not three thousand.
local log = require "worker.log"
local sys = require "worker.core.sys"

local outage = {}

local methods = {}
local meta = { __index = methods }

--- `outage.new(event, what)`: for messages like "<what>: connection refused".
function outage.new(event, what)
  return setmetatable({ event = event, what = what, failing = {} }, meta)
end

--- `outage:failed(why, fields, part)`: it failed (again), or a part of it. Returns true when this is
-- the first time.
function methods:failed(why, fields, part)
  self.count = (self.count or 0) + 1
  if part then self.failing[part] = true end
  if self.since then
    log.debug(self.event .. ".again", ("%s: %s"):format(self.what, tostring(why)), fields)
    return false
  end
  self.since = sys.mono()
  log.warn(self.event .. ".failing", ("%s: %s"):format(self.what, tostring(why)), fields)
  return true
end

--- `outage:worked(fields, part)`: it worked, or this part of it: the outage is over when no part is
-- left that failed and has not worked since.
function methods:worked(fields, part)
  if not self.since then return end
  if part then self.failing[part] = nil else self.failing = {} end
  if next(self.failing) then return end
  log.info(self.event .. ".back", ("%s works again after %.0f s and %d failures"):format(
    self.what, sys.mono() - self.since, self.count), fields)
  self.since, self.count = nil, nil
end

return outage
