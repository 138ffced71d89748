-- Serving gRPC to clients that misbehave frame by frame.
local frames = require "spec.support.frames"
local grpc = require "worker.grpc"
local h2 = require "worker.core.h2"
local sock = require "worker.sock"
local talk = require "spec.support.talk"
local task = require "worker.task"

describe("a server of gRPC", function()
  local server, ended

  local function counted()
    return setmetatable({}, { __close = function() ended = ended + 1 end })
  end

  before_each(function()
    ended = 0
    server = grpc.serve { listen = "127.0.0.1:0", max_streams = 4, services = { ["a.B"] = {
      Echo = function(message) return message end,
      Wait = { stream = function()
        local held <close> = counted() -- luacheck: ignore held
        task.sleep(100000)
      end },
      Flood = { stream = function(call)
        local held <close> = counted() -- luacheck: ignore held
        while call:send(("x"):rep(30000)) do end -- luacheck: ignore 542
      end },
    } } }
  end)
  after_each(function() server:close() end)

  -- The head of the answer to this request, as text.
  local function told(list, body)
    local link <close> = h2.open(sock.connect { address = server.address }, {})
    local stream <close> = link:request(list, body or frames.message "x", true)
    local words = {}
    for name, value in pairs(stream:head()) do words[#words + 1] = name .. ": " .. value end
    return table.concat(words, "\n")
  end

  local function request(changes)
    local list = {}
    for _, pair in ipairs { { ":method", "POST" }, { ":scheme", "http" }, { ":path", "/a.B/Echo" }, { ":authority", "x" },
      { "content-type", "application/grpc" }, { "grpc-timeout" }, { "grpc-encoding" } } do
      local value = changes[pair[1]] or pair[2]
      if value then
        list[#list + 1] = pair[1]
        list[#list + 1] = value
      end
    end
    return list
  end

  local function works()
    local client <close> = grpc.client { target = server.target }
    assert.equal("still here", (client:call("/a.B/Echo", "still here")))
  end

  it("says what is wrong with a request", function()
    assert.matches("unknown method", told(request { [":path"] = "/a.B/Nothing" }))
    assert.matches("unknown method", told(request { [":path"] = "/nothing" }))
    assert.matches("405", told(request { [":method"] = "GET" }))
    assert.matches("415", told(request { ["content-type"] = "text/plain" }))
    assert.matches("malformed", told(request { ["grpc-timeout"] = "1x" }))
    assert.matches("malformed", told(request { ["grpc-timeout"] = "123456789S" }))
    assert.matches("compression is not offered", told(request { ["grpc-encoding"] = "gzip" }))
    assert.matches("no message", told(request {}, ""))
    assert.matches("ended after 1 of 9 bytes", told(request {}, "\0\0\0\0\9x"))
    assert.matches("over the ceiling", told(request {}, "\0\255\255\255\255x"))
    works()
  end)

  it("hangs up on who does not speak HTTP/2", function()
    local conn <close> = sock.connect { address = server.address }
    conn:write "GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    while conn:read() do end -- luacheck: ignore 542
    works()
  end)

  it("ends the handler when its client resets the call, or hangs up", function()
    local peer <close> = frames.client(server.address)
    peer:send(frames.ask(1, "/a.B/Wait"), frames.ask(3, "/a.B/Wait"))
    task.sleep(1)
    assert.equal(2, server.busy)
    peer:send(frames.reset(1, 8))
    task.sleep(1)
    assert.equal(1, ended)
    peer:close()
    task.sleep(1)
    assert.equal(2, ended)
    assert.equal(0, server.busy)
  end)

  it("ends the handler when the time of the call is up", function()
    local peer <close> = frames.client(server.address)
    peer:send(frames.headers(1, { ":method", "POST", ":scheme", "http", ":path", "/a.B/Wait", ":authority", "x",
      "content-type", "application/grpc", "grpc-timeout", "2S" }))
    assert.equal(8, peer:wait "RST_STREAM".code)
    task.sleep(1)
    assert.equal(1, ended)
  end)

  it("takes as many calls at once as it says, and refuses the next", function()
    local peer <close> = frames.client(server.address)
    for i = 0, 4 do peer:send(frames.ask(2 * i + 1, "/a.B/Wait")) end
    local refused = peer:wait "RST_STREAM"
    assert.equal(9, refused.id)
    assert.equal(7, refused.code)
    assert.equal(4, server.busy)
  end)

  it("bears a client that opens and resets without end", function()
    local peer <close> = frames.client(server.address)
    local most = 0
    pcall(function()
      for i = 0, 20000 do
        peer:send(frames.ask(2 * i + 1, "/a.B/Wait"), frames.reset(2 * i + 1, 8))
        if i % 100 == 0 then task.sleep(0.001) end
        most = math.max(most, server.busy)
      end
    end)
    assert.is_true(most <= 4, most)
    assert.matches("reset", peer:stay() or "reset")
    works()
  end)

  it("leaves a client that asks without end for what is refused, and reads nothing", function()
    local peer <close> = frames.client(server.address)
    for i = 0, 3 do peer:send(frames.ask(2 * i + 1, "/a.B/Wait")) end
    local lost = talk.failure(function()
      for i = 4, 400000, 100 do
        local many = {}
        for j = 0, 99 do many[j + 1] = frames.ask(2 * (i + j) + 1, "/") end
        peer:send(table.unpack(many))
      end
      error { reason = "never" }
    end)
    assert.is_truthy(lost.reason == "reset" or lost.reason == "closed", lost.reason)
    works()
  end)

  it("waits for a client that does not read, and lets go of it", function()
    local peer <close> = frames.client(server.address)
    peer:send(frames.window(0, 1 << 24), frames.ask(1, "/a.B/Flood"))
    task.sleep(1)
    works()
    assert.equal(1, server.busy)
    local sent = 0
    for frame in function() return peer:next(5) end do
      if frame.type == "DATA" then sent = sent + #frame.payload end
    end
    assert.equal(65535, sent) -- the window that this client never opens further
    server:close()
    assert.equal(1, ended)
  end)

  it("loses a client that sends more than nobody reads", function()
    local peer <close> = frames.client(server.address)
    peer:send(frames.frame("SETTINGS", 1, 0, ""), frames.ask(1, "/a.B/Wait"))
    pcall(function()
      for _ = 1, 200 do peer:send(frames.data(1, ("x"):rep(16384))) end
    end)
    task.sleep(1)
    assert.equal(1, ended)
    works()
  end)

  it("refuses headers beyond its ceiling, and goes on", function()
    local peer <close> = frames.client(server.address)
    local large = request { [":path"] = "/" .. ("x"):rep(9000), ["content-type"] = "application/grpc+" .. ("y"):rep(8000) }
    local block = frames.block(large)
    peer:send(frames.frame("HEADERS", 0, 1, block:sub(1, 16000)), frames.frame("CONTINUATION", 4, 1, block:sub(16001)))
    peer:send(frames.frame("DATA", 1, 1, frames.message "x"))
    local reset = peer:wait "RST_STREAM"
    assert.equal(1, reset.id)
    peer:send(frames.ask(3, "/a.B/Echo"), frames.data(3, frames.message "x", 1))
    assert.equal(3, peer:wait "HEADERS".id)
  end)

  it("closes while somebody floods it, and while calls wait", function()
    local peer <close> = frames.client(server.address)
    peer:send(frames.ask(1, "/a.B/Flood"), frames.ask(3, "/a.B/Wait"), frames.ask(5, "/a.B/Echo"))
    task.sleep(1)
    server:close(2)
    assert.equal(2, ended)
  end)

  it("stops taking connections at its limit", function()
    local few <close> = grpc.serve { listen = "127.0.0.1:0", max_connections = 1, services = {} }
    local first <close> = frames.client(few.address)
    first:wait "SETTINGS"
    local second <close> = frames.client(few.address)
    local frame, why = second:next(1)
    assert.is_nil(frame)
    assert.equal("timeout", why)
    first:close()
    assert.equal("SETTINGS", second:next(60).type)
  end)

  it("can be made to misbehave on purpose", function()
    local bad <close> = grpc.serve { listen = "127.0.0.1:0", services = { ["a.B"] = {
      Reset = function(_, call) call.stream:reset(11) end,
      Goaway = function(_, call) call.connection:goaway(11, "too_many_pings"); return "x" end,
      Half = { stream = function(call)
        call:begin()
        call.stream:write "\0\0\0\0\9half"
        call.stream:sent()
        call.connection:close()
      end },
    } } }
    local client <close> = grpc.client { target = bad.target }
    local function why(method) return select(2, pcall(client.call, client, "/a.B/" .. method, "")) end
    assert.equal("RESOURCE_EXHAUSTED", why "Reset".status)
    assert.equal("x", (client:call("/a.B/Goaway", "")))
    assert.matches("ended the connection", why "Half".message)
  end)
end)

describe("a server behind a Unix socket", function()
  it("is alone at its path", function()
    local path = os.tmpname()
    os.remove(path)
    local first <close> = grpc.serve { listen = "unix:" .. path, services = {} } -- luacheck: ignore first
    local ok, why = pcall(grpc.serve, { listen = "unix:" .. path, services = {} })
    assert.is_false(ok)
    assert.equal("transport", why.kind)
  end)
end)
