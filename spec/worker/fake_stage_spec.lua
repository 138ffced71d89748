-- What every fake orchestrator stands on, shown by a small one.
local http = require "worker.http"
local json = require "worker.json"
local scratch = require "spec.support.scratch"
local stage = require "worker.fakes.stage"
local support = require "spec.support.stage"
local server = require "spec.support.server"
local task = require "worker.task"

local function play(more)
  local whole = {
    name = "acme", summary = "Acme", port = 1, samples = { "one", "two" },
    knobs = { patience = { "duration", default = "30s", doc = "x" }, most = { "size", default = "1KiB", doc = "x" } },
    open = function(self)
      self.rows = {}
      for _, row in self.keep:rows() do self.rows[#self.rows + 1] = row end
    end,
    methods = { add = function(self, job)
      local row = { id = stage.uuid(job), job = job }
      self.rows[#self.rows + 1] = row
      self.keep:put("job", row)
    end },
    routes = {
      ["GET /rows"] = function(self) return 200, stage.JSON, json.encode(json.array(self.rows)) end,
      ["POST /rows/{id}"] = function(_, request)
        if request.params.id == "no" then stage.failed(409, "not this one") end
        return 200, stage.JSON, request:read_body()
      end,
    },
  }
  for name, value in pairs(more or {}) do whole[name] = value end
  return stage.play(whole)
end

local api

local function start(more, options)
  local fake = support.fake(play(more), options)
  api = http.client { base = fake.url }
  return fake
end

after_each(function()
  if api then api:close() end
  api = nil
end)

local function post(path, body) return api:post(path, { body = body or "{}", expect = "any" }) end

describe("a fake orchestrator", function()
  it("answers by its routes, and refuses from wherever it is", function()
    start()
    assert.same({}, api:get("/rows").json)
    assert.equal("hi", post("/rows/7", "hi").body)
    local reply = post "/rows/no"
    assert.same({ 409, '{"error":"not this one"}', "application/json" },
      { reply.status, reply.body, reply:header "content-type" })
    assert.equal(404, post("/elsewhere").status)
  end)

  it("says in its own words that nothing is there", function()
    start { unknown = function(_, allow) return allow and 405 or 404, { allow = allow }, "my words" end }
    local wrong, nowhere = post "/rows", post "/elsewhere"
    assert.same({ 405, "GET,HEAD", "my words" }, { wrong.status, wrong:header "allow", wrong.body })
    assert.same({ 404, "my words" }, { nowhere.status, nowhere.body })
  end)

  it("remembers what it was asked, and is told what to answer", function()
    local fake = start()
    fake:bend("POST /rows/{id}", support.instead(server.json(503, {})), support.after(server.json(500, {})))
    assert.equal(503, post("/rows/1?a=b", "x").status)
    assert.equal(500, post("/rows/2").status)
    assert.equal(200, post("/rows/3").status)
    local seen = support.asked(fake, "POST /rows/{id}")
    assert.same({ 3, "/rows/1?a=b", "b", "x" }, { #seen, seen[1].path, seen[1].query.a, seen[1].body })
    fake:bend_all("GET /rows", support.body("[7]"))
    for _ = 1, 2 do assert.same({ 7 }, api:get("/rows").json) end
    fake:bend_all("GET /rows", nil)
    assert.same({}, api:get("/rows").json)
    assert.error_matches(function() fake:bend("GET /row", print) end, "no such route: GET /row")
  end)

  it("has knobs with defaults, and sample jobs unless it is given some", function()
    local usual <close> = play().serve { tell = print }
    assert.same({ 30, 1024, 2 }, { usual.knobs.patience, usual.knobs.most, #usual.rows })
    local other <close> = play().serve { patience = 0.5, jobs = { jobs = { "a" } } }
    assert.same({ 0.5, "a" }, { other.knobs.patience, other.rows[1].job })
    assert.error_matches(function() play().serve { jobs = 7 } end, "the jobs must be a list")
  end)

  it("keeps its rows across lives, and its first jobs are not added again", function()
    local dir <close> = scratch.dir()
    for _ = 1, 2 do
      local life <close> = play().serve { state = dir:path "state" }
      assert.same({ "one", "two" }, { life.rows[1].job, life.rows[2].job })
      assert.is_nil(life.rows[3])
    end
  end)

  it("does what it does now and then at each start, and not while it is stopped", function()
    local ticks = 0
    local fake = start { every = "patience", tick = function() ticks = ticks + 1 end }
    task.sleep(65)
    assert.equal(3, ticks)
    fake:stop()
    task.sleep(100)
    assert.error(function() api:get "/rows" end)
    assert.equal(3, ticks)
    fake:start()
    assert.same({}, api:get("/rows").json)
    assert.equal(4, ticks)
  end)
end)
