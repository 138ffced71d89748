-- worker.redis: against a real server, and against servers that are none.
local log = require "worker.log"
local redis = require "worker.redis"
local server_of = require "spec.support.redis"
local secret = require "worker.secret"
local sock = require "worker.sock"
local talk = require "spec.support.talk"
local task = require "worker.task"

-- A server that has said this before anybody asked; what was said to it.
local function saying(words, talker)
  local listener = sock.listen { address = "127.0.0.1:0" }
  local heard = {}
  local handle = task.start(function()
    local held <close> = listener
    local conn <close> = held:accept()
    if words then task.try(conn.write, conn, words) end
    if talker then talker(conn) end
    heard.said = talk.rest(conn)
  end)
  return "redis://" .. listener:address(), handle, heard
end

describe("an address of Redis", function()
  it("says where, who and which database", function()
    assert.same({ shown = "redis://h:6379", address = "h:6379" }, redis.place "redis://h")
    assert.same({ shown = "redis://h:1", address = "h:1", user = "u", password = "p@:/", database = 3 },
      redis.place "redis://u:p%40%3a%2f@h:1/3")
    assert.same({ shown = "rediss://[::1]:7", address = "[::1]:7", tls = true, password = "p" },
      redis.place "rediss://:p@[::1]:7/")
    assert.same({ shown = "unix:///run/r.sock", unix = "/run/r.sock", database = 2 }, redis.place "unix:///run/r.sock?db=2")
    assert.equal("p", redis.place(secret.value "redis://:p@h").password)
  end)

  it("that is none is refused without being shown", function()
    for _, url in ipairs { "h:6379", "http://:geheim@h", "redis://", "redis://:geheim@", "redis://:geheim@h/x", "unix://geheim",
      "redis://:ge%heim@h", "redis://:geheim@h:x", "redis://:geheim@h/0/1" } do
      local why = talk.failure(redis.place, url)
      assert.equal("config", why.kind)
      assert.is_nil(why.message:find("geheim", 1, true))
    end
  end)
end)

