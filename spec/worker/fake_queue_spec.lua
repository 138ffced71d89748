-- The fake of the queue service does what the real one does, the odd things included.
local http = require "worker.http"
local json = require "worker.json"
local queue = require "spec.support.queue"
local sys = require "worker.core.sys"
local sock = require "worker.sock"
local ws = require "worker.ws"

local fake, api

local function start(options)
  fake = queue.fake(options)
  api = http.client { base = fake.url }
end

after_each(function()
  if api then api:close() end
  fake, api = nil, nil
end)

-- Status, body and whole reply of one request; a body that is a table goes as JSON.
local function ask(method, path, body, headers)
  local reply = api:request { method = method, path = path, expect = "any", headers = headers,
    json = type(body) == "table" and body or nil, body = type(body) == "string" and body or nil }
  return reply.status, reply.body, reply
end

-- "STATUS BODY".
local function said(...)
  local status, body = ask(...)
  return ("%d %s"):format(status, body)
end

local JSON = { ["Content-Type"] = "application/json" }

describe("the fake of the queue service", function()
  it("hands out a task with these five keys, and null when there is none", function()
    start()
    local status, body, reply = ask("GET", "/tasks/next?anything=1")
    assert.same({ 200, "null", "application/json" }, { status, body, reply:header "content-type" })
    assert.equal('200 {"eval_id":"a","position":1,"status":"queued"}', said("POST", "/tasks", { eval_id = "a", code = "é\0" }))
    assert.equal('{"eval_id":"a","code":"é\\u0000","language":"python","engine":"docker","timeout":30}',
      select(2, ask("GET", "/tasks/next")))
  end)

  it("takes a report once: then the task is unknown, 404 on complete and 200 on fail", function()
    start { jobs = { { eval_id = "a b", code = "x" } } }
    ask("GET", "/tasks/next")
    assert.equal("processing", json.decode(select(2, ask("GET", "/tasks/a%20b"))).status)
    assert.equal('{"status":"completed"}', select(2, ask("POST", "/tasks/a%20b/complete", { output = {} })))
    assert.equal('404 {"detail":"Task not found"}', said("POST", "/tasks/a%20b/complete", {}))
    assert.equal('200 {"status":"not_found"}', said("POST", "/tasks/a%20b/fail", {}))
    assert.equal(404, (ask("GET", "/tasks/a%20b")))
  end)

  it("hands out an id twice that came twice, with the newest code, and a gone one as null", function()
    start { jobs = { { eval_id = "a", code = "old" }, { eval_id = "a", code = "new" } } }
    assert.equal("new", json.decode(select(2, ask("GET", "/tasks/next"))).code)
    ask("POST", "/tasks/a/complete", {})
    assert.equal(1, json.decode(select(2, ask("GET", "/status"))).queue_length)
    assert.equal("null", select(2, ask("GET", "/tasks/next")))
  end)

  it("refuses bodies as its framework does", function()
    start { jobs = { { eval_id = "a", code = "x" } } }
    local function refusal(body, headers)
      local status, words = ask("POST", "/tasks/a/complete", body, headers)
      return status, json.decode(words).detail
    end
    assert.equal(400, (refusal('{"output":"\xff"}', JSON)))
    for _, body in ipairs { "", "null", "[]", '"x"', "{" } do assert.equal(422, (refusal(body, JSON))) end
    assert.equal(422, (refusal("{}", { ["Content-Type"] = "text/plain" })))
    assert.equal("processing", (function() ask("GET", "/tasks/next") return fake.tasks.a.status end)())
    for _, body in ipairs { { eval_id = 1, code = "x" }, { eval_id = "a" }, { eval_id = "a", code = "x", timeout = 1.5 },
      { eval_id = "a", code = "x", engine = json.null } } do
      assert.equal(422, (ask("POST", "/tasks", body)))
    end
    ask("POST", "/tasks", { eval_id = "n", code = "x", timeout = "12" })
    assert.equal(12, fake.tasks.n.timeout)
    ask("POST", "/tasks", '{"eval_id":"n","code":"x","timeout":999999999999999999999}', JSON)
    assert.equal("999999999999999999999", tostring(fake.tasks.n.timeout))
  end)

  it("knows routes, methods and slashes as its framework does", function()
    start()
    assert.equal('404 {"detail":"Not Found"}', said("GET", "/nope"))
    assert.equal('404 {"detail":"Not Found"}', said("POST", "/tasks/a%2Fb/complete", {}))
    assert.equal('404 {"detail":"Not Found"}', said("POST", "/tasks//complete", {}))
    local status, _, reply = ask("POST", "/tasks/next", {})
    assert.same({ 405, "GET" }, { status, reply:header "allow" })
    assert.equal(405, (ask("GET", "/tasks/a/complete")))
    status, _, reply = ask("GET", "/tasks/next/")
    assert.same({ 307, "/tasks/next" }, { status, reply:header "location" })
  end)

  it("checks the key where tasks come in, and only there", function()
    start { api_key = "k" }
    assert.equal('401 {"detail":"Invalid API key"}', said("POST", "/tasks", { eval_id = "a", code = "x" }))
    assert.equal(200, (ask("POST", "/tasks", { eval_id = "a", code = "x" }, { ["x-api-key"] = "k" })))
    assert.equal(200, (ask("GET", "/tasks/next")))
    assert.equal(200, (ask("DELETE", "/tasks")))
    assert.equal('{"processing":0,"queue_length":0,"queued":0,"total_tasks":0}', select(2, ask("GET", "/status")))
  end)

  it("answers 500 in plain text for a task that it cannot encode, which is gone then", function()
    start { jobs = { { code = "x", unreadable = true } } }
    assert.equal("500 Internal Server Error", said("GET", "/tasks/next"))
    assert.equal("null", select(2, ask("GET", "/tasks/next")))
  end)

  it("closes a connection that is idle for five seconds", function()
    start()
    local conn <close> = sock.connect { address = fake.address }
    conn:write("GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
    conn:head(4096)
    conn:read(4096)
    local began = sys.mono()
    assert.is_nil(conn:read(1))
    assert.equal(5, math.floor(sys.mono() - began + 0.5))
  end)

  it("tells on a WebSocket that there is a task", function()
    start { websocket = true, jobs = { "x" } }
    local conn <close> = ws.connect { url = fake.url .. "/ws" }
    assert.equal('{"type":"task_queued"}', conn:receive(5))
    fake:add "y"
    assert.equal('{"type":"task_queued"}', conn:receive(5))
    assert.same({ nil, "timeout" }, { conn:receive(5) })
  end)

  it("tells what it was told, which the real one forgets", function()
    start { jobs = { { eval_id = "a", code = "x" } } }
    ask("POST", "/tasks/a/fail", { error = "no" })
    local report = json.decode(select(2, ask("GET", "/fake/reports")))[1]
    assert.same({ "a", "fail", { error = "no" } }, { report.id, report.way, report.body })
  end)
end)
