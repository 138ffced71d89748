-- outage.lua: telling a failure once when it begins and once when it ends.
--
-- A server that is down for an hour is two lines in the log, not three thousand.  Whoever is given as
-- `tell` hears of both as events, and may tell them in words of its own instead.
local log = require "worker.log"
local sys = require "worker.core.sys"

local outage = {}

local methods = {}
local meta = { __index = methods }

--- `outage.new(event, what, tell)`: for messages like "<what>: connection refused".  tell(name, facts)
-- hears of "<event>.failing" with facts.error and of "<event>.back", and returns true when it has told
-- that itself.
function outage.new(event, what, tell)
  return setmetatable({ event = event, what = what, failing = {}, tell = tell or function() end }, meta)
end

--- `outage:failed(why, fields, part, doing)`: it failed (again), or a part of it, while doing this or that.
-- Returns true when this is the first time.
function methods:failed(why, fields, part, doing)
  local words = ("%s: %s%s"):format(self.what, doing and doing .. ": " or "", tostring(why))
  self.count = (self.count or 0) + 1
  if part then self.failing[part] = true end
  if self.since then
    log.debug(self.event .. ".again", words, fields)
    return false
  end
  self.since = sys.mono()
  if not self.tell(self.event .. ".failing", { error = why, doing = doing }) then
    log.warn(self.event .. ".failing", words, fields)
  end
  return true
end

--- `outage:worked(fields, part)`: it worked, or this part of it: the outage is over when no part is
-- left that failed and has not worked since.
function methods:worked(fields, part)
  if not self.since then return end
  if part then self.failing[part] = nil else self.failing = {} end
  if next(self.failing) then return end
  local seconds, count = sys.mono() - self.since, self.count
  self.since, self.count = nil, nil
  if not self.tell(self.event .. ".back", { seconds = seconds, failures = count }) then
    log.info(self.event .. ".back", ("%s works again after %.0f s and %d failures"):format(self.what, seconds, count), fields)
  end
end

return outage
