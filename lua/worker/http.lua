-- http.lua: talking to a server over HTTP/1.1.
--
-- A client keeps connections, credentials and limits; its verbs wait for the reply and return it,
-- or raise: "transport" (no usable answer; `reason`, and `sent`: may the server have seen it?),
-- "http" (a status that was not expected), "wire" (a body that cannot be read).  Nothing here
-- retries: worker.retry does.
--
--   worker.http.request   what a request is made of     worker.http.resolve   where a redirect leads
--   worker.http.reply     what came back
local core = require "worker.core.http"
local errors = require "worker.error"
local log = require "worker.log"
local replies = require "worker.http.reply"
local requests = require "worker.http.request"
local sys = require "worker.core.sys"

local http = {}

--- `http.escape(text)`: percent-encode everything that is not unreserved (letters, digits, -._~).
http.escape = requests.escape

--- `http.url(base, ...)`: base and path segments, each percent-encoded, joined with slashes.  A
-- segment of "." or ".." is refused: a server would walk up from it.
http.url = requests.url

-- The client -------------------------------------------------------------------------------------

local client = {}
client.__index = client

local CLIENT_OPTIONS = {}
for name in ([[base bearer headers timeout connect_timeout unix ca_file ca_dir cert key key_password
  tls_min proxy no_proxy environment max_body max_head user_agent low_speed max_age max_idle
  user_timeout]]):gmatch("%S+") do
  CLIENT_OPTIONS[name] = true
end

local function check_options(options, known, what)
  for name in pairs(options) do
    if not known[name] then
      error(("http: %s has no option '%s'"):format(what, tostring(name)), 4)
    end
  end
end

-- Which proxy for which scheme, and where the system's trust is, as the environment says it.  Upper
-- case HTTP_PROXY is ignored: where programs are run by web servers, clients can set it.
local function from_environment(options)
  local env = options.environment or sys.env()
  local all = env.all_proxy or env.ALL_PROXY
  local found = {
    proxy_http = env.http_proxy or all,
    proxy_https = env.https_proxy or env.HTTPS_PROXY or all,
    no_proxy = env.no_proxy or env.NO_PROXY,
    ca_file = env.SSL_CERT_FILE, ca_dir = env.SSL_CERT_DIR,
  }
  for name, value in pairs(found) do
    if value == "" then found[name] = nil end
  end
  return found
end

local function core_options(options)
  local env = from_environment(options)
  if options.proxy ~= nil or options.unix then -- its own proxy, or none
    env.proxy_http, env.proxy_https = options.proxy or nil, options.proxy or nil
    env.no_proxy = nil
  end
  local trust = options.ca_file or options.ca_dir
  local slow = options.low_speed or {}
  return {
    unix = options.unix,
    ca_file = options.ca_file or not trust and env.ca_file or nil,
    ca_dir = options.ca_dir or not trust and env.ca_dir or nil,
    cert = options.cert, key = options.key, key_password = requests.reveal(options.key_password),
    tls_min = options.tls_min,
    proxy_http = env.proxy_http, proxy_https = env.proxy_https,
    no_proxy = options.no_proxy or env.no_proxy,
    user_agent = options.user_agent or "worker/" .. sys.version(),
    connect_timeout = options.connect_timeout,
    low_speed_bytes = slow.bytes or slow[1], low_speed_time = slow.seconds or slow[2],
    max_age = options.max_age, max_idle = options.max_idle, user_timeout = options.user_timeout,
  }
end

--- `http.client{...}`: a client.  Options: base (prefix of every path), bearer, headers, timeout
-- (30 s), connect_timeout (10 s), unix (socket path), ca_file, ca_dir, cert, key, key_password,
-- tls_min ("1.2"), proxy (URL, or false for none; default: the environment's), no_proxy, max_body
-- (16 MiB), max_head (64 KiB), user_agent, low_speed = {bytes, seconds}, max_age and max_idle of a
-- connection, user_timeout (60 s).  bearer and headers go to the base's own host only.
function http.client(options)
  options = options or {}
  check_options(options, CLIENT_OPTIONS, "a client")
  local base = options.base or (options.unix and "http://localhost" or nil)
  local bearer = requests.reveal(options.bearer)
  if bearer then log.secret(bearer) end
  return setmetatable({
    core = core.open(core_options(options)),
    base = base and base:gsub("/+$", "") or nil,
    origin = base and requests.origin(base) or nil,
    bearer = bearer,
    headers = requests.headers(options.headers), known = {}, known_count = 0,
    timeout = options.timeout, max_body = options.max_body, max_head = options.max_head,
  }, client)
end

--- `client:close()`: close the connections; requests under way fail with reason "closed".
function client:close()
  self.core:close()
end

client.__close = client.close
client.__name = "http.client"

function client:__tostring()
  return ("http.client (%s, %s)"):format(requests.shown(self.base or "any host"),
    tostring(self.core):match("%((.-)%)"))
end

-- One exchange -----------------------------------------------------------------------------------

-- A fed body ends early when the server answers before all of it is there.
local function feed(transfer, request)
  for piece in request.pieces do
    if not transfer:write(piece) then return end
  end
  transfer:finish()
end

-- What the caller wants as a stream is only a stream when the status is the expected one; else it
-- is an explanation, of which the beginning will do.
local function exchange_stream(self, request)
  local transfer = self.core:start(request)
  local reply = replies.new(request)
  local guard <close> = replies.guard(reply, transfer)
  if request.pieces then feed(transfer, request) end
  reply:begin(transfer:answer())
  if not request:expects(reply.status) or request:target(reply) then
    reply:read_sample()
  elseif request.to_file then
    reply.bytes = transfer:save(request.to_file)
  elseif request.each then
    for piece in reply:chunks() do request.each(piece) end
  else
    guard.kept = true
  end
  return reply
end

local function exchange_own(self, request)
  if request.stream then return exchange_stream(self, request) end
  local transfer <close> = self.core:start(request)
  if request.pieces then feed(transfer, request) end
  return replies.new(request, transfer:answer())
end

local function follow(self, request)
  local reply = exchange_own(self, request)
  local target = request:target(reply)
  while target do
    request = request:redirected(target)
    reply = exchange_own(self, request)
    target = request:target(reply)
  end
  return reply, request
end

local function send(self, method, path, options)
  local request, body = requests.new(self, method, path, options)
  local reply
  if request.plain then
    reply = replies.new(request, request:exchange(body))
  else
    reply, request = follow(self, request)
  end
  if not request:expects(reply.status) then reply:raise() end
  return reply
end

--- `client:request{method=, path=, ...}`: any method; see the verbs for the options.
function client:request(options)
  return send(self, options.method or "GET", options.path, options)
end

--- `client:get/head/post/put/patch/delete(path, options)`: the reply.  Options: query (table or list
-- of pairs), headers, timeout; one body of json, form, body (text, or an iterator function), file
-- (path); expect (list of statuses, or "any"; default: every 2xx), redirects (0), max_body; and for
-- the reply's body to_file (path), each (function per chunk) or stream = true.
for _, method in ipairs { "get", "head", "post", "put", "patch", "delete" } do
  local upper, none = method:upper(), {}
  client[method] = function(self, path, options) return send(self, upper, path, options or none) end
end

--- `http.reason(err)`: the reason of a transport error ("dns", "connect", "tls", "timeout",
-- "reset", "closed", "too_big", "protocol"); nil for anything else.
function http.reason(err)
  return errors.is(err, "transport") and err.reason or nil
end

return http
