-- redis.lua: a server whose replies are the input.
--
-- Each call must end with a value or an error object of a kind that it has.
local err = require "worker.error"
local fuzz = require "worker.core.fuzz"
local redis = require "worker.redis"
local sock = require "worker.sock"
local task = require "worker.task"

local KINDS = { wire = true, limit = true, transport = true, redis = true }

local path = os.tmpname()
os.remove(path)
local replies = ""
local listener = sock.listen { unix = path }
task.start(function()
  while true do
    local conn <close> = listener:accept()
    task.try(function()
      conn:write("+PONG\r\n" .. replies)
      conn:shutdown()
      while conn:read() do end -- luacheck: ignore 542
    end)
  end
end)

while true do
  replies = fuzz.next()
  local db <close> = redis.connect { url = "unix://" .. path, timeout = 1, max_reply = 2000 }
  for _ = 1, 5 do
    local ok, why = task.try(db.call, db, "GET", "key")
    if not ok and not KINDS[err.kind(why)] then error(why, 0) end
  end
end
