-- The floors of C, read from the files themselves: every header and C file says "Floor N." on its
-- first lines, an include never goes up, and only rarely to the side.
local house = require "spec.support.house"

-- What a floor may share among its own, and why.  Everything else is asked for from above.
local SHARED = {
  address = "how an address is written: dialing, listening and HTTP speak the same",
  cgdir = "the keeper ends groups by the same files as the worker",
  cgroup = "who is on the way into a group keeps it open",
  dial = "a connection is made in one place",
  fs = "opening below a directory that somebody else fills",
  libarchive = "reading and writing archives is one library",
  libcurl = "HTTP and raw connections share one libcurl",
  lock = "one way to say that a directory is in use",
  multi = "there is one curl multi, for HTTP and for raw connections",
  orphans = "whoever clones tells it",
  proctree = "who descends from whom is read in one place",
  sock = "dialing and listening both make what sock.h describes",
  lua_sock = "a listener hands out the same box as a connection",
  lua_cgroup = "a child is born into a group",
  lua_child = "starting a child and living with it are two files",
  lua_spawn = "starting a child and living with it are two files",
  lua_env = "an environment is a table for plugins and a vector for a child",
}

local FAMILIES = { cgdir = "cgroup", cgplace = "cgroup", cgfile = "cgroup", cgkept = "cgroup",
  cgvictim = "cgroup" }

local function family(name)
  return FAMILIES[name] or name:match("^(lua_%w+)") or name:match("^(%w+)")
end

local function each_include(visit)
  for _, path in ipairs(house.code()) do
    for name in house.text(path):gmatch('#include "worker/([%w_]+)%.h"') do
      visit(path, house.floor(path), name, house.floor("include/worker/" .. name .. ".h"))
    end
  end
end

describe("the house", function()
  it("says the floor of every C file and header", function()
    for _, path in ipairs(house.code()) do
      assert.is_truthy(house.floor(path), path .. " does not say its floor on its first lines")
    end
  end)

  it("has no include that goes up", function()
    each_include(function(path, floor, name, other)
      assert.is_true(other <= floor,
        ("%s (floor %d) includes worker/%s.h (floor %d)"):format(path, floor, name, other))
    end)
  end)

  it("includes to the side only within a family, or what is named with its reason", function()
    local used = {}
    each_include(function(path, floor, name, other)
      if (floor == 3 or floor == 5) and other == floor and name ~= "doors" then
        local same = family(name) == family(path:match("([%w_]+)%.[ch]$"))
        used[name] = not same or used[name]
        assert.is_truthy(same or SHARED[name],
          ("%s includes worker/%s.h, a neighbour on floor %d that is not shared"):format(path, name, floor))
      end
    end)
    for name in pairs(SHARED) do
      assert.is_true(used[name], name .. " is no longer included from the side: it need not be named here")
    end
  end)

  it("does not know Lua below floor 4", function()
    for _, path in ipairs(house.code()) do
      if house.floor(path) < 4 then
        assert.is_nil(house.text(path):match("#include <lu?a[%w]*%.h>"), path)
      end
    end
  end)

  it("resumes coroutines, anchors and calls protected in one place each", function()
    local places = {
      ["lua_resume%s*%("] = "src/task.c", ["lua_pcallk%s*%("] = "src/task.c",
      ["luaL_ref%s*%("] = "src/task.c", ["lua_pcall%s*%("] = "src/host.c",
    }
    for _, path in ipairs(house.list "src/*.c") do
      for call, place in pairs(places) do
        if path ~= place then assert.is_nil(house.text(path):match("%f[%w_]" .. call), path) end
      end
    end
  end)
end)
