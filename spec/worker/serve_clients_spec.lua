local sock = require "worker.sock"
local sys = require "worker.core.sys"
local talk = require "spec.support.talk"
local task = require "worker.task"

local server

describe("a server with bad clients", function()
  it("closes an idle connection in time, without a word", function()
    server = talk.server { idle_timeout = 5 }
    local text, how = talk.rest(talk.say(server, "", true))
    assert.same({ "", "end" }, { text, how })
  end)

  it("answers 408 to a header that drips, however steadily", function()
    server = talk.server { header_timeout = 10 }
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
      assert.same({ 408 }, talk.statuses((talk.rest(conn))))
    end)
  end)

  it("answers 408 to a body that drips", function()
    server = talk.server { body_timeout = 10 }
    local conn = talk.say(server, "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", true)
    task.scope(function(scope)
      scope:spawn(function()
        pcall(function()
          while true do conn:write("1\r\nx\r\n"); task.sleep(1) end
        end)
      end)
      assert.same({ 408 }, talk.statuses((talk.rest(conn))))
    end)
  end)

  it("gives up on a client that does not read, and serves the others meanwhile", function()
    server = talk.server {
      write_timeout = 10,
      handler = function(request, reply)
        reply:text(200, request.path == "/big" and ("x"):rep(16 * 1024 * 1024) or "small")
      end,
    }
    local slow = talk.say(server, "GET /big HTTP/1.1\r\nHost: x\r\n\r\n", true)
    task.sleep(1)
    assert.equal(1, server:counts().busy)
    assert.matches("small$", talk.answer(server, "GET /small HTTP/1.1\r\nHost: x\r\n\r\n"))
    task.sleep(10)
    assert.equal(0, server:counts().open)
    slow:close()
  end)

  it("survives resets at every moment", function()
    server = talk.server { handler = function(_, reply) task.sleep(1); reply:text(200, ("x"):rep(1000000)) end }
    for _, text in ipairs { "", "GET", "GET / HTTP/1.1\r\n", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nab",
      "GET / HTTP/1.1\r\nHost: x\r\n\r\n", ("GET / HTTP/1.1\r\nHost: x\r\n\r\n"):rep(5) } do
      for _, wait in ipairs { 0, 0.5, 1 } do
        local conn = talk.say(server, text, true)
        task.sleep(wait)
        conn:reset()
      end
    end
    task.sleep(20)
    assert.equal(0, server:counts().open)
  end)

  it("holds a thousand idle connections and still answers", function()
    server = talk.server { max_connections = 1001 }
    local idle = {}
    for i = 1, 1000 do idle[i] = sock.connect { address = server.address } end
    assert.matches("GET / $", talk.answer(server, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
    assert.equal(1000, server:counts().open)
    for _, conn in ipairs(idle) do conn:close() end
  end)

  it("costs little for each idle connection", function()
    server = talk.server { max_connections = 500 }
    collectgarbage()
    local before, idle = sys.memory(), {}
    for i = 1, 400 do idle[i] = sock.connect { address = server.address } end
    task.sleep(1)
    collectgarbage()
    assert.is_true((sys.memory() - before) / 400 < 8 * 1024)
    for _, conn in ipairs(idle) do conn:close() end
  end)

  it("lets the connection that was idle for longest make room", function()
    server = talk.server { max_connections = 2 }
    local first = talk.say(server, "", true)
    task.sleep(1)
    local second = talk.say(server, "", true)
    task.sleep(5)
    assert.matches("GET / $", talk.answer(server, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
    assert.equal("end", select(2, talk.rest(first)))
    second:write("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert.same({ 200 }, talk.statuses((talk.rest(second))))
  end)

  it("lets in a newcomer when nobody says what he wants, or reads what he was told", function()
    server = talk.server { max_connections = 5, handler = function(_, reply) reply:text(200, ("x"):rep(16 << 20)) end }
    local crowd = {}
    for i, text in ipairs { "", "GET / HT", "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1", "\0\r\n\r\n",
      "GET / HTTP/1.1\r\nHost: x\r\n\r\n" } do
      crowd[i] = talk.say(server, text, true)
      task.sleep(0.001)
    end
    for i = 1, 5 do
      assert.same({ 200 }, talk.statuses((talk.answer(server, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"))), i)
      crowd[#crowd + 1] = talk.say(server, "GET /", true)
      task.sleep(0.001)
    end
    assert.equal(0, server:counts().refused)
    for _, conn in ipairs(crowd) do conn:close() end
  end)

  it("gives one answer in a turn to who asks many times at once", function()
    local order = {}
    server = talk.server { handler = function(request, reply)
      order[#order + 1] = request.path
      reply:text(200, "")
    end }
    local many = talk.say(server, ("GET /many HTTP/1.1\r\nHost: x\r\n\r\n"):rep(50), true)
    talk.answer(server, "GET /one HTTP/1.1\r\nHost: x\r\n\r\n")
    assert.is_true(#order < 20, #order)
    many:close()
  end)

  it("has the kernel keep no more of its answers than is said", function()
    local listener <close> = sock.listen { address = "127.0.0.1:0", send_buffer = 65536 }
    local near = sock.connect { address = listener:address() }
    local far = listener:accept()
    assert.is_false((pcall(far.write, far, ("x"):rep(8 << 20), { timeout = 1 })))
    local _, sent = far:traffic()
    assert.is_true(sent < 1 << 20, sent)
    near:close()
    far:close()
  end)

  it("answers 503 when every connection is busy", function()
    server = talk.server { max_connections = 1, handler = function(_, reply) task.sleep(60); reply:empty() end }
    local busy = talk.say(server, "GET / HTTP/1.1\r\nHost: x\r\n\r\n", true)
    task.sleep(1)
    local text = talk.answer(server, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert.same({ 503 }, talk.statuses(text))
    assert.matches("Retry%-After: 1\r\n", text)
    assert.equal(1, server:counts().refused)
    busy:close()
  end)
end)
