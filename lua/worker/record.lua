-- record.lua: what this worker has claimed and not yet reported, across crashes.
--
-- A claim is written before the job may start, its start before the first process, its result
-- before the first report; all of it is forgotten once the server has taken the result.  After a
-- crash the next life of the worker reports what is left: a result that was not delivered is
-- delivered, a job that had started is an `error`, one that had not starts now.
--
-- Where the server hands out again by itself what a dead worker held (hands_out_again), only results
-- are written: of what had no result yet there would be nothing to say.  Where the protocol says what its
-- report is made of (brief), a result is written with that alone.
--
-- Every step is in the page cache before it counts (a kill -9 loses nothing); the disk is waited for
-- only by a result whose report did not succeed at once, or always with sync = "always".
local err = require "worker.error"
local fs = require "worker.fs"
local journal = require "worker.journal"
local json = require "worker.json"
local link = require "worker.link"
local log = require "worker.log"
local task = require "worker.task"

local record = {}

local PASSABLE = 457 -- 0711: the directories of jobs are in it, too, and they may run as others
local LAZY = { lazy = true }

local methods = { keeps = true }
local meta = { __index = methods, __name = "worker.record" }

-- A worker without a state directory keeps nothing.
local nothing = {
  keeps = false,
  claimed = function() end, started = function() end, result = function() end, telling = function() end,
  settle = function() end, forget = function() end, left = function() return {} end, close = function() end,
}

-- Everything in the journal when it is opened is of an earlier life.
local function leftovers_of(kept)
  local list, by_key = {}, {}
  for key, kind, payload in kept:live() do
    local ok, value = pcall(json.decode, payload)
    if ok and type(value) == "table" then
      local left = by_key[key]
      if not left then
        left = { server = key:match("^[^\0]*") }
        by_key[key], list[#list + 1] = left, left
      end
      left.job = left.job or value.job
      left.result = value.result or left.result
      if kind == "telling" then left.telling = value.now end
      left.started = left.started or kind ~= "claim"
    end
  end
  for i = #list, 1, -1 do
    if not list[i].job then table.remove(list, i) end
  end
  return list
end

--- `record.none()`: a record that keeps nothing.
function record.none() return nothing end

--- `record.open(conf)`: the record of a worker whose configuration names its state directory. Raises
-- kind "busy" when another worker uses that directory.
function record.open(conf)
  fs.mkdir(conf.state, { parents = true, mode = PASSABLE })
  local path = fs.join(conf.state, "journal")
  local ok, kept = pcall(journal.open, path)
  if ok then return record.new(kept, conf.journal) end
  if err.is(kept, "locked") then
    err.raise("busy", ("another worker already uses the state directory %s: give each its own with --state")
      :format(conf.state))
  end
  error(kept, 0)
end

--- `record.new(kept, options)`: on top of an open worker.journal; options.sync = "always" or nil.
function record.new(kept, options)
  local always = options and options.sync == "always"
  return setmetatable({ journal = kept, lazy = not always and LAZY or nil, leftovers = leftovers_of(kept) }, meta)
end

local function key_of(server, job) return server.name .. "\0" .. job.id end

-- Only data can be written down; what a plugin hung on the job besides (a handle, a function) cannot.
local function plain(value, depth)
  local kind = type(value)
  if kind == "string" or kind == "number" or kind == "boolean" then return value end
  if kind ~= "table" or depth > 16 then return nil end
  if getmetatable(value) ~= nil and json.is_special(value) then return value end
  local copy = {}
  for key, item in pairs(value) do
    if type(key) == "string" or math.type(key) == "integer" then copy[key] = plain(item, depth + 1) end
  end
  return copy
end

local function write(self, server, job, kind, value, sync)
  self.journal:put(key_of(server, job), kind, json.encode(value), not sync and self.lazy or nil)
end

local function write_plain(self, server, job, kind, value, sync)
  write(self, server, job, kind, plain(value, 0), sync)
end

local function journal_failed(why)
  if err.is(why, "cancelled") then error(why, 0) end
  log.error("journal.failed", "the journal could not be written: " .. tostring(why))
end

-- What has no JSON form is raised as plain text, what the disk says as an object.
local function put(self, server, job, kind, value, sync)
  local ok, why = pcall(write, self, server, job, kind, value, sync)
  if not ok and not err.is(why) then -- seldom: nearly all of them are data and nothing else
    ok, why = pcall(write_plain, self, server, job, kind, value, sync)
  end
  if not ok then journal_failed(why) end
end

-- What the report is made of, as the protocol says; without its word all there is.
local function brief_of(server, job, result)
  local ok, told, outcome = task.try(server.plugin.brief, job, result)
  if ok then return told, outcome end
  link.report_bug(server, "brief", told)
  return job, result
end

--- `record:claimed(server, job)`, `record:started(...)`, `record:result(server, job, result)`: how far
-- a job has come; each is written when the call returns.
function methods:claimed(server, job)
  if server.plugin.hands_out_again then return end
  put(self, server, job, "claim", { job = job })
end

function methods:started(server, job)
  if server.plugin.hands_out_again then return end
  put(self, server, job, "start", {})
end

function methods:result(server, job, result, sync)
  local told, outcome = job, result
  if server.brief and not server.wanted["job.reported"] then told, outcome = brief_of(server, job, result) end
  put(self, server, job, "result", { job = server.plugin.hands_out_again and told or nil, result = outcome }, sync)
end

--- `record:telling(server, job, now)`: for a protocol that may say it once only: its report is under way
-- (true), or did surely not arrive (false).
function methods:telling(server, job, now)
  put(self, server, job, "telling", { now = now })
end

--- `record:settle(server, job, result)`: the report did not succeed at once: from now on the result
-- has to survive a power cut, too.
function methods:settle(server, job, result)
  self:result(server, job, result, true)
end

--- `record:forget(server, job)`: the server has the result, or never will.
function methods:forget(server, job)
  local ok, why = pcall(self.journal.drop, self.journal, key_of(server, job), LAZY)
  if not ok then journal_failed(why) end
end

--- `record:left(server)`: what an earlier life left for this server, in the order of the claims: a
-- list of { job=, started=, result=, telling= }.  Handed out once: a second server of that name (after a
-- reload) has nothing to do with it.
function methods:left(server)
  local list, rest = {}, {}
  for _, left in ipairs(self.leftovers) do
    table.insert(left.server == server.name and list or rest, left)
  end
  self.leftovers = rest
  return list
end

function methods:close()
  self.journal:close()
end

return record
