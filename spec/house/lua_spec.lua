-- The floors of Lua: doors (worker.core.*), the standard library (what plugins may require), the
-- driver (everything else of worker.*), plugins.
local house = require "spec.support.house"

-- Doors that the driver opens itself; every other one belongs to a module of the library.
local DOORS_OF_DRIVER = {
  sys = { "the process itself: its end, its exit code" },
  task = { "before the library is there", boot = true, spec = true },
  log = { "live lines give way to log lines", console = true },
  out = { "the output of a job passes through", commands = true },
  guard = { "every call of a plugin goes through it", guard = true, sandbox = true },
  spool = { "one module, not for plugins", spool = true },
}

local library = {}
for name in house.text("lua/worker/sandbox.lua"):match("local LIBRARY = (%b{})"):gmatch("([%w_]+) = true") do
  library[name] = true
end

local function each_require(path, visit)
  for name in house.text(path):gmatch('require%s*%(?%s*"([^"]+)"') do
    visit(name, name:match("^worker%.([%w_]+)"), name:match("^worker%.core%.([%w_]+)"))
  end
end

describe("the floors of Lua", function()
  it("are told apart: there is a library, and a driver", function()
    assert.is_true(library.http and library.task and not library.agent)
  end)

  it("let a plugin require the library and its own folder only", function()
    for _, path in ipairs(house.lua "plugins") do
      local folder = path:match("([%w_]+)/[%w_]+%.lua$")
      each_require(path, function(name, module)
        local own = name:find("^" .. folder .. "%.") ~= nil
        assert.is_true(own or library[module] == true, path .. " requires " .. name)
      end)
    end
  end)

  it("let the library stand on itself and the doors, never on the driver", function()
    for _, path in ipairs(house.lua "lua/worker") do
      if library[path:match("^lua/worker/([%w_]+)")] then
        each_require(path, function(name, module)
          assert.is_true(module == nil or module == "core" or library[module] == true,
            path .. " requires " .. name)
        end)
      end
    end
  end)

  it("let the driver open few doors itself", function()
    for _, path in ipairs(house.lua "lua/worker") do
      local own = path:match("^lua/worker/([%w_]+)")
      if not library[own] then
        each_require(path, function(name, _, door)
          local allowed = door == nil or door == "sys" or (DOORS_OF_DRIVER[door] or {})[own]
          assert.is_truthy(allowed, path .. " requires " .. name)
        end)
      end
    end
  end)

  it("say of every public function of the library what it does", function()
    for _, path in ipairs(house.lua "lua/worker") do
      if library[path:match("^lua/worker/([%w_]+)%.lua$")] then
        local told, returned = false, house.text(path):match("\nreturn ([%w_]+)%s*$")
        for line in house.text(path):gmatch("[^\n]+") do
          local module = line:match("^function ([%w_]+)%.[%w_]+%(")
          if line:find("^%-%-%-") then
            told = true
          elseif module == returned and module then
            assert.is_true(told, ("%s: no --- comment above: %s"):format(path, line))
            told = line:find("end$") ~= nil -- one comment may tell of a row of one-liners
          elseif not line:find("^%-%-") then
            told = false
          end
        end
      end
    end
  end)
end)
