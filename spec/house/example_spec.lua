-- The adapter that is shipped to be copied, at work: the binary, its folder, and a server that speaks
-- Acme's wire.
local markdown = require "spec.support.markdown"
local program = require "spec.support.program"
local scratch = require "spec.support.scratch"
local servers = require "spec.support.server"

local EXAMPLES = "config/examples"

describe("the example adapter #realtime", function()
  local builds, alive

  -- Acme: hands out the builds once, then nothing.
  local function acme()
    return servers.http {
      ["POST /agents"] = servers.json(201, { agent = "a1" }),
      ["POST /agents/{agent}/next"] = function(_, reply)
        local build = table.remove(builds, 1)
        if build then reply:json(200, build) else reply:empty(204) end
      end,
      ["PUT /builds/{build}/alive"] = function(_, reply) reply:empty(alive) end,
      ["POST /builds/{build}/output"] = servers.empty(204),
      ["POST /builds/{build}/end"] = servers.json(200, {}),
    }
  end

  local function ask(fake, route)
    for _, request in ipairs(fake.requests) do
      if request.route == route then return request end
    end
  end

  -- A worker with the adapter, until it has reported a build.
  local function work(fake, dir)
    local run <close> = program.start { "--protocol", "acme", "--url", fake.url, "--token", "a-token-long-enough",
      "--beat", "50ms", "--state", dir.root, program.plugins, EXAMPLES }
    local report = program.eventually(function() return ask(fake, "POST /builds/{build}/end") end)
    run:signal "TERM"
    run:wait()
    return report.json
  end

  before_each(function() alive = 200 end)

  it("runs a build and tells Acme", function()
    local dir <close> = scratch.dir()
    builds = { { build = "7", ticket = "t", commands = "echo building $WHAT; exit 3", variables = { WHAT = "it" } } }
    local fake <close> = acme()
    assert.same({ ticket = "t", outcome = "failed", exit_code = 3 }, work(fake, dir))
    local output = ask(fake, "POST /builds/{build}/output")
    assert.equal("building it\n", output.body)
    assert.equal("0", output.query.from)
    assert.equal("Bearer a-token-long-enough", output.headers["authorization"])
  end)

  it("ends a build that a person stopped", function()
    local dir <close> = scratch.dir()
    alive, builds = 410, { { build = "8", ticket = "t", commands = "sleep 600" } }
    local fake <close> = acme()
    assert.equal("cancelled", work(fake, dir).outcome)
  end)

  it("is started as the README says", function()
    local line = markdown.read("README.md").text:match("\n(build/worker %-%-protocol acme[^\n]*)")
    assert.equal(EXAMPLES, line:match("(%S+)$"))
    for option in line:gmatch("%-%-(%w+)") do
      assert.is_truthy(option == "protocol" or program.run { "explain", "--plugins", EXAMPLES, "acme" }.stdout:find(
        "\n  " .. option .. " "), option)
    end
  end)
end)
