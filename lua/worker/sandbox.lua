-- sandbox.lua: the world a plugin sees.
--
-- A plugin gets a safe part of Lua, the standard library (worker.*, but neither the doors below it
-- nor the driver above it), and files of its own folder.  It cannot make globals, reach the
-- operating system, load code or make coroutines.  pcall does not catch a cancel, nor the error of
-- Lua code that ran away: whoever swallowed those would go on for ever.
local core = require "worker.core.guard"
local err = require "worker.error"
local log = require "worker.log"

local sandbox = {}

-- What plugins may require.  The driver (registry, agent, ...) is not for them.
local LIBRARY = {
  error = true, task = true, log = true, http = true, sock = true, ws = true, grpc = true,
  protobuf = true, process = true, json = true, yaml = true, text = true, secret = true,
  schema = true, time = true, retry = true, fs = true, cgroup = true, serve = true, jobfile = true,
  journal = true, webhook = true, delivery = true, facts = true, engine = true, redis = true, tools = true, archive = true,
  policy = true,
}

local function must_pass(why)
  return err.is(why, "cancelled") or err.is(why, "limit") and why.runaway
end

local safe_pcall = core.pcall

local function passing(ok, why, ...)
  if not ok and must_pass(why) then error(why, 0) end
  return ok, why, ...
end

local function safe_xpcall(fn, handler, ...)
  return passing(xpcall(fn, function(why) return must_pass(why) and why or handler(why) end, ...))
end

-- A plugin sees the metatables it has set itself; those of the library are shared by everybody.
-- No __gc: it would run in whatever task makes garbage next, where no limit of time reaches it.
local function metatables()
  local own = setmetatable({}, { __mode = "k" })
  local function set(value, meta)
    if type(meta) == "table" then
      if rawget(meta, "__gc") ~= nil then error("a plugin may not use __gc: use a `local x <close>`", 2) end
      own[meta] = true
    end
    return setmetatable(value, meta)
  end
  local function get(value)
    local meta = type(value) == "table" and getmetatable(value)
    return own[meta] and meta or nil
  end
  return set, get
end

-- What a plugin gets a copy of when it first asks, so that it changes nobody else's.
local COPIED = { string = string, table = table, math = math, utf8 = utf8 }

local function copy_of(library)
  local copy = {}
  for name, value in pairs(library) do copy[name] = value end
  copy.dump = nil
  return copy
end

-- Data of a module is copied: no plugin can change what another one sees.
local function own_copy(data)
  if getmetatable(data) ~= nil then return data end
  local copy = {}
  for key, item in pairs(data) do copy[key] = type(item) == "table" and own_copy(item) or item end
  return copy
end

-- A cancel is the driver's alone: it passes through every pcall.
local function refuse_cancel(fn)
  return function(kind, ...)
    if kind == "cancelled" then error("only the worker cancels; use another kind of error", 2) end
    return fn(kind, ...)
  end
end

-- A module as a plugin sees it: readable, not writable.
local function view_of(module, name)
  local copy = own_copy(module)
  if name == "error" then copy.new, copy.raise = refuse_cancel(copy.new), refuse_cancel(copy.raise) end
  return setmetatable({}, {
    __index = copy,
    __newindex = function(_, key)
      error(("worker.%s is the same for all plugins; '%s' cannot be set in it"):format(name, key), 2)
    end,
    __pairs = function() return next, copy end,
    __metatable = false,
  })
end

local function printer(plugin)
  return function(...)
    local words = table.pack(...)
    for i = 1, words.n do words[i] = tostring(words[i]) end
    log.info("plugin.print", plugin .. ": " .. table.concat(words, "\t"), { plugin = plugin })
  end
end

-- `require` of one plugin: the library, then files of its own folder ("acme.wire" for acme/wire.lua).
local function requirer(plugin, env, read)
  local loaded = {}
  return function(name)
    if loaded[name] ~= nil then return loaded[name] end
    local word = tostring(name):match("^worker%.([%w_]+)$")
    if word and LIBRARY[word] then
      loaded[name] = view_of(require(name), word)
      return loaded[name]
    end
    local own = plugin.folder and tostring(name):match("^" .. plugin.name .. "%.([%w_]+)$")
    if not own then
      error(("a plugin may require worker.* of the standard library and files of its own folder, not '%s'")
        :format(tostring(name)), 2)
    end
    local path = plugin.folder .. "/" .. own .. ".lua"
    local source, why = read(path)
    if not source then error(("cannot read %s: %s"):format(path, why), 2) end
    local chunk, syntax = load(source, "@" .. path, "t", env)
    if not chunk then error(syntax, 2) end
    local result = chunk(name)
    loaded[name] = result == nil and true or result
    return loaded[name]
  end
end

--- `sandbox.env(plugin, read)`: a fresh environment for `plugin` {name=, folder=}; `read(path)`
-- gives a file's text.
function sandbox.env(plugin, read)
  local set_metatable, get_metatable = metatables()
  local base = {
    assert = assert, error = error, ipairs = ipairs, next = next, pairs = pairs, select = select,
    rawequal = rawequal, rawget = rawget, rawlen = rawlen, rawset = rawset,
    setmetatable = set_metatable, getmetatable = get_metatable,
    tonumber = tonumber, tostring = tostring, type = type, _VERSION = _VERSION,
    pcall = safe_pcall, xpcall = safe_xpcall, print = printer(plugin.name),
  }
  setmetatable(base, { __index = function(_, name)
    if COPIED[name] then
      base[name] = copy_of(COPIED[name])
      return base[name]
    end
    error(("there is no global '%s' for a plugin"):format(tostring(name)), 2)
  end })
  local env = setmetatable({}, {
    __index = base,
    __newindex = function(_, name)
      error(("a plugin must not set the global '%s': make it local"):format(tostring(name)), 2)
    end,
    __metatable = false,
  })
  base.require = requirer(plugin, env, read)
  return env
end

-- Strings are shared by everybody: nobody gets at their metatable.
local of_strings = getmetatable("")
if of_strings then of_strings.__metatable = false end -- false already when this is loaded again

return sandbox
