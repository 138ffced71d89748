-- tools/box.lua: tools from Lua: called like functions, or started, looked after and cancelled by id.
--
-- Every call is a container of its own; several at once do not wait for each other.
local err = require "worker.error"
local fields = require "worker.engine.fields"
local log = require "worker.log"
local policy = require "worker.policy"
local run = require "worker.engine.run"
local schema = require "worker.schema"
local shelf = require "worker.tools.shelf"
local sys = require "worker.core.sys"
local task = require "worker.task"
local tasks = require "worker.tools.task"
local time = require "worker.time"

local box = {}

local GRACE = 1
local KEPT = 100          -- results of ended tasks that nobody has waited for
local NANO = 1e9
local OUTPUT_MOST = 64 << 20

local methods = {}

local meta = { __name = "worker.tools" }

-- What is no method is a tool.
function meta.__index(_, name)
  if methods[name] then return methods[name] end
  if type(name) ~= "string" or not shelf.find(name) then return nil end
  return function(self, parameters, more) return methods.call(self, name, parameters, more) end
end

-- A policy, or the path of one, over every call.
local function reviewer(given)
  if type(given) == "string" then given = policy.read(given) end
  return function(plan, final)
    local decision = policy.judge(given, plan)
    if final or not decision.allowed then
      local words = decision.allowed and "allowed" or "refused"
      log[decision.allowed and "info" or "warn"]("policy.decision", ("tool: policy %s (%s): %s"):format(decision.policy,
        decision.mode, words), { policy = decision.policy, mode = decision.mode, decision = words, image = plan.image,
        rules = #decision.broken > 0 and table.concat(decision.broken, ",") or nil })
    end
    if decision.allowed then return end
    err.raise("refused", ("policy %s refuses: %s"):format(decision.policy, policy.words(decision)),
      { code = "PERMISSION", rules = decision.broken })
  end
end

--- `box.open(engine_of, options)`: see worker.tools.open; engine_of(conf) gives the engine.
function box.open(engine_of, options)
  local conf, problems = schema.check(fields.with(), options.engine or {}, nil, "engine", { env = function() end })
  if not conf then err.raise("config", tostring(problems[1])) end
  return setmetatable({
    conf = conf, engine = engine_of(conf), sandbox = options.sandbox, review = options.policy and reviewer(options.policy),
    output_most = options.output or OUTPUT_MOST, entries = {}, ended = {},
    settings = { workspaces = { ["*"] = options.workspace }, user = options.user, network = options.network,
      search_url = options.search_url },
  }, meta)
end

-- One task ------------------------------------------------------------------------------------------------

local function seconds_of(timeout)
  if timeout == nil then return nil end
  return time.parse_duration(timeout) or err.raise("refused", "timeout: expected a duration like \"30s\"",
    { code = "INVALID_ARGUMENT" })
end

-- What a program says, as the task of an orchestrator that it stands for.
local function job_of(self, asked)
  local order = setmetatable({}, { __index = asked })
  local seconds, settings = seconds_of(asked.timeout), self.settings
  order.timeout_ns = seconds and seconds * NANO or asked.timeout_ns
  if asked.workspace then
    settings = setmetatable({ workspaces = { ["*"] = asked.workspace } }, { __index = self.settings })
  end
  return tasks.job(order, settings)
end

-- Where its output goes, up to a ceiling; what is too much ends it.
local function collector(most)
  local parts, bytes = { stdout = {}, stderr = {} }, 0
  local function write(stream, text)
    bytes = bytes + #text
    if bytes > most then err.raise("limit", ("the tool has more than %s to say"):format(time.format_size(most))) end
    if parts[stream] then table.insert(parts[stream], text) end
  end
  return write, function(stream) return table.concat(parts[stream]) end
end

local function failure_of(why)
  if err.is(why, "cancelled") then return { state = "cancelled", reason = tostring(why.reason or "cancelled") } end
  return { state = "error", reason = tostring(why), code = err.is(why) and why.code or nil, error = why }
end

-- As the driver does: policies look first.
local function in_container(self, job, ctx)
  if ctx.review then ctx.review(run.plan(self.engine, self.conf, job, ctx), false) end
  return run.job(self.engine, self.conf, job, ctx, self.sandbox)
end

local function run_job(self, job)
  local write, text_of = collector(self.output_most)
  local ctx = { id = job.id, env = {}, limits = job.limits, secrets = {}, grace = GRACE, log = write, note = function() end,
    review = self.review }
  local began = sys.mono()
  local ok, done, result = pcall(task.within, job.timeout, in_container, self, job, ctx)
  if not ok then
    result = failure_of(done)
  elseif not done then
    result = { state = "timeout", reason = "ran longer than " .. time.format_duration(job.timeout) }
  end
  result.id, result.tool, result.duration = job.id, job.tool, sys.mono() - began
  result.stdout, result.stderr = text_of "stdout", text_of "stderr"
  return result
end

-- Several, by id ------------------------------------------------------------------------------------------

local function entry_of(self, id)
  return self.entries[id] or err.raise("gone", ("there is no task '%s' here"):format(tostring(id)))
end

local function forget(self, id)
  self.entries[id] = nil
  for i, other in ipairs(self.ended) do
    if other == id then return table.remove(self.ended, i) end
  end
end

local function begin(self, asked)
  if self.closed then err.raise("refused", "the tools are closed") end
  local job = job_of(self, asked)
  if self.entries[job.id] then err.raise("refused", ("there is a task '%s' already"):format(job.id)) end
  local entry = { id = job.id, tool = job.tool, state = "running", started = sys.wall(), began = sys.mono() }
  self.entries[job.id] = entry
  entry.handle = task.start(function()
    entry.result = run_job(self, job)
    entry.state, entry.seconds = entry.result.state, entry.result.duration
    self.ended[#self.ended + 1] = job.id
    if #self.ended > KEPT then forget(self, self.ended[1]) end
  end)
  return entry
end

--- `box:start(task)`: begin a task (see execute); its id.  Raises kind "refused" when it cannot be.
function methods:start(asked)
  return begin(self, asked).id
end

--- `box:status(id)`: { id=, tool=, state=, started=, seconds= }; the state is "running" or how it ended.
function methods:status(id)
  local entry = entry_of(self, id)
  return { id = id, tool = entry.tool, state = entry.state, started = entry.started,
    seconds = entry.seconds or sys.mono() - entry.began }
end

--- `box:running()`: the ids of the tasks that run.
function methods:running()
  local ids = {}
  for id, entry in pairs(self.entries) do
    if not entry.result then ids[#ids + 1] = id end
  end
  table.sort(ids)
  return ids
end

--- `box:wait(id)`: its result, once it has ended; then the box forgets the task.
function methods:wait(id)
  local entry = entry_of(self, id)
  entry.handle:join()
  forget(self, id)
  -- one that was ended before it began has said nothing
  return entry.result or { id = id, tool = entry.tool, state = "cancelled", stdout = "", stderr = "" }
end

--- `box:cancel(id)`: end a task; returns when its container is gone: true, or false when it had ended
-- by itself.
function methods:cancel(id)
  local entry = entry_of(self, id)
  local ended = entry.result ~= nil
  if not ended then entry.handle:cancel "cancelled" end
  entry.handle:join()
  entry.state = entry.result and entry.result.state or "cancelled"
  return not ended and entry.state == "cancelled"
end

--- `box:execute(task)`: the result of a task: state ("success", "failed", "timeout", "cancelled", "error"),
-- exit_code, stdout, stderr, reason, duration.  The task: tool, parameters (by name) or arguments (a
-- list), workspace, timeout ("60s"), environment, working_directory, input_data, id.  It ends with its
-- caller.
function methods:execute(asked)
  local entry = begin(self, asked)
  local _ <close> = setmetatable({}, { __close = function()
    entry.handle:cancel "cancelled"
    task.shield(entry.handle.join, entry.handle)
    forget(self, entry.id)
  end })
  entry.handle:join()
  return entry.result
end

-- What there is to say about a failure: what the program said, most of all.
local function words_of(result)
  for _, text in ipairs { result.stderr, result.state == "failed" and result.stdout or "", result.reason or "" } do
    local words = text:match("^%s*(.-)%s*$")
    if words ~= "" then return words end
  end
  return result.state
end

--- `box:call(tool, parameters, more)`: what box:TOOL(parameters, more) is: what the tool prints.  Raises
-- kind "tool" with the `result` when it does not succeed; more: other fields of the task.
function methods:call(name, parameters, more)
  local asked = { tool = name, parameters = parameters or {} }
  for key, value in pairs(more or {}) do asked[key] = value end
  local result = self:execute(asked)
  if result.state == "success" then return result.stdout end
  if result.error and err.is(result.error, "refused") then error(result.error, 0) end
  err.raise("tool", ("%s: %s"):format(name, words_of(result)), { result = result, state = result.state })
end

--- `box:close()`: end what still runs.
function methods:close()
  self.closed = true
  for _, id in ipairs(self:running()) do task.shield(methods.cancel, self, id) end
  self.engine:close()
end
meta.__close = methods.close

return box
