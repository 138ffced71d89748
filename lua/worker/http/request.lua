-- http/request.lua: what a request is made of.
--
-- A request is a table with the options for the core, and what to do with the reply.  What it shares with
-- others like it (the address, the head) lies in a plan that is made once.  Most requests are nothing but
-- their plan and a body; one with options of its own is a table whose metatable the plan is.  Client
-- headers and the bearer belong to the client's own base: they do not go to other hosts, neither
-- by an absolute address nor by a redirect.
local errors = require "worker.error"
local json = require "worker.json"
local resolve = require "worker.http.resolve"

local request = {}

local methods = {}
methods.__index = methods

local OPTIONS = {}
for name in ([[method path query headers timeout length expect redirects max_body max_head to_file each
  stream private]]):gmatch("%S+") do
  OPTIONS[name] = true
end

local KNOWN_MOST = 64 -- addresses that a client remembers
local SHORT = 16384   -- bytes of a body that is exchanged in one call; a longer one is quicker in two (bench: log)

-- Addresses --------------------------------------------------------------------------------------

local function escape_byte(char)
  return ("%%%02X"):format(char:byte())
end

function request.escape(text)
  return (tostring(text):gsub("[^%w%-%._~]", escape_byte))
end

function request.url(base, ...)
  local parts = { (base:gsub("/+$", "")) }
  for index = 1, select("#", ...) do
    local segment = select(index, ...)
    if segment == nil then error(("http.url: segment %d is nil"):format(index), 2) end
    local text = request.escape(segment)
    if text == "." or text == ".." then
      error(("http.url: segment %d is '%s', which would lead elsewhere"):format(index, text), 2)
    end
    parts[#parts + 1] = text
  end
  return table.concat(parts, "/")
end

local PORTS = { http = "80", https = "443" }

--- `request.origin(url)`: "scheme://host:port" in lower case, for comparing.
function request.origin(url)
  local scheme, authority = url:lower():match("^(https?)://([^/?#]*)")
  if not scheme then return nil end
  authority = authority:gsub("^.*@", "")
  local host, port = authority:match("^(.-):(%d*)$")
  if not host or (host:find(":", 1, true) and host:sub(-1) ~= "]") then
    host, port = authority, ""
  end
  return ("%s://%s:%s"):format(scheme, host, port ~= "" and port or PORTS[scheme])
end

--- `request.shown(url)`: the address without credentials and query, for messages.
function request.shown(url)
  return (url:gsub("^(%a+://)[^/?#]*@", "%1"):gsub("[?#].*", ""))
end

-- Queries and forms ------------------------------------------------------------------------------

local function add_pair(parts, name, value)
  if type(value) == "table" then
    for _, one in ipairs(value) do add_pair(parts, name, one) end
  elseif value ~= nil then
    parts[#parts + 1] = request.escape(name) .. "=" .. request.escape(value)
  end
end

-- A list of pairs keeps its order; the keys of a table are sorted, so that the same request is the
-- same bytes every time.
local function encode_pairs(pairs_or_table)
  local parts, names = {}, {}
  for index, pair in ipairs(pairs_or_table) do
    if type(pair) ~= "table" then
      error(("http: query or form entry %d: expected {name, value}, got %s"):format(
        index, type(pair)), 0)
    end
    add_pair(parts, pair[1], pair[2])
  end
  for name in pairs(pairs_or_table) do
    if type(name) ~= "number" then names[#names + 1] = tostring(name) end
  end
  table.sort(names)
  for _, name in ipairs(names) do add_pair(parts, name, pairs_or_table[name]) end
  return table.concat(parts, "&")
end

local function with_query(url, query)
  local text = type(query) == "table" and encode_pairs(query) or query
  if not text or text == "" then return url end
  local separator = not url:find("?", 1, true) and "?" or url:find("[?&]$") and "" or "&"
  return url .. separator .. text
end

-- The URL, and whether it is below the client's own base.
local function full_url(client, path)
  path = path or ""
  if path:find("^[hH][tT][tT][pP][sS]?://") then
    return path, not client.origin or request.origin(path) == client.origin
  end
  if not client.base then
    errors.raise("config", ("'%s': the client has no base, so a whole URL is needed"):format(
      request.shown(path)))
  end
  if path == "" or path:find("^[/?]") then return client.base .. path, true end
  return client.base .. "/" .. path, true
end

-- Headers ----------------------------------------------------------------------------------------

--- `request.reveal(value)`: the text of a secret; anything else as it is.
function request.reveal(value)
  if type(value) == "table" or type(value) == "userdata" then return value:reveal() end
  return value
end

local function put_header(list, name, value)
  list[#list + 1], list[#list + 2] = name, tostring(value)
end

local function is_secret(value)
  return type(value) == "userdata" or type(value) == "table" and value.reveal ~= nil
end

local NONE = { list = {}, has = {} }

--- `request.headers(table)`: {Name = value or list of values} as { list = {name, value, ...}, has =
-- {[lower-case name] = true} }.  Sorted, so that the same request is the same bytes every time.
function request.headers(headers)
  if not headers then return NONE end
  local list, has, names = {}, {}, {}
  for name in pairs(headers) do
    if type(name) ~= "string" then
      error("http: headers: expected {Name = value}, got a list", 0)
    end
    names[#names + 1] = name
  end
  table.sort(names)
  for _, name in ipairs(names) do
    local value = headers[name]
    has[name:lower()] = true
    if type(value) == "table" and not is_secret(value) then
      for _, one in ipairs(value) do put_header(list, name, request.reveal(one)) end
    else
      put_header(list, name, request.reveal(value))
    end
  end
  return { list = list, has = has }
end

local CREDENTIALS = { authorization = true, cookie = true, ["proxy-authorization"] = true }

local function wire_headers(client, own, at_home, content_type)
  local list = {}
  for index = 1, #own.list, 2 do
    local name = own.list[index]
    if at_home ~= "away" or not CREDENTIALS[name:lower()] then
      put_header(list, name, own.list[index + 1])
    end
  end
  if at_home == true then
    for index = 1, #client.headers.list, 2 do
      local name = client.headers.list[index]
      if not own.has[name:lower()] then put_header(list, name, client.headers.list[index + 1]) end
    end
    if client.bearer and not own.has.authorization and not client.headers.has.authorization then
      put_header(list, "Authorization", "Bearer " .. client.bearer)
    end
  end
  if content_type and not own.has["content-type"] then
    put_header(list, "Content-Type", content_type)
  end
  return list
end

-- The body ---------------------------------------------------------------------------------------

-- What each kind of body is: its text, if that is there now, and its type.
local BODIES = {
  json = function(value) return json.encode(value), "application/json" end,
  form = function(value) return encode_pairs(value), "application/x-www-form-urlencoded" end,
  body = function(value)
    if type(value) == "string" then return value end
    if type(value) ~= "function" then
      error("http: body: expected text or an iterator function, got " .. type(value), 0)
    end
  end,
  file = function() end,
}

-- Plans ------------------------------------------------------------------------------------------

local function timeout_of(value)
  return value == false and 0 or value
end

-- What all requests with this method and body to this address have in common, and where they find it.
local function plan_of(client, method, path, query, content_type)
  local url, at_home = full_url(client, path)
  url = with_query(url, query)
  local plan = setmetatable({
    client = client, plain = true, method = method, url = url, at_home = at_home, label = method .. " " .. request.shown(url),
    content_type = content_type, own = NONE, headers = wire_headers(client, NONE, at_home, content_type),
    redirects = 0, stream = false, patient = false, timeout = timeout_of(client.timeout),
    max_head = client.max_head, max_body = client.max_body,
  }, methods)
  plan.__index = plan
  return plan
end

--- `plan:exchange(body)`: there and back in one call of the core: status, head, body.
function methods:exchange(body)
  local core = self.core
  if not core then
    core = self.client.core:plan(self)
    self.core = core
  end
  return core:exchange(body)
end

-- Addresses that are asked for again and again are planned once.  There may be ids in them, so the old
-- ones are forgotten now and then.
local function known_plan(client, method, path, content_type)
  local of_path = client.known[path]
  if not of_path then
    if client.known_count >= KNOWN_MOST then client.known, client.known_count = {}, 0 end
    of_path = {}
    client.known[path] = of_path
    client.known_count = client.known_count + 1
  end
  for i = 1, #of_path do
    local plan = of_path[i]
    if plan.method == method and plan.content_type == content_type then return plan end
  end
  local plan = plan_of(client, method, path, nil, content_type)
  of_path[#of_path + 1] = plan
  return plan
end

-- The request ------------------------------------------------------------------------------------

local function expected_set(expect)
  if expect == nil or expect == "any" then return expect end
  local set = {}
  for _, status in ipairs(type(expect) == "table" and expect or { expect }) do
    set[status] = true
  end
  return set
end

-- The options that change a request: most have none of them.
local function change(self, client, options)
  local stream = (options.stream or options.each or options.to_file) and true or false
  self.to_file, self.each, self.stream, self.file = options.to_file, options.each, stream, options.file
  if type(options.body) == "function" then
    self.fed, self.length, self.pieces = true, options.length, options.body
  end
  self.patient = stream or self.fed or self.file ~= nil
  self.expect, self.redirects, self.private = expected_set(options.expect), options.redirects, options.private
  self.timeout, self.max_head = timeout_of(options.timeout), options.max_head
  self.max_body = options.max_body or stream and 0 or nil
  if options.headers then
    self.own = request.headers(options.headers)
    self.headers = wire_headers(client, self.own, self.at_home, self.content_type)
  end
end

local function refuse_several(options)
  local given = {}
  for _, name in ipairs { "json", "form", "body", "file" } do
    if options[name] ~= nil then given[#given + 1] = name end
  end
  error(("http: a request has one body, not both '%s' and '%s'"):format(given[1], given[2]), 0)
end

-- The one body among the options, and whether there is anything else.
local function check(options)
  local given, more
  for name in next, options do
    if BODIES[name] then
      if given then refuse_several(options) end
      given = name
    elseif not OPTIONS[name] then
      error(("http: a request has no option '%s'"):format(tostring(name)), 0)
    else
      more = true
    end
  end
  return given, more
end

--- `request.new(client, method, path, options)`: check the options and lay everything out for the core:
-- a plan and the body's text, or a request of its own.
function request.new(client, method, path, options)
  local given, more = check(options)
  local text, content_type
  if given then text, content_type = BODIES[given](options[given]) end
  path = path or ""
  local plan = options.query and plan_of(client, method, path, options.query, content_type)
    or known_plan(client, method, path, content_type)
  if not more and (not given or text and #text <= SHORT) then return plan, text end
  local self = setmetatable({ plain = false, body = text }, plan)
  if more or not text then change(self, client, options) end
  return self
end

--- `request:expects(status)`: is that the caller's idea of success?
function methods:expects(status)
  if self.expect == "any" then return true end
  if self.expect then return self.expect[status] or false end
  return status >= 200 and status < 300
end

-- Redirects --------------------------------------------------------------------------------------

local FOLLOWED = { [301] = true, [302] = true, [303] = true, [307] = true, [308] = true }

-- A request other than GET and HEAD is repeated elsewhere only by 307 and 308, which mean "the same
-- again": what 301 to 303 make of a POST would be another request.
local function may_follow(self, status)
  if self.redirects < 1 or not FOLLOWED[status] or self.pieces then return false end
  if type(self.expect) == "table" and self.expect[status] then return false end
  local method = self.method
  return method == "GET" or method == "HEAD" or status >= 307
end

--- `request:target(reply)`: where the reply sends us; nil when it does not, or when following would
-- repeat something else than what was asked, or leave TLS.
function methods:target(reply)
  local location = may_follow(self, reply.status) and reply:header("Location")
  local url = location and resolve(self.url, location)
  if not url then return nil end
  local leaves_tls = self.url:lower():find("^https:") and not url:lower():find("^https:")
  return not leaves_tls and url or nil
end

--- `request:redirected(url)`: the same request to another address, with one redirect less to go.
function methods:redirected(url)
  local onward = setmetatable({}, getmetatable(self))
  for name, value in pairs(self) do onward[name] = value end
  onward.away = self.away or request.origin(url) ~= request.origin(self.url)
  onward.redirects = self.redirects - 1
  onward.url = url
  onward.headers = wire_headers(self.client, self.own,
    onward.away and "away" or self.at_home, self.content_type)
  onward.label = self.method .. " " .. request.shown(url)
  return onward
end

return request
