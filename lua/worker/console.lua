-- console.lua: what a person sees while the worker runs.
--
-- On a terminal: a line for each job that ended and, below, one per running job that changes in place.
-- Both have the same columns, so that nothing jumps when a job ends: state, job, time, and then what is
-- to be said (last line of output, exit code, reason).  Elsewhere: plain log lines, one when a job
-- starts and one when it ends.  Both end with a summary.
local log = require "worker.log"
local log_core = require "worker.core.log"
local sys = require "worker.core.sys"
local task = require "worker.task"
local text = require "worker.text"
local time = require "worker.time"

local console = {}

local REDRAW = 0.1
local ROWS_MOST = 12
local STDERR = 2
local NARROW = 60           -- below so many columns the job's name gets less room
local WHOLE = 80            -- columns of the line of a job that ended, however narrow the terminal
local NAME_WIDE, NAME_NARROW = 20, 12
local MARK, TIME = 9, 6

local MARKS = {
  success = { "ok", "32" }, failed = { "failed", "31" }, timeout = { "timeout", "33" },
  cancelled = { "cancelled", "33" }, lost = { "lost", "35" }, oom = { "oom", "31" },
  error = { "error", "31;1" }, running = { "running", "2" },
}

local methods = {}
local meta = { __index = methods, __name = "worker.console" }

--- `console.new(events, options)`: options: terminal = bool, color = bool.
function console.new(events, options)
  local self = setmetatable({
    events = events, terminal = options.terminal, color = options.color,
    running = {}, order = {}, drawn = 0, began = sys.mono(), width = 80,
  }, meta)
  self:attend()
  return self
end

--- `console:attend()`: listen from now on, if there is anything to be shown; asked again when the log has
-- another level.
function methods:attend()
  if self.attends or not (self.terminal or log.shows "info") then return end
  self.attends = true
  self.events:listen(function(_, facts) self:job_started(facts) end, { "job.started" })
  self.events:listen(function(_, facts) self:job_finished(facts) end, { "job.finished" })
end

local function painted(self, code, words)
  return self.color and ("\27[%sm%s\27[0m"):format(code, words) or words
end

-- As exact as a person wants it: 7ms, 1.2s, 42s, 4m10s; whole seconds while it still counts.
local function elapsed(seconds, counting)
  if counting and seconds < 10 then return ("%ds"):format(math.floor(seconds)) end
  if seconds < 1 then return ("%dms"):format(math.floor(seconds * 1000)) end
  if seconds < 10 then return ("%.1fs"):format(seconds) end
  return time.age(seconds)
end

