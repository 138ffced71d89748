-- What the fuzzer of HTTP/2 begins with (spec/fuzz/h2), against the whole binary.
local err = require "worker.error"
local frames = require "spec.support.frames"
local fs = require "worker.fs"
local grpc = require "worker.grpc"
local servers = require "spec.support.server"
local sock = require "worker.sock"
local task = require "worker.task"

local AS_SERVER, UNGREETED = 1, 2 -- bits of an input's first byte, as spec/fuzz/h2.c has them

local function inputs()
  local list = {}
  for _, name in ipairs((fs.list "spec/fuzz/h2")) do
    local bytes = fs.read("spec/fuzz/h2/" .. name)
    list[#list + 1] = { name = name, choice = bytes:byte(), bytes = bytes:sub(2) }
  end
  assert(#list >= 20, "the inputs are gone")
  return list
end

-- The peer is a server: it says this to three calls and hangs up.
local function be_answered(input)
  local fake <close> = servers.tcp(function(conn)
    conn:read_exactly(#frames.PREFACE)
    if input.choice & UNGREETED == 0 then
      conn:write(frames.settings {} .. frames.frame("SETTINGS", frames.ACK, 0, ""))
    end
    task.sleep(1)
    conn:write(input.bytes)
    task.sleep(1)
  end)
  local client <close> = grpc.client { target = fake.address, max_header = 4096, timeout = 60 }
  local work = {}
  for i = 1, 3 do
    work[i] = function()
      local ok, why = task.try(client.call, client, "/a.B/C", "hello, world")
      assert.is_true(ok or err.is(why, "grpc") or err.is(why, "transport"), tostring(why))
      assert.is_true(ok or #why.message > 20)
    end
  end
  task.all(work)
end

-- The peer is a client: after it the server still serves.
local function be_asked(input)
  local server <close> = grpc.serve { listen = "127.0.0.1:0", max_header = 4096, max_streams = 4, services = {
    ["a.B"] = { C = function(message) return message end },
  } }
  local conn <close> = sock.connect { address = server.address }
  if input.choice & UNGREETED == 0 then conn:write(frames.PREFACE .. frames.settings {}) end
  conn:write(input.bytes)
  task.sleep(1)
  local client <close> = grpc.client { target = server.target }
  assert.equal("still here", (client:call("/a.B/C", "still here")))
  conn:close()
  task.sleep(1)
  assert.equal(0, server.busy)
end

describe("HTTP/2 bears", function()
  for _, input in ipairs(inputs()) do
    it(input.name, function()
      if input.choice & AS_SERVER == 0 then be_answered(input) else be_asked(input) end
    end)
  end
end)
