-- Files and functions stay short, and a name says which file it comes from.
local house = require "spec.support.house"
local sys = require "worker.core.sys"

local function count_lines(path)
  return select(2, house.text(path):gsub("\n", ""))
end

describe("the house", function()
  it("keeps files short: 600 lines of C, 500 of Lua", function()
    for _, path in ipairs(house.code()) do
      assert.is_true(count_lines(path) <= 600, ("%s has %d lines"):format(path, count_lines(path)))
    end
    for _, path in ipairs(house.lua "lua plugins") do
      assert.is_true(count_lines(path) <= 500, ("%s has %d lines"):format(path, count_lines(path)))
    end
  end)

  it("keeps functions of C short: 80 lines at most", function()
    for _, path in ipairs(house.list "src/*.c") do
      local start, n, name = nil, 0, nil
      for line in house.text(path):gmatch("([^\n]*)\n") do
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
    local more = { main = "^main$", task = "^tasks_" }
    local build = (sys.env "WORKER_BIN" or "build/worker"):gsub("/worker$", "")
    local symbols = house.output(("nm -A -g --defined-only %s/*.o 2>/dev/null"):format(build))
    if #symbols == 0 then return pending("no object files beside " .. build .. "/worker") end
    for _, line in ipairs(symbols) do
      local base, symbol = line:match("([%w_]+)%.o:%S*%s+[TDBR]%s+([%w_]+)$")
      -- what the compiler and the linker make for themselves begins with two underscores
      if symbol and base ~= "embed" and not symbol:find("^__") then
        local family = base:match("^(lua_%w+)") or base:match("^(%w+)")
        local own = symbol:find("^" .. family .. "_") or symbol:find("^luaopen_worker_core_")
          or symbol:find(more[base] or "^$")
        assert.is_truthy(own, ("src/%s.c exports %s"):format(base, symbol))
      end
    end
  end)
end)
