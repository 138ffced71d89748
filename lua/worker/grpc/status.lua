-- grpc/status.lua: how a call ends: status codes, what they are called, what becomes one.
local err = require "worker.error"
local text = require "worker.text"

local status = {}

--- `status.NAMES[code]`: "NOT_FOUND" and so on, from 0 to 16.
status.NAMES = {
  [0] = "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
  "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED",
  "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
}

--- `status.CODES[name]`: the other way.
status.CODES = {}
for code, name in pairs(status.NAMES) do status.CODES[name] = code end

local CODES = status.CODES

-- A stream that was reset has said so in HTTP/2's words; all others are INTERNAL.
local OF_RESET = {
  CANCEL = CODES.CANCELLED, REFUSED_STREAM = CODES.UNAVAILABLE,
  ENHANCE_YOUR_CALM = CODES.RESOURCE_EXHAUSTED, INADEQUATE_SECURITY = CODES.PERMISSION_DENIED,
}

-- An answer that is not gRPC's at all: somebody in between, or no gRPC server.
local OF_HTTP = {
  ["400"] = CODES.INTERNAL, ["401"] = CODES.UNAUTHENTICATED, ["403"] = CODES.PERMISSION_DENIED,
  ["404"] = CODES.UNIMPLEMENTED, ["429"] = CODES.UNAVAILABLE, ["502"] = CODES.UNAVAILABLE,
  ["503"] = CODES.UNAVAILABLE, ["504"] = CODES.UNAVAILABLE,
}

--- `status.code(value)`: a code from a number or a name; nil when it is neither.
function status.code(value)
  if math.type(value) == "integer" and value >= 0 and value <= 16 then return value end
  return CODES[value]
end

--- `status.new(code, said, where)`: the error object; ${where} is the method.
function status.new(code, said, where)
  local name = status.NAMES[code] or "code " .. tostring(code)
  local message = name .. (said ~= "" and ": " .. said or "")
  return err.new("grpc", where and where .. ": " .. message or message,
    { code = code, status = name, said = said })
end

--- `status.too_big(said, where)`: over a ceiling of ours: trying again would not help.
function status.too_big(said, where)
  local why = status.new(CODES.RESOURCE_EXHAUSTED, said, where)
  why.reason = "too_big"
  return why
end

--- `status.read(headers, where)`: nil when the header block says OK, else the error it says; false
-- when it says nothing.
function status.read(headers, where)
  local code = headers["grpc-status"]
  if not code then return false end
  if code == "0" then return nil end
  local number = #code <= 3 and code:match("^%d+$") and math.tointeger(tonumber(code))
  if not number then
    return status.new(CODES.UNKNOWN, ("the server gave a status that is no number: %q"):format(code:sub(1, 40)), where)
  end
  local said = headers["grpc-message"] or ""
  return status.new(number, text.percent_decode(said) or said, where)
end

--- `status.of_http(headers, where)`: nil when the answer's head is one of gRPC, else what it means.
function status.of_http(headers, where)
  local http, kind = headers[":status"], headers["content-type"] or ""
  if http == "200" and kind == "application/grpc" then return nil end
  if http ~= "200" then
    return status.new(OF_HTTP[http] or CODES.UNKNOWN, "the server answered with HTTP status " .. tostring(http), where)
  end
  if kind:find("^application/grpc$") or kind:find("^application/grpc[+;]") then return nil end
  return status.new(CODES.UNKNOWN, ("the server answered with %q, not with gRPC"):format(kind:sub(1, 80)), where)
end

--- `status.of_failure(why, where, late)`: what a failure below gRPC means; ${late} says whether the
-- time of the call is over.  A lost connection stays what it is.
function status.of_failure(why, where, late)
  if not err.is(why) then return why end
  if why.kind == "limit" then
    return status.too_big(why.message, where)
  elseif why.kind == "wire" then
    return status.new(CODES.INTERNAL, why.message, where)
  elseif why.kind ~= "transport" then
    return why
  elseif why.reason == "timeout" and why.h2 or why.h2 == "CANCEL" and late then
    return status.new(CODES.DEADLINE_EXCEEDED, "the time allowed for the call is over", where)
  elseif why.reason == "refused" or not why.h2 then
    return err.wrap(why, where)
  end
  return status.new(OF_RESET[why.h2] or CODES.INTERNAL, why.message, where)
end

return status
