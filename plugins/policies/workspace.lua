-- workspace: a directory of its own for every job.
--
-- The directories of one worker lie in a folder with a lock that lives as long as the worker.  When
-- the worker is killed its keeper removes the folder; should the machine go down with both, the
-- next worker finds a folder whose lock nobody holds, and removes that.
local cgroup = require "worker.cgroup"
local fs = require "worker.fs"
local log = require "worker.log"

local workspace = { kind = "policy", name = "workspace", api = 1 }

workspace.doc = "Makes an empty directory for each job and removes it afterwards."

workspace.config = {
  dir = { "path", doc = "Where the directories are made; the worker's workspace folder if absent." },
  keep = { "enum", values = { "never", "failed", "always" }, default = "never",
    doc = "Whether a job's directory stays afterwards." },
}

local PRIVATE = 448 -- 0700

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

-- A sweeping neighbour may be quicker than our lock: then there is another name.
local function make_home(root)
  fs.mkdir(root, { parents = true, mode = PRIVATE })
  sweep(root)
  while true do
    local folder = fs.temp_dir(fs.join(root, "worker-jobs-"))
    local lock = try_lock(folder)
    if lock and fs.exists(folder) then
      return { folder = folder, lock = lock, jobs = 0, kept = cgroup.keep("dir", fs.realpath(folder)) }
    end
  end
end

local function leave_home(homes, root, home)
  home.jobs = home.jobs - 1
  if home.jobs > 0 then return end
  if homes[root] == home then homes[root] = nil end
  -- With its lock gone first it is empty, and an empty folder is removed without a helper thread.
  fs.remove(fs.join(home.folder, ".lock"))
  remove(home.folder)
  home.lock:close()
  home.kept:close()
end

local function must_keep(conf, result)
  return conf.keep == "always" or conf.keep == "failed" and (not result or result.state ~= "success")
end

-- Out of the folder that will be removed.
local function put_aside(root, dir, job, ctx)
  local place = fs.join(root, fs.base(dir))
  fs.rename(dir, place)
  ctx.workdir = place
  log.info("workspace.kept", ("job %s: its files are in %s"):format(job.id, place), { job = job.id })
end

-- Any id is fine as an id; as a file name it must be plain.
local function name_of(job)
  return ("job-%s-"):format(job.id:gsub("[^%w._-]", "_"):sub(1, 48))
end

function workspace.run(conf, next)
  local homes = {}
  return function(job, ctx)
    local root = conf.dir or ctx.workspace
    homes[root] = homes[root] or make_home(root)
    local home, result = homes[root], nil
    home.jobs = home.jobs + 1
    local _ <close> = setmetatable({}, { __close = function() leave_home(homes, root, home) end })
    local dir = fs.temp_dir(fs.join(home.folder, name_of(job)))
    ctx.workdir = dir
    local _ <close> = setmetatable({}, { __close = function()
      if must_keep(conf, result) then put_aside(root, dir, job, ctx) else remove(dir) end
    end })
    result = next(job, ctx)
    return result
  end
end

return workspace
