-- The command line from outside: the binary as a child, as a person or a script would run it.
local args = require "worker.args"
local commands = require "worker.commands"
local fs = require "worker.fs"
local json = require "worker.json"
local process = require "worker.process"
local scratch = require "spec.support.scratch"
local sys = require "worker.core.sys"

local BINARY = fs.readlink "/proc/self/exe"
local LUA = sys.env "WORKER_LUA"

describe("the command line", function()
  local dir

  before_each(function() dir = scratch.dir() end)
  after_each(function() getmetatable(dir).__close(dir) end)

  -- Runs a program in the scratch directory: exit code, stdout, stderr.
  local function program(argv, env)
    local child <close> = process.spawn { argv = argv, cwd = dir.root, env = env }
    local output = { stdout = "", stderr = "" }
    for stream, text in child:output() do output[stream] = output[stream] .. text end
    return child:wait().exit_code, output.stdout, output.stderr
  end

  local function environment(more)
    local env = { PATH = sys.env "PATH", HOME = dir.root, WORKER_LUA = LUA and fs.realpath(LUA) }
    for name, value in pairs(more or {}) do env[name] = value end
    return env
  end

  local function worker(...)
    return program({ BINARY, ... }, environment())
  end

  -- A person's mistake: its exit code, and what stderr says, which is never a traceback.
  local function mistake(code, ...)
    local got, out, told = worker(...)
    assert.equal(code, got, told)
    assert.equal("", out)
    assert.is_nil(told:find("traceback", 1, true), told)
    assert.is_nil(told:find("%.lua:%d+: in "), told)
    return told
  end

  local function plugin(kind, name, rest)
    local folder = ({ protocol = "protocols", executor = "executors", policy = "policies" })[kind]
    local slots = ({ protocol = "open = print, claim = print", executor = "run = print", policy = "run = print" })[kind]
    return dir:write(("plugins/%s/%s.lua"):format(folder, name),
      ("-- The %s %s, for specs.\nreturn { kind = %q, name = %q, api = 1, %s, %s }\n"):format(kind, name, kind, name,
        slots, rest or ""))
  end

  -- Every policy that stands around jobs by default, so that a configuration is complete.
  local function all_plugins()
    plugin("protocol", "fake", 'config = { place = { "path", required = true, doc = "Where jobs are." },'
      .. ' token = { "secret", doc = "Lets us in." } }')
    plugin("executor", "shell")
    for _, name in ipairs { "backoff", "drain", "limits", "timeout", "workspace", "mask", "retry" } do
      plugin("policy", name, "claim = print, finish = print")
    end
  end

  describe("help", function()
    it("is printed to stdout for worker --help, worker -h and worker help", function()
      local code, help = worker "--help"
      assert.equal(0, code)
      assert.matches("Usage: worker %[%-%-protocol NAME%]", help)
      assert.same({ 0, help, "" }, { worker "-h" })
      assert.same({ 0, help, "" }, { worker "help" })
    end)

    it("names every command with its summary", function()
      local _, help = worker "--help"
      for _, name in ipairs(commands.names()) do
        assert.matches("\n  " .. name .. " +%S", help)
      end
    end)

    it("of each command tells all its options and shows examples that parse", function()
      for _, name in ipairs(commands.names()) do
        local command = commands.get(name)
        local code, help = worker(name, "--help")
        assert.equal(0, code)
        assert.same({ 0, help, "" }, { worker("help", name) })
        assert.is_true(help:find("Usage: worker " .. name, 1, true) ~= nil)
        assert.is_true(help:find(command.summary, 1, true) ~= nil)
        for key, option in pairs(commands.with_globals(command.options)) do
          local long = args.long(key, option):gsub("^%-%-", "")
          local told = help:find("--" .. long, 1, true) or help:find("--[no-]" .. long, 1, true)
          assert.equal(not option.hidden, told ~= nil, name .. " --" .. long)
          assert.is_truthy(option.doc and option.doc:find("%.$"), ("%s --%s: a sentence"):format(name, long))
        end
      end
    end)

    -- Whether some command or plugin has the option; those of plugins come and go with the plugins.
    local function is_option(name, word)
      local long = word:match("^%-%-[%w-]+")
      for key, option in pairs(commands.options_of(name)) do
        local own = args.long(key, option)
        if long == own or long == own:gsub("^%-%-", "--no-") then return true end
      end
      local registry = require("worker.registry").open { "plugins" }
      for _, entry in ipairs(registry:all()) do
        for field in pairs(entry.plugin and entry.plugin.config or {}) do
          if long == args.long(field) then return true end
        end
      end
      return false
    end

    -- The options of `worker` in a line of a shell, up to what belongs to somebody else.
    local function check_line(line)
      local rest = line:match("^%s*%$?%s*[%w_./=]*worker%s(.*)$") or line:match("^%s*worker$") and ""
      if not rest then return end
      local words = {}
      for word in rest:gsub("%s%-%-%s.*", ""):gsub("[|#>&;].*", ""):gmatch("%S+") do words[#words + 1] = word end
      local name = commands.exists(words[1] or "") and words[1] or "run"
      for _, word in ipairs(words) do
        if word:find("^%-%-%w") then assert.is_true(is_option(name, word), line) end
      end
      return true
    end

    it("agrees with the examples of all commands", function()
      for _, name in ipairs(commands.names()) do
        for _, example in ipairs(commands.get(name).examples or {}) do
          if example[1]:find("^worker ") then assert.is_true(check_line(example[1]), example[1]) end
        end
      end
    end)

    it("agrees with the README", function()
      local readme = fs.read "README.md"
      if not readme then return pending "there is no README.md here" end
      local lines = 0
      for block in readme:gmatch("\n```%w*\n(.-)\n```") do
        for line in block:gmatch("[^\n]+") do
          if check_line((line:gsub("^%s*%$?%s*build/worker", "worker"))) then lines = lines + 1 end
        end
      end
      assert.is_true(lines > 0, "the README shows no command")
    end)

    it("keeps lines readable", function()
      for _, name in ipairs(commands.names()) do
        local _, help = worker(name, "--help")
        for line in help:gmatch("[^\n]+") do
          assert.is_true(#line <= 80 or not line:find("^  %s*%-") , line)
        end
      end
    end)

    it("has the fields of the named protocol", function()
      all_plugins()
      local code, help = worker("run", "--protocol", "fake", "--help", "plugins")
      assert.equal(0, code)
      assert.matches("Options of 'fake':.*%-%-place PATH +Where jobs are%. Required%.", help)
    end)

    it("tells exit codes and signals", function()
      assert.matches("78  the configuration is wrong", select(2, worker("help", "exit-codes")))
      assert.matches("HUP ", select(2, worker("help", "signals")))
    end)
  end)

  describe("a mistake", function()
    it("in an option is answered with the nearest one and exit code 64", function()
      assert.equal("worker: unknown option --protcol (did you mean --protocol?)\nTry: worker run --help\n",
        mistake(64, "--protcol", "local"))
      assert.equal("worker: unknown option --filtr (did you mean --filter?)\nTry: worker spec --help\n",
        mistake(64, "spec", "--filtr=x"))
    end)

    it("in a command, too", function()
      assert.matches("there is no command or directory 'chekc' %(did you mean 'check'%?%)", mistake(64, "chekc"))
      assert.matches("there is no command 'explan' %(did you mean 'explain'%?%)", mistake(64, "help", "explan"))
    end)

    it("in a value says what was expected", function()
      assert.matches('%-%-log%-level: expected one of "debug", "info", "warn", "error", got "loud"',
        mistake(64, "check", "--log-level", "loud"))
      assert.matches("%-%-config needs a value: %-%-config FILE", mistake(64, "check", "--config"))
    end)

    it("in the number of words is said, not passed over", function()
      assert.matches("'x' is one word too many", mistake(64, "version", "x"))
      assert.matches("say what to write", mistake(64, "new", "protocol"))
    end)

    it("in the environment names the variable", function()
      local code, _, told = program({ BINARY, "version" }, environment { WORKER_LOG_LEVEL = "loud" })
      assert.equal(64, code)
      assert.matches("WORKER_LOG_LEVEL: expected one of", told)
    end)
  end)

  describe("options of every command", function()
    it("may stand before the command and behind it", function()
      local _, version = worker "version"
      assert.same({ 0, version, "" }, { worker("--log-level", "debug", "version") })
      assert.same({ 0, version, "" }, { worker("version", "--no-color", "-v") })
      assert.same({ 0, version, "" }, { worker "--version" })
      assert.same({ 0, version, "" }, { worker "-V" })
    end)

    it("colour only when that is wanted", function()
      plugin("executor", "one")
      assert.is_nil(select(2, worker "plugins"):find("\27", 1, true))
      assert.is_truthy(select(2, worker("plugins", "--color")):find("\27[1m", 1, true))
    end)
  end)

  it("says when its output cannot be written, and is not troubled by a reader that left", function()
    local code, _, told = program({ "/bin/sh", "-c", '"$0" help >/dev/full', BINARY }, environment())
    assert.equal(74, code)
    assert.matches("the output cannot be written: No space left", told)
    local ended, out, silent = program({ "/bin/bash", "-c", 'set -o pipefail; "$0" help | true', BINARY }, environment())
    assert.same({ 0, "", "" }, { ended, out, silent })
  end)

  it("tells its version for programs", function()
    local code, out = worker("version", "--json")
    assert.equal(0, code)
    assert.equal(sys.version(), json.decode(out).version)
  end)

  describe("plugins", function()
    it("are listed with what they do, and the broken ones with what is wrong and where", function()
      plugin("protocol", "fine")
      local path = dir:write("plugins/policies/bad.lua", "return {\n  kind = = 1\n}\n")
      local code, out = worker "plugins"
      assert.equal(0, code)
      assert.matches("protocol +fine +The protocol fine, for specs", out)
      assert.matches("policy +bad +broken: plugins/policies/bad.lua:2:", out:gsub("\n *", " "):gsub("%s+", " "))
      assert.matches("1 of %d+ plugins cannot be used", out)
      assert.is_truthy(path)
    end)

    it("are listed for programs", function()
      plugin("protocol", "fine")
      local _, out = worker("plugins", "--json", "fine")
      local list = json.decode(out)
      assert.equal("protocol", list[1].kind)
      assert.equal("plugins/protocols/fine.lua", list[1].path)
      assert.same({ "open", "claim" }, list[1].slots)
    end)

    it("are found in folders that are named, and the later one wins", function()
      dir:write("more/executors/shell.lua", "return { kind = 'executor', name = 'shell', api = 1, run = print }")
      plugin("executor", "shell")
      assert.matches("file +more/executors/shell.lua", select(2, worker("plugins", "--plugins", "more", "shell")))
    end)

    it("are suggested when a name is nearly right", function()
      plugin("protocol", "fine")
      assert.matches("there is no plugin 'fien' %(did you mean 'fine'%?%)", mistake(64, "plugins", "fien"))
      assert.matches("there is no plugin 'fien' .*did you mean 'fine'%?", mistake(64, "explain", "fien"))
    end)

    it("are explained as tools, with their container and a task to copy", function()
      local code, out = worker("explain", "--plugins", fs.realpath "plugins", "tool/grep")
      assert.equal(0, code)
      assert.matches("\n  pattern +string, required", out)
      assert.matches("\n  image +alpine:3.19\n  limits +0.2 processors, 128MiB memory, 20 processes, 1m\n", out)
      assert.matches("\n  tasks +grep, search, search_files\n", out)
      local _, sample = worker("explain", "--plugins", fs.realpath "plugins", "tool/grep", "--sample")
      assert.same({ tool = "grep", parameters = { pattern = "TODO" } }, json.decode(sample))
    end)

    it("are explained from their own table, with YAML that the configuration accepts", function()
      all_plugins()
      local code, out = worker("explain", "fake")
      assert.equal(0, code)
      assert.matches("place +path, required\n +Where jobs are%.", out)
      local _, sample = worker("explain", "protocol/fake", "--sample")
      dir:write("worker.yaml", sample)
      local checked, _, told = worker("check", "--config", "worker.yaml")
      assert.equal(0, checked, told)
    end)

    it("of the same name and different kinds are told apart", function()
      plugin("protocol", "twin")
      plugin("executor", "twin")
      assert.matches("say protocol/twin or executor/twin", mistake(64, "explain", "twin"))
      assert.equal(0, (worker("explain", "executors/twin")))
    end)
  end)

  describe("check", function()
    it("is content with a good configuration and tells what it is", function()
      all_plugins()
      dir:write("worker.yaml", "servers:\n  - protocol: fake\n    place: jobs\n    slots: 3\n")
      local code, out, told = worker("check", "--config", "worker.yaml")
      assert.equal(0, code, told)
      assert.matches("fake +fake +3 +shell", out)
      assert.matches("around run +tee, drain, limits, timeout, again, workspace, env, mask", out)
    end)

    it("says where in the file a mistake is, and exits with 78", function()
      all_plugins()
      local cases = {
        { "servers:\n  - protocol: fake\n    place: x\n    slotz: 3\n", 'worker.yaml:4:5: .*did you mean "slots"' },
        { "servers:\n  - protocol: fake\n    place: jobs\n    slots: many\n", "worker.yaml:4:12: .*a whole number" },
        { "servers:\n  - protocol: fake\n", "worker.yaml:2:%d+: .*place: is required" },
        { "servers: [\n", "worker.yaml:%d+:%d+: " },
        { "servers:\n  - protocol: fak\n    place: x\n", "worker.yaml:2:15: .*did you mean 'fake'" },
      }
      for _, case in ipairs(cases) do
        dir:write("worker.yaml", case[1])
        assert.matches(case[2], mistake(78, "check", "--config", "worker.yaml"))
      end
      assert.matches("none.yaml: No such file or directory %(given by %-%-config%)",
        mistake(78, "check", "--config", "none.yaml"))
    end)

    it("takes the options of a server, and names them in its complaints", function()
      all_plugins()
      assert.equal(0, (worker("check", "--protocol", "fake", "--place", "jobs", "plugins")))
      assert.matches("%-%-slots: expected a whole number", mistake(78, "check", "--protocol", "fake", "--place", "jobs",
        "--slots", "many"))
    end)

    it("finds broken plugins though nobody names them", function()
      all_plugins()
      dir:write("plugins/policies/bad.lua", "x = 1\n")
      assert.matches("plugins/policies/bad.lua:1: a plugin must not set the global 'x'",
        mistake(78, "check", "--protocol", "fake", "--place", "jobs"))
    end)

    it("holds plugins to their contract, for their authors", function()
      plugin("protocol", "fine")
      assert.equal(0, (worker("check", "--plugins", "plugins")))
      plugin("protocol", "poor", 'config = { n = { "integer", default = "x", doc = "N." } }')
      assert.matches("poor.lua: config: n: its default does not pass", mistake(78, "check", "--plugins", "plugins"))
      assert.matches("no plugins in empty", mistake(78, "check", "--plugins", "empty"))
    end)

    it("tells programs", function()
      all_plugins()
      local code, out = worker("check", "--json", "--protocol", "fake")
      assert.equal(78, code)
      local result = json.decode(out)
      assert.is_false(result.ok)
      assert.matches("place: is required", result.problems[1])
    end)
  end)

  describe("config", function()
    it("shows each value with where it is from, and no secret", function()
      all_plugins()
      dir:write("worker.yaml", "servers:\n  - protocol: fake\n    place: jobs\n    token: very-secret-indeed\n")
      fs.chmod(dir:path "worker.yaml", tonumber("600", 8))
      local code, out, told = worker("config", "show", "--config", "worker.yaml", "--slots", "3")
      assert.equal(0, code, told)
      assert.matches("slots: 3 +# flag %-%-slots", out)
      assert.matches("token: %*%*%* +# worker.yaml:4:%d+", out)
      assert.is_nil(out:find("very-secret", 1, true))
    end)

    it("prints a sample that can be checked", function()
      all_plugins()
      local code, sample = worker("config", "sample")
      assert.equal(0, code)
      dir:write("worker.yaml", sample)
      local checked, _, told = worker("config", "check", "--config", "worker.yaml")
      assert.equal(0, checked, told)
    end)

    it("has verbs", function()
      assert.matches("did you mean 'show'%?", mistake(64, "config", "shwo"))
      assert.matches("say what to do", mistake(64, "config"))
      assert.equal(0, (worker("config", "--help")))
    end)
  end)

  describe("doctor", function()
    it("tells what this host can do and what can be done", function()
      local code, out, told = worker "doctor"
      assert.equal(0, code, out)
      assert.equal("", told)
      assert.matches("\n  ok +kernel version +Linux ", out)
      assert.matches("A worker can run here", out)
    end)

    it("tells programs the same", function()
      local _, out = worker("doctor", "--json")
      local result = json.decode(out)
      assert.is_true(result.ok)
      assert.is_true(#result.facts > 10)
      assert.same({ "string", "string", "string" },
        { type(result.facts[1].name), type(result.facts[1].state), type(result.facts[1].detail) })
    end)

    it("fails when jobs would have no place to be", function()
      local code, out = worker("doctor", "--workspace", "/no/such/place")
      assert.equal(1, code)
      assert.matches("MISSING +workspaces +/no/such/place", out)
      assert.matches("No worker can run here before this is mended: workspaces", out)
      local same, json_out = worker("doctor", "--json", "--workspace", "/no/such/place")
      assert.equal(1, same)
      assert.is_false(json.decode(json_out).ok)
    end)
  end)

  describe("new", function()
    for _, kind in ipairs { "protocol", "executor", "policy", "tool", "sink" } do
      it("writes a " .. kind .. " whose spec passes as it is #realtime", function()
        local code, out = worker("new", kind, "my-own")
        assert.equal(0, code)
        assert.matches("worker spec spec/plugins/my%-own_spec.lua", out)
        local passed, report, told = worker("spec", "spec/plugins/my-own_spec.lua")
        assert.equal(0, passed, report .. told)
        assert.matches("%d passed, 0 failed, 0 skipped", report)
        assert.equal(0, (worker("check", "--plugins", "plugins")))
      end)
    end

    it("writes plugins that are short", function()
      worker("new", "protocol", "acme")
      local _, lines = dir:read("plugins/protocols/acme.lua"):gsub("\n", "")
      assert.is_true(lines < 80)
    end)

    it("writes into another folder", function()
      assert.equal(0, (worker("new", "policy", "calm", "elsewhere")))
      assert.is_truthy(dir:read "elsewhere/plugins/policies/calm.lua")
    end)

    it("overwrites nothing", function()
      worker("new", "policy", "calm")
      local before = dir:read "plugins/policies/calm.lua"
      fs.remove(dir:path "spec/plugins/calm_spec.lua")
      assert.matches("plugins/policies/calm.lua is there already", mistake(64, "new", "policy", "calm"))
      assert.equal(before, dir:read "plugins/policies/calm.lua")
      assert.is_nil(dir:read "spec/plugins/calm_spec.lua")
    end)

    it("refuses what cannot be the name of a plugin", function()
      for _, name in ipairs { "Acme", "../x", "a b", "7up", "a.b" } do
        assert.matches("cannot be the name of a plugin", mistake(64, "new", "policy", name))
      end
      assert.matches("did you mean 'policy'", mistake(64, "new", "polcy", "x"))
    end)

    it("tells where it could not write", function()
      dir:write("plugins", "a file")
      assert.matches("plugins", mistake(74, "new", "policy", "calm"))
    end)
  end)

  describe("spec", function()
    it("says when there is nothing of the name that was given", function()
      for _, name in ipairs { "nofile", "no/file_spec.lua" } do
        assert.equal(("worker: there is no file or folder '%s'\nTry: worker spec --help\n"):format(name),
          mistake(64, "spec", name))
      end
      assert.matches("there is no folder spec/ here", mistake(64, "spec"))
    end)
  end)

  describe("completion", function()
    local function bash(...)
      local script = "source <(%q completion bash); COMP_WORDS=(%s); COMP_CWORD=%d; _worker; echo ${COMPREPLY[*]}"
      local words = { ... }
      for i, word in ipairs(words) do words[i] = ("'%s'"):format(word) end
      local code, out, told = program({ "/bin/bash", "-c", script:format(BINARY, table.concat(words, " "), #words - 1) },
        environment())
      assert.equal(0, code, told)
      assert.equal("", told)
      return (out:gsub("\n$", ""))
    end

    it("completes commands, options and values in bash", function()
      assert.equal("check", bash("worker", "ch"))
      assert.equal(table.concat(commands.names(), " "), bash("worker", ""))
      assert.equal("--log-format --log-level --log-output", bash("worker", "--log"))
      assert.equal("debug", bash("worker", "check", "--log-level", "de"))
      assert.equal("--filter", bash("worker", "spec", "--fi"))
      assert.equal("sample show", bash("worker", "config", "s"))
      assert.equal("bash", bash("worker", "completion", "b"))
    end)

    it("knows the plugins that are there", function()
      plugin("protocol", "gentle")
      plugin("policy", "gentlest")
      assert.equal("gentle", bash(BINARY, "--protocol", "ge"))
      assert.equal("gentle gentlest", bash(BINARY, "explain", "ge"))
      assert.equal("file_edit file_read file_write find", bash(BINARY, "tool", "fi"))
    end)

    it("knows every option of every command", function()
      local asked, script = {}, { ("source <(%q completion bash)"):format(BINARY),
        "ask() { COMP_WORDS=(worker $1 $2) COMP_CWORD=2; _worker; echo ${COMPREPLY[*]}; }" }
      for _, name in ipairs(commands.names()) do
        for key, option in pairs(commands.with_globals(commands.get(name).options)) do
          if not option.hidden then
            asked[#asked + 1] = args.long(key, option)
            script[#script + 1] = ("ask %s %s"):format(name, asked[#asked])
          end
        end
      end
      local _, out = program({ "/bin/bash", "-c", table.concat(script, "\n") }, environment())
      local answers = {}
      for line in out:gmatch("([^\n]*)\n") do answers[#answers + 1] = " " .. line .. " " end
      assert.equal(#asked, #answers)
      for i, long in ipairs(asked) do assert.is_truthy(answers[i]:find(" " .. long .. " ", 1, true), long) end
    end)

    it("is accepted by zsh and fish", function()
      for _, shell in ipairs { "zsh", "fish" } do
        local path = "/usr/bin/" .. shell
        local code, script = worker("completion", shell)
        assert.equal(0, code)
        for _, name in ipairs(commands.names()) do assert.is_truthy(script:find(name, 1, true)) end
        if fs.exists(path) then
          assert.same({ 0, "", "" }, { program({ path, "-n", dir:write("script", script) }, environment()) })
        end
      end
    end)
  end)

  describe("plugins", function()
    local HELLO = [[return { kind = "executor", name = "%s", api = 1,
      run = function(_, _, ctx) ctx.log("stdout", "mine\n") return { state = "success", exit_code = 0 } end }]]

    it("of a folder that nobody named take the place of none", function()
      dir:write("plugins/executors/shell.lua", HELLO:format "shell")
      dir:write("plugins/executors/hello.lua", HELLO:format "hello")
      assert.equal("mine\n", (select(2, worker("exec", "--executor", "hello", "--", "true"))))
      assert.equal("hi\n", (select(2, worker("exec", "--", "echo", "hi"))))
      assert.equal("mine\n", (select(2, worker("exec", "--plugins", "plugins", "--", "echo", "hi"))))
    end)

    it("are found below the prefix that the worker is installed in", function()
      local plugins = dir:path "opt/share/worker/plugins"
      dir:write("opt/share/worker/plugins/executors/hello.lua", HELLO:format "hello")
      fs.mkdir(dir:path "opt/bin")
      assert.equal(0, (program({ "cp", BINARY, dir:path "opt/bin/worker" }, environment())))
      assert.equal(0, (program({ "cp", "-r", fs.realpath "plugins/policies", plugins }, environment())))
      local installed = { dir:path "opt/bin/worker", "exec", "--executor", "hello", "--", "true" }
      local code, out = program(installed, environment())
      assert.same({ 0, "mine\n" }, { code, out })
    end)
  end)
end)
