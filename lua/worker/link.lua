-- link.lua: the link between one server and its protocol plugin: open, lose, open anew.
--
-- Whatever a plugin raises is judged here: again later, open anew, or stop working for this server.
local err = require "worker.error"
local log = require "worker.log"
local retry = require "worker.retry"
local sys = require "worker.core.sys"
local task = require "worker.task"
local time = require "worker.time"

local link = {}

local EXIT_UNAVAILABLE, EXIT_SOFTWARE, EXIT_AUTH, EXIT_CONFIG = 69, 70, 77, 78
local RUNAWAY_MOST, RUNAWAY_WITHIN = 3, 600

--- `link.emit(server, name, facts)`: an event of this server.  Its plugin hears of it first, and may say
-- that it has told it in the words of its own log: facts.told, which is returned.  What happens to every
-- job is only worth its facts where server.wanted[name].
function link.emit(server, name, facts)
  facts.server = server.name
  if server.plugin.heard then
    local ok, told = task.try(server.plugin.heard, server.conf, name, facts)
    if ok then facts.told = told == true else link.report_bug(server, "heard", told) end
  end
  server.events:emit(name, facts)
  return facts.told
end

--- `link.set_state(server, state)`: "opening", "ready" or "closed"; whoever waits for it wakes.
function link.set_state(server, state)
  server.state = state
  server.changed:fire(1 << 20)
end

-- What an error of the server means for us.
local function judge(why)
  if err.is(why, "gone") then return "gone" end
  if err.is(why, "http") and (why.status == 401 or why.status == 403) then return "refused" end
  if err.is(why, "grpc") and retry.classify(why) == "denied" then return "refused" end
  if err.is(why, "config") then return "refused" end
  return "later"
end

--- `link.fail_server(server, why, code)`: this server is given up; the worker ends with this code.
function link.fail_server(server, why, code)
  if server.failure then return end
  server.failure = why
  server.exit_code = code
  log.error("server.stopped", ("%s: %s; this server is given up"):format(server.name, tostring(why)),
    { server = server.name })
  server:drain("it is given up")
end

-- A plugin that computes without end stops every server until it is ended.  One that does so again and
-- again is not called any more, so that the others can work.
local function count_runaway(server, what, why)
  local now = sys.mono()
  server.runaways = server.runaways or {}
  table.insert(server.runaways, now)
  local first = server.runaways[#server.runaways - RUNAWAY_MOST + 1]
  if not first or now - first > RUNAWAY_WITHIN then return end
  server.runaway = true
  link.fail_server(server, ("%s: %s, %d times in %s; meanwhile nobody else could work"):format(what, tostring(why),
    RUNAWAY_MOST, time.format_duration(math.ceil(now - first))), EXIT_SOFTWARE)
end

--- `link.report_bug(server, what, why)`: a plugin that failed by itself is told with its traceback; one
-- that does not stop computing is given up the third time.
function link.report_bug(server, what, why)
  if err.is(why, "limit") and why.runaway then return count_runaway(server, what, why) end
  if err.kind(why) ~= "bug" then return end
  log.error("plugin.failed", ("%s: %s: %s"):format(server.name, what, tostring(why)),
    { server = server.name, traceback = type(why) == "table" and why.traceback or nil })
end

-- How long and how often opening is tried: the protocol's word, or for ever.
local function attempts(server)
  local patience = server.plugin.patience
  local ok, plan = task.try(patience or function() end, server.conf, server.self ~= nil)
  if not ok then link.report_bug(server, "patience", plan) end
  return retry.attempts(ok and plan or { first = 1, factor = 2, most = 60 })
end

--- `link.open(server)`: again and again until it works (true), the worker drains, the server refuses us
-- or the protocol's patience ends (false).
function link.open(server)
  for attempt in attempts(server) do
    local ok, self = task.try(server.plugin.open, server.conf, server.about)
    if ok then
      server.self = self == nil and {} or self
      server.trouble:worked { server = server.name }
      link.set_state(server, "ready")
      link.emit(server, "server.opened", { executors = server.executors:usable() })
      return true
    end
    link.report_bug(server, "open", self)
    if judge(self) == "refused" then
      link.fail_server(server, self, err.is(self, "config") and EXIT_CONFIG or EXIT_AUTH)
      return false
    end
    server.trouble:failed(self, { server = server.name })
    local delay = attempt:delay(err.is(self) and self.retry_after or nil)
    if not delay then
      link.fail_server(server, self, EXIT_UNAVAILABLE)
      return false
    end
    if not server:pause(delay) then return false end
  end
end

--- `link.reopen(server, seen, why)`: the server said that it does not know us: open anew, once, however
-- many tasks heard it; `seen` is what they talked to.
function link.reopen(server, seen, why)
  if server.self ~= seen then return end
  while server.state == "opening" do
    server.changed:wait()
    if server.self ~= seen then return end
  end
  log.info("server.reopening", ("%s: %s; opening anew"):format(server.name, tostring(why)), { server = server.name })
  link.set_state(server, "opening")
  if not link.open(server) and server.state == "opening" then link.set_state(server, "closed") end
end

--- `link.wait_ready(server)`: wait until it is open (true), or will not be.
function link.wait_ready(server)
  while server.state == "opening" and not server.draining do server.changed:wait() end
  return server.state == "ready"
end

--- `link.heard(server, what, why, seen)`: a call of the plugin failed: decide what that means.
function link.heard(server, what, why, seen)
  link.report_bug(server, what, why)
  if judge(why) == "gone" then
    link.reopen(server, seen, why)
  elseif judge(why) == "refused" and what ~= "log" then
    link.fail_server(server, why, EXIT_AUTH)
  else
    server.trouble:failed(why, { server = server.name }, what == "pulse" and "pulse" or "claim", what)
  end
end

return link
