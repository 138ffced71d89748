-- error.lua: what went wrong, as an object.
--
-- An error of the world is a table {kind=, message=, ...} with a common metatable: tostring() gives
-- the message, and whoever catches it looks at the kind.  A plain string is a bug.
--
--   transport  no answer: dns, connect, tls, timeout, reset     http   an answer nobody expected
--   grpc       a status that is not OK                          wire   an answer nobody can read
--   gone       the server no longer knows this worker           cancelled  somebody ended this
--   spawn      a program could not be started                   limit  more than is allowed
--   config     a person's mistake in the configuration          file   the disk said no
--   engine     a container engine says no, or is `away`        unusable   an executor cannot work now
--   locked     somebody else holds it                            redis  a Redis server says no
--   tool       a tool of worker.tools did not succeed            bug    ours
--   refused    the server will never take this, however often it is offered
local sys = require "worker.core.sys"

local error_module = {}

local meta = sys.error_metatable()

--- `error.new(kind, message, fields)`: an error object, not raised.
function error_module.new(kind, message, fields)
  local object = {}
  for key, value in pairs(fields or {}) do
    object[key] = value
  end
  object.kind, object.message = kind, message
  return setmetatable(object, meta)
end

--- `error.raise(kind, message, fields)`: raise an error object.
function error_module.raise(kind, message, fields)
  error(error_module.new(kind, message, fields), 0)
end

--- `error.is(value, kind)`: whether it is an error object (of this kind, when one is given).
function error_module.is(value, kind)
  return getmetatable(value) == meta and (kind == nil or value.kind == kind)
end

--- `error.kind(value)`: its kind; "bug" for anything that is not an error object.
function error_module.kind(value)
  return error_module.is(value) and value.kind or "bug"
end

--- `error.wire(message, sample)`: raise: the server said something that this adapter cannot read.
-- The sample is what it said; it is cut to a readable length.
function error_module.wire(message, sample)
  error_module.raise("wire", message, { sample = sample and tostring(sample):sub(1, 200) })
end

--- `error.gone(message)`: raise: the server no longer knows this worker; the driver opens anew.
function error_module.gone(message)
  error_module.raise("gone", message or "the server no longer knows this worker")
end

--- `error.wrap(value, context)`: the same error with "context: " in front of its message.
function error_module.wrap(value, context)
  if not error_module.is(value) then
    return error_module.new("bug", context .. ": " .. tostring(value))
  end
  value.message = context .. ": " .. value.message
  return value
end

return error_module
