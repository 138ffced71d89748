local server = require "spec.support.server"
local sys = require "worker.core.sys"
local task = require "worker.task"
local ways = require "spec.support.http_ways"

local function failure(fn, ...)
  local ok, why = task.try(fn, ...)
  assert.is_false(ok)
  return why
end

ways(describe, "worker.http when the network fails", function(client)
  -- One request to a fake with this answer, and how it failed.
  local function failed(answer, options, verb)
    local fake = server.http({}, { any = answer })
    local api <close> = client { base = fake.url }
    local why = failure(api[verb or "post"], api, "/x?token=hidden", options)
    assert.equal("transport", why.kind)
    assert.matches("^" .. (verb or "post"):upper() .. " http://127.0.0.1:%d+/x: ", why.message)
    return why, fake
  end

  -- A connection is kept after the first request; the answer to the second is `last`.
  local function failed_on_kept(last, verb, options)
    local fake = server.http({}, { any = server.sequence { server.text(200, "ok"), last,
      server.text(200, "again") } })
    local api <close> = client { base = fake.url }
    api:get("/")
    local ok, why = task.try(api[verb], api, "/", options)
    return ok, why, fake
  end

  it("tells a refused connection, and that nothing was sent", function()
    for _, user in ipairs { "", "user:secret@" } do
      local api <close> = client { base = "http://" .. user .. "127.0.0.1:1" }
      local why = failure(api.post, api, "/x?token=hidden")
      assert.equal("connect", why.reason)
      assert.is_false(why.sent)
      assert.matches("^POST http://127.0.0.1:1/x: .*Connection refused$", why.message)
    end
  end)

  it("tells a name that does not exist #realtime", function()
    local api <close> = client { base = "http://no-such-host.invalid" }
    local why = failure(api.get, api, "/")
    assert.equal("dns", why.reason)
    assert.is_false(why.sent)
    assert.matches("no%-such%-host.invalid", why.message)
  end)

  it("tells a socket that is not there", function()
    local api <close> = client { unix = "/nonexistent/socket" }
    local why = failure(api.get, api, "/")
    assert.equal("connect", why.reason)
    assert.is_false(why.sent)
    assert.matches("No such file", why.message)
  end)

  it("tells a reset from an end, and that the request may have arrived", function()
    local why, fake = failed(server.reset "after")
    assert.equal("reset", why.reason)
    assert.is_true(why.sent)
    assert.equal(1, fake:count())
    why = failed(server.close "after")
    assert.equal("closed", why.reason)
    assert.is_true(why.sent)
    why = failed(server.reset "before")
    assert.is_true(why.sent)
  end)

  it("never repeats a POST by itself, however the kept connection ends", function()
    for _, last in ipairs { server.reset "after", server.close "after" } do
      local ok, why, fake = failed_on_kept(last, "post", { body = "claim" })
      assert.is_false(ok)
      assert.equal("transport", why.kind)
      assert.is_true(why.sent)
      assert.equal(2, fake:count())
      ok, why, fake = failed_on_kept(last, "post")
      assert.is_false(ok)
      assert.is_true(why.sent)
      assert.equal(2, fake:count())
    end
  end)

  it("repeats a GET that a dying kept connection lost", function()
    local ok, reply, fake = failed_on_kept(server.close "after", "get")
    assert.is_true(ok)
    assert.equal("again", reply.body)
    assert.equal(3, fake:count())
    assert.equal(2, fake:connections())
  end)

  it("sends a POST on a new connection when the server has closed the kept one", function()
    local fake = server.http({}, { any = server.text(200, "ok"), idle_timeout = 5 })
    local api <close> = client { base = fake.url }
    api:post("/")
    task.sleep(10)
    assert.equal(0, fake:open())
    assert.equal(200, api:post("/").status)
    assert.equal(2, fake:count())
  end)

  it("gives up on a server that does not answer", function()
    local why = failed(server.hang(), { timeout = 300 })
    assert.equal("timeout", why.reason)
    assert.matches("no answer within 300 s", why.message)
    assert.is_true(why.sent)
  end)

  it("gives up on slow headers and on a slow body, but not on a slow stream", function()
    assert.equal("timeout", failed(server.slow { headers = 31 }).reason)
    assert.matches("not complete within 30 s",
      failed(server.slow { byte_every = 10, text = "abcde" }).message)
    local fake = server.http({}, { any = server.slow { byte_every = 20, text = "abcde" } })
    local api <close> = client { base = fake.url }
    local reply <close> = api:get("/", { stream = true })
    local text = ""
    for piece in reply:chunks() do text = text .. piece end
    assert.equal("abcde", text)
    fake = server.http({}, { any = server.slow { body = 20 } })
    local silent <close> = client({ base = fake.url }):get("/", { stream = true, timeout = 10 })
    local why = failure(silent.read, silent)
    assert.matches("stopped coming for 10 s", why.message)
  end)

  it("gives up on a connection that does not come about", function()
    local full = server.tcp(function(conn) while conn:read() do end end) -- luacheck: ignore 542
    local api <close> = client { base = full.url:gsub("^http", "https"), connect_timeout = 7 }
    local before = sys.mono()
    local why = failure(api.get, api, "/", { timeout = 100 })
    assert.equal("timeout", why.reason)
    assert.matches("no connection within 7", why.message)
    assert.is_false(why.sent)
    assert.is_true(sys.mono() - before >= 7)
  end)

  it("notices a body that is cut off", function()
    assert.equal("closed", failed(server.truncated(10)).reason)
    assert.equal("reset", failed(server.truncated(10, { how = "reset" })).reason)
    assert.equal("closed", failed(server.raw(
      "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab")).reason)
  end)

  it("notices garbage", function()
    for _, bytes in ipairs {
      "\0\1\2 this is not HTTP\r\n\r\n", "SSH-2.0-OpenSSH\r\n", "HTTP/1.1\r\n\r\n",
      "HTTP/1.1 xyz no\r\n\r\n", "HTTP/9.9 200 OK\r\n\r\n",
      "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
      "HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
      "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
    } do
      assert.equal("protocol", failed(server.garbage(bytes), nil, "get").reason, bytes)
    end
  end)

  it("bounds the head and the body of an answer", function()
    local why = failed(server.text(200, "x", { ["X-Long"] = ("h"):rep(70000) }))
    assert.equal("too_big", why.reason)
    why = failed(server.raw("HTTP/1.1 200 OK\r\n" .. ("A: b\r\n"):rep(20000) .. "\r\n"))
    assert.equal("too_big", why.reason)
    why = failed(server.text(200, ("x"):rep(1001)), { max_body = 1000 })
    assert.equal("too_big", why.reason)
    why = failed(server.chunks { ("x"):rep(900), ("x"):rep(900) }, { max_body = 1000 })
    assert.equal("too_big", why.reason)
    why = failed(server.text(200, ("x"):rep(17 * 1024 * 1024)))
    assert.equal("too_big", why.reason)
    assert.is_true(why.sent)
  end)

  it("leaves nothing of a request that is cancelled at any moment", function()
    local fake = server.http({}, { any = server.slow { headers = 1, body = 1, byte_every = 1 } })
    local api <close> = client { base = fake.url }
    for _, seconds in ipairs { 0, 0.5, 1.5, 3, 5.5 } do
      assert.is_false((task.within(seconds, api.get, api, "/")))
      assert.is_nil(sys.live()["http.transfer"] and sys.live()["http.transfer"] > 0 or nil)
    end
    task.sleep(60)
    assert.equal(0, fake:open())
    assert.equal(200, api:get("/").status)
  end)

  it("fails the requests under way when the client is closed", function()
    local fake = server.http({}, { any = server.hang() })
    local api = client { base = fake.url }
    local first = task.start(api.get, api, "/")
    local second = task.start(api.post, api, "/", { body = "x" })
    fake:wait(2)
    api:close()
    for _, handle in ipairs { first, second } do
      local ok, why = handle:join()
      assert.is_false(ok)
      assert.equal("closed", why.reason)
    end
    assert.has_error(function() api:get("/") end)
    api:close()
    assert.matches("closed", tostring(api))
  end)
end)
