-- webhook: every event a POST, signed as Standard Webhooks has it.
--
-- An event has the same id on every try (webhook-id, Idempotency-Key), so that who gets it twice can
-- tell; the signature is made anew for each.
local delivery = require "worker.delivery"
local http = require "worker.http"
local json = require "worker.json"
local webhook = require "worker.webhook"

local sink = { kind = "sink", name = "webhook", api = 1 }

sink.doc = "Sends every event to an address, signed as Standard Webhooks has it."

sink.config = {
  -- no "url": receivers put a key into this one
  url = { "secret", required = true, example = "https://host.example/hooks/worker", doc = "Where events go." },
  secret = { "secret", example = "${file:/run/secrets/webhook}",
    doc = "Signs every event: whsec_..., or two of them while one replaces the other; not signed if absent." },
  style = { "enum", values = { "standard", "cloudevents", "cloudevents-binary" }, default = "standard",
    doc = "How an event looks: { type, timestamp, data }, or a CloudEvent of either kind." },
  headers = { "map", of = { "secret" }, default = {}, doc = "More headers for every request." },
  timeout = { "duration", default = "15s", min = "100ms", max = "50s", doc = "For one try." },
  ca = { "path", doc = "Certificates to trust, instead of the system's." },
}

--- What would only be found out when the first event goes out.
function sink.check(conf)
  local url = conf.url and conf.url:reveal()
  if url and not url:find("^https?://[^/?#]") then return 'expected an address like "https://host.example/hook"', "url" end
  local ok, why = pcall(webhook.keys, conf.secret)
  if not ok then return tostring(why), "secret" end
end

function sink.open(conf)
  return {
    conf = conf, url = conf.url:reveal(), keys = webhook.keys(conf.secret),
    api = http.client { ca_file = conf.ca, timeout = conf.timeout },
  }
end

-- What an event tells, without what stands around it.
local function data_of(event)
  local data = {}
  for name, value in pairs(event) do data[name] = value end
  data.id, data.name, data.time = nil, nil, nil
  return data
end

local function envelope(conf, event)
  local data = data_of(event)
  if conf.style == "standard" then
    return { ["content-type"] = "application/json" },
      json.encode { type = event.name, timestamp = event.time, data = data }
  end
  return webhook.cloudevent({
    id = event.id, source = "/workers/" .. http.escape(event.worker), type = "worker." .. event.name, time = event.time,
    subject = event.job and event.job.id, data = data,
  }, conf.style == "cloudevents-binary" and "binary" or "structured")
end

function sink.publish(self, event)
  local headers, body = envelope(self.conf, event)
  for name, value in pairs(self.conf.headers) do headers[name] = value:reveal() end
  delivery.try(self.api, { id = event.id, url = self.url, headers = headers, body = body },
    { keys = self.keys, try = self.conf.timeout })
end

function sink.close(self)
  self.api:close()
end

return sink
