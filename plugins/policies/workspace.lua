-- workspace: a directory of its own for every job.
--
-- The directories of one worker lie in a folder with a lock that lives as long as the worker.  When
-- the worker is killed its keeper removes the folder; should the machine go down with both, the
-- next worker finds a folder whose lock nobody holds, and removes that.
--
-- Making and removing a directory costs more than the rest of a small job.  So one that a job has
-- left is emptied, and goes to the next job if it is then as it was when it was new.
local cgroup = require "worker.cgroup"
local err = require "worker.error"
local fs = require "worker.fs"
local log = require "worker.log"
local time = require "worker.time"

local workspace = { kind = "policy", name = "workspace", api = 1 }

workspace.doc = "Makes an empty directory for each job and removes it afterwards."

workspace.config = {
  dir = { "path", doc = "Where the directories are made; the worker's workspace folder if absent." },
  keep = { "enum", values = { "never", "failed", "always" }, default = "never",
    doc = "Whether a job's directory stays afterwards." },
}

-- Whoever the job runs as has to come through to a directory that is his, and may see none beside it.
local PASSABLE = 457 -- 0711
local SETTLE_TRIES = 10
local TRUSTED = 60  -- seconds after which somebody may have tidied an unused directory away

local function remove(dir)
  local ok, why = pcall(fs.remove_tree, dir)
  if not ok then
    log.warn("workspace.left", ("%s could not be removed: %s"):format(dir, tostring(why)))
  end
end

-- The lock of a folder, or nil when somebody holds it or the folder has just gone.
local function try_lock(folder)
  local ok, lock = pcall(fs.lock, fs.join(folder, ".lock"))
  return ok and lock or nil
end

local function sweep(root)
  for _, name in ipairs(fs.list(root, { type = "dir" }) or {}) do
    local folder = fs.join(root, name)
    local lock = name:find("^worker%-jobs%-") and try_lock(folder)
    if lock then
      remove(folder)
      lock:close()
    end
  end
end

-- Where the directories of one worker are: { root=, folder=, lock=, kept=, free = places that nobody
-- uses now }.
local home_meta = { __index = {} }

-- A sweeping neighbour may be quicker than our lock: then there is another name.  But where nothing can
-- be locked, that would go on for ever.
local function settle(home)
  fs.mkdir(home.root, { parents = true, mode = PASSABLE })
  home.root = fs.realpath(home.root) -- a job is told its place, and goes elsewhere
  sweep(home.root)
  for _ = 1, SETTLE_TRIES do
    home.folder = fs.temp_dir(fs.join(home.root, "worker-jobs-"))
    fs.chmod(home.folder, PASSABLE)
    home.lock = try_lock(home.folder)
    if home.lock and fs.exists(home.folder) then break end
    if home.lock then home.lock:close() end
    home.lock = nil
    remove(home.folder)
  end
  if not home.lock then err.raise("file", home.root .. ": no folder can be locked there") end
  home.kept, home.free = cgroup.keep("dir", home.folder), {}
end

function home_meta.__index:close()
  remove(self.folder)
  self.lock:close()
  self.kept:close()
end

local function new_home(root)
  local home = setmetatable({ root = root }, home_meta)
  settle(home)
  return home
end

-- What a job has its directory by: { conf=, home=, slate=, since= } stay with the directory; job, ctx and
-- result are those of the job that has it now.
local place_meta = {}

-- A place for one job: one that is free, or a new one.
local function take(conf, home)
  local free = home.free
  local count = #free
  local place = free[count]
  free[count] = nil
  if place and (time.mono() - place.since < TRUSTED or place.slate:wipe()) then return place end
  if not fs.exists(home.folder) then
    home:close()
    settle(home)
  end
  return setmetatable({ conf = conf, home = home, slate = fs.slate(fs.temp_dir(fs.join(home.folder, "job-"))),
    since = false, job = false, ctx = false, result = false }, place_meta)
end

local function give_back(place)
  local home, slate = place.home, place.slate
  local ok, clean = pcall(slate.wipe, slate)
  if ok and clean then
    place.since, place.job, place.ctx, place.result = time.mono(), false, false, false
    home.free[#home.free + 1] = place
  else
    remove(slate.path)
  end
end

local function must_keep(conf, result)
  return conf.keep == "always" or conf.keep == "failed" and (not result or result.state ~= "success")
end

-- Any id is fine as an id; as a file name it must be plain.
local function name_of(job)
  return ("job-%s-"):format(job.id:gsub("[^%w._-]", "_"):sub(1, 48))
end

-- Out of the folder that will be removed, and named after the job.
local function put_aside(root, slate, job, ctx)
  local place = fs.temp_dir(fs.join(root, name_of(job)))
  fs.rename(slate.path, place)
  ctx.workdir = place
  log.info("workspace.kept", ("job %s: its files are in %s"):format(job.id, place), { job = job.id })
end

function place_meta:__close()
  if must_keep(self.conf, self.result) then
    put_aside(self.home.root, self.slate, self.job, self.ctx)
  else
    give_back(self)
  end
end

-- Where no directory can be made every job would fail: so none is claimed.
local function try_out(root)
  local ok, why = pcall(fs.workplace, root, PASSABLE)
  if not ok then
    err.raise("file", ("jobs could have no directory: %s; another place is given with --workspace"):format(tostring(why)))
  end
end

function workspace.run(conf, next, own, folder)
  if conf.dir or folder then try_out(conf.dir or folder) end
  local homes = {}
  return function(job, ctx)
    local root = conf.dir or ctx.workspace
    local home = homes[root]
    if not home then
      home = own(new_home(root))
      homes[root] = home
    end
    local place <close> = take(conf, home)
    ctx.workdir, place.job, place.ctx = place.slate.path, job, ctx
    place.result = next(job, ctx)
    return place.result
  end
end

return workspace
