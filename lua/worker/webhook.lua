-- webhook.lua: events over HTTP in the forms that receivers know.
--
-- Signatures as Standard Webhooks has them: HMAC-SHA256 over "id.timestamp.body", as a list, so that a
-- secret can be replaced while both are valid.  Envelopes as CloudEvents 1.0 has them: beside the
-- data in headers (binary), or around it (structured).
local err = require "worker.error"
local json = require "worker.json"
local secret = require "worker.secret"
local text = require "worker.text"
local time = require "worker.time"

local webhook = {}

local PREFIX = "whsec_"
local KEY_LEAST = 24
local TOLERANCE = 300

local function key_of(word)
  if word:sub(1, #PREFIX) ~= PREFIX then return word end
  local key = text.unbase64(word:sub(#PREFIX + 1))
  if not key or #key < KEY_LEAST then
    err.raise("config", ("a webhook secret is whsec_ and the base64 of at least %d bytes"):format(KEY_LEAST))
  end
  return key
end

--- `webhook.keys(secret)`: the keys in a secret: one or several words, separated by blanks; `whsec_`
-- and base64, or text that is the key itself. Raises kind "config" for one that is broken.
function webhook.keys(value)
  local keys = {}
  for word in (secret.reveal(value) or ""):gmatch("%S+") do keys[#keys + 1] = key_of(word) end
  return keys
end

--- `webhook.sign(keys, id, timestamp, body)`: the value of webhook-signature, one entry per key.
function webhook.sign(keys, id, timestamp, body)
  local signed = ("%s.%d.%s"):format(id, timestamp, body)
  local list = {}
  for i, key in ipairs(keys) do list[i] = "v1," .. text.base64(text.hmac_sha256(key, signed)) end
  return table.concat(list, " ")
end

--- `webhook.headers(keys, id, body [, now])`: the headers of one try: the id is that of the event, the
-- timestamp that of the try. Without keys there is no signature.
function webhook.headers(keys, id, body, now)
  local timestamp = math.floor(now or time.wall())
  return {
    ["webhook-id"] = id, ["webhook-timestamp"] = tostring(timestamp),
    ["webhook-signature"] = #keys > 0 and webhook.sign(keys, id, timestamp, body) or nil,
  }
end

-- Takes as long for a wrong text as for the right one.
local function same(a, b)
  if #a ~= #b then return false end
  local different = 0
  for i = 1, #a do different = different | (a:byte(i) ~ b:byte(i)) end
  return different == 0
end

--- `webhook.verify(keys, headers, body [, now])`: for who receives: true, or false and why not: no
-- signature of ours, or a timestamp more than five minutes away.
function webhook.verify(keys, headers, body, now)
  local id, timestamp = headers["webhook-id"], math.tointeger(tonumber(headers["webhook-timestamp"]))
  local given = headers["webhook-signature"]
  if not (id and timestamp and given) then return false, "a header is missing" end
  if math.abs((now or time.wall()) - timestamp) > TOLERANCE then return false, "the timestamp is too far away" end
  local right = false
  for ours in webhook.sign(keys, id, timestamp, body):gmatch("%S+") do
    for theirs in given:gmatch("%S+") do right = same(ours, theirs) or right end
  end
  if right then return true end
  return false, "no signature matches"
end

-- What a header cannot hold as it is: controls, blanks, quotes, percent signs, all beyond ASCII.
local function header_value(value)
  return (tostring(value):gsub('[^\x21\x23\x24\x26-\x7e]', function(c) return ("%%%02X"):format(c:byte()) end))
end

--- `webhook.cloudevent(event, mode)`: headers and body. event: id, source, type, and time, subject,
-- data. In the mode "binary" the body is the data alone; in "structured" it holds everything.
function webhook.cloudevent(event, mode)
  if mode == "binary" then
    local headers = { ["content-type"] = "application/json", ["ce-specversion"] = "1.0" }
    for _, name in ipairs { "id", "source", "type", "time", "subject" } do
      headers["ce-" .. name] = event[name] and header_value(event[name])
    end
    return headers, json.encode(event.data)
  end
  return { ["content-type"] = "application/cloudevents+json" }, json.encode {
    specversion = "1.0", id = event.id, source = event.source, type = event.type, time = event.time,
    subject = event.subject, datacontenttype = "application/json", data = event.data,
  }
end

return webhook
