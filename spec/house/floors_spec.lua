-- The floors of the house, read from the files themselves: every header and C file says "Floor N."
-- on its first lines, and an include never goes up.
local function lines_of(path)
  local file = assert(io.open(path))
  local text = file:read("a")
  file:close()
  return text
end

local function files(pattern)
  local list, pipe = {}, io.popen("ls " .. pattern)
  for path in pipe:lines() do list[#list + 1] = path end
  pipe:close()
  return list
end

local function floor_of(path)
  return tonumber(lines_of(path):sub(1, 400):match("Floor (%d)"))
end

local function code_files()
  local list = files("src/*.c")
  for _, path in ipairs(files("include/worker/*.h")) do list[#list + 1] = path end
  return list
end

describe("the house", function()
  it("says the floor of every C file and header", function()
    for _, path in ipairs(code_files()) do
      assert.is_truthy(floor_of(path), path .. " does not say its floor on its first lines")
    end
  end)

  it("has no include that goes up", function()
    for _, path in ipairs(code_files()) do
      local floor = floor_of(path)
      for name in lines_of(path):gmatch('#include "worker/([%w_]+)%.h"') do
        local other = floor_of("include/worker/" .. name .. ".h")
        assert.is_true(other <= floor, ("%s (floor %s) includes worker/%s.h (floor %s)"):format(
          path, floor, name, other))
      end
    end
  end)

  it("does not know Lua below floor 4", function()
    for _, path in ipairs(code_files()) do
      if floor_of(path) < 4 then
        assert.is_nil(lines_of(path):match('#include <lu?a[%w]*%.h>'), path)
      end
    end
  end)

  it("resumes coroutines in one place and calls Lua protected in two", function()
    for _, path in ipairs(files("src/*.c")) do
      local text = lines_of(path)
      if path ~= "src/task.c" then
        assert.is_nil(text:match("lua_resume%s*%("), path)
        assert.is_nil(text:match("lua_pcallk%s*%("), path)
        assert.is_nil(text:match("luaL_ref%s*%("), path)
      end
      if path ~= "src/host.c" then assert.is_nil(text:match("lua_pcall%s*%("), path) end
    end
  end)

  it("keeps files short: 600 lines of C, 500 of Lua", function()
    for _, path in ipairs(code_files()) do
      local _, n = lines_of(path):gsub("\n", "")
      assert.is_true(n <= 600, ("%s has %d lines"):format(path, n))
    end
    for _, path in ipairs(files("$(find lua plugins -name '*.lua')")) do
      local _, n = lines_of(path):gsub("\n", "")
      assert.is_true(n <= 500, ("%s has %d lines"):format(path, n))
    end
  end)

  it("keeps functions of C short: 80 lines at most", function()
    for _, path in ipairs(files("src/*.c")) do
      local start, n, name = nil, 0, nil
      for line in lines_of(path):gmatch("([^\n]*)\n") do
        n = n + 1
        if line == "{" then
          start = n
        elseif line == "}" and start then
          assert.is_true(n - start < 80, ("%s:%d: a function of %d lines (%s)"):format(
            path, start, n - start, name or "?"))
          start = nil
        elseif not start and line:match("%(") then
          name = line
        end
      end
    end
  end)

  it("exports from a C file only what carries the file's name", function()
    local exceptions = {
      ["main.c"] = { main = true }, ["task.c"] = { tasks = true },
    }
    local build = (os.getenv("WORKER_BIN") or "build/worker"):gsub("/worker$", "")
    for _, path in ipairs(files("src/*.c")) do
      local base = path:match("([%w_]+)%.c$")
      local family = base:match("^(lua_%w+)") or base:match("^(%w+)")
      local pipe = io.popen(("nm -g --defined-only %s/%s.o 2>/dev/null"):format(build, base))
      for line in pipe:lines() do
        local symbol = line:match("%s[TDBR]%s+([%w_]+)$")
        if symbol and not symbol:find("^__") then
          local allowed = symbol:find("^" .. base .. "_") or symbol:find("^" .. family .. "_")
            or symbol:find("^luaopen_worker_core_") or symbol == base
          for word in pairs(exceptions[base .. ".c"] or {}) do
            allowed = allowed or symbol:find("^" .. word)
          end
          assert.is_truthy(allowed, ("%s exports %s"):format(path, symbol))
        end
      end
      pipe:close()
    end
  end)
end)

describe("the Lua floors", function()
  local driver = {
    agent = true, boot = true, fingerprint = true, supervisor = true, stats = true, health = true, statuspage = true, link = true, work = true, chain = true, config = true, console = true, context = true,
    events = true, job = true, joblog = true, main = true, outage = true, fallback = true, record = true,
    registry = true, runner = true, sandbox = true, spec = true, args = true, commands = true,
    help = true, exit = true, terminal = true, places = true, completion = true, about = true,
  }

  it("let plugins require the standard library only", function()
    for _, path in ipairs(files("$(find plugins -name '*.lua')")) do
      for name in lines_of(path):gmatch('require%s*%(?%s*"([^"]+)"') do
        local word = name:match("^worker%.([%w_]+)$")
        local own = name:match("^" .. (path:match("([%w_]+)/[%w_]+%.lua$") or "-") .. "%.")
        assert.is_true(own ~= nil or word ~= nil and not driver[word], path .. " requires " .. name)
      end
    end
  end)

  it("let the standard library not look up at the driver", function()
    for _, path in ipairs(files("lua/worker/*.lua")) do
      local own = path:match("([%w_]+)%.lua$")
      if not driver[own] then
        for name in lines_of(path):gmatch('require%s*%(?%s*"worker%.([%w_]+)[%w_.]*"') do
          assert.is_nil(driver[name], path .. " requires worker." .. name)
        end
      end
    end
  end)
end)
