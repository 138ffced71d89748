-- redis/reply.lua: one reply of a Redis server, RESP2 and RESP3.
--
-- What a reply says of its own size is checked before anything of that size is read: a length against
-- the bytes that are left, a count against the values that are left, a depth against the ceiling.
-- What breaks these rules is raised as kind "wire" or "limit"; nobody knows then where the next reply
-- would begin, so the connection is of no use any more.
local err = require "worker.error"
local text = require "worker.text"

local reply = {}

local LINE_MOST = 64 * 1024
local VALUES_MOST = 65536
local DEPTH_MOST = 8

--- What stands for null inside a list or a map.
reply.null = setmetatable({}, { __name = "redis.null", __tostring = function() return "null" end })

local function bad(run, what, sample)
  err.wire(("%s: this is not Redis: %s: %s"):format(run.shown, what, text.sample(sample, 60)))
end

local function too_long(run)
  err.raise("limit", ("%s: a reply is longer than %d bytes"):format(run.shown, run.most))
end

local function line(run)
  if run.bytes < 1 then too_long(run) end
  local whole = run.sock:line(math.min(LINE_MOST, run.bytes), run.wait)
  if not whole then
    err.raise("transport", run.shown .. ": the connection has ended", { reason = "closed", sent = true })
  end
  run.bytes = run.bytes - #whole
  if whole:sub(-2) ~= "\r\n" or #whole < 3 then bad(run, "a line does not end with CR LF", whole) end
  return whole:sub(1, 1), whole:sub(2, -3)
end

-- A length or a count: digits, or -1 for null where there may be one.
local function number_of(run, word, null)
  if null and word == "-1" then return nil end
  local n = word:find("^%d+$") and #word <= 15 and math.tointeger(tonumber(word))
  if not n then bad(run, "a length is no number", word) end
  return n
end

local function bulk(run, word)
  local n = number_of(run, word, true)
  if not n then return reply.null end
  if n + 2 > run.bytes then too_long(run) end
  local data = run.sock:read_exactly(n + 2, run.wait)
  if not data then
    err.raise("transport", run.shown .. ": the connection has ended inside a reply", { reason = "closed", sent = true })
  end
  run.bytes = run.bytes - n - 2
  if data:sub(-2) ~= "\r\n" then bad(run, "a text does not end with CR LF", data:sub(-20)) end
  return data:sub(1, n)
end

-- An error inside a list is one of its values, at the top it is the answer.
local function error_of(words)
  local code, rest = words:match("^(%u+) (.*)$")
  return err.new("redis", text.repair(words), { code = code or "ERR", said = text.repair(rest or words) })
end

local read

local function count_of(run, word, null)
  local n = number_of(run, word, null)
  if n and n > run.values then err.raise("limit", ("%s: a reply has too many values"):format(run.shown)) end
  return n
end

local function list(run, word, depth)
  local n = count_of(run, word, true)
  if not n then return reply.null end
  local values = {}
  for i = 1, n do values[i] = read(run, depth + 1) end
  return values
end

local function map(run, word, depth)
  local n = count_of(run, word)
  local values = {}
  for _ = 1, n do
    local key = read(run, depth + 1)
    local value = read(run, depth + 1)
    if key ~= key then bad(run, "a map has a key that is no number", "nan") end
    values[key] = value
  end
  return values
end

local SPECIAL = { inf = math.huge, ["-inf"] = -math.huge, nan = 0 / 0 }

local READERS = {
  ["+"] = function(_, word) return word end,
  ["-"] = function(_, word) return error_of(word) end,
  [":"] = function(run, word)
    return word:find("^[+-]?%d+$") and math.tointeger(tonumber(word)) or bad(run, "this is no integer", word)
  end,
  ["$"] = bulk, ["*"] = list,
  -- RESP3
  ["_"] = function() return reply.null end,
  ["#"] = function(run, word)
    if word ~= "t" and word ~= "f" then bad(run, "this is neither true nor false", word) end
    return word == "t"
  end,
  [","] = function(run, word)
    return SPECIAL[word] or word:find("^[%d+.eE-]+$") and tonumber(word) or bad(run, "this is no number", word)
  end,
  ["("] = function(run, word) return word:find("^[+-]?%d+$") and word or bad(run, "this is no integer", word) end,
  ["!"] = function(run, word)
    local words = bulk(run, word)
    return type(words) == "string" and error_of(words) or bad(run, "this is no error", word)
  end,
  ["="] = function(run, word)
    local data = bulk(run, word)
    return type(data) == "string" and data:match("^...:(.*)$") or bad(run, "this has no format", tostring(data))
  end,
  ["~"] = list, ["%"] = map, [">"] = list,
}

function read(run, depth)
  if depth > DEPTH_MOST then err.raise("limit", ("%s: a reply is nested too deeply"):format(run.shown)) end
  run.values = run.values - 1
  if run.values < 0 then err.raise("limit", ("%s: a reply has too many values"):format(run.shown)) end
  local mark, word = line(run)
  while mark == "|" do -- remarks about the value that follows: nobody here asked for them
    map(run, word, depth)
    mark, word = line(run)
  end
  if mark == ">" and depth > 0 then bad(run, "a push inside a reply", mark) end
  local reader = READERS[mark] or bad(run, "no reply begins like this", mark .. word)
  return reader(run, word, depth), mark == ">"
end

--- `reply.read(sock, options)`: the next value, and whether it is a push that nobody asked for. An error
-- of the server is a value. options: shown (for messages), most (bytes), wait (of a read).
function reply.read(sock, options)
  local run = { sock = sock, shown = options.shown, most = options.most, bytes = options.most, values = VALUES_MOST,
    wait = options.wait }
  return read(run, 0)
end

return reply
