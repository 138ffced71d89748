-- gRPC over TLS with a server of somebody else's (Python's grpcio): whom a client trusts, and who it is.
local baaaht = require "spec.support.baaaht"
local fs = require "worker.fs"
local grpc = require "worker.grpc"
local plugin = require "spec.support.plugin"
local process = require "worker.process"
local program = require "spec.support.program"
local scratch = require "spec.support.scratch"
local secret = require "worker.secret"
local sys = require "worker.core.sys"
local talk = require "spec.support.talk"
local task = require "worker.task"

local dir

local function openssl(...)
  local made = process.run { argv = { "openssl", ... }, cwd = dir.root, env = { PATH = sys.env "PATH" } }
  assert.equal(0, made.exit_code, made.stderr)
end

local EC = { "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1" }

-- An authority of its own, NAME.pem and NAME.key.
local function authority(name)
  openssl("req", "-x509", EC[1], EC[2], EC[3], EC[4], "-nodes", "-days", "2", "-subj", "/CN=" .. name,
    "-keyout", name .. ".key", "-out", name .. ".pem")
end

-- What the authority `ca` vouches for; with a password the key is kept under it.
local function certificate(name, ca, names, password)
  dir:write(name .. ".ext", "subjectAltName=" .. names .. "\n")
  local hidden = password and { "-passout", "pass:" .. password } or { "-nodes" }
  openssl("req", EC[1], EC[2], EC[3], EC[4], "-subj", "/CN=" .. name, "-keyout", name .. ".key", "-out", name .. ".csr",
    table.unpack(hidden))
  openssl("x509", "-req", "-in", name .. ".csr", "-CA", ca .. ".pem", "-CAkey", ca .. ".key", "-CAcreateserial",
    "-days", "2", "-extfile", name .. ".ext", "-out", name .. ".pem")
end

local function child_of(argv)
  return process.spawn { argv = argv, cwd = dir.root, stdin = true, merge = true, env = { PATH = sys.env "PATH" } }
end

-- Its port, once it has said that it is up.
local function port_of(child, pattern)
  local said = ""
  for _, text in child:output() do
    said = said .. text
    local port = said:match(pattern)
    if port then return port end
  end
  error(said)
end

local function peer(...)
  local child = child_of { "/usr/bin/python3", fs.realpath "spec/support/grpc_peer.py", "serve", "127.0.0.1:0", ... }
  return child, port_of(child, "up (%d+)")
end

local function tls_of(more)
  local tls = { ca_file = dir:path "ca.pem" }
  for name, value in pairs(more or {}) do tls[name] = value end
  return tls
end

local function ask(port, tls, options)
  local all = { target = "localhost:" .. port, tls = tls, timeout = 20 }
  for name, value in pairs(options or {}) do all[name] = value end
  local client <close> = grpc.client(all)
  return (client:call("/x.Y/Who", "")), client:state()
end

setup(function()
  dir = scratch.dir()
  authority "ca"
  authority "stranger"
  certificate("server", "ca", "DNS:localhost,DNS:orchestrator.example")
  certificate("me", "ca", "DNS:worker-1")
  certificate("hidden", "ca", "DNS:worker-2", "open sesame")
  certificate("other", "stranger", "DNS:worker-3")
end)
teardown(function() fs.remove_tree(dir.root) end)

local function mine(name, password)
  return tls_of { cert = dir:path(name .. ".pem"), key = dir:path(name .. ".key"), key_password = password }
end

describe("gRPC over TLS #realtime", function()
  local child, port
  setup(function() child, port = peer(dir:path "server.pem", dir:path "server.key") end)
  teardown(function() child:close() end)

  it("reaches a server that its authority vouches for", function()
    assert.same({ "nobody", "ready" }, { ask(port, tls_of()) })
    assert.equal("nobody", (ask(port, tls_of { min = "1.3" })))
  end)

  it("reaches nobody else, and says why before anything is sent", function()
    for _, tls in ipairs { true, tls_of { ca_file = dir:path "stranger.pem" } } do
      local why = talk.failure(ask, port, tls)
      assert.same({ "transport", "tls", false }, { why.kind, why.reason, why.sent })
      assert.matches("certificate", why.message)
    end
    local why = talk.failure(ask, port, tls_of { ca_file = dir:path "nowhere.pem" })
    assert.equal("tls", why.reason)
  end)

  it("wants the name that was asked for, or the one that is configured", function()
    local address = { target = "127.0.0.1:" .. port }
    local why = talk.failure(ask, port, tls_of(), address)
    assert.equal("tls", why.reason)
    assert.matches("127.0.0.1", why.message, 1, true)
    assert.equal("nobody", (ask(port, tls_of { name = "orchestrator.example" }, address)))
    assert.equal("tls", talk.failure(ask, port, tls_of { name = "elsewhere.example" }, address).reason)
    assert.equal("nobody", (ask(port, { insecure = true }, address)))
  end)

  it("does not speak to it without TLS", function()
    local why = talk.failure(ask, port, nil)
    assert.equal("transport", why.kind)
  end)
end)

