-- worker.args.server: the command line of a server: `worker --protocol local --dir D plugins/`.
--
-- What a configuration may say of the worker and of a server can be said by options, and so can the
-- fields of the plugins that are named (retry.first is --retry-first).  So it takes two looks: the
-- first finds the folders with plugins and which of them are meant, the second is strict.
local args = require "worker.args"
local commands = require "worker.commands"
local err = require "worker.error"
local files = require "worker.config.files"
local places = require "worker.places"
local registries = require "worker.registry"
local schema = require "worker.schema"
local spec = require "worker.config.spec"
local sys = require "worker.core.sys"

local server = {}

-- Not for the command line: what is a tree there, and what has an option of its own already.
local NO_OPTION = {
  servers = true, policies = true, events = true, plugins = true, ["log.level"] = true, ["log.format"] = true,
}
local PLACEHOLDERS = { protocol = "NAME", executor = "NAME", name = "NAME", slots = "N" }

-- A field of a protocol cannot be reached by an option when the worker has a setting of that name.
local function is_hidden(path, attributes)
  return NO_OPTION[path] or attributes.plugin and attributes.into == "protocol_flags"
    and (spec.top[path] or spec.server[path])
end

-- Adds the fields as options that stay text, in values.protocol_flags, by their name without dashes.
-- Where a command has an option of that name already, the plugin's name goes in front.
local function add_fields(options, fields, prefix, attributes)
  for name, field in pairs(fields) do
    local path = prefix .. name
    local key = path:gsub("[_.]", "-")
    local long = attributes.taken[key] and attributes.plugin and attributes.plugin .. "-" .. key or key
    local offered = type(field) == "table" and not is_hidden(path, attributes)
    if offered and field[1] == "record" then
      add_fields(options, field.fields or {}, path .. ".", attributes)
    elseif offered and not attributes.taken[long] then
      attributes.taken[long] = true
      options["fields:" .. long] = setmetatable({
        field[1], into = attributes.into, key = key, name = long, path = path, field = field,
        plugin = attributes.plugin, value = not attributes.plugin and PLACEHOLDERS[path] or nil,
        env = false, short = false,
      }, { __index = field })
    end
  end
end

local function names_taken(options)
  local taken = {}
  for key, option in pairs(options) do taken[args.long(key, option):sub(3)] = true end
  return taken
end

--- `server.options(options)`: these options and those of every server: --config, and what the
-- configuration says of the worker and its one server.
function server.options(options)
  local all = {
    config = { "path", value = "FILE", short = "c",
      doc = "The configuration; else WORKER_CONFIG, ~/.config/worker/worker.yaml, /etc/worker/worker.yaml." },
  }
  for key, option in pairs(options) do all[key] = option end
  local taken = names_taken(all)
  -- the name of the worker comes first: it is what --name means
  add_fields(all, spec.top, "", { into = "protocol_flags", taken = taken })
  add_fields(all, spec.server, "", { into = "protocol_flags", taken = taken })
  return all
end

local function with_plugins(options, plugins)
  local all = {}
  for key, option in pairs(options) do all[key] = option end
  local taken = names_taken(all)
  for _, entry in ipairs(plugins) do
    add_fields(all, entry.plugin.config or {}, "", { into = entry.into, taken = taken, plugin = entry.plugin.name })
  end
  return all
end

-- The first look --------------------------------------------------------------------------------------

-- What the configuration file says of folders and of its one server.  Its mistakes are not ours to
-- tell: config.load finds them all.
local function peek(path)
  local paths, named_by = files.find { config = path, env = sys.env }
  local raw, marks = files.load(paths, named_by)
  local conf = schema.check({ plugins = spec.top.plugins }, { plugins = raw.plugins }, marks) or {}
  local servers = raw.servers
  local only = type(servers) == "table" and #servers == 1 and type(servers[1]) == "table" and servers[1] or {}
  return { plugins = conf.plugins or {}, protocol = only.protocol }
end

