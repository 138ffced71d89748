-- local: a directory is the orchestrator.
--
--   DIR/inbox/NAME.{json,yaml,sh}    jobs to do; write elsewhere and rename into it
--   DIR/running/OWNER/NAME           what a worker has claimed, by renaming it here
--   DIR/running/OWNER/NAME.started   the id of a job that has started
--   DIR/running/OWNER/ID.out/        its output; once result.json is in it, the job is over
--   DIR/done/NAME/                   result.json, stdout.log, stderr.log and the job file
--   DIR/failed/NAME.ext              job files that cannot be run, with NAME.ext.reason beside them
--
-- Many workers may share one directory: a rename gives a file to exactly one of them.  Each holds a
-- lock while it lives; what a dead one leaves behind is taken over, at its start and now and then, by
-- another: a job that had not started goes back to the inbox, one that was over goes to done/, one in
-- between is reported as an error, since it must not run twice.  Whoever takes over may be killed, too:
-- each step can be made again.
local error = require "worker.error"
local fs = require "worker.fs"
local jobfile = require "worker.jobfile"
local json = require "worker.json"
local log = require "worker.log"
local retry = require "worker.retry"
local task = require "worker.task"
local text = require "worker.text"
local time = require "worker.time"

local local_ = { kind = "protocol", name = "local", api = 1 }

local_.doc = "A directory is the orchestrator: drop a job file in, a result comes out."

-- The directory itself says what is running and what is done.
local_.keeps_record = true

-- A claim that is broken off leaves at most a file of ours, which goes back to the inbox.
local_.claim_breaks = true

local_.config = {
  dir = { "path", default = "worker-jobs", doc = "The directory: jobs go into its inbox/." },
  once = { "boolean", default = false, doc = "Stop when the inbox is empty." },
}

local WATCH = 30      -- how long a claim waits for a file
local LOOK_AGAIN = 30 -- how often it is looked whether another worker has died

local LIST_FIRST = 10000

-- Beside it there must be room for the names of what belongs to it.
local NAME_MOST = 200

-- Moving ---------------------------------------------------------------------------------------------

-- "a.sh" is "a-2.sh" the second time, "a" is "a.2".
local function numbered_file(name, n) return (name:gsub("(%.%w+)$", ("-%d%%1"):format(n))) end
local function numbered(id, n) return ("%s.%d"):format(id, n) end

-- Into a folder that somebody may have taken away, beside a namesake, never over it.  Its name there, or
-- nil when there was nothing to move.
local function move_into(folder, from, name, number)
  local place, n = name, 1
  while true do
    local ok, why = fs.move(from, fs.join(folder, place))
    if ok then return place end
    if not fs.exists(from) then return nil end
    if why.name == "EEXIST" then
      n = n + 1
      place = number(name, n)
    else
      fs.mkdir(folder, { parents = true })
    end
  end
end

local function refuse(self, name, why)
  local kept = #name > NAME_MOST and text.cut(name, NAME_MOST - 20) .. text.sha256(name):sub(1, 16) or name
  local failed = fs.join(self.conf.dir, "failed")
  fs.mkdir(failed, { parents = true })
  fs.rename(fs.join(self.own, name), fs.join(failed, kept))
  fs.write(fs.join(failed, kept .. ".reason"), why .. "\n")
  log.warn("job.unreadable", ("%s cannot be run: %s"):format(name, why))
end

local function give_back(self, folder, name)
  move_into(self.inbox, fs.join(folder, name), name, numbered_file)
end

-- What has a result goes to done/.  A namesake may have been done meanwhile, by this worker or another:
-- then ours gets a number.
local function publish(self, folder, name, id)
  local out = fs.join(folder, id .. ".out")
  fs.rename(fs.join(folder, name), fs.join(out, name))
  move_into(fs.join(self.conf.dir, "done"), out, id, numbered)
  fs.remove(fs.join(folder, name .. ".started"))
end

-- What dead workers left ---------------------------------------------------------------------------