-- What a job's end says: "exit 3", "ran longer than 30 s".
local function ending(result)
  local words = {}
  if result.signal then
    words[#words + 1] = "signal " .. tostring(result.signal)
  elseif result.exit_code and result.exit_code ~= 0 then
    words[#words + 1] = ("exit %d"):format(result.exit_code)
  end
  if result.reason and result.state ~= "failed" then words[#words + 1] = result.reason end
  return table.concat(words, "  ")
end

-- Lines on a terminal ------------------------------------------------------------------------------

-- Neither a job's output nor its name is ours: nothing of them may move the cursor, be it one of the
-- control characters beyond ASCII (U+0080 to U+009F).
local function harmless(line)
  return (text.strip_ansi(text.repair(line)):gsub("%c", " "):gsub("\xc2[\x80-\x9f]", " "))
end

-- One job in a line.  The end of a long name is where names differ, so that is what stays.
local function line_of(self, state, id, took, words)
  local columns = self.width < NARROW and NAME_NARROW or NAME_WIDE
  local name = harmless(id)
  if text.width(name) > columns then name = "…" .. text.cut(name, columns - 1, "tail") end
  local mark = MARKS[state]
  local rest = text.pad(name, columns) .. "  " .. text.pad(took, TIME, "right")
    .. (words ~= "" and "  " .. harmless(words) or "")
  -- A live line must not wrap, or it could not be taken back; the end of a job may, to be read whole.
  local live = state == "running"
  rest = text.fit(rest, math.max(1, (live and self.width or math.max(self.width, WHOLE)) - MARK - 4))
  if live then return "  " .. painted(self, mark[2], text.pad(mark[1], MARK) .. " " .. rest) end
  return "  " .. painted(self, mark[2], text.pad(mark[1], MARK)) .. " " .. rest
end

local function erase_sequence(rows)
  return rows > 0 and ("\27[%dA\r\27[J"):format(rows) or ""
end

--- `console:clear()`: take the live lines off the screen.
function methods:clear()
  if self.drawn > 0 and log_core.overlay("") then
    io.stderr:write(erase_sequence(self.drawn))
  end
  self.drawn = 0
end

--- `console:draw()`: put the live lines on the screen.
function methods:draw()
  self:clear()
  self.width = sys.terminal_width(STDERR) or 80
  local lines = {}
  for _, row in ipairs(self.order) do
    if #lines == ROWS_MOST then
      lines[#lines + 1] = painted(self, "2", ("  ... and %d more"):format(#self.order - ROWS_MOST))
      break
    end
    lines[#lines + 1] = line_of(self, "running", row.job.id, elapsed(sys.mono() - row.began, true),
      row.ctx:last_line() or "")
  end
  if #lines == 0 then return end
  io.stderr:write(table.concat(lines, "\n"), "\n")
  self.drawn = #lines
  log_core.overlay(erase_sequence(self.drawn))
end

--- `console:run()`: keep the live lines fresh, until cancelled.
function methods:run()
  local _ <close> = setmetatable({}, { __close = function() self:clear() end })
  self.woken = task.signal()
  while true do
    if #self.order == 0 then self.woken:wait() end
    self:draw()
    task.sleep(REDRAW)
  end
end

-- Events -------------------------------------------------------------------------------------------

function methods:job_started(facts)
  if not self.terminal then
    if facts.told or not log.shows "info" then return end
    log.info("job.started", ("job %s started"):format(facts.job.id),
      { server = facts.server, job = facts.job.id })
    return
  end
  local row = { job = facts.job, ctx = facts.ctx, began = sys.mono() }
  self.running[facts.job] = row
  self.order[#self.order + 1] = row
  if self.woken then self.woken:fire() end
end

function methods:job_finished(facts)
  local result = facts.result
  if not self.terminal then
    if facts.told or not log.shows "info" then return end
    log.info("job.finished", ("job %s: %s  %s  %s"):format(facts.job.id, result.state,
      elapsed(result.duration or 0), ending(result)):gsub("%s+$", ""), {
      server = facts.server, job = facts.job.id, state = result.state, exit_code = result.exit_code,
      signal = result.signal, dur_ms = math.floor((result.duration or 0) * 1000),
    })
    return
  end
  local row = self.running[facts.job]
  self.running[facts.job] = nil
  for i, other in ipairs(self.order) do
    if other == row then
      table.remove(self.order, i)
      break
    end
  end
  self:clear()
  self.width = sys.terminal_width(STDERR) or 80
  -- Why a job failed is mostly in its last line.
  local words = ending(result)
  local last = result.state == "failed" and facts.ctx and facts.ctx:last_line()
  if last and last ~= "" then words = words .. "  " .. last end
  io.stderr:write(line_of(self, result.state, facts.job.id, elapsed(result.duration or 0), words), "\n")
end

--- `console:summary(ended)`: how it all went, in a line; ended: how many jobs ended in each state.
function methods:summary(ended)
  local words, total = {}, 0
  for _, state in ipairs { "success", "failed", "timeout", "oom", "cancelled", "lost", "error" } do
    local count = ended[state]
    if count then
      words[#words + 1] = ("%d %s"):format(count, state)
      total = total + count
    end
  end
  if total == 0 then return "no jobs were run" end
  return ("%d job%s in %s: %s"):format(total, total == 1 and "" or "s",
    elapsed(sys.mono() - self.began), table.concat(words, ", "))
end

return console
