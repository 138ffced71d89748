-- Connecting: TLS against a real TLS server, and proxies against a fake one.  (A child of io.popen inherits the
-- blocked signals of the worker, so only SIGKILL ends it.)
local core = require "worker.core.sock"
local server = require "spec.support.server"
local listen = require "worker.core.listen".listen
local talk = require "spec.support.talk"
local task = require "worker.task"

local HAVE_OPENSSL = os.execute("command -v openssl >/dev/null 2>&1")

local function sh(format, ...)
  assert.is_true(os.execute((format):format(...)))
end

describe("connecting", function()
  it("says who refused", function()
    local listener = listen { address = "127.0.0.1:0" }
    local address = listener:address()
    listener:close()
    local why = talk.failure(core.connect, { address = address })
    assert.equal("connect", why.reason)
    assert.matches(address, why.message, 1, true)
    assert.equal("connect", talk.failure(core.connect, { unix = "/nowhere/x.sock" }).reason)
  end)

  it("says when a name does not exist", function()
    assert.equal("dns", talk.failure(core.connect, { address = "no.such.host.invalid:80" }).reason)
  end)

  it("refuses a host name that would change the meaning of an address", function()
    for _, host in ipairs { "a/b", "user@host", "a b", "a#b", "a?b", "" } do
      assert.matches("not a host name", talk.failure(core.connect, { address = host .. ":80" }).message)
    end
  end)

  it("can be cancelled at any moment", function()
    local path = talk.path("cancel")
    local listener <close> = listen { unix = path, backlog = 1 }
    local ends = { core.connect { unix = path }, core.connect { unix = path } }
    local done = task.within(0.05, core.connect, { unix = path })
    assert.is_false(done)
    assert.is_false((task.within(0, core.connect, { address = "no.such.host.invalid:1" })))
    talk.close(table.unpack(ends))
    listener:close()
  end)

  it("finds this machine by its name, whichever of its addresses listens", function()
    for _, here in ipairs { "127.0.0.1", "[::1]" } do
      local ok, listener = pcall(listen, { address = here .. ":0" })
      if ok then
        for _, name in ipairs { "localhost", "LocalHost", here } do
          local conn <close> = core.connect { address = listener:address():gsub("^.*:", name .. ":") }
          assert.equal(listener:address(), conn:peer())
        end
        listener:close()
      else
        assert.equal("[::1]", here) -- a machine without version 6
      end
    end
  end)

  it("tells once that all addresses of a name refuse", function()
    local listener = listen { address = "127.0.0.1:0" }
    local port = listener:address():match("%d+$")
    listener:close()
    local why = talk.failure(core.connect, { address = "localhost:" .. port })
    assert.equal("connect", why.reason)
    assert.matches("localhost:" .. port .. ": Connection refused", why.message, 1, true)
  end)

  it("gives up lookups at any moment, many at once", function()
    task.scope(function(scope)
      for i = 1, 20 do
        scope:spawn(function()
          pcall(task.within, i / 4000, core.connect, { address = "no.such.host.invalid:1" })
        end)
      end
      scope:wait()
    end)
  end)
end)

-- A worker of its own, in a shell that has prepared its surroundings.
local function child(prepare, file, inside)
  local pipe <close> = io.popen(([[bin=$(readlink /proc/$PPID/exe); %s
    exec %s spec --log-level warn spec/support/%s.lua 2>&1]]):format(prepare, inside or "$bin", file))
  return pipe:read("a")
end

describe("connecting without the means", function()
  it("tells that there are no file descriptors", function()
    assert.matches("1 passed, 0 failed", child("ulimit -n 48", "no_files_dial"))
  end)

  -- A directory of hosts of our own needs a mount namespace.
  it("tries the next address of a name, the other family first #realtime", function()
    if not os.execute("unshare -rm true 2>/dev/null") then return pending("no namespaces here") end
    local text = child([[hosts=$(mktemp)
      printf '%s\n' '127.0.0.2 many' '127.0.0.3 many' '::1 many' '127.0.0.1 many' >$hosts]], "many_hosts",
      [[unshare -rm sh -c 'mount --bind "$0" /etc/hosts && rm "$0" && exec "$@"' $hosts $bin]])
    assert.matches("1 passed, 0 failed", text)
  end)
end)

