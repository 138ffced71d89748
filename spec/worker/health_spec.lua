local agent = require "worker.agent"
local events = require "worker.events"
local health = require "worker.health"
local http = require "worker.http"
local metrics = require "worker.metrics"
local record = require "worker.record"
local stats = require "worker.stats"
local sys = require "worker.core.sys"
local task = require "worker.task"

describe("worker.metrics", function()
  it("writes counters, gauges and histograms as Prometheus reads them", function()
    local registry = metrics.new()
    registry:counter("a_total", "Things."):add(2, { kind = 'x"\n\\y' })
    registry:gauge("b", "Now."):set(1.5)
    local seconds = registry:histogram("c_seconds", "Time.", { 0.1, 1 })
    seconds:observe(0.05, { of = "p" })
    seconds:observe(5, { of = "p" })
    assert.equal([[
# HELP a_total Things.
# TYPE a_total counter
a_total{kind="x\"\n\\y"} 2
# HELP b Now.
# TYPE b gauge
b 1.5
# HELP c_seconds Time.
# TYPE c_seconds histogram
c_seconds_bucket{of="p",le="0.1"} 1
c_seconds_bucket{of="p",le="1"} 1
c_seconds_bucket{of="p",le="+Inf"} 2
c_seconds_sum{of="p"} 5.05
c_seconds_count{of="p"} 2
]], registry:text())
  end)

  it("writes plain decimals, times of today to the millisecond", function()
    local registry = metrics.new()
    local gauge = registry:gauge("g", "Now.")
    for value, text in pairs { [1796130912.345] = "1796130912.345", [0.1] = "0.1", [0.000002] = "0.000002", [1e-9] = "0",
      [2.9999999999] = "3", [-1.5] = "-1.5", [100.0] = "100", [2 ^ 60] = "1152921504606846976" } do
      gauge:set(value)
      assert.matches("\ng " .. text:gsub("%p", "%%%0") .. "\n$", registry:text())
    end
  end)
end)

describe("worker.stats", function()
  it("tells of the process what Prometheus expects of one", function()
    local text = stats.new(events.new()):text {}
    assert.matches("# TYPE process_cpu_seconds_total counter\n", text)
    local began = tonumber(text:match "\nprocess_start_time_seconds (%d+%.?%d*)\n")
    assert.is_true(math.abs(began - sys.wall()) < 1, began)
  end)

  it("counts the decisions of policies, by what is broken", function()
    local listeners = events.new()
    local counted = stats.new(listeners)
    local function decide(decision, ...)
      listeners:emit("policy.decision", { policy = "house", decision = decision, rules = { ... } })
    end
    decide "allowed"
    decide "allowed"
    decide("refused", "image.denied", "quota.cpu.max")
    local text = counted:text {}
    assert.matches('worker_policy_decisions_total{decision="allowed",policy="house"} 2\n', text)
    assert.matches('{decision="refused",policy="house",rule="image.denied"} 1\n', text)
    assert.matches('{decision="refused",policy="house",rule="quota.cpu.max"} 1\n', text)
  end)
end)

