-- process.lua: running programs.
--
-- A child is the leader of a session of its own.  Its tree is everything that descends from it,
-- setsid or not: the processes in its control group when it was given one, else what the worker,
-- as the reaper of its orphans, finds.  Leaving the block of a `local child <close>` kills the tree
-- and reaps the leader, whatever the reason for leaving.
local core = require "worker.core.process"
local err = require "worker.error"
local sys = require "worker.core.sys"
local task = require "worker.task"

local process = {}

local DRAIN = 1 -- seconds that others may go on writing after the leader has exited
local GRACE = 10
local NOTHING = {}

local methods = {}
local meta = { __index = methods, __name = "worker.process" }

--- `process.spawn(options) -> child`: start a program; waits until its exec has succeeded, else
-- raises kind "spawn" with `code`, `name` ("ENOENT") and `step` ("exec /bin/foo").  Options:
-- `argv` (a name without a slash is looked for in the PATH of `env`), `env` (a table, or a list of
-- tables that make one as in process.env; the child gets exactly this), `cwd`, `stdin` (a string of
-- any size; `true` for child:write; else /dev/null), `merge` (stderr into stdout), `output_limit`
-- (bytes per stream; the rest is read and dropped), `rlimits` ({ nofile = 1024, cpu = { 60, 65 },
-- core = "unlimited" }: one number, or soft and hard; a lower limit that may not be raised stays),
-- `umask`, `user`, `group`, `nice`, `oom_score_adj`, `pdeathsig` (false: it may outlive the worker),
-- `new_privileges` (false: set-uid programs gain nothing), `cgroup` (a group; without one the
-- environment gets one more entry, WORKER_JOB_TAG, by which the child's descendants are found).
function process.spawn(options)
  local handle, pid = core.spawn(options)
  return setmetatable({
    handle = handle, cgroup = options.cgroup, pid = pid,
    leaked = false, waited = false, closed = false, ending = false,
  }, meta)
end

-- The tree ---------------------------------------------------------------------------------------

local function signal_tree(child, signo)
  if child.cgroup then
    return child.cgroup:populated() and child.cgroup:signal(signo) > 0
  end
  return child.handle:signal(signo, true)
end

local function end_tree(child)
  if not child.cgroup then return child.handle:end_tree() end
  while child.cgroup:populated() do
    child.cgroup:kill()
    child.cgroup:wait()
  end
end

-- The end of the leader is an event; that of the others, without a control group, is not.
local function wait_tree(child)
  child.handle:wait()
  local pause = 0.005
  while signal_tree(child, 0) do
    task.sleep(pause)
    pause = math.min(pause * 2, 0.1)
  end
end

local function number(signal)
  local signo = math.type(signal) == "integer" and signal
    or core.signals[(tostring(signal):upper():gsub("^SIG", ""))]
  return signo or error(("there is no signal '%s'"):format(tostring(signal)), 3)
end

-- The child --------------------------------------------------------------------------------------

--- `child:output([drain])`: an iterator over what the child writes: `for stream, text in
-- child:output() do`.  `stream` is "stdout" or "stderr"; `text` is a piece of any bytes, at most
-- 64 KiB, cut anywhere.  While nobody asks, the child waits.  It ends when both streams do, or
-- `drain` seconds (1) after the leader's exit when something else still holds them open: then
-- `child.leaked` is true.
function methods:output(drain)
  drain = drain or DRAIN
  return function()
    while true do
      local stream, text, dropped = self.handle:read(drain)
      if not stream then
        self.leaked, self.dropped = text, dropped
        return nil
      end
      if text ~= "" then return stream, text end
    end
  end
end

local function result_of(code, signal, core_dumped, cpu, user, system, wall, peak_memory)
  return {
    code = code, signal = signal, core = core_dumped, exit_code = signal and 128 + signal or code,
    usage = { cpu = cpu, user = user, system = system, wall = wall, peak_memory = peak_memory },
  }
end

--- `child:wait() -> result`: wait for the leader's exit.  `result` has `code` (nil when a signal
-- ended it), `signal`, `core`, `exit_code` (128 + signal in that case), and `usage` with `cpu`,
-- `user`, `system`, `wall` in seconds and `peak_memory` in bytes (never less than the worker's own
-- peak: the kernel hands it down).  Output that nobody reads can keep a child from exiting.
function methods:wait()
  local result = result_of(self.handle:wait())
  self.waited = true
  return result
end

--- `child:exit() -> code, signal, core, cpu, wall, peak_memory`: the same in as many values, for who makes
-- a result of his own of them.
function methods:exit()
  local code, signal, core_dumped, cpu, _, _, wall, peak_memory = self.handle:wait()
  self.waited = true
  return code, signal, core_dumped, cpu, wall, peak_memory
end

