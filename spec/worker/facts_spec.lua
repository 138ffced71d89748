local cgroup = require "worker.cgroup"
local core = require "worker.core.facts"
local facts = require "worker.facts"
local kernel = require "worker.facts.kernel"
local read = require "worker.facts.read"
local server = require "spec.support.server"

local STATES = { yes = true, partly = true, no = true, unknown = true }

describe("worker.facts", function()
  after_each(cgroup.close)

  it("tells what this host can do, in plain data", function()
    local list = facts.list { workdir = "/tmp" }
    local seen = {}
    for _, fact in ipairs(list) do
      assert.is_true(STATES[fact.state])
      assert.is_string(fact.area)
      assert.is_string(fact.detail)
      assert.is_nil(seen[fact.name])
      assert.is_true(fact.advice == nil or type(fact.advice) == "string")
      for _, value in pairs(fact) do assert.is_string(value) end
      seen[fact.name] = fact
    end
    for _, name in ipairs { "kernel version", "cgroup v2", "cgroup v1", "memory limit", "keeper",
      "user namespaces", "open files", "docker", "podman", "gVisor", "clock", "disk", "memory",
      "temporary files", "systemd", "container", "TLS" } do
      assert.is_table(seen[name], name)
    end
  end)

  it("knows what needs no privilege to know", function()
    local list = facts.list { workdir = "/tmp" }
    assert.equal("yes", facts.find(list, "kernel version").state)
    assert.matches("^Linux %d+%.%d+", facts.find(list, "kernel version").detail)
    assert.matches("^/tmp: .* free of ", facts.find(list, "disk").detail)
    assert.equal("yes", facts.find(list, "clock").state)
    assert.is_nil(facts.find(list, "no such fact"))
  end)

  it("says what is wrong with a workspace directory that is not there", function()
    local list = facts.list { workdir = "/nowhere/at/all" }
    assert.equal("no", facts.find(list, "disk").state)
    assert.matches("/nowhere/at/all: No such file", facts.find(list, "disk").detail)
    assert.matches("mkdir", facts.find(list, "disk").advice)
  end)

  it("gives the same answers about control groups as the groups do", function()
    local can = cgroup.describe().can
    local list = facts.list()
    assert.equal(can.memory and "yes" or "no", facts.find(list, "memory limit").state)
    assert.equal(can.pids and "yes" or "no", facts.find(list, "process limit").state)
    assert.equal(can.kill and "yes" or "partly", facts.find(list, "ending jobs").state)
    assert.equal("yes", facts.find(list, "keeper").state)
  end)

  it("advises where there are no control groups", function()
    cgroup.open("none")
    local list = facts.list()
    for _, name in ipairs { "memory limit", "cpu limit", "process limit" } do
      assert.equal("no", facts.find(list, name).state)
      assert.matches("Delegate=yes", facts.find(list, name).advice)
    end
    assert.equal("partly", facts.find(list, "ending jobs").state)
  end)

  describe("asked for docker", function()
    local function docker(routes)
      local path = os.tmpname() .. ".sock"
      local fake = server.http(routes, { unix = path })
      local list = facts.list { docker = path }
      fake:close()
      os.remove(path)
      return facts.find(list, "docker"), facts.find(list, "gVisor")
    end

    it("tells its version, and whether it knows gVisor", function()
      local engine, gvisor = docker {
        ["GET /version"] = server.json(200, { Version = "20.10.24" }),
        ["GET /info"] = server.json(200, { Runtimes = { runc = {}, runsc = {} } }),
      }
      assert.equal("yes", engine.state)
      assert.matches("version 20%.10%.24", engine.detail)
      assert.equal("yes", gvisor.state)
    end)

    it("gives up on one that never answers, and says so", function()
      local engine = docker { ["GET /version"] = server.hang(), ["GET /info"] = server.hang() }
      assert.equal("no", engine.state)
      assert.matches("does not answer", engine.detail)
    end)

    it("says which socket is not there", function()
      local engine = facts.find(facts.list { docker = "/nowhere.sock" }, "docker")
      assert.equal("no socket at /nowhere.sock", engine.detail)
      assert.matches("apt%-get install", engine.advice)
    end)
  end)

  it("goes on when one question fails, and says so", function()
    local saved = kernel.questions[1]
    kernel.questions[1] = { "kernel version", function() error("no idea", 0) end }
    local list = facts.list()
    kernel.questions[1] = saved
    assert.equal("unknown", list[1].state)
    assert.equal("no idea", list[1].detail)
    assert.is_true(#list > 20)
  end)

  it("prints areas, marks and advice", function()
    assert.equal(table.concat({
      "kernel",
      "  ok  one    fine",
      "  -   three  missing",
      "             -> get it",
      "",
      "machine",
      "  ?   two    who knows",
    }, "\n"), facts.text {
      { area = "kernel", name = "one", state = "yes", detail = "fine" },
      { area = "kernel", name = "three", state = "no", detail = "missing", advice = "get it" },
      { area = "machine", name = "two", state = "unknown", detail = "who knows" },
    })
  end)

  it("writes sizes for people", function()
    assert.equal("0 B", read.size(0))
    assert.equal("1023 B", read.size(1023))
    assert.equal("1.5 KiB", read.size(1536))
    assert.equal("200 MiB", read.size(200 * 1024 * 1024))
    assert.equal("2048 PiB", read.size(2 ^ 61))
  end)

  it("asks the kernel itself", function()
    assert.is_true(core.may("/", "rx"))
    local may, why = core.may("/no such file")
    assert.is_nil(may)
    assert.equal("No such file or directory", why)
    local now, boot = core.clocks()
    assert.is_true(now > boot and boot > 0)
    assert.is_true(core.space("/").total > 0)
    assert.is_nil(core.space("/no such file"))
  end)
end)
