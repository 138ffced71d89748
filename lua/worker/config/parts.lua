-- worker.config.parts: the parts of the configuration that plugins describe: servers, policies, event
-- sinks.
--
-- Every function takes the load: env, flags, protocol_flags, executor_flags, marks, registry, and
-- what is collected: problems, warnings, origins, sections (for `show`), known (flags).

local files = require "worker.config.files"
local flags = require "worker.config.flags"
local fs = require "worker.fs"
local references = require "worker.config.references"
local schema = require "worker.schema"
local spec = require "worker.config.spec"
local text = require "worker.text"
local yaml = require "worker.yaml"

local parts = {}

local PREFIX = "WORKER_"

local function sorted_keys(map)
  local keys = {}
  for key in pairs(map) do keys[#keys + 1] = key end
  table.sort(keys, function(a, b) return tostring(a) < tostring(b) end)
  return keys
end

local function add(list, more)
  table.move(more, 1, #more, #list + 1, list)
end

local function say(list, message, fields)
  list[#list + 1] = schema.problem(message, fields)
end

--- `parts.check(load, fields, value, path, options)`: checks one part; its values or nil.  Keeps
-- what `show` needs.
function parts.check(load, fields, value, path, options)
  options.env, options.references = load.env, true
  local conf, problems, warnings, origins = schema.check(fields, value, load.marks, path, options)
  add(load.problems, problems)
  add(load.warnings, warnings)
  for at, origin in pairs(origins) do load.origins[at] = origin end
  load.sections[#load.sections + 1] = { fields = fields.config or fields, conf = conf, path = path }
  return conf
end

local function complain(load, container, key, path, message, of_key)
  local file, line, column = yaml.where(load.marks, container, key, of_key)
  local place = file and ("%s:%d:%d: "):format(file, line, column) or ""
  say(load.problems, place .. path .. ": " .. message,
    { file = file, line = line, column = column, path = path })
end

--- `parts.is_from_file(load, path)`: whether neither flag nor environment gave the value.
function parts.is_from_file(load, path)
  local origin = load.origins[path] or ""
  return not origin:find("^flag ") and not origin:find("^environment ")
end

-- ---- plugins ----

-- The plugin, or nil after a complaint about container[key], or about the key itself.
local function find_plugin(load, kind, name, path, container, key, of_key)
  if type(name) ~= "string" then
    return complain(load, container, key, path, ("expected the name of a %s"):format(kind))
  end
  local plugin, why = load.registry:get(kind, name)
  if not plugin then return complain(load, container, key, path, why, of_key) end
  return plugin
end

-- One plugin with its checked fields: { name=, plugin=, conf= }.
local function use(load, kind, reference, path)
  local plugin = find_plugin(load, kind, reference.name, path,
    reference.container, reference.key, reference.of_key)
  if not plugin then
    load.unsure = true -- which flags there are
    return nil
  end
  local given
  if kind == "executor" and not load.several then
    given = flags.take(load, plugin.config or {})
    for field, value in pairs(load.executor_flags) do given[field] = value end
  end
  local inner = path .. "." .. reference.name
  local fields = kind == "sink" and parts.sink_fields(plugin) or plugin
  local conf = parts.check(load, fields, reference.fields or {}, inner, { flags = given })
  return conf and { name = reference.name, plugin = plugin, conf = conf }
end

local function use_all(load, kind, container, key, path)
  local list, wrong = references.read(container[key], container, key, load.marks)
  if wrong then
    complain(load, wrong.container, wrong.key, path .. wrong.path, wrong.message)
    return {}
  end
  local used = {}
  for _, reference in ipairs(list) do
    used[#used + 1] = use(load, kind, reference, path .. reference.path)
  end
  return used
end

-- ---- servers ----

--- `parts.server_fields(plugin)`: the fields of the server itself and those of its protocol, as one
-- spec: people write them as one.
function parts.server_fields(plugin)
  local fields = {}
  for name, field in pairs(plugin.config or {}) do fields[name] = field end
  for name, field in pairs(spec.server) do fields[name] = field end
  return { kind = "protocol", config = fields, check = plugin.check }
end

local function split_server(conf, plugin)
  local own = {}
  for name in pairs(plugin.config or {}) do
    if not spec.server[name] then own[name] = conf[name] end
  end
  return own
end

-- Where the executor is written, so that the marks of the file can say where it is wrong.
local function executor_source(load, entry, conf, path)
  local given = parts.is_from_file(load, path .. ".executor") and entry.executor
  return (type(given) == "table" or given == conf.executor) and entry or conf
end

-- Out of a map and out of what is known of its places; "file:line:column" of the value and of the key.
local function take_out(load, entry, key)
  local mark, places = load.marks[entry], {}
  for i, of_key in ipairs { false, true } do
    places[i] = ("%s:%d:%d"):format(yaml.where(load.marks, entry, key, of_key))
  end
  entry[key], mark.keys[key], mark.values[key] = nil, nil, nil
  return places[1], places[2]
end

-- What a file that others read, too, says to them is not ours to judge, but for what looks like a slip.
local function leave_to_others(load, entry, fields)
  local names = {}
  for name in pairs(fields) do names[#names + 1] = name end
  table.sort(names)
  for _, key in ipairs(sorted_keys(entry)) do
    if not fields[key] then
      local near, _, place = text.nearest(tostring(key), names), take_out(load, entry, key)
      if near then say(load.warnings, ("%s: %s means nothing to the worker; did you mean %s?"):format(place, key, near)) end
    end
  end
end

-- Keys of such a file that are settings of the worker itself, under the paths of those.
local function take_settings(load, entry, settings)
  for key, path in pairs(settings or {}) do
    if entry[key] ~= nil then
      load.own[path] = { value = entry[key], key = key }
      load.own[path].place = take_out(load, entry, key)
    end
  end
end

-- A server that no file of ours describes may have one of its own, which people have already: the
-- protocol says own_file = { name = "x.yaml", env = "X_CONFIG", section = the key under which it is
-- if there is such a key, settings = { key = path of a setting of the worker }, shared = true: others
-- read it, too }.
local function own_entry(load, plugin, fields)
  local own = plugin.own_file
  local named, home = own.env and load.env(own.env), load.env("HOME")
  local path = named or home and own.name:gsub("^~/", home .. "/") or own.name
  if not named and not fs.exists(path) then return {} end
  local tree, marks, problems = files.load({ path }, named and own.env)
  add(load.problems, problems)
  if #problems > 0 then return nil end
  for container, mark in pairs(marks) do load.marks[container] = mark end
  load.files[#load.files + 1] = path
  local section = own.section and tree[own.section]
  local entry = type(section) == "table" and section or tree
  take_settings(load, entry, own.settings)
  if own.shared then leave_to_others(load, entry, fields) end
  return entry
end

-- What such a file calls the number of slots counts unless somebody said slots.
local function slots_of(load, conf, plugin, path)
  local own = plugin.slots_field and conf[plugin.slots_field]
  return (load.origins[path .. ".slots"] or "default") == "default" and own or conf.slots
end

-- The field of a path like "log.level".
local function field_at(path)
  local field = { fields = spec.top }
  for name in path:gmatch("[^.]+") do field = field.fields[name] end
  return field
end

--- `parts.settle(load, top)`: into the worker's settings what a protocol's own file says of them, where
-- nobody else did.
function parts.settle(load, top)
  for path, own in pairs(load.own) do
    if (load.origins[path] or "default") == "default" then
      local name = path:match("[^.]+$")
      local value, problems = schema.check({ [own.key] = field_at(path) }, { [own.key] = own.value }, nil, "", { env = load.env })
      if value then
        local group = path:match("^(.*)%.")
        local container = group and top[group] or top
        container[name], load.origins[path] = value[own.key], own.place
      else
        say(load.problems, ("%s: %s"):format(own.place, tostring(problems[1])))
      end
    end
  end
end

--- `parts.suggest(load, container, key, value, path, plugin)`: what a protocol suggests for a setting of
-- the worker, to be called where nobody gave one.
function parts.suggest(load, container, key, value, path, plugin)
  if value == nil then return end
  container[key] = value
  load.origins[path] = "suggested by " .. plugin.name
end

local function check_server(load, entry, container, index)
  local path = ("servers[%d]"):format(index)
  if type(entry) ~= "table" or load.marks[entry] and load.marks[entry].kind ~= "map" then
    return complain(load, container, index, path, "expected a map like { protocol: NAME }")
  end
  local name = load.protocol or entry.protocol
  if name == nil then
    return complain(load, entry, nil, path .. ".protocol", "is required: " .. spec.server.protocol.doc)
  end
  local plugin = find_plugin(load, "protocol", name, path .. ".protocol", entry, "protocol")
  if not plugin then
    load.unsure = true -- which flags there are
    return nil
  end

  local fields, given = parts.server_fields(plugin), {}
  flags.note(load, fields.config)
  if not load.several then
    given = flags.take(load, fields.config)
    for field, value in pairs(load.protocol_flags) do given[field] = value end
  end
  if plugin.own_file and not load.marks[entry] then
    entry = own_entry(load, plugin, fields.config)
    if not entry then return nil end
  end
  local conf = parts.check(load, fields, entry, path,
    { env_prefix = PREFIX, env_fills = load.several ~= nil, flags = given })
  if not conf then return nil end
  local suggests = plugin.suggests and plugin.suggests(conf) or {}
  if load.origins[path .. ".executor"] == "default" then
    parts.suggest(load, conf, "executor", suggests.executor, path .. ".executor", plugin)
  end
  local executors = use_all(load, "executor", executor_source(load, entry, conf, path), "executor",
    path .. ".executor")
  return {
    name = conf.name, protocol = conf.protocol, slots = slots_of(load, conf, plugin, path), plugin = plugin,
    conf = split_server(conf, plugin), executor = executors[1], executors = executors, strict = conf.strict,
    suggests = suggests,
  }
end

-- Names tell servers apart in logs, so they must differ.
local function name_servers(load, servers)
  local taken = {}
  for index, server in ipairs(servers) do
    if server.name and taken[server.name] then
      say(load.problems, ("servers[%d].name: another server is called %s too"):format(index, server.name))
    end
    if server.name then taken[server.name] = true end
  end
  for _, server in ipairs(servers) do
    local base, number = server.protocol, 1
    while not server.name do
      local name = number == 1 and base or ("%s-%d"):format(base, number)
      if not taken[name] then server.name, taken[name] = name, true end
      number = number + 1
    end
  end
end

-- With --protocol or WORKER_PROTOCOL there is one server, and flags describe it.
local function server_entries(load, listed)
  load.protocol = load.flags.protocol or load.env(PREFIX .. "PROTOCOL")
  if not load.protocol then return listed end
  if #listed == 1 and type(listed[1]) == "table" and listed[1].protocol == load.protocol then
    return listed
  end
  if #listed > 0 then
    say(load.warnings, ("the servers of the file are not used: --protocol or WORKER_PROTOCOL says %s")
      :format(load.protocol))
  end
  return { {} }
end

--- `parts.servers(load, listed)`: the servers, from the entries of the file (or flags instead).
function parts.servers(load, listed)
  local entries, servers = server_entries(load, listed), {}
  flags.note(load, spec.server)
  load.several = #entries > 1 and #entries or nil
  for index, entry in ipairs(entries) do
    servers[#servers + 1] = check_server(load, entry, entries, index)
  end
  name_servers(load, servers)
  return servers
end

-- ---- event sinks ----

--- `parts.sink_fields(plugin)`: the fields of every sink and those of this one, as one spec.
function parts.sink_fields(plugin)
  local fields = {}
  for name, field in pairs(plugin.config or {}) do fields[name] = field end
  for name, field in pairs(spec.sink) do fields[name] = field end
  return { kind = "sink", name = plugin.name, doc = plugin.doc, config = fields, check = plugin.check }
end

-- What the driver needs of a sink, beside what its plugin gets.
local function split_sink(used, count)
  local own = {}
  for name in pairs(used.plugin.config or {}) do own[name] = used.conf[name] end
  local sink = { name = count > 1 and used.name .. "-" .. count or used.name, plugin = used.plugin, conf = own }
  for name in pairs(spec.sink) do sink[name] = used.conf[name] end
  return sink
end

--- `parts.sinks(load, source)`: the event sinks of source.events: a list of { name, plugin, conf, only,
-- output, queue, keep }.
function parts.sinks(load, source)
  local list, counts = {}, {}
  for _, used in ipairs(use_all(load, "sink", source, "events", "events")) do
    counts[used.name] = (counts[used.name] or 0) + 1
    list[#list + 1] = split_sink(used, counts[used.name])
  end
  return list
end

-- ---- policies ----

local function check_chain(load, policy, which, path)
  if policy.plugin[which] then return end
  local chains = {}
  for _, name in ipairs { "claim", "run", "finish" } do
    if policy.plugin[name] then chains[#chains + 1] = name end
  end
  say(load.problems, ("%s: the policy %s has nothing to do there; it belongs to %s"):format(
    path, policy.name, table.concat(chains, " and ")), { path = path })
end

-- A default policy that is not installed is left out, with a word about it.
local function default_chain(load, which)
  local names = {}
  for _, name in ipairs(spec.policies[which]) do
    local plugin, why = load.registry:get("policy", name)
    if plugin then
      names[#names + 1] = name
    else
      say(load.warnings, ("policies.%s goes without %s: %s"):format(which, name, why))
    end
  end
  return names
end

--- `parts.policies(load, given)`: the chains, each a list of { name, plugin, conf }.
function parts.policies(load, given)
  local chains = {}
  for _, which in ipairs { "claim", "run", "finish" } do
    local source = given[which] and given or { [which] = default_chain(load, which) }
    local path = "policies." .. which
    chains[which] = use_all(load, "policy", source, which, path)
    for _, policy in ipairs(chains[which]) do check_chain(load, policy, which, path) end
  end
  return chains
end

return parts