describe("worker.health", function()
  local site, client, runner, server

  -- A worker with one server whose jobs are long, and one that has failed already.
  local function start()
    local jobs = { { id = "bad" }, { id = "<i>long</i>" } }
    local listeners = events.new()
    server = agent.new {
      name = "ci", conf = {}, slots = 2, events = listeners, record = record.none(),
      plugin = { kind = "protocol", name = "fake", api = 1, open = function() return {} end, claim_breaks = true,
        connection = function() return "Ready" end,
        claim = function()
          if jobs[1] then return table.remove(jobs, 1) end
          task.sleep(5)
        end },
      executor = { conf = {}, plugin = { run = function(_, job, ctx)
        if job.id == "bad" then return { state = "failed", reason = "exit code 3" } end
        ctx.log("stdout", "step 1\n<script>alert(1)</script>\n")
        task.sleep(3600)
      end } },
    }
    runner = { servers = { server } }
    site = health.open("127.0.0.1:0", stats.new(listeners), runner)
    client = http.client { base = site.url }
  end

  before_each(start)
  after_each(function()
    client:close()
    site:close()
  end)

  local function serving(fn)
    task.scope(function(scope)
      local life = scope:spawn(server.serve, server)
      task.sleep(1)
      fn()
      server:drain("the test is over")
      server:cancel_jobs("the test is over")
      life:join()
    end)
  end

  it("says that it lives", function()
    assert.equal("ok\n", client:get("/livez").body)
  end)

  it("is ready once its servers are, and says which are not", function()
    local before = client:get("/readyz", { expect = "any" })
    assert.equal(503, before.status)
    assert.matches("%[%-%] server ci: opening", before.body)
    serving(function()
      assert.equal("ok\n", client:get("/readyz").body)
      assert.equal("[+] server ci\nok\n", client:get("/readyz?verbose").body)
      assert.equal("healthy", client:get("/health").json.status)
    end)
    assert.equal(503, client:get("/readyz", { expect = "any" }).status)
  end)

  it("answers in the form that the orchestrator's people know, where its protocol has one", function()
    server.plugin.health = function(_, worker) return { status = worker.status, engines = worker.executors } end
    serving(function()
      assert.same({ status = "healthy", engines = { "1" } }, client:get("/health").json)
      server.trouble:failed "no route"
      assert.equal("degraded", client:get("/health").json.status)
      assert.equal("no route", client:get("/status.json").json.servers[1].error)
      server.trouble:worked()
      assert.equal("healthy", client:get("/health").json.status)
      server.plugin.health = function() error "broken" end
      assert.equal(1, client:get("/health").json.running)
    end)
  end)

  it("tells what runs and what has ended", function()
    serving(function()
      local status = client:get("/status.json").json
      assert.equal("<i>long</i>", status.servers[1].jobs[1].id)
      assert.equal("<script>alert(1)</script>", status.servers[1].jobs[1].last_line)
      assert.equal("failed", status.recent[1].state)
      local text = client:get("/metrics").body
      assert.matches('worker_jobs_total{result="failed",source="ci"} 1\n', text, 1, true)
      assert.matches('worker_slots{source="ci",state="busy"} 1\n', text, 1, true)
      assert.matches('worker_poll_total{result="job",source="ci"} 2\n', text, 1, true)
      assert.equal("Ready", status.servers[1].connection)
      assert.matches('worker_connection_state{source="ci",state="Ready"} 1\n', text, 1, true)
    end)
  end)

  it("has lists for programs that are lists when they are empty, too", function()
    local body = client:get("/status.json").body
    assert.is_truthy(body:find('"jobs":[]', 1, true), body)
    assert.is_truthy(body:find('"recent":[]', 1, true), body)
    runner.servers = {}
    assert.is_truthy(client:get("/status.json").body:find('"servers":[]', 1, true))
    server.executors, runner.servers = { states = function() return {} end }, { server }
    assert.is_truthy(client:get("/status.json").body:find('"executors":[]', 1, true))
  end)

  it("shows a page in which nothing of a job is markup", function()
    serving(function()
      local page = client:get("/status").body
      assert.is_nil(page:find("<script>", 1, true))
      assert.is_nil(page:find("<i>long", 1, true))
      assert.is_truthy(page:find("&lt;script&gt;alert(1)", 1, true))
      assert.is_truthy(page:find("exit code 3", 1, true))
      assert.matches("<title>1/%d+ worker on ", page)
      assert.is_truthy(page:find("<td>just now</td>", 1, true) or page:find "<td>%ds ago</td>")
      assert.is_truthy(page:find('<td>1</td><td class="w"><span class="works">works</span></td>', 1, true))
      assert.is_nil(page:find("http:", 1, true) or page:find("https:", 1, true) or page:find("src=", 1, true))
    end)
  end)

  it("tells what the worker is called, or which host it is on", function()
    local status = client:get("/status.json").json
    assert.equal(status.host, status.name)
    assert.is_truthy(client:get("/status").body:find("<h1>worker on " .. status.host .. "</h1>", 1, true))
    runner.conf = { name = "ops<1>" }
    assert.equal("ops<1>", client:get("/status.json").json.name)
    local page = client:get("/status").body
    assert.is_truthy(page:find("<h1>ops&lt;1&gt; on " .. status.host .. "</h1>", 1, true), page)
    assert.is_truthy(page:find(" ops&lt;1&gt; on " .. status.host .. "</title>", 1, true))
  end)

  it("tells how its event sinks fare", function()
    serving(function()
      assert.is_nil(client:get("/status.json").json.events)
      assert.is_nil(client:get("/status").body:find("Event sink", 1, true))
      local feed = { name = "<b>hook</b>", delivered = 3, dropped = 2, trouble = { since = 1 } }
      function feed.waiting() return 4 end
      runner.sinks = { feeds = { feed } }
      assert.same({ name = "<b>hook</b>", waiting = 4, delivered = 3, dropped = 2, failing = true },
        client:get("/status.json").json.events[1])
      assert.is_truthy(client:get("/status").body:find('&lt;b&gt;hook&lt;/b&gt;</td><td class="w"><span class="fails">', 1, true))
      assert.is_truthy(client:get("/metrics").body:find('worker_events_waiting{sink="<b>hook</b>"} 4\n', 1, true))
    end)
  end)

  it("changes nothing and knows no other page", function()
    assert.equal(404, client:get("/nothing", { expect = "any" }).status)
    assert.equal(405, client:post("/metrics", { expect = "any" }).status)
  end)
end)
