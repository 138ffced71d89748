-- plugin.lua: one shipped plugin in the hands of a spec.
--
--   local timeout = plugin.policy("timeout", { default = 3 })
--   timeout.run(inner)(job, ctx)            the chain `run` around `inner`
--   local ctx = plugin.ctx { id = "a" }     what executors and policies get; ctx.said is its output
local registry = require "worker.registry"
local schema = require "worker.schema"
local task = require "worker.task"

local support = {}

local plugins = registry.open { "plugins" }

--- The plugin and its checked fields.
function support.get(kind, name, fields)
  local plugin = assert(plugins:get(kind, name))
  local conf, problems = schema.check(plugin, fields or {}, nil, "", { env = function() end })
  return plugin, assert(conf, tostring(problems[1]))
end

--- A policy with its fields: claim, run and finish take the inner function; close() closes what it owns.
function support.policy(name, fields)
  local plugin, conf = support.get("policy", name, fields)
  local chains, owned = {}, {}
  local function own(handle)
    owned[#owned + 1] = handle
    return handle
  end
  for _, which in ipairs { "claim", "run", "finish" } do
    chains[which] = plugin[which] and function(inner) return plugin[which](conf, inner, own) end
  end
  function chains.close()
    while #owned > 0 do table.remove(owned):close() end
  end
  return chains
end

--- A context as the driver makes it, whose output is kept in `said`.
function support.ctx(more)
  local ctx = { id = "job", server = "spec", secrets = {}, limits = {}, grace = 1, said = {},
    draining = task.signal(), is_draining = function() return false end }
  function ctx.log(stream, text) ctx.said[stream] = (ctx.said[stream] or "") .. text end
  function ctx.note(line) ctx.log("worker", line .. "\n") end
  function ctx.cancel(reason) ctx.cancelled = reason end
  for name, value in pairs(more or {}) do ctx[name] = value end
  return ctx
end

return support
