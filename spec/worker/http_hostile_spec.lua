-- What a server may do that means harm, or is only badly written: byte by byte, over both ways.
local errors = require "worker.error"
local http = require "worker.http"
local listen = require "worker.core.listen".listen
local server = require "spec.support.server"
local sock = require "worker.core.sock"
local talk = require "spec.support.talk"
local task = require "worker.task"
local ways = require "spec.support.http_ways"

local OK = "HTTP/1.1 200 OK\r\n"

-- A server that answers the n-th request of a connection with the n-th text (the last one again and
-- again), in pieces of so many bytes; it counts, and keeps what it was asked.
local function script(texts, piece)
  local asked = { connections = 0, heads = {} }
  local fake = server.tcp(function(conn)
    asked.connections = asked.connections + 1
    local n = 0
    while true do
      local head = conn:head(100000)
      if not head then return end
      asked.heads[#asked.heads + 1] = head
      n = n + 1
      local text = texts[n] or texts[#texts]
      local close = type(text) == "table"
      text = close and text[1] or text
      for at = 1, #text, piece or #text do
        conn:write(text:sub(at, at + (piece or #text) - 1))
        if piece then task.sleep(0.001) end
      end
      if close then return end
    end
  end)
  asked.url = fake.url
  return asked
end

local function ending(text) return { text } end -- and then the connection ends

ways(describe, "worker.http and a hostile server", function(client, way)
  local function answer(text, options, piece)
    local asked = script({ ending(text) }, piece)
    local api <close> = client { base = asked.url }
    local ok, what = task.try(api.get, api, "/", options)
    return ok and what or nil, what
  end

  local function refused(text, reason)
    local reply, why = answer(text)
    text = text:sub(1, 200)
    assert.is_nil(reply, text)
    assert.equal("transport", why.kind, text)
    assert.equal(reason, why.reason, text .. "\n" .. tostring(why))
    assert.is_true(why.sent)
  end

  it("takes an answer byte by byte", function()
    local reply = answer(OK .. "Transfer-Encoding: chunked\r\nA: b\r\n\r\n" ..
      "5;name=value\r\nhello\r\n1 \r\n,\r\n06\r\n world\r\n0\r\nTrailer: x\r\n\r\n", nil, 1)
    assert.equal("hello, world", reply.body)
    assert.equal("b", reply.headers.a)
    assert.is_nil(reply.headers.trailer)
    assert.equal("abc", answer(OK .. "Content-Length: 3\r\n\r\nabc", nil, 1).body)
    assert.equal("until it ends", answer(OK .. "\r\nuntil it ends", nil, 1).body)
  end)

  it("takes lines that end in LF alone", function()
    assert.equal("ab", answer("HTTP/1.1 200 OK\nContent-Length: 2\n\nab").body)
    assert.equal("ab", answer("HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n2\nab\n0\n\n").body)
  end)

  it("takes HTTP/1.0, and a status without words", function()
    assert.equal("x", answer("HTTP/1.0 200 OK\r\n\r\nx").body)
    assert.equal("x", answer("HTTP/1.1 200\r\nContent-Length: 1\r\n\r\nx").body)
    assert.equal(299, answer("HTTP/1.1 299 \r\nContent-Length: 0\r\n\r\n").status)
  end)

  it("refuses what is no status line", function()
    for _, line in ipairs { "HTTP/1.1 20 OK", "HTTP/1.1 2000 OK", "HTTP/1.1 -20 OK", "HTTP/1.1 0x1 OK",
      "HTTP/1.1  200 OK", "HTTP/1.1\t200 OK", "HTTP/2 200 OK", "HTTP/1.12 200", "http/1.1 200 OK",
      "ICY 200 OK", " HTTP/1.1 200 OK", "", "HTTP/1.1 099 OK" } do
      if way == "ours" then refused(line .. "\r\nContent-Length: 0\r\n\r\n", "protocol") end
    end
  end)

  it("refuses a head with lines that are no headers", function()
    for _, line in ipairs { "no colon", ": no name", "bl ank: x", "Content-Length : 5", "a\0b: x", "a: \0",
      "HTTP/1.1 200 OK", "a\tb: x", "\rX: y", "(x): y" } do
      refused(OK .. line .. "\r\nContent-Length: 0\r\n\r\n", "protocol")
    end
    refused(OK .. " folded: first\r\nContent-Length: 0\r\n\r\n", "protocol")
  end)

  it("refuses a length that is no number, or two of them", function()
    for _, length in ipairs { "", " ", "+5", "-5", "0x5", "5 5", "5x", "5, 5", "5,6", "1e3", "5.0" } do
      refused(OK .. "Content-Length:" .. length .. "\r\n\r\nabcde", "protocol")
    end
    refused(OK .. "Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef", "protocol")
    refused(OK .. "Content-Length: 5\r\ncontent-length: 05x\r\n\r\nabcdef", "protocol")
    assert.equal("abcde", answer(OK .. "Content-Length: 5\r\nContent-Length:  5 \r\n\r\nabcde").body)
  end)

  it("refuses a length beyond all bounds", function()
    local _, why = answer(OK .. "Content-Length: " .. ("9"):rep(15) .. "\r\n\r\nx")
    assert.equal("too_big", why.reason)
    for _, digits in ipairs { 19, 20, 40 } do
      _, why = answer(OK .. "Content-Length: " .. ("9"):rep(digits) .. "\r\n\r\nx", { stream = true })
      assert.is_true(errors.is(why, "transport"), digits)
    end
  end)

  it("refuses a coding that it did not ask for, and chunked twice", function()
    for _, coding in ipairs { "gzip", "gzip, chunked", "chunked, chunked", "chunked, gzip", "chunked;q=1", "",
      "xchunked", "chunked\r\nTransfer-Encoding: chunked" } do
      if way == "ours" then
        refused(OK .. "Transfer-Encoding: " .. coding .. "\r\n\r\n1\r\na\r\n0\r\n\r\n", "protocol")
      end
    end
  end)

  it("refuses chunks without a sensible size", function()
    for _, chunk in ipairs { "g\r\n", "\r\n", "-1\r\na", "0x1\r\na", " 1\r\na", ("f"):rep(17) .. "\r\na",
      "1\r\nab\r\n0\r\n\r\n" } do
      refused(OK .. "Transfer-Encoding: chunked\r\n\r\n" .. chunk .. "\r\n0\r\n\r\n", "protocol")
    end
  end)

  it("notices that chunks stop before the last one", function()
    for _, cut in ipairs { "", "5", "5\r\n", "5\r\nabc", "5\r\nabcde", "5\r\nabcde\r\n", "0\r\n", "0",
      "0\r\nTrailer: x\r\n" } do
      refused(OK .. "Transfer-Encoding: chunked\r\n\r\n" .. cut, "closed")
    end
  end)

  it("notices that a body, or a head, is shorter than it should be", function()
    refused(OK .. "Content-Length: 5\r\n\r\nabcd", "closed")
    refused(OK .. "Content-Length: 5\r\n\r\n", "closed")
    refused(OK .. "Content-Length: 5\r\n", "closed")
    refused(OK:sub(1, 8), "closed")
    refused("HTTP/1.1 100 Continue\r\n\r\n", "closed")
  end)

  it("bounds lines and heads that never end", function()
    local endless = ("x"):rep(200000)
    if way == "ours" then -- libcurl calls a line of more than 100 KB a lack of memory
      refused(OK .. endless, "too_big")
      refused(OK .. "a: " .. endless, "too_big")
    end
    refused(OK .. "a: " .. endless:sub(1, 70000) .. "\r\n\r\n", "too_big")
    refused(("HTTP/1.1 100 Continue\r\n\r\n"):rep(4000), "too_big")
    refused(OK .. "Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n" .. ("t: u\r\n"):rep(20000), "too_big")
  end)

  it("has no body after HEAD, 204 and 304, whatever they announce", function()
    for _, said in ipairs { "Content-Length: 100", "Content-Length: 999999999999", "Transfer-Encoding: chunked",
      "X: y" } do
      local asked = script { OK .. said .. "\r\n\r\n" }
      local api <close> = client { base = asked.url }
      assert.equal("", api:head("/").body)
      assert.equal("", api:head("/").body)
      for _, status in ipairs { 204, 304 } do
        assert.equal("", answer(("HTTP/1.1 %d X\r\n%s\r\n\r\n"):format(status, said), { expect = "any" }).body)
      end
    end
  end)

  it("refuses a change of protocol that nobody asked for", function()
    refused("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
      way == "ours" and "protocol" or "closed")
  end)

  it("keeps a connection only when the answer says so and is whole", function()
    local function connections(first)
      local asked = script { first, OK .. "Content-Length: 6\r\n\r\nsecond" }
      local api <close> = client { base = asked.url }
      api:get("/")
      task.sleep(0.01)
      local text = api:get("/").body
      return asked.connections, text
    end
    for text, n in pairs {
      [OK .. "Content-Length: 1\r\n\r\na"] = 1,
      [OK .. "Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n"] = 1,
      [OK .. "Connection: keep-alive\r\nContent-Length: 1\r\n\r\na"] = 1,
      [OK .. "Connection: close\r\nContent-Length: 1\r\n\r\na"] = 2,
      [OK .. "Connection: foo, close\r\nContent-Length: 1\r\n\r\na"] = 2,
      ["HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\na"] = 1,
      ["HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\na"] = 2,
    } do
      assert.same({ n, n == 1 and "second" or "a" }, { connections(text) }, text)
    end
    if way == "libcurl" then return end -- it trusts more
    for _, text in ipairs {
      OK .. "Connection: close\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\na",
      OK .. "Connection: close, keep-alive\r\nContent-Length: 1\r\n\r\na",
      OK .. "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
      "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
    } do
      assert.same({ 2, "a" }, { connections(text) }, text)
    end
  end)

  it("takes nothing for an answer that came before it was asked", function()
    if way == "libcurl" then return end -- it does not look
    for _, more in ipairs { OK .. "Content-Length: 4\r\n\r\nevil", OK:sub(1, 9), "\r\n", "x" } do
      for _, seconds in ipairs { 0, 0.01 } do
        local fake = server.tcp(function(conn, n)
          conn:head(10000)
          conn:write(OK .. "Content-Length: 4\r\n\r\ngood" .. (seconds == 0 and more or ""))
          if seconds > 0 then task.sleep(seconds) conn:write(n == 1 and more or "") end
          while conn:head(10000) do conn:write(OK .. "Content-Length: 3\r\n\r\nbad") end
        end)
        local api <close> = client { base = fake.url }
        assert.equal("good", api:get("/").body)
        task.sleep(0.02)
        assert.equal("good", api:get("/").body)
      end
    end
  end)

  it("listens to a server that refuses a long body and ends", function()
    for _, how in ipairs { "close", "reset" } do
      local fake = server.tcp(function(conn)
        conn:head(10000)
        conn:write("HTTP/1.1 413 No\r\nContent-Length: 4\r\nConnection: close\r\n\r\nstop")
        task.sleep(0.01)
        if how == "reset" then conn:reset() end
      end)
      local api <close> = client { base = fake.url }
      local reply = api:post("/", { body = ("x"):rep(20 * 1024 * 1024), expect = "any" })
      assert.same({ 413, "stop" }, { reply.status, reply.body })
    end
  end)

  it("does not keep a connection on which an answer came before the request was all sent", function()
    local fake = server.tcp(function(conn)
      conn:head(10000)
      conn:write("HTTP/1.1 413 No\r\nContent-Length: 4\r\n\r\nstop")
      while conn:read() do task.sleep(1) end
    end)
    local api <close> = client { base = fake.url }
    for _ = 1, 2 do
      assert.equal(413, api:post("/", { body = ("x"):rep(20 * 1024 * 1024), expect = "any" }).status)
    end
  end)

  it("repeats what a kept connection lost once, and no more", function()
    for _, case in ipairs {
      { "get", nil, 3 }, { "put", { body = "abc" }, 3 }, { "put", { body = ("x"):rep(100000) }, 3 },
      { "delete", nil, 3 }, { "post", { body = "abc" }, 2 }, { "patch", { body = "abc" }, 2 },
    } do
      local heads = 0
      local fake = server.tcp(function(conn, n)
        while conn:head(10000) do
          heads = heads + 1
          if n > 1 or heads > 1 then return end
          conn:write(OK .. "Content-Length: 0\r\n\r\n")
        end
      end)
      local api <close> = client { base = fake.url }
      api:get("/")
      local ok, why = task.try(api[case[1]], api, "/", case[2])
      assert.is_false(ok)
      assert.is_true(why.sent)
      assert.equal(case[3], heads, case[1])
    end
  end)

  it("does not repeat a request whose body was made for it alone", function()
    local heads = 0
    local fake = server.tcp(function(conn, n)
      while conn:head(10000) do
        heads = heads + 1
        if n == 1 and heads > 1 then conn:read() return end
        conn:write(OK .. "Content-Length: 0\r\n\r\n")
      end
    end)
    local api <close> = client { base = fake.url }
    api:get("/")
    local pieces = { "one", "two" }
    local ok, why = task.try(api.put, api, "/", { body = function() return table.remove(pieces, 1) end })
    assert.is_false(ok)
    assert.is_true(why.sent)
    assert.equal(2, heads)
  end)

  it("says the same to a server, whatever the address looks like", function()
    local head
    local path = talk.path("address")
    server.tcp(function(conn)
      head = conn:head(100000)
      conn:write(OK .. "Connection: close\r\nContent-Length: 0\r\n\r\n")
    end, { unix = path })
    local api <close> = client { unix = path, user_agent = "me" }
    for url, said in pairs {
      ["http://host"] = "/ host", ["http://host?a=/b"] = "/?a=/b host", ["http://host/?#x"] = "/? host",
      ["http://host#frag?x"] = "/ host", ["http://HOST:80/a//./../b"] = "/a//./../b HOST",
      ["HTTP://host:8080/%41?%2f"] = "/%41?%2f host:8080", ["http://[::1]/x"] = "/x [::1]",
      ["http://[fe80::1:2]:81"] = "/ [fe80::1:2]:81", ["http://127.0.0.1:080/"] = "/ 127.0.0.1",
      ["http://a_b-c.d/;p\"<>{}|^`\\"] = "/;p\"<>{}|^`\\ a_b-c.d", ["http://host:/x"] = "/x host",
      ["http://u:p@host/x"] = "/x host", ["http://u:80@host/"] = "/ host",
    } do
      api:get(url)
      local target, host = said:match("^(.*) (.*)$")
      assert.equal(("GET %s HTTP/1.1\r\n"):format(target), head:match("^[^\n]*\n"), url)
      assert.equal(host, head:match("\r\nHost: ([^\r]*)\r\n"), url)
      local rest = head:gsub("^[^\n]*\n", ""):gsub("Host: [^\n]*\n", ""):gsub("Authorization: [^\n]*\n", "")
      assert.equal("User-Agent: me\r\nAccept: */*\r\n\r\n", rest)
    end
    for _, url in ipairs { "http://", "http:///x", "http://:80/", "http://h:65536/", "http://h:-1/", "http://h:x/",
      "http://[::1/", "http://[]/", "http://[1.2.3.4]/", "http://[abc]/", "http://h:80:80/", "http://[::1]x/",
      "http://h\r\nX: y/", "http://h\0/" } do
      local ok, why = task.try(api.get, api, url)
      assert.is_false(ok, url)
      assert.is_true(type(why) == "string" or why.kind == "config" and not why.sent, url .. tostring(why))
    end
  end)

  it("gives up in time on a server that takes no connections #realtime", function()
    local path = talk.path("busy")
    for _, where in ipairs { { unix = path, backlog = 1 }, { address = "127.0.0.1:0", backlog = 1 } } do
      local listener <close> = listen(where)
      local address, ends = not where.unix and listener:address() or nil, {}
      while true do
        local ok, conn = task.within(0.1, sock.connect, { unix = where.unix, address = address })
        if not ok then break end
        ends[#ends + 1] = conn
        assert.is_true(#ends < 20)
      end
      local api <close> = client { base = "http://" .. (address or "h"), unix = where.unix, connect_timeout = 0.2 }
      local ok, why = task.try(api.post, api, "/", { body = "x" })
      assert.is_false(ok)
      if way == "ours" or address then -- libcurl is told at once that the socket is busy
        assert.same({ "timeout", false }, { why.reason, why.sent })
        assert.matches("no connection within 0.2", why.message)
        assert.is_false((task.within(0.05, api.post, api, "/")))
      end
      talk.close(table.unpack(ends))
    end
  end)

  it("keeps the announced length of a body", function()
    local fake = server.http({}, { any = server.text(200, "ok"), body_timeout = 1 })
    local api <close> = client { base = fake.url }
    local function post(length, ...)
      local pieces = { ... }
      return task.try(api.post, api, "/", { length = length, timeout = 5,
        body = function() return table.remove(pieces, 1) end })
    end
    assert.is_true(post(6, "abc", "def"))
    assert.equal("abcdef", fake:last().body)
    assert.is_false(post(6, "abc"))
    if way == "ours" then
      local ok, why = post(6, "abcdefg")
      assert.is_false(ok)
      assert.same({ "limit", "file" }, { why.kind, why.reason })
      assert.matches("longer than its length", why.message)
    end
    assert.is_true(api:get("/").status == 200)
  end)
end)

describe("a kept connection of worker.http", function()
  -- A server that keeps its connections, and holds out their ends.
  local function holding()
    local conns = {}
    local fake = server.tcp(function(conn)
      conns[#conns + 1] = conn
      while conn:head(10000) do conn:write(OK .. "Content-Length: 4\r\n\r\ngood") end
    end)
    return fake, conns
  end

  it("is not used when it has ended or speaks, also when nobody has had the time to notice", function()
    local function says(text) return function(conn) conn:write(text) end end
    for _, act in ipairs { says "x", says "\n", says(OK), says(OK .. "Content-Length: 4\r\n\r\nevil"),
      function(conn) conn:shutdown() end, function(conn) conn:reset() end } do
      local fake, conns = holding()
      local api <close> = http.client { base = fake.url }
      assert.equal("good", api:get("/").body)
      act(conns[1]) -- and the loop does not turn before the next request
      assert.equal("good", api:post("/").body)
      assert.equal(2, #conns)
    end
  end)

  it("is closed at once when its end came with the answer", function()
    local function sockets()
      local pipe <close> = io.popen("ls -l /proc/$PPID/fd | grep -c socket:")
      return pipe:read("n")
    end
    local fake = server.tcp(function(conn)
      conn:head(10000)
      conn:write(OK .. "Content-Length: 4\r\n\r\ngood")
    end)
    local api <close> = http.client { base = fake.url }
    local before = sockets()
    assert.equal("good", api:get("/").body)
    task.sleep(0.01)
    assert.equal(before, sockets())
  end)

  it("is replaced in time: the limit for connecting holds for the second one, too #realtime", function()
    local path = talk.path("full")
    local listener <close> = listen { unix = path, backlog = 1 }
    local api <close> = http.client { unix = path, connect_timeout = 0.2 }
    local first = task.start(api.get, api, "/", { timeout = 100 })
    local conn = listener:accept()
    conn:head(10000)
    conn:write(OK .. "Content-Length: 0\r\n\r\n")
    assert.is_true((first:join()))
    local waiting = { sock.connect { unix = path }, sock.connect { unix = path } }
    local second = task.start(api.get, api, "/", { timeout = 100 })
    conn:head(10000)
    conn:close()
    local ok, why = second:join()
    assert.is_false(ok)
    assert.equal("timeout", why.reason)
    assert.matches("no connection within 0.2", why.message)
    assert.is_true(why.sent)
    talk.close(table.unpack(waiting))
  end)

  it("is one of 64 at most, and goes when it is old", function()
    local api <close> = http.client { max_idle = 10, max_age = 25 }
    local fakes = {}
    for i = 1, 70 do
      fakes[i] = server.http({}, { any = server.empty(204) })
      api:get(fakes[i].url)
    end
    task.sleep(0.01)
    local open = 0
    for i = 1, 70 do open = open + fakes[i]:open() end
    assert.equal(64, open)
    local last = fakes[70]
    for n, seconds in ipairs { 9, 9, 9, 11 } do
      task.sleep(seconds)
      api:get(last.url)
      assert.equal(({ 1, 1, 2, 3 })[n], last:connections())
    end
  end)
end)
