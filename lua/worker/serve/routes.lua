-- routes.lua: which handler for which request.
--
-- A route is "METHOD /path": segments are literal, {name} (one segment) or {name...} (the rest).
-- Segments are decoded after the path was split, so an encoded slash stays inside its parameter.
-- Literal beats {name} beats {name...}; "ANY" stands for every method.
local request = require "worker.serve.request"

local routes = {}

local function split(path)
  local parts = {}
  for part in (path:sub(2) .. "/"):gmatch("([^/]*)/") do parts[#parts + 1] = part end
  return parts
end

local function compile(key)
  local method, path = key:match("^(%u+) (/.*)$")
  if not method then
    error(("route %q: expected something like \"GET /tasks/{id}\""):format(key), 3)
  end
  local segments = {}
  for i, part in ipairs(split(path)) do
    segments[i] = {
      text = part, name = part:match("^{([%w_]+)}$"), rest = part:match("^{([%w_]+)%.%.%.}$"),
    }
  end
  return method, segments
end

-- The tree: node.text[segment], node.name, node.rest; node.handlers by method.
local function place(node, segments, method, handler)
  for _, segment in ipairs(segments) do
    local below
    if segment.name then
      below = node.name or {}
      node.name = below
    elseif segment.rest then
      below = node.rest or {}
      node.rest = below
    else
      node.text = node.text or {}
      below = node.text[segment.text] or {}
      node.text[segment.text] = below
    end
    node = below
  end
  node.handlers = node.handlers or {}
  node.handlers[method] = handler
end

-- The node for a path and what its parameters matched, in order.
local function find(node, parts, at, values)
  if at > #parts then
    return node.handlers and node, values
  end
  local part = parts[at]
  local found = node.text and node.text[part] and find(node.text[part], parts, at + 1, values)
  if found then return found, values end
  if node.name and part ~= "" then
    values[#values + 1] = part
    found = find(node.name, parts, at + 1, values)
    if found then return found, values end
    values[#values] = nil
  end
  if node.rest then
    values[#values + 1] = table.concat(parts, "/", at)
    return node.rest, values
  end
  return nil
end

local function names_of(segments)
  local names = {}
  for _, segment in ipairs(segments) do names[#names + 1] = segment.name or segment.rest end
  return names
end

local function allowed(handlers)
  local list = {}
  for method in pairs(handlers) do list[#list + 1] = method end
  if handlers.GET and not handlers.HEAD then list[#list + 1] = "HEAD" end
  if not handlers.OPTIONS then list[#list + 1] = "OPTIONS" end
  table.sort(list)
  return table.concat(list, ", ")
end

--- `routes.new(table)`: a handler that looks up the route and calls its handler(request, reply) with
-- request.params filled in.  HEAD is answered from GET, OPTIONS and 405 with what is allowed.
function routes.new(list)
  local root = {}
  for key, handler in pairs(list) do
    local method, segments = compile(key)
    place(root, segments, method, { call = handler, names = names_of(segments), key = key })
  end

  return function(req, reply)
    local node, values = nil, nil
    if req.path ~= "*" then node, values = find(root, split(req.path), 1, {}) end
    if not node then return reply:text(404, "nothing is here\n") end
    local handlers = node.handlers
    local method = req.method
    local route = handlers[method] or method == "HEAD" and handlers.GET or handlers.ANY
    if not route then
      local allow = { Allow = allowed(handlers) }
      if method == "OPTIONS" then return reply:empty(204, allow) end
      return reply:text(405, ("%s is not allowed here\n"):format(method), allow)
    end
    for i, name in ipairs(route.names) do
      req.params[name] = request.decode(values[i])
    end
    req.route = route.key
    return route.call(req, reply)
  end
end

return routes
