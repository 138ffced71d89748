-- fs.lua: files and directories.
--
-- Nothing here is ever half done: a file is replaced as a whole, a tree is removed without
-- following anything out of it, a path chosen by a job stays inside the job's directory.  Where
-- absence is an ordinary answer (no such file, there is one already, somebody else holds the
-- lock) a function returns nil and an error object with a `name` ("ENOENT", "EEXIST",
-- "ENOTEMPTY", "EBUSY"); whatever else goes wrong is raised with kind "file".
local disk = require "worker.core.disk"
local file = require "worker.core.file"
local names = require "worker.core.fs"
local watch = require "worker.core.watch"

local fs = {}

local READ_MOST = 1 << 20
local LIST_MOST = 10000

-- Paths: only text, nothing is looked up ---------------------------------------------------------

--- `fs.join(...)`: parts of a path with one slash between them; empty parts and nils are left out.
-- A part that begins with a slash does not start anew: fs.join("/a", "/b") is "/a/b".
function fs.join(...)
  local parts = {}
  for i = 1, select("#", ...) do
    local part = select(i, ...)
    if part and part ~= "" then parts[#parts + 1] = part end
  end
  return (table.concat(parts, "/"):gsub("//+", "/"):gsub("(.)/$", "%1"))
end

--- `fs.base(path)`: its last part: fs.base("/a/b.txt") is "b.txt".
function fs.base(path)
  return path:match("([^/]+)/*$") or (path:find("/", 1, true) and "/" or "")
end

--- `fs.dir(path)`: the path without its last part: fs.dir("/a/b.txt") is "/a", fs.dir("b") is ".".
function fs.dir(path)
  local trimmed = path:gsub("/+$", "")
  if trimmed == "" then return path ~= "" and "/" or "." end
  local dir = trimmed:match("^(.*)/[^/]*$")
  if not dir then return "." end
  dir = dir:gsub("/+$", "")
  return dir == "" and "/" or dir
end

--- `fs.clean(path)`: the same path without ".", ".." and double slashes, as text: links are not
-- looked at. A relative path that leads upwards keeps its leading "..".
function fs.clean(path)
  local root, parts = path:sub(1, 1) == "/", {}
  for part in path:gmatch("[^/]+") do
    if part == ".." and #parts > 0 and parts[#parts] ~= ".." then
      parts[#parts] = nil
    elseif part == ".." and not root then
      parts[#parts + 1] = part
    elseif part ~= "." and part ~= ".." then
      parts[#parts + 1] = part
    end
  end
  local text = table.concat(parts, "/")
  if root then return "/" .. text end
  return text == "" and "." or text
end

--- `fs.is_within(path, root)`: whether the path, cleaned, is the root or below it. As text: to open
-- a path that somebody else chose use fs.open_beneath.
function fs.is_within(path, root)
  path, root = fs.clean(path), fs.clean(root)
  if root == "." then return path:sub(1, 1) ~= "/" and path ~= ".." and path:sub(1, 3) ~= "../" end
  if root == "/" then return path:sub(1, 1) == "/" end
  return path == root or path:sub(1, #root + 1) == root .. "/"
end

-- Whole files -------------------------------------------------------------------------------------

--- `fs.read(path, most)`: the content of a file; nil and an error when there is none. More than
-- `most` bytes (1 MiB unless told) raise an error of kind "limit".
function fs.read(path, most)
  return file.read(path, most or READ_MOST)
end

--- `fs.write(path, text, options)`: replace a file as a whole; readers see the old or the new one.
-- `sync` waits until it is on the disk; `mode` sets the permissions (else 0644 and the umask).
fs.write = disk.write

--- `fs.copy(from, to, options)`: copy a file, replacing `to` as a whole; returns the bytes. `mode`
-- sets the permissions (else those of the source), `sync` as for fs.write.
fs.copy = disk.copy

--- `fs.open(path, how, mode)`: an open file: "r" reads, "w" writes from the start, "a" appends.
-- `file:read(n)`, `file:write(text)`, `file:size()`, `file:sync()`, `file:close()`. Only regular
-- files: a pipe or a device in the place is an error and is not waited for.
fs.open = file.open

--- `fs.open_beneath(root, path, how, mode)`: the same for a path that a job chose: it cannot lead
-- out of `root`, neither by ".." nor by a symbolic link.
function fs.open_beneath(root, path, how, mode)
  return file.open_beneath(root, path, how, mode)
end

--- `fs.lock(path, shared)`: a lock that ends with its handle or with the process; nil and an error
-- when somebody else holds it. The file stays: removing it would let two hold two locks.
fs.lock = file.lock

-- Names and directories ---------------------------------------------------------------------------

--- `fs.rename(from, to)`: give a file another name, replacing what has it; true.
function fs.rename(from, to)
  return names.rename(from, to)
end

--- `fs.move(from, to)`: the same, but never replacing: nil and "EEXIST" when there is something.
function fs.move(from, to)
  return names.rename(from, to, true)
end

--- `fs.link(from, to)`: a second name for the same file; nil and "EEXIST" when it is taken.
fs.link = names.link

--- `fs.symlink(target, path)`: make a symbolic link.
fs.symlink = names.symlink

--- `fs.readlink(path)`: what a symbolic link says.
fs.readlink = names.readlink

--- `fs.realpath(path)`: the absolute path without links; nil and an error when there is no such
-- file.
fs.realpath = names.realpath

--- `fs.remove(path)`: remove a file or a link; nil and "ENOENT" when it is not there.
fs.remove = names.unlink

--- `fs.mkdir(path, options)`: make a directory; nil and "EEXIST" when there is one. With `parents`
-- also those above it, and one that is there is as good. `mode` is 0777 and the umask unless told.
function fs.mkdir(path, options)
  local mode = options and options.mode
  if options and options.parents then return names.mkdirs(path, mode) end
  return names.mkdir(path, mode)
end

--- `fs.workplace(path, mode)`: a directory to work in: made where there is none, those above it too, and
-- tried out; raises when nothing can be made there.
function fs.workplace(path, mode)
  fs.mkdir(path, { parents = true, mode = mode })
  fs.rmdir(fs.temp_dir(fs.join(path, "try-")))
end

--- `fs.rmdir(path)`: remove an empty directory; nil and "ENOTEMPTY" when it is not.
fs.rmdir = names.rmdir

--- `fs.remove_tree(path, keep_root)`: remove a directory with everything in it, whatever it is, and
-- return how many entries that were. Nothing is followed and no mount is entered; what could not be
-- removed is an error, and the rest is gone all the same. Waits, but stops nobody else.
fs.remove_tree = disk.remove_tree

--- `fs.list(dir, options)`: the names in a directory, sorted, and whether there were more than
-- `most` (10,000 unless told). `type` takes only "file", "dir", "link" ...
function fs.list(dir, options)
  options = options or {}
  local list, more = names.list(dir, options.most or LIST_MOST, options.type)
  if list then table.sort(list) end
  return list, more
end

--- `fs.stat(path)`: type, size, mode, uid, gid, mtime ... of what a path leads to; nil and an error
-- when there is nothing.
function fs.stat(path)
  return names.stat(path)
end

--- `fs.lstat(path)`: the same for the link itself.
function fs.lstat(path)
  return names.stat(path, true)
end

--- `fs.exists(path)`: whether there is anything, a dangling link included.
function fs.exists(path)
  return names.stat(path, true) ~= nil
end

--- `fs.chmod(path, mode)`: set the permissions.
fs.chmod = names.chmod

--- `fs.chown(path, uid, gid)`: give it away; -1 leaves one as it is. A link itself, not its target.
fs.chown = names.chown

--- `fs.give(path, uid)`: give it away with all that is in it, before anybody else can come there.
function fs.give(path, uid)
  names.chown(path, uid, -1)
  if names.stat(path, true).type ~= "dir" then return end
  for _, name in ipairs(names.list(path, math.maxinteger)) do fs.give(fs.join(path, name), uid) end
end

--- `fs.temp_dir(prefix)`: a new directory with permissions 0700; the prefix is a path, to which a
-- random end is added.
fs.temp_dir = names.temp_dir

local slate = {}
slate.__index = slate

--- `fs.slate(path)`: an empty directory that one job after the other is to use: `slate.path`.
-- `slate:wipe()` empties it and says whether it is again what it was: the same directory, with the
-- same owner and permissions, nothing in it and nothing hung on it.
function fs.slate(path)
  return setmetatable({ path = path, mark = names.mark(path) }, slate)
end

function slate:wipe()
  local found
  found, self.mark = names.found(self.path, self.mark)
  if found == "full" then
    fs.remove_tree(self.path, true)
    found, self.mark = names.found(self.path, self.mark)
  end
  return found == "same"
end

--- `fs.disk_free(path)`: bytes_free, bytes_total, inodes_free, inodes_total of the file system.
fs.disk_free = names.space

--- `fs.sync_dir(path)`: wait until what was created, renamed and removed in it is on the disk.
fs.sync_dir = disk.sync_dir

--- `fs.watch(dir, options)`: wait for something to appear: `watch:wait(seconds)` gives "changed",
-- "rescan" (too much happened to note, or this is a network file system that has to be looked at
-- every `poll` seconds), "gone" (the directory is no more), or nil when the time is up. It is
-- only a hint to look; what came between two waits is not missed. `watch:close()`.
fs.watch = watch.open

return fs
