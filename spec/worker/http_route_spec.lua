-- How a client gets to its server: Unix sockets, proxies, TLS.
local http = require "worker.http"
local process = require "worker.process"
local scratch = require "spec.support.scratch"
local server = require "spec.support.server"
local task = require "worker.task"

local PATH = { PATH = "/usr/bin:/bin" }

local function failure(fn, ...)
  local ok, why = task.try(fn, ...)
  assert.is_false(ok)
  return why
end

local has_openssl = os.execute("command -v openssl >/dev/null 2>&1")
local tls_it = has_openssl and it or function(name)
  pending(name .. " (no openssl command here)")
end

local function openssl(dir, ...)
  local result = process.run { argv = { "openssl", ... }, env = PATH, cwd = dir:path(".") }
  assert.equal(0, result.exit_code, result.stderr)
end

-- A CA, a certificate of it for 127.0.0.1, and one for a client.
local function certificates(dir)
  openssl(dir, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
    "-keyout", "ca.key", "-out", "ca.pem", "-days", "2", "-subj", "/CN=spec CA")
  dir:write("server.ext", "subjectAltName=IP:127.0.0.1\n")
  for _, name in ipairs { "server", "client" } do
    openssl(dir, "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
      "-keyout", name .. ".key", "-out", name .. ".csr", "-subj", "/CN=" .. name)
    openssl(dir, "x509", "-req", "-in", name .. ".csr", "-CA", "ca.pem", "-CAkey", "ca.key",
      "-CAcreateserial", "-days", "2", "-extfile", "server.ext", "-out", name .. ".pem")
  end
end

-- A TLS server that answers every request with a page about the connection.
local function tls_server(dir, ...)
  local child = process.spawn { argv = { "openssl", "s_server", "-accept", "127.0.0.1:0", "-www",
    "-cert", "server.pem", "-key", "server.key", ... }, env = PATH, cwd = dir:path("."), merge = true }
  local text, port = "", nil
  for _, piece in child:output() do
    text = text .. piece
    port = text:match("ACCEPT 127.0.0.1:(%d+)")
    if port then break end
  end
  return child, "https://127.0.0.1:" .. port
end

