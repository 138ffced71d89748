local errors = require "worker.error"
local http = require "worker.http"
local secret = require "worker.secret"
local server = require "spec.support.server"
local task = require "worker.task"
local ways = require "spec.support.http_ways"

local function failure(fn, ...)
  local ok, why = task.try(fn, ...)
  assert.is_false(ok)
  return why
end

ways(describe, "worker.http", function(client)
  it("talks to a server as the reference says", function()
    local fake = server.http {
      ["POST /v1/claim"] = server.sequence { server.json(200, { id = "7" }), server.empty(204) },
    }
    local api <close> = client { base = fake.url, bearer = "s3cret-token", timeout = 5 }
    local reply = api:post("/v1/claim", { json = { queue = "default" } })
    assert.equal("7", reply.json.id)
    assert.equal(204, api:post("/v1/claim").status)
    assert.equal("Bearer s3cret-token", fake.requests[1].headers.authorization)
    assert.equal("application/json", fake.requests[1].headers["content-type"])
    assert.same({ queue = "default" }, fake.requests[1].json)
  end)

  it("has a verb for every method, and sends what was said", function()
    local fake = server.http({}, { any = server.text(200, "body") })
    local api <close> = client { base = fake.url .. "/base/" }
    for _, verb in ipairs { "get", "head", "post", "put", "patch", "delete" } do
      local reply = api[verb](api, "/x")
      assert.equal(200, reply.status)
      assert.equal(verb == "head" and "" or "body", reply.body)
      assert.equal(verb:upper(), fake:last().method)
      assert.equal("/base/x", fake:last().path)
      assert.equal("", fake:last().body)
    end
    api:request { method = "OPTIONS", path = "relative" }
    assert.equal("OPTIONS", fake:last().method)
    assert.equal("/base/relative", fake:last().path)
  end)

  it("uses one connection for requests that follow each other", function()
    local fake = server.http({}, { any = server.text(200, "ok") })
    local api <close> = client { base = fake.url }
    for i = 1, 20 do
      api[i % 2 == 0 and "get" or "post"](api, "/", i % 4 == 1 and { body = ("x"):rep(i) } or nil)
    end
    assert.equal(20, fake:count())
    assert.equal(1, fake:connections())
  end)

  it("runs a hundred requests at once on one client", function()
    local fake = server.http { ["GET /{n}"] = function(request, reply)
      task.sleep(1)
      reply:text(200, request.params.n)
    end }
    local api <close> = client { base = fake.url }
    local got = {}
    task.scope(function(scope)
      for i = 1, 100 do
        scope:spawn(function() got[i] = api:get("/" .. i).body end)
      end
      scope:wait()
    end)
    for i = 1, 100 do assert.equal(tostring(i), got[i]) end
  end)

  it("encodes a query: sorted, lists repeated, pairs in their order", function()
    local fake = server.http({}, { any = server.empty(204) })
    local api <close> = client { base = fake.url }
    api:get("/a", { query = { b = "x y&", a = 1, tag = { "p", "q/ü" } } })
    assert.equal("/a?a=1&b=x%20y%26&tag=p&tag=q%2F%C3%BC", fake:last().target)
    api:get("/a?z=0", { query = { { "b", true }, { "a", 2 } } })
    assert.equal("/a?z=0&b=true&a=2", fake:last().target)
  end)

  it("sends forms, text and JSON, but only one of them", function()
    local fake = server.http({}, { any = server.empty(204) })
    local api <close> = client { base = fake.url }
    api:post("/", { form = { a = "1 2", b = "=" } })
    assert.equal("a=1%202&b=%3D", fake:last().body)
    assert.equal("application/x-www-form-urlencoded", fake:last().headers["content-type"])
    api:put("/", { body = "\0\255 bytes", headers = { ["Content-Type"] = "image/x" } })
    assert.equal("\0\255 bytes", fake:last().body)
    assert.equal("image/x", fake:last().headers["content-type"])
    api:post("/", { body = "plain" })
    assert.is_nil(fake:last().headers["content-type"])
    assert.matches("not both 'json' and 'body'", failure(api.post, api, "/", { json = {}, body = "" }))
  end)

  it("merges headers: the request's own win, repeated ones are sent, secrets revealed", function()
    local fake = server.http({}, { any = server.empty(204) })
    local api <close> = client { base = fake.url, headers = { ["X-A"] = "client", ["X-B"] = 1 },
      bearer = secret.value("token-of-client") }
    api:get("/", { headers = { ["x-a"] = "own", ["X-List"] = { "1", "2" }, ["X-Empty"] = "" } })
    local headers = fake:last().headers
    assert.equal("own", headers["x-a"])
    assert.equal("1", headers["x-b"])
    assert.equal("1, 2", headers["x-list"])
    assert.equal("", headers["x-empty"])
    assert.equal("Bearer token-of-client", headers.authorization)
    assert.matches("^worker/%d", headers["user-agent"])
    assert.is_nil(headers.expect)
  end)

  it("refuses what would smuggle a second header or request", function()
    local fake = server.http({}, { any = server.empty(204) })
    local api <close> = client { base = fake.url }
    for name, value in pairs {
      ["X-A"] = "a\r\nX-B: b", ["X-C"] = "a\nb", ["X-D"] = "a\0b", ["X E"] = "1", ["X:"] = "1",
      [""] = "1", ["X\r\nY"] = "1", ["Content-Length"] = "5", ["transfer-encoding"] = "chunked",
    } do
      local why = failure(api.get, api, "/", { headers = { [name] = value } })
      assert.equal("config", why.kind, name)
    end
    for _, path in ipairs { "/a b", "/a\r\nX: y", "/a\0b", "/ü", "/a\tb" } do
      failure(api.get, api, path)
    end
    failure(api.request, api, { method = "GET / HTTP/1.1\r\nX: y\r\n\r\nGET", path = "/" })
    assert.equal(0, fake:count())
  end)

  it("sends a path as it is", function()
    local fake = server.tcp(function(conn)
      local line = conn:line(1000)
      conn:write("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: " .. #line .. "\r\n\r\n" .. line)
    end)
    local api <close> = client { base = fake.url }
    assert.equal("GET /a/.././b/./%2e%2E//c HTTP/1.1\r\n", api:get("/a/.././b/./%2e%2E//c").body)
  end)

  it("joins addresses without letting a segment lead elsewhere", function()
    assert.equal("http://h/v1/a%2Fb%3Fc/d%20e", http.url("http://h/v1/", "a/b?c", "d e"))
    assert.equal("a%2Bb-._~%25", http.escape("a+b-._~%"))
    assert.has_error(function() http.url("http://h", "..") end)
    assert.has_error(function() http.url("http://h", nil, "x") end)
  end)

  it("raises a status that was not expected, and takes one that was", function()
    local fake = server.http({}, { any = server.text(418, "short\r\nand\tstout token-of-client") })
    local api <close> = client { base = fake.url, bearer = "token-of-client" }
    local why = failure(api.get, api, "/pot?key=hidden")
    assert.is_true(errors.is(why, "http"))
    assert.equal(418, why.status)
    assert.equal(("GET %s/pot: answered 418: short and stout ***"):format(fake.url), why.message)
    assert.equal(418, api:get("/", { expect = { 200, 418 } }).status)
    assert.equal(418, api:get("/", { expect = "any" }).status)
    assert.equal("http", failure(api.get, api, "/", { expect = { 200 } }).kind)
  end)

  it("does not show a large answer whole", function()
    local fake = server.http({}, { any = server.text(500, ("<p>"):rep(10000)) })
    local api <close> = client { base = fake.url }
    local why = failure(api.get, api, "/")
    assert.is_true(#why.message < 400)
    assert.equal(4096, #why.body)
  end)

  it("raises kind wire for JSON that is none", function()
    local fake = server.http({}, { any = server.sequence {
      server.text(200, "<html>login</html>"), server.text(200, ""), server.empty(204),
      server.text(200, "null") } })
    local api <close> = client { base = fake.url }
    local why = failure(function() return api:get("/").json end)
    assert.equal("wire", why.kind)
    assert.matches("<html>login</html>", why.message)
    assert.equal("wire", failure(function() return api:get("/").json end).kind)
    assert.is_nil(api:get("/").json)
    assert.is_nil(api:get("/").json)
  end)

  it("names an option that does not exist", function()
    assert.has_error(function() client { bse = "http://h" } end)
    local api <close> = client { base = "http://h" }
    assert.matches("no option 'qeury'", failure(api.get, api, "/", { qeury = {} }))
  end)

  it("says what is wrong with an address", function()
    local api <close> = client {}
    assert.equal("config", failure(api.get, api, "/path").kind)
    assert.equal("config", failure(api.get, api, "http://").kind)
    local gopher <close> = client { base = "gopher://u:pass@h" }
    local why = failure(gopher.get, gopher, "/")
    assert.equal("config", why.kind)
    assert.not_matches("pass", why.message)
  end)
end)
