local err = require "worker.error"
local grpc = require "worker.grpc"
local protobuf = require "worker.protobuf"
local sock = require "worker.sock"
local talk = require "spec.support.talk"
local task = require "worker.task"

local function services()
  return { ["a.B"] = {
    Echo = function(message) return "<" .. message .. ">" end,
    No = function() grpc.raise("NOT_FOUND", "no such thing: 100 %, \195\164\n") end,
    Slow = function() task.sleep(1000) end,
    Bug = function() error("oh") end,
    Double = {
      codec = { encode = tostring, decode = tonumber },
      unary = function(number) return number * 2 end,
    },
    Shout = { stream = function(call)
      for message in function() return call:receive() end do call:send(message:upper()) end
      call.trailers["x-count"] = "7"
    end },
    First = { stream = function(call) call:send(call:receive()) end },
    Tail = function(message, call)
      call.trailers["x-tail"] = "7"
      return message
    end,
    Cut = function(_, call) call.connection:close() end,
    Meta = { stream = function(call)
      call:begin { ["x-head"] = call.metadata["x-text"], ["x-bytes-bin"] = call.metadata["x-bytes-bin"] }
      call:send(("%.0f"):format(call:left()))
    end },
  } }
end

describe("a client and a server", function()
  local server, client
  before_each(function()
    server = grpc.serve { listen = "127.0.0.1:0", services = services() }
    client = grpc.client { target = server.target }
  end)
  after_each(function()
    client:close()
    server:close()
  end)

  local function failure(method, options, message)
    return talk.failure(client.call, client, "/a.B/" .. method, message or "x", options)
  end

  it("exchange one message for one, also an empty one", function()
    assert.equal("<hi>", (client:call("/a.B/Echo", "hi")))
    assert.equal("<>", (client:call("/a.B/Echo", "")))
  end)

  it("exchange messages larger than every window", function()
    local large = ("0123456789abcdef"):rep(512 * 1024)
    assert.equal("<" .. large .. ">", (client:call("/a.B/Echo", large)))
  end)

  it("exchange messages of any size through the smallest window", function()
    local narrow <close> = setmetatable({ grpc.client { target = server.target, window = 65535 } },
      { __close = function(self) self[1]:close() end })
    for _, size in ipairs { 60000, 65528, 65529, 65530, 65535, 65536, 70000, 200000 } do
      local reply = narrow[1]:call("/a.B/Echo", ("x"):rep(size), { timeout = 5 })
      assert.equal(size + 2, #reply)
    end
  end)

  it("make a hundred and fifty calls at once on one connection", function()
    local work = {}
    for i = 1, 150 do
      work[i] = function() return (client:call("/a.B/Echo", tostring(i))) end
    end
    local replies = task.all(work)
    for i = 1, 150 do assert.equal("<" .. i .. ">", replies[i]) end
    assert.equal(1, server.listener:counts().accepted)
  end)

  it("use codecs, each side its own", function()
    local codec = { encode = function(value) return ("%d"):format(value) end, decode = tonumber }
    assert.equal(42, (client:call("/a.B/Double", 21, { codec = codec })))
    assert.equal("42", (client:call("/a.B/Double", "21")))
  end)

  it("use the methods of a schema", function()
    local schema = protobuf.load {
      messages = { ["a.Job"] = { id = { 1, "string" } } }, services = { ["a.Queue"] = { Take = { "a.Job", "a.Job" } } },
    }
    local take = schema:method("a.Queue", "Take")
    local queue <close> = grpc.serve { listen = "127.0.0.1:0", services = { ["a.Queue"] = {
      Take = { method = take, unary = function(job) return { id = job.id .. "!" } end },
    } } }
    local worker <close> = grpc.client { target = queue.target }
    assert.same({ id = "7!" }, (worker:call(take, { id = "7" })))
    local why = talk.failure(worker.call, worker, "/a.Queue/Take", "\255")
    assert.equal("INTERNAL", why.status)
  end)

  it("tell a status, with any words", function()
    local why = failure "No"
    assert.equal("grpc", why.kind)
    assert.equal(5, why.code)
    assert.equal("NOT_FOUND", why.status)
    assert.equal("no such thing: 100 %, \195\164\n", why.said)
    assert.equal("/a.B/No: NOT_FOUND: no such thing: 100 %, \195\164\n", tostring(why))
  end)

  it("know an unknown method, and a handler that failed", function()
    assert.equal(grpc.code.UNIMPLEMENTED, failure("Nothing").code)
    assert.equal(grpc.code.UNKNOWN, failure("Bug").code)
  end)

  it("end a call when its time is up, and the handler with it", function()
    local why = failure("Slow", { timeout = 3 })
    assert.equal("DEADLINE_EXCEEDED", why.status)
    task.sleep(1)
    assert.equal(0, server.busy)
  end)

  it("end a call that is cancelled, and the handler with it", function()
    local task_of_call = task.start(client.call, client, "/a.B/Slow", "x")
    task.sleep(1)
    assert.equal(1, server.busy)
    task_of_call:cancel("enough")
    local ok, why = task_of_call:join()
    assert.is_false(ok)
    assert.equal("cancelled", why.kind)
    task.sleep(1)
    assert.equal(0, server.busy)
    assert.equal("<x>", (client:call("/a.B/Echo", "x")))
  end)

  it("give the metadata of a unary call, too", function()
    local reply, call = client:call("/a.B/Tail", "x")
    assert.equal("x", reply)
    assert.equal("7", call.trailers["x-tail"])
    assert.same({}, call.headers)
  end)

  it("wait for a slow receiver, and lose nothing", function()
    local call <close> = client:stream "/a.B/Shout"
    local sent = task.start(function()
      for i = 1, 200 do call:send(("x"):rep(30000) .. i) end
      call:close_send()
    end)
    task.sleep(100)
    assert.equal("parked", sent:state())
    local count = 0
    for message in function() return call:receive() end do
      count = count + 1
      assert.equal(("X"):rep(30000) .. count, message)
    end
    assert.equal(200, count)
  end)

  it("talk in both directions at once", function()
    local call <close> = client:stream "/a.B/Shout"
    for _, word in ipairs { "one", "two", "" } do
      assert.is_true(call:send(word))
      assert.equal(word:upper(), call:receive())
    end
    call:close_send()
    assert.is_nil(call:receive())
    assert.is_nil(call:receive())
    assert.equal("7", call.trailers["x-count"])
  end)

  it("let the server end first", function()
    local call <close> = client:stream "/a.B/First"
    call:send "x"
    assert.equal("x", call:receive())
    assert.is_nil(call:receive())
    assert.is_false(call:send "y")
  end)

  it("tell an error status while the client still sends", function()
    local call <close> = client:stream "/a.B/Nothing"
    local why = talk.failure(call.receive, call)
    assert.equal("UNIMPLEMENTED", why.status)
  end)

  it("carry metadata, text and bytes, and the deadline", function()
    local call <close> = client:stream("/a.B/Meta", { timeout = 50,
      metadata = { ["x-text"] = "a, b", ["x-bytes-bin"] = "\0\255\1" } })
    assert.equal("50", call:receive())
    assert.equal("a, b", call.headers["x-head"])
    assert.equal("\0\255\1", call.headers["x-bytes-bin"])
  end)

  it("say of each call its own time and metadata, nothing of the one before", function()
    local seen = {}
    client:connect() -- that takes nothing of the first one's time
    server.options.services["a.B"].See = { stream = function(call)
      seen[#seen + 1] = (call.metadata.k or "-") .. " " .. (call.head["grpc-timeout"] or "-")
    end }
    for _, options in ipairs { { timeout = 5, metadata = { k = "1" } }, {}, { timeout = 7 }, { metadata = { k = "2" } } } do
      local call <close> = client:stream("/a.B/See", options)
      assert.is_nil(call:receive())
    end
    assert.same({ "1 5000000u", "- -", "- 7000000u", "2 -" }, seen)
  end)

  it("refuse metadata that is none", function()
    for name, value in pairs { ["Upper"] = "x", ["grpc-status"] = "0", [":path"] = "/", ["a"] = "new\nline" } do
      local why = failure("Echo", { metadata = { [name] = value } })
      assert.equal("config", why.kind)
    end
  end)

  it("refuse a message over the ceiling, on either way", function()
    local small <close> = grpc.client { target = server.target, max_send = 10, max_receive = 11 }
    assert.equal("<123456789>", (small:call("/a.B/Echo", "123456789")))
    local why = talk.failure(small.call, small, "/a.B/Echo", "1234567890")
    assert.matches("a message of 12 bytes is over the ceiling of 11", why.message)
    why = talk.failure(small.call, small, "/a.B/Echo", "12345678901")
    assert.equal("RESOURCE_EXHAUSTED", why.status)
  end)

  it("make a new connection when the old one says GOAWAY, and finish the old calls", function()
    local call <close> = client:stream "/a.B/Shout"
    call:send "a"
    assert.equal("A", call:receive())
    server:goaway()
    task.sleep(1)
    assert.equal("<x>", (client:call("/a.B/Echo", "x")))
    call:send("b", true)
    assert.equal("B", call:receive())
    assert.is_nil(call:receive())
    assert.equal(2, server.listener:counts().accepted)
  end)

  it("lose all calls with the connection, and say so", function()
    local call <close> = client:stream "/a.B/Shout"
    call:send "a"
    call:receive()
    local why = failure "Cut"
    assert.equal("transport", why.kind)
    assert.equal("closed", why.reason)
    assert.is_true(why.sent)
    why = talk.failure(call.receive, call)
    assert.equal("transport", why.kind)
    task.sleep(1)
    assert.equal("transient_failure", client:state())
    assert.equal("<x>", (client:call("/a.B/Echo", "x")))
  end)

  it("end with the server: who waits is told that it is away", function()
    local call <close> = client:stream "/a.B/Shout"
    call:send "a"
    call:receive()
    server:close()
    assert.equal("UNAVAILABLE", talk.failure(call.receive, call).status)
  end)

  it("tell how the connection stands", function()
    local states = {}
    local told <close> = grpc.client { target = server.target, on_state = function(state) states[#states + 1] = state end }
    assert.equal("idle", told:state())
    told:connect()
    told:close()
    assert.same({ "connecting", "ready", "shutdown" }, states)
    local why = talk.failure(told.call, told, "/a.B/Echo", "x")
    assert.equal("closed", why.reason)
    assert.is_false(why.sent)
  end)

  it("tell nothing of the end of a connection that has been replaced", function()
    local states = {}
    local told <close> = grpc.client { target = server.target, on_state = function(state) states[#states + 1] = state end }
    talk.failure(told.call, told, "/a.B/Cut", "x")
    assert.equal("<y>", told:call("/a.B/Echo", "y"))
    assert.same({ "connecting", "ready", "connecting", "ready" }, states)
    assert.equal("ready", told:state())
  end)
end)

describe("a client without a server", function()
  it("fails all calls that wait for the same attempt, with a reason", function()
    local client <close> = grpc.client { target = "unix:" .. talk.path "nobody" }
    local failures = task.all { function() return talk.failure(client.call, client, "/a.B/C", "") end,
      function() return talk.failure(client.call, client, "/a.B/C", "") end }
    for i = 1, 2 do
      assert.equal("transport", failures[i].kind)
      assert.equal("connect", failures[i].reason)
      assert.is_false(failures[i].sent)
      assert.matches("^/a.B/C: ", failures[i].message)
    end
    assert.equal("transient_failure", client:state())
  end)

  -- A listener whose queue is full: connecting has to wait until somebody is taken from it.
  local function crowded(fn)
    local path = talk.path "crowded"
    local listener <close> = sock.listen { unix = path, backlog = 1 }
    local crowd = { sock.connect { unix = path }, sock.connect { unix = path } }
    local client <close> = grpc.client { target = "unix:" .. path }
    fn(client, function()
      for _ = 1, #crowd do listener:accept():close() end
      return listener:accept()
    end)
    talk.close(table.unpack(crowd))
  end

  it("lets each call wait as long as it may, and no longer, whoever has begun to connect", function()
    crowded(function(client)
      local ends = {}
      local function calls(name, timeout)
        return function()
          local why = talk.failure(client.call, client, "/a.B/C", "", { timeout = timeout })
          ends[#ends + 1] = name .. " " .. why.reason
        end
      end
      task.all { calls("patient", 5), calls("hasty", 1), function()
        task.sleep(2)
        calls("late", 1)()
      end }
      assert.same({ "hasty timeout", "late timeout", "patient timeout" }, ends)
    end)
  end)

  it("does not fail a call because another one that waits beside it has no time left", function()
    crowded(function(client, make_room)
      local conn
      task.all { function() talk.failure(client.call, client, "/a.B/C", "", { timeout = 1 }) end, function()
        client:connect(20)
        assert.equal("ready", client:state())
      end, function()
        task.sleep(2)
        conn = make_room()
      end }
      conn:close()
    end)
  end)

  it("stops connecting when it is closed, and tells who waits", function()
    crowded(function(client)
      local why
      task.all { function() why = talk.failure(client.connect, client) end, function()
        task.sleep(1)
        client:close()
      end }
      assert.same({ "transport", "closed", false }, { why.kind, why.reason, why.sent })
      assert.equal("shutdown", client:state())
    end)
  end)

  it("refuses a target that is none", function()
    for _, target in ipairs { "", "nowhere", "http://x", "unix:", "host:port", "host:65536", "a b:80", "[::1]" } do
      local why = talk.failure(grpc.client, { target = target })
      assert.is_true(err.is(why, "config"), target)
    end
  end)
end)

describe("a call over a Unix socket", function()
  for _, form in ipairs { "unix://%s", "unix:%s" } do
    it("finds " .. form:format "/path", function()
      local target = form:format(talk.path "grpc")
      local server <close> = grpc.serve { listen = target, services = services() } -- luacheck: ignore server
      local client <close> = grpc.client { target = target }
      assert.equal("<x>", (client:call("/a.B/Echo", "x")))
    end)
  end

  it("finds an abstract name", function()
    local target = "unix-abstract:" .. talk.path("grpc"):match "[^/]+$"
    local server <close> = grpc.serve { listen = target, services = services() } -- luacheck: ignore server
    local client <close> = grpc.client { target = target }
    assert.equal("<x>", (client:call("/a.B/Echo", "x")))
  end)
end)
