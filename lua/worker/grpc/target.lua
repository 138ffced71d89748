-- grpc/target.lua: where a server is: the forms in which gRPC programs write it.
local err = require "worker.error"

local target = {}

local FORMS = '"unix:///path", "unix:path", "unix-abstract:name", "host:port" or "dns:///host:port"'

local function place(where)
  local path = where:match("^unix://(/.+)$") or where:match("^unix:([^/].*)$") or where:match("^unix:(/[^/].*)$")
  if path then return { unix = path } end
  local name = where:match("^unix%-abstract:(.+)$")
  if name then return { unix = "@" .. name } end
  local rest = where:match("^dns:///?(.+)$") or where:match("^dns:([^/]+)$") or where:match("^ipv4:(.+)$")
    or where:match("^ipv6:(.+)$") or where
  local port = rest:match("^[%w%.%-_]*:(%d+)$") or rest:match("^%[[%x:%.]+%]:(%d+)$") or rest:match("^%*:(%d+)$")
  if port and #port <= 5 and tonumber(port) <= 65535 then return { address = rest } end
end

--- `target.parse(where)`: options for worker.sock (unix= or address=) and the authority to name.
function target.parse(where)
  local found = type(where) == "string" and place(where)
  if not found then
    err.raise("config", ("grpc: %q is no target; expected %s"):format(tostring(where), FORMS))
  end
  found.authority = found.address or "localhost"
  return found
end

return target
