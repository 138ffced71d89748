local core = require "worker.core.sock"
local sys = require "worker.core.sys"
local talk = require "spec.support.talk"
local task = require "worker.task"

-- More than the kernel's buffers of both ends can hold.
local FLOOD = ("0123456789abcdef"):rep(1024 * 1024)

describe("a connection", function()
  local near, far, listener
  before_each(function() near, far, listener = talk.pair() end)
  after_each(function() talk.close(near, far, listener) end)

  it("carries bytes both ways, any bytes", function()
    near:write("\0\255\r\n")
    assert.equal("\0\255\r\n", far:read())
    far:write("answer")
    assert.equal("answer", near:read())
  end)

  it("is read in larger pieces while a stream fills them", function()
    local writer = task.start(near.write, near, FLOOD)
    local left, pieces = #FLOOD, 0
    while left > 0 do
      left, pieces = left - #far:read(65536), pieces + 1
    end
    assert.is_true((writer:join()))
    assert.is_true(pieces < #FLOOD / 16384, pieces)
  end)

  it("knows the names of its ends", function()
    assert.equal(listener:address(), near:peer())
    assert.equal(near:address(), far:peer())
  end)

  it("reads lines, and gives nil at a clean end", function()
    near:write("one\ntwo\r\n")
    near:shutdown()
    assert.equal("one\n", far:line())
    assert.equal("two\r\n", far:line())
    assert.is_nil(far:line())
    assert.is_nil(far:read())
  end)

  it("raises when the end comes in the middle of a line", function()
    near:write("half a li")
    near:shutdown()
    local why = talk.failure(far.line, far)
    assert.equal("transport", why.kind)
    assert.equal("closed", why.reason)
    assert.equal("half a li", far:read())
  end)

  it("refuses a line over its ceiling without losing a byte", function()
    near:write(("x"):rep(10000) .. "\n")
    local why = talk.failure(far.line, far, 100)
    assert.equal("limit", why.kind)
    assert.equal("too_big", why.reason)
    assert.equal(10001, #far:line(10001))
  end)

  it("reads a head that arrives byte by byte", function()
    local head = "GET / HTTP/1.1\r\nA: b\r\n\r\n"
    task.scope(function(scope)
      scope:spawn(function()
        for i = 1, #head do near:write(head:sub(i, i)); task.sleep(0.01) end
        near:write("body")
      end)
      assert.equal(head, far:head())
      assert.equal("body", far:read_exactly(4))
      scope:wait()
    end)
  end)

  it("takes every way to write an empty line for the end of a head", function()
    for _, head in ipairs { "\r\n", "\n", "a\n\n", "a\r\n\n", "a\n\r\n", "a\r\nb\r\n\r\n" } do
      near:write(head .. "X")
      assert.equal(head, far:head())
      assert.equal("X", far:read(1))
    end
  end)

  it("reads exactly as many bytes as asked, and says how far it came", function()
    near:write("12345")
    assert.equal("123", far:read_exactly(3))
    near:shutdown()
    assert.matches("after 2 bytes", talk.failure(far.read_exactly, far, 3).message)
  end)

  it("moves 16 MiB through a slow reader", function()
    task.scope(function(scope)
      scope:spawn(function() near:write(FLOOD); near:shutdown() end)
      local total, pieces = 0, 0
      while true do
        local piece = far:read(1024 * 1024)
        if not piece then break end
        total, pieces = total + #piece, pieces + 1
        if pieces % 64 == 0 then task.sleep(1) end
      end
      assert.equal(#FLOOD, total)
    end)
    local received = far:traffic()
    assert.equal(#FLOOD, received)
  end)

  it("waits for a first byte without taking it", function()
    near:write("x")
    assert.is_true(far:wait())
    assert.equal("x", far:read())
    near:close()
    assert.is_nil(far:wait())
  end)

  it("gives up reading in time and loses nothing", function()
    near:write("abc")
    local why = talk.failure(far.read_exactly, far, 10, { timeout = 5 })
    assert.equal("transport", why.kind)
    assert.equal("timeout", why.reason)
    near:write("defghij")
    assert.equal("abcdefghij", far:read_exactly(10))
  end)

  it("has a timeout of its own for calls that name none", function()
    far:timeout(5)
    assert.equal("timeout", talk.failure(far.read, far).reason)
    far:timeout(nil)
    near:write("x")
    assert.equal("x", far:read())
  end)

  it("tears the stream when a write is cut short", function()
    assert.equal("timeout", talk.failure(near.write, near, FLOOD, { timeout = 5 }).reason)
    assert.equal("closed", talk.failure(near.write, near, "more").reason)
  end)

  it("sees a reset", function()
    near:reset()
    assert.equal("reset", talk.failure(far.read, far).reason)
  end)

  it("sees a reset in the middle of writing", function()
    task.scope(function(scope)
      scope:spawn(function() task.sleep(1); far:reset() end)
      local why = talk.failure(near.write, near, FLOOD)
      assert.equal("reset", why.reason)
    end)
  end)

  it("can be half closed: the answer still comes", function()
    near:write("question")
    near:shutdown()
    assert.equal("question", far:read())
    assert.is_nil(far:read())
    far:write("answer")
    assert.equal("answer", near:read())
    assert.equal("closed", talk.failure(near.write, near, "more").reason)
  end)

  it("wakes a reader and a writer when it is closed here", function()
    local reasons = {}
    task.scope(function(scope)
      scope:spawn(function() reasons.read = talk.failure(near.read, near).reason end)
      scope:spawn(function()
        reasons.write = talk.failure(near.write, near, FLOOD).reason
      end)
      task.sleep(1)
      near:close()
      scope:wait()
    end)
    assert.same({ read = "closed", write = "closed" }, reasons)
    assert.equal("worker.sock (closed)", tostring(near))
    assert.equal("closed", talk.failure(near.read, near).reason)
  end)

  it("refuses a second reader", function()
    task.scope(function(scope)
      scope:spawn(function() pcall(near.read, near) end)
      task.sleep(1)
      assert.matches("another task is reading", talk.failure(near.read, near))
    end)
  end)

  it("survives the cancel of a reader", function()
    task.scope(function(scope)
      local reader = scope:spawn(near.read, near)
      task.sleep(1)
      reader:cancel("enough")
    end)
    far:write("later")
    assert.equal("later", near:read())
  end)

  it("lets others run, however much there is to read and to write", function()
    local turns = 0
    task.scope(function(scope)
      scope:spawn(function()
        while true do task.yield(); turns = turns + 1 end
      end)
      for _ = 1, 1000 do near:write("x") end
      assert.is_true(turns >= 10)
      turns = 0
      for _ = 1, 1000 do assert.equal("x", far:read(1)) end
      assert.is_true(turns >= 10)
    end)
  end)

  it("does not spin when the other side is gone and nobody reads", function()
    far:close()
    task.sleep(1)
    local before = sys.turns()
    for _ = 1, 5 do task.sleep(1) end
    assert.is_true(sys.turns() - before < 40)
  end)
end)

describe("a datagram", function()
  it("reaches a Unix socket", function()
    if not os.execute("command -v python3 >/dev/null 2>&1") then
      return pending("python3, which receives it here, is not installed")
    end
    local path = talk.path("datagram")
    local pipe <close> = io.popen(([[python3 -uc 'import socket
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); s.bind("%s"); print("bound"); print(s.recv(99))']])
      :format(path))
    assert.equal("bound", pipe:read("l"))
    core.datagram(path, "READY=1\nSTATUS=ok")
    assert.equal([[b'READY=1\nSTATUS=ok']], pipe:read("l"))
    os.remove(path)
  end)

  it("says that nobody is there", function()
    assert.matches("No such file", talk.failure(core.datagram, "/nowhere/x", "READY=1").message)
  end)
end)
