-- fingerprint.lua: whether a server (or a sink) of a new configuration is the one that runs already.
--
-- Everything that decides how a server works goes in: its fields, its executor, the policies around
-- it, and the text of all plugins involved.
local secret = require "worker.secret"
local text = require "worker.text"

local fingerprint = {}

local function sorted_keys(map)
  local keys = {}
  for key in pairs(map) do keys[#keys + 1] = key end
  table.sort(keys, function(a, b) return tostring(a) < tostring(b) end)
  return keys
end

local function describe(parts, value)
  if secret.is(value) then
    parts[#parts + 1] = "secret " .. secret.reveal(value)
  elseif type(value) == "table" then
    parts[#parts + 1] = "{"
    for _, key in ipairs(sorted_keys(value)) do
      parts[#parts + 1] = tostring(key) .. "="
      describe(parts, value[key])
    end
    parts[#parts + 1] = "}"
  else
    parts[#parts + 1] = type(value) .. " " .. tostring(value)
  end
end

local function add_plugin(parts, registry, kind, used)
  describe(parts, { used.name or used.protocol, used.conf, registry and registry:digest(kind, used.protocol or used.name) })
end

--- `fingerprint.of(conf, entry)`: a text that is the same as long as the server is.
function fingerprint.of(conf, entry)
  local parts = {}
  describe(parts, { entry.name, entry.slots, entry.strict, conf.workspace, conf.state, conf.shutdown })
  add_plugin(parts, conf.registry, "protocol", { protocol = entry.protocol, conf = entry.conf })
  for _, executor in ipairs(entry.executors or {}) do add_plugin(parts, conf.registry, "executor", executor) end
  for _, which in ipairs { "claim", "run", "finish" } do
    for _, policy in ipairs(conf.policies[which] or {}) do add_plugin(parts, conf.registry, "policy", policy) end
  end
  return text.sha256(table.concat(parts, "\0"))
end

--- `fingerprint.of_sink(conf, sink)`: the same for an event sink.
function fingerprint.of_sink(conf, sink)
  local parts = {}
  describe(parts, { sink.only or {}, sink.queue, sink.keep, sink.output })
  describe(parts, { sink.name, sink.conf, conf.registry and conf.registry:digest("sink", sink.plugin.name) })
  return text.sha256(table.concat(parts, "\0"))
end

return fingerprint
