local serve = require "worker.serve"
local sock = require "worker.sock"
local sys = require "worker.core.sys"
local task = require "worker.task"

local function echo(request, reply)
  reply:text(200, request.method .. " " .. request.path .. " " .. request.body)
end

-- Everything that comes, and how it ended ("end", or the reason of an error).
local function rest(conn, seconds)
  local pieces = {}
  while true do
    local ok, data = pcall(conn.read, conn, 65536, { timeout = seconds or 200 })
    if not ok or not data then
      conn:close()
      return table.concat(pieces), ok and "end" or data.reason
    end
    pieces[#pieces + 1] = data
  end
end

local function statuses(text)
  local list = {}
  for status in text:gmatch("HTTP/1%.1 (%d%d%d) ") do list[#list + 1] = tonumber(status) end
  return list
end

describe("worker.serve", function()
  it("serves the example of the reference", function()
    local server <close> = serve.http {
      address = "127.0.0.1:0",
      handler = serve.routes {
        ["GET /livez"] = function(_, reply) reply:text(200, "ok\n") end,
        ["POST /tasks/{id}/fail"] = function(request, reply)
          reply:json(200, { id = request.params.id, why = request:json().why })
        end,
      },
    }
    local conn = sock.connect { address = server.address }
    conn:write("GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    local text = rest(conn)
    assert.matches("^HTTP/1.1 200 OK\r\n", text)
    assert.matches("\r\n\r\nok\n$", text)

    conn = sock.connect { address = server.address }
    conn:write("POST /tasks/7/fail HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
      .. "Content-Length: 14\r\n\r\n{\"why\":\"late\"}")
    assert.matches('"why":"late"', (rest(conn)))
  end)
end)

describe("a server", function()
  local server

  -- A fresh connection that has said this and then nothing more.
  local function say(text, keep_open)
    local conn = sock.connect { address = server.address }
    conn:write(text)
    if not keep_open then conn:shutdown() end
    return conn
  end

  local function answer_to(text)
    return (rest(say(text)))
  end

  local function start(options)
    options.address = options.address or not options.unix and "127.0.0.1:0" or nil
    options.handler = options.handler or echo
    server = serve.http(options)
  end

  after_each(function() server:close() end)

  describe("reading requests", function()
    before_each(function() start { max_header = 16 * 1024, max_body = 1000 } end)

    it("answers pipelined requests one after the other on one connection", function()
      local text = answer_to("GET /1 HTTP/1.1\r\nHost: x\r\n\r\n"
        .. "POST /2 HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"
        .. "PUT /3 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        .. "2;ext=1\r\nde\r\n1 \r\nf\r\n0\r\nX: trailer\r\n\r\n"
        .. "GET /4 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\nGET /5 HTTP/1.1\r\n")
      assert.same({ 200, 200, 200, 200 }, statuses(text))
      assert.matches("GET /1 HTTP.*POST /2 abcHTTP.*PUT /3 defHTTP.*GET /4 $", text)
    end)

    it("knows HTTP/1.0", function()
      assert.matches("Connection: close", answer_to("GET / HTTP/1.0\r\n\r\n"))
      local kept = answer_to("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n"
        .. "GET / HTTP/1.0\r\n\r\n")
      assert.same({ 200, 200 }, statuses(kept))
      assert.matches("Connection: keep%-alive", kept)
    end)

    it("answers HEAD with a length and no body", function()
      local text = answer_to("HEAD /abc HTTP/1.1\r\nHost: x\r\n\r\n")
      assert.matches("Content%-Length: 10\r\n", text)
      assert.matches("\r\n\r\n$", text)
    end)

    it("takes the absolute form of a target and one empty line in front", function()
      local text = answer_to("\r\nGET http://other/p/q?x=1 HTTP/1.1\r\nHost: x\r\n\r\n")
      assert.matches("GET /p/q $", text)
    end)

    it("says 100 before it reads a body that was announced", function()
      local conn = say("POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n",
        true)
      assert.equal("HTTP/1.1 100 Continue\r\n\r\n", conn:head())
      conn:write("ok")
      conn:shutdown()
      assert.matches("POST / ok$", (rest(conn)))
    end)

    it("refuses a body over its ceiling before it has been sent", function()
      local conn = say("POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 1001\r\n\r\n",
        true)
      assert.matches("^HTTP/1.1 413 ", conn:head())
      conn:close()
      assert.same({ 413 }, statuses(answer_to("POST / HTTP/1.1\r\nHost: x\r\n"
        .. "Transfer-Encoding: chunked\r\n\r\n3e8\r\n" .. ("x"):rep(1000) .. "\r\n1\r\nx\r\n0\r\n\r\n")))
    end)

    local host = "\r\nHost: x\r\n"
    local refusals = {
      { "a request line with two spaces", 400, "GET  / HTTP/1.1" .. host .. "\r\n" },
      { "a request line without a version", 400, "GET /" .. host .. "\r\n" },
      { "lines that end with LF alone", 400, "GET / HTTP/1.1\nHost: x\n\n" },
      { "one line that ends with LF alone", 400, "GET / HTTP/1.1\r\nHost: x\nA: b\r\n\r\n" },
      { "a CR inside a line", 400, "GET / HTTP/1.1\r\nHost: x\rA: b\r\n\r\n" },
      { "a NUL", 400, "GET / HTTP/1.1" .. host .. "A: b\0c\r\n\r\n" },
      { "a folded header", 400, "GET / HTTP/1.1" .. host .. "A: b\r\n c\r\n\r\n" },
      { "a space before the colon", 400, "GET / HTTP/1.1" .. host .. "A : b\r\n\r\n" },
      { "a header without a name", 400, "GET / HTTP/1.1" .. host .. ": b\r\n\r\n" },
      { "no Host", 400, "GET / HTTP/1.1\r\n\r\n" },
      { "two Hosts", 400, "GET / HTTP/1.1" .. host .. "Host: y\r\n\r\n" },
      { "two Content-Lengths", 400, "POST / HTTP/1.1" .. host
        .. "Content-Length: 1\r\nContent-Length: 1\r\n\r\nx" },
      { "a list of Content-Lengths", 400, "POST / HTTP/1.1" .. host .. "Content-Length: 1, 1\r\n\r\nx" },
      { "a signed Content-Length", 400, "POST / HTTP/1.1" .. host .. "Content-Length: +1\r\n\r\nx" },
      { "a huge Content-Length", 413, "POST / HTTP/1.1" .. host
        .. "Content-Length: 99999999999999999999\r\n\r\nx" },
      { "Content-Length beside Transfer-Encoding", 400, "POST / HTTP/1.1" .. host
        .. "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" },
      { "another coding", 501, "POST / HTTP/1.1" .. host .. "Transfer-Encoding: gzip, chunked\r\n\r\n" },
      { "Transfer-Encoding twice", 501, "POST / HTTP/1.1" .. host
        .. "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n" },
      { "Transfer-Encoding in HTTP/1.0", 400, "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n" },
      { "a POST of unknown length in HTTP/1.0", 411, "POST / HTTP/1.0\r\n\r\n" },
      { "a chunk size that is no number", 400, "POST / HTTP/1.1" .. host
        .. "Transfer-Encoding: chunked\r\n\r\n0x1\r\nx\r\n0\r\n\r\n" },
      { "a chunk that is longer than it says", 400, "POST / HTTP/1.1" .. host
        .. "Transfer-Encoding: chunked\r\n\r\n1\r\nxy\r\n0\r\n\r\n" },
      { "a chunk line that ends with LF alone", 400, "POST / HTTP/1.1" .. host
        .. "Transfer-Encoding: chunked\r\n\r\n1\nx\r\n0\r\n\r\n" },
      { "a body that ends early", nil, "POST / HTTP/1.1" .. host .. "Content-Length: 5\r\n\r\nab" },
      { "a bad percent sign", 400, "GET /%zz HTTP/1.1" .. host .. "\r\n" },
      { "a fragment", 400, "GET /a#b HTTP/1.1" .. host .. "\r\n" },
      { "a relative target", 400, "GET a HTTP/1.1" .. host .. "\r\n" },
      { "HTTP/2", 505, "GET / HTTP/2.0" .. host .. "\r\n" },
      { "an expectation nobody knows", 417, "GET / HTTP/1.1" .. host .. "Expect: tea\r\n\r\n" },
      { "a header line of 20,000 bytes", 431, "GET / HTTP/1.1" .. host .. "A: " .. ("x"):rep(20000)
        .. "\r\n\r\n" },
      { "a request line of 20,000 bytes", 414, "GET /" .. ("x"):rep(20000) .. " HTTP/1.1" .. host .. "\r\n" },
      { "a target of 10,000 bytes", 414, "GET /" .. ("x"):rep(10000) .. " HTTP/1.1" .. host .. "\r\n" },
      { "a hundred and one headers", 431, "GET / HTTP/1.1" .. host .. ("A: b\r\n"):rep(100) .. "\r\n" },
      { "plain garbage", 400, "\1\2\3\255\r\n\r\n" },
      { "a TLS hello", nil, "\22\3\1\2\0\1\0\1\252\3\3" },
    }
    for _, case in ipairs(refusals) do
      local name, status, text = table.unpack(case, 1, 3)
      it(("refuses %s%s"):format(name, status and " with " .. status or " without an answer"), function()
        local answer = answer_to(text .. (status and "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n" or ""))
        assert.same({ status }, statuses(answer))
        if status then assert.matches("Connection: close\r\n", answer) end
        assert.equal(0, server:counts().busy)
      end)
    end

    it("takes a header line of 10,000 bytes", function()
      local text = answer_to("GET / HTTP/1.1\r\nHost: x\r\nA: " .. ("x"):rep(10000) .. "\r\n\r\n")
      assert.same({ 200 }, statuses(text))
    end)

    it("delivers the refusal even when the client is still sending", function()
      local conn = sock.connect { address = server.address }
      local flood = ("x"):rep(512 * 1024)
      task.scope(function(scope)
        scope:spawn(function()
          pcall(conn.write, conn, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 524288\r\n\r\n" .. flood)
        end)
        assert.same({ 413 }, statuses((rest(conn))))
      end)
    end)
  end)

  describe("answering", function()
    local said
    before_each(function()
      said = nil
      start {
        handler = function(request, reply)
          if request.path == "/stream" then
            local stream = reply:stream(200, { ["X-A"] = { "1", "2" } })
            stream:write("abc")
            stream:write("")
            stream:write(("x"):rep(17))
          elseif request.path == "/events" then
            local events = reply:events()
            events:event { event = "log", id = 7, data = "one\ntwo" }
            events:event { data = "x\r\ndata: y", id = "a\nid: b" }
          elseif request.path == "/half" then
            reply:stream(200):write("half")
            error("oh")
          elseif request.path == "/twice" then
            reply:text(200, "one")
            local ok, why = pcall(reply.text, reply, 200, "two")
            said = not ok and why
          elseif request.path == "/inject" then
            local ok, why = pcall(reply.text, reply, 200, "x", { ["X-A"] = "b\r\nSet-Cookie: c" })
            said = not ok and why
            reply:empty(204)
          elseif request.path == "/fail" then
            error("the handler's own fault")
          elseif request.path == "/upgrade" then
            local conn = reply:upgrade("echo")
            conn:write(conn:line())
          elseif request.path == "/refuse" then
            serve.refuse(409, "not now")
          end
        end,
      }
    end)

    local function get(path, version, method)
      return rest(say(("%s %s HTTP/%s\r\nHost: x\r\n\r\n"):format(method or "GET", path, version or "1.1")))
    end

    it("streams in chunks", function()
      local text = get("/stream")
      assert.matches("Transfer%-Encoding: chunked\r\n", text)
      assert.matches("X%-A: 1\r\nX%-A: 2\r\n", text)
      assert.matches("\r\n\r\n3\r\nabc\r\n11\r\nx+\r\n0\r\n\r\n$", text)
    end)

    it("streams to HTTP/1.0 until the end of the connection", function()
      local text = get("/stream", "1.0")
      assert.not_matches("chunked", text)
      assert.matches("\r\n\r\nabcx+$", text)
    end)

    it("streams nothing to HEAD", function()
      assert.matches("chunked\r\n\r\n$", (get("/stream", "1.1", "HEAD")))
    end)

    it("sends events that text from elsewhere cannot forge", function()
      local text = get("/events")
      assert.matches("Content%-Type: text/event%-stream\r\n", text)
      assert.matches("event: log\nid: 7\ndata: one\ndata: two\n\n", text, 1, true)
      assert.matches("id: a id: b\ndata: x\ndata: data: y\n\n", text, 1, true)
    end)

    it("cuts the connection when a handler fails halfway", function()
      local text, how = get("/half")
      assert.not_matches("\r\n0\r\n", text)
      assert.equal("reset", how)
    end)

    it("answers 500 for a handler that fails or says nothing", function()
      assert.same({ 500 }, statuses(get("/fail")))
      assert.same({ 500 }, statuses(get("/silent")))
      assert.not_matches("own fault", (get("/fail")))
    end)

    it("refuses a second answer and a forged header", function()
      assert.same({ 200 }, statuses(get("/twice")))
      assert.matches("answered already", said)
      assert.same({ 204 }, statuses(get("/inject")))
      assert.matches("not a header field", said)
    end)

    it("lets a handler refuse, and take over the connection", function()
      assert.same({ 409 }, statuses(get("/refuse")))
      local conn = say("GET /upgrade HTTP/1.1\r\nHost: x\r\n\r\nhello\n", true)
      assert.matches("^HTTP/1.1 101 ", conn:head())
      assert.equal("hello\n", (rest(conn)))
    end)
  end)

  describe("with routes", function()
    before_each(function()
      local function show(request, reply)
        local names = {}
        for name, value in pairs(request.params) do names[#names + 1] = name .. "=" .. value end
        table.sort(names)
        reply:text(200, request.route .. "|" .. table.concat(names, ",") .. "|" .. (request.query.q or ""))
      end
      start {
        handler = serve.routes {
          ["GET /"] = show, ["GET /tasks/{id}"] = show, ["DELETE /tasks/{id}"] = show,
          ["GET /tasks/all"] = show, ["POST /tasks/{id}/fail"] = show, ["GET /files/{path...}"] = show,
          ["ANY /any"] = show,
        },
      }
    end)

    local function body_of(line)
      return answer_to(line .. " HTTP/1.1\r\nHost: x\r\n\r\n"):match("\r\n\r\n(.*)$")
    end

    it("finds literal before named before the rest, and decodes", function()
      assert.equal("GET /||", body_of("GET /"))
      assert.equal("GET /tasks/all||", body_of("GET /tasks/all"))
      assert.equal("GET /tasks/{id}|id=a/b c|x y", body_of("GET /tasks/a%2Fb%20c?q=x+y"))
      assert.equal("POST /tasks/{id}/fail|id=all|", body_of("POST /tasks/all/fail"))
      assert.equal("GET /files/{path...}|path=a/b/c|", body_of("GET /files/a/b/c"))
      assert.equal("ANY /any||", body_of("PURGE /any"))
    end)

    it("answers HEAD from GET, OPTIONS, 404 and 405 by itself", function()
      assert.matches("^HTTP/1.1 200 .*\r\n\r\n$", answer_to("HEAD /tasks/7 HTTP/1.1\r\nHost: x\r\n\r\n"))
      assert.matches("^HTTP/1.1 404 ", answer_to("GET /tasks HTTP/1.1\r\nHost: x\r\n\r\n"))
      assert.matches("^HTTP/1.1 404 ", answer_to("GET /tasks/ HTTP/1.1\r\nHost: x\r\n\r\n"))
      assert.matches("^HTTP/1.1 404 ", answer_to("GET /tasks/7/../8 HTTP/1.1\r\nHost: x\r\n\r\n"))
      local text = answer_to("PUT /tasks/7 HTTP/1.1\r\nHost: x\r\n\r\n")
      assert.matches("^HTTP/1.1 405 ", text)
      assert.matches("Allow: DELETE, GET, HEAD, OPTIONS\r\n", text)
      assert.matches("^HTTP/1.1 204 .*Allow: ", answer_to("OPTIONS /tasks/7 HTTP/1.1\r\nHost: x\r\n\r\n"))
    end)
  end)

  describe("under bad clients", function()
    it("closes an idle connection in time, without a word", function()
      start { idle_timeout = 5 }
      local text, how = rest(say("", true))
      assert.same({ "", "end" }, { text, how })
    end)

    it("answers 408 to a header that drips, however steadily", function()
      start { header_timeout = 10 }
      local conn = sock.connect { address = server.address }
      task.scope(function(scope)
        scope:spawn(function()
          pcall(function()
            for byte in ("GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n"):gmatch(".") do
              conn:write(byte)
              task.sleep(1)
            end
          end)
        end)
        assert.same({ 408 }, statuses((rest(conn))))
      end)
    end)

    it("answers 408 to a body that drips", function()
      start { body_timeout = 10 }
      local conn = say("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", true)
      task.scope(function(scope)
        scope:spawn(function()
          pcall(function()
            while true do conn:write("1\r\nx\r\n"); task.sleep(1) end
          end)
        end)
        assert.same({ 408 }, statuses((rest(conn))))
      end)
    end)

    it("gives up on a client that does not read, and serves the others meanwhile", function()
      start {
        write_timeout = 10,
        handler = function(request, reply)
          reply:text(200, request.path == "/big" and ("x"):rep(16 * 1024 * 1024) or "small")
        end,
      }
      local slow = say("GET /big HTTP/1.1\r\nHost: x\r\n\r\n", true)
      task.sleep(1)
      assert.equal(1, server:counts().busy)
      assert.matches("small$", answer_to("GET /small HTTP/1.1\r\nHost: x\r\n\r\n"))
      task.sleep(10)
      assert.equal(0, server:counts().open)
      slow:close()
    end)

    it("survives resets at every moment", function()
      start { handler = function(_, reply) task.sleep(1); reply:text(200, ("x"):rep(1000000)) end }
      for _, text in ipairs { "", "GET", "GET / HTTP/1.1\r\n", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nab",
        "GET / HTTP/1.1\r\nHost: x\r\n\r\n", ("GET / HTTP/1.1\r\nHost: x\r\n\r\n"):rep(5) } do
        for _, wait in ipairs { 0, 0.5, 1 } do
          local conn = say(text, true)
          task.sleep(wait)
          conn:reset()
        end
      end
      task.sleep(20)
      assert.equal(0, server:counts().open)
    end)

    it("holds a thousand idle connections and still answers", function()
      start { max_connections = 1001 }
      local idle = {}
      for i = 1, 1000 do idle[i] = sock.connect { address = server.address } end
      assert.matches("GET / $", answer_to("GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
      assert.equal(1000, server:counts().open)
      for _, conn in ipairs(idle) do conn:close() end
    end)

    it("costs little for each idle connection", function()
      start { max_connections = 500 }
      collectgarbage()
      local before, idle = sys.memory(), {}
      for i = 1, 400 do idle[i] = sock.connect { address = server.address } end
      task.sleep(1)
      collectgarbage()
      assert.is_true((sys.memory() - before) / 400 < 8 * 1024)
      for _, conn in ipairs(idle) do conn:close() end
    end)

    it("lets the connection that was idle for longest make room", function()
      start { max_connections = 2 }
      local first = say("", true)
      task.sleep(1)
      local second = say("", true)
      task.sleep(5)
      assert.matches("GET / $", answer_to("GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
      assert.equal("end", select(2, rest(first)))
      second:write("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
      assert.same({ 200 }, statuses((rest(second))))
    end)

    it("answers 503 when every connection is busy", function()
      start { max_connections = 1, handler = function(_, reply) task.sleep(60); reply:empty() end }
      local busy = say("GET / HTTP/1.1\r\nHost: x\r\n\r\n", true)
      task.sleep(1)
      local text = answer_to("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
      assert.same({ 503 }, statuses(text))
      assert.matches("Retry%-After: 1\r\n", text)
      assert.equal(1, server:counts().refused)
      busy:close()
    end)
  end)

  describe("closing", function()
    it("lets requests end within their grace", function()
      start { handler = function(_, reply) task.sleep(5); reply:text(200, "done") end }
      local conn = say("GET / HTTP/1.1\r\nHost: x\r\n\r\n", true)
      local idle = say("", true)
      task.sleep(1)
      server:close(10)
      assert.matches("done$", (rest(conn)))
      assert.equal("end", select(2, rest(idle)))
    end)

    it("cuts off what takes longer", function()
      start { handler = function(_, reply) task.sleep(50); reply:text(200, "done") end }
      local conn = say("GET / HTTP/1.1\r\nHost: x\r\n\r\n", true)
      task.sleep(1)
      server:close(10)
      assert.equal("", (rest(conn)))
    end)
  end)

  it("listens on a socket file with its mode", function()
    local path = os.tmpname()
    os.remove(path)
    start { unix = path, mode = 432 } -- 0660
    local pipe <close> = io.popen("stat -c %a " .. path)
    assert.equal("660", pipe:read("l"))
    local conn = sock.connect { unix = path }
    conn:write("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert.same({ 200 }, statuses((rest(conn))))
  end)
end)
