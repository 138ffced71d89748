-- version.lua: `worker version`: which worker this is.
local sys = require "worker.core.sys"

local command = {
  summary = "print the version",
  usage = "[--json]",
  words = { 0, 0 },
  options = { json = { "flag", doc = "Print JSON." } },
  examples = { { "worker version --json", "for programs" } },
}

function command.run(options)
  if options.json then
    io.stdout:write(require("worker.json").encode { name = "worker", version = sys.version(), lua = _VERSION }, "\n")
  else
    io.stdout:write(("worker %s (%s)\n"):format(sys.version(), _VERSION))
  end
  return 0
end

return command
