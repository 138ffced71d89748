-- stage.lua: what every fake orchestrator stands on: an address, routes, acts, a memory, an end.
--
--   return stage.play {
--     name = "acme", summary = "Acme: builds over HTTP", port = 8080, samples = { "echo hi" },
--     knobs = { patience = { "duration", default = "30s", doc = "..." } },
--     open = function(self, options) self.jobs = {} end,            -- self.knobs and self.keep are there
--     methods = { add = function(self, job) ... end },              -- `add` takes the jobs of a file
--     routes = { ["POST /claim"] = function(self, request) return 200, stage.JSON, "{}" end },
--     hint = function(self) return "worker --protocol acme --url " .. self.url end,
--   }
--
-- A play may also have: before(self, route, request) and after(self, route, request) around each
-- answer; unknown(self, allow), for what no route is for (allow: the methods that the path has);
-- body_most, above which a body is left to the route to read; tick(self), done at each start and then
-- every knobs[every]; listen(self), for what does not speak HTTP/1.1: it returns something with
-- address, url and close(); forgets: why it keeps nothing, for who asks it to.
--
-- What came of it is a fake:
--
--   local fake <close> = acme.serve { jobs = { "echo hi" }, patience = 3, record = true }
--   fake.url, fake.address
--   fake:stop(); fake:start()         an outage: the same address, the same memory
--   fake:bend(route, act, ...)        the next requests of a route ("POST /claim") are answered by acts,
--   fake:bend_all(route, act)         or all of them, until act is nil.  act(request, reply, go): go()
--                                     does what the server would do and returns status, headers and
--                                     body, unsent; so an answer can be lost before or after the deed
--   fake.seen                         with record = true: { route=, path=, query=, body=, at=, headers= }
local err = require "worker.error"
local journal = require "worker.journal"
local json = require "worker.json"
local log = require "worker.log"
local schema = require "worker.schema"
local serve = require "worker.serve"
local sys = require "worker.core.sys"
local task = require "worker.task"
local text = require "worker.text"

local stage = {}

stage.JSON = { ["content-type"] = "application/json" }
stage.TEXT = { ["content-type"] = "text/plain; charset=utf-8" }

local BODY_MOST = 2 * 1024 * 1024
local RAW_MOST = 200 * 1024 * 1024

--- `stage.uuid([seed])`: a new name, or always the same one for a seed.
function stage.uuid(seed)
  local hex = text.sha256(seed or text.random_id())
  return ("%s-%s-4%s-8%s-%s"):format(hex:sub(1, 8), hex:sub(9, 12), hex:sub(13, 15), hex:sub(16, 18), hex:sub(19, 30))
end

-- Refusals -------------------------------------------------------------------------------------------------

local refusal = {}

--- `stage.refuse(status, headers, body)`: ends the request with this answer, from wherever it is.
function stage.refuse(status, headers, body) error(setmetatable({ status, headers, body }, refusal), 0) end

--- `stage.failed(status, message)`: the same with { "error": message }.
function stage.failed(status, message) stage.refuse(status, stage.JSON, json.encode { error = message }) end

--- `stage.too_long(request, [most])`: whether it announces a body of more than that (2 MiB).
function stage.too_long(request, most)
  return (tonumber(request:header("content-length")) or 0) > (most or BODY_MOST)
end

-- Memory ---------------------------------------------------------------------------------------------------

local keep_methods = {}
local keep_meta = { __index = keep_methods }

--- `stage.keep(path)`: rows that outlive the process, kill -9 included; without a path they do not.
function stage.keep(path)
  return setmetatable({ journal = path and journal.open(path) or nil }, keep_meta)
end

--- `keep:put(kind, row)`: a row, found again by its id; written before anybody is answered.
function keep_methods:put(kind, row)
  if self.journal then self.journal:put(row.id, kind, json.encode(row), { lazy = true }) end
end

--- `keep:rows()`: kind and row of each, in the order of their last change.
function keep_methods:rows()
  local rest = self.journal and self.journal:live() or function() end
  return function()
    local _, kind, payload = rest()
    if kind then return kind, json.decode(payload) end
  end
end

function keep_methods:close()
  if self.journal then self.journal:close() end
end

-- Answering ------------------------------------------------------------------------------------------------

local function answer(self, route, request)
  local play = self.play
  local result = table.pack(pcall(function()
    if play.before then play.before(self, route, request) end
    return play.routes[route](self, request)
  end))
  if play.after then play.after(self, route, request) end
  if result[1] then return table.unpack(result, 2, 4) end
  if getmetatable(result[2]) ~= refusal then error(result[2], 0) end
  return table.unpack(result[2], 1, 3)
end

local function next_act(self, route)
  local acts = self.bends[route]
  if not acts then return nil end
  return acts.always or table.remove(acts, 1)
end

