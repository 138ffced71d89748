-- worker serve: an orchestrator played by this binary, to try the worker on or to write a client for.
--
-- A fake is a module worker.fakes.<name>, mostly made of worker.fakes.stage:
--
--   summary, port             a line for the list; where it listens when nobody says
--   knobs                     what --set may say of it, as fields of worker.schema
--   serve(options) -> server  options: address, jobs (what the file of --jobs says, decoded; nil
--                             without one), state (path or nil), and the knobs; the server has url,
--                             hint (a command line of a worker for it) and close()
local args = require "worker.args"
local err = require "worker.error"
local fs = require "worker.fs"
local schema = require "worker.schema"
local sys = require "worker.core.sys"
local yaml = require "worker.yaml"

local NAMES = { "vulcan", "strom", "queue", "baaaht", "callback" }
local JOBS_MOST = 64 * 1024 * 1024

local command = {
  summary = "play an orchestrator, to try the worker or write a client",
  usage = "NAME [--jobs FILE] [options]",
  doc = "Speaks to workers as the named orchestrator does, and hands out the jobs of a file (YAML or "
    .. "JSON; a few samples without one). Everything is forgotten at the end unless --state says where "
    .. "to keep it. Names: " .. table.concat(NAMES, ", ") .. ".",
  words = { 1, 1, missing = "say which: worker serve " .. table.concat(NAMES, "|") },
  complete = NAMES,
  options = {
    address = { "string", value = "HOST:PORT", doc = "Where to listen; port 0 takes a free one." },
    jobs = { "path", value = "FILE", doc = "The jobs to hand out." },
    state = { "path", value = "FILE", doc = "Keep what happened in this file, also across kill -9." },
    set = { "map", value = "NAME=VALUE", doc = "Change how it behaves." },
  },
  examples = {
    { "worker serve vulcan --jobs jobs.yaml", "then start a worker in another terminal" },
    { "worker serve vulcan --set heartbeat-timeout=3s", "a server with little patience" },
  },
}

local function find(name)
  for _, known in ipairs(NAMES) do
    if name == known then return require("worker.fakes." .. name) end
  end
  args.usage(("there is no orchestrator '%s' to play%s"):format(name, args.nearest(name, NAMES, "'%s'")))
end

local function read_jobs(path)
  local source, why = fs.read(path, JOBS_MOST)
  if not source then err.raise("config", ("--jobs: %s"):format(tostring(why))) end
  return yaml.decode(source, { name = path }) -- JSON is YAML, too
end

local function read_knobs(fake, given)
  local flags = {}
  for name, text in pairs(given or {}) do flags[name:gsub("-", "_")] = text end
  for name in pairs(flags) do
    if not (fake.knobs or {})[name] then
      local names = {}
      for knob in pairs(fake.knobs or {}) do names[#names + 1] = knob end
      args.usage(("--set: there is nothing called '%s' to set%s"):format(name, args.nearest(name, names)))
    end
  end
  local knobs, problems = schema.check(fake.knobs or {}, {}, nil, "--set", { flags = flags })
  if not knobs then args.usage(tostring(problems[1])) end
  return knobs
end

function command.run(options, words)
  local fake = find(words[1])
  local settings = read_knobs(fake, options.set)
  settings.address = options.address or "127.0.0.1:" .. fake.port
  settings.jobs = options.jobs and read_jobs(options.jobs)
  settings.state = options.state
  local signals <close> = sys.signals { "TERM", "INT", "HUP" }
  local server <close> = fake.serve(settings)
  io.stdout:write(("%s on %s\n  %s\n"):format(words[1], server.url, server.hint))
  io.stdout:flush()
  signals:wait()
  return 0
end

return command
