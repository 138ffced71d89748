-- tools/shelf.lua: where the tools are found.
--
-- Finding plugins is the driver's; it puts what it has found here: set(source) with source:get(name)
-- and source:names().  Until a worker has read its configuration that is what came with the binary.
local err = require "worker.error"
local text = require "worker.text"

local shelf = {}

local current

--- `shelf.set(source)`: where tools are found from now on; nil for nowhere.
function shelf.set(source) current = source end

--- `shelf.names()`: the names of all tools, sorted.
function shelf.names()
  return current and current:names() or {}
end

--- `shelf.find(name)`: the tool, or nil and what is wrong with it.
function shelf.find(name)
  if not current then return nil, "there are no tools here" end
  return current:get(name)
end

--- `shelf.get(name)`: the tool; raises kind "refused" where there is none that can be used.
function shelf.get(name)
  local tool, why = shelf.find(name)
  if tool then return tool end
  local near = text.nearest(tostring(name), shelf.names())
  if current and near ~= name then
    why = ("there is no tool '%s'%s"):format(text.sample(tostring(name)), near and (" (did you mean '%s'?)"):format(near) or "")
  end
  err.raise("refused", why, { code = "INVALID_ARGUMENT" })
end

return shelf
