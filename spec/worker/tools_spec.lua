-- Tasks of an orchestrator as jobs of containers: which tool, which argv, where.
local fs = require "worker.fs"
local scratch = require "spec.support.scratch"
local tools = require "worker.tools"

describe("worker.tools", function()
  local dir, conf

  before_each(function()
    dir = scratch.dir()
    conf = { workspaces = { ["*"] = dir.root } }
  end)
  after_each(function() fs.remove_tree(dir.root) end)

  local function job(task, more)
    task.type = task.type or (not task.tool and "file_operation" or nil)
    return tools.job(task, more or conf)
  end

  local function refused(task, more)
    local ok, why = pcall(job, task, more)
    assert.is_false(ok, "it was taken")
    assert.equal("refused", why.kind)
    return why.message, why.code
  end

  describe("finds the tool of", function()
    -- type, operation, tool
    local CASES = {
      { "FILE_OPERATION", "read", "file_read" }, { "FILE_OPERATION", "file_read", "file_read" },
      { "FILE_OPERATION", "cat", "file_read" }, { "FILE_OPERATION", "read_file", "file_read" },
      { "FILE_OPERATION", "write", "file_write" }, { "FILE_OPERATION", "file_write", "file_write" },
      { "FILE_OPERATION", "tee", "file_write" }, { "FILE_OPERATION", "write_file", "file_write" },
      { "FILE_OPERATION", "edit", "file_edit" }, { "FILE_OPERATION", "file_edit", "file_edit" },
      { "FILE_OPERATION", "sed", "file_edit" }, { "FILE_OPERATION", "grep", "grep" },
      { "FILE_OPERATION", "search", "grep" }, { "FILE_OPERATION", "search_files", "grep" },
      { "FILE_OPERATION", "find", "find" }, { "FILE_OPERATION", "list", "list" },
      { "FILE_OPERATION", "ls", "list" }, { "FILE_OPERATION", "list_files", "list" },
      { "FILE_OPERATION", "web_search", "web_search" }, { "FILE_OPERATION", "web_fetch", "fetch_url" },
      { "NETWORK_REQUEST", "search", "web_search" }, { "NETWORK_REQUEST", "web_search", "web_search" },
      { "NETWORK_REQUEST", "fetch", "fetch_url" }, { "NETWORK_REQUEST", "web_fetch", "fetch_url" },
      { "NETWORK_REQUEST", "get", "fetch_url" }, { "NETWORK_REQUEST", "curl", "fetch_url" },
      { "NETWORK_REQUEST", "fetch_url", "fetch_url" },
      { "TOOL_EXECUTION", "file_read", "file_read" }, { "TOOL_EXECUTION", "read", "file_read" },
      { "TOOL_EXECUTION", "cat", "file_read" }, { "TOOL_EXECUTION", "write", "file_write" },
      { "TOOL_EXECUTION", "tee", "file_write" }, { "TOOL_EXECUTION", "edit", "file_edit" },
      { "TOOL_EXECUTION", "sed", "file_edit" }, { "TOOL_EXECUTION", "search", "grep" },
      { "TOOL_EXECUTION", "find", "find" }, { "TOOL_EXECUTION", "ls", "list" },
      { "TOOL_EXECUTION", "search_web", "web_search" }, { "TOOL_EXECUTION", "fetch", "fetch_url" },
      { "TOOL_EXECUTION", "fetch_url", "fetch_url" },
      { "CODE_EXECUTION", "make", "command" }, { "DATA_PROCESSING", "sort", "command" },
      { "CONTAINER_OPERATION", "true", "command" }, { "CUSTOM", "echo hi", "command" },
    }
    for _, case in ipairs(CASES) do
      it(("%s %s"):format(case[1], case[2]), function()
        assert.equal(case[3], tools.route(case[1], case[2]))
        assert.equal(case[3], tools.route("TASK_TYPE_" .. case[1], case[2]))
      end)
    end

    it("types by their number, too", function()
      assert.equal("file_read", tools.route(2, "read"))
      assert.equal("command", tools.route(7, "true"))
    end)
  end)

  it("refuses what no tool does, and says what there is", function()
    local message, code = refused { operation = "delete_file" }
    assert.matches("no tool does 'delete_file'.*there are .*file_read", message)
    assert.equal("UNIMPLEMENTED", code)
    assert.matches("no tool does 'read'", (refused { type = "network_request", operation = "read" }))
    assert.matches("names no operation", (refused {}))
    for _, unspecified in ipairs { 0, 99, "UNSPECIFIED", "", true } do
      assert.matches("has the type", (refused { type = unspecified, operation = "read" }))
    end
    assert.matches("no tool 'file_raed' %(did you mean 'file_read'", (refused { tool = "file_raed" }))
  end)

  it("takes the operation from the command before parameters", function()
    assert.equal("list", job({ command = "ls", parameters = { operation = "read" } }).tool)
    assert.equal("find", job({ command = "", parameters = { op = "find" } }).tool)
  end)

  describe("makes the argv of", function()
    local CASES = {
      { "file_read", { path = "a.txt" }, { "cat", "/workspace/a.txt" } },
      { "file_read", { file = "/workspace/a.txt" }, { "cat", "/workspace/a.txt" } },
      { "find", { path = "src", name = "*.go", type = "f" },
        { "find", "/workspace/src", "-type", "f", "-name", "*.go" } },
      { "find", { pattern = "-delete" }, { "find", "/workspace", "-name", "-delete" } },
      { "list", {}, { "ls", "-la", "/workspace" } },
      { "list", { recursive = "1" }, { "ls", "-laR", "/workspace" } },
      { "list", { recursive = "false", path = "a" }, { "ls", "-la", "/workspace/a" } },
      { "fetch_url", { url = "http://h/[1-9]{a,b}" }, false },
      { "fetch_url", { url = "http://h/[1-9]" },
        { "curl", "-s", "-S", "-L", "--globoff", "--proto", "=http,https", "--url", "http://h/[1-9]" } },
      { "web_search", { url = "https://h/?q=1" }, { "curl", "-s", "-S", "-L", "--globoff", "--proto", "=http,https", "-A",
        "Mozilla/5.0", "--url", "https://h/?q=1" } },
    }
    for i, case in ipairs(CASES) do
      it(("%s (%d)"):format(case[1], i), function()
        if case[3] then
          assert.same(case[3], job({ tool = case[1], parameters = case[2] }).argv)
        else
          refused { tool = case[1], parameters = case[2] }
        end
      end)
    end

    it("unnamed arguments, without options that the tool has anyway", function()
      local argv = job({ tool = "grep", arguments = { "-r", "TODO", "/workspace/src" } }).argv
      assert.same({ "TODO", "/workspace/src" }, { table.unpack(argv, 5) })
      assert.same({ "cat", "/workspace/main.go" }, job({ operation = "cat", arguments = { "/workspace/main.go" } }).argv)
      assert.same({ "sh", "-c", "echo $1", "sh", "a b" },
        job({ type = "custom", command = "echo $1", arguments = { "a b" } }).argv)
    end)

    it("words for the search engine that is configured", function()
      local with = { search_url = "https://s.example/?q={query}&n=10" }
      local argv = job({ tool = "web_search", parameters = { query = "a b&c%d" } }, with).argv
      assert.equal("https://s.example/?q=a%20b%26c%25d&n=10", argv[#argv])
      assert.matches("search_url", (refused { tool = "web_search", parameters = { query = "a" } }))
      assert.matches("needs a url", (refused { tool = "web_search" }))
    end)
  end)

  it("lets no path, pattern or content be part of a script", function()
    local evil = { "$(touch x)", "`id`", "; id", "a'b\"c", "-e", "--help", "a\nb", "\\", "${HOME}" }
    local scripts = {}
    for _, word in ipairs(evil) do
      local write = job { tool = "file_write", parameters = { path = "d/" .. word, content = word } }
      local grep = job { tool = "grep", parameters = { pattern = word, path = word } }
      assert.equal(word, write.stdin)
      assert.same({ "/workspace/d", "/workspace/d/" .. word }, { table.unpack(write.argv, 5) })
      assert.same({ word, "/workspace/" .. word }, { table.unpack(grep.argv, 5) })
      scripts[write.argv[3]], scripts[grep.argv[3]] = true, true
    end
    local count = 0
    for _ in pairs(scripts) do count = count + 1 end
    assert.equal(2, count)
  end)

  describe("keeps paths in the workspace:", function()
    local function path_of(path, cwd)
      return job({ tool = "file_read", parameters = { path = path }, working_directory = cwd }).argv[2]
    end

    it("as text", function()
      assert.equal("/workspace/b", path_of "a/../b")
      assert.equal("/workspace/etc/passwd", path_of "/etc/passwd")
      assert.equal("/workspace/workspacex", path_of "/workspacex")
      assert.equal("/workspace/-rf", path_of "-rf")
      assert.equal("/workspace/a\nb", path_of "a\nb")
      assert.equal("/workspace", path_of "./.")
      for _, path in ipairs { "..", "../x", "a/../../x", "/../x", "/workspace/../etc/passwd", "/workspace/../workspace/.." } do
        assert.matches("leads out of the workspace", (refused { tool = "file_read", parameters = { path = path } }))
      end
      assert.matches("NUL", (refused { tool = "file_read", parameters = { path = "a\0b" } }))
      assert.matches("longer", (refused { tool = "file_read", parameters = { path = ("x/"):rep(4000) } }))
    end)

    it("where links are", function()
      fs.symlink("/etc", dir:path "out")
      fs.symlink("real", dir:path "in")
      fs.symlink("nowhere", dir:path "dangling")
      fs.mkdir(dir:path "real")
      assert.equal("/workspace/in/new", path_of "in/new")
      for _, path in ipairs { "out", "out/passwd", "out/new/file" } do
        assert.matches("by a symbolic link", (refused { tool = "file_write", parameters = { path = path } }))
      end
      assert.matches("leads nowhere", (refused { tool = "file_write", parameters = { path = "dangling" } }))
      assert.matches("leads nowhere", (refused { tool = "file_write", parameters = { path = "dangling/x" } }))
    end)

    it("whatever a path is made of", function()
      fs.mkdir(dir:path "real/deep", { parents = true })
      for name, target in pairs { out = "/etc", up = "..", dangling = "/no/such", here = ".", deep = "real/deep" } do
        fs.symlink(target, dir:path(name))
      end
      local words = { "..", ".", "", "a", "out", "up", "dangling", "here", "deep", "real", "-rf", "workspace", "...", " ",
        "\n", "~", "$HOME", "passwd", "%2e%2e" }
      local seed, taken = 42, 0
      local function pick(n)
        seed = (seed * 1103515245 + 12345) % (1 << 31)
        return (seed >> 8) % n + 1
      end
      for _ = 1, 3000 do
        local parts = {}
        for i = 1, pick(5) do parts[i] = words[pick(#words)] end
        local path = (pick(3) == 1 and "/" or "") .. table.concat(parts, "/")
        local ok, found = pcall(path_of, path ~= "" and path or ".")
        if ok then
          taken = taken + 1
          local below = assert(found:match "^/workspace(.*)$", found)
          assert.is_nil((below .. "/"):find("/../", 1, true), found)
          local real = fs.realpath(dir.root .. below)
          assert.is_true(real == nil or fs.is_within(real, dir.root), found)
        else
          assert.equal("refused", found.kind)
        end
      end
      assert.is_true(taken > 500 and taken < 3000, taken)
    end)

    it("when the workspace itself is reached by a link", function()
      fs.mkdir(dir:path "real")
      fs.symlink("real", dir:path "link")
      conf = { workspaces = { ["*"] = dir:path "link" } }
      assert.equal("/workspace/x/y", path_of "x/y")
    end)

    it("where the task starts", function()
      fs.mkdir(dir:path "src")
      assert.equal("/workspace/src/a", path_of("a", "src"))
      assert.equal("/workspace/a", path_of("../a", "/workspace/src"))
      assert.equal("/workspace/a", path_of("/a", "src"))
      assert.equal("/workspace/src", job({ tool = "list", working_directory = "src" }).cwd)
      assert.matches("leads out", (refused { tool = "list", working_directory = "../.." }))
      assert.matches("no directory 'gone' in the workspace", (refused { tool = "list", working_directory = "gone" }))
      dir:write("file", "")
      assert.matches("no directory 'file'", (refused { tool = "list", working_directory = "file" }))
    end)
  end)

  describe("edits with a command of sed in which", function()
    local function script_of(search, replace)
      return job({ tool = "file_edit", parameters = { path = "x", search = search, replace = replace } }).argv[4]
    end

    it("nothing of the texts means anything", function()
      assert.equal([[s/a\/b\.c\*\[d\]\^\$\\/x\/\&\\1/g]], script_of([[a/b.c*[d]^$\]], [[x/&\1]]))
    end)

    it("lines go where there is no replacement", function()
      assert.equal([[/a\/b/d]], script_of("a/b", ""))
      assert.equal([[/x/d]], script_of("x"))
    end)

    it("a text of several lines is looked for in the file as one", function()
      assert.equal(":a;$!{N;ba;};s/a\\nb/c\\\nd/g", script_of("a\nb", "c\nd"))
    end)

    it("there is no NUL byte", function()
      assert.matches("search has a NUL", (refused { tool = "file_edit", parameters = { path = "x", search = "a\0" } }))
    end)
  end)

  it("gives a tool its container, and the task less of it", function()
    local one = job { tool = "file_read", id = "7", session_id = "s", parameters = { path = "x" } }
    assert.same({ "7", "alpine:3.19", 30, "/workspace" }, { one.id, one.image, one.timeout, one.cwd })
    assert.same({ cpus = 0.1, memory = 64 << 20, pids = 10 }, one.limits)
    local box = one.container
    assert.same({ { source = dir.root, target = "/workspace", write = false } }, box.mounts)
    assert.same({ "none", true, "KILL" }, { box.network, box.read_only, box.stop_signal })
    assert.same({ ["worker.tool"] = "file_read", ["worker.session"] = "s" }, box.labels)
    local small = job { tool = "grep", parameters = { pattern = "x" }, timeout_ns = 90e9, environment = { A = "1" },
      constraints = { max_memory_bytes = 32 << 20, max_execution_time_ns = 5e9, max_cpu_ns = 1500000000 } }
    assert.same({ 5, 32 << 20, { A = "1" } }, { small.timeout, small.limits.memory, small.env })
    assert.same({ cpu = 2 }, small.container.ulimits)
    assert.equal(128 << 20, job({ tool = "grep", parameters = { pattern = "x" }, constraints = { max_memory_bytes = 1 << 40 } })
      .limits.memory)
    assert.equal(90, job({ tool = "grep", parameters = { pattern = "x" }, timeout_ns = 90000000000 }).timeout)
  end)

  it("has the limits and images of every tool as they are told", function()
    local CONTAINERS = {
      file_read = { "alpine:3.19", 0.1, 64, 10, 30, "read", false },
      file_write = { "alpine:3.19", 0.1, 64, 10, 30, "write", false },
      file_edit = { "alpine:3.19", 0.1, 64, 10, 30, "write", false }, grep = { "alpine:3.19", 0.2, 128, 20, 60, "read", false },
      find = { "alpine:3.19", 0.2, 128, 20, 60, "read", false }, list = { "alpine:3.19", 0.1, 64, 10, 30, "read", false },
      web_search = { "curlimages/curl:8.6.0", 0.2, 128, 10, 30, nil, true },
      fetch_url = { "curlimages/curl:8.6.0", 0.2, 128, 10, 60, nil, true },
    }
    for name, want in pairs(CONTAINERS) do
      local about = tools.about(name)
      assert.same(want, { about.image, about.cpus, about.memory >> 20, about.pids, about.timeout, about.workspace,
        about.network })
    end
  end)

  it("runs as who owns the workspace, or as who is configured", function()
    local stat = fs.stat(dir.root)
    assert.equal(("%d:%d"):format(stat.uid, stat.gid), job({ tool = "list" }).container.user)
    assert.equal("7:8", job({ tool = "list" }, { workspaces = conf.workspaces, user = "7:8" }).container.user)
    assert.equal("65534:65534", job({ tool = "fetch_url", parameters = { url = "http://h/" } }).container.user)
  end)

  it("honours input, environment, retries and constraints on operations", function()
    local write = job { operation = "write", parameters = { path = "x" }, input_data = "a\0\255" }
    assert.equal("a\0\255", write.stdin)
    assert.equal("p", job({ operation = "write", parameters = { path = "x", content = "p" }, input_data = "i" }).stdin)
    assert.equal("", job({ operation = "write", parameters = { path = "x" } }).stdin)
    assert.equal("in", job({ type = "custom", command = "cat", input_data = "in" }).stdin)
    assert.equal(3, job({ operation = "list", max_retries = 3, retry_on_failure = true }).retries)
    assert.equal(10, job({ operation = "list", max_retries = 1 << 40, retry_on_failure = true }).retries)
    assert.is_nil(job({ operation = "list", max_retries = 3 }).retries)
    for _, rules in ipairs { { denied_operations = { "ls" } }, { denied_operations = { "list" } },
      { allowed_operations = { "read" } }, { allowed_operations = { "list" }, denied_operations = { "list" } } } do
      local message, code = refused { operation = "ls", constraints = rules }
      assert.matches("constraints do not allow list", message)
      assert.equal("PERMISSION", code)
    end
    assert.equal("list", job({ operation = "ls", constraints = { allowed_operations = { "list" } } }).tool)
    assert.matches("cannot be set", (refused { operation = "ls", environment = { ["A=B"] = "x" } }))
    assert.matches("cannot be set", (refused { operation = "ls", environment = { A = "x\0y" } }))
  end)

  describe("takes the workspace from the configuration alone:", function()
    it("by session, by label, for all others", function()
      conf = { workspaces = { s1 = "/srv/one", ["team=blue"] = "/srv/blue", ["*"] = "/srv/{session}" } }
      local tasks = require "worker.tools.task"
      local function place(task) return tasks.workspace(conf, task) end
      assert.equal("/srv/one", place { session_id = "s1", labels = { team = "blue" } })
      assert.equal("/srv/blue", place { session_id = "s2", labels = { team = "blue" } })
      assert.equal("/srv/s2", place { session_id = "s2", labels = { team = "red" } })
      assert.is_false((pcall(place, { session_id = "team=blue" })))
      for _, session in ipairs { "..", "a/b", "", ".", "-x", ("x"):rep(200), "a\0b" } do
        assert.is_false((pcall(place, { session_id = session })), session)
      end
      assert.is_false((pcall(place, { session_id = "*" })))
    end)

    it("none there is a refusal that says what to set", function()
      local message, code = refused({ operation = "list", session_id = "s" }, {})
      assert.matches("list needs a workspace.*session 's'.*workspaces", message)
      assert.equal("FAILED_PRECONDITION", code)
      local gone = { workspaces = { ["*"] = dir:path "gone" } }
      assert.matches("cannot be used", (refused({ operation = "list" }, gone)))
      assert.matches("cannot be used", (refused({ type = "custom", operation = "true" }, gone)))
    end)

    it("a command can do without", function()
      local one = job({ type = "custom", command = "true" }, {})
      assert.same({ {}, "/tmp" }, { one.container.mounts, one.cwd })
    end)
  end)

  it("says what is wrong with arguments", function()
    assert.matches("path: is required", (refused { tool = "file_read" }))
    assert.matches("type: expected", (refused { tool = "find", parameters = { type = "x" } }))
    assert.matches("recursive: expected", (refused { tool = "list", parameters = { recursive = "maybe" } }))
    for _, url in ipairs { "file:///etc/passwd", "ftp://h/", "-o/x", "http://h/ x", "http://h/\nx" } do
      assert.matches("url: expected", (refused { tool = "fetch_url", parameters = { url = url } }))
    end
  end)

  it("refuses a task that is made of the wrong things, and says which", function()
    local fields = { "id", "session_id", "labels", "operation", "command", "tool", "parameters", "arguments", "input_data",
      "environment", "working_directory", "timeout_ns", "max_retries", "retry_on_failure", "constraints" }
    for _, name in ipairs(fields) do
      for _, value in ipairs { { { "x" } }, true, 1.5 } do
        local fits = name == "retry_on_failure" and value == true or name == "timeout_ns" and value == 1.5
        if not fits then
          local message = refused { operation = "list", [name] = value }
          assert.matches("task." .. name .. ".-: expected", message)
        end
      end
    end
    for _, number in ipairs { 1 / 0, 0 / 0 } do refused { operation = "list", timeout_ns = number } end
    for _, number in ipairs { 0, -1 } do assert.equal(30, job({ operation = "list", timeout_ns = number }).timeout) end
    assert.is_truthy(job { operation = "list", lease = {}, config = print }) -- what else it has is its adapter's
  end)

  it("adds its settings to those of a protocol", function()
    local schema = require "worker.schema"
    local fields = tools.fields { url = { "url", doc = "Where it is." } }
    assert.same({}, schema.verify(fields))
    local checked = schema.check(fields, { tools = { workspaces = { s1 = "/srv/one" } } }, nil, "", { env = function() end })
    assert.same({ s1 = "/srv/one" }, checked.tools.workspaces)
    assert.same({ "owner", "bridge" }, { checked.tools.user, checked.tools.network })
  end)
end)

describe("tools from Lua", function()
  local engines = require "spec.support.engine"
  local task = require "worker.task"
  local box, fake, dir

  local function open(options, more)
    fake = engines.fake(options)
    local all = { workspace = dir.root, engine = { host = fake.host, pull = "never" } }
    for name, value in pairs(more or {}) do all[name] = value end
    box = tools.open(all)
    return box
  end

  -- An engine that has every image.
  local function has_all(options)
    options = options or {}
    options.routes = { ["GET /{v}/images/{name}/json"] = require("spec.support.server").json(200, { Id = "x", Config = {} }) }
    return options
  end

  local CREATE, REMOVE = "POST /{v}/containers/create", "DELETE /{v}/containers/{id}"

  before_each(function() dir = scratch.dir() end)
  after_each(function()
    if box then box:close() end
    box = nil
    fs.remove_tree(dir.root)
  end)

  it("give what the program prints, and take away its container", function()
    open(has_all { output = engines.frame(1, "text\n") .. engines.frame(2, "a word") })
    assert.equal("text\n", box:file_read { path = "x" })
    assert.same({ 1, 1 }, { fake.daemon:count(CREATE), fake.daemon:count(REMOVE) })
  end)

  it("raise what the program said when it fails: stderr before stdout before the code", function()
    local function said(output, exit)
      open(has_all { output = output, exit = exit })
      local ok, why = task.try(box.file_read, box, { path = "x" })
      assert.is_false(ok)
      assert.same({ "tool", "failed", exit }, { why.kind, why.state, why.result.exit_code })
      box:close()
      return why.message
    end
    assert.equal("file_read: no", said(engines.frame(1, "out") .. engines.frame(2, " no\n"), 1))
    assert.equal("file_read: out", said(engines.frame(1, "out\n"), 2))
    assert.equal("file_read: exit code 3", said("", 3))
  end)

  it("have the limits of the tool, and its time", function()
    open(has_all { output = function() task.sleep(100) end })
    local late = box:execute { tool = "file_read", parameters = { path = "x" } }
    assert.same({ "timeout", "ran longer than 30s" }, { late.state, late.reason })
    assert.equal("timeout", box:execute({ tool = "list", timeout = "2s" }).state)
    local host = fake.daemon.requests
    for _, request in ipairs(host) do
      if request.route == CREATE then
        assert.same({ 64 << 20, 64 << 20, 100000000, 10 }, { request.json.HostConfig.Memory, request.json.HostConfig.MemorySwap,
          request.json.HostConfig.NanoCpus, request.json.HostConfig.PidsLimit })
      end
    end
    assert.is_false((pcall(box.execute, box, { tool = "list", timeout = "soon" })))
  end)

  it("are refused like any task, by a name for the mistake", function()
    open(has_all())
    for _, asked in ipairs { { tool = "file_read" }, { tool = "nothing" }, { tool = "list", workspace = "/no/such/place" },
      { tool = "list", working_directory = "../.." } } do
      local ok, why = task.try(box.execute, box, asked)
      assert.is_false(ok)
      assert.equal("refused", why.kind)
    end
    assert.is_nil(box.nothing)
    assert.equal(0, fake.daemon:count(CREATE))
  end)

  it("are judged by a policy before the engine is asked", function()
    local policy = require "worker.policy"
    open(has_all(), { policy = policy.default() })
    local ok, why = task.try(box.list, box, {})
    assert.is_false(ok)
    assert.same({ "refused", "PERMISSION" }, { why.kind, why.code })
    assert.equal(0, #fake.daemon.requests)
  end)

  it("are known by an id from their start until somebody has their result", function()
    open(has_all { output = function() task.sleep(5) end })
    local first, second = box:start { tool = "list", id = "mine" }, box:start { tool = "list" }
    assert.equal("mine", first)
    assert.is_false((pcall(box.start, box, { tool = "list", id = "mine" })))
    task.sleep(1)
    assert.same({ "mine", "list", "running" }, { box:status(first).id, box:status(first).tool, box:status(first).state })
    assert.equal(2, #box:running())
    assert.equal("success", box:wait(first).state)
    local ok, why = pcall(box.status, box, first)
    assert.is_false(ok)
    assert.equal("gone", why.kind)
    assert.equal("success", box:wait(second).state)
    assert.same({}, box:running())
  end)

  it("are forgotten in the end when nobody wants their results", function()
    open(has_all())
    local ids, known = {}, 0
    for i = 1, 105 do ids[i] = box:start { tool = "list" } end
    task.sleep(60)
    assert.same({}, box:running())
    for _, id in ipairs(ids) do known = known + (pcall(box.status, box, id) and 1 or 0) end
    assert.equal(100, known)
  end)

  it("that are cancelled are gone when that is said; once ended there is nothing to cancel", function()
    open(has_all { output = function() task.sleep(100) end })
    local id = box:start { tool = "list" }
    task.sleep(1)
    assert.is_true(box:cancel(id))
    assert.equal(1, fake.daemon:count(REMOVE))
    assert.is_false(box:cancel(id))
    assert.equal("cancelled", box:wait(id).state)
    local never = box:start { tool = "list" }
    assert.is_true(box:cancel(never)) -- before it began
    assert.equal("cancelled", box:wait(never).state)
  end)

  it("end with the box", function()
    open(has_all { output = function() task.sleep(100) end })
    box:start { tool = "list" }
    box:start { tool = "list" }
    task.sleep(1)
    box:close()
    assert.equal(2, fake.daemon:count(REMOVE))
    assert.is_false((pcall(box.start, box, { tool = "list" })))
  end)

  it("that say too much are ended", function()
    open(has_all { output = engines.frame(1, ("x"):rep(3000)) }, { output = 2048 })
    local result = box:execute { tool = "list" }
    assert.equal("error", result.state)
    assert.matches("more than 2KiB to say", result.reason)
    assert.is_true(#result.stdout <= 2048)
  end)
end)

describe("a tool of a team's own", function()
  local registries = require "worker.registry"
  local shelf = require "worker.tools.shelf"
  local places = require "worker.places"
  local dir

  before_each(function() dir = scratch.dir() end)
  after_each(function()
    shelf.set(registries.open(places.plugin_dirs()):shelf())
    fs.remove_tree(dir.root)
  end)

  local function put(name, text)
    dir:write("tools/" .. name .. ".lua", text)
    local registry = registries.open { "plugins", dir.root }
    shelf.set(registry:shelf())
    return registry:get("tool", name)
  end

  local COUNT = [[
local count = { kind = "tool", name = "count", api = 1, image = "alpine:3.19", group = "file", operations = { "wc" },
  cpus = 0.1, memory = "64MiB", pids = 10, timeout = "5s", workspace = "read", paths = { "path" },
  config = { path = { "string", required = true, doc = "The file." } }, from = { path = { 1 } } }
%s
function count.command(arguments) return { "wc", "-l", arguments.path } end
return count]]

  it("is found, routed to and kept in the workspace like the others", function()
    assert.is_truthy(put("count", COUNT:format ""))
    assert.equal("count", tools.route("file_operation", "wc"))
    local conf = { workspaces = { ["*"] = dir.root } }
    local job = tools.job({ type = "tool_execution", operation = "count", arguments = { "a" } }, conf)
    assert.same({ "wc", "-l", "/workspace/a" }, job.argv)
    assert.is_false((pcall(tools.job, { tool = "count", parameters = { path = "../a" } }, conf)))
  end)

  it("is held to words, and to a workspace for its paths", function()
    put("count", COUNT:format "count.optional = true")
    local ok, why = pcall(tools.job, { tool = "count", parameters = { path = "a" } }, {})
    assert.is_false(ok)
    assert.matches("count: path is a path, and there is no workspace", why.message)
    for _, wrong in ipairs { "'wc'", "{}", "{ 1 }", "nil", "{ 'wc' }, {}" } do
      put("count", (COUNT:format "":gsub("return { \"wc\".-} end", "return " .. wrong .. " end")))
      ok, why = pcall(tools.job, { tool = "count", parameters = { path = "a" } }, { workspaces = { ["*"] = dir.root } })
      assert.is_false(ok)
      assert.matches("count returned no list of words", why.message)
    end
  end)

  it("may stand in for one that is shipped", function()
    local mine = COUNT:format("count.name = 'grep'"):gsub('name = "count"', 'name = "grep"')
    assert.is_truthy(put("grep", mine))
    assert.equal(5, tools.about("grep").timeout)
  end)

  it("is told what is wrong with it", function()
    local WRONG = {
      ["count.image = nil"] = "image: is required", ["count.memory = 'much'"] = "memory: expected a size",
      ["count.workspace = 'all'"] = "workspace: expected one of",
      ["count.paths = { 'file' }"] = "paths: there is no argument 'file'",
      ["count.from = { x = { 1 } }"] = "from: there is no argument 'x'", ["count.input = 'x'"] = "input: there is no argument",
      ["count.workspace = nil"] = "a tool without a workspace", ["count.timeout = 0"] = "timeout: expected at least",
    }
    for line, message in pairs(WRONG) do
      local found, why = put("count", COUNT:format(line))
      assert.is_nil(found, line)
      assert.matches(message, why, 1, true)
      local ok, refused = pcall(tools.route, "file_operation", "count")
      assert.is_false(ok)
      assert.matches("cannot be used", refused.message)
      assert.is_nil(table.concat(tools.names(), " "):find "count")
    end
    local without = put("count", (COUNT:format "":gsub("function count.command.-end\n", "")))
    assert.is_nil(without)
  end)
end)
