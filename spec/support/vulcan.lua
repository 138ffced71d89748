-- vulcan.lua: Vulcan's server and a worker on it, in the process of the specs.
--
--   local fake = vulcan.fake { jobs = { "echo hi" }, heartbeat_timeout = 3, check_interval = 1 }
--   local worker = vulcan.worker(fake, { poll = "1s" }, { run = function(job, ctx) ... end })
--   vulcan.wait_for(function() return fake.store.list[1].status == "completed" end)
--
-- Both end with the test.  Without `run` the jobs are real processes, which want a #realtime test.
-- What a fake can be told to do instead of answering: see worker.fakes.vulcan, and here
--
--   vulcan.after(answer)      do it, then answer like this (answers of spec.support.server)
--   vulcan.instead(answer)    answer like this and do nothing
--   vulcan.body(text, status) an answer with this body
local agent = require "worker.agent"
local events = require "worker.events"
local fakes = require "worker.fakes.vulcan"
local plugin = require "spec.support.plugin"
local record = require "worker.record"
local scratch = require "spec.support.scratch"
local spec = require "worker.spec"
local task = require "worker.task"

local vulcan = {}

vulcan.TENANT = "00000000-0000-0000-0000-000000000001"

local PATIENCE = 3600 -- of virtual time; a real test has the watchdog of all tests

local open = {}

spec.after_each(function()
  for i = #open, 1, -1 do open[i]:close() end -- the worker before its fake and its directory
  open = {}
end)

local function closed_in_time(thing)
  open[#open + 1] = thing
  return thing
end

--- A fake that remembers what it was asked in fake.seen.
function vulcan.fake(options)
  local all = { record = true, tell = function() end, jobs = {} }
  for name, value in pairs(options or {}) do all[name] = value end
  return closed_in_time(fakes.serve(all))
end

local RUN = { { "timeout" }, { "workspace" }, { "env" }, { "mask" } }

local function chains(wanted)
  local built = {}
  for which, list in pairs { claim = { { "backoff" } }, run = wanted or RUN, finish = { { "retry" } } } do
    built[which] = {}
    for i, one in ipairs(list) do
      local policy, conf = plugin.get("policy", one[1], one[2])
      built[which][i] = { name = one[1], plugin = policy, conf = conf }
    end
  end
  return built
end

local methods = {}
local meta = { __index = methods }

--- A worker on the fake: fields of its configuration; options: run (instead of real processes), slots,
-- policies (of the run chain), record, url.
function vulcan.worker(fake, fields, options)
  options = options or {}
  local all = { url = options.url or fake.url, tenant = vulcan.TENANT, poll = "1s" }
  for name, value in pairs(fields or {}) do all[name] = value end
  local protocol, conf = plugin.get("protocol", "vulcan", all)
  local shell, shell_conf = plugin.get("executor", "shell", { drain = "200ms" })
  local executor = options.run
    and { name = "spec", conf = {}, plugin = { run = function(_, job, ctx) return options.run(job, ctx) end } }
    or { name = "shell", conf = shell_conf, plugin = shell }
  local dir = not options.run and scratch.dir()
  if dir then closed_in_time { close = function() getmetatable(dir).__close(dir) end } end
  local server = agent.new {
    name = "vulcan", plugin = protocol, conf = conf, slots = options.slots or 1, executor = executor,
    policies = chains(options.policies or options.run and {} or nil), events = events.new(),
    record = options.record or record.none(), grace = 0.2,
    workspace = dir and dir:path "work" or nil,
  }
  local self = setmetatable({ server = server, handle = task.start(server.serve, server) }, meta)
  return closed_in_time(self)
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
function vulcan.wait_for(what)
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

--- The requests for a path that the fake has seen.
function vulcan.asked(fake, path)
  local list = {}
  for _, seen in ipairs(fake.seen) do
    if seen.path == path then list[#list + 1] = seen end
  end
  return list
end

--- How many workers the fake has in this state.
function vulcan.workers(fake, status)
  local n = 0
  for _, worker in pairs(fake.store.workers) do
    if not status or worker.status == status then n = n + 1 end
  end
  return n
end

local function say(answer, request, reply)
  return (type(answer) == "table" and answer.run or answer)(request, reply)
end

function vulcan.after(answer)
  return function(request, reply, go)
    go()
    return say(answer, request, reply)
  end
end

function vulcan.instead(answer)
  return function(request, reply) return say(answer, request, reply) end
end

function vulcan.body(body, status)
  return function(_, reply) reply:send(status or 200, { ["content-type"] = "application/json" }, body) end
end

return vulcan
