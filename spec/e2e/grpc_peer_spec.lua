-- gRPC with the gRPC that most of the world runs: Python's grpcio, which is its C core.
local fs = require "worker.fs"
local grpc = require "worker.grpc"
local process = require "worker.process"
local program = require "spec.support.program"
local scratch = require "spec.support.scratch"
local sys = require "worker.core.sys"
local talk = require "spec.support.talk"
local task = require "worker.task"

local function peer(...)
  return process.spawn { argv = { "/usr/bin/python3", "spec/support/grpc_peer.py", ... }, stdin = true, merge = true,
    env = { PATH = sys.env "PATH" } }
end

-- A server of theirs, and the port it found.
local function start(...)
  local child, port = peer("serve", ...), nil
  local said = ""
  for _, text in child:output() do
    said = said .. text
    port = said:match "up (%d+)"
    if port then break end
  end
  assert(port, said)
  return child, port
end

local function certificate(dir)
  local made = process.run { argv = { "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
    "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext",
    "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", dir:path "key", "-out", dir:path "cert" },
    env = { PATH = sys.env "PATH" } }
  assert.equal(0, made.exit_code)
end

for _, way in ipairs { "a Unix socket", "TCP", "TLS" } do
  describe("a server in Python over " .. way .. " #realtime", function()
    local dir, child, client

    setup(function()
      dir = scratch.dir()
      local port
      if way == "a Unix socket" then
        child = start("unix:" .. dir:path "sock")
        client = grpc.client { target = "unix:" .. dir:path "sock" }
      elseif way == "TCP" then
        child, port = start "127.0.0.1:0"
        client = grpc.client { target = "127.0.0.1:" .. port }
      else
        certificate(dir)
        child, port = start("127.0.0.1:0", dir:path "cert", dir:path "key")
        client = grpc.client { target = "localhost:" .. port, tls = { ca_file = dir:path "cert" } }
      end
      client:connect()
    end)
    teardown(function()
      client:close()
      child:close()
      fs.remove_tree(dir.root)
    end)

    local function failure(method, options)
      return talk.failure(client.call, client, "/x.Y/" .. method, "x", options)
    end

    it("answers", function()
      assert.equal("hi", (client:call("/x.Y/Echo", "hi")))
      assert.equal("", (client:call("/x.Y/Echo", "")))
    end)

    it("tells statuses, with any words", function()
      assert.equal("no such thing: 100 % \195\164\n", failure "No".said)
      assert.equal("UNIMPLEMENTED", failure "Nothing".status)
      assert.equal("DEADLINE_EXCEEDED", failure("Slow", { timeout = 0.3 }).status)
    end)

    it("exchanges 50 MiB in one message", function()
      local large = client:call("/x.Y/Big", tostring(50 << 20))
      assert.equal(50 << 20, #large)
      assert.equal(50 << 20, #client:call("/x.Y/Echo", large))
    end)

    it("streams thousands of messages", function()
      local call <close> = client:stream "/x.Y/Flood"
      call:send("2000", true)
      local count = 0
      for message in function() return call:receive() end do count = count + #message end
      assert.equal(2000 * 32768, count)
    end)

    it("talks in both directions on twenty streams at once", function()
      local work = {}
      for i = 1, 20 do
        work[i] = function()
          local call <close> = client:stream "/x.Y/Shout"
          for j = 1, 20 do
            call:send(i .. "a" .. j)
            assert.equal(i .. "A" .. j, call:receive())
          end
          call:close_send()
          assert.is_nil(call:receive())
        end
      end
      task.all(work)
    end)

    it("may end first, well or not", function()
      local call <close> = client:stream "/x.Y/First"
      call:send "one"
      assert.equal("one", call:receive())
      assert.is_nil(call:receive())
      local other <close> = client:stream "/x.Y/Early"
      assert.equal("go away", talk.failure(other.receive, other).said)
    end)

    it("gets metadata and the deadline, and gives some", function()
      local call <close> = client:stream("/x.Y/Meta", { timeout = 50,
        metadata = { ["x-text"] = "t", ["x-bytes-bin"] = "\0\255" } })
      call:send("", true)
      assert.equal("50", call:receive())
      assert.is_nil(call:receive())
      assert.equal("t", call.headers["x-head"])
      assert.equal("\0\255", call.trailers["x-tail-bin"])
    end)
  end)
end

describe("a client in Python #realtime", function()
  it("is served", function()
    local waiting = 0
    local server <close> = grpc.serve { listen = "127.0.0.1:0", services = { ["a.B"] = {
      Echo = function(message) return message end,
      No = function() grpc.raise("NOT_FOUND", "no: 100 % \195\164\n") end,
      Slow = function() task.sleep(30) end,
      Shout = { stream = function(call)
        for message in function() return call:receive() end do call:send(message:upper()) end
      end },
      Meta = { stream = function(call)
        call:begin { ["x-head"] = call.metadata["x-text"] }
        call.trailers["x-tail-bin"] = call.metadata["x-bytes-bin"]
        call:send(call:receive())
      end },
      Wait = { stream = function()
        waiting = waiting + 1
        local held <close> = setmetatable({}, { __close = function() waiting = waiting - 1 end }) -- luacheck: ignore held
        task.sleep(60)
      end },
    } } }
    local child <close> = peer("call", server.target)
    local said = {}
    for _, text in child:output() do said[#said + 1] = text end
    assert.equal([[
echo b'hi'
empty b''
large 20000000
no 'NOT_FOUND: no: 100 % ä\n'
unknown UNIMPLEMENTED: unknown method /a.B/Nothing
slow DEADLINE_EXCEEDED
gzip UNIMPLEMENTED: compression is not offered
shout b'A  B'
meta [b'x'] t b'\x00\xff'
many 50
cancelled CANCELLED
]], table.concat(said))
    program.eventually(function() return waiting == 0 and server.busy == 0 end)
  end)
end)

describe("a server that has stopped listening, but still holds the line #realtime", function()
  it("is given up, and soon", function()
    local dir <close> = scratch.dir()
    local child <close> = process.spawn { stdin = true, merge = true, env = { PATH = sys.env "PATH" },
      argv = { "/usr/bin/python3", "-c", [[
import socket, sys
server = socket.socket(socket.AF_UNIX)
server.bind(sys.argv[1])
server.listen()
print("up", flush=True)
conn, _ = server.accept()
conn.send(b"\0\0\0\4\0\0\0\0\0")
said = b""
while b"\0\0\0\4\1" not in said: # our greeting is acknowledged
    said += conn.recv(4096)
conn.shutdown(socket.SHUT_RD)
print("deaf", flush=True)
sys.stdin.read()
]], dir:path "sock" } }
    local output = child:output()
    output()
    local client <close> = grpc.client { target = "unix:" .. dir:path "sock" }
    client:connect()
    output()
    local why = talk.failure(client.call, client, "/a.B/C", "x")
    assert.equal("closed", why.reason, tostring(why))
  end)
end)
