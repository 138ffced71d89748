-- Run by spec/core/listen_spec.lua in a worker of its own that may have very few file descriptors.
local core = require "worker.core.sock"
local listen = require "worker.core.listen".listen
local serve = require "worker.serve"
local sys = require "worker.core.sys"
local task = require "worker.task"

-- Connections nobody accepts yet, until there is no file descriptor left.
local function use_up(unix)
  local ends, why = {}, nil
  repeat
    local ok, conn = pcall(core.connect, { unix = unix })
    if ok then ends[#ends + 1] = conn else why = conn end
  until not ok
  assert.matches("Too many open files", why.message)
  return ends
end

it("a listener waits for file descriptors without spinning", function()
  local listener <close> = listen { unix = "@no-files-" .. sys.pid(), max_connections = 1000 }
  local ends = use_up(listener:address():sub(6))
  local turns = sys.turns()
  assert.equal("timeout", select(2, pcall(listener.accept, listener, { timeout = 10 })).reason)
  assert.is_true(listener:counts().pauses >= 2)
  assert.is_true(sys.turns() - turns < 500)
  ends[#ends]:close()
  local conn = listener:accept()
  conn:write("x")
  assert.equal("x", ends[1]:read())
  conn:close()
  for _, each in ipairs(ends) do each:close() end
end)

it("a server goes on when there are file descriptors again", function()
  local unix = "@no-files-http-" .. sys.pid()
  local held <close> = serve.http { -- luacheck: ignore held
    unix = unix, handler = function(_, reply) reply:text(200, "here") end,
  }
  local ends = use_up(unix)
  task.sleep(30)
  for _, each in ipairs(ends) do each:close() end
  local conn <close> = core.connect { unix = unix }
  conn:write("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
  assert.matches("^HTTP/1.1 200 ", conn:head())
end)
