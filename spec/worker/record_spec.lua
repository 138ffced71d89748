local agent = require "worker.agent"
local err = require "worker.error"
local events = require "worker.events"
local fs = require "worker.fs"
local record = require "worker.record"
local task = require "worker.task"

describe("worker.record", function()
  local dir, kept
  local server = { name = "ci", plugin = {} }

  local function reopen()
    if kept then kept:close() end
    kept = record.open { state = dir }
  end

  before_each(function()
    dir = fs.temp_dir("/tmp/record-")
    kept = nil
    reopen()
  end)

  after_each(function()
    kept:close()
    fs.remove_tree(dir)
  end)

  it("remembers across lives how far each job has come", function()
    kept:claimed(server, { id = "1", script = "a", lease = 7 })
    kept:claimed(server, { id = "2" })
    kept:started(server, { id = "2" })
    kept:claimed(server, { id = "3" })
    kept:started(server, { id = "3" })
    kept:result(server, { id = "3" }, { state = "failed", exit_code = 3 })
    kept:claimed(server, { id = "4" })
    kept:forget(server, { id = "4" })
    kept:claimed({ name = "other", plugin = {} }, { id = "5" })
    reopen()
    local left = kept:left(server)
    assert.equal(3, #left)
    assert.same({ id = "1", script = "a", lease = 7 }, left[1].job)
    assert.is_false(left[1].started)
    assert.is_true(left[2].started)
    assert.is_nil(left[2].result)
    assert.same({ state = "failed", exit_code = 3 }, left[3].result)
    assert.equal("5", kept:left({ name = "other" })[1].job.id)
  end)

  it("tells a second worker that the state directory is taken", function()
    local ok, why = pcall(record.open, { state = dir })
    assert.is_false(ok)
    assert.is_true(err.is(why, "busy"))
    assert.matches("another worker already uses", why.message)
  end)

  it("writes only results for a server that hands out again by itself", function()
    local again = { name = "again", plugin = { hands_out_again = true } }
    local before = kept.journal:stats().written
    kept:claimed(again, { id = "1", script = "a" })
    kept:started(again, { id = "1" })
    assert.equal(before, kept.journal:stats().written)
    kept:result(again, { id = "1", script = "a" }, { state = "success" })
    kept:result(again, { id = "2" }, { state = "success" })
    kept:forget(again, { id = "2" })
    reopen()
    local left = kept:left(again)
    assert.equal(1, #left)
    assert.same({ id = "1", script = "a" }, left[1].job)
    assert.same({ state = "success" }, left[1].result)
    assert.is_true(left[1].started)
  end)

  local function with_brief(brief, wanted)
    return { name = "brief", brief = true, wanted = wanted or {}, plugin = { hands_out_again = true, brief = brief } }
  end

  local JOB, RESULT = { id = "1", script = "a", lease = 7 }, { state = "success", duration = 1.5 }

  local function lease_and_state(job, result) return { id = job.id, lease = job.lease }, { state = result.state } end

  it("writes what a report is made of, where the protocol says it", function()
    local brief = with_brief(lease_and_state)
    kept:result(brief, JOB, RESULT)
    reopen()
    local left = kept:left(brief)[1]
    assert.same({ id = "1", lease = 7 }, left.job)
    assert.same({ state = "success" }, left.result)
  end)

  it("writes all of it where events tell of reports, and where the protocol's word is an error", function()
    for _, brief in ipairs { with_brief(lease_and_state, { ["job.reported"] = true }), with_brief(function() error "bug" end) } do
      kept:result(brief, JOB, RESULT)
      reopen()
      local left = kept:left(brief)[1]
      assert.same(JOB, left.job)
      assert.same(RESULT, left.result)
      kept:forget(brief, JOB)
    end
  end)

  it("leaves out what cannot be written down", function()
    kept:claimed(server, { id = "1", handle = io.stdout, call = print, env = { A = "b" } })
    reopen()
    assert.same({ id = "1", env = { A = "b" } }, kept:left(server)[1].job)
  end)

  -- What the next life of a worker makes of what the last one left.
  local function next_life(plugin_finish)
    local finished, runs = {}, {}
    local plugin = {
      kind = "protocol", name = "fake", api = 1,
      open = function() return {} end, claim = function() return "end" end,
      finish = plugin_finish or function(_, job, result) finished[job.id] = result.state end,
    }
    local life = agent.new {
      name = "ci", plugin = plugin, conf = {}, slots = 2, events = events.new(), record = kept,
      executor = { conf = {}, plugin = { name = "fake", run = function(_, job)
        runs[#runs + 1] = job.id
        return { state = "success" }
      end } },
    }
    life:serve()
    return finished, runs
  end

  it("lets the next life run what had not started, and report the rest without running it", function()
    kept:claimed(server, { id = "claimed" })
    kept:claimed(server, { id = "started" })
    kept:started(server, { id = "started" })
    kept:claimed(server, { id = "done" })
    kept:started(server, { id = "done" })
    kept:result(server, { id = "done" }, { state = "failed", exit_code = 3 })
    reopen()
    local finished, runs = next_life()
    assert.same({ "claimed" }, runs)
    assert.same({ claimed = "success", started = "error", done = "failed" }, finished)
    reopen()
    assert.same({}, kept:left(server))
  end)

  it("asks the protocol what a report is made of only where no policy around it looks at the job", function()
    local function is_brief(policy)
      local life = agent.new {
        name = "ci", conf = {}, events = events.new(), record = kept, executor = { conf = {}, plugin = { name = "fake" } },
        policies = { finish = { { conf = {}, plugin = policy } } },
        plugin = { open = function() return {} end, claim = function() return "end" end, brief = lease_and_state },
      }
      life:serve()
      return life.brief
    end
    local function finish(_, next) return next end
    assert.is_true(is_brief {})
    assert.is_true(is_brief { finish = finish, finish_by_id = true })
    assert.is_false(is_brief { finish = finish })
  end)

  it("keeps a result for the life after, when the server takes none in this one", function()
    kept:claimed(server, { id = "1" })
    kept:started(server, { id = "1" })
    kept:result(server, { id = "1" }, { state = "success" })
    next_life(function() err.raise("transport", "connection refused") end)
    reopen()
    assert.equal("success", kept:left(server)[1].result.state)
    task.sleep(0)
  end)
end)