-- A job that had started: its end is the one it had, or that it was interrupted.
local function conclude(self, folder, name, id)
  local out = fs.join(folder, id .. ".out")
  local result = fs.join(out, "result.json")
  if not fs.exists(result) then
    if not fs.exists(out) and not fs.exists(fs.join(folder, name)) then return end -- it is in done/
    fs.mkdir(out, { parents = true })
    fs.write(result, json.encode {
      id = id, state = "error", reason = "the worker was interrupted while the job ran",
    } .. "\n")
    log.warn("job.interrupted", ("job %s was running when its worker died; it is not run again"):format(id))
  end
  publish(self, folder, name, id)
end

-- The marker of a job that had started holds its id; an empty one was just being written.  Returns how
-- many jobs are in the inbox again.
local function adopt(self, folder)
  local names, given = fs.list(folder) or {}, 0
  for _, marker in ipairs(names) do
    local name = marker:match("^(.*)%.started$")
    local id = name and fs.read(fs.join(folder, marker))
    if id and id ~= "" then conclude(self, folder, name, id) end
  end
  for _, name in ipairs(names) do
    if jobfile.is(name) and fs.exists(fs.join(folder, name)) then
      give_back(self, folder, name)
      given = given + 1
    end
  end
  -- What is not gone now (somebody else looked at it) is so the next time.
  task.try(fs.remove_tree, folder)
  return given
end

-- A folder that is just being made has its lock before its name, but not from the beginning.
local function may_be_dead(self, folder)
  if folder == self.own then return false end
  return fs.base(folder):find("^worker%-") or fs.exists(fs.join(folder, ".lock"))
end

-- The lock of a dead one; what another user has made is not ours to look at.
local function lock_of_dead(self, folder)
  local ok, lock = task.try(function()
    return may_be_dead(self, folder) and fs.lock(fs.join(folder, ".lock"))
  end)
  return ok and lock or nil
end

local function adopt_from_the_dead(self)
  local running, given = fs.join(self.conf.dir, "running"), 0
  self.looked = time.mono()
  for _, owner in ipairs(fs.list(running) or {}) do
    local folder = fs.join(running, owner)
    local lock <close> = lock_of_dead(self, folder)
    if lock then given = given + adopt(self, folder) end
  end
  return given
end

-- A folder of our own, which has its name only once it is locked: one without a lock would be taken
-- for a dead worker's by another that looks in the same moment.
local function own_folder(self)
  local running = fs.join(self.conf.dir, "running")
  local made, lock
  repeat
    made = fs.temp_dir(fs.join(running, "new-"))
    lock = fs.lock(fs.join(made, ".lock"))
  until lock
  self.own, self.lock = fs.join(running, "worker-" .. made:match("[^-]*$")), lock
  fs.rename(made, self.own)
end

-- All the places there have to be, some of which somebody may have taken away.
local function furnish(self)
  for _, name in ipairs { "inbox", "running", "done", "failed" } do
    fs.mkdir(fs.join(self.conf.dir, name), { parents = true })
  end
  if not self.own or not fs.exists(fs.join(self.own, ".lock")) then own_folder(self) end
  local before = self.watch
  self.watch = fs.watch(self.inbox)
  if before then before:close() end
end

-- Claiming -------------------------------------------------------------------------------------------

