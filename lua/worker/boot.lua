-- boot.lua: the first task; when it ends, so does the program.  It starts worker.main in a task of
-- its own, so that whatever happens there is told here.
local sys = require "worker.core.sys"
local task = require "worker.core.task"

local EXIT_SOFTWARE = 70

local function main(...)
  return require("worker.main").run(...)
end

return function(...)
  local ok, result = task.start(main, ...):join()
  if ok then
    sys.exit_status(result or 0)
  else
    io.stderr:write("worker: internal error: ", tostring(result), "\n")
    if type(result) == "table" and result.traceback then
      io.stderr:write(result.traceback, "\n")
    end
    sys.exit_status(EXIT_SOFTWARE)
  end
end
