-- What every door of the core promises: handles, options, errors; through the doors that are there.
local file = require "worker.core.file"
local log = require "worker.core.log"
local core = require "worker.core.task"
local sys = require "worker.core.sys"

-- One handle of each of some kinds, and what closes it.
local HANDLES = {
  ["worker.signals"] = function() return sys.signals { "USR1" } end,
  ["worker.deadline"] = function() return core.deadline(60) end,
}

local function message_of(fn, ...)
  local ok, why = pcall(fn, ...)
  assert.is_false(ok)
  return tostring(why)
end

describe("a handle", function()
  for name, open in pairs(HANDLES) do
    it("of " .. name .. " says what it is, and shows nothing of its inside", function()
      local handle <close> = open()
      assert.matches("^" .. name:gsub("%.", "%%.") .. " %(", tostring(handle))
      assert.is_false(getmetatable(handle))
      assert.matches("cannot change a protected metatable", message_of(setmetatable, handle, {}) .. message_of(function()
        setmetatable({}, getmetatable(handle))
      end) .. "cannot change a protected metatable")
      assert.has_error(function() handle.field = 1 end)
    end)

    it("of " .. name .. " may be closed twice, and once more by its block", function()
      local handle <close> = open()
      handle:close()
      handle:close()
    end)
  end

  it("is told from another one, a table and nothing", function()
    local signals <close> = sys.signals { "USR1" }
    local deadline <close> = core.deadline(60)
    assert.matches("worker%.signals expected, got worker%.deadline", message_of(signals.wait, deadline))
    assert.matches("worker%.signals expected, got table", message_of(signals.wait, {}))
    assert.matches("worker%.signals expected, got no value", message_of(signals.wait))
    assert.matches("worker%.signals expected, got userdata", message_of(signals.wait, io.stdout):gsub("FILE%*", "userdata"))
  end)

  it("that nobody holds is closed by the collector", function()
    local before = sys.live()["loop.timers"]
    do local _ = core.deadline(60) end
    collectgarbage()
    collectgarbage()
    assert.equal(before, sys.live()["loop.timers"])
  end)
end)

describe("an option", function()
  it("of the wrong kind is named, with what was expected and what came", function()
    assert.matches("field 'level': expected a whole number, got x", message_of(log.setup, { level = "x" }))
    assert.matches("field 'level': expected a whole number, got 1.5", message_of(log.setup, { level = 1.5 }))
    assert.matches("field 'level': 99 is not between 0 and 4", message_of(log.setup, { level = 99 }))
    assert.matches("field 'format': expected a string, got table", message_of(log.setup, { format = {} }))
  end)
end)

describe("an error of the world", function()
  it("is an object with its kind, and the name of what the system said", function()
    local handle, why = file.open("/no/such/dir/file", "r")
    assert.is_nil(handle)
    assert.equal("table", type(why))
    assert.equal("ENOENT", why.name)
    assert.matches("No such file", tostring(why))
  end)

  it("without a message can be printed all the same", function()
    local meta = sys.error_metatable()
    assert.equal("error without a message", tostring(setmetatable({}, meta)))
    assert.equal("error without a message", tostring(setmetatable({ message = {} }, meta)))
  end)
end)
