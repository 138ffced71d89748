-- The life of one job, as protocols see it: what is brought, run, collected, reported, in which order.
local agent = require "worker.agent"
local err = require "worker.error"
local events = require "worker.events"
local record = require "worker.record"
local registry = require "worker.registry"
local schema = require "worker.schema"
local task = require "worker.task"

describe("the life of a job", function()
  local told

  before_each(function() told = {} end)

  local function tell(...) told[#told + 1] = table.concat({ ... }, " ") end

  -- Serve one job with these slots of a protocol; what happened is in `told`.
  local function serve(slots, run, options)
    local jobs = { { id = "a" } }
    local plugin = { kind = "protocol", name = "fake", api = 1, config = {},
      open = function() return {} end,
      claim = function() return table.remove(jobs, 1) or "end" end,
      finish = function(_, _, result) tell("finish", result.state, result.reason) end,
    }
    for name, value in pairs(slots) do plugin[name] = value end
    local server = agent.new {
      name = "fake", plugin = plugin, conf = options and options.conf or {}, slots = 1, events = events.new(),
      record = record.none(), policies = options and options.policies,
      executor = { name = "spec", conf = {}, plugin = { run = function(_, job, ctx)
        tell "run"
        return run and run(job, ctx) or { state = "success" }
      end } },
    }
    server:serve()
    return told
  end

  local function log_slot(_, _, chunk) tell("log", chunk.stream, (chunk.text:gsub("\n", "|"))) end

  it("tells a failure to bring something in the job's log, and does not run it", function()
    assert.same({ "log worker fetch: 404|", "finish error fetch: 404" },
      serve { log = log_slot, fetch = function() err.raise("http", "404") end })
  end)

  it("tells a failure to run in the job's log", function()
    assert.same({ "run", "log worker no such program|", "finish error no such program" },
      serve({ log = log_slot }, function() err.raise("spawn", "no such program") end))
  end)

  it("ends a job that is cancelled while things are brought, and does not run it", function()
    assert.same({ "finish cancelled cancelled" }, serve {
      fetch = function() task.sleep(600) end, beat = function() return "cancel" end,
    })
  end)

  it("lets the protocol collect what the job made, before its log ends", function()
    assert.same({ "run", "log worker collected|", "finish failed it made nothing" }, serve {
      log = log_slot,
      collect = function(_, _, ctx)
        ctx.note "collected"
        return { state = "failed", reason = "it made nothing" }
      end,
    })
  end)

  it("turns a failure to collect into the result, and one that returns nothing leaves it as it is", function()
    assert.same({ "run", "finish error collect: 500" }, serve { collect = function() err.raise("http", "500") end })
    told = {}
    assert.same({ "run", "finish success" }, serve { collect = function() end })
  end)

  it("breaks off what is collected when the job is cancelled, and reports that", function()
    assert.same({ "run", "finish cancelled cancelled while its results were collected" }, serve {
      collect = function() task.sleep(1e6) end, beat = function() return "cancel" end,
    })
  end)

  it("closes what the job owns once it is reported, the last one first, whatever happened", function()
    local function owning(name)
      return { close = function()
        tell("close", name)
        if name == "second" then error "a bug" end
      end }
    end
    assert.same({ "run", "finish error x", "close second", "close first" }, serve({
      fetch = function(_, _, ctx)
        ctx.own(owning "first")
        ctx.own(owning "second")
      end,
    }, function() err.raise("spawn", "x") end))
  end)

  it("waits with the report for a log that cannot arrive while the server is away", function()
    local back = false
    assert.same({ "run", "log stdout hi|", "finish success" }, serve({
      log = function(...)
        if not back then err.raise("transport", "connection refused") end
        log_slot(...)
      end,
      beat = function()
        if not back then err.raise("transport", "connection refused") end
        return "keep"
      end,
      start = function() task.start(function()
        task.sleep(300)
        back = true
      end) end,
    }, function(_, ctx)
      ctx.log("stdout", "hi\n")
      task.sleep(20)
    end))
  end)

  it("does not wait long for a log that only the server's log does not take", function()
    assert.same({ "run", "finish success" }, serve({
      log = function() err.raise("http", "500", { status = 500 }) end, beat = function() return "keep" end,
    }, function(_, ctx) ctx.log("stdout", "hi\n") end))
  end)

  it("asks again after the time that the protocol suggests", function()
    local backoff = assert(registry.open({ "plugins" }):get("policy", "backoff"))
    local waits = {}
    local chain = backoff.claim(schema.check(backoff, {}), function() return nil end)
    local ctx = { idle = 100, pause = function(seconds)
      waits[#waits + 1] = seconds
      return true
    end }
    for _ = 1, 6 do chain(ctx) end
    assert.is_true(waits[1] > 49 and waits[1] <= 100)
    assert.is_true(waits[5] >= 200 and waits[5] <= 400)
  end)

  it("hands the protocol's suggestion to the policies", function()
    local seen
    serve({ open = function() return { idle = 7 } end }, nil, { policies = { claim = { { conf = {}, plugin = {
      name = "look", claim = function(_, next)
        return function(ctx)
          seen = ctx.idle
          return next(ctx)
        end
      end } } } } })
    assert.equal(7, seen)
  end)
end)
