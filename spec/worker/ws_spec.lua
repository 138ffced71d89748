-- WebSockets: both sides of ours against each other, and each against bare bytes.
local core = require "worker.core.text"
local process = require "worker.process"
local scratch = require "spec.support.scratch"
local serve = require "worker.serve"
local sock = require "worker.sock"
local sys = require "worker.core.sys"
local talk = require "spec.support.talk"
local task = require "worker.task"
local text = require "worker.text"
local ws = require "worker.ws"

local KEY = "dGhlIHNhbXBsZSBub25jZQ=="
local HELLO = "GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
  .. "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " .. KEY .. "\r\n"

-- A server whose connections are given to `talker`.
local function serving(talker, options)
  local all = { address = "127.0.0.1:0", handler = function(request, reply)
    local conn <close> = ws.accept(request, reply, options)
    talker(conn, request)
  end }
  local server = talk.server(all)
  return server, server.url:gsub("^http", "ws") .. "/ws"
end

local function echo(conn)
  for message, kind in function() return conn:receive() end do
    if kind == "closed" then return end
    conn:send(message, kind)
  end
end

-- A bare server: one connection whose handshake is answered, then `talker(conn, head)`.
local function bare(talker, answer)
  local listener = sock.listen { address = "127.0.0.1:0" }
  local handle = task.start(function()
    local held <close> = listener
    local conn <close> = held:accept()
    local head = conn:head(16384)
    local key = head:match("Sec%-WebSocket%-Key: (%S+)")
    local accept = text.base64(core.sha1(key .. "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
    conn:write(answer and answer(accept) or "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
      .. "Connection: Upgrade\r\nSec-WebSocket-Accept: " .. accept .. "\r\n\r\n")
    if talker then talker(conn, head) end
  end)
  return "ws://" .. listener:address() .. "/ws", handle
end

-- A frame as a client sends it, however wrong.
local function masked(first, payload, length)
  local n = length or #payload
  local head = n < 126 and string.pack(">BB", first, 128 | n) or string.pack(">BBI2", first, 128 | 126, n)
  return head .. "\1\2\3\4" .. core.mask(payload, "\1\2\3\4")
end

local function plain(first, payload)
  return string.pack(">BB", first, #payload) .. payload
end

-- What is left of a frame without its mask: opcode, payload.
local function frame_from(conn)
  local first, second = conn:read_exactly(2, { timeout = 60 }):byte(1, 2)
  local n = second & 127
  if n == 126 then n = string.unpack(">I2", conn:read_exactly(2)) end
  local key = second & 128 ~= 0 and conn:read_exactly(4)
  local payload = n > 0 and conn:read_exactly(n) or ""
  return first & 15, key and core.mask(payload, key) or payload
end

describe("the digest of the handshake", function()
  it("is SHA-1 as FIPS 180-4 has it, at every length around a block", function()
    local function digest(s) return text.hex(core.sha1(s)) end
    assert.equal("da39a3ee5e6b4b0d3255bfef95601890afd80709", digest "")
    assert.equal("a9993e364706816aba3e25717850c26c9cd0d89d", digest "abc")
    assert.equal("34aa973cd4c4daa4f61eeb2bdbad27316534016f", digest(("a"):rep(1000000)))
    local path = os.tmpname()
    for n = 54, 66 do
      local file <close> = assert(io.open(path, "w"))
      file:write(("q"):rep(n)):flush()
      local pipe <close> = assert(io.popen("sha1sum < " .. path))
      assert.equal(pipe:read("a"):sub(1, 40), digest(("q"):rep(n)))
    end
    os.remove(path)
  end)

  it("masks each byte with the next of four, of any length, and unmasks the same way", function()
    for n = 0, 33 do
      local s, want = ("abcdefgh"):rep(5):sub(1, n), {}
      for i = 1, n do want[i] = string.char(s:byte(i) ~ ("\1\2\3\200"):byte((i - 1) % 4 + 1)) end
      assert.equal(table.concat(want), core.mask(s, "\1\2\3\200"))
      assert.equal(s, core.mask(core.mask(s, "\1\2\3\200"), "\1\2\3\200"))
    end
    assert.is_false((pcall(core.mask, "x", "abc")))
    assert.not_equal(core.random(16), core.random(16))
    assert.is_false((pcall(core.random, 257)))
  end)
end)

describe("worker.ws", function()
  it("carries texts and bytes in both directions, of every kind of length", function()
    local _, url = serving(echo)
    local conn <close> = ws.connect { url = url }
    for _, n in ipairs { 0, 1, 125, 126, 127, 65535, 65536, 200000 } do
      conn:send(("x"):rep(n))
      assert.same({ ("x"):rep(n), "text" }, { conn:receive(5) })
    end
    conn:send("\0\255\1", "binary")
    assert.same({ "\0\255\1", "binary" }, { conn:receive(5) })
    conn:send("Grüße 日本")
    assert.equal("Grüße 日本", (conn:receive(5)))
    assert.matches("open", tostring(conn))
  end)

  it("says goodbye, and hears why", function()
    local heard
    local _, url = serving(function(conn)
      assert.equal("closed", select(2, conn:receive()))
      heard = { conn.code, conn.reason }
    end)
    local conn = ws.connect { url = url }
    conn:close(4001, "enough")
    conn:close()
    assert.same({ 4001, "enough" }, heard)
    assert.is_false(conn:is_open())
    assert.same({ nil, "closed" }, { conn:receive() })
    assert.equal("closed", talk.failure(conn.send, conn, "late").reason)
  end)

  it("tells who receives that another task has closed", function()
    local _, url = serving(echo)
    local conn = ws.connect { url = url }
    task.scope(function(scope)
      local got
      scope:spawn(function() got = { conn:receive() } end)
      task.sleep(1)
      conn:close()
      scope:wait()
      assert.same({ nil, "closed" }, got)
    end)
    assert.equal(1000, conn.code)
  end)

  it("gives up waiting for a message without losing one", function()
    local _, url = serving(function(conn)
      task.sleep(3)
      conn:send("late")
      conn:receive()
    end)
    local conn <close> = ws.connect { url = url }
    assert.same({ nil, "timeout" }, { conn:receive(1) })
    assert.same({ nil, "timeout" }, { conn:receive(0) })
    assert.equal("late", (conn:receive(5)))
  end)

  it("goes on in the middle of a frame when its wait was cancelled", function()
    local url, peer = bare(function(conn)
      conn:write("\129")
      task.sleep(2)
      conn:write("\126")
      task.sleep(2)
      conn:write("\0\126" .. ("y"):rep(60))
      task.sleep(2)
      conn:write(("y"):rep(66))
      conn:read()
    end)
    local conn = ws.connect { url = url }
    for _ = 1, 3 do assert.is_false((task.within(1.5, conn.receive, conn))) end
    assert.equal(("y"):rep(126), (conn:receive(5)))
    conn:close()
    peer:join()
  end)

  it("answers pings while it receives, and puts fragments together around them", function()
    local pong
    local url, peer = bare(function(conn)
      conn:write(plain(0x01, "one ") .. plain(0x89, "still there?") .. plain(0x00, "") .. plain(0x80, "two"))
      pong = { frame_from(conn) }
      conn:read()
    end)
    local conn = ws.connect { url = url }
    assert.equal("one two", (conn:receive(5)))
    conn:close()
    peer:join()
    assert.same({ 10, "still there?" }, pong)
  end)

  it("asks a silent side whether it is there, and gives it up", function()
    local asked
    local url, peer = bare(function(conn)
      asked = frame_from(conn)
      task.sleep(1)
      conn:write(plain(0x8a, ""))
      asked = asked + frame_from(conn)
      talk.rest(conn)
    end)
    local conn = ws.connect { url = url, ping = 5 }
    local why = talk.failure(conn.receive, conn)
    assert.equal("timeout", why.reason)
    assert.matches("silent for 10 s", why.message)
    peer:join()
    assert.equal(18, asked)
    assert.is_false(conn:is_open())
  end)

  it("raises an end without a goodbye", function()
    local url, peer = bare(function(conn) conn:write("\129\5ab") end)
    local conn = ws.connect { url = url }
    local why = talk.failure(conn.receive, conn, 5)
    assert.equal("transport", why.kind)
    peer:join()
    assert.same({ nil, "closed" }, { conn:receive() })
  end)

  it("lets go of one that is left by an error, without waiting for manners", function()
    local code
    local _, url = serving(function(conn)
      conn:receive()
      code = conn.code
    end)
    pcall(function()
      local conn <close> = ws.connect { url = url }
      error("a bug of " .. tostring(conn))
    end)
    task.sleep(1)
    assert.equal(1011, code)
  end)

  it("refuses to send what is no text as one", function()
    local _, url = serving(echo)
    local conn <close> = ws.connect { url = url }
    assert.matches("not UTF%-8", talk.failure(conn.send, conn, "\255"))
  end)

  it("is spoken over Unix sockets, too", function()
    local path = talk.path "ws"
    talk.server { unix = path, handler = function(request, reply)
      local conn <close> = ws.accept(request, reply)
      echo(conn)
    end }
    local conn <close> = ws.connect { url = "ws://localhost/", unix = path }
    conn:send("through a file")
    assert.equal("through a file", (conn:receive(5)))
  end)
end)

describe("worker.ws over TLS #realtime", function()
  local PATH = { PATH = sys.env "PATH" }

  -- openssl at our address; what it decrypts goes to the server, and back.
  local function terminator(dir, server)
    local made = process.run { argv = { "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
      "-nodes", "-keyout", "key.pem", "-out", "cert.pem", "-days", "2", "-subj", "/CN=localhost", "-addext",
      "subjectAltName=IP:127.0.0.1" }, env = PATH, cwd = dir.root }
    assert.equal(0, made.exit_code, made.stderr)
    local child = process.spawn { argv = { "openssl", "s_server", "-accept", "127.0.0.1:0", "-cert", "cert.pem",
      "-key", "key.pem", "-naccept", "1" }, env = PATH, cwd = dir.root, stdin = true }
    local pieces = child:output()
    local said = ""
    repeat said = said .. select(2, pieces()) until said:find "ACCEPT [%d.:]+\n"
    local inner = sock.connect { address = server.address }
    local pump = task.start(function()
      local begun = false
      for stream, data in pieces do -- before the request it talks about itself
        begun = begun or stream == "stdout" and data:find "GET /"
        if stream == "stdout" and begun then inner:write(type(begun) == "number" and data:sub(begun) or data) begun = true end
      end
    end)
    local back = task.start(function()
      for data in function() return inner:read() end do child:write(data) end
    end)
    return said:match "ACCEPT ([%d.:]+)\n", function()
      child:close()
      inner:close()
      pump:join()
      back:join()
    end
  end

  it("is the same, and trusts nobody blindly", function()
    local dir <close> = scratch.dir()
    local server = serving(echo)
    local address, stop = terminator(dir, server)
    assert.equal("tls", talk.failure(ws.connect, { url = "wss://" .. address .. "/ws" }).reason)
    stop()
    address, stop = terminator(dir, server)
    local conn = ws.connect { url = "wss://" .. address .. "/ws", tls = { ca_file = dir:path "cert.pem" } }
    for _, n in ipairs { 1, 1000, 70000 } do
      conn:send(("x"):rep(n))
      assert.equal(n, #conn:receive(30))
    end
    conn:close()
    stop()
  end)
end)

describe("the handshake of a client", function()
  it("sends headers, reveals secrets and takes one of its protocols", function()
    local seen
    local _, url = serving(function(conn, request)
      seen = request.headers
      assert.equal("b", conn.protocol)
      conn:receive()
    end, { protocols = { "b", "a" } })
    local token = require("worker.secret").value "a-secret-token"
    local conn <close> = ws.connect { url = url .. "?x=1", protocols = { "a", "b" }, headers = { ["X-API-Key"] = token } }
    assert.equal("b", conn.protocol)
    assert.equal("a-secret-token", seen["x-api-key"])
  end)

  it("raises what the server answers instead", function()
    local server = talk.server { handler = function(_, reply) reply:text(401, "who are you?", { ["Retry-After"] = 7 }) end }
    local why = talk.failure(ws.connect, { url = server.url .. "/ws" })
    assert.equal("http", why.kind)
    assert.equal(401, why.status)
    assert.equal(7, why.retry_after)
    assert.matches("who are you", why.message)
  end)

  it("takes no answer but the one to its own question", function()
    local upgrade, connection = "Upgrade: websocket\r\n", "Connection: Upgrade\r\n"
    local function head(...) return "HTTP/1.1 101 OK\r\n" .. table.concat({ ... }) .. "Sec-WebSocket-Accept: " end
    local right = head(upgrade, connection)
    for name, answer in pairs {
      Upgrade = function(accept) return head(connection) .. accept .. "\r\n\r\n" end,
      Connection = function(accept) return head(upgrade) .. accept .. "\r\n\r\n" end,
      Accept = function() return right .. "AAAA\r\n\r\n" end,
      Extensions = function(accept) return right .. accept .. "\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n" end,
      Protocol = function(accept) return right .. accept .. "\r\nSec-WebSocket-Protocol: other\r\n\r\n" end,
      ["not HTTP"] = function() return "SSH-2.0-x\r\n\r\n" end,
    } do
      local url, peer = bare(nil, answer)
      local why = talk.failure(ws.connect, { url = url })
      assert.equal("wire", why.kind)
      assert.is_truthy(why.message:find(name, 1, true), why.message)
      peer:join()
    end
  end)

  it("is over in time, however the server drips", function()
    local url, peer = bare(function(conn) conn:read() end, function() return "HTTP/1.1 101 OK\r\n" end)
    assert.equal("timeout", talk.failure(ws.connect, { url = url, timeout = 2 }).reason)
    peer:join()
    url, peer = bare(function(conn) task.try(talk.rest, conn) end, function() return ("x"):rep(20000) end)
    assert.equal("limit", talk.failure(ws.connect, { url = url }).kind)
    peer:join()
  end)

  it("refuses what is no address, and headers that are not the caller's", function()
    for _, url in ipairs { "ftp://x/", "ws://", "ws://user:pw@x/", "x", "ws://x/a b", "ws://x/\r\nA: b" } do
      local why = talk.failure(ws.connect, { url = url })
      assert.equal("config", why.kind)
      assert.is_nil(why.message:find("pw", 1, true))
    end
    local _, url = serving(echo)
    for _, headers in ipairs { { Host = "y" }, { ["Sec-WebSocket-Key"] = "y" }, { A = "b\r\nC: d" }, { ["A B"] = "c" } } do
      assert.equal("config", talk.failure(ws.connect, { url = url, headers = headers }).kind)
    end
  end)
end)

describe("the handshake of a server", function()
  local function status(request)
    local server = serving(echo, { protocols = { "v1" } })
    local answer = talk.answer(server, request .. "\r\n")
    return tonumber(answer:match("^HTTP/1.1 (%d+)")), answer
  end

  it("is the one of RFC 6455", function()
    local code, answer = status(HELLO)
    assert.equal(101, code)
    assert.is_truthy(answer:find("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n", 1, true))
  end)

  it("refuses what is none, and says what it wants", function()
    assert.equal(426, (status((HELLO:gsub("Upgrade: websocket\r\n", "")))))
    assert.equal(426, (status((HELLO:gsub("Connection: Upgrade\r\n", "Connection: keep-alive\r\n")))))
    assert.equal(426, (status((HELLO:gsub("^GET", "PUT")))))
    assert.matches("\r\nSec%-WebSocket%-Version: 13\r\n", select(2, status((HELLO:gsub("Version: 13", "Version: 8")))))
    assert.equal(400, (status((HELLO:gsub("Key: %S+", "Key: short")))))
    assert.equal(400, (status((HELLO:gsub("\r\nSec%-WebSocket%-Key: %S+", "")))))
    assert.equal(400, (status(HELLO .. "Sec-WebSocket-Protocol: v2\r\n")))
    assert.equal(101, (status(HELLO .. "Sec-WebSocket-Protocol: v2, v1\r\n")))
    assert.equal(403, (status(HELLO .. "Origin: https://elsewhere.example\r\n")))
  end)

  it("takes no extension", function()
    local code, answer = status(HELLO .. "Sec-WebSocket-Extensions: permessage-deflate\r\n")
    assert.equal(101, code)
    assert.is_nil(answer:find("Extensions", 1, true))
  end)

  it("lets in the pages it was told to", function()
    local server = serving(echo, { origins = { "https://here.example" } })
    assert.matches("^HTTP/1.1 101 ", talk.answer(server, HELLO .. "Origin: https://here.example\r\n\r\n"))
    assert.matches("^HTTP/1.1 403 ", talk.answer(server, HELLO .. "Origin: https://there.example\r\n\r\n"))
  end)
end)

describe("whoever breaks a rule", function()
  -- A server of ours, what a bare client says to it: the close code it gets, and what was raised.
  local function says(bytes, options)
    local raised
    local server = serving(function(conn)
      local ok, why = pcall(function()
        repeat local _, kind = conn:receive() until kind == "closed"
      end)
      raised = not ok and why or nil
    end, options)
    local conn = talk.say(server, HELLO .. "\r\n" .. bytes, true)
    conn:head(4096)
    local opcode, payload
    repeat opcode, payload = frame_from(conn) until opcode == 8
    local code = #payload >= 2 and string.unpack(">I2", payload)
    assert.equal("", (talk.rest(conn)))
    return code, raised
  end

  local LONG = string.pack(">BBI8", 0x82, 255, 1 << 40) .. "\1\2\3\4"
  for what, case in pairs {
    ["does not mask"] = { plain(0x81, "hi"), 1002 },
    ["sets a reserved bit"] = { masked(0xc1, "hi"), 1002 },
    ["makes up an opcode"] = { masked(0x83, "hi"), 1002 },
    ["makes up a control opcode"] = { masked(0x8b, ""), 1002 },
    ["cuts a ping in two"] = { masked(0x09, "hi"), 1002 },
    ["sends a long ping"] = { masked(0x89, ("p"):rep(126)), 1002 },
    ["goes on with nothing"] = { masked(0x80, "hi"), 1002 },
    ["begins inside another message"] = { masked(0x01, "a") .. masked(0x81, "b"), 1002 },
    ["writes a short length the long way"] = { string.pack(">BBI2", 0x81, 254, 5) .. "\1\2\3\4hello", 1002 },
    ["writes a negative length"] = { string.pack(">BBI8", 0x81, 255, math.mininteger) .. "\1\2\3\4", 1002 },
    ["sends a text that is none"] = { masked(0x81, "a\255"), 1007 },
    ["cuts a character and does not end it"] = { masked(0x01, "\xe2\x82") .. masked(0x80, ""), 1007 },
    ["closes with one byte"] = { masked(0x88, "a"), 1002 },
    ["closes with a code that is not sent"] = { masked(0x88, "\3\xed"), 1002 },
    ["closes with a code out of reach"] = { masked(0x88, "\0\1"), 1002 },
    ["gives a reason that is no text"] = { masked(0x88, "\3\xe8\255"), 1007 },
    ["announces a terabyte"] = { LONG, 1009, "limit" },
    ["sends more than fits in one message, in pieces"] =
      { masked(0x02, ("x"):rep(60)) .. masked(0x00, ("x"):rep(60)), 1009, "limit" },
  } do
    it("and " .. what .. ", is told and cut off", function()
      local code, why = says(case[1], { max_message = 100 })
      assert.equal(case[2], code)
      assert.equal(case[3] or "wire", why.kind)
      assert.equal(case[2], why.code)
    end)
  end

  it("is a server as well: it must not mask", function()
    local url, peer = bare(function(conn)
      conn:write(masked(0x81, "hi"))
      talk.rest(conn)
    end)
    local conn = ws.connect { url = url }
    assert.matches("does not mask", talk.failure(conn.receive, conn, 5).message)
    peer:join()
  end)

  it("gets its own code back when that may be sent", function()
    assert.equal(3000, (says(masked(0x88, "\x0b\xb8bye"))))
    assert.is_false((says(masked(0x88, ""))))
  end)
end)

describe("a hostile peer #realtime", function()
  it("that sends nothing but empty pieces costs neither memory nor the other tasks", function()
    local server = serving(echo)
    local conn <close> = talk.say(server, HELLO .. "\r\n" .. masked(0x01, "a"), true)
    conn:head(4096)
    local flood, turns = masked(0x00, ""):rep(4096), 0
    local before
    task.scope(function(scope)
      scope:spawn(function() while true do turns = turns + 1; task.yield() end end)
      for i = 1, 40 do
        if i == 10 then collectgarbage(); before = collectgarbage "count" end
        conn:write(flood)
        task.yield()
      end
      conn:write(masked(0x80, "z"))
      assert.same({ 1, "az" }, { frame_from(conn) })
    end)
    collectgarbage()
    assert.is_true(collectgarbage "count" - before < 1024)
    assert.is_true(turns > 200, "others had " .. turns .. " turns") -- 160 000 frames came meanwhile
  end)

  it("that says anything at all is answered or cut off, and nothing stays behind", function()
    math.randomseed(6455)
    local server = serving(echo, { max_message = 4096, ping = 1, patience = 1 })
    for _ = 1, 300 do
      local bytes = {}
      for i = 1, math.random(1, 60) do bytes[i] = string.char(math.random(0, 255)) end
      local said = table.concat(bytes)
      if math.random(2) == 1 then said = masked(({ 0x81, 0x82, 0x01, 0x00, 0x89, 0x88 })[math.random(6)], said) .. said end
      local conn = talk.say(server, HELLO .. "\r\n" .. said)
      assert.matches("^HTTP/1.1 101 ", (talk.rest(conn)))
    end
    assert.equal(0, server:counts().refused)
  end)
end)

it("worker.ws serves the example of the reference", function()
  local server <close> = serve.http { address = "127.0.0.1:0", handler = serve.routes {
    ["GET /jobs"] = function(request, reply)
      local conn <close> = ws.accept(request, reply, { max_message = 65536 })
      for message in function() return conn:receive() end do conn:send("got " .. message) end
    end,
  } }
  local conn <close> = ws.connect { url = "ws://" .. server.address .. "/jobs", timeout = 5 }
  conn:send "one"
  assert.equal("got one", (conn:receive(30)))
end)
