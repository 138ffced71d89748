-- registry.lua: finding plugins and checking what they say of themselves.
--
-- A plugin is <dir>/<kinds>/<name>.lua or <dir>/<kinds>/<name>/init.lua and returns a table with
-- kind, name, api, config and its slots.  A plugin that is broken is remembered with what is wrong
-- and where; it matters only when somebody asks for it.
local err = require "worker.error"
local fs = require "worker.fs"
local guard = require "worker.guard"
local sandbox = require "worker.sandbox"
local schema = require "worker.schema"
local text = require "worker.text"

local registry = {}

local API = 1
local SOURCE_MOST = 1024 * 1024

-- kind -> folder, and the slots a plugin of that kind may and must have.
local KINDS = {
  protocol = {
    folder = "protocols",
    needs = { "open", "claim" },
    slots = { "open", "claim", "fetch", "start", "pulse", "beat", "log", "collect", "brief", "finish", "release",
      "close", "heard", "health", "patience", "connection", "suggests" },
    data = { "finish_once", "output", "batch", "claims", "claim_breaks", "keeps_record", "hands_out_again",
      "completes", "own_file", "slots_field", "claims_always", "hands_out_retries", "reports_aside" },
  },
  executor = { folder = "executors", needs = { "run" }, slots = { "run", "plan", "check" }, data = { "isolation" } },
  policy = { folder = "policies", needs = {}, slots = { "claim", "run", "finish", "check" },
    data = { "finish_by_id" } },
  tool = { folder = "tools", needs = { "command" }, slots = { "command" }, data = {},
    read = function(plugin) return require("worker.tools.shape").read(plugin) end },
  sink = { folder = "sinks", needs = { "publish" }, slots = { "open", "publish", "flush", "close", "check" }, data = {} },
}

--- The kinds of plugins, in the order in which they are told.
registry.KINDS = { "protocol", "executor", "policy", "tool", "sink" }
local COMMON = { "kind", "name", "api", "config", "check", "doc" }

--- `registry.folder(kind)`: the folder with the plugins of a kind.
function registry.folder(kind) return KINDS[kind].folder end

local function read(path)
  return fs.read(path, SOURCE_MOST)
end

-- The contract ---------------------------------------------------------------------------------------

local function set_of(...)
  local set = {}
  for _, list in ipairs { ... } do
    for _, word in ipairs(list) do set[word] = true end
  end
  return set
end

