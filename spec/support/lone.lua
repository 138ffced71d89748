-- lone.lua: a worker whose only Lua is the given text: doors without library or driver.
--
--   local ended = lone.run [[ print(sys.pid()) ]]      { code=, signal=, stdout=, stderr= }
--   lone.run(text, { env = { A = "b" }, sh = "exec $WORKER 2>&1 | cat" })
--
-- The text is the body of the first task; `sys`, `task` and `log` are the doors of these names, and
-- `...` is the directory of the run.  `sh` is a script that starts $WORKER (in that directory).
local fs = require "worker.fs"
local program = require "spec.support.program"
local scratch = require "spec.support.scratch"

local lone = {}

-- All on one line, so that lines of the text keep their numbers.
local HEAD = 'local sys, task, log = require "worker.core.sys", require "worker.core.task", require "worker.core.log" '
  .. "return function(...) local dir = %q sys.exit_status(0) "

function lone.run(text, options)
  local dir <close> = scratch.dir()
  dir:write("worker/boot.lua", HEAD:format(dir.root) .. text .. "\nend\n")
  local env = { WORKER_LUA = dir.root, WORKER = program.binary }
  for name, value in pairs(options and options.env or {}) do env[name] = value end
  local ended
  if options and options.sh then
    ended = program.run { "-c", options.sh, binary = "/bin/sh", cwd = dir.root, env = env }
  else
    ended = program.run { "exec", "true", cwd = dir.root, env = env }
  end
  ended.files = {}
  for _, name in ipairs(fs.list(dir.root)) do
    if name ~= "worker" then ended.files[name] = dir:read(name) end
  end
  return ended
end

return lone
