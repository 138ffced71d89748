-- The health address of a busy worker, asked by everybody at once: the well-behaved get every answer, and
-- the others cost neither a job nor much memory.
local http = require "worker.http"
local program = require "spec.support.program"
local sites = require "spec.support.site"
local sock = require "worker.sock"
local sys = require "worker.core.sys"
local task = require "worker.task"

local CROWD = 2000
local MEMORY_MOST = 64 * 1024 -- KiB
local SANITIZED = program.binary:find("/asan/", 1, true) ~= nil -- keeps what was freed, for a while
local LOUD = "i=0; while [ $i -lt 3000 ]; do i=$((i + 1)); echo \"line $i of a job that talks all the time\"; done"

-- A client that connects and does this; however it ends.
local function client(address, fn)
  return function()
    task.try(function()
      local conn <close> = sock.connect { address = address, timeout = 30 }
      fn(conn)
    end)
  end
end

local function silent(conn) conn:read(1, { timeout = 5 }) end
local function garbage(conn)
  conn:write(("\0\255GARBAGE\r\n\r\n"):rep(100))
  conn:read(4096, { timeout = 5 })
end
local function slow(conn)
  for byte in ("GET /health HTTP/1.1\r\nHost: x\r\nX-Slow: yes"):gmatch "." do
    conn:write(byte)
    task.sleep(0.2)
  end
end
local function pipelining(conn)
  conn:write(("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"):rep(200)) -- and reads nothing
  task.sleep(5)
end
local function endless(conn)
  conn:write("POST /health HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n")
  for _ = 1, 50 do conn:write(("x"):rep(65536)) end
end

describe("the health address #realtime", function()
  it("answers while every slot is busy and thousands ask for the worst", function()
    local site <close> = sites.new()
    for i = 1, 12 do site:drop(("loud-%02d.sh"):format(i), LOUD) end
    site:drop("long.sh", "sleep 12; echo done")
    local run <close> = site:start { "--slots", "4", "--health-address", "127.0.0.1:0" }
    run:says "health%.ready.-http://[%d.:]+"
    local address = table.concat(run.stderr):match "http://([%d.]+:%d+)"
    local api <close> = http.client { base = "http://" .. address, timeout = 60 }
    program.eventually(function() return api:get("/health", { expect = "any" }).json.status == "healthy" end)
    local kinds, answered, refused, slowest = { silent, garbage, slow, pipelining, endless }, 0, 0, 0
    task.scope(function(scope)
      for i = 1, CROWD do scope:spawn(client(address, kinds[i % #kinds + 1])) end
      for _ = 1, 50 do
        local began = sys.mono()
        local ok, reply = task.try(api.get, api, "/health", { expect = "any" })
        slowest = math.max(slowest, sys.mono() - began)
        if ok and reply.status == 200 then answered = answered + 1 else refused = refused + 1 end
        task.sleep(0.1)
      end
      scope:cancel "enough"
    end)
    assert.equal("healthy", program.eventually(function()
      local ok, reply = task.try(api.get, api, "/health", { expect = "any" })
      return ok and reply.status == 200 and reply.json.status
    end))
    for i = 1, 12 do assert.equal("success", site:result(("loud-%02d"):format(i)).state) end
    assert.equal("success", site:result("long").state)
    assert.equal(0, refused, ("%d answered, %d refused, slowest %.1f s"):format(answered, refused, slowest))
    assert.is_true(SANITIZED or run:peak() < MEMORY_MOST, run:peak() .. " KiB")
    run:signal "TERM"
    assert.equal(0, run:wait().code)
  end)
end)
