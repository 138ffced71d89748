-- explain.lua: `worker explain`: a plugin's documentation, from the plugin's own table.
local about = require "worker.about"
local args = require "worker.args"
local err = require "worker.error"
local json = require "worker.json"
local parts = require "worker.config.parts"
local places = require "worker.places"
local registries = require "worker.registry"
local schema = require "worker.schema"
local shape = require "worker.tools.shape"
local terminal = require "worker.terminal"
local time = require "worker.time"

local command = {
  summary = "what a plugin does and how it is configured, with YAML to copy",
  usage = "[options] [KIND/]NAME",
  words = { 1, 1, missing = "say which plugin; `worker plugins` lists them" },
  complete = "plugin",
  options = {
    plugins = { "list", value = "DIR", doc = "Look into this folder, too." },
    sample = { "flag", doc = "Print only the YAML, for a file." },
  },
  examples = {
    { "worker explain local", "the protocol `local`" },
    { "worker explain policy/timeout --sample >> worker.yaml", "a block to begin with" },
  },
}

local KINDS = {}
for _, kind in ipairs(registries.KINDS) do KINDS[kind], KINDS[registries.folder(kind)] = kind, kind end

local function find(registry, word)
  local kind, name = word:match("^(.-)/(.+)$")
  if kind and not KINDS[kind] then
    args.usage(("a kind of plugin is one of %s, not '%s'"):format(table.concat(registries.KINDS, ", "), kind))
  end
  local found, names = {}, {}
  for _, entry in ipairs(registry:all()) do
    if not kind or entry.kind == KINDS[kind] then
      names[#names + 1] = entry.name
      if entry.name == (name or word) then found[#found + 1] = entry end
    end
  end
  if #found == 0 then
    args.usage(("there is no plugin '%s' in %s%s"):format(word, table.concat(registry.dirs, ", "),
      args.nearest(name or word, names, "'%s'")))
  elseif #found > 1 then
    args.usage(("there is more than one plugin '%s': say %s/%s or %s/%s"):format(word,
      found[1].kind, found[1].name, found[2].kind, found[2].name))
  end
  return found[1]
end

-- What a tool says of its container.
local function container_of(plugin)
  local said = shape.read(plugin)
  return terminal.columns({
    { "image", said.image },
    { "limits", ("%s processors, %s memory, %d processes, %s"):format(said.cpus, time.format_size(said.memory), said.pids,
      time.format_duration(said.timeout)) },
    { "workspace", said.workspace or "none" },
    { "network", said.network and "yes" or "none" },
    { "tasks", table.concat({ plugin.name, table.unpack(said.operations) }, ", ") },
  }, { indent = 2 })
end

-- A task for a tool.
local function task_of(plugin)
  local parameters = json.object {}
  for name, field in pairs(plugin.config or {}) do
    if type(field) == "table" then parameters[name] = field.example end
  end
  return json.encode({ tool = plugin.name, parameters = parameters }, { pretty = true }) .. "\n"
end

local function sample(plugin)
  if plugin.kind == "tool" then return task_of(plugin) end
  if plugin.kind == "protocol" then
    return "servers:\n" .. schema.sample(plugin, { indent = "    " }):gsub("^    protocol", "  - protocol", 1)
  end
  if plugin.kind == "sink" then
    return "events:\n" .. schema.sample(plugin, { indent = "    " }):gsub("^%s*", "  - ", 1)
  end
  return schema.sample(plugin)
end

-- The documentation; a plugin without `doc` is described by the comment its file begins with.
local function documentation(entry)
  local told = schema.explain(entry.plugin)
  if entry.kind == "tool" then told = told .. "\n" .. container_of(entry.plugin) end
  if entry.plugin.doc then return told end
  local words = terminal.wrap(about.paragraph(entry), terminal.width(), 2)
  return (told:gsub("\n", function() return "\n\n  " .. words .. "\n" end, 1))
end

function command.run(options, words)
  local entry = find(registries.open(places.plugin_dirs(options.plugins or {})), words[1])
  if not entry.plugin then
    err.raise("config", ("%s '%s' is broken: %s"):format(entry.kind, entry.name, entry.problem))
  end
  if entry.kind == "sink" then entry.plugin = parts.sink_fields(entry.plugin) end
  local block = sample(entry.plugin)
  if options.sample then
    io.stdout:write(block)
    return 0
  end
  io.stdout:write(documentation(entry), "\nTo copy:\n\n", (block:gsub("[^\n]+", "  %0")),
    "\n(", entry.path, ")\n")
  return 0
end

return command
