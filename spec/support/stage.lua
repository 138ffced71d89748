-- stage.lua: a fake orchestrator and a worker on it, in the process of the specs.
--
--   local fake = stage.fake(require "worker.fakes.acme", { jobs = { "echo hi" } })
--   local worker = stage.worker { protocol = "acme", fields = { url = fake.url }, run = function(job, ctx) ... end }
--   stage.wait_for(function() return fake.jobs[1].status == "completed" end)
--   stage.asked(fake, "POST /claim")            what came in for a route
--
-- Both end with the test, the worker first.  Without `run` the jobs are real processes, which want a
-- #realtime test.  What a fake can be told to do is in worker.fakes.stage; acts for it:
--
--   stage.after(answer)       do it, then answer like this (answers of spec.support.server)
--   stage.instead(answer)     answer like this and do nothing
--   stage.body(text, status)  an answer with this body
local agent = require "worker.agent"
local events = require "worker.events"
local plugin = require "spec.support.plugin"
local record = require "worker.record"
local scratch = require "spec.support.scratch"
local spec = require "worker.spec"
local task = require "worker.task"

local stage = {}

local PATIENCE = 3600 -- of virtual time; a real test has the watchdog of all tests

local open = {}

spec.after_each(function()
  for i = #open, 1, -1 do open[i]:close() end
  open = {}
end)

local function until_the_end(thing)
  open[#open + 1] = thing
  return thing
end

--- A directory that is removed after the test.
function stage.dir()
  local dir = scratch.dir()
  until_the_end { close = function() getmetatable(dir).__close(dir) end }
  return dir
end

--- A fake that remembers what it was asked in fake.seen, and has no jobs unless told so.
function stage.fake(play, options)
  local all = { record = true, tell = function() end, jobs = {} }
  for name, value in pairs(options or {}) do all[name] = value end
  return until_the_end(play.serve(all))
end

local REAL = { { "timeout" }, { "workspace" }, { "env" }, { "mask" } }

local function chains(run)
  local built = {}
  for which, list in pairs { claim = { { "backoff" } }, run = run, finish = { { "retry" } } } do
    built[which] = {}
    for i, one in ipairs(list) do
      local policy, conf = plugin.get("policy", one[1], one[2])
      built[which][i] = { name = one[1], plugin = policy, conf = conf }
    end
  end
  return built
end

local function executor_of(run, isolation, check, user)
  if run then
    return { name = "spec", conf = {}, plugin = { isolation = isolation, check = check,
      run = function(_, job, ctx) return run(job, ctx) end } }
  end
  local shell, conf = plugin.get("executor", "shell", { drain = "200ms", user = user })
  return { name = "shell", conf = conf, plugin = shell }
end

-- Several of them: a list of { name=, isolation=, run= }.
local function executors_of(list)
  local built = {}
  for i, one in ipairs(list) do
    built[i] = executor_of(one.run, one.isolation)
    built[i].name = one.name
  end
  return built
end

local methods = {}
local meta = { __index = methods }

--- A worker: protocol (its name), fields (of its configuration), and: run (instead of real processes),
-- slots, policies (of the run chain), record, dir (for all that it keeps), grace, name (of the worker);
-- isolation and check of the executor that run stands for; user, whom real processes run as; or
-- executors, a list of { name, isolation, run }.
function stage.worker(options)
  local protocol, conf = plugin.get("protocol", options.protocol, options.fields)
  local dir = options.dir or not options.run and stage.dir() or nil
  local server = agent.new {
    name = options.protocol, plugin = protocol, conf = conf, slots = options.slots or 1,
    executors = options.executors and executors_of(options.executors)
      or { executor_of(options.run, options.isolation, options.check, options.user) },
    policies = chains(options.policies or (options.run or options.executors) and {} or REAL),
    events = events.new(), record = options.record or record.none(), grace = options.grace or 0.2,
    worker_name = options.name, workspace = dir and dir:path "work", spool_dir = dir and dir:path "spool",
  }
  local self = { server = server, conf = conf, handle = task.start(server.serve, server) }
  return until_the_end(setmetatable(self, meta))
end

--- Ask it to stop, wait for its end; its exit code.
function methods:stop()
  self.server:drain("the spec has seen enough")
  local _, code = self.handle:join()
  return code
end

function methods:close()
  self.server:drain("the test is over")
  self.server:cancel_jobs("the test is over")
  self.handle:cancel()
  self.handle:join()
end

--- Wait until it is so; what it gave.
function stage.wait_for(what)
  local value
  local came = task.within(PATIENCE, function()
    value = what()
    while not value do
      task.sleep(0.02)
      value = what()
    end
  end)
  return came and value or error("it never happened", 2)
end

--- The requests of a route that the fake has seen.
function stage.asked(fake, route)
  local list = {}
  for _, seen in ipairs(fake.seen) do
    if seen.route == route then list[#list + 1] = seen end
  end
  return list
end

-- Answers are functions, or tables with a function in them.
local function say(answer, request, reply)
  return (type(answer) == "table" and answer.run or answer)(request, reply)
end

function stage.after(answer)
  return function(request, reply, go)
    go()
    return say(answer, request, reply)
  end
end

function stage.instead(answer)
  return function(request, reply) return say(answer, request, reply) end
end

function stage.body(body, status)
  return function(_, reply) reply:send(status or 200, { ["content-type"] = "application/json" }, body) end
end

return stage
