-- house.lua: the project's own files, for the specs that look at them.
--
--   house.list "src/*.c"      paths that match a pattern of the shell
--   house.code()              every C file and header
--   house.lua "lua plugins"   every Lua file below these folders
--   house.text(path)          what is in it
--   house.floor(path)         the floor that a C file or header says it is on
local house = {}

local texts = {}

function house.text(path)
  if not texts[path] then
    local file <close> = assert(io.open(path))
    texts[path] = file:read("a")
  end
  return texts[path]
end

local function lines(command)
  local list = {}
  local pipe <close> = assert(io.popen(command))
  for line in pipe:lines() do list[#list + 1] = line end
  return list
end

house.output = lines

function house.list(pattern)
  local list = lines("ls " .. pattern)
  assert(#list > 0, "no files match " .. pattern)
  return list
end

function house.code() return house.list "src/*.c include/worker/*.h" end

function house.lua(folders)
  return lines(("find %s -name '*.lua' | sort"):format(folders))
end

function house.floor(path)
  return tonumber(house.text(path):sub(1, 400):match("Floor (%d)"))
end

return house
