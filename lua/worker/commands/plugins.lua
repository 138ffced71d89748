-- plugins.lua: `worker plugins`: which plugins there are, where they are from, and what is broken.
local about = require "worker.about"
local args = require "worker.args"
local places = require "worker.places"
local registries = require "worker.registry"
local terminal = require "worker.terminal"

local command = {
  summary = "list the plugins, and what is wrong with those that are broken",
  usage = "[options] [NAME]",
  words = { 0, 1 },
  complete = "plugin",
  options = {
    plugins = { "list", value = "DIR", doc = "Look into this folder, too." },
    json = { "flag", doc = "Print JSON." },
    names = { "enum", values = { "protocol", "executor", "policy", "tool", "sink", "all" }, hidden = true,
      doc = "Only names, for completion." },
  },
  examples = {
    { "worker plugins", "all of them" },
    { "worker plugins --plugins ./plugins acme", "one of them, found in a folder" },
  },
}

local SLOTS = {
  "open", "claim", "fetch", "start", "pulse", "beat", "log", "run", "plan", "check", "collect", "brief", "finish", "release",
  "publish", "flush", "close", "heard", "health", "command",
}

local function slots_of(plugin)
  local slots = {}
  for _, slot in ipairs(SLOTS) do
    if plugin[slot] then slots[#slots + 1] = slot end
  end
  return slots
end

local function matching(entries, name)
  if not name then return entries end
  local found, names = {}, {}
  for _, entry in ipairs(entries) do
    names[#names + 1] = entry.name
    if entry.name == name or entry.kind .. "/" .. entry.name == name then found[#found + 1] = entry end
  end
  if #found == 0 then
    args.usage(("there is no plugin '%s'%s"):format(name, args.nearest(name, names, "'%s'")))
  end
  return found
end

local function print_json(entries)
  local json = require "worker.json"
  local list = {}
  for i, entry in ipairs(entries) do
    list[i] = {
      kind = entry.kind, name = entry.name, path = entry.path, problem = entry.problem,
      doc = about.sentence(entry), slots = entry.plugin and json.array(slots_of(entry.plugin)) or nil,
    }
  end
  io.stdout:write(json.encode(json.array(list)), "\n")
end

local function print_names(entries, kind)
  for _, entry in ipairs(entries) do
    if kind == "all" or entry.kind == kind then io.stdout:write(entry.name, "\n") end
  end
end

local function print_table(entries, paint)
  local rows, broken = { { paint("bold", "KIND"), paint("bold", "NAME"), paint("bold", "WHAT IT DOES") } }, 0
  for _, entry in ipairs(entries) do
    local what = about.sentence(entry)
    if entry.problem then
      broken = broken + 1
      what = paint("red", "broken:") .. " " .. entry.problem
    end
    rows[#rows + 1] = { entry.kind, entry.name, what }
  end
  io.stdout:write(terminal.columns(rows))
  if broken > 0 then io.stdout:write(("\n%d of %d plugins cannot be used.\n"):format(broken, #entries)) end
end

local function print_one(entry, paint)
  local rows = { { "kind", entry.kind }, { "file", entry.path } }
  rows[#rows + 1] = { "state", entry.problem and paint("red", "broken:") .. " " .. entry.problem or "ok" }
  if entry.plugin then
    rows[#rows + 1] = { "slots", table.concat(slots_of(entry.plugin), " ") }
    local fields = {}
    for name, field in pairs(entry.plugin.config or {}) do
      if type(field) == "table" then fields[#fields + 1] = field.required and name .. "*" or name end
    end
    table.sort(fields)
    rows[#rows + 1] = { "fields", #fields > 0 and table.concat(fields, " ") .. "   (* required)" or "none" }
  end
  io.stdout:write(paint("bold", entry.name), ": ", about.sentence(entry), "\n",
    terminal.columns(rows, { indent = 2 }))
  if entry.plugin then io.stdout:write(("  more: worker explain %s/%s\n"):format(entry.kind, entry.name)) end
end

function command.run(options, words)
  local registry = registries.open(places.plugin_dirs(options.plugins or {}))
  local entries = matching(registry:all(), words[1])
  local paint = terminal.painter(terminal.color(options.color))
  if options.json then
    print_json(entries)
  elseif options.names then
    print_names(entries, options.names)
  elseif words[1] then
    for _, entry in ipairs(entries) do print_one(entry, paint) end
  elseif #entries == 0 then
    io.stdout:write("There are no plugins", #registry.dirs > 0 and " in " .. table.concat(registry.dirs, ", ")
      or ": no folder with plugins was named, and none is where they are installed (/usr/share/worker/plugins)", ".\n")
  else
    print_table(entries, paint)
    io.stdout:write(paint("dim", "\nfrom " .. table.concat(registry.dirs, ", ")), "\n")
  end
  return 0
end

return command
