-- events.lua: what happens in the worker, for whoever wants to know (log, metrics, terminal).
--
-- Facts that nobody wants need not be put together: `events.wanted[name]` says whether anybody does.
--
-- An event has a stable name and a table of facts.  Listeners are plain functions that do not wait;
-- one that fails is told once and taken off.
local log = require "worker.log"

local events = {}

local methods = {}
local meta = { __index = methods, __name = "worker.events" }

--- `events.new()`: a place where events are emitted and listened to.
function events.new()
  return setmetatable({ of_all = {}, by_name = {}, wanted = {} }, meta)
end

local EVERYTHING = { __index = function() return true end }

--- `events.everything`: what somebody wants who wants it all.
events.everything = setmetatable({}, EVERYTHING)

--- `events:listen(fn, names)`: call fn(name, facts) for every event, or for those of a list of names.
function methods:listen(fn, names)
  if not names then
    self.of_all[#self.of_all + 1] = fn
    setmetatable(self.wanted, EVERYTHING)
  end
  for _, name in ipairs(names or {}) do
    self.wanted[name] = true
    local list = self.by_name[name] or {}
    self.by_name[name] = list
    list[#list + 1] = fn
  end
end

--- `events:ignore(fn)`: take a listener for every event off again.
function methods:ignore(fn)
  for i, other in ipairs(self.of_all) do
    if other == fn then
      table.remove(self.of_all, i)
      break
    end
  end
  if #self.of_all == 0 then setmetatable(self.wanted, nil) end
end

local function tell(listeners, name, facts)
  for i = #listeners, 1, -1 do
    local ok, why = pcall(listeners[i], name, facts)
    if not ok then
      table.remove(listeners, i)
      log.error("events.listener", "a listener for events failed and is taken off: " .. tostring(why))
    end
  end
end

--- `events:emit(name, facts)`: tell everybody who wants to hear of it.
function methods:emit(name, facts)
  if self.of_all[1] then tell(self.of_all, name, facts) end
  if self.by_name[name] then tell(self.by_name[name], name, facts) end
end

return events
