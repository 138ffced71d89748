local listen = require "worker.core.listen".listen
local core = require "worker.core.sock"
local sys = require "worker.core.sys"
local task = require "worker.task"

-- More than the kernel's buffers of both ends can hold.
local FLOOD = ("0123456789abcdef"):rep(1024 * 1024)

-- The two ends of one connection, and its listener.
local function pair(options)
  local listener = listen(options or { address = "127.0.0.1:0" })
  local address = listener:address()
  local near = core.connect(address:find("^unix:") and { unix = address:sub(6) }
    or { address = address })
  return near, listener:accept(), listener
end

local function close(...)
  for _, handle in ipairs { ... } do handle:close() end
end

local function failure(fn, ...)
  local ok, why = pcall(fn, ...)
  assert.is_false(ok, "expected an error")
  return why
end

local function temp_path(name)
  local path = os.tmpname()
  os.remove(path)
  return path .. "-" .. name
end

local function mode_of(path)
  local pipe <close> = io.popen("stat -c %a " .. path)
  return pipe:read("l")
end

describe("a connection", function()
  local near, far, listener
  before_each(function() near, far, listener = pair() end)
  after_each(function() close(near, far, listener) end)

  it("carries bytes both ways, any bytes", function()
    near:write("\0\255\r\n")
    assert.equal("\0\255\r\n", far:read())
    far:write("answer")
    assert.equal("answer", near:read())
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
    local why = failure(far.line, far)
    assert.equal("transport", why.kind)
    assert.equal("closed", why.reason)
    assert.equal("half a li", far:read())
  end)

  it("refuses a line over its ceiling without losing a byte", function()
    near:write(("x"):rep(10000) .. "\n")
    local why = failure(far.line, far, 100)
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
    assert.matches("after 2 bytes", failure(far.read_exactly, far, 3).message)
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
    local why = failure(far.read_exactly, far, 10, { timeout = 5 })
    assert.equal("transport", why.kind)
    assert.equal("timeout", why.reason)
    near:write("defghij")
    assert.equal("abcdefghij", far:read_exactly(10))
  end)

  it("has a timeout of its own for calls that name none", function()
    far:timeout(5)
    assert.equal("timeout", failure(far.read, far).reason)
    far:timeout(nil)
    near:write("x")
    assert.equal("x", far:read())
  end)

  it("tears the stream when a write is cut short", function()
    assert.equal("timeout", failure(near.write, near, FLOOD, { timeout = 5 }).reason)
    assert.equal("closed", failure(near.write, near, "more").reason)
  end)

  it("sees a reset", function()
    near:reset()
    assert.equal("reset", failure(far.read, far).reason)
  end)

  it("sees a reset in the middle of writing", function()
    task.scope(function(scope)
      scope:spawn(function() task.sleep(1); far:reset() end)
      local why = failure(near.write, near, FLOOD)
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
    assert.equal("closed", failure(near.write, near, "more").reason)
  end)

  it("wakes a reader and a writer when it is closed here", function()
    local reasons = {}
    task.scope(function(scope)
      scope:spawn(function() reasons.read = failure(near.read, near).reason end)
      scope:spawn(function()
        reasons.write = failure(near.write, near, FLOOD).reason
      end)
      task.sleep(1)
      near:close()
      scope:wait()
    end)
    assert.same({ read = "closed", write = "closed" }, reasons)
    assert.equal("worker.sock (closed)", tostring(near))
    assert.equal("closed", failure(near.read, near).reason)
  end)

  it("refuses a second reader", function()
    task.scope(function(scope)
      scope:spawn(function() pcall(near.read, near) end)
      task.sleep(1)
      assert.matches("another task is reading", failure(near.read, near))
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

  it("does not spin when the other side is gone and nobody reads", function()
    far:close()
    task.sleep(1)
    local before = sys.turns()
    for _ = 1, 5 do task.sleep(1) end
    assert.is_true(sys.turns() - before < 40)
  end)
end)

describe("a listener", function()
  it("says plainly what is wrong with an address", function()
    assert.matches("expected host:port", failure(listen, { address = "nowhere" }))
    assert.matches("numeric address", failure(listen, { address = "example.org:80" }).message)
    assert.matches("brackets", failure(listen, { address = "::1:80" }))
    assert.matches("either", failure(listen, {}))
  end)

  it("refuses an address that is in use", function()
    local first <close> = listen { address = "127.0.0.1:0" }
    local why = failure(listen, { address = first:address() })
    assert.equal("transport", why.kind)
    assert.matches("Address already in use", why.message)
  end)

  it("stops waiting in time, and when it is closed", function()
    local listener <close> = listen { address = "127.0.0.1:0" }
    assert.equal("timeout", failure(listener.accept, listener, { timeout = 3 }).reason)
    task.scope(function(scope)
      scope:spawn(function() task.sleep(1); listener:close() end)
      assert.equal("closed", failure(listener.accept, listener).reason)
    end)
  end)

  it("takes no more connections than its limit, and goes on when one ends", function()
    local listener <close> = listen { address = "127.0.0.1:0", max_connections = 1 }
    local a <close> = core.connect { address = listener:address() }
    local b <close> = core.connect { address = listener:address() }
    local first = listener:accept()
    assert.equal("timeout", failure(listener.accept, listener, { timeout = 3 }).reason)
    assert.same({ open = 1, accepted = 1, pauses = 0 }, listener:counts())
    task.scope(function(scope)
      scope:spawn(function() task.sleep(1); first:close() end)
      listener:accept():close()
    end)
    a:close()
    b:close()
  end)

  it("lets its connections outlive it", function()
    local near, far, listener = pair()
    listener:close()
    near:write("still")
    assert.equal("still", far:read())
    close(near, far)
  end)

  it("holds a thousand idle connections", function()
    local listener <close> = listen { address = "127.0.0.1:0", backlog = 1024 }
    local ends = {}
    for i = 1, 1000 do
      ends[i] = core.connect { address = listener:address() }
      ends[1000 + i] = listener:accept()
    end
    assert.equal(1000, listener:counts().open)
    ends[500]:write("x")
    assert.equal("x", ends[1500]:read())
    close(table.unpack(ends))
    assert.equal(0, listener:counts().open)
  end)
end)

describe("a Unix socket", function()
  it("connects, knows its peer, and takes its file along when it ends", function()
    local path = temp_path("sock")
    local near, far, listener = pair { unix = path }
    assert.equal("unix:" .. path, listener:address())
    assert.equal("unix:" .. path, near:peer())
    assert.equal(sys.pid(), far:credentials().pid)
    near:write("x")
    assert.equal("x", far:read())
    close(near, far, listener)
    assert.is_nil(io.open(path))
  end)

  it("gives its file exactly the mode asked for", function()
    for _, mode in ipairs { 384, 432, 438 } do -- 0600 0660 0666
      local path = temp_path("mode")
      local listener <close> = listen { unix = path, mode = mode }
      assert.equal(("%o"):format(mode), mode_of(path))
      listener:close()
    end
  end)

  it("replaces the file of a dead process, not that of a living one", function()
    local path = temp_path("stale")
    local dead = listen { unix = path .. "-dead" }
    assert.is_true(os.execute(("ln %s-dead %s"):format(path, path)))
    dead:close() -- removes its own name; the other one now leads nowhere
    assert.equal("connect", failure(core.connect, { unix = path }).reason)
    local listener <close> = listen { unix = path }
    assert.matches("Address already in use", failure(listen, { unix = path }).message)
    core.connect({ unix = path }):close()
    listener:close()
  end)

  it("leaves a file that is no socket alone", function()
    local path = os.tmpname()
    assert.matches("Address already in use", failure(listen, { unix = path }).message)
    assert.is_true(os.remove(path))
  end)

  it("does not remove a file that another listener has put in its place", function()
    local path = temp_path("taken")
    local first = listen { unix = path }
    os.remove(path)
    local second <close> = listen { unix = path }
    first:close()
    core.connect({ unix = path }):close()
    second:close()
  end)

  it("knows the abstract namespace", function()
    local name = "@worker-spec-" .. sys.pid()
    local near, far, listener = pair { unix = name }
    assert.equal("unix:" .. name, listener:address())
    near:write("x")
    assert.equal("x", far:read())
    close(near, far, listener)
  end)

  it("waits for a place in a full backlog", function()
    local path = temp_path("full")
    local listener <close> = listen { unix = path, backlog = 1 }
    local ends = {}
    for i = 1, 2 do ends[i] = core.connect { unix = path } end
    assert.equal("timeout", failure(core.connect, { unix = path, timeout = 0.05 }).reason)
    task.scope(function(scope)
      scope:spawn(function() ends[3] = core.connect { unix = path } end)
      ends[4] = listener:accept()
      scope:wait()
    end)
    close(table.unpack(ends))
  end)

  it("refuses a path that is too long, in words", function()
    assert.matches("may have 107 bytes, not 200",
      failure(listen, { unix = "/" .. ("x"):rep(199) }).message)
  end)
end)

describe("connecting", function()
  it("says who refused", function()
    local listener = listen { address = "127.0.0.1:0" }
    local address = listener:address()
    listener:close()
    local why = failure(core.connect, { address = address })
    assert.equal("connect", why.reason)
    assert.matches(address, why.message, 1, true)
    assert.equal("connect", failure(core.connect, { unix = "/nowhere/x.sock" }).reason)
  end)

  it("says when a name does not exist", function()
    assert.equal("dns", failure(core.connect, { address = "no.such.host.invalid:80" }).reason)
  end)

  it("refuses a host name that would change the meaning of an address", function()
    for _, host in ipairs { "a/b", "user@host", "a b", "a#b", "a?b", "" } do
      assert.matches("not a host name", failure(core.connect, { address = host .. ":80" }).message)
    end
  end)

  it("can be cancelled at any moment", function()
    local path = temp_path("cancel")
    local listener <close> = listen { unix = path, backlog = 1 }
    local ends = { core.connect { unix = path }, core.connect { unix = path } }
    local done = task.within(0.05, core.connect, { unix = path })
    assert.is_false(done)
    assert.is_false((task.within(0, core.connect, { address = "no.such.host.invalid:1" })))
    close(table.unpack(ends))
    listener:close()
  end)
end)

describe("a datagram", function()
  it("reaches a Unix socket or says that nobody is there", function()
    assert.matches("No such file", failure(core.datagram, "/nowhere/x", "READY=1").message)
  end)
end)
