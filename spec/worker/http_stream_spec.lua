local scratch = require "spec.support.scratch"
local server = require "spec.support.server"
local sys = require "worker.core.sys"
local task = require "worker.task"
local ways = require "spec.support.http_ways"

local MIB = 1024 * 1024

local function failure(fn, ...)
  local ok, why = task.try(fn, ...)
  assert.is_false(ok)
  return why
end

-- An answer of n MiB; tells in `sent` how much of it the connection has taken.
local function flood(n, sent)
  local block = ("0123456789abcdef"):rep(4096)
  return function(_, reply)
    local conn = reply:hijack()
    conn:write(("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"):format(n * MIB))
    for _ = 1, n * 16 do
      conn:write(block)
      sent.bytes = (sent.bytes or 0) + #block
    end
  end
end

local function list(dir)
  local pipe <close> = io.popen("ls -A '" .. dir:path(".") .. "'")
  return pipe:read("a")
end

ways(describe, "worker.http streaming", function(client)
  it("saves 64 MiB to a file at bounded memory #realtime", function()
    local dir <close> = scratch.dir()
    local sent = {}
    local fake = server.http({}, { any = flood(64, sent) })
    local api <close> = client { base = fake.url }
    collectgarbage()
    local _, before = sys.memory()
    local reply = api:get("/", { to_file = dir:path("big") })
    local _, peak = sys.memory()
    assert.equal(64 * MIB, reply.bytes)
    assert.is_true(peak - before < 4 * MIB)
    local file <close> = io.open(dir:path("big"), "rb")
    assert.equal(64 * MIB, file:seek("end"))
    assert.equal("big\n", list(dir))
  end)

  it("leaves an old file alone when the new one does not come whole", function()
    local dir <close> = scratch.dir()
    dir:write("file", "old")
    local fake = server.http({}, { any = server.sequence { server.truncated(100),
      server.status(500), server.text(200, ("x"):rep(2000)), server.text(200, "new") } })
    local api <close> = client { base = fake.url }
    local into = { to_file = dir:path("file"), max_body = 1000 }
    assert.equal("closed", failure(api.get, api, "/", into).reason)
    assert.equal("http", failure(api.get, api, "/", into).kind)
    assert.equal("too_big", failure(api.get, api, "/", into).reason)
    assert.equal("old", dir:read("file"))
    assert.equal("file\n", list(dir))
    assert.equal(3, api:get("/", into).bytes)
    assert.equal("new", dir:read("file"))
  end)

  it("says which file it cannot write", function()
    local fake = server.http({}, { any = server.text(200, "x") })
    local api <close> = client { base = fake.url }
    local why = failure(api.get, api, "/", { to_file = "/nonexistent/dir/file" })
    assert.equal("limit", why.kind)
    assert.matches("/nonexistent/dir/file", why.message)
    assert.equal("limit", failure(api.get, api, "/", { to_file = "/tmp/" }).kind)
  end)

  it("leaves no file behind when a download is cancelled", function()
    local dir <close> = scratch.dir()
    local fake = server.http({}, { any = server.slow { byte_every = 1 } })
    local api <close> = client { base = fake.url }
    assert.is_false((task.within(3.5, api.get, api, "/", { to_file = dir:path("f") })))
    assert.equal("", list(dir))
  end)

  it("stops the server while the reader is slow #realtime", function()
    local sent = {}
    local fake = server.http({}, { any = flood(64, sent) })
    local api <close> = client { base = fake.url }
    local reply <close> = api:get("/", { stream = true })
    local got = #reply:read()
    local seen
    repeat
      seen = sent.bytes
      task.sleep(0.05)
    until sent.bytes == seen
    assert.is_true(sent.bytes < 32 * MIB)
    for piece in reply:chunks() do got = got + #piece end
    assert.equal(64 * MIB, got)
  end)

  it("hands every chunk to a function", function()
    local fake = server.http({}, { any = server.chunks({ "a", "bc", "d" }, { every = 1 }) })
    local api <close> = client { base = fake.url }
    local seen = {}
    local reply = api:get("/", { each = function(piece) seen[#seen + 1] = piece end })
    assert.same({ "a", "bc", "d" }, seen)
    assert.equal(200, reply.status)
    assert.is_nil(reply:read())
  end)

  it("gives up a stream that nobody reads to its end", function()
    local fake = server.http({}, { any = server.sequence { server.chunks({ "a", "b", "c" },
      { every = 10 }), server.text(200, "fresh") } })
    local api <close> = client { base = fake.url }
    do
      local reply <close> = api:get("/", { stream = true })
      assert.equal("a", reply:read())
      assert.matches("streaming", tostring(reply))
    end
    assert.equal("fresh", api:get("/").body)
    assert.equal(2, fake:connections())
  end)

  it("hands out what came before a stream broke, then fails", function()
    local fake = server.http({}, { any = server.truncated(10) })
    local api <close> = client { base = fake.url }
    local reply <close> = api:get("/", { stream = true })
    assert.equal(("x"):rep(10), reply:read())
    assert.equal("closed", failure(reply.read, reply).reason)
  end)

  it("raises an unexpected status of a stream with a sample of it", function()
    local fake = server.http({}, { any = server.chunks({ "sorry", ("x"):rep(100000) },
      { status = 500 }) })
    local api <close> = client { base = fake.url }
    local why = failure(api.get, api, "/", { stream = true })
    assert.matches("answered 500: sorry", why.message)
    assert.is_true(#why.body <= 4096)
  end)

  it("sends a file, with its length", function()
    local dir <close> = scratch.dir()
    local text = ("line\n"):rep(200000)
    local path = dir:write("artifact", text)
    local fake = server.http({}, { any = server.empty(204) })
    local api <close> = client { base = fake.url }
    api:put("/a", { file = path })
    assert.equal(text, fake:last().body)
    assert.equal(tostring(#text), fake:last().headers["content-length"])
    assert.equal("limit", failure(api.put, api, "/a", { file = dir:path("absent") }).kind)
    assert.equal("limit", failure(api.put, api, "/a", { file = dir:path(".") }).kind)
    api:post("/b", { body = "x" })
    assert.equal("x", fake:last().body)
  end)

  it("sends no more of a file than there was, and says when there is less", function()
    local dir <close> = scratch.dir()
    local text = ("0123456789abcdef"):rep(1024 * 1024)
    local function put(change)
      local path, got = dir:write("log", text), nil
      local fake = server.tcp(function(conn)
        conn:head(10000)
        change(path)
        got = 0
        while got < #text do
          local piece = conn:read()
          if not piece then return end
          got = got + #piece
        end
        conn:write("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        conn:read()
      end)
      local api <close> = client { base = fake.url }
      local ok, why = task.try(api.put, api, "/", { file = path })
      return ok, why, got
    end
    local ok, why = put(function(path) io.open(path, "w"):close() end)
    assert.is_false(ok)
    assert.same({ "limit", "file", true }, { why.kind, why.reason, why.sent })
    assert.matches("became shorter", why.message)
    local got
    ok, why, got = put(function(path)
      local file <close> = io.open(path, "a")
      file:write(text)
    end)
    assert.is_true(ok, tostring(why))
    assert.equal(#text, got)
  end)

  it("sends what an iterator gives, in chunks or with a known length", function()
    local fake = server.http({}, { any = server.empty(204), body_timeout = 1000 })
    local api <close> = client { base = fake.url }
    local function count_to(n)
      local i = 0
      return function()
        i = i + 1
        task.sleep(40) -- longer than the timeout: our own slowness does not count
        return i <= n and ("%d,"):format(i) or nil
      end
    end
    api:post("/", { body = count_to(5) })
    assert.equal("1,2,3,4,5,", fake:last().body)
    assert.equal("chunked", fake:last().headers["transfer-encoding"])
    api:post("/", { body = count_to(3), length = 6 })
    assert.equal("1,2,3,", fake:last().body)
    assert.equal("6", fake:last().headers["content-length"])
    local big = { ("x"):rep(3 * MIB), "", "end" }
    api:post("/", { body = function() return table.remove(big, 1) end })
    assert.equal(3 * MIB + 3, #fake:last().body)
  end)

  it("stops asking the iterator when the server has answered", function()
    local fake = server.tcp(function(conn)
      conn:head(10000)
      conn:write("HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 4\r\n\r\nstop")
      conn:shutdown()
      while conn:read() do end -- luacheck: ignore 542
    end)
    local api <close> = client { base = fake.url }
    local asked = 0
    local why = failure(api.post, api, "/", { body = function()
      asked = asked + 1
      task.sleep(0.01)
      return asked < 1000 and ("x"):rep(1000) or nil
    end })
    assert.equal(413, why.status)
    assert.is_true(asked < 1000)
  end)

  it("ends the request when its iterator fails", function()
    local fake = server.http({}, { any = server.empty(204) })
    local api <close> = client { base = fake.url }
    local why = failure(api.post, api, "/", { body = function() error("no more ideas") end })
    assert.matches("no more ideas", tostring(why))
    assert.is_false((task.within(1, api.post, api, "/", { body = function() task.sleep(100) end })))
  end)

  it("reads server-sent events however they are cut", function()
    local text = "\239\187\191: hello\n\nid: 1\ndata: a\ndata: b\n\nevent: x\r\ndata:c\r\nretry: 1500\r\n\r\n" ..
      "data\rid\r\r" .. "data: no end"
    local pieces = {}
    for char in text:gmatch(".") do pieces[#pieces + 1] = char end
    for _, cut in ipairs { { text }, pieces } do
      local fake = server.http({}, { any = server.chunks(cut) })
      local api <close> = client { base = fake.url }
      local reply <close> = api:get("/", { stream = true })
      local events = {}
      for event in reply:events() do events[#events + 1] = event end
      assert.same({
        { event = "message", data = "a\nb", id = "1" },
        { event = "x", data = "c", id = "1", retry = 1.5 },
        { event = "message", data = "", id = "" },
      }, events)
    end
  end)

  it("refuses an event without end", function()
    local fake = server.http({}, { any = server.chunks { "data: ", ("x"):rep(3 * MIB) } })
    local api <close> = client { base = fake.url }
    local reply <close> = api:get("/", { stream = true })
    assert.equal("wire", failure(reply:events()).kind)
  end)
end)
