-- Telling the server how a job ended: once where it must be once, no longer than there is time, always.
local agent = require "worker.agent"
local context = require "worker.context"
local err = require "worker.error"
local events = require "worker.events"
local log = require "worker.log"
local plugin = require "spec.support.plugin"
local record = require "worker.record"
local scratch = require "spec.support.scratch"
local task = require "worker.task"

local told
local warn, error_ = log.warn, log.error

before_each(function()
  told = {}
  local function note(event, text) told[#told + 1] = event .. ": " .. text end
  log.warn, log.error = note, note
end)

after_each(function() log.warn, log.error = warn, error_ end)

local function said(event)
  for _, line in ipairs(told) do
    if line:find(event .. ":", 1, true) then return line end
  end
end

-- A server with one job whose reports are answered by these acts, the last one ever after.
local function serve(slots, acts, options)
  local jobs, tries = { { id = "a" } }, {}
  local protocol = { kind = "protocol", name = "fake", api = 1, config = {}, open = function() return {} end,
    claim = function() return table.remove(jobs, 1) or "end" end,
    finish = function(_, _, result)
      tries[#tries + 1] = result.state
      return (acts[#tries] or acts[#acts])()
    end }
  for name, value in pairs(slots) do protocol[name] = value end
  local retry, conf = plugin.get("policy", "retry")
  local server = agent.new {
    name = "ci", plugin = protocol, conf = {}, slots = 1, events = events.new(),
    record = options and options.record or record.none(),
    policies = { finish = { { plugin = retry, conf = conf } } },
    executor = { name = "spec", conf = {}, plugin = { run = function() return { state = "success" } end } },
  }
  return server, tries
end

local function fine() end
local function fails(kind, fields)
  return function() err.raise(kind, "no answer", fields) end
end

describe("a report that must not be repeated", function()
  local function reports(...)
    local server, tries = serve({ finish_once = true }, { ... })
    server:serve()
    return #tries
  end

  it("is not, once the server may have taken it; that is told", function()
    for _, act in ipairs { fails("transport", { sent = true }), fails("http", { status = 503 }), fails("wire") } do
      told = {}
      assert.equal(1, reports(act, fine))
      assert.matches("job a: whether the server has its result %(success%) is not known: no answer", said "job.report_unsure")
      assert.is_nil(said "job.unreported")
    end
  end)

  it("is while it surely did not arrive, or the server says that it did not look at it", function()
    for _, act in ipairs { fails("transport", { sent = false }), fails("http", { status = 429 }), fails("gone") } do
      assert.equal(3, reports(act, act, fine))
    end
    assert.is_nil(said "job.report_unsure")
  end)

  it("is not in the next life either, when the worker was killed while it reported", function()
    local dir <close> = scratch.dir()
    for _, now in ipairs { true, false } do
      local first = record.open { state = dir.root }
      first:claimed({ name = "ci", plugin = {} }, { id = "old" })
      first:result({ name = "ci", plugin = {} }, { id = "old" }, { state = "failed" })
      first:telling({ name = "ci", plugin = {} }, { id = "old" }, now)
      first:close()
      local kept = record.open { state = dir.root }
      local server, tries = serve({ finish_once = true, claim = function() return "end" end }, { fine }, { record = kept })
      server:serve()
      assert.same(now and {} or { "failed" }, tries)
      assert.equal(now, said "job.report_unsure" ~= nil)
      told = {}
      assert.same({}, kept:left { name = "ci" })
      kept:close()
    end
  end)
end)

describe("a report that does not arrive", function()
  it("is left to the next start once the worker has no more time, and that is told", function()
    local dir <close> = scratch.dir()
    local kept = record.open { state = dir.root }
    local server, tries = serve({}, { fails("transport", { sent = false }) }, { record = kept })
    local handle = task.start(server.serve, server)
    task.sleep(30)
    assert.is_true(#tries > 3)
    server:drain "the spec wants it"
    server:hurry()
    task.sleep(0)
    assert.matches("job a: its result %(success%) could not be reported before the worker stops %(no answer%); it is kept",
      said "job.untold")
    handle:join()
    assert.equal(1, server.untold)
    kept:close()
    kept = record.open { state = dir.root }
    assert.equal("success", kept:left({ name = "ci" })[1].result.state)
    kept:close()
  end)

  it("is not broken off while it is under way, unless all are", function()
    local server, tries = serve({}, { function() task.sleep(20) end })
    local handle = task.start(server.serve, server)
    task.sleep(1)
    server:drain "the spec wants it"
    server:hurry()
    handle:join()
    assert.same({ 1, 0 }, { #tries, server.untold })
    server = serve({}, { function() task.sleep(1000) end })
    handle = task.start(server.serve, server)
    task.sleep(1)
    server:drain "the spec wants it"
    server:hurry(true)
    handle:join()
    assert.equal(1, server.untold)
    assert.matches("not kept", said "job.untold")
  end)
end)

describe("a bug of the worker's own", function()
  local new = context.new

  after_each(function() context.new = new end)

  it("before the job runs is its result, as an error", function()
    function context.new() error "deliberate" end
    local results = {}
    local server = serve({ finish = function(_, _, result) results[#results + 1] = result end }, {})
    server:serve()
    assert.equal(1, #results)
    assert.equal("error", results[1].state)
    assert.matches("a bug in the worker: .*report_spec.lua:%d+: deliberate", results[1].reason)
    assert.matches("job a: a bug in the worker", said "job.error")
  end)

  it("once the job has been reported changes nothing of it", function()
    local meta, close
    function context.new(...)
      local ctx = new(...)
      meta = getmetatable(ctx)
      close = meta.__close
      function meta.__close() error "deliberate" end
      return ctx
    end
    local server, tries = serve({}, { fine })
    server:serve()
    meta.__close = close
    assert.same({ "success" }, tries)
    assert.matches("deliberate", said "job.error")
  end)
end)
