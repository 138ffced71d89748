-- The callback protocol: addresses, envelopes, credentials, heartbeats.
local callback = require "spec.support.callback"
local json = require "worker.json"
local server = require "spec.support.server"
local task = require "worker.task"
local webhook = require "worker.webhook"

local SECRET = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX"

local function takes_all() return server.http({}, { any = server.status(200) }) end

local function targets(fake)
  local list = {}
  for i, request in ipairs(fake.requests) do list[i] = request.target end
  return table.concat(list, " ")
end

local function sleeper(seconds)
  return function()
    task.sleep(seconds)
    return { state = "success" }
  end
end

describe("callback: addresses", function()
  for url, expected in pairs {
    ["/api/cb"] = "/api/cb/started /api/cb/completed",
    ["/api/cb/"] = "/api/cb/started /api/cb/completed",
    [""] = "/started /completed",
    ["/cb?token=abc"] = "/cb/started?token=abc /cb/completed?token=abc",
    ["/cb#part"] = "/cb/started /cb/completed",
  } do
    it(("put the suffix where it belongs in '%s'"):format(url), function()
      local fake = takes_all()
      callback.run(fake, { conf = { url = fake.url .. url } })
      assert.equal(expected, targets(fake))
    end)
  end

  it("stay as they are in the plain form", function()
    local fake = takes_all()
    callback.run(fake, { conf = { url = fake.url .. "/hook?x=1", address = "plain" } })
    assert.equal("/hook?x=1 /hook?x=1", targets(fake))
    assert.equal("started completed", callback.statuses(fake))
  end)

  it("may hold a user and a password", function()
    local fake = takes_all()
    callback.run(fake, { conf = { url = fake.url:gsub("//", "//me:pw@") .. "/cb" } })
    assert.equal("Basic bWU6cHc=", fake:last().headers.authorization)
  end)
end)

describe("callback: envelopes", function()
  it("are CloudEvents in the structured form", function()
    local fake = takes_all()
    callback.run(fake, { conf = { style = "cloudevents" } })
    local request = fake.requests[1]
    assert.equal("application/cloudevents+json", request.headers["content-type"])
    assert.equal("worker.task.started", request.json.type)
    assert.equal("test-123", request.json.subject)
    assert.equal("started", request.json.data.status)
    assert.equal(request.headers["webhook-id"], request.json.id)
    assert.matches("^/projects/proj%-456/workers/.", request.json.source)
  end)

  it("leave the body alone in the binary form", function()
    local fake = takes_all()
    callback.run(fake, { conf = { style = "cloudevents-binary" } })
    local request = fake:last()
    assert.equal("application/json", request.headers["content-type"])
    assert.equal("worker.task.completed", request.headers["ce-type"])
    assert.equal("completed", request.json.status)
  end)

  it("are signed, and carry the token", function()
    local fake = takes_all()
    callback.run(fake, { conf = { secret = SECRET, token = "t0ken-t0ken" } })
    for _, request in ipairs(fake.requests) do
      local now = tonumber(request.headers["webhook-timestamp"])
      assert.is_true(webhook.verify(webhook.keys(SECRET), request.headers, request.body, now))
      assert.equal("Bearer t0ken-t0ken", request.headers.authorization)
      assert.is_nil(request.body:find("t0ken", 1, true))
    end
  end)
end)

describe("callback: heartbeats", function()
  local function beating(answer, more)
    local conf = { heartbeat = 5 }
    for name, value in pairs(more or {}) do conf[name] = value end
    return server.http { ["POST /cb/heartbeat"] = answer, ["POST /cb/started"] = server.status(200),
      ["POST /cb/completed"] = server.status(200) }, conf
  end

  it("are not sent unless they are wanted", function()
    local fake = takes_all()
    callback.run(fake, { task = sleeper(600) })
    assert.equal("started completed", callback.statuses(fake))
  end)

  it("are sent as often as wanted, never after the end", function()
    local fake, conf = beating(server.status(200))
    callback.run(fake, { conf = conf, task = sleeper(17) })
    assert.equal("started running running running completed", callback.statuses(fake))
  end)

  it("have the last line of the output where that is wanted", function()
    local fake, conf = beating(server.status(200), { progress = true })
    callback.run(fake, { conf = conf, task = function(_, ctx)
      ctx.log("stdout", "one\n\27[32mtwo of three\27[0m\n")
      task.sleep(6)
      return { state = "success" }
    end })
    assert.equal("two of three", fake.requests[2].json.message)
    assert.equal(26, fake.requests[2].json.output_bytes)
  end)

  for name, answer in pairs { ["410"] = server.status(410), ["404"] = server.status(404),
    ['{"cancel":true}'] = server.json(200, { cancel = true }) } do
    it("end the task when the answer is " .. name, function()
      local fake, conf = beating(answer)
      callback.run(fake, { conf = conf, task = sleeper(3600) })
      assert.equal("started running failed", callback.statuses(fake))
      assert.equal("cancelled", fake:last().json.reason)
    end)
  end

  it("that do not arrive end nothing", function()
    local fake, conf = beating(server.sequence { server.reset "after", server.status(500), server.garbage() })
    local ran = callback.run(fake, { conf = conf, task = sleeper(22) })
    assert.equal("success", ran.result.state)
  end)
end)

describe("callback: answers", function()
  it("to `started` can end the task before it begins", function()
    local fake = server.http { ["POST /cb/started"] = server.json(200, { cancel = true }),
      ["POST /cb/completed"] = server.status(200) }
    local ran = callback.run(fake)
    assert.equal(0, ran.runs)
    assert.equal("started failed", callback.statuses(fake))
    assert.equal("cancelled", fake:last().json.reason)
  end)

  it("with an error in a 200 count as taken", function()
    local said = { jsonrpc = "2.0", id = json.null, error = { code = -32700, message = "Parse error" } }
    local fake = server.http({}, { any = server.json(200, said) })
    local ran = callback.run(fake)
    assert.equal("started completed", callback.statuses(fake))
    assert.is_nil(ran.self.undelivered)
  end)
end)
