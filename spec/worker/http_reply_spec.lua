local replies = require "worker.http.reply"
local resolve = require "worker.http.resolve"
local server = require "spec.support.server"
local sys = require "worker.core.sys"
local task = require "worker.task"
local ways = require "spec.support.http_ways"

local function failure(fn, ...)
  local ok, why = task.try(fn, ...)
  assert.is_false(ok)
  return why
end

ways(describe, "worker.http reply", function(client)
  local function answered(answer, options)
    local fake = server.http({}, { any = answer })
    local api <close> = client { base = fake.url }
    return api:get("/", options)
  end

  it("finds headers in any case and keeps repeated ones", function()
    local reply = answered(server.raw("HTTP/1.1 200 OK\r\nX-Thing: a\r\nx-thing:b\r\nEmpty:\r\n" ..
      "Folded: one\r\n  two\r\nContent-Length: 0\r\n\r\n"))
    assert.equal("a, b", reply:header("X-THING"))
    assert.equal("a, b", reply.headers["x-Thing"])
    assert.same({ "a", "b" }, reply:values("X-Thing"))
    assert.equal("", reply:header("empty"))
    assert.equal("one two", reply:header("Folded"))
    assert.is_nil(reply:header("absent"))
    assert.same({}, reply:values("absent"))
    assert.equal("0", reply.headers["Content-Length"])
  end)

  it("shows only the last head when others came before it", function()
    local reply = answered(server.raw("HTTP/1.1 100 Continue\r\nX: early\r\n\r\n" ..
      "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 201 OK\r\nY: 1\r\nContent-Length: 0\r\n\r\n"))
    assert.equal(201, reply.status)
    assert.is_nil(reply:header("x"))
    assert.equal("1", reply:header("y"))
  end)

  it("reads both forms of Retry-After", function()
    local function asked(value, date)
      local reply = answered(server.raw(("HTTP/1.1 503 No\r\nRetry-After: %s\r\n%sContent-Length: 0\r\n\r\n")
        :format(value, date and "Date: " .. date .. "\r\n" or "")), { expect = { 503 } })
      return reply:retry_after()
    end
    assert.equal(120, asked("120"))
    assert.equal(90, asked("Fri, 31 Dec 1999 23:59:59 GMT", "Fri, 31 Dec 1999 23:58:29 GMT"))
    assert.equal(0, asked("Fri, 31 Dec 1999 23:59:59 GMT", "Sat, 01 Jan 2000 00:00:00 GMT"))
    assert.is_nil(asked("soon"))
    assert.is_nil(asked("-5"))
    local fake = server.http({}, { any = server.empty(429, { ["Retry-After"] = "7" }) })
    local api <close> = client { base = fake.url }
    assert.equal(7, failure(api.get, api, "/").retry_after)
  end)

  it("reads the three forms of a date", function()
    assert.equal(784111777, replies.date("Sun, 06 Nov 1994 08:49:37 GMT"))
    assert.equal(784111777, replies.date("Sunday, 06-Nov-94 08:49:37 GMT"))
    assert.equal(784111777, replies.date("Sun Nov  6 08:49:37 1994"))
    assert.equal(951782400, replies.date("Tue, 29 Feb 2000 00:00:00 GMT"))
    assert.is_nil(replies.date("2000-01-01T00:00:00Z"))
    assert.is_nil(replies.date("Sun, 06 Foo 1994 08:49:37 GMT"))
    assert.is_true(math.abs(replies.date(os.date("!%a, %d %b %Y %H:%M:%S GMT")) - sys.wall()) < 1e9)
  end)

  it("resolves a reference as the standard says, or not at all", function()
    local base = "http://a/b/c/d;p?q"
    for reference, url in pairs { -- of RFC 3986, 5.4
      ["g"] = "b/c/g", ["./g"] = "b/c/g", ["g/"] = "b/c/g/", ["/g"] = "g", ["?y"] = "b/c/d;p?y",
      ["g?y"] = "b/c/g?y", ["#s"] = "b/c/d;p?q", ["g#s"] = "b/c/g", ["g?y#s"] = "b/c/g?y", [";x"] = "b/c/;x",
      ["g;x"] = "b/c/g;x", [""] = "b/c/d;p?q", ["."] = "b/c/", ["./"] = "b/c/", [".."] = "b/",
      ["../"] = "b/", ["../g"] = "b/g", ["../.."] = "", ["../../"] = "", ["../../g"] = "g",
      ["../../../g"] = "g", ["/./g"] = "g", ["/../g"] = "g", ["g."] = "b/c/g.", ["..g"] = "b/c/..g",
      ["./../g"] = "b/g", ["./g/."] = "b/c/g/", ["g/./h"] = "b/c/g/h", ["g/../h"] = "b/c/h",
      ["g;x=1/../y"] = "b/c/y", ["g?y/../x"] = "b/c/g?y/../x",
    } do
      assert.equal("http://a/" .. url, resolve(base, reference), reference)
    end
    assert.equal("http://g", resolve(base, "//g"))
    assert.equal("https://x/y?z", resolve(base, "https://x/y?z#s"))
    assert.equal("http://u:p@h:8/c", resolve("http://u:p@h:8", "c"))
    assert.equal("http://h?x", resolve("http://h/a", "//h?x"))
    assert.equal("https://h/%E4%0A%00%20b%20", resolve("https://h#f", "/\xe4\n\0 b%20"))
    for _, reference in ipairs { "file:///etc/passwd", "http://", "https:///x", "http:/x", "//", "///x", "ftp://h/",
      "javascript:1", "http:x" } do
      assert.is_nil(resolve(base, reference), reference)
    end
  end)

  it("follows no redirect unless asked", function()
    local fake = server.http { ["GET /a"] = server.empty(302, { Location = "/b" }),
      ["GET /b"] = server.text(200, "b") }
    local api <close> = client { base = fake.url }
    local why = failure(api.get, api, "/a")
    assert.equal(302, why.status)
    assert.matches("a redirect that is not followed", why.message)
    assert.equal("b", api:get("/a", { redirects = 1 }).body)
    assert.equal(302, api:get("/a", { redirects = 1, expect = { 302 } }).status)
    assert.equal("b", api:get("/a", { redirects = 1, expect = "any" }).body)
    assert.equal(302, api:get("/a", { expect = "any" }).status)
    local pieces = {}
    api:get("/a", { redirects = 1, expect = "any", each = function(piece) pieces[#pieces + 1] = piece end })
    assert.same({ "b" }, pieces)
  end)

  it("follows as often as allowed, also relative addresses", function()
    local fake = server.http { ["GET /x/1"] = server.empty(301, { Location = "2?q=1" }),
      ["GET /x/2"] = server.empty(307, { Location = "../x/./3" }),
      ["GET /x/3"] = server.empty(303, { Location = "//127.0.0.1:1/" }) }
    local api <close> = client { base = fake.url }
    assert.equal(307, failure(api.get, api, "/x/1", { redirects = 1 }).status)
    assert.equal("connect", failure(api.get, api, "/x/1", { redirects = 9 }).reason)
  end)

  it("follows from an address without TLS to one with it", function()
    local fake = server.tcp(function(conn) conn:read() conn:write("no TLS here\n") end)
    local first = server.http({}, { any = server.empty(302, { Location = fake.url:gsub("^http", "https") }) })
    local api <close> = client { base = first.url }
    assert.equal("tls", failure(api.get, api, "/", { redirects = 1 }).reason)
  end)

  it("never turns a POST into a GET, and repeats it only for 307 and 308", function()
    for _, status in ipairs { 301, 302, 303 } do
      local fake = server.http { ["POST /a"] = server.empty(status, { Location = "/b" }) }
      local api <close> = client { base = fake.url }
      assert.equal(status, failure(api.post, api, "/a", { body = "x", redirects = 5 }).status)
      assert.equal(1, fake:count())
    end
    local fake = server.http { ["POST /a"] = server.empty(308, { Location = "/b" }),
      ["POST /b"] = server.empty(204) }
    local api <close> = client { base = fake.url }
    assert.equal(204, api:post("/a", { body = "again", redirects = 5 }).status)
    assert.equal("again", fake:last().body)
  end)

  it("gives its credentials to no other host, by redirect or by address", function()
    local other = server.http({}, { any = server.text(200, "other") })
    local fake = server.http { ["GET /a"] = server.empty(302, { Location = other.url .. "/x" }) }
    local api <close> = client { base = fake.url, bearer = "token-for-one",
      headers = { ["X-Key"] = "k" } }
    assert.equal("other", api:get("/a", { redirects = 3,
      headers = { Cookie = "c", Authorization = "Basic x", ["X-Own"] = "1" } }).body)
    assert.is_nil(other:last().headers.authorization)
    assert.is_nil(other:last().headers.cookie)
    assert.is_nil(other:last().headers["x-key"])
    assert.equal("1", other:last().headers["x-own"])
    assert.equal("Basic x", fake:last().headers.authorization)
    api:get(other.url .. "/direct")
    assert.is_nil(other:last().headers.authorization)
    api:get(fake.url:upper():gsub("^HTTP", "http") .. "/a", { expect = { 302 } })
    assert.equal("Bearer token-for-one", fake:last().headers.authorization)
  end)
end)
