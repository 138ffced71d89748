-- The policy enforce around executors: a container engine that answers by a script, and the shell.
local chain = require "worker.chain"
local engine = require "worker.engine"
local engines = require "spec.support.engine"
local err = require "worker.error"
local fallback = require "worker.fallback"
local fs = require "worker.fs"
local plugin = require "spec.support.plugin"
local scratch = require "spec.support.scratch"
local spec = require "worker.spec"
local task = require "worker.task"
local tools = require "worker.tools"

spec.after_each(engine.forget)

local CREATE = "POST /{v}/containers/create"
local OPEN = "network: { allow_network: true }\nmounts: { allow_tmpfs: true, allow_bind_mounts: true }\n"
  .. "security: { allow_root: true }\n"

describe("the policy enforce", function()
  local dir, events

  before_each(function() dir, events = scratch.dir(), {} end)
  after_each(function() fs.remove_tree(dir.root) end)

  -- The executors as the driver has them, inside enforce with these fields.
  local function runner(executors, fields)
    local members = {}
    for i, one in ipairs(executors) do
      local found, conf = plugin.get("executor", one[1], one[2])
      members[i] = { name = one[1], plugin = one.plugin or found, conf = conf }
    end
    local all = fallback.new(members, { server = "spec" })
    local policy, conf = plugin.get("policy", "enforce", fields)
    local run = chain.build("run", { { plugin = policy, conf = conf } }, function(job, ctx) return all:run(job, ctx) end)
    return function(job)
      local ctx = plugin.ctx { id = job.id, emit = function(name, facts) events[#events + 1] = { name, facts } end }
      return run(job, ctx), ctx
    end
  end

  local function file(text) return dir:write("policy.yaml", text) end

  local function docker(fake, text, more)
    local fields = { host = fake.host, image = "there:1", pull = "never" }
    for name, value in pairs(more or {}) do fields[name] = value end
    return runner({ { "docker", fields } }, { file = file(text) })
  end

  local function created(fake)
    for _, request in ipairs(fake.daemon.requests) do
      if request.route == CREATE then return request.json end
    end
  end

  local function job(more)
    local one = { id = "7", argv = { "true" } }
    for name, value in pairs(more or {}) do one[name] = value end
    return one
  end

  it("lets a container be what is allowed, and says so", function()
    local fake = engines.fake { output = engines.frame(1, "hi\n") }
    local result, ctx = docker(fake, OPEN)(job())
    assert.same({ "success", "hi\n" }, { result.state, ctx.said.stdout })
    assert.is_nil(ctx.review)
    assert.equal(1, #events)
    assert.same({ "policy.decision", "allowed", "default", "strict" },
      { events[1][1], events[1][2].decision, events[1][2].policy, events[1][2].mode })
  end)

  it("refuses before the engine is asked for anything", function()
    local fake = engines.fake()
    local run = docker(fake, "id: house\nimages: { denied_images: [ there ] }\n")
    run(job { image = "other" }) -- the engine has been looked at by now
    local before = #fake.daemon.requests
    local result, ctx = run(job { container = { network = "none" } })
    assert.equal(before, #fake.daemon.requests)
    assert.same({ "error", "PERMISSION", "house" }, { result.state, result.code, result.policy })
    assert.matches("policy house refuses: mount.tmpfs.disabled %(.*%), .*", result.reason)
    assert.matches("image.denied", table.concat(result.rules, " "))
    assert.equal(result.reason .. "\n", ctx.said.worker)
    assert.same({ "refused", result.rules }, { events[#events][2].decision, events[#events][2].rules })
  end)

  it("judges the user that an image really has", function()
    local fake = engines.fake { image = { Id = "x", Config = { User = "app" } } }
    local result = docker(fake, OPEN .. "id: x\n")(job())
    assert.equal("success", result.state)
    local strict = docker(fake, "mounts: { allow_tmpfs: true }\nsecurity: { require_non_root: true }\n")
    result = strict(job())
    assert.same({ "security.non_root_required" }, result.rules)
    assert.matches("'app'", result.reason)
    assert.equal(1, fake.daemon:count(CREATE))
  end)

  it("judges an image by its real names", function()
    local fake = engines.fake { image = { Id = "x", RepoTags = { "evil.example/x:1" }, Config = {} } }
    local result = docker(fake, OPEN .. "images: { denied_images: [ 'evil.example/*' ] }\n")(job())
    assert.same({ "image.denied" }, result.rules)
    assert.equal(0, fake.daemon:count(CREATE))
  end)

  it("orders what it has filled in, and nothing else", function()
    local fake = engines.fake()
    docker(fake, OPEN .. "quotas: { max_cpus: 500000000, max_pids: 4000 }\n")(job())
    local host = created(fake).HostConfig
    assert.equal(500000000, host.NanoCpus)
    assert.equal(256, host.PidsLimit)
    assert.equal(512 << 20, host.Memory)
  end)

  it("mends where it is permissive, and tells what it did and what is broken", function()
    local fake = engines.fake()
    local run = docker(fake, "mode: permissive\nid: house\nsecurity: { read_only_rootfs: true }\n"
      .. "mounts: { allow_tmpfs: true }\nquotas: { max_memory: 1MiB }\n", { network = "bridge", read_only = false })
    local result, ctx = run(job())
    assert.equal("success", result.state)
    local host = created(fake).HostConfig
    assert.same({ "none", true, 512 << 20 }, { host.NetworkMode, host.ReadonlyRootfs, host.Memory })
    assert.matches("policy house: network.disabled: .*: cut\n", ctx.said.worker)
    assert.same({ "tolerated", { "quota.memory.max" } }, { events[1][2].decision, events[1][2].rules })
    assert.same({ "network.disabled", "security.readonly_rootfs.required" }, events[1][2].mended)
  end)

  it("looks at the directories that a job really sees, where links lead", function()
    fs.mkdir(dir:path "real")
    fs.symlink("real", dir:path "link")
    local fake = engines.fake()
    local function mounted(source, text)
      return docker(fake, text, { mount_roots = { dir.root } })(job { container = {
        mounts = { { source = source, target = "/x", write = true } } } })
    end
    local denied = ("mounts: { allow_tmpfs: true, allow_bind_mounts: true, denied_bind_sources: [ '%s' ] }\n"):format(
      dir:path "real")
    assert.same({ "mount.bind.source_not_allowed" }, mounted(dir:path "link", denied).rules)
    local listed = ("mounts: { allow_tmpfs: true, allow_bind_mounts: true, mount_allowlist: [ { path: '%s' } ] }\n"):format(
      dir:path "real")
    assert.equal("success", mounted(dir:path "link", listed).state)
    assert.is_true(created(fake).HostConfig.Mounts[1].ReadOnly)
  end)

  it("looks at files that are handed over as well", function()
    local fake = engines.fake()
    local result = docker(fake, "mounts: { allow_tmpfs: true }\n")(job { files = { ["/code"] = "x" } })
    assert.same({ "mount.bind.disabled" }, result.rules)
    assert.equal(0, fake.daemon:count(CREATE))
  end)

  it("judges tools by their workspace", function()
    local fake = engines.fake { image = { Id = "x", RepoTags = { "alpine:3.19" }, Config = {} },
      routes = { ["GET /{v}/images/{name}/json"] = require("spec.support.server").json(200, { Id = "x", Config = {} }) } }
    fs.chown(dir.root, 1000, 1000)
    local function listed() return tools.job({ tool = "list" }, { workspaces = { ["*"] = dir.root } }) end
    assert.same({ "mount.bind.disabled" }, runner({ { "docker", { host = fake.host } } })(listed()).rules)
    assert.equal("success", docker(fake, ("mounts: { allow_bind_mounts: true, allow_tmpfs: true, "
      .. "allowed_bind_sources: [ '%s' ] }\n"):format(dir.root))(listed()).state)
  end)

  it("judges a process of this machine: it has its network and its files", function()
    local run = runner({ { "shell", {} } }, {})
    local result = run(job())
    assert.equal("error", result.state)
    assert.equal("network.host.disabled", result.rules[1])
    local open = runner({ { "shell", { user = "nobody" } } }, { file = file(
      "network: { allow_network: true, allow_host_network: true }\nsecurity: { require_non_root: true }\n") })
    assert.equal("success", open(job()).state)
    local root = runner({ { "shell", { user = "root" } } }, { file = file(
      "network: { allow_network: true, allow_host_network: true }\n") })
    assert.same({ "security.privileged.disabled", "security.root.disabled" }, root(job()).rules)
  end)

  it("bounds a process by what it fills in", function()
    local asked
    local found = plugin.get("executor", "shell", {})
    local probe = setmetatable({ run = function(conf, one, ctx)
      local result = found.run(conf, one, ctx)
      asked = ctx.limits
      return result
    end }, { __index = found })
    local run = runner({ { "shell", {}, plugin = probe } }, { file = file("mode: permissive\nquotas: { max_pids: 50 }\n") })
    assert.equal("success", run(job()).state)
    assert.equal(50, asked.pids)
  end)

  it("does not look when it is disabled, and says so", function()
    local silent = { name = "silent", run = function() return { state = "success" } end }
    assert.equal("success", runner({ { "shell", {}, plugin = silent } }, { file = file "mode: disabled\n" })(job()).state)
    assert.same({ "allowed", "disabled" }, { events[1][2].decision, events[1][2].mode })
  end)

  it("sees the volumes that an image brings along", function()
    local fake = engines.fake { image = { Id = "x", RepoTags = { "there:1" }, Config = { Volumes = { ["/data"] = {} } } } }
    local text = "mounts: { allow_tmpfs: true, allow_volumes: %s }\n"
    local result = docker(fake, text:format "false")(job())
    assert.same({ "mount.volume.disabled" }, result.rules)
    assert.matches("/data", result.reason)
    assert.equal("success", docker(fake, text:format "true")(job()).state)
    assert.equal("success", docker(fake, text:format "false")(job { container = { tmpfs = { ["/data"] = 1024 } } }).state)
  end)

  it("refuses an executor that does not say what it would run", function()
    local silent = { name = "silent", run = function() error "it ran" end }
    local result = pcall(runner({ { "shell", {}, plugin = silent } }, { file = file "mode: permissive\n" }), job())
    assert.is_false(result)
    local ok, why = task.try(runner({ { "shell", {}, plugin = silent } }, {}), job())
    assert.is_false(ok)
    assert.same({ "refused", "PERMISSION" }, { why.kind, why.code })
    assert.matches("shell does not say what it would run", why.message)
  end)

  it("has a policy for a session over that for all", function()
    local fake = engines.fake()
    local run = runner({ { "docker", { host = fake.host, image = "there:1", pull = "never" } } },
      { file = file(OPEN), sessions = { s1 = dir:write("s1.yaml", "id: s1\nmode: strict\n") } })
    assert.equal("success", run(job()).state)
    assert.equal("success", run(job { session = "s2" }).state)
    local result = run(job { session = "s1" })
    assert.same({ "error", "s1" }, { result.state, result.policy })
  end)

  it("takes a policy that was changed with the next job, and keeps the old one when the new is wrong", function()
    local fake = engines.fake()
    local run = docker(fake, OPEN)
    assert.equal("success", run(job()).state)
    file "mode: strict # and nothing is allowed\n"
    assert.equal("error", run(job()).state)
    file(OPEN .. "# as before\n")
    assert.equal("success", run(job()).state)
    file "mode: [\n"
    assert.equal("success", run(job()).state)
    fs.remove(dir:path "policy.yaml")
    assert.equal("success", run(job()).state)
  end)

  it("passes on what goes wrong otherwise, and every cancel", function()
    local policy, conf = plugin.get("policy", "enforce", {})
    local why = err.new("refused", "somebody else's")
    local ok, got = pcall(policy.run(conf, function() error(why, 0) end), job(), plugin.ctx())
    assert.is_false(ok)
    assert.equal(why, got)
    local handle = task.start(policy.run(conf, function() task.sleep(60) end), job(), plugin.ctx())
    task.sleep(1)
    handle:cancel "enough"
    assert.equal("cancelled", select(2, handle:join()).kind)
  end)

  it("says at the configuration which policy file is wrong", function()
    local policy = plugin.get("policy", "enforce", {})
    local message, field = policy.check { file = dir:write("bad.yaml", "mode: x\n"), sessions = {} }
    assert.matches("bad.yaml:1:7: mode: expected", message)
    assert.equal("file", field)
    message, field = policy.check { sessions = { s = dir:path "gone.yaml" } }
    assert.matches("gone.yaml", message)
    assert.equal("sessions", field)
    assert.is_nil(policy.check { sessions = {} })
  end)

  it("is asked by several policies at once when there are several", function()
    local fake = engines.fake()
    local found, conf = plugin.get("executor", "docker", { host = fake.host, image = "there:1", pull = "never" })
    local all = fallback.new({ { plugin = found, conf = conf } }, {})
    local enforce, open = plugin.get("policy", "enforce", { file = file(OPEN .. "id: outer\n") })
    local _, closed = plugin.get("policy", "enforce", { file = dir:write("closed.yaml", "id: inner\n") })
    for _, order in ipairs { { open, closed }, { closed, open } } do
      local run = chain.build("run", { { plugin = enforce, conf = order[1] }, { plugin = enforce, conf = order[2] } },
        function(one, ctx) return all:run(one, ctx) end)
      assert.equal("inner", run(job(), plugin.ctx()).policy)
    end
    assert.equal(0, fake.daemon:count(CREATE))
  end)
end)
