-- A protocol whose servers are described by a file that people have already.
local config = require "worker.config"
local scratch = require "spec.support.scratch"

describe("a protocol's own file", function()
  local dir

  before_each(function()
    dir = scratch.dir()
    dir:write("plugins/protocols/acme.lua", [[
      return { kind = "protocol", name = "acme", api = 1, open = print, claim = print,
        own_file = { name = "]] .. dir:path "acme.yaml" .. [[", env = "ACME_CONFIG" }, slots_field = "many",
        config = { url = { "url", required = true, doc = "Where.", env = "ACME__URL" },
          many = { "integer", doc = "How many." } } }
    ]])
  end)
  after_each(function() getmetatable(dir).__close(dir) end)

  local function load(flags, env, file)
    flags = flags or {}
    flags.protocol = "acme"
    return config.load { flags = flags, dirs = { dir:path "plugins", "plugins" }, env = env or {}, etc = dir.root, config = file }
  end

  it("gives what flags and environment do not", function()
    dir:write("acme.yaml", "url: http://a\nmany: 3\n")
    local server = load().servers[1]
    assert.equal("http://a", server.conf.url)
    assert.equal(3, server.slots)
    assert.equal("http://b", load(nil, { ACME__URL = "http://b" }).servers[1].conf.url)
    assert.equal("http://c", load({ url = "http://c" }, { ACME__URL = "http://b" }).servers[1].conf.url)
    assert.equal(5, load({ slots = "5" }).servers[1].slots)
  end)

  it("may be missing, unless somebody named it", function()
    assert.equal("http://c", load({ url = "http://c" }).servers[1].conf.url)
    local conf, problems = load({ url = "http://c" }, { ACME_CONFIG = dir:path "other.yaml" })
    assert.is_nil(conf)
    assert.equal(1, #problems)
    assert.matches("other.yaml: No such file.*given by ACME_CONFIG", tostring(problems[1]))
  end)

  it("is told with its own lines when it is wrong", function()
    dir:write("acme.yaml", "url: http://a\nmeny: 3\n")
    local _, problems = load()
    assert.matches('acme.yaml:2:1: .*did you mean "many"', tostring(problems[1]))
  end)

  describe("that others read, too,", function()
    before_each(function()
      dir:write("plugins/protocols/acme.lua", [[
        return { kind = "protocol", name = "acme", api = 1, open = print, claim = print,
          own_file = { name = "~/acme.yaml", section = "worker", shared = true,
            settings = { name = "name", log_level = "log.level", log_output = "log.output" } },
          config = { url = { "url", default = "http://default", doc = "Where." } } }
      ]])
    end)

    local function home(flags) return load(flags, { HOME = dir.root }) end

    it("is found at home; its own part counts, and what is not for us is left alone", function()
      dir:write("acme.yaml", "docker: { x: 1 }\nurl: http://not-this\nworker:\n  url: http://a\n  pets: [ cat ]\n")
      local conf, _, warnings = home()
      assert.same({ "http://a", 0 }, { conf.servers[1].conf.url, #warnings })
      dir:write("acme.yaml", '{ "url": "http://b", "docker": { "x": 1 } }')
      assert.equal("http://b", home().servers[1].conf.url)
    end)

    it("warns of what looks like a slip", function()
      dir:write("acme.yaml", "urls: http://a\n")
      local conf, _, warnings = home()
      assert.equal("http://default", conf.servers[1].conf.url)
      assert.matches("acme.yaml:1:1: urls means nothing to the worker; did you mean url%?", tostring(warnings[1]))
    end)

    it("may hold settings of the worker, which flags win over", function()
      dir:write("acme.yaml", "name: mine\nlog_level: debug\nlog_output: stdout\n")
      local conf = home()
      assert.same({ "mine", "mine", "debug", "stdout" }, { conf.name, conf.given_name, conf.log.level, conf.log.output })
      assert.matches("acme.yaml:2:12$", conf.origins["log.level"])
      conf = home { ["log-level"] = "warn", name = "other" }
      assert.same({ "other", "warn", "stdout" }, { conf.name, conf.log.level, conf.log.output })
    end)

    it("is told with its lines when those are wrong", function()
      dir:write("acme.yaml", "log_level: loud\n")
      local _, problems = home()
      assert.matches('acme.yaml:1:12: log_level: expected one of', tostring(problems[1]))
    end)
  end)

  it("is not read for a server that our own file describes", function()
    dir:write("acme.yaml", "url: http://a\nmany: 3\n")
    local file = dir:write("worker.yaml", "servers:\n  - protocol: acme\n    url: http://own\n")
    local server = load(nil, nil, file).servers[1]
    assert.equal("http://own", server.conf.url)
    assert.equal(1, server.slots)
  end)
end)
