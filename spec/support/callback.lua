-- callback.lua: one run of the callback protocol against a fake, in virtual time.
--
--   local ran = callback.run(fake, { conf = { heartbeat = 5 }, task = function(job, ctx) ... end })
--   ran.result  ran.self  ran.code       what the driver made of it, and what the plugin remembers
--   callback.statuses(fake)              "started completed"
--
-- The task is a function instead of a process; without one it succeeds.  Its state is in a folder of
-- its own, which goes with the test.
local agent = require "worker.agent"
local events = require "worker.events"
local fs = require "worker.fs"
local record = require "worker.record"
local registry = require "worker.registry"
local schema = require "worker.schema"
local spec = require "worker.spec"

local callback = {}

local folders = {}

spec.after_each(function()
  for _, dir in ipairs(folders) do fs.remove_tree(dir) end
  folders = {}
end)

--- A folder that goes with the test.
function callback.folder()
  local dir = fs.temp_dir "/tmp/worker-callback-spec-"
  folders[#folders + 1] = dir
  return dir
end

--- The plugin, as a worker loads it.
function callback.plugin()
  return assert(registry.open({ "plugins" }):get("protocol", "callback"))
end

local ABSENT = { url = true, task = true, project = true } -- where false says that it is not given

--- Its configuration as a person would have given it; raises what is wrong with it.
function callback.conf(given)
  local all = { task = "test-123", project = "proj-456", argv = { "true" }, spool = callback.folder() }
  for name, value in pairs(given or {}) do
    if value == false and ABSENT[name] then all[name] = nil else all[name] = value end
  end
  if not all.dir then all.dir = all.spool end
  local conf, problems = schema.check(callback.plugin(), all, nil, "callback", { env = function() end })
  if not conf then error(tostring(problems[1]), 0) end
  return conf
end

local function executor_of(run)
  run = run or function() return { state = "success", exit_code = 0 } end
  return { conf = {}, plugin = { kind = "executor", name = "fake", api = 1,
    run = function(_, job, ctx) return run(job, ctx) end } }
end

--- A server of the driver with one task, not yet begun; and what happens to it.
function callback.server(fake, options)
  options = options or {}
  local given = { url = fake.url .. "/cb" }
  for name, value in pairs(options.conf or {}) do given[name] = value end
  local ran, all = { runs = 0 }, events.new()
  all:listen(function(name, facts)
    if name == "job.finished" then ran.result = facts.result end
  end)
  local body = options.task
  local server = agent.new {
    name = "callback", plugin = callback.plugin(), conf = callback.conf(given), events = all,
    record = record.none(), policies = options.policies,
    executor = executor_of(function(job, ctx)
      ran.runs = ran.runs + 1
      ran.job = job
      if body then return body(job, ctx) end
      return { state = "success", exit_code = 0 }
    end),
  }
  ran.server = server
  return server, ran
end

--- One run from its start to its end.
function callback.run(fake, options)
  local server, ran = callback.server(fake, options)
  ran.code = server:serve()
  ran.self = server.self
  return ran
end

--- The statuses that a fake heard, in their order.
function callback.statuses(fake)
  local words = {}
  for i, request in ipairs(fake.requests) do words[i] = request.json.status end
  return table.concat(words, " ")
end

return callback
