local serve = require "worker.serve"
local talk = require "spec.support.talk"

local server

describe("a server that answers", function()
  local said
  before_each(function()
    said = nil
    server = talk.server {
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
    return talk.rest(talk.say(server, ("%s %s HTTP/%s\r\nHost: x\r\n\r\n"):format(method or "GET", path, version or "1.1")))
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
    assert.same({ 500 }, talk.statuses(get("/fail")))
    assert.same({ 500 }, talk.statuses(get("/silent")))
    assert.not_matches("own fault", (get("/fail")))
  end)

  it("refuses a second answer and a forged header", function()
    assert.same({ 200 }, talk.statuses(get("/twice")))
    assert.matches("answered already", said)
    assert.same({ 204 }, talk.statuses(get("/inject")))
    assert.matches("not a header field", said)
  end)

  it("lets a handler refuse, and take over the connection", function()
    assert.same({ 409 }, talk.statuses(get("/refuse")))
    local conn = talk.say(server, "GET /upgrade HTTP/1.1\r\nHost: x\r\n\r\nhello\n", true)
    assert.matches("^HTTP/1.1 101 ", conn:head())
    assert.equal("hello\n", (talk.rest(conn)))
  end)
end)
