-- Several executors for one server: who runs a job, and what is said about it.
local err = require "worker.error"
local fallback = require "worker.fallback"
local task = require "worker.task"

describe("worker.fallback", function()
  local asked, ran, events, said, notes, broken

  before_each(function() asked, ran, events, said, notes, broken = {}, {}, {}, {}, {}, {} end)

  local function executor(name, isolation, run)
    return { name = name, conf = {}, plugin = {
      name = name, isolation = isolation,
      check = function()
        asked[name] = (asked[name] or 0) + 1
        if broken[name] then err.raise("unusable", broken[name]) end
      end,
      run = run or function()
        ran[#ran + 1] = name
        return { state = "success" }
      end,
    } }
  end

  local function chain(options, list)
    options.server = "s"
    options.emit = function(name, facts)
      if name == "job.fallback" then events[#events + 1] = facts else said[#said + 1] = name .. " " .. facts.executor end
    end
    return fallback.new(list or { executor("gvisor", "sandbox"), executor("docker", "container") }, options)
  end

  local function run(executors, job)
    job = job or {}
    job.id = "1"
    local ctx = { note = function(line) notes[#notes + 1] = line end }
    executors:run(job, ctx)
    return ctx
  end

  it("runs a job on the first and says so", function()
    local result = run(chain {})
    assert.same({ "gvisor" }, ran)
    assert.equal("gvisor", result.executor)
    assert.is_nil(result.fallback)
    assert.same({}, events)
  end)

  it("goes to the next when the first cannot work, and tells who, why, and that it is weaker", function()
    broken.gvisor = "no runtime runsc"
    local result = run(chain {})
    assert.equal("docker", result.executor)
    assert.same({ asked = "gvisor", used = "docker", reason = "gvisor: no runtime runsc", weaker = true }, result.fallback)
    assert.equal(1, #events)
    assert.is_true(events[1].weaker)
    assert.matches("runs on docker instead of gvisor, which shields this machine better; gvisor: no runtime runsc",
      notes[1], 1, true)
  end)

  it("goes to the next when the first fails before anything of the job has run", function()
    local result = run(chain({}, { executor("a", nil, function() err.raise("unusable", "just gone") end), executor("b") }))
    assert.equal("b", result.executor)
    assert.equal("a: just gone", result.fallback.reason)
    assert.is_false(result.fallback.weaker)
  end)

  it("tells once who works, who does not, and who works again", function()
    broken.gvisor = "no runtime runsc"
    local executors = chain {}
    executors:check()
    assert.same({ "executor.failing gvisor", "executor.ready docker" }, said)
    assert.same({ "docker" }, executors:usable())
    executors:check()
    broken.gvisor = nil
    task.sleep(60)
    executors:check()
    assert.same({ "executor.failing gvisor", "executor.ready docker", "executor.back gvisor" }, said)
    assert.same({ "gvisor", "docker" }, executors:usable())
  end)

  it("asks again before a claim when the answer is old, or when another has just failed", function()
    local executors = chain({}, { executor("a", nil, function() err.raise("engine", "broke off", { away = true }) end),
      executor("b") })
    executors:check()
    assert.is_true(executors:able())
    assert.same({ a = 1, b = 1 }, asked)
    task.sleep(6)
    assert.is_true(executors:able())
    assert.same({ a = 2, b = 1 }, asked)
    task.try(run, executors)
    broken.a, broken.b = "no daemon", "no daemon"
    assert.is_false(executors:able())
    assert.same({ a = 3, b = 2 }, asked)
  end)

  it("does not run a job a second time that may have run", function()
    local executors = chain({}, { executor("a", nil, function() err.raise("engine", "broke off", { away = true }) end),
      executor("b") })
    local ok, why = task.try(run, executors)
    assert.is_false(ok)
    assert.equal("broke off", why.message)
    assert.same({}, ran)
  end)

  it("never falls back when it is strict, be it by the server or by the job", function()
    broken.gvisor = "no runtime runsc"
    for _, try in ipairs { { { strict = true } }, { {}, { strict = true } }, { {}, { executor = { "gvisor" } } } } do
      local ok, why = task.try(run, chain(try[1]), try[2])
      assert.is_false(ok)
      assert.equal("unusable", why.kind)
      assert.matches("gvisor: no runtime runsc", why.message)
    end
    assert.same({}, ran)
  end)

  it("tries what the job asks for first, then the rest in order", function()
    run(chain {}, { executor = "docker" })
    run(chain {}, { executor = { "docker", "gvisor" } })
    broken.docker = "down"
    local result = run(chain {}, { executor = "docker" })
    assert.same({ "docker", "docker", "gvisor" }, ran)
    assert.is_false(result.fallback.weaker)
  end)

  it("takes an executor it does not know for one that cannot work", function()
    local result = run(chain {}, { executor = "firecracker" })
    assert.equal("gvisor", result.executor)
    assert.equal("firecracker", result.fallback.asked)
    assert.is_true(result.fallback.weaker)
    local ok, why = task.try(run, chain {}, { executor = "firecracker", strict = true })
    assert.is_false(ok)
    assert.matches("firecracker: it is not among the executors", why.message)
  end)

  it("says so when the job's list of executors is empty", function()
    for _, strict in ipairs { false, true } do
      local ok, why = task.try(run, chain {}, { executor = {}, strict = strict })
      assert.is_false(ok)
      assert.same({ "unusable", true }, { why.kind, why.message:find("list of executors is empty", 1, true) ~= nil })
    end
  end)

  it("asks again after a while, at growing intervals, and uses what is back", function()
    broken.gvisor = "down"
    local executors = chain {}
    for _ = 1, 20 do
      run(executors)
      task.sleep(0.4)
    end
    assert.equal(4, asked.gvisor)
    broken.gvisor = nil
    task.sleep(30)
    assert.equal("gvisor", run(executors).executor)
    assert.equal(1, asked.docker)
  end)

  it("asks an executor whose engine went away before the next job", function()
    local away = true
    local executors = chain({}, { executor("a", nil, function()
      if away then err.raise("engine", "gone", { away = true }) end
      return { state = "success" }
    end) })
    assert.is_false((task.try(run, executors)))
    assert.equal(1, asked.a)
    away = false
    run(executors)
    assert.equal(2, asked.a)
  end)

  it("is able as long as one of them is", function()
    broken.gvisor = "down"
    assert.is_true(chain({}):able())
    broken.docker = "down, too"
    assert.is_false(chain({}):able())
  end)

  it("gives up at the start only when waiting will not help", function()
    broken.gvisor, broken.docker = "down", "down"
    chain({}):check()
    local one = executor "a"
    one.plugin.check = function() err.raise("config", "no such thing") end
    local ok, why = task.try(function() chain({}, { one }):check() end)
    assert.is_false(ok)
    assert.equal("no such thing", why.message)
    chain({}, { one, executor "b" }):check()
  end)
end)
