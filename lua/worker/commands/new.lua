-- new.lua: `worker new`: a plugin to begin with, and its spec, both of which work as they are.
local args = require "worker.args"
local fs = require "worker.fs"

local KINDS = require("worker.registry").KINDS
local ONE = table.concat(KINDS, "|")

local command = {
  summary = "write a plugin to begin with, and its spec",
  usage = ONE .. " NAME [DIR]",
  doc = "Writes a plugin below plugins/ and spec/plugins/NAME_spec.lua below DIR (here, if absent). "
    .. "The spec passes as it is; change the plugin and the spec together. Existing files stay.",
  words = { 2, 3, missing = "say what to write: worker new " .. ONE .. " NAME" },
  complete = KINDS,
  examples = {
    { "worker new protocol acme", "an adapter for the orchestrator acme: HTTP, JSON, leases" },
    { "worker new policy office-hours /srv/worker", "a policy, somewhere else" },
  },
}

-- Names that a plugin must not have as a Lua variable.
local RESERVED = {}
for word in ([[and break do else elseif end false for function goto if in local nil not or repeat return
  then true until while error http process registry schema serve err time log]]):gmatch("%S+") do
  RESERVED[word] = true
end

local function variable(name)
  local word = name:gsub("-", "_")
  return RESERVED[word] and word .. "_" or word
end

local function check_name(name)
  if not name:find("^%l[%w_-]*$") or #name > 60 then
    args.usage(("'%s' cannot be the name of a plugin: a small letter, then letters, digits, _ or -"):format(name))
  end
end

local function check_kind(kind)
  for _, one in ipairs(KINDS) do
    if one == kind then return end
  end
  args.usage(("there is no kind of plugin '%s'%s"):format(kind, args.nearest(kind, KINDS, "'%s'")))
end

local function fill(text, name)
  return (text:gsub("@(%u+)@", { NAME = name, VAR = variable(name) }))
end

local function write(path, text)
  fs.mkdir(fs.dir(path), { parents = true })
  fs.write(path, text)
end

function command.run(_, words)
  local kind, name, dir = words[1], words[2], words[3] or "."
  check_kind(kind)
  check_name(name)
  local template = require("worker.templates." .. kind)
  local files = {
    { fs.clean(fs.join(dir, "plugins", template.folder, name .. ".lua")), template.plugin },
    { fs.clean(fs.join(dir, "spec", "plugins", name .. "_spec.lua")), template.spec },
  }
  for _, file in ipairs(files) do
    if fs.exists(file[1]) then args.usage(("%s is there already; it stays as it is"):format(file[1])) end
  end
  for _, file in ipairs(files) do
    write(file[1], fill(file[2], name))
    io.stdout:write("wrote ", file[1], "\n")
  end
  io.stdout:write("\nNext", dir ~= "." and (" (in %s)"):format(dir) or "", ":\n")
  for _, step in ipairs(template.next) do io.stdout:write("  ", fill(step, name), "\n") end
  return 0
end

return command