-- Some at a time; but what is no job file must not hide those that are.
local function inbox_of(self)
  local names, most = {}, LIST_FIRST
  repeat
    local list, more = fs.list(self.inbox, { most = most })
    for _, name in ipairs(list or {}) do
      if jobfile.is(name) then names[#names + 1] = name end
    end
    most = most * 10
  until #names > 0 or list == nil or not more
  table.sort(names, function(a, b) return a > b end) -- taken from the end
  return names
end

-- Two files a.sh and a.json, or one dropped again later, must not share a result.
local function fresh_id(self, name)
  local base = name:gsub("%.%w+$", "")
  local id, n = base, 1
  while self.taken[id] or fs.exists(fs.join(self.conf.dir, "done", id)) do
    n = n + 1
    id = numbered(base, n)
  end
  return id
end

-- A link is not followed: it may lead to what its maker may not read, but we may.
local function read(self, name)
  local path = fs.join(self.own, name)
  if #name > NAME_MOST then
    error.raise("config", ("its name has %d bytes, %d are allowed"):format(#name, NAME_MOST))
  end
  if fs.lstat(path).type == "link" then error.raise("config", name .. ": it is a link, not a file") end
  return jobfile.read(path)
end

-- What cannot be read now (no descriptor is free) may be read later: that is no fault of the file.
local function read_or_refuse(self, name)
  local ok, job = task.try(read, self, name)
  if ok then return job end
  if retry.classify(job) == "retry" then
    give_back(self, self.own, name)
    error.raise(job.kind, job.message, job)
  end
  refuse(self, name, tostring(job))
end

-- One file from the inbox becomes ours, or somebody else was faster.
local function take(self, waiting)
  if not fs.exists(fs.join(self.own, ".lock")) then furnish(self) end
  local name = move_into(self.own, fs.join(self.inbox, waiting), waiting, numbered_file)
  local job = name and read_or_refuse(self, name)
  if not job then return nil end
  job.id, job.file, job.home = fresh_id(self, waiting), name, self.own
  job.out = fs.join(job.home, job.id .. ".out")
  self.taken[job.id] = true
  return job
end

local function next_job(self)
  while true do
    if #self.names == 0 then self.names = inbox_of(self) end
    if #self.names == 0 then return nil end
    local job = take(self, table.remove(self.names))
    if job then return job end
  end
end

function local_.claim(self)
  if time.mono() - self.looked >= LOOK_AGAIN then adopt_from_the_dead(self) end
  repeat
    local job = next_job(self)
    if job then return job end
  until not self.conf.once or adopt_from_the_dead(self) == 0
  if self.conf.once then return "end" end
  if self.watch:wait(WATCH) == "gone" or not fs.exists(self.inbox) then furnish(self) end
  return nil, 0 -- it has waited already: whoever paused now would not see what is dropped
end

-- The contract -----------------------------------------------------------------------------------------

function local_.open(conf)
  local self = {
    conf = conf, inbox = fs.join(conf.dir, "inbox"), names = {}, taken = {}, marked = {}, logs = {},
  }
  furnish(self)
  adopt_from_the_dead(self)
  return self
end

-- The folder above it is there, unless somebody has taken it away.
local function make_out(job)
  local ok, why = fs.mkdir(job.out)
  if not ok and why.name ~= "EEXIST" then fs.mkdir(job.out, { parents = true }) end
end

-- From here on the job counts as started: see adopt().
local function mark(self, job)
  make_out(job)
  local marker <close> = fs.open(fs.join(job.home, job.file .. ".started"), "w")
  marker:write(job.id)
  self.marked[job.id] = true
end

function local_.start(self, job)
  mark(self, job)
end

local function log_file(self, job, stream)
  local files = self.logs[job.id] or {}
  self.logs[job.id] = files
  if not files[stream] then
    make_out(job)
    files[stream] = fs.open(fs.join(job.out, stream .. ".log"), "a")
  end
  return files[stream]
end

function local_.log(self, job, chunk)
  log_file(self, job, chunk.stream):write(chunk.text)
end

local function close_logs(self, job)
  for _, stream in ipairs { "stdout", "stderr" } do log_file(self, job, stream) end
  for _, file in pairs(self.logs[job.id]) do file:close() end
  self.logs[job.id] = nil
end

local function result_text(job, result)
  return json.encode({
    id = job.id, state = result.state, reason = result.reason, exit_code = result.exit_code,
    executor = result.executor, fallback = result.fallback, runtime = result.runtime, cached = result.cached,
    signal = result.signal, usage = result.usage, labels = job.labels, duration = result.duration,
    finished = result.finished and time.format(result.finished, 3),
  }, { pretty = true }) .. "\n"
end

function local_.finish(self, job, result)
  if not self.marked[job.id] then mark(self, job) end -- it never started
  close_logs(self, job)
  make_out(job)
  fs.write(fs.join(job.out, "result.json"), result_text(job, result))
  publish(self, job.home, job.file, job.id)
  self.taken[job.id], self.marked[job.id] = nil, nil
end

function local_.release(self, job)
  give_back(self, job.home, job.file)
  self.taken[job.id] = nil
end

function local_.close(self)
  self.watch:close()
  adopt(self, self.own)
  self.lock:close()
end

return local_
