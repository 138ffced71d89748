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
