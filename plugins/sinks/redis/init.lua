-- redis: publishes every event on a channel of a Redis server.
--
-- Publishing is fire and forget: who is not subscribed when it happens never hears of it.  Events that
-- come together go out together.
local json = require "worker.json"
local queue = require "redis.queue"
local redis = require "worker.redis"

local sink = { kind = "sink", name = "redis", api = 1 }

sink.doc = "Publishes every event on a channel of a Redis server."

sink.config = {
  url = { "secret", required = true, env = "REDIS_URL", example = "redis://:password@redis.example:6379/0",
    doc = "Where it is (REDIS_URL): redis://, rediss:// for TLS, or unix:///path." },
  format = { "enum", values = { "json", "queue" }, default = "json",
    doc = "json is the event as it is; queue is evaluation:running, completed and failed as the Crucible platform has them." },
  channel = { "string", default = "worker:{name}", min = 1, max = 200,
    doc = "The channel of format json; {name}, {server}, {worker} and {job} are filled in." },
  timeout = { "duration", default = "10s", min = "100ms", max = "50s", doc = "For connecting, and for every answer." },
  tls = { "record", doc = "How rediss:// checks the server, and who we are.", fields = {
    ca = { "path", doc = "Certificates to trust, instead of the system's." },
    cert = { "path", doc = "Our certificate, where the server asks for one." },
    key = { "path", doc = "Its key." },
  } },
}

--- What would only be found out when the first event goes out.
function sink.check(conf)
  local ok, why = pcall(redis.place, conf.url or "redis://x")
  if not ok then return tostring(why), "url" end
  if conf.format == "queue" and not conf.output then
    return "tells what jobs printed: say `output: true` as well", "format"
  end
end

function sink.open(conf)
  local tls = conf.tls or {}
  return {
    conf = conf, waiting = {},
    db = redis.connect { url = conf.url, timeout = conf.timeout,
      tls = { ca_file = tls.ca, cert = tls.cert, key = tls.key } },
  }
end

local function channel_of(conf, event)
  local words = { name = event.name, server = event.server or "", worker = event.worker, job = event.job and event.job.id or "" }
  return (conf.channel:gsub("{(%l+)}", words))
end

function sink.publish(self, event)
  local channel, body = channel_of(self.conf, event), event
  if self.conf.format == "queue" then
    channel, body = queue.message(event)
    if not channel then return end
  end
  self.waiting[#self.waiting + 1] = { "PUBLISH", channel, json.encode(body) }
end

function sink.flush(self)
  local replies = self.db:pipeline(self.waiting)
  self.waiting = {}
  for _, reply in ipairs(replies) do
    if type(reply) == "table" then error(reply, 0) end
  end
end

function sink.close(self)
  self.db:close()
end

return sink
