-- grpc_spec.lua: what grpc.c does, in Lua over worker.grpc.  GRPC says which: "unary PATH N CALLS" or
-- "stream PATH MIB".  Run by `worker spec`, which is the shortest way into the binary.
local grpc = require "worker.grpc"
local sys = require "worker.core.sys"
local task = require "worker.task"

local what, path, n, calls = (os.getenv "GRPC"):match "^(%a+) (%S+) (%d+) ?(%d*)$"
n, calls = tonumber(n), tonumber(calls)

local function unary(client)
  local message, left, work = ("x"):rep(64), calls, {}
  for i = 1, n do
    work[i] = function()
      while left > 0 do
        left = left - 1
        client:call("/bench.Bench/Call", message)
      end
    end
  end
  task.all(work)
end

local function stream(client)
  local message = ("x"):rep(32 * 1024)
  local call <close> = client:stream "/bench.Bench/Call"
  for _ = 1, n * 32 do call:send(message) end
  call:close_send()
  assert(call:receive())
  assert(call:receive() == nil)
end

it("#realtime", function()
  local client <close> = grpc.client { target = "unix:" .. path }
  client:connect()
  local began, cpu = sys.mono(), os.clock()
  if what == "unary" then unary(client) else stream(client) end
  local took = sys.mono() - began
  cpu = os.clock() - cpu
  if what == "unary" then
    print(("GRPC %.0f %.2f"):format(calls / took, cpu * 1e6 / calls))
  else
    print(("GRPC %.0f %.0f"):format(n * 1.048576 / took, cpu * 1e9 / (n * 1024)))
  end
end)