local function existing_directories(words)
  local dirs = {}
  for _, word in ipairs(words) do
    if places.is_directory(word) then dirs[#dirs + 1] = word end
  end
  return dirs
end

-- An option that no named plugin has may belong to one that was not named.
local function owner_of(registry, name)
  for _, kind in ipairs { "protocol", "executor" } do
    for _, plugin_name in ipairs(registry:names(kind)) do
      local plugin = registry:get(kind, plugin_name)
      local all = plugin and with_plugins({}, { { plugin = plugin, into = "x" } }) or {}
      if all["fields:" .. name] then
        return ("--%s belongs to the %s '%s': add --%s %s"):format(name, kind, plugin_name, kind, plugin_name)
      end
    end
  end
end

-- The name of a plugin as it was typed, whether the command or the configuration has the option.
local function typed_name(values, kind)
  return values[kind] or (values.protocol_flags or {})[kind]
end

local function is_there(registry, kind, name)
  for _, one in ipairs(registry:names(kind)) do
    if one == name then return true end
  end
  return false
end

-- The plugin of this name, or nil for what is no name.  One that is there and broken is no mistake of
-- who typed its name; and what was not typed is for the configuration to complain about.
local function find_plugin(registry, kind, name, typed)
  if type(name) ~= "string" or name:find("^%s*[%[{]") then return nil end
  local plugin, why = registry:get(kind, name)
  if not plugin and typed then err.raise(is_there(registry, kind, name) and "config" or "usage", why) end
  return plugin
end

local function named_plugins(registry, values, file)
  local typed = typed_name(values, "protocol")
  local protocol = find_plugin(registry, "protocol", typed or sys.env("WORKER_PROTOCOL") or file.protocol, typed)
  local executor = find_plugin(registry, "executor", typed_name(values, "executor"), true)
  local plugins = {}
  if protocol then plugins[1] = { plugin = protocol, into = "protocol_flags" } end
  if executor then plugins[#plugins + 1] = { plugin = executor, into = "executor_flags" } end
  return plugins
end

local function check_dirs(dirs)
  for _, dir in ipairs(dirs) do
    if not places.is_directory(dir) then
      args.usage(("there is no directory '%s' to read plugins from"):format(dir))
    end
  end
end

-- The second look -------------------------------------------------------------------------------------

-- The fields of the executor go where the configuration has them: { shell: { path: "..." } }.
local function executor_value(name, given, all)
  local fields = {}
  for _, option in pairs(all) do
    local text = option.into == "executor_flags" and given[option.key]
    if text then
      local value, why = schema.parse(option.field, text)
      if value == nil then args.usage(("--%s: %s"):format(option.name, why)) end
      local at = fields
      for part in option.path:gmatch("([^.]+)%.") do
        at[part] = at[part] or {}
        at = at[part]
      end
      -- a secret would come back as an object; as text it is read once more where it is used
      at[option.path:match("[^.]+$")] = option.field[1] == "secret" and text or value
    end
  end
  return require("worker.json").encode { [name] = fields }
end

local function move_executor_fields(values, all)
  local given = values.executor_flags
  if not given then return end
  local text = executor_value(typed_name(values, "executor"), given, all)
  values.executor_flags = nil
  if values.executor then values.executor = text else values.protocol_flags.executor = text end
end

--- `server.parse(argv, options)`: the values, the folders among the words, the registry, and all the
-- options there were (for help).  What the configuration is to check stays text, by its option
-- without dashes, in values.protocol_flags.
function server.parse(argv, options)
  options = server.options(options or commands.options_of("run"))
  local first, words = args.parse(argv, options, { lenient = true })
  local file = peek(first.config)
  local guess = existing_directories(words)
  local registry = registries.open(places.plugin_dirs(file.plugins, guess))
  local all = with_plugins(options, named_plugins(registry, first, file))
  local values, dirs = args.parse(argv, all, {
    on_unknown = function(name) return owner_of(registry, name) end,
  })
  if values.help then return values, dirs, registry, all end
  check_dirs(dirs)
  move_executor_fields(values, all)
  if #dirs ~= #guess then registry = registries.open(places.plugin_dirs(file.plugins, dirs)) end
  return values, dirs, registry, all
end

-- Options that the command has itself, but that mean fields of the configuration.
local function own_flags(values, flags)
  for _, fields in ipairs { spec.top, spec.server } do
    for name, field in pairs(fields) do
      if field[1] == "record" then
        for inner in pairs(field.fields) do
          local value = values[name .. "_" .. inner]
          if value ~= nil then flags[name .. "-" .. inner] = tostring(value) end
        end
      elseif values[name] ~= nil and not NO_OPTION[name] then
        flags[name] = tostring(values[name])
      end
    end
  end
end

--- `server.to_config(values, dirs)`: the options of config.load for this command line.
function server.to_config(values, dirs)
  local flags = {}
  own_flags(values, flags)
  for name, text in pairs(values.protocol_flags or {}) do flags[name] = text end
  for _, name in ipairs { "level", "format" } do
    -- what only the environment said is found there by the configuration itself
    local value = values["log_" .. name]
    flags["log-" .. name] = value ~= sys.env("WORKER_LOG_" .. name:upper()) and value or nil
  end
  if not values.log_level then
    flags["log-level"] = values.verbose and "debug" or values.quiet and "warn" or nil
  end
  return { config = values.config, flags = flags, dirs = dirs }
end

return server
