-- The examples of config/callback: each as far as it can run without the machines it is for.
local fs = require "worker.fs"
local json = require "worker.json"
local process = require "worker.process"
local program = require "spec.support.program"
local scratch = require "spec.support.scratch"
local server = require "spec.support.server"
local sys = require "worker.core.sys"
local yaml = require "worker.yaml"

local ROOT = fs.dir(program.plugins)

local function example(name) return fs.join(ROOT, "config", "callback", name) end

local function shell(name, argv, env)
  env = process.env({ PATH = sys.env "PATH" }, env)
  return process.run { argv = table.move(argv, 1, #argv, 3, { "sh", example(name) }), env = env }
end

describe("config/callback #realtime", function()
  local dir, fake

  before_each(function()
    dir = scratch.dir()
    fake = server.http({}, { any = server.status(200) })
  end)
  after_each(function() getmetatable(dir).__close(dir) end)

  -- The command line of an example, as its machine would start it.
  local function run(words, env)
    local options = { cwd = dir.root, env = process.env({ TASK_ID = "7", PROJECT_ID = "shop",
      CALLBACK_URL = fake.url, WORKER_STATE = dir:path "state",
      WORKER_CONFIG = dir:write("worker.yaml", ("plugins: [ %s ]\n"):format(program.plugins)) }, env) }
    return program.run(table.move(words, 1, #words, 1, options))
  end

  it("asks Fly for a machine whose command line runs the task", function()
    local told = shell("fly.sh", { "app", "image", 'a"7', "shop", fake.url, "printf", "%s", 'x "y" \\ z' })
    local machine = json.decode(told.stdout)
    assert.equal('worker-a"7', machine.name)
    assert.same({ true, "no" }, { machine.config.auto_destroy, machine.config.restart.policy })
    local words = machine.config.init.exec
    assert.equal("/usr/bin/worker", table.remove(words, 1))
    assert.equal(0, run(words, machine.config.env).code)
    assert.equal('a"7', fake:last().json.task_id)
    assert.equal('x "y" \\ z', fake:last().json.stdout)
  end)

  it("gives systemd a unit whose command line runs the task", function()
    local told = shell("transient.sh", { "api:7", "shop", fake.url, "printf", "%s", "a b" },
      { SYSTEMD_RUN = dir:write("print", "#!/bin/sh\nprintf '%s\\n' \"$@\"\n") and (function()
        fs.chmod(dir:path "print", 493) -- 0755
        return dir:path "print"
      end)() })
    local words, env, behind = {}, {}, false
    for line in told.stdout:gmatch("[^\n]+") do
      local name, value = line:match("^%-%-setenv=([^=]+)=(.*)$")
      if behind then words[#words + 1] = line elseif name then env[name] = value end
      behind = behind or line == "--"
    end
    assert.matches("%-%-unit=worker%-task%-api_7\n", told.stdout)
    assert.equal("/usr/bin/worker", table.remove(words, 1))
    assert.equal(0, run(words, env).code)
    assert.equal("api:7 a b", fake:last().json.task_id .. " " .. fake:last().json.stdout)
  end)

  it("has a Kubernetes Job whose arguments run the task, in less than its grace", function()
    local job = yaml.decode(fs.read(example "job.yaml"))
    local pod = job.spec.template.spec
    local words = table.move(pod.containers[1].args, 1, #pod.containers[1].args, 2, { "callback" })
    for i, word in ipairs(words) do
      if word == "--" then table.move({ "true" }, 1, 1, i + 1, words) words[i + 2] = nil end
    end
    assert.equal(0, run(words).code)
    assert.is_true(tonumber(words[3]:match("%d+")) < pod.terminationGracePeriodSeconds)
    assert.same({ 64, 78 }, job.spec.podFailurePolicy.rules[1].onExitCodes.values)
  end)

  it("has a configuration that needs nothing on the command line", function()
    local text = fs.read(example "worker.yaml"):gsub("dir: /work", "dir: " .. dir.root)
    dir:write(".scud/tasks/tasks.scg", "# SCUD Graph v1\n# Phase: a\n\n@nodes\n7 | Paint | P | 3 | H\n")
    local config = dir:write("own.yaml", ("plugins: [ %s ]\n"):format(program.plugins) .. text)
    local result = run({ "callback", "--dry-run" }, { WORKER_CONFIG = config })
    assert.equal(0, result.code)
    assert.matches('would run %["claude","%-p","%-%-output%-format","text","# Task 7: Paint', result.stdout)
  end)

  it("has an image that gives a spawner's words to the worker itself", function()
    local entry = fs.read(example "Dockerfile"):match("ENTRYPOINT (%b[])")
    assert.same({ "/usr/bin/worker", "callback" }, json.decode(entry))
  end)
end)
