-- The fakes that other specs stand on: each does what it says, seen with a bare socket.
local server = require "spec.support.server"
local sock = require "worker.sock"
local task = require "worker.task"

local function ask(fake, head, body)
  local conn = sock.connect(fake.unix and { unix = fake.unix } or { address = fake.address })
  conn:write((head or "GET / HTTP/1.1") .. "\r\nHost: fake\r\nContent-Length: " .. #(body or "")
    .. "\r\n\r\n" .. (body or ""))
  return conn
end

-- Everything that comes, and how it ended.
local function rest(conn, seconds)
  local pieces = {}
  while true do
    local ok, data = pcall(conn.read, conn, 65536, { timeout = seconds or 3 })
    if not ok or not data then
      conn:close()
      return table.concat(pieces), ok and "end" or data.reason
    end
    pieces[#pieces + 1] = data
  end
end

describe("a fake server", function()
  it("answers by its script and remembers what it was asked", function()
    local fake = server.http {
      ["POST /v1/claim"] = server.sequence { server.text(200, "seven"), server.empty(204) },
    }
    assert.matches("^HTTP/1.1 200 OK\r\n.*seven$", (rest(ask(fake, "POST /v1/claim?a=b HTTP/1.1", "{}"))))
    for _ = 1, 2 do
      assert.matches("^HTTP/1.1 204 ", (rest(ask(fake, "POST /v1/claim HTTP/1.1"))))
    end
    assert.equal(3, fake:count("POST /v1/claim"))
    assert.equal(3, fake:connections())
    local first = fake.requests[1]
    assert.same({ "POST", "/v1/claim", "{}", "b", "fake" },
      { first.method, first.path, first.body, first.query.a, first.headers.host })
  end)

  it("listens on a socket file as well", function()
    local path = os.tmpname()
    os.remove(path)
    local fake = server.http({ ["GET /"] = server.text(200, "hi") }, { unix = path })
    assert.matches("hi$", (rest(ask(fake))))
  end)

  it("resets before the request is taken, or after", function()
    local fake = server.http {
      ["GET /before"] = server.reset "before", ["GET /after"] = server.reset "after",
    }
    local _, how = rest(ask(fake, "GET /before HTTP/1.1"))
    assert.equal("reset", how)
    assert.equal(0, fake:count())
    _, how = rest(ask(fake, "GET /after HTTP/1.1"))
    assert.equal("reset", how)
    assert.equal(1, fake:count())
  end)

  it("closes without an answer", function()
    local fake = server.http { ["GET /"] = server.close "after" }
    local text, how = rest(ask(fake))
    assert.same({ "", "end" }, { text, how })
    assert.equal(1, fake:count())
  end)

  it("hangs until the client goes away", function()
    local fake = server.http { ["GET /"] = server.hang() }
    local text, how = rest(ask(fake))
    assert.same({ "", "timeout" }, { text, how })
  end)

  it("is slow with its head, its body, and every byte", function()
    local fake = server.http {
      ["GET /"] = server.slow { headers = 10, body = 10, byte_every = 10, text = "abc" },
    }
    local conn = ask(fake)
    assert.equal("timeout", select(2, pcall(conn.read, conn, 1, { timeout = 9 })).reason)
    assert.matches("\r\n\r\n$", conn:head())
    assert.equal("timeout", select(2, pcall(conn.read, conn, 1, { timeout = 9 })).reason)
    assert.equal("a", conn:read())
    assert.equal("timeout", select(2, pcall(conn.read, conn, 1, { timeout = 9 })).reason)
    assert.equal("bc", conn:read_exactly(2))
    conn:close()
  end)

  it("truncates, lies about the length, and talks nonsense", function()
    local fake = server.http {
      ["GET /short"] = server.truncated(3, { total = 10 }),
      ["GET /cut"] = server.truncated(3, { total = 10, how = "reset" }),
      ["GET /long"] = server.wrong_length { says = 2, text = "abcdef" },
      ["GET /noise"] = server.garbage("\0\1"),
      ["GET /raw"] = server.raw("HTTP/1.1 299 Odd\r\n\r\n"),
    }
    local text, how = rest(ask(fake, "GET /short HTTP/1.1"))
    assert.matches("Content%-Length: 10\r\n\r\nxxx$", text)
    assert.equal("end", how)
    text, how = rest(ask(fake, "GET /cut HTTP/1.1"))
    assert.matches("xxx$", text)
    assert.equal("reset", how)
    assert.matches("Content%-Length: 2\r\n\r\nabcdef$", (rest(ask(fake, "GET /long HTTP/1.1"))))
    assert.equal("\0\1", (rest(ask(fake, "GET /noise HTTP/1.1"))))
    assert.equal("HTTP/1.1 299 Odd\r\n\r\n", (rest(ask(fake, "GET /raw HTTP/1.1"))))
  end)

  it("sends a body in chunks, in its own time", function()
    local fake = server.http { ["GET /"] = server.chunks({ "ab", "c" }, { every = 1 }) }
    assert.matches("\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n$", (rest(ask(fake))))
  end)

  it("waits for requests that are still to come", function()
    local fake = server.http { ["GET /"] = server.empty(204) }
    task.scope(function(scope)
      scope:spawn(function() task.sleep(1); rest(ask(fake)) end)
      fake:wait(1)
      assert.equal("GET", fake:last().method)
      scope:wait()
    end)
    assert.matches("waited for 2 requests, 1 came", select(2, pcall(fake.wait, fake, 2)))
  end)

  it("may know nothing of HTTP", function()
    local fake = server.tcp(function(conn, n) conn:write(n .. conn:line()) end)
    for i = 1, 2 do
      local conn <close> = sock.connect { address = fake.address }
      conn:write("x\n")
      assert.equal(i .. "x\n", (rest(conn)))
    end
  end)
end)
