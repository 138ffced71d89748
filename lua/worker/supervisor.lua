-- supervisor.lua: telling systemd (or whoever set NOTIFY_SOCKET) how the worker is.
--
-- READY when the first server is open, STOPPING when the worker drains (with more time asked for
-- while jobs finish), WATCHDOG from the loop itself: a loop that stalls is noticed.  The address is
-- taken out of the environment at once, so that no job can speak in our name.
local log = require "worker.log"
local sys = require "worker.core.sys"
local task = require "worker.task"

local supervisor = {}

local VARIABLES = { "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID" }
local MICRO = 1000000
local EXTEND_EVERY, EXTEND_BY = 5, 15

local methods = {}
local meta = { __index = methods, __name = "worker.supervisor" }

-- The watchdog of another process is not ours to feed.
local function watchdog_seconds(env)
  local micros = tonumber(env.WATCHDOG_USEC)
  if not micros or micros <= 0 then return nil end
  if env.WATCHDOG_PID and tonumber(env.WATCHDOG_PID) ~= sys.pid() then return nil end
  return micros / MICRO
end

--- `supervisor.new()`: from the environment; without a supervisor all calls do nothing.
function supervisor.new()
  local env = {}
  for _, name in ipairs(VARIABLES) do
    env[name] = sys.env(name)
    sys.unsetenv(name)
  end
  local address = env.NOTIFY_SOCKET
  if address and not address:find("^[/@]") then address = nil end
  return setmetatable({ address = address, watchdog = address and watchdog_seconds(env), turned = task.signal() }, meta)
end

--- `supervisor:tell(text)`: one message, lines of NAME=VALUE.
function methods:tell(text)
  if not self.address then return end
  local ok, why = pcall(require("worker.sock").datagram, self.address, text)
  if not ok then
    log.warn("supervisor.silent", "the supervisor cannot be told: " .. tostring(why))
    self.address = nil
  end
end

--- `supervisor:ready(status)`, `supervisor:stopping()`: the two turning points.
function methods:ready(status)
  if self.is_ready then return end
  self.is_ready = true
  self:tell("READY=1\nSTATUS=" .. status)
end

function methods:stopping()
  self.is_stopping = true
  self:tell("STOPPING=1\nSTATUS=finishing the running jobs")
  self.turned:fire()
end

--- `supervisor:reloading(fn)`: around reading the configuration again.
function methods:reloading(fn)
  self:tell(("RELOADING=1\nMONOTONIC_USEC=%d"):format(math.floor(sys.mono() * MICRO)))
  fn()
  self:tell("READY=1")
end

-- While jobs finish, the time to stop is extended piece by piece: never longer than we really live.
local function pulse(self)
  while true do
    self.turned:wait(self.is_stopping and EXTEND_EVERY or self.watchdog and self.watchdog / 2 or 3600)
    if self.watchdog then self:tell("WATCHDOG=1") end
    if self.is_stopping then self:tell(("EXTEND_TIMEOUT_USEC=%d"):format(EXTEND_BY * MICRO)) end
  end
end

--- `supervisor:run()`: keep the watchdog content, until cancelled.
function methods:run()
  if self.address then pulse(self) end
end

return supervisor
