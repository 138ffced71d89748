-- events.lua: what happens in the worker, for whoever wants to know (log, metrics, terminal).
--
-- An event has a stable name and a table of facts.  Listeners are plain functions that do not wait;
-- one that fails is told once and taken off.
local log = require "worker.log"

local events = {}

local methods = {}
local meta = { __index = methods, __name = "worker.events" }

--- `events.new()`: a place where events are emitted and listened to.
function events.new()
  return setmetatable({ listeners = {} }, meta)
end

--- `events:listen(fn)`: call fn(name, facts) for every event.
function methods:listen(fn)
  self.listeners[#self.listeners + 1] = fn
end

--- `events:emit(name, facts)`: tell everybody.
function methods:emit(name, facts)
  for i = #self.listeners, 1, -1 do
    local ok, why = pcall(self.listeners[i], name, facts)
    if not ok then
      table.remove(self.listeners, i)
      log.error("events.listener", "a listener for events failed and is taken off: " .. tostring(why))
    end
  end
end

return events
