local core = require "worker.core.sock"
local listen = require "worker.core.listen".listen
local sys = require "worker.core.sys"
local talk = require "spec.support.talk"
local task = require "worker.task"

local function mode_of(path)
  local pipe <close> = io.popen("stat -c %a " .. path)
  return pipe:read("l")
end

describe("a listener", function()
  it("says plainly what is wrong with an address", function()
    assert.matches("expected host:port", talk.failure(listen, { address = "nowhere" }))
    assert.matches("numeric address", talk.failure(listen, { address = "example.org:80" }).message)
    assert.matches("brackets", talk.failure(listen, { address = "::1:80" }))
    assert.matches("either", talk.failure(listen, {}))
  end)

  it("refuses an address that is in use", function()
    local first <close> = listen { address = "127.0.0.1:0" }
    local why = talk.failure(listen, { address = first:address() })
    assert.equal("transport", why.kind)
    assert.matches("Address already in use", why.message)
  end)

  it("stops waiting in time, and when it is closed", function()
    local listener <close> = listen { address = "127.0.0.1:0" }
    assert.equal("timeout", talk.failure(listener.accept, listener, { timeout = 3 }).reason)
    task.scope(function(scope)
      scope:spawn(function() task.sleep(1); listener:close() end)
      assert.equal("closed", talk.failure(listener.accept, listener).reason)
    end)
  end)

  it("takes no more connections than its limit, and goes on when one ends", function()
    local listener <close> = listen { address = "127.0.0.1:0", max_connections = 1 }
    local a <close> = core.connect { address = listener:address() }
    local b <close> = core.connect { address = listener:address() }
    local first = listener:accept()
    assert.equal("timeout", talk.failure(listener.accept, listener, { timeout = 3 }).reason)
    assert.same({ open = 1, accepted = 1, pauses = 0 }, listener:counts())
    task.scope(function(scope)
      scope:spawn(function() task.sleep(1); first:close() end)
      listener:accept():close()
    end)
    a:close()
    b:close()
  end)

  it("lets its connections outlive it", function()
    local near, far, listener = talk.pair()
    listener:close()
    near:write("still")
    assert.equal("still", far:read())
    talk.close(near, far)
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
    talk.close(table.unpack(ends))
    assert.equal(0, listener:counts().open)
  end)
end)

describe("a Unix socket", function()
  it("connects, knows its peer, and takes its file along when it ends", function()
    local path = talk.path("sock")
    local near, far, listener = talk.pair { unix = path }
    assert.equal("unix:" .. path, listener:address())
    assert.equal("unix:" .. path, near:peer())
    assert.equal(sys.pid(), far:credentials().pid)
    near:write("x")
    assert.equal("x", far:read())
    talk.close(near, far, listener)
    assert.is_nil(io.open(path))
  end)

  it("gives its file exactly the mode asked for", function()
    for _, mode in ipairs { 384, 432, 438 } do -- 0600 0660 0666
      local path = talk.path("mode")
      local listener <close> = listen { unix = path, mode = mode }
      assert.equal(("%o"):format(mode), mode_of(path))
      listener:close()
    end
  end)

  it("replaces the file of a dead process, not that of a living one", function()
    local path = talk.path("stale")
    local dead = listen { unix = path .. "-dead" }
    assert.is_true(os.execute(("ln %s-dead %s"):format(path, path)))
    dead:close() -- removes its own name; the other one now leads nowhere
    assert.equal("connect", talk.failure(core.connect, { unix = path }).reason)
    local listener <close> = listen { unix = path }
    assert.matches("Address already in use", talk.failure(listen, { unix = path }).message)
    core.connect({ unix = path }):close()
    listener:close()
  end)

  it("leaves a file that is no socket alone", function()
    local path = os.tmpname()
    assert.matches("Address already in use", talk.failure(listen, { unix = path }).message)
    assert.is_true(os.remove(path))
  end)

  it("does not remove a file that another listener has put in its place", function()
    local path = talk.path("taken")
    local first = listen { unix = path }
    os.remove(path)
    local second <close> = listen { unix = path }
    first:close()
    core.connect({ unix = path }):close()
    second:close()
  end)

  it("knows the abstract namespace", function()
    local name = "@worker-spec-" .. sys.pid()
    local near, far, listener = talk.pair { unix = name }
    assert.equal("unix:" .. name, listener:address())
    near:write("x")
    assert.equal("x", far:read())
    talk.close(near, far, listener)
  end)

  it("waits for a place in a full backlog", function()
    local path = talk.path("full")
    local listener <close> = listen { unix = path, backlog = 1 }
    local ends = {}
    for i = 1, 2 do ends[i] = core.connect { unix = path } end
    assert.equal("timeout", talk.failure(core.connect, { unix = path, timeout = 0.05 }).reason)
    task.scope(function(scope)
      scope:spawn(function() ends[3] = core.connect { unix = path } end)
      ends[4] = listener:accept()
      scope:wait()
    end)
    talk.close(table.unpack(ends))
  end)

  it("refuses a path that is too long, in words", function()
    assert.matches("may have 107 bytes, not 200",
      talk.failure(listen, { unix = "/" .. ("x"):rep(199) }).message)
  end)
end)

describe("without file descriptors", function()
  it("listeners and servers wait instead of spinning", function()
    local pipe <close> = io.popen("bin=$(readlink /proc/$PPID/exe); ulimit -n 48; "
      .. "exec $bin spec --log-level warn spec/support/no_files_left.lua 2>&1")
    local text = pipe:read("a")
    assert.matches("2 passed, 0 failed", text)
    assert.matches("accept_paused", text)
  end)
end)
