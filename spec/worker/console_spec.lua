local console = require "worker.console"
local events = require "worker.events"
local log = require "worker.log"
local task = require "worker.task"
local text = require "worker.text"

describe("worker.console", function()
  local stderr, info, shows = io.stderr, log.info, log.shows
  local written, logged

  before_each(function()
    written, logged = {}, {}
    io.stderr = { write = function(_, ...) -- luacheck: ignore
      for _, piece in ipairs { ... } do written[#written + 1] = piece end
    end }
    log.shows = function() return true end -- luacheck: ignore
    log.info = function(event, message) logged[#logged + 1] = event .. " " .. message end -- luacheck: ignore
  end)
  after_each(function() io.stderr, log.info, log.shows = stderr, info, shows end) -- luacheck: ignore

  local function started(terminal, color)
    local all = events.new()
    return all, console.new(all, { terminal = terminal, color = color })
  end

  local function job(id, line)
    return { job = { id = id }, ctx = { last_line = function() return line end } }
  end

  local function ended(facts, result)
    facts.result = result
    return facts
  end

  local function screen() return table.concat(written) end

  it("logs a line at a job's start and one at its end where there is no terminal", function()
    local all = started(false)
    local facts = job "a"
    all:emit("job.started", facts)
    all:emit("job.finished", ended(facts, { state = "failed", exit_code = 3, duration = 1.5 }))
    assert.same({ "job.started job a started", "job.finished job a: failed  1.5s  exit 3" }, logged)
    assert.equal("", screen())
  end)

  it("shows a line per running job, and takes it away", function()
    local all, view = started(true, false)
    local facts = job("a", "compiling")
    all:emit("job.started", facts)
    view:draw()
    assert.equal("  running   a                         0s  compiling\n", screen())
    all:emit("job.finished", ended(facts, { state = "success", duration = 2 }))
    assert.matches("\n  ok        a                       2%.0s\n$", "\n" .. screen():gsub(".*\27%[J", ""))
    written = {}
    view:draw()
    assert.equal("", screen())
    view:clear()
  end)

  it("keeps its columns when a job ends, whatever its name and its words", function()
    local all, view = started(true, false)
    local facts = job("a-very-long-name-of-a-job/step-12", ("word "):rep(40))
    all:emit("job.started", facts)
    view:draw()
    all:emit("job.finished", ended(facts, { state = "failed", exit_code = 3, duration = 0.0071 }))
    local live, last = screen():match("^(.-)\n.-\27%[J(.-)\n$")
    assert.matches("^  running   …me%-of%-a%-job/step%-12 +0s  word", live)
    assert.matches("^  failed    …me%-of%-a%-job/step%-12 +7ms  exit 3  word", last)
    for _, line in ipairs { live, last } do assert.is_true(text.width(line) < 80, line) end
  end)

  it("is not moved about by what jobs print or are called", function()
    local all, view = started(true, false)
    local hostile = "x\27[2J\27]0;t\7\r\n\8\194\155" .. "2J\0\255"
    local facts = job(hostile, hostile)
    all:emit("job.started", facts)
    view:draw()
    all:emit("job.finished", ended(facts, { state = "error", reason = hostile, duration = 0 }))
    local shown = screen():gsub("\27%[%d+A\r\27%[J", "") -- its own: up, and clear below
    assert.is_nil(shown:find("[%z\1-\9\11-\31\127]"))
    assert.is_nil(shown:find("\194[\128-\159]"))
    view:clear()
  end)

  it("shows some of many jobs and counts the rest", function()
    local all, view = started(true, false)
    for i = 1, 30 do all:emit("job.started", job(tostring(i))) end
    view:draw()
    local _, rows = screen():gsub("\n", "")
    assert.equal(13, rows)
    assert.matches("%.%.%. and 18 more", screen())
    view:clear()
  end)

  it("paints only where it may", function()
    for _, color in ipairs { false, true } do
      written = {}
      local all = started(true, color)
      local facts = job "a"
      all:emit("job.started", facts)
      all:emit("job.finished", ended(facts, { state = "timeout", reason = "ran longer than 1s", duration = 1 }))
      assert.equal(color, screen():find("\27%[33m") ~= nil)
      assert.matches("timeout.*%s+a +1%.0s  ran longer than 1s", screen())
    end
  end)

  it("keeps its lines fresh until it is ended", function()
    local all, view = started(true, false)
    local handle = task.start(view.run, view)
    task.sleep(1)
    assert.equal("", screen())
    all:emit("job.started", job "a")
    task.sleep(5.05)
    assert.matches("  a +5s", screen())
    handle:cancel "enough"
    handle:join()
  end)

  it("sums up", function()
    local _, view = started(false)
    assert.equal("no jobs were run", view:summary {})
    assert.matches("^4 jobs in .*: 2 success, 1 oom, 1 error$", view:summary { success = 2, error = 1, oom = 1 })
    assert.matches("^1 job in ", view:summary { lost = 1 })
  end)

  it("listens to jobs only while it would show them", function()
    log.shows = function() return false end -- luacheck: ignore
    local all, view = started(false)
    assert.is_nil(all.wanted["job.started"] or all.wanted["job.finished"])
    log.shows = function() return true end -- luacheck: ignore
    for _ = 1, 2 do view:attend() end
    all:emit("job.started", job "a")
    assert.same({ "job.started job a started" }, logged)
  end)
end)
