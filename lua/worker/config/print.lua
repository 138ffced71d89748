-- worker.config.print: the configuration for people: as it is, and as it could be.

local explain = require "worker.schema.explain"
local parts = require "worker.config.parts"
local secret = require "worker.secret"
local spec = require "worker.config.spec"
local types = require "worker.schema.types"

local print = {}

-- ---- as it is ----

local function sorted(set)
  local names = {}
  for name in pairs(set) do names[#names + 1] = name end
  table.sort(names)
  return names
end

-- The same with stars for the secrets in it.
local function without_secrets(value)
  if secret.is(value) then return "***" end
  if type(value) ~= "table" then return value end
  local copy = {}
  for key, item in pairs(value) do copy[key] = without_secrets(item) end
  return copy
end

local function shown(field, value)
  local kind = types[field[1]]
  if kind and kind.hidden then return "***" end
  if kind and kind.show and type(value) == "number" then return kind.show(value) end
  return explain.flow(without_secrets(value))
end

local function show_fields(lines, origins, fields, conf, path)
  for _, name in ipairs(sorted(fields)) do
    local field, value = fields[name], conf[name]
    local full = path == "" and name or path .. "." .. name
    if type(field) == "table" and field[1] == "record" then
      show_fields(lines, origins, field.fields, value or {}, full)
    elseif type(field) == "table" and value ~= nil then
      lines[#lines + 1] = { full .. ": " .. shown(field, value), origins[full] or "default" }
    end
  end
end

local APART = { servers = true, policies = true, events = true }

function print.show(conf)
  local lines, width = {}, 0
  for _, section in ipairs(conf.sections) do
    local fields = {}
    for name, field in pairs(section.fields) do
      if not (section.path == "" and APART[name]) then fields[name] = field end
    end
    show_fields(lines, conf.origins, fields, section.conf, section.path)
  end
  for _, line in ipairs(lines) do width = math.max(width, #line[1] < 60 and #line[1] or 0) end
  for index, line in ipairs(lines) do
    lines[index] = ("%-" .. width .. "s  # %s\n"):format(line[1], line[2])
  end
  return table.concat(lines)
end

-- ---- as it could be ----

local function commented(block)
  return (block:gsub("[^\n]+", "#%0"))
end

local function sample_servers(registry, out)
  local names = registry:names("protocol")
  table.sort(names, function(a, b) -- the one that needs nothing else comes first, and is live
    if (a == "local") ~= (b == "local") then return a == "local" end
    return a < b
  end)
  out[#out + 1] = "servers:\n"
  for index, name in ipairs(names) do
    local plugin = registry:get("protocol", name)
    if plugin then
      local block = explain.sample(parts.server_fields(plugin).config,
        { indent = "    ", key = false, skip = { "protocol" } })
      block = ("  - protocol: %s\n%s"):format(name, block)
      out[#out + 1] = index == 1 and block or commented(block)
    end
  end
end

local function sample_policies(registry, out)
  out[#out + 1] = "\n# " .. spec.top.policies.doc .. "\npolicies:\n"
  for _, which in ipairs { "claim", "run", "finish" } do
    out[#out + 1] = ("  # %s\n  %s:\n"):format(spec.top.policies.fields[which].doc, which)
    for _, name in ipairs(spec.policies[which]) do
      local plugin = registry:get("policy", name)
      if plugin then
        local block = explain.sample(plugin, { indent = "      " })
        out[#out + 1] = "    - " .. block:gsub("^%s+", ""):gsub("^([^\n]+):\n$", "%1\n")
      end
    end
  end
end

local function sample_sinks(registry, out)
  out[#out + 1] = "\n# " .. spec.top.events.doc .. "\n#events:\n"
  for _, name in ipairs(registry:names "sink") do
    local plugin = registry:get("sink", name)
    if plugin then
      local block = explain.sample(parts.sink_fields(plugin), { indent = "    " })
      out[#out + 1] = commented("  - " .. block:gsub("^%s+", ""))
    end
  end
end

function print.sample(registry)
  local out = {
    "# worker.yaml: flags win over the environment (WORKER_*), that over this file.\n"
    .. "# ${file:PATH}, ${env:NAME} and ${credential:NAME} put in what they name; $${ is a plain ${.\n\n",
  }
  sample_servers(registry, out)
  sample_policies(registry, out)
  sample_sinks(registry, out)
  out[#out + 1] = "\n" .. explain.sample(spec.top, { key = false, skip = { "servers", "policies", "events" } })
  return table.concat(out)
end

return print