describe("worker.http on its way", function()
  it("talks over a Unix socket, whatever proxy there is", function()
    local dir <close> = scratch.dir()
    local fake = server.http({}, { any = server.text(200, "unix"), unix = dir:path("s") })
    local api <close> = http.client { unix = fake.unix, environment = { http_proxy = "http://127.0.0.1:1" } }
    assert.equal("unix", api:get("/v1/x").body)
    assert.equal("unix", api:post("http://docker/v1/x").body)
    assert.equal("docker", fake:last().headers.host)
    assert.equal(2, fake:count())
  end)

  it("asks the environment's proxy, but not for what is exempt", function()
    local proxy = server.tcp(function(conn)
      local line = conn:line(1000)
      conn:write(("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s"):format(#line, line))
    end)
    local fake = server.http({}, { any = server.text(200, "direct") })
    local environment = { http_proxy = proxy.url, no_proxy = "exempt.invalid,10.0.0.0/8" }
    local api <close> = http.client { environment = environment }
    assert.equal("GET http://somewhere.invalid/x HTTP/1.1\r\n", api:get("http://somewhere.invalid/x").body)
    assert.equal("direct", api:get(fake.url .. "/").body)
    local none <close> = http.client { environment = environment, proxy = false, connect_timeout = 1 }
    assert.equal("dns", failure(none.get, none, "http://somewhere.invalid/x").reason)
    local own <close> = http.client { environment = {}, proxy = proxy.url, no_proxy = "exempt.invalid" }
    assert.matches("^GET http://somewhere.invalid/y", own:get("http://somewhere.invalid/y").body)
    assert.equal("direct", own:get(fake.url .. "/").body)
    local upper <close> = http.client { environment = { HTTP_PROXY = proxy.url } }
    assert.equal("dns", failure(upper.get, upper, "http://somewhere.invalid/x").reason)
  end)

  it("does not ask a proxy for an exempt host", function()
    local proxy = server.tcp(function(conn) conn:read() end)
    local api <close> = http.client { environment = { http_proxy = proxy.url, no_proxy = ".invalid" } }
    assert.equal("dns", failure(api.get, api, "http://host.invalid/x").reason)
    assert.equal(0, proxy:connections())
  end)

  it("shows a proxy nothing of a TLS request but where it goes", function()
    local head
    local proxy = server.tcp(function(conn)
      head = conn:head(10000)
      conn:write("HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
    end)
    local api <close> = http.client { proxy = proxy.url, bearer = "token-for-server" }
    local why = failure(api.get, api, "https://somewhere.invalid/secret")
    assert.equal("connect", why.reason)
    assert.is_false(why.sent)
    assert.matches("407", why.message)
    assert.matches("^CONNECT somewhere.invalid:443 HTTP/1.1\r\n", head)
    assert.not_matches("token", head)
    assert.not_matches("secret", head)
  end)

  tls_it("trusts a CA file it is given, and nobody else #realtime", function()
    local dir <close> = scratch.dir()
    certificates(dir)
    local child <close>, url = tls_server(dir)
    local api <close> = http.client { base = url, ca_file = dir:path("ca.pem") }
    assert.matches("TLSv1.3", api:get("/").body)
    assert.matches("Reused", api:get("/").body) -- the session is resumed on a new connection
    local stranger <close> = http.client { base = url }
    local why = failure(stranger.get, stranger, "/")
    assert.equal("tls", why.reason)
    assert.is_false(why.sent)
    assert.matches("certificate problem", why.message)
    assert.matches("ca_file", why.message)
    openssl(dir, "rehash", ".")
    local by_dir <close> = http.client { base = url, ca_dir = dir:path(".") }
    assert.equal(200, by_dir:get("/").status)
    local by_env <close> = http.client { base = url, environment = { SSL_CERT_FILE = dir:path("ca.pem") } }
    assert.equal(200, by_env:get("/").status)
    assert.is_not_nil(child)
  end)

  tls_it("does not speak older TLS than it should #realtime", function()
    local dir <close> = scratch.dir()
    certificates(dir)
    local child <close>, url = tls_server(dir, "-tls1_2")
    local api <close> = http.client { base = url, ca_file = dir:path("ca.pem"), tls_min = "1.3" }
    assert.equal("tls", failure(api.get, api, "/").reason)
    local older <close> = http.client { base = url, ca_file = dir:path("ca.pem") }
    assert.matches("TLSv1.2", older:get("/").body)
    assert.is_not_nil(child)
    assert.has_error(function() http.client { tls_min = "2" } end)
  end)

  tls_it("shows a certificate of its own #realtime", function()
    local dir <close> = scratch.dir()
    certificates(dir)
    local child <close>, url = tls_server(dir, "-Verify", "1", "-CAfile", "ca.pem")
    local api <close> = http.client { base = url, ca_file = dir:path("ca.pem"),
      cert = dir:path("client.pem"), key = dir:path("client.key") }
    assert.matches("Subject: CN=client", api:get("/").body)
    local nobody <close> = http.client { base = url, ca_file = dir:path("ca.pem") }
    assert.equal("transport", failure(nobody.get, nobody, "/").kind)
    assert.is_not_nil(child)
  end)

  it("drops a connection that is too old, and a server that is too slow #realtime", function()
    local fake = server.http { ["GET /"] = server.text(200, "ok"), ["GET /slow"] = server.slow {
      byte_every = 0.4 } }
    local api <close> = http.client { base = fake.url, max_age = 1, low_speed = { 1000, 1 } }
    api:get("/")
    api:get("/")
    assert.equal(1, fake:connections())
    local why = failure(api.get, api, "/slow")
    assert.equal("timeout", why.reason)
    task.sleep(2.1)
    local before = fake:connections()
    api:get("/")
    task.sleep(2.1)
    api:get("/")
    assert.equal(before + 2, fake:connections())
  end)

  it("says at once which file of a configuration is not there", function()
    local why = failure(http.client, { ca_file = "/nonexistent/ca.pem" })
    assert.equal("config", why.kind)
    assert.matches("ca_file /nonexistent/ca.pem: No such file", why.message)
    assert.equal("config", failure(http.client, { cert = "/nonexistent/c" }).kind)
    assert.equal("config", failure(http.client, { user_agent = "a\r\nb" }).kind)
  end)
end)

describe("a worker without libcurl", function()
  it("does without, or says what to install", function()
    local dir <close> = scratch.dir()
    dir:write("libcurl.so.4", "") -- the loader finds this one first
    local pipe <close> = io.popen("bin=$(readlink /proc/$PPID/exe); LD_LIBRARY_PATH=" .. dir:path(".")
      .. " exec $bin spec --log-level warn spec/support/no_libcurl.lua 2>&1")
    assert.matches("3 passed, 0 failed", pipe:read("a"))
  end)
end)
