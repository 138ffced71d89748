local args = require "worker.args"
local err = require "worker.error"
local scratch = require "spec.support.scratch"

local OPTIONS = {
  protocol = { "string", value = "NAME", doc = "..." },
  log_level = { "enum", values = { "debug", "info", "warn" }, doc = "..." },
  timeout = { "duration", short = "t", doc = "..." },
  slots = { "integer", min = 1, doc = "..." },
  plugins = { "list", value = "DIR", doc = "..." },
  env = { "map", doc = "..." },
  once = { "flag", doc = "..." },
  verbose = { "count", short = "v", doc = "..." },
  quiet = { "flag", short = "q", doc = "..." },
  help = { "flag", short = "h", doc = "..." },
}

local function parse(words, settings, options)
  local argv = {}
  for word in words:gmatch("%S+") do argv[#argv + 1] = word end
  return args.parse(argv, options or OPTIONS, settings)
end

-- The mistake that a command line is, as its message (and hint).
local function mistake(words, settings, options)
  local ok, why = pcall(parse, words, settings, options)
  assert.is_false(ok, "nothing was complained about")
  assert.equal("usage", err.kind(why), tostring(why))
  return why.message, why.hint
end

describe("worker.args", function()
  it("takes a command line apart, as its reference says", function()
    local values, words = args.parse({ "--protocol", "local", "--once", "jobs" }, {
      protocol = { "string", value = "NAME", doc = "How the server talks." },
      once = { "flag", doc = "End when there is nothing to do." },
    })
    assert.same({ protocol = "local", once = true }, values)
    assert.same({ "jobs" }, words)
  end)

  it("accepts a value after = and as the next word", function()
    assert.same({ protocol = "a", log_level = "info" }, (parse "--protocol=a --log-level info"))
    assert.same({ protocol = "a=b" }, (parse "--protocol=a=b"))
    assert.same({ protocol = "" }, (parse "--protocol="))
  end)

  it("accepts short options alone, together and with their value", function()
    assert.same({ timeout = 30, quiet = true }, (parse "-t 30s -q"))
    assert.same({ timeout = 90, quiet = true }, (parse "-qt1m30s"))
    assert.same({ verbose = 3 }, (parse "-vv --verbose"))
  end)

  it("switches flags off with --no-x, and the last one counts", function()
    assert.same({ once = false }, (parse "--once --no-once"))
    assert.same({ once = true }, (parse "--once=yes"))
    assert.same({ once = false }, (parse "--once=false"))
  end)

  it("ends options at --", function()
    local values, words = parse "--once -- --protocol x -q --"
    assert.same({ once = true }, values)
    assert.same({ "--protocol", "x", "-q", "--" }, words)
  end)

  it("takes a lone dash for a word", function()
    assert.same({ "-" }, select(2, parse "-"))
  end)

  it("ends options at the first word where a command wants that", function()
    local values, words = parse("--once ls --all -q", { stop_at_word = true })
    assert.same({ once = true }, values)
    assert.same({ "ls", "--all", "-q" }, words)
  end)

  it("collects what may be repeated", function()
    assert.same({ plugins = { "a", "b" } }, (parse "--plugins a --plugins=b"))
    assert.same({ env = { A = "1", B = "2=3" } }, (parse "--env A=1 --env B=2=3"))
    assert.equal('--env: expected NAME=VALUE, got "A"', mistake "--env A")
  end)

  it("suggests the nearest option", function()
    assert.equal("unknown option --protcol (did you mean --protocol?)", mistake "--protcol x")
    assert.equal("unknown option --no-onc (did you mean --no-once?)", mistake "--no-onc")
    assert.equal("unknown option --zzzzzz", mistake "--zzzzzz")
    assert.equal("unknown option -p (did you mean --protocol?)", mistake "-protocol x")
    assert.equal("unknown option -z", mistake "-qz")
  end)

  it("suggests no option that is hidden", function()
    assert.equal("unknown option --secre", mistake("--secre", nil, { secret = { "flag", hidden = true } }))
  end)

  it("says what value is missing", function()
    assert.equal("--protocol needs a value: --protocol NAME", mistake "--protocol")
    local message, hint = mistake "--protocol --once"
    assert.equal("--protocol needs a value: --protocol NAME", message)
    assert.equal("a value that begins with dashes is written --protocol=--once", hint)
  end)

  it("says what was expected of a value, and the nearest one", function()
    assert.equal('--timeout: expected a duration like "30s" or "1h30m", got "soon"', mistake "--timeout soon")
    assert.equal('--log-level: expected one of "debug", "info", "warn", got "debgu" (did you mean "debug"?)',
      mistake "--log-level debgu")
    assert.matches("^%-%-slots: expected at least 1", (mistake "--slots 0"))
    assert.matches("^%-%-slots: expected a whole number", (mistake "--slots 1.5"))
    assert.equal('--once takes no value, got "maybe"', mistake "--once=maybe")
    assert.equal('--verbose takes no value, got "3"', mistake "--verbose=3")
  end)

  it("counts the words", function()
    assert.equal("'c' is one word too many", mistake("a b c", { words = { 0, 2 } }))
    assert.equal("say which", mistake("", { words = { 1, 1, missing = "say which" } }))
  end)

  it("complains about nothing when help is asked for", function()
    assert.is_true(parse("--bogus --help a b", { words = { 0, 0 } }).help)
    assert.is_true(parse("--timeout soon -h").help)
  end)

  it("does not take -h for help behind -- or inside a value", function()
    assert.is_nil(parse("-- -h").help)
    assert.is_nil(parse("--protocol=-h").help)
    assert.is_nil(parse("--protocol -h").help)
  end)

  it("takes from the environment what was not typed", function()
    local options = { home = { "path", env = "HOME" }, none = { "string", env = "NO_SUCH_VARIABLE" } }
    assert.same({ home = os.getenv "HOME" }, (args.parse({}, options)))
    assert.same({ home = "/x" }, (args.parse({ "--home=/x" }, options)))
  end)

  it("says which variable is wrong", function()
    assert.matches("^HOME: expected a whole number", (mistake("", nil, { n = { "integer", env = "HOME" } })))
  end)
end)

describe("the command line of a server", function()
  local RUN = { help = { "flag", short = "h" }, plugins = { "list" } }
  local ACME = [[
    return { kind = "protocol", name = "acme", api = 1, open = function() end, claim = function() end,
      config = {
        url = { "url", required = true, doc = "Where." },
        queue_name = { "string", doc = "Which." },
        eager = { "boolean", default = false, doc = "Whether." },
        labels = { "list", of = "string", doc = "What." },
        slots = { "integer", doc = "Taken by the worker's own." },
        help = { "integer", doc = "Taken by every command." },
        retry = { "record", doc = "How.", fields = { first = { "duration", doc = "When." } } },
      } } ]]
  local RUNNER = [[
    return { kind = "executor", name = "runner", api = 1, run = function() end,
      config = {
        shell = { "path", doc = "With what." }, patience = { "duration", doc = "How long." },
        url = { "url", doc = "Taken by the protocol." },
      } } ]]
  local dir

  local function for_run(...) return args.for_run({ ... }, RUN) end

  local function told(...)
    local ok, why = pcall(for_run, ...)
    assert.is_false(ok, "nothing was complained about")
    return tostring(why), why
  end

  before_each(function()
    dir = scratch.dir()
    dir:write("plugins/protocols/acme.lua", ACME)
    dir:write("plugins/protocols/broken.lua", "return {")
    dir:write("plugins/executors/runner.lua", RUNNER)
  end)

  after_each(function() getmetatable(dir).__close(dir) end)

  it("has the fields of the named protocol as options", function()
    local values, dirs, registry = for_run("--protocol", "acme", "--url", "http://x.example",
      "--queue-name=q", "--eager", "--labels", "a,b", "--labels", "c", "--retry-first", "5s", dir:path "plugins")
    assert.same({ protocol = "acme", url = "http://x.example", ["queue-name"] = "q", eager = "true",
      labels = "a,b,c", ["retry-first"] = "5s" }, values.protocol_flags)
    assert.same({ dir:path "plugins" }, dirs)
    assert.is_not_nil(registry:get("protocol", "acme"))
  end)

  it("finds the folder wherever it stands, and directories that are values of options", function()
    local values, dirs = for_run(dir:path "plugins", "--protocol", "acme", "--queue-name", dir.root)
    assert.equal(dir.root, values.protocol_flags["queue-name"])
    assert.same({ dir:path "plugins" }, dirs)
  end)

  it("has the worker's own settings as options, which win over a field of the same name", function()
    local values = for_run("--protocol", "acme", "--slots", "4", "--shutdown-timeout", "1m", dir:path "plugins")
    assert.equal("4", values.protocol_flags.slots)
    assert.equal("1m", values.protocol_flags["shutdown-timeout"])
    assert.matches("unknown option %-%-acme%-slots", (told("--protocol", "acme", "--acme-slots=5", dir:path "plugins")))
  end)

  it("puts the plugin's name before an option that a command has for something else", function()
    local values = for_run("--protocol", "acme", "--acme-help", "3", dir:path "plugins")
    assert.is_nil(values.help)
    assert.equal("3", values.protocol_flags.help)
  end)

  it("puts the fields of the executor where the configuration has them", function()
    local values = for_run("--protocol", "acme", "--executor", "runner", "--shell", "/bin/bash",
      "--patience", "90s", "--runner-url", "http://y.example", dir:path "plugins")
    local fields = require("worker.json").decode(values.protocol_flags.executor).runner
    assert.same({ shell = "/bin/bash", patience = 90, url = "http://y.example" }, fields)
    assert.matches("^%-%-patience: expected a duration", (told("--protocol", "acme", "--executor", "runner",
      "--patience", "x", dir:path "plugins")))
  end)

  it("suggests the fields, too", function()
    assert.equal("unknown option --quue-name (did you mean --queue-name?)",
      (told("--protocol", "acme", "--quue-name", "x", dir:path "plugins")))
  end)

  it("knows whose option it is when no protocol was named", function()
    local message, why = told("--queue-name", "q", dir:path "plugins")
    assert.equal("unknown option --queue-name", message)
    assert.equal("--queue-name belongs to the protocol 'acme': add --protocol acme", why.hint)
  end)

  it("tells a protocol that is not there from one that is broken", function()
    local message, why = told("--protocol", "acne", dir:path "plugins")
    assert.matches("did you mean 'acme'", message)
    assert.equal("usage", why.kind)
    message, why = told("--protocol", "broken", dir:path "plugins")
    assert.matches("broken.lua:1:", message)
    assert.equal("config", why.kind)
  end)

  it("refuses a folder that is not there", function()
    assert.equal("there is no directory 'no/such' to read plugins from",
      (told("--protocol", "acme", dir:path "plugins", "no/such")))
  end)

  it("knows the folders and the one server of the configuration file", function()
    local file = dir:write("worker.yaml", "plugins: [ plugins ]\nservers:\n  - protocol: acme\n")
    local values = for_run("--config", file, "--queue-name", "q")
    assert.same({ ["queue-name"] = "q" }, values.protocol_flags)
  end)

  it("becomes what the configuration takes", function()
    local values, dirs = for_run("--protocol", "acme", "--url", "http://x.example", "--retry-first", "5s",
      "--acme-help=5", "--executor", "runner", "--patience", "90s", dir:path "plugins")
    local options = args.to_config(values, dirs)
    options.env, options.etc = {}, dir:path "etc"
    local conf, problems = require("worker.config").load(options)
    assert.same({}, problems)
    assert.equal("http://x.example", conf.servers[1].conf.url)
    assert.equal(5, conf.servers[1].conf.retry.first)
    assert.equal(5, conf.servers[1].conf.help)
    assert.equal(90, conf.servers[1].executor.conf.patience)
  end)
end)
