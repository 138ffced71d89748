-- local: a directory is the orchestrator.
--
--   DIR/inbox/NAME.{json,yaml,sh}    jobs to do; write elsewhere and rename into it
--   DIR/running/OWNER/...            what a worker has claimed, by renaming it here
--   DIR/done/NAME/                   result.json, stdout.log, stderr.log and the job file
--   DIR/failed/NAME.ext              job files that cannot be run, with NAME.ext.reason beside them
--
-- Many workers may share one directory: a rename gives a file to exactly one of them.  Each holds a
-- lock while it lives; what a dead one leaves behind is taken over: a job that had not started goes
-- back to the inbox, one that had is reported as an error, since it must not run twice.
local error = require "worker.error"
local fs = require "worker.fs"
local jobfile = require "worker.jobfile"
local json = require "worker.json"
local log = require "worker.log"
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

local WATCH = 30

-- Beside it there must be room for the names of what belongs to it.
local NAME_MOST = 200

local function refuse(self, name, why)
  local kept = #name > NAME_MOST and text.cut(name, NAME_MOST - 20) .. text.sha256(name):sub(1, 16) or name
  local where = fs.join(self.conf.dir, "failed", kept)
  fs.rename(fs.join(self.own, name), where)
  fs.write(where .. ".reason", why .. "\n")
  log.warn("job.unreadable", ("%s cannot be run: %s"):format(name, why))
end

-- Claiming -------------------------------------------------------------------------------------------

local function inbox_of(self)
  local names = {}
  for _, name in ipairs(fs.list(self.inbox) or {}) do
    if jobfile.is(name) then names[#names + 1] = name end
  end
  table.sort(names, function(a, b) return a > b end) -- taken from the end
  return names
end

-- Two files a.sh and a.json, or one dropped again later, must not share a result.
local function fresh_id(self, name)
  local base = name:gsub("%.%w+$", "")
  local id, n = base, 1
  while self.taken[id] or fs.exists(fs.join(self.conf.dir, "done", id)) do
    n = n + 1
    id = ("%s.%d"):format(base, n)
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

-- One file from the inbox becomes ours, or somebody else was faster.
local function take(self, name)
  -- Never over a namesake that still runs here: that file stays in the inbox until then.
  if not fs.move(fs.join(self.inbox, name), fs.join(self.own, name)) then return nil end
  local ok, job = pcall(read, self, name)
  if not ok then
    refuse(self, name, tostring(job))
    return nil
  end
  job.id, job.file = fresh_id(self, name), name
  job.out = fs.join(self.own, job.id .. ".out")
  self.taken[job.id] = true
  return job
end

function local_.claim(self)
  while true do
    if #self.names == 0 then self.names = inbox_of(self) end
    if #self.names == 0 then break end
    local job = take(self, table.remove(self.names))
    if job then return job end
  end
  if self.conf.once then return "end" end
  self.watch:wait(WATCH)
  return nil
end

-- A namesake may have been done meanwhile, by this worker or another: then ours gets a number.
local function publish(self, out, id)
  local name, n = id, 1
  while fs.exists(fs.join(self.conf.dir, "done", name))
    or not fs.rename(out, fs.join(self.conf.dir, "done", name)) do
    if not fs.exists(out) then return end -- reported before
    n = n + 1
    name = ("%s.%d"):format(id, n)
  end
end

-- What dead workers left ---------------------------------------------------------------------------

-- Back to the inbox, beside a namesake that came meanwhile, never over it.
local function give_back(self, folder, name)
  local place, n = name, 1
  while not fs.move(fs.join(folder, name), fs.join(self.inbox, place)) do
    n = n + 1
    place = name:gsub("(%.%w+)$", ("-%d%%1"):format(n))
  end
end

-- It must not run twice: its end is that it was interrupted.
local function bury(self, folder, name, id)
  local out = fs.join(folder, id .. ".out")
  fs.mkdir(out, { parents = true })
  fs.rename(fs.join(folder, name), fs.join(out, name))
  fs.write(fs.join(out, "result.json"), json.encode {
    id = id, state = "error", reason = "the worker was interrupted while the job ran",
  } .. "\n")
  publish(self, out, id)
  log.warn("job.interrupted", ("job %s was running when its worker died; it is not run again"):format(id))
end

-- The marker of a job that had started holds its id; an empty one was just being written.
local function adopt(self, folder)
  for _, name in ipairs(fs.list(folder) or {}) do
    local id = jobfile.is(name) and fs.read(fs.join(folder, name .. ".started"))
    if id and id ~= "" then
      bury(self, folder, name, id)
    elseif jobfile.is(name) then
      give_back(self, folder, name)
    end
  end
  fs.remove_tree(folder)
end

local function adopt_from_the_dead(self)
  local running = fs.join(self.conf.dir, "running")
  for _, owner in ipairs(fs.list(running) or {}) do
    local folder = fs.join(running, owner)
    local lock = owner:find("^worker%-") and folder ~= self.own and fs.lock(fs.join(folder, ".lock"))
    if lock then
      adopt(self, folder)
      lock:close()
    end
  end
end

-- A folder of our own, which has its name only once it is locked: one without a lock would be taken
-- for a dead worker's by another that starts in the same moment.
local function own_folder(running)
  local made = fs.temp_dir(fs.join(running, "new-"))
  local lock = fs.lock(fs.join(made, ".lock"))
  local own = fs.join(running, "worker-" .. made:match("[^-]*$"))
  fs.rename(made, own)
  return own, lock
end

-- The contract -----------------------------------------------------------------------------------------

function local_.open(conf)
  for _, name in ipairs { "inbox", "running", "done", "failed" } do
    fs.mkdir(fs.join(conf.dir, name), { parents = true })
  end
  local own, lock = own_folder(fs.join(conf.dir, "running"))
  local self = {
    conf = conf, inbox = fs.join(conf.dir, "inbox"), own = own, names = {}, taken = {}, logs = {},
    lock = lock,
    watch = fs.watch(fs.join(conf.dir, "inbox")),
  }
  adopt_from_the_dead(self)
  return self
end

-- From here on the job counts as started: see adopt().
function local_.start(self, job)
  local marker <close> = fs.open(fs.join(self.own, job.file .. ".started"), "w")
  marker:write(job.id)
  fs.mkdir(job.out)
  self.logs[job.id] = {}
end

local function log_file(self, job, stream)
  local files = self.logs[job.id] or {}
  self.logs[job.id] = files
  files[stream] = files[stream] or fs.open(fs.join(job.out, stream .. ".log"), "a")
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
  fs.mkdir(job.out) -- there already, unless the job never started
  close_logs(self, job)
  fs.write(fs.join(job.out, "result.json"), result_text(job, result))
  fs.rename(fs.join(self.own, job.file), fs.join(job.out, job.file))
  publish(self, job.out, job.id)
  fs.remove(fs.join(self.own, job.file .. ".started"))
  self.taken[job.id] = nil
end

function local_.release(self, job)
  give_back(self, self.own, job.file)
  self.taken[job.id] = nil
end

function local_.close(self)
  self.watch:close()
  adopt(self, self.own)
  self.lock:close()
end

return local_
