-- worker.delivery: an event that has to arrive.
local delivery = require "worker.delivery"
local fs = require "worker.fs"
local http = require "worker.http"
local scratch = require "spec.support.scratch"
local server = require "spec.support.server"
local sys = require "worker.core.sys"
local webhook = require "worker.webhook"

local function event_to(fake, path)
  return { id = "evt-1", url = fake.url .. (path or "/cb"), headers = { ["content-type"] = "application/json" },
    body = '{"n":1}' }
end

local function send(fake, options, path)
  local client <close> = http.client { environment = {} }
  return delivery.send(client, event_to(fake, path), options or {})
end

local function fails(fake, options, path)
  local ok, why = pcall(send, fake, options, path)
  assert.is_false(ok)
  return why
end

describe("worker.delivery", function()
  it("sends the same id and body on every try, and a timestamp of its own", function()
    local fake = server.http { ["POST /cb"] = server.sequence {
      server.status(500), server.reset "after", server.json(200, { ok = true }) } }
    local answer, tries = send(fake, { keys = webhook.keys(("k"):rep(24)), first = 5, for_ = 300 })
    assert.equal(3, tries)
    assert.is_true(answer.json.ok)
    for _, request in ipairs(fake.requests) do
      assert.equal('{"n":1}', request.body)
      assert.equal("evt-1", request.headers["webhook-id"])
      assert.equal("evt-1", request.headers["idempotency-key"])
      assert.matches("^v1,", request.headers["webhook-signature"])
    end
  end)

  it("does not try again what is refused for good", function()
    for _, status in ipairs { 400, 401, 404, 410, 422 } do
      local fake = server.http { ["POST /cb"] = server.status(status) }
      assert.equal(status, fails(fake, { for_ = 300 }).status)
      assert.equal(1, fake:count())
    end
  end)

  it("waits at least as long as Retry-After says", function()
    local fake = server.http { ["POST /cb"] = server.sequence {
      server.status(429, { ["Retry-After"] = "20" }), server.status(503, { ["Retry-After"] = "7" }), server.status(204) } }
    local before = sys.mono()
    send(fake, { first = 0.1, for_ = 300 })
    assert.is_true(sys.mono() - before >= 27)
  end)

  it("gives up when Retry-After is longer than the time that is left", function()
    local fake = server.http { ["POST /cb"] = server.status(503, { ["Retry-After"] = "100" }) }
    assert.equal(503, fails(fake, { for_ = 30 }).status)
    assert.equal(1, fake:count())
  end)

  it("takes a server that never answers for a try that failed", function()
    local fake = server.http { ["POST /cb"] = server.sequence { server.hang(), server.status(200) } }
    local _, tries = send(fake, { try = 15, first = 1, for_ = 60 })
    assert.equal(2, tries)
  end)

  it("never takes longer than it was given, whatever one try may take", function()
    local fake = server.http { ["POST /cb"] = server.hang() }
    local before = sys.mono()
    local why = fails(fake, { try = 15, first = 1, for_ = 20 })
    assert.equal("timeout", why.reason)
    assert.is_true(sys.mono() - before <= 21)
  end)

  it("takes a 2xx for success although its body never comes", function()
    local fake = server.http { ["POST /cb"] = server.truncated(0) }
    assert.equal(200, send(fake).status)
    assert.equal(1, fake:count())
  end)

  it("repeats the POST where 307 and 308 lead", function()
    local fake = server.http {
      ["POST /cb"] = server.status(307, { Location = "/there" }),
      ["POST /there"] = server.status(308, { Location = "/in/the/end" }),
      ["POST /in/the/end"] = server.status(200),
    }
    assert.equal(200, send(fake).status)
    assert.equal('{"n":1}', fake:last().body)
    assert.equal("POST", fake:last().method)
  end)

  it("never makes a GET of an event: 301 to 303 are failures", function()
    for _, status in ipairs { 301, 302, 303 } do
      local fake = server.http({ ["POST /cb"] = server.status(status, { Location = "/there" }) },
        { any = server.status(200) })
      assert.equal(status, fails(fake, { for_ = 300 }).status)
      assert.equal(1, fake:count())
    end
  end)

  it("keeps an event in a file that only its owner reads, without credentials, to be sent later", function()
    local dir <close> = scratch.dir()
    local fake = server.http { ["POST /cb"] = server.status(200) }
    local path = delivery.keep(dir:path "spool", event_to(fake), "no route to host")
    assert.equal(384, fs.stat(path).mode & 511)
    assert.equal(448, fs.stat(dir:path "spool").mode & 511)
    local event = delivery.load(path)
    local client <close> = http.client { environment = {} }
    delivery.send(client, event, {})
    assert.equal('{"n":1}', fake:last().body)
    assert.equal("evt-1", fake:last().headers["webhook-id"])
  end)

  it("says what is wrong with a file that holds no event", function()
    local dir <close> = scratch.dir()
    for _, text in ipairs { "", "[]", '{"version":2}', '{"version":1,"id":"a","url":"b"}' } do
      local ok, why = pcall(delivery.load, dir:write("x.json", text))
      assert.is_false(ok)
      assert.equal("config", why.kind)
      assert.matches("x.json", why.message)
    end
    assert.equal("file", select(2, pcall(delivery.load, dir:path "none")).kind)
  end)
end)
