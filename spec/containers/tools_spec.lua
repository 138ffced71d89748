-- Tools in real containers: a real dockerd, with images of busybox under the names that tools have.
local docker = require "spec.support.docker"
local engine = require "worker.engine"
local fs = require "worker.fs"
local json = require "worker.json"
local markdown = require "spec.support.markdown"
local program = require "spec.support.program"
local scratch = require "spec.support.scratch"
local servers = require "spec.support.server"
local sites = require "spec.support.site"
local task = require "worker.task"
local text = require "worker.text"
local tools = require "worker.tools"

-- curl, as far as tools use it, made of what busybox has.
local CURL = [[#!/bin/sh
for word in "$@"; do
  case $last in --url) url=$word ;; -A) agent=$word ;; esac
  last=$word
done
exec wget -q -O - -U "${agent:-curl}" "$url"
]]

describe("tools #realtime", function()
  local daemon, missing, dir, box

  setup(function()
    daemon, missing = docker.start()
    if not daemon then return end
    daemon:image "alpine:3.19"
    daemon:image("curlimages/curl:8.6.0", { ["bin/curl"] = CURL })
  end)

  teardown(function()
    if daemon then daemon:stop() end
  end)

  local function need(sandbox)
    local why = docker.excuse(daemon, missing, sandbox)
    if why then pending(why) end
    return not why
  end

  local function open(more)
    local options = { workspace = dir.root, network = "host", engine = { host = daemon.host, pull = "never" } }
    for name, value in pairs(more or {}) do options[name] = value end
    return tools.open(options)
  end

  before_each(function()
    dir = scratch.dir()
    box = daemon and open()
  end)

  after_each(function()
    if box then box:close() end
    if daemon then assert.same({}, daemon:containers()) end
    fs.remove_tree(dir.root)
  end)

  it("read, write, edit, search, find and list files", function()
    if not need() then return end
    local strange = "a $(id) `id` 'q' \"d\"\n-e.txt"
    assert.equal("", box:file_write { path = "new/deep/" .. strange, content = "one\nTODO: $x & /y/\ntwo" })
    assert.equal("one\nTODO: $x & /y/\ntwo", dir:read("new/deep/" .. strange))
    assert.equal("one\nTODO: $x & /y/\ntwo", box:file_read { path = "new/deep/" .. strange })
    box:file_edit { path = "new/deep/" .. strange, search = "$x & /y/", replace = "\\1 & /z/\n\"third\"" }
    assert.equal("one\nTODO: \\1 & /z/\n\"third\"\ntwo", dir:read("new/deep/" .. strange))
    box:file_edit { path = "new/deep/" .. strange, search = "third\"\ntwo", replace = "three" }
    assert.equal("one\nTODO: \\1 & /z/\n\"three", dir:read("new/deep/" .. strange))
    box:file_edit { path = "new/deep/" .. strange, search = "one" }
    assert.equal("TODO: \\1 & /z/\n\"three", dir:read("new/deep/" .. strange))
    dir:write("src/a.go", "x\nfunc TODO()\n")
    assert.equal("/workspace/src/a.go:2:func TODO()\n", box:grep { pattern = "TODO", path = "src" })
    assert.equal("", box:grep { pattern = "nothing like it" })
    dir:write("-v", "-r\n$(id)\n")
    assert.equal("1:-r\n", box:grep { pattern = "-r", path = "-v" })
    assert.equal("2:$(id)\n", box:grep { pattern = "$(id)", path = "-v" })
    assert.equal("-r\n$(id)\n", box:file_read { path = "-v" })
    assert.equal("/workspace/-v\n", box:find { name = "-v" })
    assert.equal("/workspace/src/a.go\n", box:find { name = "*.go", type = "f" })
    assert.matches("%srw.* src\n", (box:list {}:gsub("d(rw)", " %1")))
    assert.matches("/workspace/new:\n.*/workspace/src:\n", box:list { recursive = true })
  end)

  it("ask servers of the web", function()
    if not need() then return end
    local fake <close> = servers.http {
      ["GET /page"] = servers.text(200, "hello\n"), ["GET /find"] = servers.text(200, "found\n"),
    }
    assert.equal("hello\n", box:fetch_url { url = fake.url .. "/page" })
    assert.equal("found\n", box:web_search { url = fake.url .. "/find?q=x" })
    local words <close> = open { search_url = fake.url .. "/find?q={query}" }
    assert.equal("found\n", words:web_search { query = "a&b c" })
    assert.equal("a&b c", fake.requests[3].query.q)
    assert.equal("Mozilla/5.0", fake.requests[3].headers["user-agent"])
  end)

  it("have no network but those that need one, no rights, and nothing to write to but their workspace", function()
    if not need() then return end
    dir:write("own.txt", "mine")
    fs.chown(dir.root, 1234, 1234)
    local said = box:execute { tool = "command", parameters = { command = [[
      id -u; ls /sys/class/net; grep CapEff /proc/self/status
      touch /x || echo root is closed; touch /workspace/mine && echo workspace is open]] } }
    assert.equal("1234\nlo\nCapEff:\t0000000000000000\nroot is closed\nworkspace is open\n", said.stdout)
    assert.equal(1234, fs.stat(dir:path "mine").uid)
    local read = box:execute { tool = "file_read", parameters = { path = "own.txt" }, environment = { A = "1" } }
    assert.same({ "success", "mine", 0 }, { read.state, read.stdout, read.exit_code })
  end)

  it("that fail say what the program said", function()
    if not need() then return end
    local ok, why = task.try(box.file_read, box, { path = "gone.txt" })
    assert.is_false(ok)
    assert.equal("tool", why.kind)
    assert.matches("file_read: cat: can't open '/workspace/gone.txt': No such file", why.message, 1, true)
    assert.equal("failed", why.result.state)
    local refused = box:execute { tool = "command", parameters = { command = "echo so; exit 7" } }
    assert.same({ "failed", 7, "so\n" }, { refused.state, refused.exit_code, refused.stdout })
    dir:write("x", "x")
    local broken = box:execute { tool = "grep", parameters = { pattern = "\\(", path = "x" } }
    assert.equal("failed", broken.state)
  end)

  it("end when their time is up or they are cancelled, and leave no container", function()
    if not need() then return end
    local slow = { tool = "command", parameters = { command = "echo began; sleep 600" } }
    local late = box:execute { tool = "command", parameters = slow.parameters, timeout = "8s" }
    assert.same({ "timeout", "began\n" }, { late.state, late.stdout })
    local id = box:start(slow)
    task.sleep(1)
    assert.equal("running", box:status(id).state)
    assert.same({ id }, box:running())
    assert.is_true(box:cancel(id))
    assert.same({}, daemon:containers())
    assert.equal("cancelled", box:status(id).state)
    assert.equal("cancelled", box:wait(id).state)
    assert.is_false((pcall(box.status, box, id)))
    local whole = task.start(box.execute, box, slow)
    task.sleep(1)
    whole:cancel()
    whole:join()
    assert.same({}, box:running())
  end)

  it("are ended when they have used up the processor time that their task gives them", function()
    if not need() then return end
    local busy = box:execute { tool = "command", parameters = { command = "while :; do :; done" },
      constraints = { max_cpu_ns = 1000000000 } }
    assert.same({ "failed", "SIGKILL" }, { busy.state, busy.signal })
  end)

  it("obey a policy: what breaks a rule gets no container, what is mended is", function()
    if not need() then return end
    dir:write("own.txt", "mine")
    local rules = "mounts: { allow_bind_mounts: %s, allow_tmpfs: true, mount_allowlist: [ { path: '%s' } ] }\n"
      .. "security: { allow_root: true }\n"
    local closed <close> = open { policy = dir:write("closed.yaml", rules:format("false", dir.root)) }
    local ok, why = task.try(closed.file_read, closed, { path = "own.txt" })
    assert.is_false(ok)
    assert.same({ "refused", "PERMISSION", { "mount.bind.disabled" } }, { why.kind, why.code, why.rules })
    local listed <close> = open { policy = dir:write("listed.yaml", rules:format("true", dir.root)) }
    assert.equal("mine", listed:file_read { path = "own.txt" })
    ok, why = task.try(listed.file_write, listed, { path = "own.txt", content = "theirs" })
    assert.is_false(ok)
    assert.matches("Read-only file system", why.message, 1, true)
    assert.equal("mine", dir:read "own.txt")
    ok, why = task.try(listed.fetch_url, listed, { url = "http://127.0.0.1:1/" })
    assert.is_false(ok)
    assert.same({ "network.host.disabled", "network.disabled" }, why.rules)
  end)

  it("and other jobs of a worker are what its policy has made of them", function()
    if not need() then return end
    local site <close> = sites.new()
    site.dir:write("policy.yaml", "id: house\nmode: strict\nquotas: { max_cpus: 250000000, max_pids: 500 }\n"
      .. "mounts: { allow_tmpfs: true }\nimages: { allowed_images: [ 'docker.io/library/*' ] }\n")
    local config = site.dir:write("worker.yaml", ([[
servers:
- { protocol: local, dir: %s, executor: { docker: { host: '%s', pull: never } } }
policies: { run: [ limits, timeout, workspace, env, enforce: { file: policy.yaml } ] }
]]):format(site.root, daemon.host))
    local run <close> = site:start { "--config", config }
    site:drop("runs.json", json.encode { image = "alpine:3.19", script = "sleep 600" })
    site:drop("other.json", json.encode { image = "curlimages/curl:8.6.0", script = "true" })
    local client <close> = engine.open { host = daemon.host }
    local host = program.eventually(function()
      local id = daemon:containers("running")[1]
      return id and client:call("GET", "/containers/" .. id .. "/json").json.HostConfig
    end)
    assert.same({ 250000000, 256, "none", true }, { host.NanoCpus, host.PidsLimit, host.NetworkMode, host.ReadonlyRootfs })
    local refused = site:result "other"
    assert.equal("error", refused.state)
    assert.matches("policy house refuses: image.not_allowed %(docker.io/curlimages/curl:8.6.0%)", refused.reason)
    run:signal "QUIT"
    local ended = run:wait()
    assert.matches("event=policy.decision.-decision=allowed", ended.stderr)
    assert.matches("event=policy.decision.-decision=refused", ended.stderr)
  end)

  it("can be run by hand", function()
    if not need() then return end
    dir:write("own.txt", "mine\n")
    local function run(words)
      words.env = { DOCKER_HOST = daemon.host }
      table.move({ "tool", "--workspace", dir.root, table.unpack(words) }, 1, #words + 3, 1, words)
      local ran = program.run(words)
      return ran.code, ran.stdout, ran.stderr
    end
    assert.same({ 0, "mine\n", "" }, { run { "file_read", "path=own.txt" } })
    assert.equal(0, (run { "file_write", "path=new/copy", "--input", dir:path "own.txt" }))
    assert.equal("mine\n", dir:read "new/copy")
    assert.same({ 7, "so", "why" }, { run { "command", "command=printf so; printf why >&2; exit 7" } })
    local late, _, told = run { "command", "command=sleep 60", "--timeout", "1s" }
    assert.equal(124, late)
    assert.matches("timeout: ran longer than 1s", told)
    local refused, _, why = run { "list", "--policy", dir:write("p.yaml", "mode: strict\n") }
    assert.equal(125, refused)
    assert.matches("policy default refuses: mount.bind.disabled", why)
    local code, out = run { "file_read", "path=own.txt", "--json" }
    assert.equal(0, code)
    assert.equal("mine\n", json.decode(out).stdout)
    local long <close> = program.start { "tool", "--workspace", dir.root, "command", "command=sleep 600",
      env = { DOCKER_HOST = daemon.host } }
    program.eventually(function() return #daemon:containers "running" == 1 end)
    long:signal "INT"
    assert.equal(143, long:wait().code)
  end)

  it("give 4 MB byte for byte", function()
    if not need() then return end
    local random <close> = fs.open(dir:path "random", "w")
    local sha = text.sha256_stream()
    for i = 1, 4000 do
      local piece = text.unhex(text.sha256("piece" .. i):rep(32))
      random:write(piece)
      sha:feed(piece)
    end
    local read = box:file_read { path = "random" }
    assert.equal(4000 * 1024, #read)
    assert.equal(text.hex(sha:finish()), text.sha256(read))
    box:file_write { path = "copy", content = read }
    assert.equal(read, dir:read "copy")
    local narrow <close> = open { output = 1 << 20 }
    local ok, why = task.try(narrow.file_read, narrow, { path = "random" })
    assert.is_false(ok)
    assert.matches("more than 1MiB", why.message)
  end)

  it("run under gVisor as well", function()
    if not need(true) then return end
    dir:write("a.txt", "text")
    local sandboxed <close> = open { sandbox = "runsc" }
    assert.equal("text", sandboxed:file_read { path = "a.txt" })
    assert.equal("", sandboxed:file_write { path = "b.txt", content = "new" })
    assert.equal("new", dir:read "b.txt")
  end)

  it("work as the reference shows", function()
    if not need() then return end
    dir:write("main.go", "package main // TODO\n")
    local shown
    for _, block in ipairs(markdown.read("lua/worker/README.md").blocks) do
      if block.text:find("tools.open", 1, true) then shown = block.text end
    end
    local printed = {}
    shown = shown:gsub('workspace = "/path/to/project"', function()
      return ('workspace = %q, engine = { host = %q, pull = "never" }'):format(dir.root, daemon.host)
    end)
    local env = setmetatable({ tools = tools, print = function(...) printed[#printed + 1] = { ... } end }, { __index = _G })
    assert(load(shown, "=README", "t", env))()
    assert.equal("package main // TODO\n", printed[1][1])
    assert.equal("cancelled", printed[#printed][1])
    assert.equal("rewritten\n", dir:read "notes/today.txt")
  end)
end)
