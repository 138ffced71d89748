-- What the door itself promises; what people use is in spec/worker/http*_spec.lua.
local core = require "worker.core.http"
local server = require "spec.support.server"
local sys = require "worker.core.sys"
local task = require "worker.task"

local function failure(fn, ...)
  local ok, why = task.try(fn, ...)
  assert.is_false(ok)
  return type(why) == "table" and why or { message = tostring(why) }
end

describe("worker.core.http", function()
  it("starts a transfer without waiting, and answers later", function()
    local fake = server.http({}, { any = server.text(200, "body") })
    local client <close> = core.open {}
    local transfer <close> = client:start { url = fake.url }
    assert.equal("worker.http.transfer (waiting for the answer)", tostring(transfer))
    local status, head, body = transfer:answer()
    assert.same({ 200, "body" }, { status, body })
    assert.matches("Content%-Length: 4\r\n", head)
    assert.same({ 200, head, body }, { transfer:answer() })
    assert.equal("worker.http.transfer (over)", tostring(transfer))
  end)

  it("refuses what is closed or somebody else's turn", function()
    local fake = server.http({}, { any = server.hang() })
    local client = core.open {}
    local transfer = client:start { url = fake.url, stream = true }
    local waiter = task.start(transfer.answer, transfer)
    fake:wait(1)
    assert.matches("another task", failure(transfer.answer, transfer).message)
    transfer:close()
    local ok, why = waiter:join()
    assert.is_false(ok)
    assert.equal("closed", why.reason)
    assert.matches("closed", failure(transfer.answer, transfer).message)
    client:close()
    assert.matches("closed", failure(client.start, client, { url = fake.url }).message)
    assert.matches("closed", tostring(client))
    transfer:close()
  end)

  it("refuses calls that do not fit the transfer", function()
    local fake = server.http({}, { any = server.text(200, "x") })
    local client <close> = core.open {}
    local transfer <close> = client:start { url = fake.url }
    failure(transfer.read, transfer)
    failure(transfer.save, transfer, "/tmp/x")
    failure(transfer.write, transfer, "x")
    failure(transfer.finish, transfer)
    assert.equal(200, (transfer:answer()))
  end)

  it("goes on after a cancelled wait", function()
    local fake = server.http({}, { any = server.slow { headers = 5, text = "late" } })
    local client <close> = core.open {}
    local transfer <close> = client:start { url = fake.url }
    assert.is_false((task.within(1, transfer.answer, transfer)))
    local _, _, body = transfer:answer()
    assert.equal("late", body)
  end)

  it("gives everything back when its handles are forgotten", function()
    local fake = server.http({}, { any = server.hang() })
    do
      local client, transfers = core.open {}, {}
      for i = 1, 5 do
        transfers[i] = client:start { url = fake.url, method = "POST", body = ("x"):rep(1e6) }
      end
      fake:wait(#transfers)
    end
    for _ = 1, 4 do collectgarbage() end
    assert.equal(0, sys.live()["http.transfer"] or 0)
    assert.equal(0, sys.live()["http.client"] or 0)
  end)

  it("keeps the body it sends, whatever becomes of the table it came in", function()
    local fake = server.http({}, { any = server.empty(204) })
    local client <close> = core.open {}
    local options = { url = fake.url, method = "POST", body = ("abc"):rep(1e6) }
    local transfer <close> = client:start(options)
    options.body = nil
    collectgarbage()
    assert.equal(204, (transfer:answer()))
    assert.equal(("abc"):rep(1e6), fake:last().body)
  end)

  it("raises an argument error for options of the wrong kind", function()
    local client <close> = core.open {}
    for _, options in ipairs {
      { url = "http://h", timeout = -1 }, { url = "http://h", headers = { "a" } , method = {} },
      { url = "http://h", headers = { "a", 1 } }, { url = "http://h", max_body = 0 },
      { url = "http://h\0x" }, { url = "http://h", method = "GET\0" }, { url = 5 }, {},
      { url = "http://h", headers = "x" },
    } do
      failure(client.start, client, options)
    end
    failure(core.open, { low_speed_bytes = -1 })
    assert.equal(0, sys.live()["http.transfer"] or 0)
  end)
end)

describe("a plan of worker.core.http", function()
  local function echo(request, reply) reply:text(200, request.body) end

  it("asks the same again and again, with a body or none", function()
    local fake = server.http({}, { any = echo })
    local client <close> = core.open { user_agent = "spec" }
    local plan <close> = client:plan { url = fake.url .. "/p?q", method = "POST", headers = { "X-A", "b" } }
    assert.equal("worker.http.plan (POST " .. fake.url .. "/p)", tostring(plan))
    for _, sent in ipairs { "one", "", ("x"):rep(1e6), false } do
      local status, head, body = plan:exchange(sent or nil)
      assert.same({ 200, sent or "" }, { status, body })
      assert.matches("Content%-Length: %d+\r\n", head)
      local last = fake:last()
      assert.same({ "POST", "/p?q", "b", tostring(#body) },
        { last.method, last.target, last.headers["x-a"], last.headers["content-length"] })
    end
    assert.equal(4, #fake.requests)
  end)

  it("serves several tasks at once, and keeps what they used for the next", function()
    local fake = server.http({}, { any = echo })
    local client <close> = core.open {}
    local plan <close> = client:plan { url = fake.url, method = "POST" }
    for _ = 1, 3 do
      local tasks = {}
      for i = 1, 5 do
        tasks[i] = task.start(function() return select(3, plan:exchange("body " .. i)) end)
      end
      for i = 1, 5 do
        local ok, body = tasks[i]:join()
        assert.same({ true, "body " .. i }, { ok, body })
      end
    end
    assert.equal(0, sys.live()["http.transfer"] or 0)
  end)

  it("cuts an exchange off that is cancelled, and can be asked again", function()
    local fake = server.http { ["POST /"] = server.sequence { server.hang(), server.text(200, "again") } }
    local client <close> = core.open {}
    local plan <close> = client:plan { url = fake.url, method = "POST" }
    assert.is_false((task.within(1, plan.exchange, plan, ("x"):rep(1e6))))
    assert.equal(0, sys.live()["http.transfer"] or 0)
    assert.equal("again", select(3, plan:exchange("x")))
  end)

  it("cuts off what is under way when it is closed, and is then of no use", function()
    local fake = server.http({}, { any = server.hang() })
    local client <close> = core.open {}
    local waiters = {}
    do
      local plan <close> = client:plan { url = fake.url }
      for i = 1, 3 do waiters[i] = task.start(plan.exchange, plan) end
      fake:wait(3)
      waiters[2]:cancel()
      waiters.plan = plan
    end
    assert.equal(0, sys.live()["http.transfer"] or 0)
    for i = 1, 3 do
      local ok, why = waiters[i]:join()
      assert.is_false(ok)
      assert.matches(i == 2 and "cancelled" or "this HTTP request was closed", tostring(why))
    end
    assert.has_error(function() waiters.plan:exchange() end)
  end)

  it("fails as a transfer does, and names the request", function()
    local fake = server.http({}, { any = server.hang() })
    local client = core.open {}
    local plan = client:plan { url = fake.url .. "/x?secret", timeout = 0.05 }
    local why = failure(plan.exchange, plan)
    assert.same({ "transport", "timeout", true }, { why.kind, why.reason, why.sent })
    assert.matches("^GET " .. fake.url:gsub("%p", "%%%0") .. "/x: no answer within", why.message)
    local waiter = task.start(plan.exchange, plan)
    fake:wait(2)
    client:close()
    local ok, closed = waiter:join()
    assert.same({ false, "closed" }, { ok, closed.reason })
    assert.matches("closed", failure(plan.exchange, plan).message)
    assert.matches("closed", failure(client.plan, client, { url = fake.url }).message)
  end)

  it("is refused for what could never be sent", function()
    local client <close> = core.open {}
    for _, options in ipairs {
      { url = "ftp://h" }, { url = "http://" }, { url = "http://h", method = "A B" },
      { url = "http://h", headers = { "Content-Length", "1" } }, { url = "http://h", headers = { "A", "b\r\nC: d" } },
      { url = "http://h", stream = true }, { url = "http://h", patient = true }, { url = "http://h", timeout = -1 },
      { url = "http://h\0" }, {},
    } do
      failure(client.plan, client, options)
    end
    local plan <close> = client:plan { url = "http://h" }
    failure(plan.exchange, plan, 5)
    failure(plan.exchange, plan, {})
  end)

  it("gives everything back when it is forgotten", function()
    local fake = server.http({}, { any = server.hang() })
    do
      local client = core.open {}
      local plan = client:plan { url = fake.url, method = "POST" }
      task.within(0.1, plan.exchange, plan, "x")
    end
    for _ = 1, 4 do collectgarbage() end
    assert.equal(0, sys.live()["http.transfer"] or 0)
    assert.equal(0, sys.live()["http.client"] or 0)
  end)
end)
