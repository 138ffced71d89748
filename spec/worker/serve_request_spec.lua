local sock = require "worker.sock"
local talk = require "spec.support.talk"
local task = require "worker.task"

local server

describe("a server that reads requests", function()
  before_each(function() server = talk.server { max_header = 16 * 1024, max_body = 1000 } end)

  it("answers pipelined requests one after the other on one connection", function()
    local text = talk.answer(server, "GET /1 HTTP/1.1\r\nHost: x\r\n\r\n"
      .. "POST /2 HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"
      .. "PUT /3 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
      .. "2;ext=1\r\nde\r\n1 \r\nf\r\n0\r\nX: trailer\r\n\r\n"
      .. "GET /4 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\nGET /5 HTTP/1.1\r\n")
    assert.same({ 200, 200, 200, 200 }, talk.statuses(text))
    assert.matches("GET /1 HTTP.*POST /2 abcHTTP.*PUT /3 defHTTP.*GET /4 $", text)
  end)

  it("knows HTTP/1.0", function()
    assert.matches("Connection: close", talk.answer(server, "GET / HTTP/1.0\r\n\r\n"))
    local kept = talk.answer(server, "GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n"
      .. "GET / HTTP/1.0\r\n\r\n")
    assert.same({ 200, 200 }, talk.statuses(kept))
    assert.matches("Connection: keep%-alive", kept)
  end)

  it("answers HEAD with a length and no body", function()
    local text = talk.answer(server, "HEAD /abc HTTP/1.1\r\nHost: x\r\n\r\n")
    assert.matches("Content%-Length: 10\r\n", text)
    assert.matches("\r\n\r\n$", text)
  end)

  it("takes the absolute form of a target and one empty line in front", function()
    local text = talk.answer(server, "\r\nGET http://other/p/q?x=1 HTTP/1.1\r\nHost: x\r\n\r\n")
    assert.matches("GET /p/q $", text)
  end)

  it("says 100 before it reads a body that was announced", function()
    local conn = talk.say(server, "POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n",
      true)
    assert.equal("HTTP/1.1 100 Continue\r\n\r\n", conn:head())
    conn:write("ok")
    conn:shutdown()
    assert.matches("POST / ok$", (talk.rest(conn)))
  end)

  it("refuses a body over its ceiling before it has been sent", function()
    local conn = talk.say(server, "POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 1001\r\n\r\n",
      true)
    assert.matches("^HTTP/1.1 413 ", conn:head())
    conn:close()
    assert.same({ 413 }, talk.statuses(talk.answer(server, "POST / HTTP/1.1\r\nHost: x\r\n"
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
      local answer = talk.answer(server, text .. (status and "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n" or ""))
      assert.same({ status }, talk.statuses(answer))
      if status then assert.matches("Connection: close\r\n", answer) end
      assert.equal(0, server:counts().busy)
    end)
  end

  it("takes a header line of 10,000 bytes", function()
    local text = talk.answer(server, "GET / HTTP/1.1\r\nHost: x\r\nA: " .. ("x"):rep(10000) .. "\r\n\r\n")
    assert.same({ 200 }, talk.statuses(text))
  end)

  it("delivers the refusal even when the client is still sending", function()
    local conn = sock.connect { address = server.address }
    local flood = ("x"):rep(512 * 1024)
    task.scope(function(scope)
      scope:spawn(function()
        pcall(conn.write, conn, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 524288\r\n\r\n" .. flood)
      end)
      assert.same({ 413 }, talk.statuses((talk.rest(conn))))
    end)
  end)
end)
