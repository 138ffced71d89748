-- Where a step runs, and what the worker's files are called there.
--
--   here   on this machine: in the workspace, which other steps may share, under its own path
--   box    in a container: /workspace (read only), /state, /state-out, /global-state, /global-state-out and
--          /artifacts; an action of type docker is a program of its image and sees only the last
--
-- A room has cwd, env (the directories by the names that Strøm gives them), write(code, extension) and
-- source(name), which give a file's name there; a box has mounts, too.
local cgroup = require "worker.cgroup"
local error = require "worker.error"
local fs = require "worker.fs"
local text = require "worker.text"

local room = {}

local PRIVATE = 448 -- 0700
local ANYBODY = 511 -- 0777: whoever the image runs as
local WORKSPACE = "/workspace"
local CODE = "/.stroem_script."

local DIRS = {
  { name = "STATE_DIR", path = "/state" },
  { name = "STATE_OUT_DIR", path = "/state-out", write = true },
  { name = "GLOBAL_STATE_DIR", path = "/global-state" },
  { name = "GLOBAL_STATE_OUT_DIR", path = "/global-state-out", write = true },
  { name = "ARTIFACTS_DIR", path = "/artifacts", write = true, always = true },
}

-- A file of the workspace, by its path below it.  Actions of a library are files below _libraries/NAME.
local function find_source(job, name)
  local cwd, library = job.place.cwd, job.action and job.action:match("^([^.]+)%.")
  local path = fs.join(cwd, library and fs.join("_libraries", library), name)
  if name:sub(1, 1) == "/" or not fs.is_within(path, cwd) then
    error.raise("spawn", ("the source '%s' leads out of the workspace"):format(name))
  end
  local stat, below = fs.stat(path), fs.clean(path:sub(#cwd + 2))
  if not stat or stat.type ~= "file" then
    error.raise("spawn", ("the source '%s' is not a file of the workspace"):format(below))
  end
  return below
end

--- `room.here(job, ctx)`: code is a file beside the workspace's own, so that it finds its neighbours, and
-- gone when the step is reported.
function room.here(job, ctx)
  local cwd = job.place.cwd
  return {
    cwd = cwd, env = job.place.env,
    source = function(name) return fs.join(cwd, find_source(job, name)) end,
    write = function(code, extension)
      local path = fs.join(cwd, ("_stroem_script_%s.%s"):format(text.random_id(), extension))
      ctx.own(cgroup.keep("dir", path)) -- there may be secrets in it, and others come here
      fs.write(path, code, { mode = PRIVATE })
      ctx.give(path)
      ctx.own { close = function() fs.remove(path) end }
      return path
    end,
  }
end

--- `room.box(job)`: what it may write to on this machine, whoever it is, lies in directories of its own.
function room.box(job)
  local place, whole = job.place, job.kind ~= "docker"
  local box = { cwd = whole and WORKSPACE or nil, env = {}, mounts = {} }
  if whole then box.mounts[1] = { source = place.cwd, target = WORKSPACE } end
  for _, dir in ipairs(DIRS) do
    if whole or dir.always then
      local source = place.env[dir.name]
      if dir.write then fs.chmod(source, ANYBODY) end
      box.env[dir.name] = dir.path
      box.mounts[#box.mounts + 1] = { source = source, target = dir.path, write = dir.write }
    end
  end
  function box.source(name) return fs.join(WORKSPACE, find_source(job, name)) end
  function box.write(code, extension)
    job.files = { [CODE .. extension] = code }
    return CODE .. extension
  end
  return box
end

return room
