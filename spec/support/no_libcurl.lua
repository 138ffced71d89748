-- Run by spec/worker/http_route_spec.lua in a worker of its own that finds no libcurl.
local core = require "worker.core.sock"
local facts = require "worker.facts"
local http = require "worker.http"
local server = require "spec.support.server"
local task = require "worker.task"

it("without libcurl TLS and proxies fail, and say what to install", function()
  for _, options in ipairs { { base = "https://127.0.0.1:1" },
    { base = "http://far.example", proxy = "http://127.0.0.1:1" } } do
    local api <close> = http.client(options)
    local ok, why = task.try(api.post, api, "/")
    assert.is_false(ok)
    assert.same({ "transport", "tls", false }, { why.kind, why.reason, why.sent })
    assert.matches("apt%-get install libcurl4", why.message)
  end
  local ok, why = task.try(core.connect, { address = "127.0.0.1:1", tls = true })
  assert.is_false(ok)
  assert.matches("apt%-get install libcurl4", why.message)
end)

it("without libcurl plain requests work, redirected ones too", function()
  local fake = server.http { ["GET /a"] = server.empty(302, { Location = "b" }),
    ["GET /b"] = server.text(200, "there") }
  local api <close> = http.client { base = fake.url }
  assert.equal("there", api:get("/a", { redirects = 1 }).body)
end)

it("without libcurl a doctor says so", function()
  local fact = facts.find(facts.list(), "TLS")
  assert.equal("no", fact.state)
  assert.matches("apt%-get install libcurl4", fact.advice)
end)