local function words_of(set)
  local words = {}
  for word in pairs(set) do words[#words + 1] = word end
  table.sort(words)
  return words
end

local function check_slots(plugin, kind)
  for _, slot in ipairs(kind.needs) do
    if plugin[slot] == nil then return ("a %s needs the function '%s'"):format(plugin.kind, slot) end
  end
  for _, slot in ipairs(kind.slots) do
    if plugin[slot] ~= nil and type(plugin[slot]) ~= "function" then
      return ("'%s' must be a function, not a %s"):format(slot, type(plugin[slot]))
    end
  end
  local known = set_of(kind.slots, kind.data, COMMON)
  for key in pairs(plugin) do
    if not known[key] and type(plugin[key]) == "function" then
      local near = text.nearest(tostring(key), words_of(known))
      return ("a %s has no slot '%s'%s"):format(plugin.kind, tostring(key),
        near and (" (did you mean '%s'?)"):format(near) or "")
    end
  end
end

local function check_plugin(plugin, kind_name, name)
  if type(plugin) ~= "table" then
    return ("a plugin must return a table, this one returned a %s"):format(type(plugin))
  end
  if plugin.kind ~= kind_name then
    return ("in the folder %s/ a plugin says kind = \"%s\", this one says %s"):format(
      KINDS[kind_name].folder, kind_name, plugin.kind and ('"%s"'):format(plugin.kind) or "nothing")
  end
  if plugin.name ~= name then
    return ("its file is named '%s', it calls itself '%s'"):format(name, tostring(plugin.name))
  end
  if plugin.api ~= API then
    return ("it is written for plugin api %s; this worker has api %d"):format(tostring(plugin.api), API)
  end
  if plugin.config ~= nil and type(plugin.config) ~= "table" then return "config must be a table" end
  local wrong = schema.verify(plugin.config or {})
  if wrong[1] then return "config: " .. tostring(wrong[1]) end
  local kind = KINDS[kind_name]
  local missing = check_slots(plugin, kind)
  if missing or not kind.read then return missing end
  return (select(2, kind.read(plugin)))
end

-- Loading --------------------------------------------------------------------------------------------

-- Run a plugin's file; the plugin, or nil and what is wrong, with file and line.
local function load_plugin(entry)
  local source, why = read(entry.path)
  if not source then return nil, ("%s: %s"):format(entry.path, tostring(why)) end
  entry.digest = text.sha256(source)
  local chunk, syntax = load(source, "@" .. entry.path, "t", sandbox.env(entry, read))
  if not chunk then return nil, syntax end
  local ok, plugin = pcall(guard.wrap(chunk), entry.name)
  if not ok then
    if err.is(plugin, "cancelled") then error(plugin, 0) end
    return nil, plugin.message
  end
  local wrong = check_plugin(plugin, entry.kind, entry.name)
  if wrong then return nil, ("%s: %s"):format(entry.path, wrong) end
  for _, slot in ipairs(KINDS[entry.kind].slots) do
    plugin[slot] = plugin[slot] and guard.wrap(plugin[slot])
  end
  return plugin
end

local function add_folder(found, dir, kind)
  local folder = fs.join(dir, KINDS[kind].folder)
  for _, item in ipairs(fs.list(folder) or {}) do
    local name, path, own = item:match("^([%w_-]+)%.lua$"), folder .. "/" .. item, nil
    if not name and fs.exists(path .. "/init.lua") then name, path, own = item, path .. "/init.lua", path end
    if name then found[name] = { kind = kind, name = name, path = path, folder = own } end
  end
end

local methods = {}
local meta = { __index = methods, __name = "worker.registry" }

--- `registry.open(dirs)`: the plugins in these folders; a later folder wins over an earlier one. They are
-- looked through when a plugin of a kind is first asked for.
function registry.open(dirs)
  return setmetatable({ found = {}, dirs = dirs }, meta)
end

-- name -> entry
local function entries(self, kind)
  local found = self.found[kind]
  if not found then
    found = {}
    for _, dir in ipairs(KINDS[kind] and self.dirs or {}) do add_folder(found, dir, kind) end
    self.found[kind] = found
  end
  return found
end

--- `registry:get(kind, name)`: the plugin, or nil and what is wrong (for a person).
function methods:get(kind, name)
  local entry = entries(self, kind)[name]
  if not entry then
    local near = text.nearest(name, self:names(kind))
    local where = #self.dirs > 0 and "in " .. table.concat(self.dirs, ", ")
      or "because no folder with plugins was named, and none is where they are installed (/usr/share/worker/plugins)"
    return nil, ("there is no %s '%s' %s%s"):format(kind, name, where,
      near and (" (did you mean '%s'?)"):format(near) or "")
  end
  if entry.plugin == nil and entry.problem == nil then
    entry.plugin, entry.problem = load_plugin(entry)
  end
  if entry.problem then
    return nil, ("%s '%s' cannot be used: %s"):format(kind, name, entry.problem)
  end
  return entry.plugin
end

--- `registry:digest(kind, name)`: changes when the plugin's file does.
function methods:digest(kind, name)
  local entry = entries(self, kind)[name]
  return entry and entry.digest
end

--- `registry:names(kind)`: the names of all plugins of a kind, sorted.
function methods:names(kind)
  return words_of(entries(self, kind))
end

--- `registry:shelf()`: the tools, as worker.tools looks for them.
function methods:shelf()
  return {
    get = function(_, name) return self:get("tool", name) end,
    names = function() return self:names "tool" end,
  }
end

--- `registry:all()`: every plugin found: { kind, name, path, plugin or nil, problem or nil }.
function methods:all()
  local list = {}
  for _, kind in ipairs(registry.KINDS) do
    for _, name in ipairs(self:names(kind)) do
      self:get(kind, name)
      list[#list + 1] = entries(self, kind)[name]
    end
  end
  return list
end

return registry
