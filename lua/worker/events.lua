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
  return setmetatable({ of_all = {}, by_name = {} }, meta)
end

--- `events:listen(fn, names)`: call fn(name, facts) for every event, or for those of a list of names.
function methods:listen(fn, names)
  if not names then self.of_all[#self.of_all + 1] = fn end
  for _, name in ipairs(names or {}) do
    local list = self.by_name[name] or {}
    self.by_name[name] = list
    list[#list + 1] = fn
  end
end

--- `events:ignore(fn)`: take a listener for every event off again.
function methods:ignore(fn)
  for i, other in ipairs(self.of_all) do
    if other == fn then return table.remove(self.of_all, i) end
  end
end

--- `events:wants(name)`: whether anybody listens: facts for nobody need not be put together.
function methods:wants(name)
  return self.of_all[1] ~= nil or self.by_name[name] ~= nil
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
