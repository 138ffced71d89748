-- exit.lua: what the exit code of `worker` says.
--
-- 64 to 78 have their meaning from sysexits.h, because systemd prints those names; what only a
-- worker can say stands above.  `worker exec` ends with the code of its job instead.
local exit = {
  OK = 0, FAILED = 1, USAGE = 64, DATA = 65, UNAVAILABLE = 69, SOFTWARE = 70, OSERR = 71, IOERR = 74,
  TEMPFAIL = 75, PROTOCOL = 76, AUTH = 77, CONFIG = 78, CANCELLED = 80, PREEMPTED = 81, TWIN = 82,
  IDLE = 83, UNDELIVERED = 84,
}

exit.MEANINGS = {
  { 0, "all is well: drained, or done what was asked" },
  { 1, "something failed (a spec, a check)" },
  { 64, "the command line is wrong" },
  { 65, "the job given to `worker exec` is malformed" },
  { 69, "the orchestrator cannot be reached" },
  { 70, "a bug in the worker or in a plugin" },
  { 71, "no process can be started, or the system gives no memory" },
  { 74, "a file or disk fails" },
  { 75, "a passing problem: start again" },
  { 76, "the orchestrator says what nobody can read" },
  { 77, "the orchestrator refuses this worker: do not start again before that is mended" },
  { 78, "the configuration is wrong or missing" },
  { 80, "stopped, and running jobs were cancelled" },
  { 81, "stopped because the machine goes away" },
  { 82, "another instance has this identity" },
  { 83, "the limit for idling or uptime was reached" },
  { 84, "the end of a job could not be told; it is kept to be told later" },
}

local BY_KIND = {
  usage = exit.USAGE, data = exit.DATA, config = exit.CONFIG, transport = exit.UNAVAILABLE, http = exit.UNAVAILABLE,
  grpc = exit.UNAVAILABLE, gone = exit.UNAVAILABLE, wire = exit.PROTOCOL, spawn = exit.OSERR,
  cancelled = exit.CANCELLED, io = exit.IOERR, file = exit.IOERR,
}

--- `exit.of_kind(kind)`: the exit code for an error of this kind that nobody handled; nil for a bug.
function exit.of_kind(kind)
  return BY_KIND[kind]
end

return exit
