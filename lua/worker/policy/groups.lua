-- policy/groups.lua: who is in which group of this machine.
local fs = require "worker.fs"

local groups = {}

local FILE_MOST = 4 << 20

local function lines_of(path)
  return (fs.read(path, FILE_MOST) or ""):gmatch("[^\n]+")
end

-- The number of a user's own group.
local function own_group(user)
  for line in lines_of "/etc/passwd" do
    local name, gid = line:match("^([^:]*):[^:]*:[^:]*:(%d+):")
    if name == user then return gid end
  end
end

--- `groups.has(group, user)`: whether the user is in it, as /etc/group and /etc/passwd have it.
function groups.has(group, user)
  for line in lines_of "/etc/group" do
    local name, gid, members = line:match("^([^:]*):[^:]*:(%d+):(.*)$")
    if name == group then
      if gid == own_group(user) then return true end
      for member in members:gmatch("[^,%s]+") do
        if member == user then return true end
      end
    end
  end
  return false
end

return groups
