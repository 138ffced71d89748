-- archive.lua: tar files: unpacking those of others, packing our own, keeping unpacked ones at hand.
--
-- An archive from outside is hostile input.  Nothing of it lands outside its directory, whatever its
-- names and links say; sizes are bounded; what breaks a rule makes the whole archive an error (kind
-- "file").  All the work is done in the helper thread.
local core = require "worker.core.archive"
local err = require "worker.error"
local fs = require "worker.fs"
local log = require "worker.log"
local task = require "worker.task"
local text = require "worker.text"

local archive = {}

local BYTES_MOST = 4 << 30
local ENTRIES_MOST = 200000
local PACK_MOST = 1 << 30
local DEPTH_MOST = 32
local LOCK_PAUSE = 0.1 -- between two looks at a directory that somebody else is filling
local KEEP = 2

--- `archive.unpack(path, dir, options)`: unpack a tar or tar.gz file into a directory, which should be
-- empty; returns how many entries there were. Options: bytes (4 GiB), entries (200,000). Waits.
function archive.unpack(path, dir, options)
  options = options or {}
  return core.unpack(path, dir, options.bytes or BYTES_MOST, options.entries or ENTRIES_MOST)
end

local function collect(list, root, below, options, depth)
  local where = below and fs.join(root, below) or root
  for _, name in ipairs(fs.list(where, { most = options.entries or ENTRIES_MOST }) or {}) do
    local path = below and below .. "/" .. name or name
    local stat = fs.lstat(fs.join(root, path))
    if stat and stat.type == "file" then
      list[#list + 1] = { name = path, size = stat.size }
    elseif stat and stat.type == "dir" and depth < DEPTH_MOST then
      collect(list, root, path, options, depth + 1)
    end
    if #list > (options.entries or ENTRIES_MOST) then
      err.raise("file", ("%s holds more than %d files"):format(root, options.entries or ENTRIES_MOST))
    end
  end
  return list
end

--- `archive.files(dir, options)`: the regular files below a directory, sorted: { name=, size= }. Links
-- are neither followed nor listed. Options: entries (200,000).
function archive.files(dir, options)
  return collect({}, dir, nil, options or {}, 1)
end

--- `archive.pack(path, dir, options)`: pack the regular files below a directory into a tar.gz file;
-- returns the bytes of their content. Options: bytes (1 GiB), entries. Waits.
function archive.pack(path, dir, options)
  options = options or {}
  local names = {}
  for i, file in ipairs(archive.files(dir, options)) do names[i] = file.name end
  return core.pack(path, dir, names, options.bytes or PACK_MOST)
end

-- The cache ------------------------------------------------------------------------------------------

local methods = {}
local meta = { __index = methods, __name = "worker.archive.cache" }

local held_methods = {}
local held_meta = { __index = held_methods, __name = "worker.archive.held" }

--- `archive.cache(dir, options)`: a folder of unpacked archives, each under a group and a key, shared by
-- whoever needs the same one at the same time, also by other workers. Options: keep (how many that
-- nobody uses stay in each group; 2), and those of archive.unpack.
function archive.cache(dir, options)
  return setmetatable({ dir = dir, options = options or {} }, meta)
end

-- Groups and keys come from servers; as names of files they must be plain.
local function plain(name)
  if #name <= 100 and name:find("^[%w_-][%w._-]*$") and not name:find("%.new%-") then return name end
  return "x-" .. text.sha256(name):sub(1, 40)
end

--- `held:close()`: the directory is no longer needed here.
function held_methods:close()
  if self.lock then self.lock:close() end
  self.lock = nil
end
held_meta.__close = held_methods.close

-- Unpacked beside and renamed, so that the directory is there whole or not at all.
local function fill(self, path, fetch)
  local stage = fs.temp_dir(path .. ".new-")
  local _ <close> = setmetatable({}, { __close = function() fs.remove_tree(stage) end })
  local file, tree = fs.join(stage, "archive"), fs.join(stage, "tree")
  fetch(file)
  fs.mkdir(tree)
  archive.unpack(file, tree, self.options)
  fs.move(tree, path)
end

--- `cache:hold(group, key, fetch)`: the directory `held.path` with what the archive of that key holds;
-- it stays until `held:close()`. When it is not there yet, fetch(path) has to put the archive into that
-- file; several who ask at once wait for one of them to do it.
function methods:hold(group, key, fetch)
  local dir = fs.join(self.dir, plain(group))
  local path = fs.join(dir, plain(key))
  fs.mkdir(dir, { parents = true })
  while true do
    local lock = fs.lock(path .. ".lock", true)
    if lock and fs.exists(path) then
      fs.write(path .. ".used", "")
      return setmetatable({ path = path, lock = lock }, held_meta)
    end
    if lock then lock:close() end
    local own <close> = fs.lock(path .. ".lock")
    if not own then
      task.sleep(LOCK_PAUSE)
    elseif not fs.exists(path) then
      fill(self, path, fetch)
    end
  end
end

local function used_at(path)
  local stat = fs.stat(path .. ".used")
  return stat and stat.mtime or 0
end

-- What nobody holds now: it can be locked.
local function remove_unused(path)
  local own <close> = fs.lock((path:gsub("%.new%-.*$", "")) .. ".lock")
  if not own then return false end
  fs.remove_tree(path)
  fs.remove(path .. ".used")
  return true
end

--- `cache:prune(group)`: remove what nobody holds, but for the `keep` last used ones, and what a crash
-- has left half done; returns how many are gone.
function methods:prune(group)
  local dir, list, gone = fs.join(self.dir, plain(group)), {}, 0
  for _, name in ipairs(fs.list(dir, { type = "dir" }) or {}) do
    local path = fs.join(dir, name)
    if name:find("%.new%-") then
      remove_unused(path)
    else
      list[#list + 1] = { path = path, used = used_at(path) }
    end
  end
  table.sort(list, function(a, b) return a.used > b.used end)
  for i = (self.options.keep or KEEP) + 1, #list do
    local ok, removed = task.try(remove_unused, list[i].path)
    if ok and removed then gone = gone + 1 end
    if not ok then log.warn("cache.left", ("%s could not be removed: %s"):format(list[i].path, tostring(removed))) end
  end
  return gone
end

return archive
