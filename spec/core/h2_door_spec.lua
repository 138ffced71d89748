-- The door to HTTP/2: what its handles promise, and refuse.
local frames = require "spec.support.frames"
local h2 = require "worker.core.h2"
local sock = require "worker.sock"
local talk = require "spec.support.talk"
local task = require "worker.task"

local ASK = { ":method", "POST", ":scheme", "http", ":path", "/", ":authority", "x" }
local OK = { ":status", "200" }

describe("a connection of HTTP/2", function()
  local near, far, listener
  before_each(function()
    local one, other
    one, other, listener = talk.pair()
    near, far = h2.open(one, {}), h2.open(other, { server = true })
  end)
  after_each(function()
    near:close()
    far:close()
    listener:close()
  end)

  -- Both ends of a stream; they go with their connections.
  local function stream(body, ends)
    local asked = near:request(ASK, body, ends)
    return asked, far:accept()
  end

  it("carries a request and its answer", function()
    local asked, got = stream("question", true)
    assert.same({ [":method"] = "POST", [":scheme"] = "http", [":path"] = "/", [":authority"] = "x" }, got:head())
    assert.equal("quest", got:read(5))
    assert.equal("ion", got:read())
    assert.is_nil(got:read())
    assert.is_true(got:respond { ":status", "200", "a", "1", "b", "2", "a", "3" })
    got:write("answer", false, "lead ")
    got:finish { "t", "u" }
    assert.same({ [":status"] = "200", a = "1,3", b = "2" }, asked:head())
    assert.equal("lead answer", asked:read_exactly(11))
    assert.is_nil(asked:read_exactly(1))
    assert.same({ t = "u" }, asked:trailers())
    assert.is_true(asked:over())
    assert.is_true(got:over())
  end)

  it("gives a short answer in one piece, and leaves a long one to be read", function()
    local asked, got = stream("", true)
    got:respond(OK)
    got:write(("x"):rep(100), true)
    assert.same({}, { asked:all(99) })
    local head, body, trailers = asked:all(100)
    assert.same({ { [":status"] = "200" }, ("x"):rep(100), {} }, { head, body, trailers })
  end)

  it("tells the state of its handles", function()
    local asked, got = stream("x", true)
    assert.equal("worker.h2 (open)", tostring(near))
    assert.equal("worker.h2.stream (open)", tostring(asked))
    assert.equal("worker.h2.stream (ended by the other side)", tostring(got))
    got:respond(OK, true)
    asked:over()
    assert.equal("worker.h2.stream (over)", tostring(asked))
    asked:close()
    assert.equal("worker.h2.stream (closed)", tostring(asked))
    far:goaway()
    task.sleep(1)
    assert.equal("worker.h2 (closed)", tostring(near)) -- nothing was open on it
    got:close()
  end)

  it("is going away while something is open on it", function()
    local asked, got = stream()
    far:goaway(0, "bye")
    task.sleep(1)
    assert.is_true(near:is_going())
    assert.equal("worker.h2 (going away)", tostring(near))
    local why = talk.failure(near.request, near, ASK)
    assert.equal("refused", why.reason)
    assert.is_false(why.sent)
    got:respond(OK)
    got:write("still here", true)
    assert.equal("still here", asked:read())
  end)

  it("refuses a closed handle", function()
    local asked = near:request(ASK)
    asked:close()
    for _, method in ipairs { "head", "read", "trailers", "over", "sent" } do
      local why = talk.failure(asked[method], asked)
      assert.equal("transport", why.kind)
      assert.equal("the stream is closed", why.message)
    end
    near:close()
    assert.equal("the connection is closed", talk.failure(near.request, near, ASK).message)
    assert.is_true(near:is_going())
    assert.is_nil(near:accept())
    assert.equal("closed", near:wait().reason)
  end)

  it("refuses a second task for the same thing", function()
    local asked, got = stream() -- luacheck: ignore got
    task.scope(function(scope)
      scope:spawn(asked.read, asked)
      task.sleep(1)
      assert.matches("another task waits", talk.failure(asked.read, asked))
      assert.matches("another task waits", talk.failure(asked.head, asked))
      assert.is_true(asked:write "but one may write")
    end)
  end)

  it("gives who waits what it waits for, whatever a refused second task wanted", function()
    local asked, got = stream()
    task.scope(function(scope)
      local first
      scope:spawn(function() first = asked:read_exactly(3) end)
      task.sleep(1)
      assert.matches("another task waits", talk.failure(asked.read_exactly, asked, 1))
      got:respond { ":status", "200" }
      got:write "a"
      task.sleep(1)
      got:write "bc"
      scope:wait()
      assert.equal("abc", first)
    end)
  end)

  it("refuses what makes no headers", function()
    assert.matches("must be strings", talk.failure(near.request, near, { ":method", 1 }))
    local many = {}
    for i = 1, 300 do many[i] = "x" end
    assert.matches("150 headers are too many", talk.failure(near.request, near, many))
    assert.matches("16 bytes", talk.failure(near.request, near, ASK, "", true, 1, ("x"):rep(17)))
    local asked <close> = near:request(ASK)
    assert.matches("after the end of the body", talk.failure(asked.trailers, asked))
  end)

  it("refuses to take over what is no connection, or in use", function()
    assert.matches("worker.sock expected", talk.failure(h2.open, near, {}))
    local one, other, more = talk.pair()
    local first <close> = h2.open(one, {}) -- luacheck: ignore first
    assert.matches("in use", talk.failure(h2.open, one, {}))
    assert.matches("reading", talk.failure(one.read, one))
    talk.close(other, more)
    other = talk.failure(h2.open, other, {})
    assert.matches("closed", other)
  end)

  it("sends what was written before a write that is cancelled, and nothing of that", function()
    local asked, got = stream()
    local large = ("x"):rep(3 * 1024 * 1024)
    asked:write(large)
    assert.is_false((task.within(1, asked.write, asked, "never")))
    assert.equal(large, got:read_exactly(#large))
    asked:write("last", true)
    assert.equal("last", got:read())
    assert.is_nil(got:read())
  end)

  it("loses its streams when it is closed here, and tells who waits", function()
    local asked, got = stream() -- luacheck: ignore got
    local waiting = task.start(asked.read, asked)
    task.sleep(1)
    near:close()
    local ok, why = waiting:join()
    assert.is_false(ok)
    assert.equal("transport", why.kind)
    assert.is_true(why.sent)
  end)

  it("ends when the connection under it is closed", function()
    local conn, other, more = talk.pair()
    local link <close> = h2.open(conn, {})
    local asked <close> = link:request(ASK)
    conn:close()
    assert.equal("closed", link:wait().reason)
    assert.is_false(asked:over())
    talk.close(other, more)
  end)

  it("lets others run while somebody sends without end", function()
    local conn <close> = sock.connect { address = listener:address() }
    local link <close> = h2.open(listener:accept(), { server = true }) -- luacheck: ignore link
    conn:write(frames.PREFACE .. frames.settings {} .. frames.ask(1, "/"))
    local flood = frames.data(1, ""):rep(100000)
    local sending = task.start(function()
      while true do conn:write(flood) end
    end)
    for _ = 1, 20 do task.sleep(0.001) end
    sending:cancel "enough"
    sending:join()
  end)
end)
