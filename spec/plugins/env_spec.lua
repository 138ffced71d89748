local plugin = require "spec.support.plugin"
local process = require "worker.process"

describe("the policy env", function()
  local inherited = process.inherited

  after_each(function() process.inherited = inherited end)

  local function env(fields, more)
    local ctx = plugin.ctx(more)
    plugin.policy("env", fields).run(function() return {} end)({ id = "j1" }, ctx)
    return ctx.env
  end

  it("is a few fixed names", function()
    assert.same({ PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", LANG = "C.UTF-8",
      SHELL = "/bin/sh", WORKER_JOB_ID = "j1", TMPDIR = "/w" }, env({}, { workdir = "/w" }))
    assert.equal("/tmp", env({}).TMPDIR)
    assert.equal("/elsewhere", env({ set = { TMPDIR = "/elsewhere" } }, { workdir = "/w" }).TMPDIR)
  end)

  it("passes only what is allowed on", function()
    assert.is_string(inherited "PATH")
    assert.equal(inherited "PATH", env({ pass = { "PATH" } }).PATH)
    assert.is_nil(env({ pass = { "NOT_THERE_AT_ALL" } }).NOT_THERE_AT_ALL)
    assert.equal("b", env({ set = { A = "b" } }).A)
  end)
end)

-- A worker with all of them set: even asked to, it does not pass them on.
describe("a job's environment #realtime", function()
  local program = require "spec.support.program"
  local sites = require "spec.support.site"

  it("has nothing of the worker's supervisor, credentials or configuration", function()
    local site <close> = sites.new()
    local hidden = { "NOTIFY_SOCKET", "WATCHDOG_USEC", "LISTEN_FDS", "CREDENTIALS_DIRECTORY", "WORKER_TOKEN", "PLAIN" }
    local set, names = {}, {}
    for i, name in ipairs(hidden) do
      set[name] = "/nowhere-" .. i
      names[i] = name
    end
    set.ALLOWED = "yes"
    site:drop("a.sh", "env")
    site.dir:write("worker.yaml", ("state: %s\nworkspace: %s\nservers: [{ protocol: local, dir: %s, once: true }]\n"
      .. "policies:\n  run: [ workspace, { env: { pass: [ %s, ALLOWED ] } } ]\n"):format(site.dir:path "state", site.work,
        site.root, table.concat(names, ", ", 1, 5)))
    local run = program.run { "run", "--config", site.dir:path "worker.yaml", program.plugins, env = set }
    assert.equal(0, run.code, run.stderr)
    local out = site:read("done", "a", "stdout.log")
    for i, name in ipairs(hidden) do
      assert.is_nil(out:find(name, 1, true), name)
      assert.is_nil(out:find("/nowhere-" .. i, 1, true))
    end
    assert.matches("ALLOWED=yes", out)
  end)
end)
