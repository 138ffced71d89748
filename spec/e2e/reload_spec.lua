-- A configuration that is read again with mistakes in it: the log tells them, and all stays as it is.
local fs = require "worker.fs"
local json = require "worker.json"
local program = require "spec.support.program"
local scratch = require "spec.support.scratch"

local GOOD = "servers: [{ protocol: local, dir: jobs }]\nlog: { format: %s }\n"
local BAD = "servers:\n  - protocol: local\n    slot: 4\nlog: { format: %s }\nshutdown: { timeout: soon }\n"

describe("a configuration read again with mistakes #realtime", function()
  local dir

  before_each(function()
    dir = scratch.dir()
    fs.mkdir(dir:path("jobs", "inbox"), { parents = true })
  end)
  after_each(function() getmetatable(dir).__close(dir) end)

  -- What a worker with this format of the log says, from the mistakes on.
  local function said(format)
    local path = dir:write("worker.yaml", GOOD:format(format))
    local run <close> = program.start { "--config", path, "--state", dir:path "state", program.plugins, cwd = dir.root }
    run:says "worker%.started"
    dir:write("worker.yaml", BAD:format(format))
    run:signal "HUP"
    run:says "worker%.reload_failed"
    dir:write("jobs/inbox/a.sh", "true")
    program.eventually(function() return dir:read "jobs/done/a/result.json" end)
    run:signal "TERM"
    local result = run:wait()
    assert.equal(0, result.code, result.stderr)
    return result.stderr
  end

  it("is told as JSON where the log is JSON, with every mistake and its place", function()
    local message
    for line in said("json"):gmatch("[^\n]+") do
      local told = json.decode(line)
      if told.event == "worker.reload_failed" then message = told.msg end
    end
    assert.matches("the old one stays in force: .*worker%.yaml:3:5: servers%[1%]%.slot: unknown key", message)
    assert.matches("; .*worker%.yaml:5:%d+: shutdown%.timeout: expected a duration", message)
  end)

  it("is told on one line of any other log, too", function()
    local count = 0
    for line in said("logfmt"):gmatch("[^\n]+") do
      assert.matches("^ts=", line)
      if line:find("unknown key", 1, true) then count = count + 1 end
    end
    assert.equal(1, count)
  end)
end)
