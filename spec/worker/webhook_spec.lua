-- worker.webhook: signatures and envelopes that receivers know.
local json = require "worker.json"
local secret = require "worker.secret"
local webhook = require "worker.webhook"

-- Signatures made by another program.
local FIRST = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
local SECOND = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX"

describe("worker.webhook", function()
  it("signs as other implementations of Standard Webhooks do", function()
    local keys = webhook.keys(secret.value(FIRST))
    assert.equal("v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
      webhook.sign(keys, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, '{"test": 2432232314}'))
    assert.equal("v1,nTCcZ2udfWyUag1lPUMft2P1hJM/puXh0ygtJxB9saI=",
      webhook.sign(webhook.keys(SECOND), "evt-1", 1700000000, '{"a":1}'))
  end)

  it("signs with both secrets while one replaces the other", function()
    local keys = webhook.keys(FIRST .. " " .. SECOND)
    local headers = webhook.headers(keys, "evt-1", "{}", 1700000000.9)
    assert.equal("1700000000", headers["webhook-timestamp"])
    assert.equal(2, select(2, headers["webhook-signature"]:gsub("v1,", "")))
    assert.is_true(webhook.verify(webhook.keys(SECOND), headers, "{}", 1700000100))
    assert.is_true(webhook.verify(webhook.keys(FIRST), headers, "{}", 1700000100))
  end)

  it("does not take a changed body, another key or an old timestamp", function()
    local keys = webhook.keys(FIRST)
    local headers = webhook.headers(keys, "evt-1", "{}", 1700000000)
    assert.same({ false, "no signature matches" }, { webhook.verify(keys, headers, "{ }", 1700000000) })
    assert.is_false(webhook.verify(webhook.keys(SECOND), headers, "{}", 1700000000))
    assert.same({ false, "the timestamp is too far away" }, { webhook.verify(keys, headers, "{}", 1700000301) })
    headers["webhook-signature"] = nil
    assert.is_false(webhook.verify(keys, headers, "{}", 1700000000))
  end)

  it("refuses a secret that is no base64 or too short", function()
    for _, bad in ipairs { "whsec_!!!", "whsec_AAAA" } do
      local ok, why = pcall(webhook.keys, bad)
      assert.is_false(ok)
      assert.equal("config", why.kind)
    end
  end)

  it("sends no signature without a secret", function()
    local headers = webhook.headers(webhook.keys(nil), "evt-1", "{}")
    assert.is_nil(headers["webhook-signature"])
    assert.equal("evt-1", headers["webhook-id"])
  end)

  it("puts a CloudEvent around the data, or beside it", function()
    local event = { id = "1", source = "/a", type = "task.done", subject = 'é "x"', data = { n = 1 } }
    local headers, body = webhook.cloudevent(event, "structured")
    assert.equal("application/cloudevents+json", headers["content-type"])
    assert.same({ specversion = "1.0", id = "1", source = "/a", type = "task.done", subject = 'é "x"',
      datacontenttype = "application/json", data = { n = 1 } }, json.decode(body))
    headers, body = webhook.cloudevent(event, "binary")
    assert.equal('{"n":1}', body)
    assert.equal("%C3%A9%20%22x%22", headers["ce-subject"])
    assert.equal("1.0", headers["ce-specversion"])
    assert.equal("application/json", headers["content-type"])
  end)
end)
