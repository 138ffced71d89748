-- redis.lua: talking to a Redis server (or Valkey, KeyDB): commands, pipelines, channels.
--
-- A connection is one stream of commands and replies in order.  Whoever gives up in the middle leaves
-- it unusable, and that is said by the next call.  What the server refuses is raised as kind "redis"
-- with its `code` (NOAUTH, WRONGTYPE, ...), a connection that fails as "transport", what is no reply as
-- "wire".  There is no pool and no reconnecting here: who holds a connection knows what to repeat.
--
--   redis.reply   one reply
local err = require "worker.error"
local log = require "worker.log"
local replies = require "worker.redis.reply"
local secret = require "worker.secret"
local sock = require "worker.sock"
local task = require "worker.task"
local text = require "worker.text"

local redis = {}

local PORT = 6379
local TIMEOUT = 10
local REPLY_MOST = 16 * 1024 * 1024
local WAITING_MOST = 10000 -- messages of channels that nobody has taken yet

--- `redis.null`: null inside a list or a map; as a whole reply it is nil.
redis.null = replies.null

local methods = {}
local meta = { __index = methods, __name = "worker.redis" }

-- Addresses --------------------------------------------------------------------------------------------

local function decoded(word)
  return word and word ~= "" and (text.percent_decode(word) or err.raise("config", "a broken % in the address of Redis")) or nil
end

local function wrong_address()
  -- the address itself is not shown: there may be a password in it
  err.raise("config", 'expected an address like "redis://:password@host:6379/0", "rediss://host" (TLS) or "unix:///path"')
end

local function database_of(word)
  if word == nil or word == "" then return nil end
  if not word:find("^%d+$") or #word > 5 then wrong_address() end
  return math.tointeger(tonumber(word))
end

--- `redis.place(url)`: what an address says: { shown=, address= | unix=, tls=, user=, password=,
-- database= }; raises kind "config" for what is none.
function redis.place(url)
  url = secret.reveal(url)
  local scheme, rest = tostring(url):match("^(%l+)://(.*)$")
  if scheme == "unix" then
    local path, query = rest:match("^(/[^?#]*)%??([^#]*)$")
    if not path then wrong_address() end
    return { shown = "unix://" .. path, unix = path, database = database_of(query:match("^db=(.*)$")) }
  end
  if scheme ~= "redis" and scheme ~= "rediss" then wrong_address() end
  local authority, database = rest:match("^([^/?#]+)/?([^/?#]*)$")
  if not authority then wrong_address() end
  local who, where = authority:match("^(.*)@([^@]*)$")
  local host, port = (where or authority):match("^(%[[%x:.]+%]):?(%d*)$")
  if not host then host, port = (where or authority):match("^([^:%s]+):?(%d*)$") end
  if not host then wrong_address() end
  local user, password = (who or ""):match("^([^:]*):?(.*)$")
  local place = {
    address = ("%s:%s"):format(host, port ~= "" and port or PORT), tls = scheme == "rediss" or nil,
    user = decoded(user), password = decoded(password), database = database_of(database),
  }
  place.shown = ("%s://%s"):format(scheme, place.address)
  return place
end

-- Commands ---------------------------------------------------------------------------------------------

