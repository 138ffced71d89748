local fs = require "worker.fs"
local schema = require "worker.schema"
local yaml = require "worker.yaml"

-- One field with one value from a file: the value, or the message of the only problem.
local function one(field, text, options)
  local value, marks = yaml.decode(text and "it: " .. text or "", { name = "w.yaml" })
  options = options or {}
  options.references = options.references ~= false
  local conf, problems = schema.check({ it = field }, value, marks, "", options)
  if conf then return conf.it end
  assert.equal(1, #problems)
  return nil, problems[1].message
end

local function refused(field, text, options)
  local value, message = one(field, text, options)
  assert.is_nil(value)
  return message
end

local function env(variables)
  return function(name) return variables[name] end
end

local function texts(problems)
  local list = {}
  for index, problem in ipairs(problems) do list[index] = tostring(problem) end
  return list
end

local acme = {
  kind = "protocol", name = "acme", doc = "Speaks to Acme.",
  config = {
    url = { "url", required = true, doc = "Base address of the Acme server.", example = "https://ci.example" },
    token = { "secret", required = true, env = "ACME_TOKEN", doc = "Agent token." },
    wait = { "duration", default = "30s", min = "1s", doc = "How long one claim may hang." },
    labels = { "list", of = "string", default = {}, doc = "What this worker can do." },
    tls = { "record", doc = "How to check the server.", fields = {
      ca_file = { "path", doc = "Certificates to trust." },
      min = { "enum", values = { "1.2", "1.3" }, default = "1.2", doc = "Oldest version allowed." },
    } },
  },
}

describe("worker.schema", function()
  it("checks, fills in and says where (the example of the reference)", function()
    local value, marks = yaml.decode("url: https://ci.example\ntoken: s3cret-token\n", { name = "w.yaml" })
    local conf = schema.check(acme, value, marks)
    assert.equal("https://ci.example", conf.url)
    assert.equal(30, conf.wait)
    assert.equal("1.2", conf.tls.min)

    value, marks = yaml.decode("url: ci.example\nwiat: 5s\nwait: soon\n", { name = "w.yaml" })
    local none, problems = schema.check(acme, value, marks, "servers[1]")
    assert.is_nil(none)
    assert.same({
      "w.yaml:1:1: servers[1].token: is required: Agent token.",
      'w.yaml:1:6: servers[1].url: expected an address like "https://host.example", got "ci.example"',
      'w.yaml:2:1: servers[1].wiat: unknown key; did you mean "wait"?',
      'w.yaml:3:7: servers[1].wait: expected a duration like "30s" or "1h30m", got "soon"',
    }, texts(problems))
  end)

  it("tells what is missing in one place by name", function()
    local fields, names = {}, { "apple", "cherry", "fig", "grape", "lemon", "mango", "olive", "peach", "quince" }
    for _, name in ipairs(names) do fields[name] = { "string", required = true, doc = "Needed." } end
    local value, marks = yaml.decode("it: {}\n", { name = "w.yaml" })
    local _, problems = schema.check({ it = { "record", fields = fields } }, value, marks)
    for i, name in ipairs(names) do
      assert.equal(("w.yaml:1:5: it.%s: is required: Needed."):format(name), tostring(problems[i]))
    end
  end)

  it("reads one value from text", function()
    assert.equal(5400, schema.parse({ "duration" }, "1h30m"))
    local none, message = schema.parse({ "integer" }, "many")
    assert.is_nil(none)
    assert.equal('expected a whole number, got "many"', message)
  end)

  it("works on tables that are from no file", function()
    local none, problems = schema.check(acme, { url = "https://x.example", token = 1 })
    assert.is_nil(none)
    assert.matches("^token: expected a secret, .* got a number$", tostring(problems[1]))
  end)
end)

describe("types", function()
  it("string takes text and tells what to do with a number", function()
    assert.equal("x y", one({ "string" }, "x y"))
    assert.equal("expected text, got the number 12; put it in quotes", refused({ "string" }, "12"))
    assert.equal("expected text, got true; put it in quotes", refused({ "string" }, "true"))
    assert.equal("expected text, got a list", refused({ "string" }, "[a]"))
    assert.equal("expected at least 3 characters, got 2", refused({ "string", min = 3 }, "éé"))
    assert.matches("pattern", refused({ "string", pattern = "^%l+$" }, "A"))
    assert.equal('expected one of "a", "b", got "other"', refused({ "string", values = { "a", "b" } }, "other"))
  end)

  it("integer and number take numbers only", function()
    assert.equal(4, one({ "integer" }, "4"))
    assert.equal("integer", math.type(one({ "integer" }, "4.0")))
    assert.equal("expected a whole number, got the number 4.5", refused({ "integer" }, "4.5"))
    assert.equal('expected a whole number, got "4"', refused({ "integer" }, "'4'"))
    assert.equal("expected at most 8, got 9", refused({ "integer", max = 8 }, "9"))
    assert.equal(0.5, one({ "number" }, ".5"))
    assert.equal("expected a number, got the number inf", refused({ "number" }, ".inf"))
    assert.matches("expected a number", refused({ "number" }, ".nan"))
  end)

  it("boolean takes true and false, not words", function()
    assert.is_false(one({ "boolean" }, "false"))
    assert.equal('expected true or false, got "yes"', refused({ "boolean" }, "yes"))
  end)

  it("duration and size take text and numbers, and so do their bounds", function()
    assert.equal(90, one({ "duration" }, "1m30s"))
    assert.equal(90, one({ "duration" }, "90"))
    assert.equal("expected at least 1s, got 500ms", refused({ "duration", min = "1s" }, "500ms"))
    assert.equal(1 << 26, one({ "size" }, "64MiB"))
    assert.equal(1024, one({ "bytes" }, "1024"))
    assert.equal("expected at most 1MiB, got 2MiB", refused({ "size", max = "1MiB" }, "2M"))
  end)

  it("enum suggests the nearest word", function()
    local level = { "enum", values = { "debug", "info", "warn" } }
    assert.equal("info", one(level, "info"))
    assert.equal('expected one of "debug", "info", "warn", got "debgu"; did you mean "debug"?',
      refused(level, "debgu"))
  end)

  it("url takes absolute addresses of its schemes", function()
    for _, good in ipairs {
      "http://a", "https://a.example:8443/x/y?z=1#q", "http://[::1]:80/", "HTTP://A_b-c.d", "http://127.0.0.1",
    } do
      assert.equal(good, one({ "url" }, yaml.scalar(good)))
    end
    for _, bad in ipairs {
      "a.example", "ftp://a", "http://", "http:///x", "http://a b", "http://a:0/", "http://a:99999", "http://a:x",
      "http://é.example", "//a", "http://a\nb",
    } do
      assert.matches("^expected ", refused({ "url" }, yaml.scalar(bad)), bad)
    end
    assert.matches("without name and password", refused({ "url" }, "http://me:pw@a"))
    assert.equal("unix:///run/x.sock", one({ "url", schemes = { "unix", "http" } }, "unix:///run/x.sock"))
    assert.matches("ws://host.example", refused({ "url", schemes = { "ws" } }, "http://a"))
  end)

  it("address takes what can be listened at, and off", function()
    for _, good in ipairs {
      "127.0.0.1:9252", "0.0.0.0:1", ":80", "*:0", "localhost:65535", "[::1]:80", "[::]:0", "[fe80::1%eth0]:80",
      "/run/x.sock", "./x:1", "run/x.sock", "off",
    } do
      assert.equal(good, one({ "address" }, yaml.scalar(good)))
    end
    for _, bad in ipairs {
      "127.0.0.1", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:-1", "127.0.0.1:80x", "300.0.0.1:80", "1.2.3:80", "1.2.3.4.5:80",
      "host.example:80", "http://127.0.0.1:80", "127.0.0.1:80/metrics", "::1:80", "[1]:80", "[x::]:80", "x.sock", "on", "",
      "a b:80", "/a\0b",
    } do
      assert.matches("^expected an address like", refused({ "address" }, yaml.scalar(bad)), bad)
    end
    assert.equal("expected an address like \"127.0.0.1:9252\", the path of a Unix socket with a slash in it, or \"off\", "
      .. "got the number 9252", refused({ "address" }, "9252"))
    assert.equal('expected a port from 1 to 65535 in the address, got "*:65536"', refused({ "address" }, "'*:65536'"))
    assert.matches("at most 107 bytes, got", refused({ "address" }, "/" .. ("x"):rep(107)))
    assert.equal("/" .. ("x"):rep(106), one({ "address" }, "/" .. ("x"):rep(106)))
  end)

  it("path is meant from where the file is, and ~ is home", function()
    local value, marks = yaml.decode("it: a/b\n", { name = "/etc/worker/worker.yaml" })
    assert.equal("/etc/worker/a/b", schema.check({ it = { "path" } }, value, marks).it)
    assert.equal("/x", one({ "path" }, "/x"))
    assert.equal("/home/me/x", one({ "path" }, "~/x", { env = env { HOME = "/home/me" } }))
    assert.matches("path of a file", refused({ "path" }, "''"))
  end)

  it("list, map and record say where inside it is wrong", function()
    assert.same({ 1, 2 }, one({ "list", of = "integer" }, "[1, 2]"))
    assert.same({}, one({ "list", of = "integer" }, "[]"))
    assert.same({ A = 60 }, one({ "map", of = { "duration" } }, "{ A: 1m }"))
    local spec = { jobs = { "list", of = { "record", fields = { wait = { "map", of = "duration" } } } } }
    local value, marks = yaml.decode("jobs:\n  - wait: { a: 1s, b: x }\n", { name = "f" })
    local _, problems = schema.check(spec, value, marks)
    assert.same({ 'f:2:23: jobs[1].wait.b: expected a duration like "30s" or "1h30m", got "x"' }, texts(problems))
    assert.equal("expected a list, like [ a, b ], got a map", refused({ "list" }, "{a: 1}"))
    assert.equal('expected a list, like [ a, b ], got "a"', refused({ "list" }, "a"))
    assert.equal("expected a map of names to values, got a list", refused({ "map" }, "[a]"))
    assert.equal("expected a map of fields, got a list", refused({ "record", fields = {} }, "[1]"))
    assert.equal("expected at least 2 entries, got 1", refused({ "list", min = 2 }, "[a]"))
    assert.matches("must fit the pattern", refused({ "map", keys = "^%u+$" }, "{a: 1}"))
  end)

  it("one_of takes any of its forms, and complains about the one that was meant", function()
    local either = { "one_of", of = { "string", { "list", of = "integer" }, { "record", fields = {
      cpu = { "integer", required = true, doc = "Cores." } } } } }
    assert.equal("x", one(either, "x"))
    assert.same({ 1 }, one(either, "[1]"))
    assert.same({ cpu = 2 }, one(either, "{cpu: 2}"))
    assert.equal('expected a whole number, got "a"', refused(either, "[a]"))
    assert.equal("is required: Cores.", refused(either, "{cpu: ~}"))
    assert.equal("is required: Cores.", refused(either, "{}"))
    assert.equal("expected text, or a list, like [ a, b ], or a map of fields, got the number 5",
      refused(either, "5"))
  end)
end)

describe("fields", function()
  it("are required, or have a default that went through the type", function()
    assert.equal("is required: What.", refused({ "string", required = true, doc = "What." }))
    assert.equal("is required: What.", refused({ "string", required = true, doc = "What." }, "~"))
    assert.equal(3600, one({ "duration", default = "1h" }))
    assert.equal(3600, one({ "duration", default = "1h" }, "~"))
    assert.is_false(one({ "boolean", default = false }))
    assert.is_nil(one({ "string" }))
  end)

  it("of a record that is absent are filled in, unless something in it is required", function()
    local a, b = { "integer", default = 1 }, { "string", required = true }
    assert.same({ a = 1 }, one({ "record", fields = { a = a } }))
    assert.is_nil(one({ "record", fields = { a = a, b = b } }))
    assert.same({ a = 1, b = "x" }, one({ "record", fields = { a = a, b = b } }, "{b: x}"))
  end)

  it("never share a default between two configurations", function()
    local spec = { labels = { "list", default = { "a" } } }
    local first, second = schema.check(spec, {}), schema.check(spec, {})
    first.labels[1] = "changed"
    assert.same({ "a" }, second.labels)
  end)

  it("that are deprecated still work, with a warning", function()
    local value, marks = yaml.decode("old: 1", { name = "f" })
    local conf, _, warnings = schema.check(
      { old = { "integer", deprecated = "use `new`" } }, value, marks, "servers[2]")
    assert.equal(1, conf.old)
    assert.same({ "f:1:6: servers[2].old: is deprecated; use `new`" }, texts(warnings))
  end)

  it("can have a rule over several of them, which runs when each is right", function()
    local spec = {
      least = { "integer", default = 1 }, most = { "integer", default = 2 },
      check = function(conf)
        if conf.least > conf.most then return "must not be more than `most`", "least" end
      end,
    }
    local function problem(text)
      local value, marks = yaml.decode(text, { name = "f" })
      local conf, problems = schema.check(spec, value, marks)
      return conf == nil and tostring(problems[1]) or nil
    end
    assert.is_nil(problem("least: 1"))
    assert.equal("f:1:8: least: must not be more than `most`", problem("least: 5"))
    assert.equal('f:1:8: least: expected a whole number, got "x"', problem("least: x"))
    spec.check = function() error("odd", 0) end
    assert.equal("f:1:1: odd", problem("least: 1"))
  end)

  it("of protocols and policies may be ruled by the plugin's own check, not those of executors", function()
    local plugin = { kind = "policy", config = {}, check = function() return "no" end }
    assert.is_nil((schema.check(plugin, {})))
    plugin.kind = "executor"
    assert.same({}, (schema.check(plugin, {})))
  end)
end)

describe("problems", function()
  it("are all told, in the order of the file, and not without end", function()
    local lines = {}
    for i = 1, 80 do lines[i] = ("unknown%d: 1"):format(i) end
    local value, marks = yaml.decode(table.concat(lines, "\n"), { name = "f" })
    local _, problems = schema.check({}, value, marks)
    assert.equal(51, #problems)
    assert.equal("... and 30 more", tostring(problems[51]))
    for i = 2, 50 do assert.is_true(problems[i].line > problems[i - 1].line) end
  end)

  it("have their parts as fields", function()
    local value, marks = yaml.decode("a:\n  b: x\n", { name = "f" })
    local _, problems = schema.check({ a = { "map", of = "integer" } }, value, marks, "top")
    local problem = problems[1]
    assert.same({ "f", 2, 6, "top.a.b", 'expected a whole number, got "x"' },
      { problem.file, problem.line, problem.column, problem.path, problem.message })
  end)

  it("show long values cut and without control characters", function()
    local message = refused({ "integer" }, '"' .. ("x"):rep(500) .. '"')
    assert.is_true(#message < 120)
    assert.equal('expected a whole number, got "a?b"', refused({ "integer" }, '"a\\x1bb"'))
  end)

  it("never show a secret", function()
    local spec = { token = { "secret", min = 10, doc = "Token." } }
    for _, text in ipairs { "hunter2", "'${hunter2}'", "'${file:'", "[hunter2]", "{hunter2: 1}", "'a${hunter2'" } do
      local value, marks = yaml.decode("token: " .. text, { name = "f" })
      local conf, problems = schema.check(spec, value, marks, "", { references = true })
      assert.is_nil(conf)
      assert.is_nil(tostring(problems[1]):find("hunter"))
    end
  end)
end)

describe("references", function()
  local dir

  before_each(function()
    dir = os.tmpname()
    os.remove(dir)
    assert(os.execute("mkdir -m 700 " .. dir))
  end)

  after_each(function() os.execute("rm -rf " .. dir) end)

  local function write(name, text, mode)
    local file = assert(io.open(dir .. "/" .. name, "w"))
    file:write(text)
    file:close()
    assert(os.execute(("chmod %s %s/%s"):format(mode or "600", dir, name)))
    return dir .. "/" .. name
  end

  it("put in files, variables and credentials, anywhere in any text", function()
    local path = write("a", "from file\n")
    write("cred", "from credential\r\n")
    local variables = env { X = "from env", CREDENTIALS_DIRECTORY = dir }
    local text = ("<${file:%s}> ${env:X}, ${credential:cred}"):format(path)
    assert.equal("<from file> from env, from credential",
      one({ "string" }, yaml.scalar(text), { env = variables }))
    assert.same({ 5 }, one({ "list", of = "integer" }, "['${env:N}']", { env = env { N = "5" } }))
    assert.equal(90, one({ "duration" }, "${env:N}", { env = env { N = "1m30s" } }))
    assert.is_true(one({ "boolean" }, "${env:N}", { env = env { N = "yes" } }))
  end)

  it("strip one newline, and are not looked into again", function()
    local path = write("a", "${env:X}\n\n")
    assert.equal("${env:X}\n", one({ "string" }, "${file:" .. path .. "}", { env = env { X = "no" } }))
  end)

  it("are left as they are in what somebody else wrote", function()
    assert.equal("${file:/etc/shadow} $${x} ${HOME",
      one({ "string" }, '"${file:/etc/shadow} $${x} ${HOME"', { references = false }))
    local value, marks = yaml.decode("it: [ '${env:X}' ]")
    assert.same({ it = { "${env:X}" } }, (schema.check({ it = { "list" } }, value, marks)))
    assert.equal("${env:X}", schema.parse({ "string" }, "${env:X}"))
    assert.equal("y", schema.parse({ "string" }, "${env:X}", env { X = "y" }))
  end)

  it("are escaped with a second dollar", function()
    assert.equal("${HOME} and $x", one({ "string" }, '"$${HOME} and $x"'))
  end)

  it("say what is wrong with them", function()
    assert.equal("${env:NOPE}: the environment has no NOPE", refused({ "string" }, "${env:NOPE}"))
    assert.matches("^%${file:/no/such}: .*No such file", refused({ "string" }, "${file:/no/such}"))
    assert.matches("CREDENTIALS_DIRECTORY is not set", refused({ "string" }, "${credential:x}"))
    assert.matches("not the name of a credential",
      refused({ "string" }, "${credential:../x}", { env = env { CREDENTIALS_DIRECTORY = dir } }))
    assert.matches("must be ${file:PATH}, ${env:NAME} or", refused({ "string" }, "${HOME}"))
    assert.equal("${ without its }", refused({ "string" }, "${env:HOME"))
  end)

  it("warn about a secret that everybody can read, in a file of its own or in the configuration", function()
    local path = write("token", "sesame-open\n", "644")
    local value, marks = yaml.decode("it: ${file:" .. path .. "}\n", { name = "w.yaml" })
    local conf, _, warnings = schema.check({ it = { "secret" } }, value, marks, "", { references = true })
    assert.truthy(conf)
    assert.same({ ("w.yaml:1:5: it: everybody on this machine can read %s; chmod 600 it"):format(path) },
      texts(warnings))

    path = write("worker.yaml", "it: sesame-open\n", "604")
    value, marks = yaml.decode(fs.read(path), { name = path })
    conf, _, warnings = schema.check({ it = { "secret" } }, value, marks)
    assert.truthy(conf)
    assert.matches("everybody on this machine can read", tostring(warnings[1]))
    assert(os.execute("chmod 640 " .. path))
    assert.same({}, select(3, schema.check({ it = { "secret" } }, value, marks)))
  end)

  it("in a secret give a secret, which shows nowhere", function()
    local secret = one({ "secret" }, "${file:" .. write("t", "sesame-open\n") .. "}")
    assert.is_nil(tostring(secret):find("sesame"))
    assert.equal("sesame-open", secret:reveal())
  end)

  it("work for a secret's NAME_FILE in the environment", function()
    local path = write("token", "${not looked into}\n")
    local conf, problems, _, origins = schema.check({ token = { "secret", env = "ACME_TOKEN" } }, {}, nil, "", {
      env = env { ACME_TOKEN_FILE = path } })
    assert.truthy(conf, tostring(problems[1]))
    assert.equal("${not looked into}", conf.token:reveal())
    assert.equal("environment ACME_TOKEN_FILE", origins.token)
    conf, problems = schema.check({ token = { "secret", required = true } }, {}, nil, "", {
      env = env { WORKER_TOKEN_FILE = dir .. "/absent" }, env_prefix = "WORKER_" })
    assert.is_nil(conf)
    assert.equal(1, #problems)
    assert.matches("^WORKER_TOKEN_FILE: .*absent: No such file", tostring(problems[1]))
  end)
end)

describe("precedence", function()
  local spec = {
    level = { "string", default = "default" },
    log = { "record", fields = { level = { "enum", values = { "low", "high" }, default = "low" } } },
    size = { "integer", env = { "OLD_SIZE", "SIZE" } },
    labels = { "list", of = "string" },
    vars = { "map", of = "integer" },
  }

  local function check(text, options)
    options.env = env(options.env or {})
    options.env_prefix = "WORKER_"
    local value, marks = yaml.decode(text, { name = "f" })
    local conf, problems, _, origins = schema.check(spec, value, marks, "", options)
    return conf, problems, origins
  end

  it("is flag, environment, file, default, and each value knows its origin", function()
    local conf, _, origins = check("level: file\nlog: { level: low }\n", {
      env = { WORKER_LEVEL = "env", WORKER_LOG_LEVEL = "high", SIZE = "5" }, flags = { level = "flag" } })
    assert.same({ level = "flag", log = { level = "high" }, size = 5 }, conf)
    assert.same({ level = "flag --level", log = "f:2:6", ["log.level"] = "environment WORKER_LOG_LEVEL",
      size = "environment SIZE", labels = "default", vars = "default" }, origins)
    conf, _, origins = check("level: file\n", {})
    assert.equal("file", conf.level)
    assert.equal("f:1:8", origins.level)
    assert.equal("default", origins["log.level"])
  end)

  it("lets the environment only fill in, where several could be meant", function()
    local conf = check("level: file\n", { env = { WORKER_LEVEL = "env", OLD_SIZE = "7" }, env_fills = true })
    assert.same({ "file", 7 }, { conf.level, conf.size })
  end)

  it("reads lists and maps from text, also in brackets", function()
    local conf = check("", { env = { WORKER_LABELS = "a, b", WORKER_VARS = "A=1, B=2" } })
    assert.same({ { "a", "b" }, { A = 1, B = 2 } }, { conf.labels, conf.vars })
    conf = check("", { flags = { labels = "[ 'a, b', c ]", vars = "{ A: 1 }" } })
    assert.same({ { "a, b", "c" }, { A = 1 } }, { conf.labels, conf.vars })
  end)

  it("names the flag or the variable that is wrong", function()
    local _, problems = check("", { flags = { ["log.level"] = "hihg", size = "x" }, env = { WORKER_VARS = "A" } })
    local found = texts(problems)
    table.sort(found)
    assert.same({
      '--log-level: expected one of "low", "high", got "hihg"; did you mean "high"?',
      '--size: expected a whole number, got "x"',
      'WORKER_VARS: expected NAME=VALUE, NAME=VALUE, got "A"',
    }, found)
    _, problems = check("", { env = { WORKER_VARS = "A=x" } })
    assert.same({ 'WORKER_VARS: vars.A: expected a whole number, got "x"' }, texts(problems))
  end)
end)

describe("documentation", function()
  it("is made from the spec", function()
    local text = schema.explain(acme)
    assert.matches("^protocol acme\n\n  Speaks to Acme%.\n\n", text)
    assert.matches("  token +secret, required, environment ACME_TOKEN\n +Agent token%.\n", text)
    assert.matches("  wait +duration, default 30s, at least 1s\n", text)
    assert.matches("    min +1%.2 | 1%.3, default \"1%.2\"\n", text)
    for line in text:gmatch("[^\n]+") do assert.is_true(#line <= 92) end
  end)

  it("has a sample that is right once it is filled in", function()
    local text = schema.sample(acme)
    assert.equal([[
protocol: acme
# Agent token. Required.
token: ${file:/run/secrets/NAME}
# Base address of the Acme server. Required.
url: https://ci.example
# What this worker can do.
#labels: []
# How to check the server.
#tls:
  # Certificates to trust.
  #ca_file: /path/to/it
  # Oldest version allowed.
  #min: "1.2"
# How long one claim may hang.
#wait: 30s
]], text)
    local filled = text:gsub("${file:[^}]+}", "sesame-open"):gsub("#(%l)", "%1")
    local value, marks = yaml.decode(filled)
    value.protocol = nil
    marks[value].keys.protocol = nil
    local conf, problems = schema.check(acme, value, marks)
    assert.truthy(conf, tostring(problems[1]))
  end)

  it("is complete, or schema.verify says what is missing", function()
    assert.same({}, schema.verify(acme))
    assert.same({
      "a: has no doc",
      'b: its default does not pass: expected a whole number, got "x"',
      "c: unknown type strnig",
      "d: unknown attribute defualt",
      "e: an enum needs values",
      "f.g: has no doc",
      "h: is required and has a default; it can only be one of them",
      "i: is not a field; write { \"type\", doc = ... }",
    }, schema.verify {
      a = { "string" }, b = { "integer", default = "x", doc = "B." }, c = { "strnig", doc = "C." },
      d = { "string", defualt = 1, doc = "D." }, e = { "enum", doc = "E." },
      f = { "record", doc = "F.", fields = { g = { "string" } } },
      h = { "string", required = true, default = "x", doc = "H." }, i = "string",
    })
  end)
end)