describe("worker.redis and a real server #realtime", function()
  it("sends commands and reads every kind of reply", function()
    local server <close> = server_of.start()
    for _, resp in ipairs { 2, 3 } do
      local db <close> = server:connect { resp = resp }
      assert.equal("PONG", db:call "PING")
      assert.equal("OK", db:call("SET", "k", "a\0b\r\n"))
      assert.equal("a\0b\r\n", db:call("GET", "k"))
      assert.is_nil(db:call("GET", "none"))
      assert.equal(7, db:call("INCRBY", "n" .. resp, 7))
      db:call("RPUSH", "l" .. resp, "x", 2)
      assert.same({ "x", "2" }, db:call("LRANGE", "l" .. resp, 0, -1))
      assert.same({ "a\0b\r\n", redis.null }, db:call("MGET", "k", "none"))
      local big = ("x"):rep(3000000)
      assert.equal("OK", db:call("SET", "big", big))
      assert.equal(big, db:call("GET", "big"))
    end
    local db <close> = server:connect { resp = 3 }
    assert.equal(3, db:call "HELLO".proto)
    assert.equal(1.5, db:call("EVAL", "redis.setresp(3) return { double = 1.5 }", 0))
    assert.same({ a = 1 }, db:call("EVAL", "redis.setresp(3) return { map = { a = 1 } }", 0))
    local through_a_file <close> = redis.connect { url = "unix://" .. server.unix }
    assert.equal("PONG", through_a_file:call "PING")
  end)

  it("tells what the server refuses, by its code", function()
    local server <close> = server_of.start()
    local db <close> = server:connect()
    db:call("SET", "text", "x")
    local why = talk.failure(db.call, db, "LPUSH", "text", "y")
    assert.equal("redis", why.kind)
    assert.equal("WRONGTYPE", why.code)
    local replies = db:pipeline { { "SET", "a", 1 }, { "LPUSH", "text", "y" }, { "GET", "a" }, { "GET", "none" } }
    assert.same({ "OK", "1" }, { replies[1], replies[3] })
    assert.equal("WRONGTYPE", replies[2].code)
    assert.equal(redis.null, replies[4])
    assert.same({}, db:pipeline {})
    assert.equal("ERR", talk.failure(db.call, db, "NOSUCH").code)
    assert.matches("word 2 of SET: expected text", talk.failure(db.call, db, "SET", {}))
    assert.equal("PONG", db:call "PING")
  end)

  it("says who it is, in either protocol, and the log never prints the password", function()
    local server <close> = server_of.start { password = "a-long-password" }
    for _, resp in ipairs { 2, 3 } do
      local db <close> = server:connect { resp = resp }
      assert.equal("PONG", db:call "PING")
      local bare = server.url:gsub(":a%-long%-password@", "")
      local why = talk.failure(redis.connect, { url = bare, resp = resp })
      assert.equal("NOAUTH", why.code)
      assert.equal("denied", require("worker.retry").classify(why))
      why = talk.failure(redis.connect, { url = bare, resp = resp, password = secret.value "another-one" })
      assert.equal("WRONGPASS", why.code)
      assert.is_nil(tostring(db):find("a-long-password", 1, true))
    end
    assert.is_function(log.secret)
  end)

  it("chooses the database", function()
    local server <close> = server_of.start()
    local one <close> = server:connect { database = 5 }
    one:call("SET", "k", "in five")
    local other <close> = redis.connect { url = server.url:gsub("/0$", "/5") }
    assert.equal("in five", other:call("GET", "k"))
    assert.equal("ERR", talk.failure(server.connect, server, { database = 99999 }).code)
  end)

  it("speaks TLS, and trusts nobody blindly", function()
    local server <close> = server_of.start { tls = true, password = "p-p-p-p" }
    local db <close> = server:connect()
    assert.equal("PONG", db:call "PING")
    assert.equal("tls", talk.failure(redis.connect, { url = server.url }).reason)
  end)

  it("hears what is published, also while it asks for something else", function()
    local server <close> = server_of.start()
    for _, resp in ipairs { 2, 3 } do
      local ear <close> = server:connect { resp = resp }
      ear:subscribe("a", "b")
      local db <close> = server:connect { resp = resp }
      assert.equal(1, db:call("PUBLISH", "a", "one"))
      db:call("PUBLISH", "c", "not for us")
      db:call("PUBLISH", "b", "two")
      if resp == 3 then assert.equal("PONG", ear:call "PING") end
      assert.same({ "a", "one" }, { ear:message(30) })
      assert.same({ "b", "two" }, { ear:message(30) })
      assert.is_nil(ear:message(0.01))
    end
  end)

  it("may be used by many tasks at once", function()
    local server <close> = server_of.start()
    local db <close> = server:connect()
    local list = {}
    for i = 1, 50 do list[i] = function() return db:call("ECHO", "number " .. i) end end
    for i, got in ipairs(task.all(list)) do assert.equal("number " .. i, got) end
  end)

  it("ends with the server, and says so at every later call", function()
    local server <close> = server_of.start()
    local db <close> = server:connect()
    server:kill()
    assert.equal("transport", talk.failure(db.call, db, "PING").kind)
    assert.equal("transport", talk.failure(db.call, db, "PING").kind)
    assert.equal("connect", talk.failure(redis.connect, { url = server.url }).reason)
    assert.matches("closed", tostring(db))
    server:start()
    local again <close> = server:connect()
    assert.equal("PONG", again:call "PING")
  end)
end)

