-- The event sink `webhook`, against receivers that check, fail and hang.
local json = require "worker.json"
local serve = require "worker.serve"
local sink = require "spec.support.sink"
local task = require "worker.task"
local webhook = require "worker.webhook"

local SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

-- A receiver; answer(n, request, reply) decides about the n-th request, 204 for nothing.
local function receiver(answer)
  local got = {}
  local server = serve.http { address = "127.0.0.1:0", handler = function(request, reply)
    got[#got + 1] = request
    if not (answer and answer(#got, request, reply)) then reply:empty(204) end
  end }
  return server, got
end

local function open(server, more)
  local fields = { url = server.url .. "/hook", secret = SECRET }
  for name, value in pairs(more or {}) do fields[name] = value end
  return sink.open("webhook", fields)
end

local function settled(told)
  for _ = 1, 1000 do
    if told:waiting() == 0 then return end
    task.sleep(1)
  end
  error "it never arrived"
end

describe("the event sink webhook", function()
  it("sends what happened, signed", function()
    local server <close>, got = receiver()
    local told <close> = open(server, { headers = { ["X-Room"] = "7" } })
    told:finished("7", { state = "failed", exit_code = 3 })
    settled(told)
    local request = got[1]
    assert.equal("/hook", request.path)
    assert.equal("7", request.headers["x-room"])
    assert.is_true(webhook.verify(webhook.keys(SECRET), request.headers, request.body))
    local body = request:json()
    assert.equal("job.finished", body.type)
    assert.matches("^%d+%-%d%d%-%d%dT", body.timestamp)
    assert.same({ worker = "w", server = "ci", job = { id = "7" }, result = { state = "failed", exit_code = 3 } }, body.data)
    assert.equal(request.headers["idempotency-key"], request.headers["webhook-id"])
  end)

  it("signs nothing without a secret, and with two while one replaces the other", function()
    local server <close>, got = receiver()
    local bare <close> = sink.open("webhook", { url = server.url })
    bare:job "7"
    settled(bare)
    assert.is_nil(got[1].headers["webhook-signature"])
    local both <close> = open(server, { secret = "a-new-secret-of-ours " .. SECRET })
    both:job "7"
    settled(both)
    for _, secret in ipairs { "a-new-secret-of-ours", SECRET } do
      assert.is_true(webhook.verify(webhook.keys(secret), got[2].headers, got[2].body))
    end
  end)

  it("speaks CloudEvents of both kinds", function()
    local server <close>, got = receiver()
    local structured <close> = open(server, { style = "cloudevents" })
    structured:job "7"
    settled(structured)
    local event = got[1]:json()
    assert.same({ "1.0", "worker.job.claimed", "/workers/w", "7" },
      { event.specversion, event.type, event.source, event.subject })
    local binary <close> = open(server, { style = "cloudevents-binary" })
    binary:job "7"
    settled(binary)
    assert.equal("worker.job.claimed", got[2].headers["ce-type"])
    assert.equal("7", got[2]:json().job.id)
  end)

  it("repeats what did not arrive, under the same id and with a fresh signature", function()
    local server <close>, got = receiver(function(n, _, reply)
      if n == 1 then reply:hijack():reset() end
      if n == 2 then reply:text(503, "later", { ["Retry-After"] = 30 }) end
      if n == 3 then reply:text(401, "who?") end
      return n <= 3
    end)
    local told <close> = open(server)
    told:job "1"
    told:job "2"
    settled(told)
    assert.equal(5, #got)
    for n = 1, 4 do assert.equal(got[1].headers["webhook-id"], got[n].headers["webhook-id"]) end
    assert.is_true(tonumber(got[3].headers["webhook-timestamp"]) - tonumber(got[2].headers["webhook-timestamp"]) >= 30)
    assert.is_true(webhook.verify(webhook.keys(SECRET), got[4].headers, got[4].body,
      tonumber(got[4].headers["webhook-timestamp"])))
    assert.equal("2", got[5]:json().data.job.id)
    assert.same({ delivered = 2, dropped = 0 }, told.counts)
  end)

  it("gives an event up that the receiver refuses, and goes on with the next", function()
    local server <close>, got = receiver(function(n, _, reply)
      if n == 1 then reply:text(422, "not like this") end
      return n == 1
    end)
    local told <close> = open(server)
    told:job "1"
    told:job "2"
    settled(told)
    assert.same({ delivered = 1, dropped = 1 }, told.counts)
    assert.equal("2", got[2]:json().data.job.id)
  end)

  it("does not wait for a receiver that never answers", function()
    local server <close>, got = receiver(function(n)
      if n == 1 then task.sleep(1000) end
    end)
    local told <close> = open(server, { timeout = 2 })
    told:job "1"
    settled(told)
    assert.equal(2, #got)
    assert.equal(1, told.counts.delivered)
  end)

  it("follows no redirect that would make it another request", function()
    local server <close>, got = receiver(function(_, _, reply) reply:send(302, { Location = "/elsewhere" }, "") return true end)
    local told <close> = open(server)
    told:job "1"
    settled(told)
    assert.equal(1, #got)
    assert.equal(1, told.counts.dropped)
  end)

  it("is checked before anything happens, and shows no secret", function()
    local function problem(fields)
      local conf, problems = sink.check("webhook", fields)
      assert.is_nil(conf)
      return table.concat(problems, "\n")
    end
    assert.matches("url: is required", problem {})
    local said = problem { url = "ftp://h/geheim" }
    assert.matches("url: .*https://host.example/hook", said)
    assert.is_nil(said:find("geheim", 1, true))
    assert.matches("secret: .*whsec_ and the base64", problem { url = "https://h", secret = "whsec_geheim" })
    assert.is_string(json.encode(sink.check("webhook", { url = "https://h" }).style))
  end)
end)
