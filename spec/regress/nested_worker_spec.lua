-- A worker that was itself somebody's child gave its jobs tags of their own; whoever ended it found
-- the worker and its keeper, but not the jobs.
local process = require "worker.process"
local program = require "spec.support.program"
local sys = require "worker.core.sys"

it("whoever ends a worker that is his child ends its jobs, keeper or not #realtime", function()
  local tag = program.tag()
  -- With another job about, an orphan could be of either: only the tag tells.
  local path = { PATH = sys.env "PATH" }
  local _ <close> = process.spawn { argv = { "sleep", program.tag() }, env = path }
  do
    local child <close> = process.spawn {
      argv = { program.binary, "exec", "--plugins", program.plugins, "--script", "setsid sleep " .. tag .. " & wait" },
      env = { PATH = sys.env "PATH", WORKER_CGROUP = "none", WORKER_KEEPER = "off" },
    }
    program.eventually(function() return #program.of_tag("sleep\0" .. tag) > 0 end)
    child:kill "KILL"
    child:wait()
  end
  program.eventually(function() return #program.of_tag(tag) == 0 end)
end)