describe("a server that is none", function()
  local HOSTILE = {
    ["HTTP/1.1 400 Bad Request\r\n"] = "wire", ["?what\r\n"] = "wire", ["+no end\n"] = "wire", ["\r\n"] = "wire",
    [":12x\r\n"] = "wire", ["$x\r\n"] = "wire", ["$-2\r\n"] = "wire", ["$3\r\nabcde\r\n"] = "wire", ["*-5\r\n"] = "wire",
    ["#x\r\n"] = "wire", [",1.x\r\n"] = "wire", ["(1.5\r\n"] = "wire", ["=2\r\nab\r\n"] = "wire", ["$?\r\n"] = "wire",
    ["!-1\r\n"] = "wire",
    ["*1\r\n>1\r\n+x\r\n"] = "wire", ["%1\r\n,nan\r\n+x\r\n"] = "wire", ["%-1\r\n"] = "wire",
    ["$99999999999\r\n"] = "limit", ["$999999999999999\r\n"] = "limit", ["$9999999999999999999\r\n"] = "wire",
    ["*99999999\r\n"] = "limit", ["%99999\r\n"] = "limit", [("*1\r\n"):rep(20)] = "limit",
    ["*65000\r\n" .. ("*1\r\n:1\r\n"):rep(65000)] = "limit", ["+" .. ("x"):rep(100000)] = "limit",
    ["+no end"] = "transport", ["$10\r\nabc"] = "transport", ["*2\r\n:1\r\n"] = "transport", [""] = "transport",
  }
  for words, kind in pairs(HOSTILE) do
    it(("is told by %q"):format(words:sub(1, 24)), function()
      local url, handle = saying(words, function(conn) conn:shutdown() end)
      local before = collectgarbage "count"
      assert.equal(kind, talk.failure(redis.connect, { url = url }).kind)
      assert.is_true(collectgarbage "count" - before < 20000)
      handle:join()
    end)
  end

  it("that says something like a reply is understood or refused, whatever it is", function()
    local err = require "worker.error"
    local whole = "*4\r\n$5\r\nhello\r\n:-12\r\n%1\r\n+k\r\n,1.5\r\n*2\r\n_\r\n#t\r\n-ERR no\r\n"
      .. "=7\r\ntxt:abc\r\n(99\r\n~1\r\n!3\r\nERR\r\n"
    local KINDS = { wire = true, limit = true, transport = true, redis = true }
    math.randomseed(6379)
    for _ = 1, 300 do
      local bytes = { whole:byte(1, -1) }
      for _ = 1, math.random(1, 4) do
        local at = math.random(#bytes)
        bytes[at] = math.random(3) == 1 and math.random(0, 255) or bytes[math.random(#bytes)]
      end
      local url, handle = saying("+PONG\r\n" .. string.char(table.unpack(bytes)), function(conn) conn:shutdown() end)
      local db = redis.connect { url = url }
      for _ = 1, 6 do
        local ok, why = pcall(db.call, db, "GET", "k")
        assert.is_true(ok or KINDS[err.kind(why)] == true, tostring(why))
      end
      db:close()
      handle:join()
    end
  end)

  it("that fills a reply to its last byte and goes on is told so", function()
    local url, handle = saying("+PONG\r\n*2\r\n$10\r\n0123456789\r\n:1\r\n", function(conn) conn:shutdown() end)
    local db = redis.connect { url = url, max_reply = #"*2\r\n$10\r\n0123456789\r\n" }
    assert.equal("limit", talk.failure(db.call, db, "GET", "k").kind)
    db:close()
    handle:join()
  end)

  it("that never answers is given up in time", function()
    local url, handle = saying(nil)
    assert.equal("timeout", talk.failure(redis.connect, { url = url, timeout = 3 }).reason)
    handle:join()
  end)

  it("reads remarks of RESP3 past, and errors however they come", function()
    local url, handle = saying("|1\r\n+ttl\r\n:3600\r\n+PONG\r\n!21\r\nSYNTAX invalid syntax\r\n=7\r\ntxt:abc\r\n"
      .. ",inf\r\n#f\r\n_\r\n~1\r\n(12\r\n")
    local db = redis.connect { url = url }
    assert.equal("SYNTAX", talk.failure(db.call, db, "A").code)
    assert.same({ "abc", math.huge, false }, { db:call "B", db:call "C", db:call "D" })
    assert.is_nil(db:call "E")
    assert.same({ "12" }, db:call "F")
    db:close()
    handle:join()
  end)

  it("never gets one command's reply taken for another's", function()
    local url, handle = saying("+PONG\r\n", function(conn)
      task.sleep(5)
      conn:write "+late\r\n"
    end)
    local db = redis.connect { url = url }
    assert.is_false((task.within(1, db.call, db, "GET", "a")))
    local why = talk.failure(db.call, db, "GET", "b")
    assert.equal("transport", why.kind)
    assert.is_false(why.sent)
    db:close()
    handle:join()
  end)

  it("that floods a listener is cut off", function()
    local url, handle = saying("+PONG\r\n*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n"
      .. ("*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\nx\r\n"):rep(20000))
    local db = redis.connect { url = url }
    db:subscribe "a"
    assert.equal("limit", talk.failure(db.call, db, "PING").kind)
    db:close()
    handle:join()
  end)
end)
