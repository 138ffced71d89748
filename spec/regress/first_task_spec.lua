-- The first task is the program.  One that failed before it could say so left a loop that waited for
-- nothing, for ever.
local program = require "spec.support.program"
local scratch = require "spec.support.scratch"

describe("the first task #realtime", function()
  local function run(boot)
    local dir <close> = scratch.dir()
    dir:write("worker/boot.lua", boot)
    return program.run { "exec", "true", env = { WORKER_LUA = dir.root } }
  end

  it("ends the program with 70 when it fails without a word of its own", function()
    local ended = run 'return function() error "it is broken" end'
    assert.equal(70, ended.code)
    assert.matches("it is broken", ended.stderr)
  end)

  it("ends the program with the status it has set, whatever other tasks wait for", function()
    local ended = run [[
      local sys, task = require "worker.core.sys", require "worker.core.task"
      return function()
        task.start(function() task.sleep(1e6) end)
        task.sleep(0)
        sys.exit_status(7)
      end
    ]]
    assert.equal(7, ended.code)
  end)
end)
