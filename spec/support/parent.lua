-- Not a spec of its own: a worker that has a child, to be killed by spec/worker/process_spec.lua.
local process = require "worker.process"

it("has a child", function()
  local child <close> = process.spawn { argv = { "/bin/sleep", "6090" } }
  io.stdout:write(child.pid, "\n")
  io.stdout:flush()
  child:wait()
end)
