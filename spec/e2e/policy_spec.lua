-- `worker policy`, and the policy of a worker, from outside.
local fs = require "worker.fs"
local json = require "worker.json"
local program = require "spec.support.program"
local scratch = require "spec.support.scratch"
local sites = require "spec.support.site"

describe("worker policy #realtime", function()
  local dir

  before_each(function() dir = scratch.dir() end)
  after_each(function() fs.remove_tree(dir.root) end)

  local function worker(...)
    local run = program.run { "policy", ... }
    return run.code, run.stdout, run.stderr
  end

  local function explain(task, text, ...)
    local words = { "explain", dir:write("task.json", json.encode(task)), "--workspace", dir.root, ... }
    if text then
      words[#words + 1], words[#words + 2] = "--policy", dir:write("policy.yaml", text)
    end
    return worker(table.unpack(words))
  end

  it("prints the verdict of every rule on what would be run for a task", function()
    local code, out = explain { type = "FILE_OPERATION", operation = "read", parameters = { path = "x" } }
    assert.equal(1, code)
    assert.matches("policy +default %(strict%), Default Policy", out)
    assert.matches("would run +alpine:3.19 by docker as %d+:%d+, network none", out)
    assert.matches("\nmount.bind.disabled +broken +directories of the machine", out)
    assert.matches("\nquota.cpu.max +kept\n", out)
    assert.matches("\nimage.denied +%-\n", out)
    assert.matches("It would be refused: %d rules? broken.\n$", out)
  end)

  it("says that a task would be run, by the exit code too", function()
    local code, out = explain({ tool = "fetch_url", parameters = { url = "http://h/" } }, nil)
    assert.equal(0, code, out)
    assert.matches("as 65534:65534, network bridge", out)
    assert.matches("It would be run.\n$", out)
    code, out = explain({ tool = "fetch_url", parameters = { url = "http://h/" } }, "mode: permissive\n")
    assert.equal(0, code)
    assert.matches("\nnetwork.disabled +changed +.*: cut\n", out)
  end)

  it("takes a task as an orchestrator keeps it", function()
    local code, out = explain({ id = "7", type = "TASK_TYPE_FILE_OPERATION", session_id = "s", config = { command = "read",
      arguments = { "x" }, timeout_ns = 1000000000 } }, nil)
    assert.equal(1, code)
    assert.matches("would run +alpine:3.19", out)
  end)

  it("judges jobs as well, of any executor, and prints JSON", function()
    local code, out = explain({ argv = { "true" } }, nil, "--executor", "shell", "--json")
    local said = json.decode(out)
    assert.equal(1, code)
    assert.is_false(said.allowed)
    assert.equal("network.host.disabled", said.broken[1])
    assert.equal(30, #said.verdicts)
  end)

  it("judges as the worker of a configuration would", function()
    dir:write("policy.yaml", "id: house\nmounts: { allow_tmpfs: true }\nnetwork: { allow_network: true }\n"
      .. "quotas: { max_memory: 1GiB }\n")
    local config = dir:write("worker.yaml", ([[
servers:
- { protocol: local, dir: %s, executor: { docker: { image: "alpine:3.19", memory: 4GiB } } }
policies:
  run:
  - limits: { memory: 2GiB }
  - enforce: { file: policy.yaml }
]]):format(dir:path "jobs"))
    local function judged(task) return worker("explain", dir:write("job.json", json.encode(task)), "--config", config) end
    local code, out = judged { script = "true" }
    assert.equal(1, code)
    assert.matches("policy +house", out)
    assert.matches("quota.memory.max +broken +2GiB is more than 1GiB", out)
    assert.equal(0, (judged { script = "true", limits = { memory = "1GiB" } }))
    local none = dir:write("none.yaml", ("servers: [ { protocol: local, dir: %s } ]\n"):format(dir:path "jobs"))
    local missing, _, told = worker("explain", dir:path "job.json", "--config", none)
    assert.equal(78, missing)
    assert.matches("`enforce` is not among", told)
  end)

  it("says what is wrong with a task, a job or a policy", function()
    local code, _, told = explain { tool = "file_raed" }
    assert.equal(78, code)
    assert.matches("task.json: .*did you mean 'file_read'", told)
    code, _, told = explain({ tool = "list" }, "mode: strikt\n")
    assert.equal(78, code)
    assert.matches('policy.yaml:1:7: mode: expected one of .*did you mean "strict"', told)
    code, _, told = explain { scrip = "x" }
    assert.equal(78, code)
    assert.matches("unknown key", told)
    for _, words in ipairs { {}, { "explane", "x" }, { "explain" }, { "check" } } do
      assert.equal(64, (worker(table.unpack(words))))
    end
  end)

  it("checks files, all mistakes at once, with their places", function()
    local good = dir:write("good.yaml", "id: house\nmode: permissive\n")
    local code, out = worker("check", good)
    assert.equal(0, code)
    assert.equal(good .. ": policy house (permissive), in order\n", out)
    local bad = dir:write("bad.yaml", "mode: x\nquotas: { max_pids: 0, max_cpu: 1 }\n")
    local failed, said, told = worker("check", bad, good)
    assert.equal(78, failed)
    assert.matches("good.yaml: policy house", said)
    assert.matches("bad.yaml:1:7: .*\n.*bad.yaml:2:21: quotas.max_pids: expected at least 1", told)
    assert.matches("bad.yaml:2:24: quotas.max_cpu: unknown key; did you mean \"max_cpus\"", told)
  end)

  it("prints a sample that is the default policy", function()
    local code, out = worker "sample"
    assert.equal(0, code)
    assert.equal(0, (worker("check", dir:write("sample.yaml", out))))
  end)

  it("of a worker refuses its jobs, in the log and in the result", function()
    local site <close> = sites.new()
    site.dir:write("policy.yaml", "id: house\nnetwork: { allow_network: true }\n")
    local config = site.dir:write("worker.yaml", ("servers: [ { protocol: local, dir: %s } ]\n"):format(site.root)
      .. "policies: { run: [ limits, workspace, env, enforce: { file: policy.yaml } ] }\n")
    site:drop("a.sh", "touch " .. site:path "it-ran")
    local run <close> = site:start { "--config", config, "--once" }
    local ended = run:wait()
    local result = site:result "a"
    assert.equal("error", result.state)
    assert.matches("policy house refuses: network.host.disabled", result.reason)
    assert.is_false(fs.exists(site:path "it-ran"))
    assert.matches("event=policy.decision.-decision=refused", ended.stderr)
    assert.matches("rules=\"?network.host.disabled", ended.stderr)
  end)
end)
