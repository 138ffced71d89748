-- Policies: every rule, held against plans as executors make them.
local fs = require "worker.fs"
local policy = require "worker.policy"
local scratch = require "spec.support.scratch"

-- A policy that allows everything, and what a test adds to it.
local OPEN = {
  mode = "strict",
  mounts = { allow_bind_mounts = true, allow_volumes = true, allow_tmpfs = true },
  network = { allow_network = true, allow_host_network = true },
  images = { allow_latest_tag = true },
  security = { allow_privileged = true, allow_root = true },
}

local function given(more, mode)
  local text = { ("mode: %s\n"):format(mode or "strict") }
  for section, values in pairs(OPEN) do
    if type(values) == "table" then
      local all = {}
      for key, value in pairs(values) do all[key] = value end
      for key, value in pairs((more or {})[section] or {}) do all[key] = value end
      text[#text + 1] = require("worker.yaml").encode { [section] = all }
    end
  end
  if more and more.quotas then text[#text + 1] = require("worker.yaml").encode { quotas = more.quotas } end
  local found, problems = policy.parse("p.yaml", table.concat(text))
  return assert(found, problems and tostring(problems[1]))
end

local function plan(more)
  local all = { isolation = "container", image = "alpine:3.19", user = "1000:1000", cpus = 1, memory = 64 << 20,
    memory_swap = 64 << 20, pids = 10, network = "none", ports = {}, mounts = {}, read_only = true, capabilities = {},
    labels = {} }
  for key, value in pairs(more or {}) do all[key] = value end
  return all
end

local function verdict(decision, rule)
  for _, one in ipairs(decision.verdicts) do
    if one.rule == rule then return one.state, one.detail end
  end
end

local function bind(source, write) return { type = "bind", source = source, target = "/x", write = write } end

describe("worker.policy", function()
  -- rule, policy, plan that keeps it, plan that breaks it
  local CASES = {
    { "quota.cpu.max", { quotas = { max_cpus = 1500000000 } }, { cpus = 1.5 }, { cpus = 1.6 } },
    { "quota.cpu.min", { quotas = { min_cpus = 500000000 } }, { cpus = 0.5 }, { cpus = 0.4 } },
    { "quota.memory.max", { quotas = { max_memory = 100 } }, { memory = 100 }, { memory = 101 } },
    { "quota.memory.min", { quotas = { min_memory = 100 } }, { memory = 100 }, { memory = 99 } },
    { "quota.memory_swap.max", { quotas = { max_memory_swap = 100 } }, { memory_swap = 100 }, { memory_swap = 101 } },
    { "quota.memory_swap.max", { quotas = { max_memory_swap = 100 } }, { memory_swap = 1 }, { memory_swap = -1 } },
    { "quota.pids.max", { quotas = { max_pids = 10 } }, { pids = 10 }, { pids = 11 } },
    { "mount.bind.source_not_allowed", { mounts = { allowed_bind_sources = { "/srv/*" } } },
      { mounts = { bind "/srv/a/b" } }, { mounts = { bind "/srv/a", bind "/srv" } } },
    { "mount.bind.source_not_allowed", { mounts = { allowed_bind_sources = { "/srv" } } },
      { mounts = { bind "/srv" } }, { mounts = { bind "/srv/a" } } },
    { "mount.bind.source_not_allowed", { mounts = { denied_bind_sources = { "/etc" } } },
      { mounts = { bind "/etcetera" } }, { mounts = { bind "/etc/ssh" } } },
    { "mount.bind.source_not_allowed", { mounts = { denied_bind_sources = { "/srv/secret" } } },
      { mounts = { bind "/srv/open" } }, { mounts = { bind "/srv" } } },
    { "mount.bind.source_not_allowed", { mounts = { denied_bind_sources = { "/home/*/.ssh" } } },
      { mounts = { bind "/home/a/src" } }, { mounts = { bind "/home/a/.ssh/id" } } },
    { "mount.bind.source_not_allowed", { mounts = { denied_bind_sources = { "/home/*/.ssh" } } },
      { mounts = { bind "/srv" } }, { mounts = { bind "/" } } },
    { "mount.bind.source_not_allowed", { mounts = { denied_bind_sources = { "/home/*/.ssh" } } },
      { mounts = { bind "/home/a/src/b" } }, { mounts = { bind "/home/a" } } }, -- it has /home/a/.ssh in it
    { "mount.bind.source_not_allowed", { mounts = { denied_bind_sources = { "*/.ssh" } } },
      { mounts = { bind "/home/a" } }, { mounts = { bind "/" } } },
    { "mount.bind.source_not_allowed",
      { mounts = { allowed_bind_sources = { "/srv/*" }, denied_bind_sources = { "/srv/secret*" } } },
      { mounts = { bind "/srv/a" } }, { mounts = { bind "/srv/secrets" } } },
    { "mount.volume.not_allowed", { mounts = { allowed_volumes = { "cache-*" } } },
      { mounts = { { type = "volume", source = "cache-1" } } }, { mounts = { { type = "volume", source = "other" } } } },
    { "mount.volume.not_allowed", { mounts = { denied_volumes = { "secret" } } },
      { mounts = { { type = "volume", source = "a" } } }, { mounts = { { type = "volume", source = "secret" } } } },
    { "mount.tmpfs.size_exceeded", { mounts = { max_tmpfs_size = 100 } },
      { mounts = { { type = "tmpfs", target = "/tmp", size = 100 } } }, { mounts = { { type = "tmpfs", target = "/tmp" } } } },
    { "mount.readonly_rootfs.required", { mounts = { enforce_read_only_rootfs = true } },
      { read_only = true }, { read_only = false } },
    { "network.denied", { network = { denied_networks = { "corp-*" } } }, { network = "bridge" }, { network = "corp-1" } },
    { "network.not_allowed", { network = { allowed_networks = { "tools" } } }, { network = "tools" }, { network = "bridge" } },
    { "image.digest_required", { images = { require_digest = true } },
      { image = "alpine@sha256:" .. ("a"):rep(64) }, { image = "alpine:3.19" } },
    { "security.non_root_required", { security = { require_non_root = true } }, { user = "1" }, { user = "app" } },
    { "security.non_root_required", { security = { require_non_root = true } }, { user = "1:0" }, { user = "" } },
    { "security.uid.not_allowed", { security = { allowed_uids = { 1000 } } }, { user = "1000" }, { user = "1001" } },
    { "security.uid.not_allowed", { security = { allowed_uids = { 1000 } } }, { user = "1000:5" }, { user = "app" } },
    { "security.gid.not_allowed", { security = { allowed_gids = { 5 } } }, { user = "1:5" }, { user = "1:6" } },
    { "security.gid.not_allowed", { security = { allowed_gids = { 5 } } }, { user = "1:5" }, { user = "1" } },
    { "security.capability.not_allowed", { security = { allowed_capabilities = { "CAP_CHOWN" } } },
      { capabilities = { "chown" } }, { capabilities = { "CHOWN", "SYS_ADMIN" } } },
    { "security.capability.not_allowed",
      { security = { allowed_capabilities = { "CHOWN", "KILL" }, drop_capabilities = { "KILL" } } },
      { capabilities = { "CHOWN" } }, { capabilities = { "KILL" } } },
    { "security.readonly_rootfs.required", { security = { read_only_rootfs = true } }, {}, { read_only = false } },
    -- switches that are off
    { "mount.bind.disabled", { mounts = { allow_bind_mounts = false } }, nil, { mounts = { bind "/srv" } } },
    { "mount.volume.disabled", { mounts = { allow_volumes = false } }, nil, { mounts = { { type = "volume", source = "v" } } } },
    { "mount.tmpfs.disabled", { mounts = { allow_tmpfs = false } }, nil,
      { mounts = { { type = "tmpfs", target = "/t", size = 1 } } } },
    { "network.host.disabled", { network = { allow_host_network = false } }, nil, { network = "host" } },
    { "network.disabled", { network = { allow_network = false } }, nil, { network = "bridge" } },
    { "network.configured", { network = { allow_network = false } }, nil, { network = "corp" } },
    { "network.ports.disabled", { network = { allow_network = false } }, nil, { ports = { 80 } } },
    { "image.latest_tag", { images = { allow_latest_tag = false } }, nil, { image = "alpine" } },
    { "security.privileged.disabled", { security = { allow_privileged = false } }, nil, { privileged = true } },
    { "security.root.disabled", { security = { allow_root = false } }, {}, { user = "root:5" } },
    { "image.denied", { images = { denied_images = { "evil" } } }, { image = "good" }, { image = "evil:2" } },
    { "image.not_allowed", { images = { allowed_images = { "alpine:3.*" } } },
      { image = "alpine:3.19" }, { image = "alpine:4" } },
  }

  for i, case in ipairs(CASES) do
    it(("knows %s (%d)"):format(case[1], i), function()
      local good = policy.judge(given(case[2]), plan(case[3]))
      assert.equal(case[3] and "kept" or "unasked", (verdict(good, case[1])))
      assert.is_true(good.allowed)
      local bad = policy.judge(given(case[2]), plan(case[4]))
      local state, detail = verdict(bad, case[1])
      assert.equal("broken", state)
      assert.is_truthy(detail)
      assert.is_false(bad.allowed)
      assert.is_true(policy.judge(given(case[2], "permissive"), plan(case[4])).allowed)
      assert.is_true(policy.judge(given(case[2], "disabled"), plan(case[4])).allowed)
    end)
  end

  it("has a case for every rule", function()
    local known = {}
    for _, case in ipairs(CASES) do known[case[1]] = true end
    for _, rule in ipairs(policy.rules()) do assert.is_true(known[rule], rule) end
  end)

  it("does not look when it is disabled, and changes nothing", function()
    local one = plan { memory = false }
    one.memory = nil
    local decision = policy.judge(given({ quotas = { max_memory = 100 } }, "disabled"), one)
    assert.same({ {}, "disabled", true }, { decision.verdicts, decision.mode, decision.allowed })
    assert.is_nil(one.memory)
  end)

  describe("names of images", function()
    local NAMES = {
      ["alpine"] = "docker.io/library/alpine:latest", ["alpine:3.19"] = "docker.io/library/alpine:3.19",
      ["curlimages/curl:8.6.0"] = "docker.io/curlimages/curl:8.6.0", ["docker.io/alpine:1"] = "docker.io/library/alpine:1",
      ["index.docker.io/library/alpine:1"] = "docker.io/library/alpine:1", ["ghcr.io/x/y"] = "ghcr.io/x/y:latest",
      ["localhost/x:1"] = "localhost/x:1", ["host:5000/x"] = "host:5000/x:latest", ["host:5000/x:2"] = "host:5000/x:2",
      ["alpine@sha256:ab"] = "docker.io/library/alpine@sha256:ab",
      ["alpine:1@sha256:ab"] = "docker.io/library/alpine:1@sha256:ab",
    }
    for short, full in pairs(NAMES) do
      it("are full: " .. short, function()
        assert.equal(full, policy.image(short))
        assert.equal(full, policy.image(full))
      end)
    end

    local function passes(images, image, names)
      return policy.judge(given { images = images }, plan { image = image, image_names = names }).allowed
    end
    local function allowed(pattern, ...) return passes({ allowed_images = { pattern } }, ...) end
    local function denied(pattern, ...) return not passes({ denied_images = { pattern } }, ...) end

    it("fit patterns however short either of them is", function()
      assert.is_true(allowed("docker.io/library/*", "alpine:3.19"))
      assert.is_true(allowed("alpine", "docker.io/library/alpine:3.19"))
      assert.is_true(allowed("alpine:*", "index.docker.io/library/alpine:3.19"))
      assert.is_true(allowed("*", "ghcr.io/x/y"))
      assert.is_true(allowed("*.example/ci/*", "registry.example/ci/a:1"))
      assert.is_false(allowed("alpine", "evil/alpine:3.19"))
      assert.is_false(allowed("alpine", "alpine-evil:1"))
      assert.is_false(allowed("alpine:3.19", "alpine"))
      assert.is_false(allowed("docker.io/library/*", "ghcr.io/docker.io/library/x"))
      assert.is_true(denied("evil/*", "docker.io/evil/x:1"))
      assert.is_false(denied("evil/*", "docker.io/good/evil:1"))
    end)

    it("are decided by the digest where there is one", function()
      assert.is_true(allowed("alpine", "alpine:3.19@sha256:ab"))
      assert.is_false(allowed("alpine:3.19", "alpine:3.19@sha256:ab"))
      assert.is_true(allowed("alpine@sha256:ab", "alpine:3.19@sha256:ab"))
      assert.is_true(denied("alpine:3.19", "alpine:3.19@sha256:ab"))
    end)

    it("are those the engine has, when a job asks by number", function()
      assert.is_true(denied("evil", "0a1b2c3d", { "evil:1" }))
      assert.is_false(allowed("docker.io/library/*", "0a1b2c3d", { "evil.example/x:1" }))
      assert.is_true(allowed("evil.example/*", "0a1b2c3d", { "evil.example/x:1" }))
      assert.is_true(allowed("alpine:3.19", "alpine:3.19", { "other:1", "alpine:3.19" }))
      assert.is_false(allowed("*alpine*", "0a1b2c3d", {}))
    end)
  end)

  describe("fills in and mends", function()
    it("what nobody has bounded, in every mode that looks", function()
      for _, mode in ipairs { "strict", "permissive" } do
        local one = plan()
        one.cpus, one.memory, one.memory_swap, one.pids = nil, nil, nil, nil
        local decision = policy.judge(given({ quotas = { max_cpus = 2000000000, max_memory = 100, max_memory_swap = 300,
          max_pids = 7 } }, mode), one)
        assert.is_true(decision.allowed)
        assert.same({ 2.0, 100, 100, 7 }, { one.cpus, one.memory, one.memory_swap, one.pids })
        assert.same({ "quota.cpu.max", "quota.memory.max", "quota.memory_swap.max", "quota.pids.max" }, decision.mended)
      end
    end)

    it("limits that an engine takes for none", function()
      local quotas = { max_cpus = 2000000000, max_memory = 100, max_memory_swap = 300, max_pids = 7 }
      for _, empty in ipairs { { cpus = 0 }, { cpus = 1e-12 }, { memory = 0 }, { memory = -1 }, { pids = 0 }, { pids = -1 },
        { memory_swap = 0 } } do
        local more = { cpus = 1, memory = 50, memory_swap = 60, pids = 5 }
        local name, value = next(empty)
        more[name] = value
        local one = plan(more)
        assert.is_true(policy.judge(given { quotas = quotas }, one).allowed)
        local filled = { cpus = 2.0, memory = 100, memory_swap = 50, pids = 7 }
        assert.equal(filled[name], one[name], name .. " " .. value)
      end
    end)

    it("what can be mended, where it is permissive", function()
      local one = plan { network = "bridge", read_only = false, capabilities = { "KILL", "CHOWN" }, memory = 1000 }
      local decision = policy.judge(given({ network = { allow_network = false }, security = { read_only_rootfs = true,
        allowed_capabilities = { "CHOWN" } }, quotas = { max_memory = 100 } }, "permissive"), one)
      assert.same({ "none", true, { "CHOWN" }, 1000 }, { one.network, one.read_only, one.capabilities, one.memory })
      assert.same({ "quota.memory.max" }, decision.broken)
      assert.is_true(decision.allowed)
    end)

    it("nothing that cannot be changed", function()
      local one = plan { network = "host", read_only = false, fixed = { network = true, read_only = true } }
      local decision = policy.judge(given({ network = { allow_host_network = false }, security = { read_only_rootfs = true } },
        "permissive"), one)
      assert.same({ "host", false }, { one.network, one.read_only })
      assert.same({ "network.host.disabled", "security.readonly_rootfs.required" }, decision.broken)
    end)

    it("capabilities that every container gets", function()
      local one = plan()
      local decision = policy.judge(given { security = { add_capabilities = { "CAP_CHOWN", "KILL" },
        drop_capabilities = { "KILL" } } }, one)
      assert.is_true(decision.allowed)
      assert.same({ "CHOWN" }, one.capabilities)
    end)
  end)

  describe("with a list of mounts", function()
    local LIST = {
      { path = "/srv/docs", mode = "readonly" }, { path = "/srv/all/*", mode = "readwrite" },
      { path = "/srv/all/secret", mode = "denied" }, { path = "/srv/all/mine", user = "anna", mode = "readonly" },
      { path = "/srv/root", group = "root", mode = "readwrite" }, { path = "/srv/anna", user = "anna", mode = "denied" },
      { path = "/srv/anna", mode = "readwrite" },
    }
    local function mounted(source, user)
      local one = plan { mounts = { bind(source, true) }, labels = { username = user } }
      local decision = policy.judge(given { mounts = { mount_allowlist = LIST, allowed_bind_sources = { "/srv/old" } } }, one)
      return decision.allowed and (one.mounts[1].write and "write" or "read") or "refused"
    end

    it("mounts what it names, as it says", function()
      assert.equal("read", mounted "/srv/docs")
      assert.equal("write", mounted "/srv/all/x")
    end)

    it("mounts nothing else, whatever the other lists say", function()
      assert.equal("refused", mounted "/srv/old")
      assert.equal("refused", mounted "/srv/docs/below")
    end)

    it("takes the first that fits, users before groups before everybody", function()
      assert.equal("write", mounted "/srv/all/secret") -- the star comes first
      assert.equal("read", mounted("/srv/all/mine", "anna"))
      assert.equal("write", mounted("/srv/all/mine", "bert"))
      assert.equal("write", mounted("/srv/root", "root"))
      assert.equal("refused", mounted("/srv/root", "anna"))
      assert.equal("refused", mounted "/srv/root")
      assert.equal("refused", mounted("/srv/anna", "anna"))
      assert.equal("write", mounted("/srv/anna", "bert"))
    end)
  end)

  it("refuses by default the machine's directories and network, root, and the latest image", function()
    local default = policy.default()
    local function broken(more) return policy.judge(default, plan(more)).broken end
    assert.same({}, broken { network = "bridge", mounts = { { type = "tmpfs", target = "/tmp", size = 64 << 20 } } })
    assert.same({ "mount.bind.disabled" }, broken { mounts = { bind "/srv" } })
    assert.same({ "network.host.disabled" }, broken { network = "host" })
    assert.same({ "security.root.disabled" }, broken { user = "" })
    assert.same({ "image.latest_tag" }, broken { image = "alpine" })
    assert.same({ "quota.cpu.max", "quota.memory.max", "quota.memory_swap.max", "quota.pids.max" },
      broken { cpus = 5, memory = 9 << 30, memory_swap = 9 << 30, pids = 2000 })
    assert.same({ "mount.tmpfs.size_exceeded" }, broken { mounts = { { type = "tmpfs", target = "/t", size = 1 << 30 } } })
  end)

  it("tells the first three of many", function()
    local decision = policy.judge(policy.default(), plan { user = "0", cpus = 9, pids = 9999, network = "host", image = "x" })
    assert.matches("^quota.cpu.max %(9 processors is more than 4 processors%), quota.pids.max %(.*%), network.host.disabled "
      .. "%(.*%) and 2 more$", policy.words(decision))
  end)

  describe("of a session over another", function()
    it("has the last word on switches, and on lists that are not empty", function()
      local base = given { images = { allowed_images = { "alpine" } }, quotas = { max_pids = 10, max_cpus = 100 } }
      local more = assert(policy.parse("s.yaml", "network: { allow_network: true }\nquotas: { max_pids: 5 }\n"))
      local both = policy.merge(base, more)
      assert.is_true(both.network.allow_network)
      assert.is_false(both.mounts.allow_bind_mounts)
      assert.same({ "alpine" }, both.images.allowed_images)
      assert.same({ 5, 100 }, { both.quotas.max_pids, both.quotas.max_cpus })
      assert.is_true(base.mounts.allow_bind_mounts)
    end)
  end)

  describe("in a file", function()
    local function problems_of(text)
      local found, problems = policy.parse("p.yaml", text)
      assert.is_nil(found)
      local lines = {}
      for i, problem in ipairs(problems) do lines[i] = tostring(problem) end
      return table.concat(lines, "\n")
    end

    it("that says nothing forbids what has a switch", function()
      local nothing = assert(policy.parse("p.yaml", ""))
      assert.same({ "strict", "default", "Policy" }, { nothing.mode, nothing.id, nothing.name })
      assert.is_false(nothing.mounts.allow_bind_mounts or nothing.mounts.allow_tmpfs or nothing.network.allow_network
        or nothing.images.allow_latest_tag)
    end)

    it("is told what is wrong, with the place", function()
      local told = problems_of("mode: strikt\nmounts: { allow_bind_mount: true }\nquotas: { max_cpus: 1.5 }\n"
        .. "images:\n  allowed_images: [ \"${NO_SUCH_VARIABLE}/x\" ]\n")
      assert.matches('^p.yaml:1:7: mode: expected one of .*did you mean "strict"', told)
      assert.matches('\np.yaml:2:11: mounts.allow_bind_mount: unknown key; did you mean "allow_bind_mounts"', told)
      assert.matches("\np.yaml:3:21: quotas.max_cpus: expected a whole number", told)
      assert.matches("\np.yaml:5:21: images.allowed_images%[1%]: the environment has no NO_SUCH_VARIABLE", told)
      assert.matches("for a user or for a group",
        problems_of "mounts: { mount_allowlist: [ { path: /x, user: a, group: b } ] }")
      assert.matches("path: expected", problems_of "mounts: { mount_allowlist: [ { path: x } ] }")
      assert.matches("p.yaml:2:1:", problems_of "mode: strict\nmode: disabled\n")
      assert.matches("expected a map", problems_of "[]")
    end)

    it("has variables of the environment in its texts, but not in its mode", function()
      local found = assert(policy.parse("p.yaml", [[
id: "${PATH:-x}"
name: ${NO_SUCH_VARIABLE:-somebody else}
images: { allowed_images: [ "${NO_SUCH_VARIABLE:-docker.io}/library/*" ] }
mounts: { mount_allowlist: [ { path: "/srv/${NO_SUCH_VARIABLE:-x}" } ] }
]]))
      assert.is_true(#found.id > 1)
      assert.equal("somebody else", found.name)
      assert.same({ "docker.io/library/*" }, found.images.allowed_images)
      assert.equal("/srv/x", found.mounts.mount_allowlist[1].path)
      assert.matches("mode: expected", problems_of 'mode: "${NO_SUCH_VARIABLE:-disabled}"')
    end)

    it("may be JSON, and may not be there", function()
      local dir <close> = scratch.dir()
      local path = dir:write("p.json", '{"id":"j","quotas":{"max_memory":100}}')
      assert.equal(100, policy.read(path).quotas.max_memory)
      local ok, why = pcall(policy.read, dir:path "gone.yaml")
      assert.is_false(ok)
      assert.equal("config", why.kind)
      assert.matches("gone.yaml.*worker policy sample", why.message)
    end)

    it("is the default policy when it is the sample", function()
      local sample = assert(policy.parse("sample.yaml", require "worker.policy.sample"()))
      assert.same(policy.default(), sample)
      local full = require "worker.policy.sample"():gsub("\n( *)#([%w_]+: )", "\n%1%2")
      local _, problems = policy.parse("full.yaml", full)
      assert.same({}, problems)
    end)
  end)

  it("knows the groups of this machine", function()
    local groups = require "worker.policy.groups"
    assert.is_true(groups.has("root", "root"))
    assert.is_false(groups.has("root", "nobody"))
    assert.is_false(groups.has("no-such-group", "root"))
    assert.is_true(fs.exists "/etc/group")
  end)
end)