describe("gRPC over TLS, asked who it is, #realtime", function()
  local child, port
  setup(function() child, port = peer(dir:path "server.pem", dir:path "server.key", dir:path "ca.pem") end)
  teardown(function() child:close() end)

  it("shows its certificate", function()
    assert.equal("worker-1", (ask(port, mine "me")))
  end)

  it("opens its key with the password, which may be a secret", function()
    assert.equal("worker-2", (ask(port, mine("hidden", "open sesame"))))
    assert.equal("worker-2", (ask(port, mine("hidden", secret.value "open sesame"))))
    assert.equal("tls", talk.failure(ask, port, mine("hidden", "guess")).reason)
  end)

  it("is refused without one, and with that of a stranger", function()
    for _, tls in ipairs { tls_of(), mine "other" } do
      assert.equal("transport", talk.failure(ask, port, tls).kind)
    end
  end)

  local function in_terminal(command)
    return process.run { argv = { "script", "-qec", command, "/dev/null" }, cwd = dir.root,
      env = { PATH = sys.env "PATH", HOME = "/tmp" } }
  end

  it("asks nobody at the terminal for a password", function()
    if in_terminal("true").exit_code ~= 0 then return pending "there are no terminals here" end
    dir:write("victim_spec.lua", ([[
      local grpc, http = require "worker.grpc", require "worker.http"
      it("fails", function()
        local client <close> = grpc.client { target = "localhost:%s", tls = {
          ca_file = "ca.pem", cert = "hidden.pem", key = "hidden.key" } }
        assert.is_false((pcall(client.call, client, "/x.Y/Who", "")))
        local web <close> = http.client { base = "https://localhost:%s", ca_file = "ca.pem",
          cert = "hidden.pem", key = "hidden.key" }
        assert.is_false((pcall(web.get, web, "/")))
      end)]]):format(port, port))
    local _, run = task.within(60, in_terminal, program.binary .. " spec victim_spec.lua")
    assert.equal(0, run and run.exit_code, run and run.stdout or "it waits for ever")
  end)
end)

describe("gRPC over TLS, with a server that does not speak HTTP/2, #realtime", function()
  it("is told so by the handshake: h2 is all that it offers", function()
    local child <close> = child_of { "openssl", "s_server", "-accept", "127.0.0.1:0", "-cert", "server.pem", "-key",
      "server.key", "-alpn", "http/1.1" }
    local why = talk.failure(ask, port_of(child, "ACCEPT %S-:(%d+)"), tls_of())
    assert.equal("tls", why.reason)
    assert.matches("application protocol", why.message)
  end)
end)

-- A served one is reached through what ends TLS in front of it.
describe("baaaht over TLS #realtime", function()
  local function relay_to(address)
    local child = child_of { "/usr/bin/python3", fs.realpath "spec/support/tls_relay.py", "server.pem", "server.key",
      address:match "[%w.]+:%d+$" }
    return child, "localhost:" .. port_of(child, "up (%d+)")
  end

  it("runs tasks", function()
    local fake = baaaht.fake { jobs = { "echo hi" } }
    local child <close>, target = relay_to(fake.url) -- luacheck: ignore child
    local worker = baaaht.worker(fake, { orchestrator_addr = target, tls = { ca = dir:path "ca.pem" } }, {
      run = function() return { state = "success", exit_code = 0 } end })
    assert.equal("COMPLETED", baaaht.said(baaaht.ended(fake, 1)))
    worker:stop()
  end)

  it("says at the configuration that a Unix socket has none", function()
    local ok, why = pcall(plugin.get, "protocol", "baaaht", { tls = { enabled = true } })
    assert.is_false(ok)
    assert.matches("orchestrator_addr: .*no TLS over a Unix socket", why)
  end)
end)
