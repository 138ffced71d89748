-- tools/paths.lua: paths of tasks, kept inside the workspace.
--
-- A task names paths as it likes: relative, with the workspace's name in front, or absolute as if the
-- workspace were all there is.  They become paths of the container, as text first: no ".." leads out,
-- and none begins with a dash because all of them are absolute.  Then the directory itself is looked
-- at: no symbolic link may lead out of it either.  Somebody who exchanges a link between the look and
-- the run reaches files of the container's image, and those are nobody's.
local err = require "worker.error"
local fs = require "worker.fs"
local text = require "worker.text"

local paths = {}

paths.ROOT = "/workspace"

local MOST = 4096

local function refuse(path, why)
  err.raise("refused", ("the path '%s' %s"):format(text.sample(path), why), { code = "INVALID_ARGUMENT" })
end

-- Below the workspace, without a slash in front; nil when ".." leads out.
local function relative(path)
  local parts = {}
  for part in path:gmatch("[^/]+") do
    if part == ".." then
      if #parts == 0 then return nil end
      parts[#parts] = nil
    elseif part ~= "." then
      parts[#parts + 1] = part
    end
  end
  return table.concat(parts, "/")
end

--- `paths.inside(path, cwd)`: the path below the workspace that a task means; relative ones begin at
-- cwd, itself below the workspace.  Raises kind "refused" when it leads out.
function paths.inside(path, cwd)
  if path:find("\0", 1, true) then refuse(path, "has a NUL byte") end
  if #path > MOST then refuse(path, ("is longer than %d bytes"):format(MOST)) end
  local below = path:match("^" .. paths.ROOT .. "$") and "" or path:match("^" .. paths.ROOT .. "/(.*)$")
  if not below then below = path:find("^/") and path or fs.join(cwd or "", path) end
  return relative(below) or refuse(path, "leads out of the workspace")
end

-- The deepest part that is there decides where the rest would come to be.
local function check_place(source, top, path, asked)
  while true do
    local full = fs.join(top, path)
    local real, why = fs.realpath(full)
    if real then
      if not fs.is_within(real, top) then refuse(asked, "leads out of the workspace by a symbolic link") end
      return
    end
    if fs.lstat(full) then refuse(asked, "goes through a symbolic link that leads nowhere") end
    if why.name ~= "ENOENT" and why.name ~= "ENOTDIR" then
      err.raise("refused", ("the workspace %s cannot be looked at: %s"):format(source, tostring(why)))
    end
    path = path:match("^(.*)/[^/]*$") or ""
  end
end

--- `paths.check(source, path)`: raise kind "refused" when the path, below the workspace that is at
-- `source` on this machine, leads out of it by a link.
function paths.check(source, path)
  local top, why = fs.realpath(source)
  if not top then
    err.raise("refused", ("the workspace %s cannot be used: %s"):format(source, tostring(why)), { code = "UNAVAILABLE" })
  end
  check_place(source, top, path, path)
end

--- `paths.shown(path)`: as the container has it.
function paths.shown(path) return fs.join(paths.ROOT, path) end

return paths
