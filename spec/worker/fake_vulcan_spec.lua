-- The fake of Vulcan's server does what the real one does, the odd things included.
local fakes = require "worker.fakes.vulcan"
local http = require "worker.http"
local json = require "worker.json"
local sock = require "worker.sock"
local task = require "worker.task"
local scratch = require "spec.support.scratch"
local vulcan = require "spec.support.vulcan"

local fake, api

local function start(options)
  fake = vulcan.fake(options)
  api = http.client { base = fake.url }
end

after_each(function()
  if api then api:close() end
  fake, api = nil, nil
end)

local function post(path, body, headers)
  local reply = api:post(path, { body = type(body) == "string" and body or json.encode(body), expect = "any",
    headers = headers or { ["Content-Type"] = "application/json" } })
  return reply.status, reply.body, reply:header "content-type"
end

local function register(group)
  local _, body = post("/workers/register", { tenant_id = vulcan.TENANT, machine_group = group })
  return json.decode(body).worker_id
end

local function claim(id)
  local status, body = post("/work/request", { worker_id = id })
  return status == 200 and json.decode(body) or status
end

local function result(id, fragment, more)
  local body = { worker_id = id, fragment_id = fragment, success = true, exit_code = 0 }
  for name, value in pairs(more or {}) do body[name] = value end
  local status, text = post("/work/result", body)
  return status == 200 and json.decode(text).fragment_status or status
end