describe("TLS #realtime", function()
  local dir, pipe, pid, address

  local function certificate(name)
    sh("openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 "
      .. "-subj /CN=%s -addext subjectAltName=DNS:%s -keyout %s/%s.key -out %s/%s.pem 2>/dev/null",
      name, name, dir, name, dir, name)
  end

  -- An openssl that sends every line back reversed.
  local function start(options)
    pipe = io.popen(("echo $$; exec openssl s_server -accept 127.0.0.1:0 -cert %s/localhost.pem "
      .. "-key %s/localhost.key -rev %s 2>&1"):format(dir, dir, options or ""))
    pid = pipe:read("l")
    repeat address = pipe:read("l"):match("^ACCEPT (.*)$") until address
  end

  before_each(function()
    if not HAVE_OPENSSL then return pending("openssl is not installed") end
    dir = os.tmpname()
    os.remove(dir)
    sh("mkdir -m 700 %s", dir)
    certificate("localhost")
    start()
  end)
  after_each(function()
    if not HAVE_OPENSSL then return end
    sh("kill -9 %s && rm -r %s", pid, dir)
    pipe:close()
  end)

  local function connect(tls, more)
    local options = { address = address, tls = tls }
    for name, value in pairs(more or {}) do options[name] = value end
    return core.connect(options)
  end

  it("talks to a server whose certificate is the right one", function()
    local conn <close> = connect { ca_file = dir .. "/localhost.pem", name = "localhost" }
    conn:write("abc\n")
    assert.equal("cba\n", conn:line())
    assert.equal(address, conn:peer())
    assert.matches("only close", talk.failure(conn.shutdown, conn).message)
  end)

  it("moves more than any buffer holds, both ways at once", function()
    local conn <close> = connect { ca_file = dir .. "/localhost.pem", name = "localhost" }
    local line = ("0123456789"):rep(800) .. "\n"
    local back = line:sub(1, -2):reverse() .. "\n"
    task.scope(function(scope)
      scope:spawn(function() conn:write(line:rep(400)) end)
      for _ = 1, 400 do assert.equal(back, conn:line()) end
      scope:wait()
    end)
  end)

  it("refuses a certificate nobody vouches for, and one for another name", function()
    local why = talk.failure(connect, true)
    assert.same({ "transport", "tls" }, { why.kind, why.reason })
    assert.matches("certificate", why.message)
    why = talk.failure(connect, { ca_file = dir .. "/localhost.pem", name = "example.org" })
    assert.equal("tls", why.reason)
    assert.matches("example.org", why.message)
  end)

  it("sees the end of the conversation", function()
    local conn <close> = connect { insecure = true }
    conn:write("x\n")
    assert.equal("x\n", conn:line())
    sh("kill -9 %s", pid)
    assert.is_nil(conn:read())
    start()
  end)

  it("shows a certificate of its own when asked for one", function()
    sh("kill -9 %s", pid)
    pipe:close()
    certificate("worker")
    start(("-Verify 1 -CAfile %s/worker.pem -verify_return_error"):format(dir))
    local conn = connect {
      insecure = true, cert = dir .. "/worker.pem", key = dir .. "/worker.key",
    }
    conn:write("mine\n")
    assert.equal("enim\n", conn:line())
    conn:close()
    assert.equal("tls", talk.failure(function() -- TLS 1.3 tells only with the first read
      local bare <close> = connect { insecure = true }
      bare:line()
    end).reason)
  end)

  it("is refused by a server that does not speak it", function()
    local fake = server.tcp(function(conn) conn:read(); conn:write("hello\n") end)
    local why = talk.failure(core.connect, { address = fake.address, tls = true })
    assert.equal("tls", why.reason)
  end)

  it("gives up in time on a server that says nothing", function()
    local fake = server.tcp(function(conn) while conn:read() do end end) -- luacheck: ignore 542
    local why = talk.failure(core.connect, { address = fake.address, tls = true, timeout = 0.2 })
    assert.equal("timeout", why.reason)
    assert.is_false((task.within(0.1, core.connect, { address = fake.address, tls = true })))
  end)
end)

describe("a proxy", function()
  it("is asked for a tunnel, and what follows is the connection", function()
    local asked
    local fake = server.tcp(function(conn)
      asked = conn:head()
      conn:write("HTTP/1.1 200 Go ahead\r\n\r\nwelcome\n")
      conn:write(conn:line())
    end)
    local conn <close> = core.connect { address = "far.example:99", proxy = fake.url }
    assert.equal("welcome\n", conn:line())
    conn:write("echo\n")
    assert.equal("echo\n", conn:line())
    assert.matches("^CONNECT far.example:99 HTTP/1", asked)
  end)

  it("that refuses is named in the error", function()
    local fake = server.tcp(function(conn)
      conn:head()
      conn:write("HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n")
    end)
    local why = talk.failure(core.connect, { address = "far.example:99", proxy = fake.url })
    assert.equal("transport", why.kind)
    assert.matches("403", why.message)
  end)

  it("is not asked for loopback", function()
    local fake = server.tcp(function(conn) conn:write("direct\n") end)
    local conn <close> = core.connect { address = fake.address, proxy = "http://127.0.0.1:1" }
    assert.equal("direct\n", conn:line())
  end)
end)
