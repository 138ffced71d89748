-- guard.lua: a plugin's function as the driver calls it.
--
-- A plugin may raise anything: a string, nothing at all, an object whose __tostring loops.  Whatever
-- it is arrives at the driver as an error object that can be printed, and a bug keeps the traceback
-- of the place where it was raised.
local core = require "worker.core.guard"
local err = require "worker.error"

local guard = {}

local WITH_TRACEBACK = { bug = true, limit = true }

local function text_of(why)
  if type(why) == "string" then return why end
  if why == nil then return "an error without a message" end
  local ok, text = pcall(tostring, why)
  return ok and text or ("an error that cannot be printed (a %s)"):format(type(why))
end

-- Called where the error is raised.
local function as_object(why)
  if not err.is(why) then why = err.new("bug", text_of(why)) end
  if WITH_TRACEBACK[why.kind] then why.traceback = why.traceback or debug.traceback(nil, 2) end
  return why
end

--- `guard.wrap(fn)`: the same function; what it raises is an error object.
function guard.wrap(fn)
  return core.wrap(fn, as_object)
end

return guard