--- `child:write(text) -> boolean`: write to its stdin (`stdin = true`); waits while the child does
-- not read; false when it has closed its end.
function methods:write(text)
  return self.handle:write(text)
end

--- `child:finish_input()`: the end of its stdin.
function methods:finish_input()
  self.handle:shut()
end

--- `child:kill(signal, whom) -> boolean`: send a signal ("TERM", "SIGTERM" or 15) to the "leader"
-- (the default) or the whole "tree"; whether somebody was there to get it.
function methods:kill(signal, whom)
  local signo = number(signal or "KILL")
  if whom == nil or whom == "leader" then return self.handle:signal(signo, false) end
  if whom ~= "tree" then error('child:kill: expected "leader" or "tree"', 2) end
  return signal_tree(self, signo)
end

--- `child:stop{ signal = "TERM", grace = 10 } -> result`: end it in two stages: the signal for the
-- whole tree, and CONT, since what is suspended hears nothing; then, when `grace` seconds have passed
-- and something is left, KILL for all of it, until nothing is.
function methods:stop(options)
  options = options or {}
  signal_tree(self, number(options.signal or "TERM"))
  signal_tree(self, core.signals.CONT)
  task.within(options.grace or GRACE, wait_tree, self)
  end_tree(self)
  return result_of(self.handle:wait())
end

--- `child:close()`: the immediate form, which leaving a block does: KILL for the whole tree, and
-- the leader is reaped.
function methods:close()
  local handle <close> = self.handle
  if self.closed then return end
  self.closed = true
  end_tree(self)
  if not self.waited then handle:wait() end
end

--- `child:done()`: it has ended by itself: what process.ending asked for is not needed any more.
function methods:done()
  self.ending = false
end

function meta:__close()
  if self.closed then return end
  if not self.ending then return self:close() end
  local ok, why = pcall(self.stop, self, self.ending)
  self:close()
  if not ok then error(why, 0) end
end

function meta:__tostring()
  return ("%s, pid %d"):format(tostring(self.handle), self.pid)
end

--- `process.ending(child, { signal=, grace= }) -> child`: leaving the child's block early ends it in two
-- stages instead of at once: see child:stop.  Call `child:done()` when it has ended by itself.  It is given
-- back to be closed before what was opened since it began and has to last until its end.
function process.ending(child, options)
  child.ending = options or NOTHING
  return child
end

-- Words around it --------------------------------------------------------------------------------

--- `process.env(base, overrides, ...) -> table`: one environment of several, any of them may be nil; what
-- comes later wins, and a value of false takes a variable out.
process.env = core.env

--- `process.check_env(env)`: nil, or what of these names and values no process can have.
function process.check_env(env)
  for name, value in pairs(env) do
    if not name:find("^[^=%z]+$") then return ("%q cannot name a variable"):format(name) end
    if value:find("\0", 1, true) then return ("the value of %s has a NUL byte"):format(name) end
  end
end

--- `process.inherited(name)`: a variable of the worker's own environment, or nil.
process.inherited = sys.env

--- `process.user([name])`: a user of this machine, by name or number, or the worker's own:
-- { name, uid, gid, home }; nil when there is none.
process.user = sys.user

local names = {}
for name, signo in pairs(core.signals) do names[signo] = "SIG" .. name end

--- `process.signal_name(number) -> "SIGTERM"`: or "signal 40" for those that have none.
function process.signal_name(signo)
  return names[signo] or ("signal " .. signo)
end

--- `process.exit_reason(result) -> text`: a result for a person: "exit code 3", "killed by SIGSEGV
-- (core dumped)".
function process.exit_reason(result)
  if not result.signal then return ("exit code %d"):format(result.code) end
  local core_dumped = result.core and " (core dumped)" or ""
  return "killed by " .. process.signal_name(result.signal) .. core_dumped
end

--- `process.run(options) -> result`: spawn, read everything, wait: for small helpers.  The result
-- has `stdout` and `stderr` too.  More than `output_limit` bytes (1 MiB) of one of them raise kind
-- "limit".
function process.run(options)
  local most = options.output_limit or 1 << 20
  local copy = setmetatable({}, getmetatable(options) ~= nil and { __index = options } or nil)
  for name, value in pairs(options) do copy[name] = value end
  copy.output_limit = most + 1
  local child <close> = process.spawn(copy)
  local pieces, sizes = { stdout = {}, stderr = {} }, { stdout = 0, stderr = 0 }
  for stream, text in child:output() do
    table.insert(pieces[stream], text)
    sizes[stream] = sizes[stream] + #text
    if sizes[stream] > most then
      err.raise("limit",
        ("%s wrote more than %d bytes to %s"):format(options.argv[1], most, stream))
    end
  end
  local result = child:wait()
  result.stdout, result.stderr = table.concat(pieces.stdout), table.concat(pieces.stderr)
  return result
end

return process
