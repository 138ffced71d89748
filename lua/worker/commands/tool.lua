-- tool.lua: `worker tool`: one tool, here and now, as an agent's task would have it.
local args = require "worker.args"
local err = require "worker.error"
local exit = require "worker.exit"
local fs = require "worker.fs"
local json = require "worker.json"
local log = require "worker.log"
local out = require "worker.core.out"
local places = require "worker.places"
local registries = require "worker.registry"
local shelf = require "worker.tools.shelf"
local sys = require "worker.core.sys"
local task = require "worker.task"
local tools = require "worker.tools"

local EXIT = { timeout = 124, error = 125, cancelled = 143 }
local INPUT_MOST = 64 << 20

local command = {
  summary = "run one tool here and now, in its container",
  usage = "[options] NAME [ARGUMENT=VALUE...]",
  doc = "The tool works in the directory --workspace, in a container of the engine that DOCKER_HOST names (or the "
    .. "usual one). `worker explain tool/NAME` tells its arguments. The exit code is the tool's; 124 when it took too "
    .. "long, 125 when it could not be run.",
  words = { 1, nil, missing = "say which tool; `worker plugins` lists them" },
  complete = "tool",
  options = {
    workspace = { "string", value = "DIR", doc = "Where it works; the working directory otherwise." },
    input = { "string", value = "FILE", doc = "What it reads, as a file_write its content." },
    timeout = { "duration", value = "TIME", doc = "How long it may take, instead of what the tool says." },
    sandbox = { "string", value = "RUNTIME", doc = "Run it under this runtime of the engine: runsc for gVisor." },
    policy = { "string", value = "FILE", doc = "Run it only if this policy allows it." },
    plugins = { "list", value = "DIR", doc = "Look for plugins here." },
    json = { "flag", doc = "Print the result as JSON." },
  },
  examples = {
    { "worker tool grep pattern=TODO path=src", "search the working directory" },
    { "worker tool fetch_url url=https://example.com/", "ask a server" },
  },
}

local function parameters_of(words)
  local parameters = {}
  for i = 2, #words do
    local name, value = words[i]:match("^([%w_]+)=(.*)$")
    if not name then args.usage(("expected ARGUMENT=VALUE, got '%s'"):format(words[i])) end
    parameters[name] = value
  end
  return parameters
end

-- Words that are none of its arguments would be passed over in a task; a person means something by them.
local function check_names(name, parameters)
  local known = {}
  for field in pairs(shelf.get(name).config or {}) do known[#known + 1] = field end
  table.sort(known)
  for parameter in pairs(parameters) do
    local is_known = false
    for _, field in ipairs(known) do is_known = is_known or field == parameter end
    if not is_known then
      args.usage(("%s has no argument '%s'%s"):format(name, parameter, args.nearest(parameter, known, "'%s'")))
    end
  end
end

local function input_of(path)
  if not path then return nil end
  local text, why = fs.read(path, INPUT_MOST)
  return text or err.raise("config", tostring(why))
end

local function print_result(result, as_json)
  if as_json then
    result.error = nil
    io.stdout:write(json.encode(result, { pretty = true }), "\n")
    return
  end
  local stdout <close> = out.open(1)
  stdout:write(result.stdout)
  io.stderr:write(result.stderr)
  if result.state ~= "success" and result.state ~= "failed" then
    io.stderr:write(("worker tool: %s: %s\n"):format(result.state, result.reason or ""))
  end
end

-- A person's ^C ends the tool with its container.
local function watched(box, asked)
  local running = task.start(function() return box:execute(asked) end)
  local watcher = task.start(function()
    local signals <close> = sys.signals { "TERM", "INT", "QUIT", "HUP" }
    signals:wait()
    running:cancel "cancelled"
  end)
  local ok, result = running:join()
  watcher:cancel()
  watcher:join()
  if ok then return result end
  if err.is(result, "cancelled") then return { state = "cancelled", reason = "ended by a signal", stdout = "", stderr = "" } end
  error(result, 0)
end

function command.run(options, words)
  if not options.log_level then log.setup { level = "warn" } end
  if options.plugins then shelf.set(registries.open(places.plugin_dirs(options.plugins)):shelf()) end
  local asked = { tool = words[1], parameters = parameters_of(words), timeout = options.timeout,
    input_data = input_of(options.input) }
  local box <close> = tools.open { workspace = options.workspace or ".", sandbox = options.sandbox, policy = options.policy }
  local ok, result = task.try(function()
    check_names(asked.tool, asked.parameters)
    return watched(box, asked)
  end)
  if not ok and err.is(result, "refused") then
    io.stderr:write("worker tool: ", result.message, "\n")
    return exit.USAGE
  elseif not ok then
    error(result, 0)
  end
  print_result(result, options.json)
  return EXIT[result.state] or result.exit_code or EXIT.error
end

return command
