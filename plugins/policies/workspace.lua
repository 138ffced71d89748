-- workspace: a directory of its own for every job.
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

-- Any id is fine as an id; as a file name it must be plain.
local function name_of(job)
  local plain = job.id:gsub("[^%w._-]", "_"):sub(1, 48)
  return ("job-%s-"):format(plain)
end

-- The root is made when it turns out to be missing, not looked for every time.
local function make(root, job)
  local prefix = fs.join(root, name_of(job))
  local ok, dir = pcall(fs.temp_dir, prefix)
  if ok then return dir end
  fs.mkdir(root, { parents = true, mode = PRIVATE })
  return fs.temp_dir(prefix)
end

local function must_keep(conf, result)
  return conf.keep == "always" or conf.keep == "failed" and (not result or result.state ~= "success")
end

local function remove(dir)
  local ok, why = pcall(fs.remove_tree, dir)
  if not ok then
    log.warn("workspace.left", ("%s could not be removed: %s"):format(dir, tostring(why)))
  end
end

-- A lock beside each directory (inside, it would not be empty) lives as long as its worker: what a
-- worker that was killed left behind is told by a lock that nobody holds.
local function lock_of(root, name) return fs.join(root, "." .. name .. ".lock") end

local function sweep(root)
  for _, file in ipairs(fs.list(root, { type = "file" }) or {}) do
    local name = file:match("^%.(job%-.+)%.lock$")
    local ok, lock = false, nil
    if name then ok, lock = pcall(fs.lock, fs.join(root, file)) end
    if ok and lock then
      remove(fs.join(root, name))
      fs.remove(fs.join(root, file))
      lock:close()
    end
  end
end

-- A sweeping neighbour may be quicker than our lock: then there is another name.
local function make(root, job)
  while true do
    local dir = fs.temp_dir(fs.join(root, name_of(job)))
    local path = lock_of(root, fs.base(dir))
    local lock = fs.lock(path)
    if lock and fs.exists(dir) then return dir, lock, path end
  end
end

function workspace.run(conf, next)
  local swept
  return function(job, ctx)
    local root = conf.dir or ctx.workspace
    fs.mkdir(root, { parents = true, mode = PRIVATE })
    if not swept then
      swept = true
      sweep(root)
    end
    local dir, lock, path = make(root, job)
    ctx.workdir = dir
    local result
    local _ <close> = setmetatable({}, { __close = function()
      if must_keep(conf, result) then
        log.info("workspace.kept", ("job %s: its files stay in %s"):format(job.id, dir), { job = job.id })
      else
        remove(dir)
      end
      fs.remove(path)
      lock:close()
    end })
    result = next(job, ctx)
    return result
  end
end

return workspace