local function encode(command)
  local parts = { ("*%d\r\n"):format(#command) }
  for i, word in ipairs(command) do
    word = secret.reveal(word)
    if type(word) == "number" then word = tostring(word) end
    if type(word) ~= "string" then
      error(("redis: word %d of %s: expected text or a number, got a %s"):format(i, tostring(command[1]), type(word)), 0)
    end
    parts[#parts + 1] = ("$%d\r\n%s\r\n"):format(#word, word)
  end
  return table.concat(parts)
end

-- Messages of channels come between the replies, as pushes (RESP3) or as lists that say so.
local MESSAGES = { message = true, pmessage = true }

local function keep(self, value)
  if #self.messages >= WAITING_MOST then
    err.raise("limit", self.shown .. ": more messages come than are taken")
  end
  local at = value[1] == "pmessage" and 3 or 2
  self.messages[#self.messages + 1] = { value[at], value[at + 1] }
end

-- The next value that is no message.
local function next_value(self)
  while true do
    local value, push = replies.read(self.sock, self)
    local kind = type(value) == "table" and value[1]
    if self.listening and MESSAGES[kind] then
      keep(self, value)
    elseif not push or self.listening and (kind == "subscribe" or kind == "unsubscribe") then
      return value
    end
  end
end

-- Nobody else in between, and no reply left behind: until the last one is read, all is undecided.
local function exchange(self, commands)
  local turn <close> = self.turn:take() -- luacheck: ignore turn
  if self.torn then
    err.raise("transport", self.shown .. ": the connection was given up in the middle of a command",
      { reason = "closed", sent = false })
  end
  local words = {}
  for i, command in ipairs(commands) do words[i] = encode(command) end
  self.torn = true
  self.sock:write(table.concat(words), self.wait)
  local values = {}
  for i = 1, #commands do values[i] = next_value(self) end
  self.torn = false
  return values
end

local function plain(value)
  if err.is(value, "redis") then error(value, 0) end
  if value == replies.null then return nil end
  return value
end

--- `db:call(command, ...)`: one command; its reply: text, integer, list, nil for null. What the server
-- refuses is raised as kind "redis".
function methods:call(...)
  return plain(exchange(self, { { ... } })[1])
end

--- `db:pipeline{ {command, ...}, ... }`: several at once, in one go; the list of their replies. One that
-- the server refused is an error object in its place, not raised; null is redis.null.
function methods:pipeline(commands)
  if #commands == 0 then return {} end
  return exchange(self, commands)
end

-- Channels ---------------------------------------------------------------------------------------------

--- `db:subscribe(channel, ...)`: from now on this connection gets what is published there.
function methods:subscribe(...)
  self.listening = true
  for _, channel in ipairs { ... } do plain(exchange(self, { { "SUBSCRIBE", channel } })[1]) end
end

--- `db:message([seconds])`: the next message: its channel and its text; nil when none came in time.
function methods:message(seconds)
  if #self.messages == 0 then
    local ok, there = task.try(self.sock.wait, self.sock, { timeout = seconds })
    if not ok and not (err.is(there, "transport") and there.reason == "timeout") then error(there, 0) end
    if not ok then return nil end
    self.torn = true -- should nobody wait for the rest of it
    local value = replies.read(self.sock, self)
    self.torn = false
    if type(value) == "table" and MESSAGES[value[1]] then keep(self, value) end
  end
  local message = table.remove(self.messages, 1)
  if message then return message[1], message[2] end
end

-- Connecting -------------------------------------------------------------------------------------------

local function greet(self, place, resp)
  local user = place.user or place.password and resp == 3 and "default" or nil
  if resp == 3 then
    local hello = { "HELLO", 3 }
    if place.password then table.move({ "AUTH", user, place.password }, 1, 3, 3, hello) end
    self:call(table.unpack(hello))
  elseif place.password then
    local words = { "AUTH", user, place.password }
    if not user then words = { "AUTH", place.password } end
    self:call(table.unpack(words))
  end
  if place.database and place.database ~= 0 then self:call("SELECT", place.database) end
  if not place.password then self:call "PING" end -- one that wants a password says so now
end

--- `redis.connect{ url="redis://..." }`: a connection that is ready. Beside or instead of what the address
-- says: user, password, database; tls (a table as worker.sock has it); timeout (10 s, of connecting and
-- of every command), max_reply (16 MiB), resp (2, or 3).
function redis.connect(options)
  local place = redis.place(options.url)
  for _, name in ipairs { "user", "password", "database" } do place[name] = options[name] or place[name] end
  place.password = secret.reveal(place.password)
  if place.password then log.secret(place.password) end
  local timeout = options.timeout or TIMEOUT
  local done, self = task.within(timeout, function()
    local conn = sock.connect { address = place.address, unix = place.unix, timeout = timeout,
      tls = place.tls and (options.tls or true) or nil, proxy = options.proxy }
    local self = setmetatable({
      sock = conn, shown = place.shown, most = options.max_reply or REPLY_MOST, wait = { timeout = timeout },
      turn = task.semaphore(1), messages = {},
    }, meta)
    local ok, why = pcall(greet, self, place, options.resp)
    if ok then return self end
    conn:close()
    error(why, 0)
  end)
  if done then return self end
  err.raise("transport", ("%s: not ready within %g s"):format(place.shown, timeout), { reason = "timeout" })
end

--- `db:close()`: end the connection.
function methods:close()
  self.sock:close()
end

meta.__close = methods.close

function meta:__tostring()
  return ("worker.redis (%s, %s)"):format(self.shown, self.sock:is_open() and not self.torn and "open" or "closed")
end

return redis