describe("the fake of Vulcan", function()
  it("answers an empty queue with 204, a length of 4 and no body, and keeps the connection", function()
    start()
    local id = register()
    local conn <close> = sock.connect { address = fake.address }
    local body = ('{"worker_id":"%s"}'):format(id)
    for _ = 1, 2 do
      conn:write(("POST /work/request HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s")
        :format(#body, body))
      local head = conn:head(4096)
      assert.matches("^HTTP/1.1 204 No Content\r\n", head)
      assert.matches("content%-length: 4\r\n", head)
      assert.matches("content%-type: application/json\r\n", head)
    end
  end)

  it("answers what it is asked in the words of the real one", function()
    start { jobs = { "echo hi" } }
    local id = register()
    local _, beat = post("/workers/heartbeat", { worker_id = id })
    assert.matches('^{"status":"ok","timestamp":"%d+%-%d+%-%d+T%d+:%d+:%d+%.%d+"}$', beat)
    local _, work = post("/work/request", { worker_id = id:gsub("-", "") })
    assert.matches('^{"fragment_id":"[%x-]+","chain_id":"[%x-]+","run_script":"echo hi","attempt":1}$', work)
    assert.equal("Completed", result(id, json.decode(work).fragment_id))
    assert.equal('{"status":"healthy","service":"vulcan-worker-orchestrator"}', api:get("/health").body)
    assert.equal('{"busy":false,"fragment_id":null}', api:get("/workers/" .. vulcan.TENANT .. "/busy").body)
    assert.equal('{"pending_fragments":0,"running_fragments":0,"active_workers":1}', api:get("/queue/metrics").body)
  end)

  it("tells mistakes apart as the real one does", function()
    start { jobs = { "a" } }
    local id = register()
    local nobody = '{"error":"Worker not found: ' .. vulcan.TENANT .. '"}'
    for _, path in ipairs { "/workers/heartbeat", "/work/request" } do
      local status, body, kind = post(path, { worker_id = vulcan.TENANT })
      assert.same({ 404, nobody, "application/json" }, { status, body, kind })
    end
    assert.same({ 404, "" }, { post("//workers/register", {}) })
    local reply = api:get("/work/request", { expect = "any" })
    assert.same({ 405, "POST", "" }, { reply.status, reply:header "allow", reply.body })
    assert.equal(415, (post("/work/request", "{}", { ["Content-Type"] = "text/plain" })))
    local plain = "text/plain; charset=utf-8"
    for body, status in pairs { ["{"] = 400, ["\"\255\""] = 400, ['"\\ud800"'] = 400, ["7"] = 422, ["{}"] = 422,
      ['{"worker_id":7}'] = 422, ['{"worker_id":"x"}'] = 422 } do
      local got, _, kind = post("/work/request", body)
      assert.same({ status, plain }, { got, kind })
    end
    local fragment = claim(id).fragment_id
    assert.equal(422, result(id, fragment, { exit_code = json.raw "1.0" }))
    assert.equal(422, result(id, fragment, { exit_code = 2 ^ 31 | 0 }))
    assert.equal(500, result(id, vulcan.TENANT))
    assert.equal(500, result(id, fragment, { success = false, error_message = "a\0b" }))
    local most, frame = 2 * 1024 * 1024, '{"worker_id":"' .. id .. '","x":"%s"}'
    local function of_size(bytes) return frame:format(("x"):rep(bytes - #frame + 2)) end
    assert.equal(204, (post("/work/request", of_size(most))))
    assert.equal(413, (post("/work/request", of_size(most + 1))))
  end)

  it("hands out by machine, in the order of the steps, a group as a null script", function()
    start { jobs = { { machine = "default", script = "a" }, { machine = "other", script = "b" }, { script = "c" },
      { chain = "x", sequence = 1, script = "late" }, { chain = "x", script = "early" } } }
    assert.equal("a", claim(register "default").run_script)
    assert.equal(204, claim(register "default"))
    assert.equal(204, claim(register ""))
    local id = register()
    for _, script in ipairs { "b", "c" } do assert.equal(script, claim(id).run_script) end
    local early = claim(id)
    assert.equal("early", early.run_script)
    assert.equal(204, claim(id))
    result(id, early.fragment_id, { success = false, exit_code = 1 })
    assert.equal("late", claim(id).run_script)
    fake:add {}
    assert.is_nil(claim(id).run_script)
  end)

  it("takes a result from anybody at any time, the last one wins, and drops the code of a failure", function()
    start { jobs = { "a" } }
    local one, two = register(), register()
    local fragment = claim(one).fragment_id
    local row = fake.store.list[1]
    assert.equal("Failed", result(two, fragment, { success = false, exit_code = 3, error_message = "no" }))
    assert.same({ "no" }, { row.error_message, row.exit_code })
    assert.equal("Completed", result(one, fragment))
    assert.same({ "no", 0, 2 }, { row.error_message, row.exit_code, row.reports })
    assert.equal("Failed", result(one, fragment, { exit_code = 7 }))
    assert.equal("failed", fake.store.chains[row.chain].status)
  end)

  it("lets the dead live on as zombies, whose fragments are never handed out again", function()
    start { jobs = { "a", "b" }, heartbeat_timeout = 3, check_interval = 1 }
    local id = register()
    local first = claim(id).fragment_id
    task.sleep(5)
    assert.same({ "error", "pending", 2 }, { fake.store.workers[id].status, fake.store.list[1].status,
      fake.store.list[1].attempt })
    assert.equal(200, (post("/workers/heartbeat", { worker_id = id })))
    assert.equal("a", claim(id).run_script)
    task.sleep(20)
    assert.same({ "error", "running" }, { fake.store.workers[id].status, fake.store.fragments[first].status })
  end)

  it("gives a fragment up whose workers die three times, and its chain never ends", function()
    start { jobs = { "a" }, heartbeat_timeout = 3, check_interval = 1 }
    for attempt = 1, 3 do
      assert.equal(attempt, claim(register()).attempt)
      task.sleep(5)
    end
    local row = fake.store.list[1]
    assert.same({ "failed", "Worker died and max retry attempts exceeded", "active" },
      { row.status, row.error_message, fake.store.chains[row.chain].status })
  end)

  it("keeps everything in its file across lives", function()
    local dir <close> = scratch.dir()
    local options = { state = dir:path "state", jobs = { { script = "a", machine = "default" }, "b" }, tell = function() end }
    local id
    do
      local life <close> = fakes.serve(options)
      local worker = life.store:register(vulcan.TENANT, "default")
      id = worker.id
      life.store:result(worker, life.store:claim(worker), { success = true, exit_code = 0 })
    end
    local life <close> = fakes.serve(options)
    assert.equal("default", life.store.workers[id].group)
    assert.same({ 2, "completed", "pending" }, { #life.store.list, life.store.list[1].status, life.store.list[2].status })
  end)
end)