local function handle(self, route, request, reply)
  local body = not stage.too_long(request, self.play.body_most) and request:read_body() or nil
  if self.seen then
    table.insert(self.seen, { route = route, path = request.target, query = request.query, at = sys.mono(),
      headers = request.headers, body = body })
  end
  local act = next_act(self, route)
  if not act then return reply:send(answer(self, route, request)) end
  return act(request, reply, function() return answer(self, route, request) end)
end

-- Each path of the play with the methods it knows.
local function paths_of(play)
  local paths = {}
  for route in pairs(play.routes) do
    local method, path = route:match("^(%S+) (.*)$")
    paths[path] = paths[path] or {}
    table.insert(paths[path], method == "GET" and "GET,HEAD" or method)
  end
  return paths
end

local function handlers_of(self)
  local play, handlers = self.play, {}
  for route in pairs(play.routes) do
    handlers[route] = function(request, reply) return handle(self, route, request, reply) end
  end
  if not play.unknown then return handlers end
  for path, methods in pairs(paths_of(play)) do
    local allow = table.concat(methods, ",")
    handlers["ANY " .. path] = function(_, reply) return reply:send(play.unknown(self, allow)) end
  end
  handlers["ANY /{path...}"] = function(_, reply) return reply:send(play.unknown(self)) end
  return handlers
end

local function listen_http(self)
  return serve.http { address = self.address, lazy_body = true, max_body = RAW_MOST, idle_timeout = 86400,
    max_connections = 2000, handler = serve.routes(handlers_of(self)) }
end

-- The fake ---------------------------------------------------------------------------------------------------

local methods = {}

--- `fake:start()`: listen; what is done now and then is done at once and goes on.
function methods:start()
  local play = self.play
  self.listener = (play.listen or listen_http)(self)
  self.address, self.url = self.listener.address, self.listener.url
  self.ticker = play.tick and task.start(function()
    while true do
      play.tick(self)
      task.sleep(self.knobs[play.every])
    end
  end)
end

--- `fake:stop()`: nobody listens any more; conversations are cut off.
function methods:stop()
  if not self.listener then return end
  self.listener:close()
  if self.ticker then
    self.ticker:cancel("the fake stops")
    task.shield(self.ticker.join, self.ticker)
  end
  self.listener, self.ticker = nil, nil
end

--- `fake:close()`: the end.
function methods:close()
  self:stop()
  self.keep:close()
end

local function check_route(self, route)
  if not self.play.routes[route] then error("no such route: " .. route, 3) end
end

--- `fake:bend(route, act, ...)`: the next requests of a route are answered by these acts.
function methods:bend(route, ...)
  check_route(self, route)
  self.bends[route] = { ... }
end

--- `fake:bend_all(route, act)`: all of them, until act is nil.
function methods:bend_all(route, act)
  check_route(self, route)
  self.bends[route] = act and { always = act }
end

-- Beginning ------------------------------------------------------------------------------------------------

--- `stage.knobs(fields, options)`: the value of each knob: of the options, or its default.
function stage.knobs(fields, options)
  local knobs = assert(schema.check(fields, {}, nil, "", { env = function() end }))
  for name in pairs(fields) do
    if options[name] ~= nil then knobs[name] = options[name] end
  end
  return knobs
end

--- `stage.jobs(given, samples)`: the list of jobs of a file: a list, or a map with the list as `jobs`.
function stage.jobs(given, samples)
  if type(given) == "table" and given.jobs then given = given.jobs end
  if given ~= nil and type(given) ~= "table" then
    err.raise("config", "the jobs must be a list of scripts, or of maps like { script: echo hi }")
  end
  return given or samples or {}
end

local function log_it(event, words, fields) log.info(event, words, fields) end

-- A memory that has something in it has the jobs of its first life.
local function begin(self, options)
  local known = self.keep:rows()() ~= nil
  self.play.open(self, options)
  if not known then
    for _, job in ipairs(stage.jobs(options.jobs, self.play.samples)) do self:add(job) end
  end
  self:start()
  self.hint = self.play.hint and self.play.hint(self)
end

--- `stage.play(play)`: the module of a fake: summary, port, knobs, and serve(options), which gives a
-- running one.  Options: address ("127.0.0.1:0"), jobs, state (a path), record, tell(event, text,
-- fields), and the knobs.
function stage.play(play)
  local meta = { __name = "worker.fakes." .. play.name, __close = function(self) self:close() end }
  meta.__index = setmetatable(play.methods or {}, { __index = methods })
  local module = { summary = play.summary, port = play.port, knobs = play.knobs or {} }

  function module.serve(options)
    if play.forgets and options.state then err.raise("config", play.forgets) end
    local self = setmetatable({
      play = play, knobs = stage.knobs(module.knobs, options), keep = stage.keep(options.state), bends = {},
      seen = options.record and {} or nil, address = options.address or "127.0.0.1:0",
      tell = options.tell or log_it,
    }, meta)
    local ok, why = pcall(begin, self, options)
    if ok then return self end
    self:close()
    error(why, 0)
  end

  return module
end

return stage
