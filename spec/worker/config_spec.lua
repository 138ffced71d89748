local config = require "worker.config"
local fs = require "worker.fs"
local yaml = require "worker.yaml"

local function nothing() end

-- What a registry of the worker offers, with plugins that need no files.
local PLUGINS = {
  protocol = {
    acme = { kind = "protocol", name = "acme", config = {
      url = { "url", required = true, env = "ACME_URL", doc = "Base address.", example = "https://ci.example" },
      token = { "secret", doc = "Agent token." },
      wait = { "duration", default = "30s", doc = "How long one claim may hang." },
    } },
    box = { kind = "protocol", name = "box", config = {},
      suggests = function(conf)
        return { executor = { { shell = { path = "/opt" } }, "docker" }, log = "json",
          health = "127.0.0.1:808" .. conf.slots + 1, events = { when = "BELL_URL", { bell = { tune = "ding" } } } }
      end },
    ["local"] = { kind = "protocol", name = "local", config = {
      dir = { "path", required = true, doc = "The folder.", example = "/var/lib/worker/queue" },
    } },
  },
  executor = {
    shell = { kind = "executor", name = "shell", config = {
      path = { "string", default = "/bin", doc = "PATH given to jobs." } } },
    docker = { kind = "executor", name = "docker", config = {} },
  },
  sink = {
    bell = { kind = "sink", name = "bell", doc = "Rings.", publish = nothing, config = {
      url = { "secret", env = "BELL_URL", doc = "Where it hangs." },
      keys = { "map", of = { "secret" }, default = {}, doc = "Who may ring." },
      tune = { "string", default = "dong", doc = "How it sounds." } } },
  },
  policy = {
    backoff = { kind = "policy", name = "backoff", claim = nothing, config = {} },
    retry = { kind = "policy", name = "retry", finish = nothing, config = {} },
    tee = { kind = "policy", name = "tee", run = nothing, config = {} },
    drain = { kind = "policy", name = "drain", run = nothing, claim = nothing, config = {} },
    limits = { kind = "policy", name = "limits", run = nothing, config = {} },
    again = { kind = "policy", name = "again", run = nothing, config = {} },
    workspace = { kind = "policy", name = "workspace", run = nothing, config = {} },
    env = { kind = "policy", name = "env", run = nothing, config = {} },
    mask = { kind = "policy", name = "mask", run = nothing, config = {} },
    timeout = { kind = "policy", name = "timeout", run = nothing, config = {
      default = { "duration", default = "1h", doc = "Limit for jobs that name none." } } },
  },
}

local registry = {}

function registry:get(kind, name)
  if PLUGINS[kind][name] then return PLUGINS[kind][name] end
  return nil, ("there is no %s '%s'"):format(kind, name)
end

