-- strom.lua: a Strøm server and a worker on it, in the process of the specs.
--
--   local fake = strom.fake { jobs = { "echo hi" }, generation = "s0" }
--   local worker = strom.worker(fake, { max_concurrent = 2 }, { run = function(job, ctx) ... end })
--   strom.wait_for(function() return fake.store.list[1].status == "completed" end)
--
-- Both end with the test.  Without `run` the steps are real processes, which want a #realtime test.
-- What a fake can be told to do: see worker.fakes.strom, and here
--
--   strom.instead(answer)    answer like this (answers of spec.support.server) and do nothing
--   strom.after(answer)      do it, then answer like this
local agent = require "worker.agent"
local events = require "worker.events"
local fakes = require "worker.fakes.strom"
local plugin = require "spec.support.plugin"
local record = require "worker.record"
local scratch = require "spec.support.scratch"
local spec = require "worker.spec"
local task = require "worker.task"

local strom = {}

strom.TOKEN = "0123456789abcdef0123456789abcdef"
strom.CLAIM, strom.LOGS = "POST /worker/jobs/claim", "POST /worker/jobs/{job}/logs"
strom.START = "POST /worker/jobs/{job}/steps/{step}/start"
strom.COMPLETE = "POST /worker/jobs/{job}/steps/{step}/complete"
strom.REGISTER, strom.HEARTBEAT = "POST /worker/register", "POST /worker/heartbeat"
strom.CANCELLED, strom.WORKSPACE = "GET /worker/jobs/{job}/cancelled", "GET /worker/workspace/{file}"
strom.ARTIFACTS = "POST /worker/jobs/{job}/steps/{step}/artifacts/{name...}"
strom.NO_ARTIFACTS = "DELETE /worker/jobs/{job}/steps/{step}/artifacts"
strom.STATE = "POST /worker/state/{workspace}/{task}/{job}"

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
function strom.dir()
  local dir = scratch.dir()
  until_the_end { close = function() getmetatable(dir).__close(dir) end }
  return dir
end

--- A fake that remembers what it was asked in fake.seen.
function strom.fake(options)
  local all = { record = true, tell = function() end, jobs = {} }
  for name, value in pairs(options or {}) do all[name] = value end
  return until_the_end(fakes.serve(all))
end

local function chains(run)
  local built = {}
  for which, list in pairs { claim = { "backoff" }, run = run and { "timeout" } or { "timeout", "workspace", "env", "mask" },
    finish = { "retry" } } do
    built[which] = {}
    for i, name in ipairs(list) do
      local policy, conf = plugin.get("policy", name)
      built[which][i] = { name = name, plugin = policy, conf = conf }
    end
  end
  return built
end

local methods = {}
local meta = { __index = methods }

--- A worker on the fake: fields of its configuration; options: run (instead of real processes), record,
-- dir (of workspaces), pass (an environment name of the worker's).
function strom.worker(fake, fields, options)
  options = options or {}
  local dir = options.dir or strom.dir()
  local all = { server_url = fake.url .. "/", worker_token = strom.TOKEN, worker_name = "w",
    poll_interval_secs = options.run and 1 or "100ms", workspace_dir = dir:path "ws", cancel_poll = "500ms" }
  for name, value in pairs(fields or {}) do all[name] = value end
  local protocol, conf = plugin.get("protocol", "strom", all)
  local shell, shell_conf = plugin.get("executor", "shell", { drain = "200ms" })
  local server = agent.new {
    name = "strom", plugin = protocol, conf = conf, slots = all.max_concurrent or 1,
    executor = options.run
      and { name = "spec", conf = {}, plugin = { run = function(_, job, ctx) return options.run(job, ctx) end } }
      or { name = "shell", conf = shell_conf, plugin = shell },
    policies = chains(options.run), events = events.new(), record = options.record or record.none(),
    grace = 0.5, workspace = dir:path "work", spool_dir = dir:path "spool",
  }
  return until_the_end(setmetatable({ server = server, conf = conf, handle = task.start(server.serve, server) }, meta))
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
function strom.wait_for(what)
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

local OVER = { completed = true, failed = true, skipped = true, cancelled = true }

--- Wait until every step of the job has ended; its first step, the job.
function strom.wait_job(job)
  strom.wait_for(function()
    for _, step in ipairs(job.steps) do
      if not OVER[step.status] then return false end
    end
    return true
  end)
  return job.steps[1], job
end

--- Run one job on a fake and a worker made for it; its first step, the job, the fake.
function strom.run_one(fields, options, worker_fields)
  local fake = strom.fake(options)
  local job = fake:add(fields)
  strom.worker(fake, worker_fields)
  local step = strom.wait_job(job)
  return step, job, fake
end

--- The requests of a route that the fake has seen.
function strom.asked(fake, route)
  local list = {}
  for _, seen in ipairs(fake.seen) do
    if seen.route == route then list[#list + 1] = seen end
  end
  return list
end

--- The lines in the log of a job, of one stream or all.
function strom.lines(job, stream)
  local list = {}
  for _, entry in ipairs(job.log) do
    if not stream or entry.stream == stream then list[#list + 1] = entry.line end
  end
  return list
end

-- Answers are functions, or tables with a function in them.
local function perform(answer, request, reply)
  local run = type(answer) == "table" and answer.run or answer
  return run(request, reply)
end

function strom.instead(answer)
  return function(request, reply)
    request:read_body()
    return perform(answer, request, reply)
  end
end

function strom.after(answer)
  return function(request, reply, go)
    go()
    return perform(answer, request, reply)
  end
end

return strom
