-- delivery.lua: an event that has to arrive.
--
-- It is sent until somebody took it, refuses it for good, or the time is up; its id is the same on
-- every try, so that who gets it twice can tell.  What could not be delivered is kept in a file and
-- can be sent later, by anybody who has the credentials: those are not in the file.
local err = require "worker.error"
local fs = require "worker.fs"
local json = require "worker.json"
local retry = require "worker.retry"
local task = require "worker.task"
local time = require "worker.time"
local webhook = require "worker.webhook"

local delivery = {}

local REDIRECTS = 5
local TRY = 15
local ANSWER_MOST = 64 * 1024
local ANSWER_PATIENCE = 1
local FILE_MOST = 16 * 1024 * 1024
local PRIVATE_DIR, PRIVATE_FILE = 448, 384 -- 0700, 0600

-- The status alone says that the event has arrived; a body is read when it comes soon.
local function answer_of(reply)
  local pieces, size = {}, 0
  local whole = task.within(ANSWER_PATIENCE, task.try, function()
    for piece in reply:chunks() do
      pieces[#pieces + 1], size = piece, size + #piece
      if size > ANSWER_MOST then return end
    end
  end)
  local ok, value = pcall(json.decode, whole and table.concat(pieces) or "")
  return { status = reply.status, json = ok and type(value) == "table" and value or nil }
end

local function headers_of(event, keys)
  local headers = { ["idempotency-key"] = event.id }
  for name, value in pairs(event.headers or {}) do headers[name] = value end
  for name, value in pairs(webhook.headers(keys, event.id, event.body)) do headers[name] = value end
  return headers
end

--- `delivery.try(client, event, options)`: one try: { status=, json= } of the answer, or it raises as
-- worker.http does. event: id, url, headers, body (text); options: keys (of worker.webhook), try.
function delivery.try(client, event, options)
  local limit = options.try or TRY
  local done, answer = task.within(limit, function()
    local reply <close> = client:post(event.url, {
      body = event.body, headers = headers_of(event, options.keys or {}), stream = true, timeout = limit,
      redirects = REDIRECTS,
    })
    return answer_of(reply)
  end)
  if done then return answer end
  err.raise("transport", "no answer within " .. time.format_duration(limit), { reason = "timeout", sent = true })
end

--- `delivery.send(client, event, options)`: try until it has arrived; the answer, and the number of
-- tries. The last error is raised. Options beside those of try: first, most, tries, for_ (as
-- worker.retry has them: for_ bounds the tries, too), on_retry(why, attempt, seconds).
function delivery.send(client, event, options)
  local due = options.for_ and time.mono() + options.for_
  return retry.call(function(attempt)
    local left = due and math.max(due - time.mono(), 0.1) or math.huge
    return delivery.try(client, event, { keys = options.keys, try = math.min(options.try or TRY, left) }),
      attempt.number
  end, { first = options.first, most = options.most, tries = options.tries, for_ = options.for_,
    on_retry = options.on_retry })
end

--- `delivery.keep(dir, event, why)`: write an event down that could not be delivered; the path.
function delivery.keep(dir, event, why)
  fs.mkdir(dir, { parents = true, mode = PRIVATE_DIR })
  local path = fs.join(dir, event.id .. ".json")
  fs.write(path, json.encode({
    version = 1, id = event.id, url = event.url, headers = event.headers, body = event.body,
    error = tostring(why), kept = time.iso(),
  }, { pretty = true }) .. "\n", { mode = PRIVATE_FILE, sync = true })
  return path
end

--- `delivery.load(path)`: the event that is kept there; raises kind "file" or "config" for what is none.
function delivery.load(path)
  local words, why = fs.read(path, FILE_MOST)
  if not words then err.raise("file", ("%s: %s"):format(path, tostring(why))) end
  local ok, event = pcall(json.decode, words)
  local fits = ok and type(event) == "table" and event.version == 1 and type(event.id) == "string"
    and type(event.url) == "string" and type(event.body) == "string"
  if not fits then
    err.raise("config", ("%s: expected an event as the worker keeps it: version 1, id, url, body"):format(path))
  end
  return event
end

return delivery
