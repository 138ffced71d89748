-- places.lua: where this worker finds its plugins.
--
-- A later folder wins over an earlier one: ./plugins; those of the source tree the binary was built in,
-- or of the prefix it was installed below; /usr/share/worker, /etc/worker; then what the configuration
-- and the command line name.  So a folder that nobody named adds plugins, and takes the place of none:
-- it may be in somebody else's checkout.
local fs = require "worker.fs"

local places = {}

local SHARED = { "/usr/share/worker/plugins", "/etc/worker/plugins" }

--- `places.is_directory(path)`: whether there is a directory of this name.
function places.is_directory(path)
  local stat = fs.stat(path)
  return stat ~= nil and stat.type == "dir"
end

--- `places.binary()`: the path of the running binary.
function places.binary()
  return fs.readlink("/proc/self/exe")
end

-- Folders that are there, each once, however it is written.
local function distinct(paths)
  local dirs, seen = {}, {}
  for i = #paths, 1, -1 do
    local real = places.is_directory(paths[i]) and fs.realpath(paths[i])
    if real and not seen[real] then
      seen[real] = true
      table.insert(dirs, 1, paths[i])
    end
  end
  return dirs
end

--- `places.shipped()`: the folders that need not be named.
function places.shipped()
  local paths, binary = { "plugins" }, places.binary()
  local above = binary and fs.dir(fs.dir(binary))
  if above and fs.base(above) == "build" then above = fs.dir(above) end -- build/asan/worker and the like
  for _, folder in ipairs { "plugins", "share/worker/plugins" } do
    if above then paths[#paths + 1] = fs.join(above, folder) end
  end
  table.move(SHARED, 1, #SHARED, #paths + 1, paths)
  return distinct(paths)
end

--- `places.plugin_dirs(...)`: those and the folders of these lists.
function places.plugin_dirs(...)
  local paths = places.shipped()
  for _, list in ipairs { ... } do table.move(list, 1, #list, #paths + 1, paths) end
  return distinct(paths)
end

return places
