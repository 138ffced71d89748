-- What a step says to the server on its stdout:
--
--   OUTPUT: <JSON>          its result; the last valid one counts, and is handed on byte for byte
--   STATE: {...}            for the next run of the task; GLOBAL_STATE: for all of the workspace
--
-- Only lines that begin so at their first column.
local json = require "worker.json"
local retry = require "worker.retry"
local task = require "worker.task"
local text = require "worker.text"

local output = {}

-- The body of a report may have 2 MiB in all; the server reads to a depth of 128.
local VALUE_MOST = 1900 * 1024
local DEPTH_MOST = 120
local SAFE = { depth = DEPTH_MOST, no_nul = true }

local methods = {}
local meta = { __index = methods }

-- Once a step: it may print such lines for people, thousands of them.
local function complain(self, what, why)
  if self.complained[what] then return end
  self.complained[what] = true
  self.note(("a line %s was ignored: %s"):format(what, text.sample(why, 200)))
end

local function take_output(self, value)
  local ok, why = json.valid(value, SAFE)
  if not ok then return complain(self, "OUTPUT:", why) end
  if self.emit then self.emit(value) end
  self.value = value
end

local function take_state(self, name, value)
  local ok, decoded = task.try(json.decode, value, { depth = DEPTH_MOST, no_nul = true, null = json.null })
  if not ok or type(decoded) ~= "table" or json.is_array(decoded) or json.is_special(decoded) and not next(decoded) then
    return complain(self, name == "state" and "STATE:" or "GLOBAL_STATE:", ok and "no object" or tostring(decoded))
  end
  local merged = self.states[name] or json.object {}
  for key, item in pairs(decoded) do merged[key] = item end
  self.states[name] = merged
end

local PREFIXES = { { "OUTPUT:", nil }, { "STATE:", "state" }, { "GLOBAL_STATE:", "global_state" } }

local function take_line(self, line, too_long)
  for _, prefix in ipairs(PREFIXES) do
    local word, state = prefix[1], prefix[2]
    if line:sub(1, #word) == word then
      if too_long then return complain(self, word, ("it is longer than %d bytes"):format(VALUE_MOST)) end
      if state then return take_state(self, state, line:sub(#word + 1)) end
      return take_output(self, line:sub(#word + 1))
    end
  end
end

-- A line that was too long comes in parts: only its first part can begin with a word of ours.
local function take_lines(self, lines, cut)
  for i, line in ipairs(lines or {}) do
    local too_long = cut ~= nil and cut[i] == true
    if not self.within then take_line(self, line, too_long) end
    self.within = too_long
  end
end

--- `watch:finish()`: the last line may have no end; the step's output as it was written, or nil.
function methods:finish()
  if self.lines then take_lines(self, self.lines:finish()) end
  self.lines = nil
  return self.value
end

-- The lines of an event source each start a task: sent as they come, the step waits meanwhile.
local function emitter(api, job, note)
  local source = job.events
  if not source then return nil end
  return function(value)
    local input = json.object {}
    for key, item in pairs(type(source.input_defaults) == "table" and source.input_defaults or {}) do input[key] = item end
    local payload = json.decode(value, { null = json.null })
    if type(payload) == "table" and not json.is_array(payload) and not json.is_special(payload) then
      for key, item in pairs(payload) do input[key] = item end
    end
    local ok, why = task.try(retry.call, function()
      api:post("/worker/event-source/emit", { json = {
        workspace = job.workspace, task = source.target_task, source_id = source.source_id, input = input,
      } })
    end, { tries = 5, first = 0.5 })
    if not ok then note("an event could not be sent: " .. tostring(why)) end
  end
end

--- `output.watch(api, job, ctx)`: look for such lines in what the job prints, from now on; what is found:
-- `states`, and the output from `watch:finish()`.
function output.watch(api, job, ctx)
  local watch = setmetatable({
    lines = text.lines(VALUE_MOST), states = {}, complained = {}, note = ctx.note,
    emit = emitter(api, job, ctx.note),
  }, meta)
  local log = ctx.log
  function ctx.log(stream, data)
    if stream == "stdout" and watch.lines then take_lines(watch, watch.lines:feed(data)) end
    log(stream, data)
  end
  return watch
end

return output