function registry:names(kind)
  local names = {}
  for name in pairs(PLUGINS[kind]) do names[#names + 1] = name end
  table.sort(names)
  return names
end

local dir

local function write(name, text)
  local path = dir .. "/" .. name
  fs.mkdir(fs.dir(path), { parents = true })
  local file = assert(io.open(path, "w"))
  file:write(text)
  file:close()
  fs.chmod(path, tonumber("600", 8))
  return path
end

local function load(options)
  options.env = options.env or {}
  options.etc = options.etc or dir .. "/etc"
  options.registry = options.registry or registry
  return config.load(options)
end

local function load_text(text, options)
  options = options or {}
  options.config = write("worker.yaml", text)
  return load(options)
end

-- The problems of a text, without the folder in front of the file's name.
local function problems_of(text, options)
  local conf, problems = load_text(text, options)
  assert.is_nil(conf)
  local list = {}
  for index, problem in ipairs(problems) do list[index] = tostring(problem):gsub(dir .. "/", "") end
  return list
end

before_each(function()
  dir = os.tmpname()
  os.remove(dir)
  assert(os.execute("mkdir " .. dir))
end)

after_each(function() os.execute("rm -rf " .. dir) end)

describe("worker.config", function()
  it("loads a file and checks it against the plugins (the example of the reference)", function()
    local conf, problems = load_text [[
servers:
  - protocol: acme
    url: https://ci.example
    slots: 4
    executor: shell
policies:
  run: [ drain, timeout: { default: 30m }, mask ]
]]
    assert.same({}, problems)
    local server = conf.servers[1]
    assert.same({ "acme", "acme", 4 }, { server.name, server.protocol, server.slots })
    assert.same({ url = "https://ci.example", wait = 30 }, server.conf)
    assert.equal(PLUGINS.protocol.acme, server.plugin)
    assert.same({ "shell", { path = "/bin" } }, { server.executor.name, server.executor.conf })
    assert.equal(PLUGINS.executor.shell, server.executor.plugin)
    local run = conf.policies.run
    assert.same({ "drain", "timeout", "mask" }, { run[1].name, run[2].name, run[3].name })
    assert.same({ default = 1800 }, run[2].conf)
    assert.equal("backoff", conf.policies.claim[1].name)
    assert.same({ level = "info", format = "auto" }, conf.log)
    assert.same({ timeout = 30, grace = 10 }, conf.shutdown)
    assert.equal(conf.state .. "/work", conf.workspace)
  end)

  it("makes a server from the command line alone", function()
    local conf, problems = load { flags = { protocol = "local", dir = "in", slots = 8, ["log-level"] = "debug" } }
    assert.same({}, problems)
    assert.equal(1, #conf.servers)
    assert.same({ dir = "in" }, conf.servers[1].conf)
    assert.equal(8, conf.servers[1].slots)
    assert.equal("debug", conf.log.level)
    assert.equal("flag --slots", conf.origins["servers[1].slots"])
  end)

  it("takes the fields of plugins by their path as well", function()
    local conf = load { flags = { protocol = "local" }, protocol_flags = { dir = "in" },
      executor_flags = { path = "/opt" } }
    assert.same({ dir = "in" }, conf.servers[1].conf)
    assert.same({ path = "/opt" }, conf.servers[1].executor.conf)
    conf = load { flags = { protocol = "local", dir = "in", path = "/opt" } }
    assert.same({ path = "/opt" }, conf.servers[1].executor.conf)
  end)
end)

describe("mistakes", function()
  it("are all told at once, each with its place", function()
    assert.same({
      'worker.yaml:2:15: servers[1].protocol: there is no protocol \'acmee\'',
      "worker.yaml:3:5: servers[2].url: is required: Base address.",
      'worker.yaml:4:11: servers[2].wait: expected a duration like "30s" or "1h30m", got "soon"',
      'worker.yaml:5:5: servers[2].slotz: unknown key; did you mean "slots"?',
      'worker.yaml:7:37: policies.run[2].timeout.default: expected a duration like "30s" or "1h30m", got "x"',
      "worker.yaml:7:42: policies.run[3]: there is no policy 'masc'",
      'worker.yaml:9:10: log.level: expected one of "debug", "info", "warn", "error", got "loud"',
      'worker.yaml:10:1: shutdwon: unknown key; did you mean "shutdown"?',
    }, problems_of [[
servers:
  - protocol: acmee
  - protocol: acme
    wait: soon
    slotz: 3
policies:
  run: [ drain, timeout: { default: x }, masc ]
log:
  level: loud
shutdwon: 1
]])
  end)

  it("of the shape are told too", function()
    assert.same({ "worker.yaml:1:1: expected a map of settings, like `servers: [ ... ]`" }, problems_of "- a")
    assert.same({ "worker.yaml:2:1: a tab cannot indent; use spaces" }, problems_of "servers:\n\t- x")
    assert.same({ "there is no server to work for: give --protocol NAME, or `servers:` in worker.yaml "
      .. "(`worker plugins` lists what there is)" }, problems_of "log: { level: info }")
    assert.same({ "worker.yaml:1:10: servers: expected a list, like [ a, b ], got a map" },
      problems_of "servers: { protocol: acme }")
    assert.same({ 'worker.yaml:1:11: policies: expected a map of fields, got "mask"' },
      problems_of "policies: mask\nservers: [ { protocol: local, dir: d } ]")
    assert.same({ "worker.yaml:1:18: policies.run: expected a list, like [ a, b ], got a map" },
      problems_of "policies: { run: { mask: {} } }\nservers: [ { protocol: local, dir: d } ]")
    assert.same({ "worker.yaml:1:12: servers[1]: expected a map like { protocol: NAME }" },
      problems_of "servers: [ acme ]")
    assert.same({ "worker.yaml:1:12: servers[1].protocol: is required: How this server talks: "
      .. "the name of a protocol plugin." }, problems_of "servers: [ { slots: 3 } ]")
    assert.same({ "worker.yaml:1:24: servers[1].protocol: expected the name of a protocol" },
      problems_of "servers: [ { protocol: 3 } ]")
  end)

  it("in executors and policies are told where they are", function()
    local text = "servers: [ { protocol: local, dir: d, executor: %s } ]\npolicies: { %s }"
    local function of(executor, policies) return problems_of(text:format(executor, policies)) end
    assert.same({ "worker.yaml:1:49: servers[1].executor: there is no executor 'shel'" }, of("shel", ""))
    assert.same({ "worker.yaml:1:51: servers[1].executor: there is no executor 'shel'" },
      of("{ shel: { path: x } }", ""))
    assert.same({ "worker.yaml:1:66: servers[1].executor.shell.path: expected text, got a list" },
      of("{ shell: { path: [ x ] } }", ""))
    assert.same({ "worker.yaml:2:20: policies.run[1]: expected the name of a plugin, or { NAME: { its fields } }" },
      of("shell", "run: [ { a: 1, b: 2 } ]"))
    assert.same({ "worker.yaml:2:31: policies.run[1].timeout: expected a map with the fields of timeout" },
      of("shell", "run: [ { timeout: 30m } ]"))
    assert.same({ "policies.finish: the policy mask has nothing to do there; it belongs to run" },
      of("shell", "finish: [ mask ]"))
  end)

  it("of the command line name the option", function()
    local function of(options)
      local conf, problems = load(options)
      assert.is_nil(conf)
      local list = {}
      for index, problem in ipairs(problems) do list[index] = tostring(problem) end
      table.sort(list)
      return list
    end
    assert.same({ "servers[1].dir: is required: The folder.", "there is no option --dri here; did you mean --dir?" },
      of { flags = { protocol = "local", dri = "x" } })
    assert.same({ '--slots: expected at least 1, got 0' },
      of { flags = { protocol = "local", dir = "x", slots = "0" } })
    assert.same({ "servers[1].protocol: there is no protocol 'lokal'" }, of { flags = { protocol = "lokal" } })
    assert.matches("there is no server to work for", of({ flags = {} })[1])
  end)

  it("never are two servers of one name", function()
    local server = "{ protocol: local, dir: d, name: %s }"
    assert.same({ "servers[2].name: another server is called a too" },
      problems_of(("servers: [ %s, %s ]"):format(server:format("a"), server:format("a"))))
  end)
end)

describe("any file at all", function()
  local PIECES = {
    "servers:", "policies:", "- ", "  ", "protocol: local", "dir: x", "slots: ", "4", "[", "]", "{", "}", "run:",
    "claim: ", "mask", "timeout: ", "log:", "log: x", "~", "executor: ", "shell", "plugins: ", "[ 5 ]", "name: 1",
    "shutdown: { timeout: 5 }", "workspace: [1]", "${env:X}", "&a ", "*a", "\nservers: x", "\npolicies: 3",
    "servers: [ { protocol: local, dir: /d } ]\n", "\npolicies: { run: [ 5, [], {}, { a: ~ }, { mask: [] } ] }",
    "\nservers: [ 5, [], {}, { protocol: [] }, { protocol: ~ }, { protocol: local, dir: d, executor: [ {} ] } ]",
  }

  it("gives a configuration or problems, and raises nothing", function()
    local seed, good = 4711, 0
    local state = seed
    local function random(n)
      state = (state * 1103515245 + 12345) % 2147483648
      return state // 65536 % n + 1
    end
    for _ = 1, 400 do
      local pieces = {}
      for i = 1, random(6) do pieces[i] = PIECES[random(#PIECES)] .. (random(3) == 1 and "\n" or "") end
      local text = table.concat(pieces)
      local ok, conf, problems = pcall(load_text, text)
      assert(ok, ("seed %d: %q: %s"):format(seed, text, tostring(conf)))
      assert(conf or #problems > 0, text)
      if conf then good = good + 1 end
    end
    assert.is_true(good > 0)
  end)
end)

describe("files", function()
  local good = "servers: [ { protocol: local, dir: %s } ]"

  local function dir_of(conf, problems)
    return conf and conf.servers[1].conf.dir or tostring(problems[1])
  end

  it("are looked for: --config, WORKER_CONFIG, the person's own, the machine's", function()
    local variables = { HOME = dir .. "/home" }
    local function found(options)
      options.env = variables
      return dir_of(load(options))
    end
    assert.matches("no server", found {})
    write("etc/worker.yaml", good:format("/etc"))
    assert.equal("/etc", found {})
    write("home/.config/worker/worker.yaml", good:format("/home"))
    assert.equal("/home", found {})
    variables.XDG_CONFIG_HOME = dir .. "/xdg"
    assert.equal("/etc", found {})
    write("xdg/worker/worker.yaml", good:format("/xdg"))
    assert.equal("/xdg", found {})
    variables.WORKER_CONFIG = write("named.yaml", good:format("/named"))
    assert.equal("/named", found {})
    assert.equal("/flag", found { config = write("flag.yaml", good:format("/flag")) })
  end)

  it("may be in a place that is closed to us: that is told, and the next place looked at", function()
    fs.symlink("loop", dir .. "/loop") -- closed to root, too
    write("etc/worker.yaml", good:format("/etc"))
    local conf, _, warnings = load { env = { HOME = dir .. "/loop" } }
    assert.equal("/etc", conf.servers[1].conf.dir)
    assert.equal(1, #warnings)
    assert.matches("loop/%.config/worker/worker%.yaml: .*going on without", tostring(warnings[1]))
    conf, _, warnings = load { etc = dir .. "/loop", flags = { protocol = "local" }, protocol_flags = { dir = "/x" } }
    assert.equal("/x", conf.servers[1].conf.dir)
    assert.equal(2, #warnings)
  end)

  it("that somebody named must be there", function()
    assert.matches("/absent%.yaml: No such file.*%(given by %-%-config%)$",
      dir_of(load { config = dir .. "/absent.yaml" }))
    assert.matches("%(given by WORKER_CONFIG%)$", dir_of(load { env = { WORKER_CONFIG = dir .. "/absent" } }))
    assert.matches("is a dir.*%(given by %-%-config%)$", dir_of(load { config = dir }))
  end)

  it("in conf.d add to the machine's file, in order, and keep their places", function()
    write("etc/worker.yaml", good:format("/a") .. "\nlog: { level: warn, format: json }\n")
    write("etc/conf.d/20.yaml", "log: { level: debug }\npolicies: { run: [ mask ] }\n")
    write("etc/conf.d/10.yaml", good:format("/b") .. "\nlog: { level: error }\n")
    write("etc/conf.d/.hidden.yaml", "nonsense: 1\n")
    write("etc/conf.d/README", "nonsense")
    local conf = load {}
    assert.same({ "/a", "/b" }, { conf.servers[1].conf.dir, conf.servers[2].conf.dir })
    assert.same({ "local", "local-2" }, { conf.servers[1].name, conf.servers[2].name })
    assert.same({ level = "debug", format = "json" }, conf.log)
    assert.equal(1, #conf.policies.run)
    assert.matches("/conf.d/20.yaml:1:15$", conf.origins["log.level"])
    assert.equal(3, #conf.files)

    write("etc/conf.d/30.yaml", "\nservers:\n  - protocol: acme\n")
    local none, problems = load {}
    assert.is_nil(none)
    assert.matches("/conf%.d/30%.yaml:3:5: servers%[3%]%.url: is required", tostring(problems[1]))
  end)

  it("hold paths that are meant from where they are", function()
    local conf = load_text(good:format("queue"))
    assert.equal(dir .. "/queue", conf.servers[1].conf.dir)
  end)

  it("that everybody can read are a warning when a secret is in them", function()
    local path = write("worker.yaml", "servers: [ { protocol: acme, url: 'http://a', token: sesame-open } ]")
    assert(os.execute("chmod 644 " .. path))
    local conf, _, warnings = load { config = path }
    assert.truthy(conf)
    assert.equal(1, #warnings)
    assert.matches("worker.yaml:1:54: servers%[1%].token: everybody on this machine can read", tostring(warnings[1]))
  end)
end)

describe("precedence", function()
  local text = "servers: [ { protocol: acme, url: 'http://file', wait: 1s } ]\nlog: { level: warn }"

  it("is flags, environment, file", function()
    local conf = load_text(text, {
      env = { WORKER_URL = "http://env", WORKER_WAIT = "2s", WORKER_LOG_LEVEL = "error" },
      flags = { wait = "3s" } })
    assert.same({ url = "http://env", wait = 3 }, conf.servers[1].conf)
    assert.equal("error", conf.log.level)
    assert.equal("environment WORKER_URL", conf.origins["servers[1].url"])
  end)

  it("also for the names that a field lists itself", function()
    assert.equal("http://env", load_text(text, { env = { ACME_URL = "http://env" } }).servers[1].conf.url)
  end)

  it("with several servers: flags are refused, the environment fills in", function()
    local two = "servers:\n- { protocol: acme, url: 'http://a' }\n- { protocol: acme }\n"
    local conf = load_text(two, { env = { WORKER_URL = "http://env" } })
    assert.same({ "http://a", "http://env" }, { conf.servers[1].conf.url, conf.servers[2].conf.url })
    assert.same({ "--wait could mean any of the 2 servers: set it in the file" },
      problems_of(two, { env = { WORKER_URL = "http://env" }, flags = { wait = "1s" } }))
  end)

  it("lets --protocol replace the servers of the file, with a word about it", function()
    local conf, _, warnings = load_text(text, { flags = { protocol = "local", dir = "/d" } })
    assert.same({ "local", { dir = "/d" } }, { conf.servers[1].protocol, conf.servers[1].conf })
    assert.matches("servers of the file are not used", tostring(warnings[1]))
    conf, _, warnings = load_text(text, { flags = { protocol = "acme", wait = "9s" } })
    assert.same({ url = "http://file", wait = 9 }, conf.servers[1].conf)
    assert.same({}, warnings)
  end)

  it("warns of a variable that is nearly right", function()
    local _, _, warnings = load_text(text, { env = { WORKER_LOG_LEVLE = "x", WORKER_SOMETHING_ELSE = "y" } })
    assert.equal(1, #warnings)
    assert.matches("WORKER_LOG_LEVLE .* did you mean WORKER_LOG_LEVEL%?", tostring(warnings[1]))
  end)
end)

describe("plugins", function()
  it("are named with and without fields, alone and in lists", function()
    local function names(executor)
      local conf = load_text("servers: [ { protocol: local, dir: /d, executor: " .. executor .. " } ]")
      local list = {}
      for index, one in ipairs(conf.servers[1].executors) do list[index] = one.name .. (one.conf.path or "") end
      return table.concat(list, " ")
    end
    assert.equal("shell/bin", names "shell")
    assert.equal("shell/x", names "{ shell: { path: /x } }")
    assert.equal("shell/bin", names "{ shell: ~ }")
    assert.equal("docker shell/x", names "[ docker, shell: { path: /x } ]")
  end)

  it("of the default chains may be missing, with a warning", function()
    local missing = setmetatable({}, { __index = registry })
    function missing:get(kind, name)
      if name == "mask" then return nil, "not installed" end
      return registry.get(self, kind, name)
    end
    local conf, _, warnings = load { flags = { protocol = "local", dir = "/d" }, registry = missing }
    assert.same("policies.run goes without mask: not installed", tostring(warnings[1]))
    assert.equal(7, #conf.policies.run)
  end)
end)

describe("config.show", function()
  it("takes what a protocol suggests, unless somebody said otherwise", function()
    local conf = assert(load_text "servers: [ { protocol: box } ]")
    local server = conf.servers[1]
    assert.same({ "shell", "docker" }, { server.executors[1].name, server.executors[2].name })
    assert.equal("/opt", server.executors[1].conf.path)
    assert.equal("127.0.0.1:8082", conf.health.address)
    assert.equal("json", conf.suggested_log)
    assert.equal("suggested by box", conf.origins["health.address"])
    conf = assert(load_text "servers: [ { protocol: box, executor: docker } ]\nhealth: { address: off }")
    assert.equal("docker", conf.servers[1].executor.name)
    assert.equal(1, #conf.servers[1].executors)
    assert.equal("off", conf.health.address)
  end)

  it("prints every value with its origin, and no secret", function()
    local conf = load_text("servers:\n  - protocol: acme\n    url: http://a\n    token: sesame-open\n"
      .. "log: { level: warn }\nevents: [ { bell: { keys: { a: sesame-bell } } } ]\n", { flags = { wait = "90s" } })
    local text = config.show(conf):gsub(dir .. "/", "")
    assert.is_nil(text:find("sesame"))
    assert.matches("events%[1%]%.bell%.keys: { a: .?%*%*%*.? } +# worker.yaml:6:", text)
    assert.matches("servers%[1%]%.token: %*%*%* +# worker.yaml:4:12\n", text)
    assert.matches("servers%[1%]%.wait: 1m30s +# flag %-%-wait\n", text)
    assert.matches("log%.level: warn +# worker.yaml:5:15\n", text)
    assert.matches("log%.format: auto +# default\n", text)
    assert.matches("policies%.run%[4%]%.timeout%.default: 1h +# default\n", text)
  end)
end)

describe("event sinks", function()
  local SERVER = "servers: [ { protocol: local, dir: d } ]\n"

  it("are a list of plugins, each with its own fields and those of every sink", function()
    local conf = load_text(SERVER .. "events: [ bell, { bell: { tune: x, only: [ job.finished ], queue: 5, output: true } } ]")
    assert.equal(2, #conf.events)
    local one, two = conf.events[1], conf.events[2]
    assert.same({ "bell", 1000, 600, false }, { one.name, one.queue, one.keep, one.output })
    assert.same({ tune = "dong", keys = {} }, one.conf)
    assert.same({ "bell-2", 5, true, { "job.finished" } }, { two.name, two.queue, two.output, two.only })
    assert.same({}, load_text(SERVER).events)
  end)

  it("are checked like everything else", function()
    local _, problems = load_text(SERVER .. "events:\n  - bell: { tun: x }\n  - bell: { only: [ job.finshed ] }\n  - ball\n")
    local told = {}
    for i, problem in ipairs(problems) do told[i] = tostring(problem) end
    told = table.concat(told, "\n")
    assert.matches('worker%.yaml:3:13: events%[1%]%.bell%.tun: unknown key; did you mean "tune"', told)
    assert.matches('worker%.yaml:4:21: events%[2%]%.bell%.only%[1%]: .*job%.finished', told)
    assert.matches("worker%.yaml:5:5: events%[3%]: there is no sink 'ball'", told)
  end)

  it("may be suggested by a protocol, while its variable is set and nobody says otherwise", function()
    local box = "servers: [ { protocol: box } ]\n"
    local env = { BELL_URL = "https://b.example/secret" }
    local one = load_text(box, { env = env }).events[1]
    assert.same({ "bell", "ding", "https://b.example/secret" }, { one.name, one.conf.tune, one.conf.url:reveal() })
    assert.same({}, load_text(box).events)
    assert.same({}, load_text(box .. "events: []", { env = env }).events)
    assert.same({}, load_text(SERVER, { env = env }).events)
  end)
end)

describe("config.sample", function()
  it("is a file that loads as it is", function()
    local text = config.sample(registry)
    local conf, problems = load_text(text)
    assert.truthy(conf, tostring(problems[1]))
    assert.equal("/var/lib/worker/queue", conf.servers[1].conf.dir)
    assert.matches("\n#  %- protocol: acme\n", text)
    assert.matches("\n    %- timeout:\n        # Limit for jobs that name none%.\n        #default: 1h\n", text)
    assert.equal(8, #conf.policies.run)
    assert.equal(3600, conf.policies.run[4].conf.default)
  end)

  it("is still right when all of it is uncommented", function()
    local text = config.sample(registry):gsub("\n( *)#(%S)", "\n%1%2")
    local ok, why = yaml.parse(text)
    assert.is_true(ok, tostring(why) .. text)
  end)
end)
