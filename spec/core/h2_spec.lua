-- HTTP/2 against peers that misbehave frame by frame.
local fs = require "worker.fs"
local frames = require "spec.support.frames"
local grpc = require "worker.grpc"
local servers = require "spec.support.server"
local talk = require "spec.support.talk"
local task = require "worker.task"

local CODES = { NO_ERROR = 0, PROTOCOL_ERROR = 1, INTERNAL_ERROR = 2, FLOW_CONTROL_ERROR = 3, STREAM_CLOSED = 5,
  REFUSED_STREAM = 7, CANCEL = 8, ENHANCE_YOUR_CALM = 11, INADEQUATE_SECURITY = 12 }

-- Bytes of this process in memory.
local function resident()
  return tonumber(fs.read("/proc/self/statm"):match "^%d+ (%d+)") * 4096
end

describe("a call to a server that", function()
  local clients = {}
  after_each(function()
    for client in pairs(clients) do client:close() end
    clients = {}
  end)

  local function client_of(fake, options)
    local all = { target = fake.address }
    for name, value in pairs(options or {}) do all[name] = value end
    local client = grpc.client(all)
    clients[client] = true
    return client
  end

  local function call(fake, options, message)
    return (client_of(fake, options):call("/a.B/C", message or "hello"))
  end

  local function failure(fake, options)
    return talk.failure(call, fake, options)
  end

  -- A server that says this to every first request.
  local function saying(make, options)
    return frames.server(function(peer)
      local id = peer:request()
      peer:raw(make(id))
      peer:stay()
    end, options)
  end

  it("answers, is understood", function()
    assert.equal("hi", call(saying(function(id) return frames.answer(id, "hi") end)))
  end)

  -- A server in Go answers nothing to a head that ends the request by itself.
  it("reads the head, gets the end of the request with the body, also of an empty one", function()
    local flags = {}
    local fake = frames.server(function(peer)
      for i = 1, 2 do
        flags[i] = peer:wait "HEADERS".flags & frames.END_STREAM
        local last
        repeat last = peer:wait "DATA" until last.flags & frames.END_STREAM ~= 0
        peer:send(frames.answer(last.id, ""))
      end
      peer:stay()
    end)
    local client = client_of(fake)
    assert.equal("", (client:call("/a.B/C", "")))
    local stream <close> = client:stream "/a.B/C"
    stream:close_send()
    assert.equal("", stream:receive())
    assert.same({ 0, 0 }, flags)
  end)

  it("gives single bytes of window, gets every byte", function()
    local fake = frames.server(function(peer)
      local id = peer:wait "HEADERS".id
      local got = {}
      repeat
        peer:send(frames.window(id, 1))
        local frame = peer:wait "DATA"
        got[#got + 1] = frame.payload
        assert.is_true(#frame.payload <= 1)
      until frame.flags & frames.END_STREAM ~= 0
      peer:send(frames.answer(id, table.concat(got)))
      peer:stay()
    end, { settings = { [4] = 0 } })
    local client = client_of(fake)
    client:connect()
    task.sleep(1) -- the window is the usual one until the server's settings are there
    assert.equal(frames.message "twelve bytes", (client:call("/a.B/C", "twelve bytes")))
  end)

  it("gives no window to one call, serves the others", function()
    local fake = frames.server(function(peer)
      peer:wait "HEADERS"
      for _ = 1, 3 do
        local id = peer:wait "HEADERS".id
        peer:send(frames.window(id, 1000), frames.answer(id, "quick"))
      end
      peer:stay()
    end, { settings = { [4] = 0 } })
    local client = client_of(fake)
    client:connect()
    task.sleep(1)
    task.scope(function(scope)
      scope:spawn(client.call, client, "/a.B/Slow", "never sent", { timeout = 1000 })
      task.yield()
      for _ = 1, 3 do assert.equal("quick", (client:call("/a.B/Quick", "x"))) end
    end)
  end)

  it("drips single bytes in single frames, is waited for", function()
    local fake = frames.server(function(peer)
      local id = peer:request()
      peer:drip(frames.head(id))
      for byte in frames.message("slow"):gmatch "." do peer:drip(frames.data(id, byte)) end
      peer:drip(frames.data(id, "") .. frames.status(id, 0))
      peer:stay()
    end)
    assert.equal("slow", call(fake))
  end)

  it("pads its frames, gets its window back", function()
    local fake = frames.server(function(peer)
      local id = peer:request()
      local text = ("x"):rep(3 * 1024 * 1024)
      peer:send(frames.head(id), frames.data(id, string.pack(">BI4", 0, #text)))
      -- the connection's window is 16 MiB: only the stream's ends
      local left, at = 1024 * 1024 - 5, 1
      while at <= #text do
        local piece = text:sub(at, at + 7999)
        while left < #piece + 256 do
          local frame = peer:wait("WINDOW_UPDATE", id)
          left = left + string.unpack(">I4", frame.payload)
        end
        peer:send(frames.padded(id, piece, 255))
        left, at = left - #piece - 256, at + #piece
      end
      peer:send(frames.status(id, 0))
      peer:stay()
    end)
    assert.equal(3 * 1024 * 1024, #call(fake))
  end)

  it("sends more than its window, loses the connection", function()
    local fake = frames.server(function(peer)
      local id = peer:request()
      peer:send(frames.head(id), frames.data(id, string.pack(">BI4", 0, 1 << 20)))
      for _ = 1, 10 do peer:send(frames.data(id, ("x"):rep(16384))) end
      peer:stay()
    end)
    -- The reader never takes anything, so no window comes back.
    local client = client_of(fake, { window = 65535 })
    local one <close> = client:stream "/a.B/C"
    one:send("x", true)
    task.sleep(10)
    local why = talk.failure(one.receive, one)
    assert.is_truthy(why.kind == "transport" and why.reason == "protocol" or why.status == "INTERNAL", tostring(why))
  end)

  it("splits its headers, is understood", function()
    local fake = saying(function(id)
      local block = frames.block { ":status", "200", "content-type", "application/grpc", "x-y", "z" }
      local parts = { frames.frame("HEADERS", 0, id, block:sub(1, 10)) }
      for i = 11, #block, 20 do
        parts[#parts + 1] = frames.frame("CONTINUATION", i + 20 > #block and 4 or 0, id, block:sub(i, i + 19))
      end
      return table.concat(parts) .. frames.data(id, frames.message "hi") .. frames.status(id, 0)
    end)
    assert.equal("hi", call(fake))
  end)

  it("continues its headers without end, is left", function()
    local fake = frames.server(function(peer)
      local id = peer:request()
      peer:send(frames.frame("HEADERS", 0, id, frames.block { ":status", "200" }))
      for i = 1, 100000 do
        peer:send(frames.frame("CONTINUATION", 0, id, frames.block { "x" .. i, ("y"):rep(1000) }))
      end
    end)
    local why = failure(fake)
    assert.equal("transport", why.kind)
    assert.equal("protocol", why.reason)
    assert.matches("does not keep to HTTP/2", why.message)
  end)

  it("sends more headers than allowed, is refused without keeping them", function()
    local fake = saying(function(id)
      return frames.headers(id, { ":status", "200", "x", ("y"):rep(5000), "z", ("y"):rep(5000) })
    end)
    local why = failure(fake, { max_header = 8192 })
    assert.equal("RESOURCE_EXHAUSTED", why.status)
    assert.matches("more than 8192 bytes of headers", why.message)
  end)

  it("sends more trailers than allowed, is refused", function()
    local fake = saying(function(id)
      return frames.head(id) .. frames.data(id, frames.message "hi") .. frames.status(id, 0, ("y"):rep(9000)) ..
        frames.ping()
    end)
    assert.equal("RESOURCE_EXHAUSTED", failure(fake, { max_header = 4096 }).status)
  end)

  it("names one large header many times (a bomb), is refused without the memory", function()
    local fake = saying(function(id)
      local big = ("y"):rep(3900)
      -- once with indexing, then by its number in the table: one byte for 4 KiB
      local block = "\64\1x\127" .. string.char(3900 - 127 & 127 | 128, (3900 - 127) >> 7) .. big .. ("\190"):rep(12000)
      return frames.frame("HEADERS", 4, id, frames.block { ":status", "200" } .. block)
    end)
    local before = resident()
    assert.equal("RESOURCE_EXHAUSTED", failure(fake).status)
    assert.is_true(resident() - before < 8 * 1024 * 1024)
  end)

  it("says GOAWAY before it took the call, gets it again on a new connection", function()
    local fake = frames.server(function(peer, n)
      local id = peer:request()
      if n == 1 then peer:send(frames.goaway(0, 0, "restart")) else peer:send(frames.answer(id, "second")) end
      peer:stay()
    end)
    assert.equal("second", call(fake))
    assert.equal(2, fake:connections())
  end)

  it("says GOAWAY every time, is not asked for ever", function()
    local fake = saying(function() return frames.goaway(0, 0) end)
    local why = failure(fake)
    assert.equal("refused", why.reason)
    assert.is_false(why.sent)
    assert.equal(2, fake:connections())
  end)

  it("says GOAWAY and finishes the call it has, is listened to", function()
    local fake = frames.server(function(peer)
      local id = peer:request()
      peer:send(frames.goaway(2147483647, 0, "graceful_stop"), frames.ping())
      peer:send(frames.goaway(id, 0), frames.answer(id, "last"))
      peer:stay()
    end)
    assert.equal("last", call(fake))
  end)

  it("says why it goes, is quoted", function()
    local fake = frames.server(function(peer)
      peer:request()
      peer:send(frames.goaway(1, CODES.ENHANCE_YOUR_CALM, "too_many_pings\27[31m"))
    end)
    local why = failure(fake)
    assert.equal("transport", why.kind)
    assert.matches("ENHANCE_YOUR_CALM, too_many_pings%?%[31m", why.message)
  end)

  it("resets the call, tells the reason", function()
    for name, want in pairs { CANCEL = "CANCELLED", ENHANCE_YOUR_CALM = "RESOURCE_EXHAUSTED",
      INADEQUATE_SECURITY = "PERMISSION_DENIED", INTERNAL_ERROR = "INTERNAL", NO_ERROR = "INTERNAL",
      STREAM_CLOSED = "INTERNAL" } do
      local why = failure(saying(function(id) return frames.reset(id, CODES[name]) end))
      assert.equal(want, why.status, name)
      assert.matches(name, why.message)
    end
  end)

  it("refuses the call, gets it once more and no oftener", function()
    local asked
    local fake = frames.server(function(peer)
      for _ = 1, 2 do peer:send(frames.reset(peer:request(), CODES.REFUSED_STREAM)) end
      peer:stay()
      asked = peer:count "HEADERS"
    end)
    local why = failure(fake)
    assert.equal("transport", why.kind)
    assert.equal("refused", why.reason)
    assert.is_false(why.sent)
    next(clients):close()
    task.sleep(1)
    assert.equal(2, asked)
  end)

  it("has answered and resets with NO_ERROR, has answered", function()
    local fake = frames.server(function(peer)
      local id = peer:wait "HEADERS".id
      peer:send(frames.answer(id, "early"), frames.reset(id, 0))
      peer:stay()
    end)
    local client = client_of(fake)
    local one <close> = client:stream "/a.B/C"
    assert.equal("early", one:receive())
    assert.is_nil(one:receive())
    assert.is_false(one:send "more")
  end)

  it("says GOAWAY while a call waits its turn, gets that one on a new connection", function()
    local fake = frames.server(function(peer, n)
      local id = peer:request()
      task.sleep(5)
      if n == 1 then peer:send(frames.goaway(1, 0)) end
      peer:send(frames.answer(id, "by " .. n))
      peer:stay()
    end, { settings = { [3] = 1 } })
    local client = client_of(fake)
    client:connect()
    task.sleep(1)
    local one = function() return (client:call("/a.B/C", "x")) end
    assert.same({ "by 1", "by 2" }, task.all { one, one })
  end)

  it("reads nothing at all, is left in time, with megabytes unsent", function()
    local fake = frames.server(function(peer)
      peer:send(frames.settings { [4] = 1 << 30 }, frames.window(0, 1 << 30))
      task.sleep(10000)
    end)
    local client = client_of(fake, { timeout = 20 })
    client:connect()
    task.sleep(1)
    local message = ("x"):rep(20 * 1024 * 1024)
    assert.equal("DEADLINE_EXCEEDED", talk.failure(client.call, client, "/a.B/C", message).status)
    assert.equal("DEADLINE_EXCEEDED", talk.failure(client.call, client, "/a.B/C", "small").status)
    client:close()
  end)

  it("answers nothing, is told when the time is up", function()
    local codes = {}
    local fake = frames.server(function(peer)
      peer:request()
      codes[1] = peer:wait "RST_STREAM".code
      peer:stay()
    end)
    local why = failure(fake, { timeout = 7 })
    assert.equal("DEADLINE_EXCEEDED", why.status)
    task.sleep(1)
    assert.same({ CODES.CANCEL }, codes)
  end)

  it("does not even greet, is left in time", function()
    local fake = frames.server(function(peer) peer:stay() end, { settings = false })
    assert.equal("DEADLINE_EXCEEDED", failure(fake, { timeout = 7 }).status)
  end)

  it("ends the call with CANCEL as its time is up, meant its time", function()
    local fake = frames.server(function(peer)
      local id = peer:request()
      task.sleep(4.99)
      peer:send(frames.reset(id, CODES.CANCEL))
      peer:stay()
    end)
    assert.equal("DEADLINE_EXCEEDED", failure(fake, { timeout = 5 }).status)
  end)

  it("hangs up, is known to have", function()
    local fake = frames.server(function(peer)
      peer:request()
      peer.conn:shutdown() -- what is left unread at a close would make a reset of it
      peer:stay()
    end)
    local why = failure(fake)
    assert.equal("transport", why.kind)
    assert.equal("closed", why.reason)
    assert.is_true(why.sent)
  end)

  it("resets the connection, is known to have", function()
    local fake = frames.server(function(peer)
      peer:request()
      peer.conn:reset()
    end)
    assert.equal("reset", failure(fake).reason)
  end)

  it("answers and hangs up at once, has answered", function()
    local fake = frames.server(function(peer)
      local id = peer:request()
      peer:send(frames.answer(id, "bye"))
    end)
    assert.equal("bye", call(fake))
  end)

  it("speaks HTTP/1.1, is named as what it is", function()
    local fake = servers.tcp(function(conn)
      conn:read()
      conn:write "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"
      while conn:read() do end -- luacheck: ignore 542
    end)
    local why = failure(fake)
    assert.equal("protocol", why.reason)
    assert.matches("does not support HTTP/2", why.message)
  end)

  it("says anything at all, is refused with words", function()
    for _, bytes in ipairs { "\0", "\0\0\0\4\0\0\0\0", ("\255"):rep(100), "SSH-2.0-OpenSSH_9.2\r\n", ("\0"):rep(50) } do
      local fake = frames.server(function(peer)
        peer:raw(bytes)
        task.sleep(1)
      end, { settings = false })
      local why = failure(fake)
      assert.equal("transport", why.kind)
      assert.is_true(#why.message > 20, why.message)
    end
  end)

  it("pushes, is left", function()
    local why = failure(saying(function(id)
      return frames.frame("PUSH_PROMISE", 4, id, string.pack(">I4", 2) .. frames.block { ":method", "GET", ":path", "/",
        ":scheme", "http", ":authority", "x" })
    end))
    assert.equal("protocol", why.reason)
  end)

  it("allows one stream at a time, gets one after the other", function()
    local most, open = 0, 0
    local fake = frames.server(function(peer)
      for _ = 1, 3 do
        local id = peer:request()
        open = open + 1
        most = math.max(most, open)
        task.sleep(1)
        open = open - 1
        peer:send(frames.answer(id, tostring(id)))
      end
      peer:stay()
    end, { settings = { [3] = 1 } })
    local client = client_of(fake)
    client:connect()
    task.sleep(1)
    local one = function() return (client:call("/a.B/C", "x")) end
    assert.same({ "1", "3", "5" }, task.all { one, one, one })
    assert.equal(1, most)
  end)

  for _, case in ipairs {
    { "is no gRPC server", { ":status", "200", "content-type", "text/html" }, "UNKNOWN", "text/html" },
    { "is somebody in between", { ":status", "503" }, "UNAVAILABLE", "HTTP status 503" },
    { "wants a password", { ":status", "401" }, "UNAUTHENTICATED", "401" },
    { "gives a status in its head", { ":status", "200", "content-type", "application/grpc", "grpc-status", "5",
      "grpc-message", "no %41" }, "NOT_FOUND", "no A" },
    { "gives a broken percent code", { ":status", "200", "content-type", "application/grpc", "grpc-status", "5",
      "grpc-message", "100%zz" }, "NOT_FOUND", "100%%zz" },
    { "gives a status that is no number", { ":status", "200", "content-type", "application/grpc", "grpc-status", "x" },
      "UNKNOWN", "no number" },
    { "gives a status that nobody knows", { ":status", "200", "content-type", "application/grpc", "grpc-status", "99" },
      "code 99", "code 99" },
    { "ends without a status", { ":status", "200", "content-type", "application/grpc" }, "INTERNAL", "without a status" },
    { "says OK and nothing else", { ":status", "200", "content-type", "application/grpc", "grpc-status", "0" },
      "INTERNAL", "without an answer" },
  } do
    it(case[1] .. ", is understood", function()
      local why = failure(saying(function(id) return frames.headers(id, case[2], 5) end))
      assert.equal(case[3], why.status)
      assert.matches(case[4], why.message)
    end)
  end

  for _, case in ipairs {
    { "announces four gigabytes", "\0\255\255\255\255", "RESOURCE_EXHAUSTED", "4294967295 bytes is over the ceiling" },
    { "compresses", "\1\0\0\0\1x", "UNIMPLEMENTED", "compressed" },
    { "has a flag nobody knows", "\2\0\0\0\1x", "UNIMPLEMENTED", "compressed" },
    { "ends in a message", "\0\0\0\0\9x", "INTERNAL", "ended in a message, after 6 bytes of it" },
    { "ends in a prefix", "\0\0\0", "INTERNAL", "ended in a message, after 3 bytes of it" },
    { "answers twice", frames.message "1" .. frames.message "2", "INTERNAL", "twice" },
  } do
    it(case[1] .. ", is refused", function()
      local why = failure(saying(function(id)
        return frames.head(id) .. frames.data(id, case[2]) .. frames.status(id, 0)
      end))
      assert.equal(case[3], why.status)
      assert.matches(case[4], why.message)
    end)
  end

  for _, case in ipairs { { "message", "\0\0\0\0\9x", "after 1 of 9 bytes" }, { "prefix", "\0\0\0", "after 3 of 5 bytes" } } do
    it("ends in a " .. case[1] .. " of a stream, is refused", function()
      local client = client_of(saying(function(id)
        return frames.head(id) .. frames.data(id, case[2]) .. frames.status(id, 0)
      end))
      local one <close> = client:stream "/a.B/C"
      one:close_send()
      local why = talk.failure(one.receive, one)
      assert.equal("INTERNAL", why.status)
      assert.matches(case[3], why.message)
    end)
  end

  it("says first that it will answer (1xx), is waited for", function()
    assert.equal("hi", call(saying(function(id)
      return frames.headers(id, { ":status", "103", "x", "y" }) .. frames.headers(id, { ":status", "100" }) ..
        frames.answer(id, "hi")
    end)))
  end)

  it("asks with PING and SETTINGS, is answered, and never asked", function()
    local seen
    local fake = frames.server(function(peer)
      seen = peer.seen
      local id = peer:request()
      for _ = 1, 10 do peer:send(frames.ping(), frames.settings {}) end
      peer:send(frames.answer(id, "hi"))
      peer:stay()
    end)
    local client = client_of(fake)
    client:call("/a.B/C", "x")
    task.sleep(36000)
    local pings, settings = 0, 0
    for _, frame in ipairs(seen) do
      if frame.type == "PING" then
        assert.equal(frames.ACK, frame.flags)
        pings = pings + 1
      elseif frame.type == "SETTINGS" and frame.flags == frames.ACK then
        settings = settings + 1
      end
    end
    assert.equal(10, pings)
    assert.equal(11, settings)
  end)

  for _, case in ipairs { { "lets no request begin", { [3] = 0 } }, { "reads nothing", {} } } do
    it(case[1] .. ", is left once thousands of requests were given up", function()
      local connections = 0
      local fake = frames.server(function(peer, n)
        connections = n
        if case[2][3] then return peer:stay() end
        task.sleep(1e6)
      end, { settings = case[2] })
      local client = client_of(fake, { metadata = { ["x-large"] = ("x~"):rep(4000) } }) -- soon more than the kernel keeps
      for _ = 1, 5000 do
        local why = talk.failure(client.call, client, "/a.B/C", "", { timeout = 0.01 })
        assert.is_true(why.status == "DEADLINE_EXCEEDED" or why.kind == "transport")
        if connections > 1 then break end
      end
      assert.equal(2, connections)
    end)
  end

  it("asks without end while a write to it is stuck, is left all the same", function()
    local path = talk.path "stuck" -- a Unix socket: its buffer does not grow
    local fake = frames.server(function(peer)
      peer:wait "HEADERS"
      peer:send(frames.window(0, 1 << 30), frames.window(1, 1 << 30))
      task.sleep(1)
      peer:raw(frames.ping():rep(2000))
      task.sleep(1e6)
    end, { where = { unix = path } })
    local client = client_of(fake, { target = "unix:" .. path })
    local why = talk.failure(client.call, client, "/a.B/C", ("x"):rep(4 << 20), { timeout = 3600 })
    assert.equal("protocol", why.reason, tostring(why))
  end)

  for _, case in ipairs { { "PING", frames.ping() }, { "SETTINGS", frames.settings { [1] = 4096 } } } do
    it("asks with " .. case[1] .. " without end and reads no answer, is left", function()
      local fake = frames.server(function(peer)
        peer:request()
        local flood = case[2]:rep(5000)
        while true do peer:raw(flood) end
      end)
      local why = failure(fake, { timeout = 3600 })
      assert.equal("transport", why.kind)
      assert.matches("HTTP/2", why.message)
    end)
  end
end)
