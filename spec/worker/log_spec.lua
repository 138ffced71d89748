local core = require "worker.core.log"
local log = require "worker.log"

-- What the library hands to the door, while `body` runs.
local function written(level, body)
  local real, lines = { write = core.write, enabled = core.enabled }, {}
  core.write = function(...) lines[#lines + 1] = { ... } end
  core.enabled = function(asked) return asked >= level end
  local ok, why = pcall(body)
  core.write, core.enabled = real.write, real.enabled
  assert(ok, why)
  return lines
end

describe("worker.log", function()
  it("writes the event for programs and the message for people, by level", function()
    assert.same({ { 0, "a.b", "d" }, { 1, "a.b", "i" }, { 2, "a.b", "w" }, { 3, "a.b", "e" } }, written(0, function()
      log.debug("a.b", "d")
      log.info("a.b", "i")
      log.warn("a.b", "w")
      log.error("a.b", "e")
    end))
  end)

  it("puts the fields of an event in one order, whatever the table says", function()
    local lines = written(0, function()
      log.info("job.finished", "job 7", { state = "success", job = "7", dur_ms = 3, a = false })
    end)
    assert.same({ "a", false, "dur_ms", 3, "job", "7", "state", "success" }, lines[1][4])
  end)

  it("does not build a line below the level", function()
    local looked = false
    local fields = setmetatable({}, { __pairs = function() looked = true return next, {}, nil end })
    assert.same({}, written(2, function() log.info("a", "b", fields) end))
    assert.is_false(looked)
  end)

  it("knows the levels and formats by name", function()
    local seen
    local real = core.setup
    core.setup = function(options) seen = options end
    log.setup { level = "warn", format = "json", color = true }
    core.setup = real
    assert.same({ level = 2, format = "json", color = true }, seen)
  end)

  it("says whether a secret is long enough to be masked", function()
    assert.is_false(log.secret "short")
  end)
end)
