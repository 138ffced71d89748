-- spec.lua: `worker spec`: run specs inside this binary.
local args = require "worker.args"
local fs = require "worker.fs"

local command = {
  summary = "run specs (busted) inside this binary, on the real loop",
  usage = "[options] [PATH...]",
  doc = "A PATH is a spec file or a folder that is searched for *_spec.lua; without one it is spec/. "
    .. "Every test runs in a task, so it may wait; time is virtual unless the name of the test "
    .. "contains #realtime; what a test leaves behind (tasks, handles, children) fails it.",
  complete = "file",
  log_level = "off", -- what goes wrong on purpose is not news; --log-level shows it
  options = {
    filter = { "string", value = "PATTERN", doc = "Only tests whose full name matches this Lua pattern." },
    exclude = { "string", value = "PATTERN", doc = "Not the tests whose full name matches this Lua pattern." },
    verbose = { "count", short = "v", doc = "Print the name of each test." },
  },
  examples = {
    { "worker spec spec/plugins", "the specs of the plugins" },
    { "worker spec --filter 'gives back' spec/plugins/acme_spec.lua", "some tests of one file" },
  },
}

function command.run(options, paths)
  if #paths == 0 and not fs.exists "spec" then
    args.usage("there is no folder spec/ here: say which specs to run")
  end
  for _, path in ipairs(paths) do
    if not fs.exists(path) then args.usage(("there is no file or folder '%s'"):format(path)) end
  end
  return require("worker.spec").run(paths, options)
end

return command
