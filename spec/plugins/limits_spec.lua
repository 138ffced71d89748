local plugin = require "spec.support.plugin"

describe("the policy limits", function()
  local function limits(fields, job)
    local ctx = plugin.ctx()
    plugin.policy("limits", fields).run(function() return {} end)(job, ctx)
    return ctx.limits
  end

  it("bounds open files and core dumps without being told", function()
    assert.same({ open_files = 1024, core_size = 0 }, limits({}, {}))
  end)

  it("lets a job ask for less than is allowed, not for more", function()
    assert.equal(50, limits({ memory = 100 }, { limits = { memory = 50 } }).memory)
    assert.equal(100, limits({ memory = 100 }, { limits = { memory = 500 } }).memory)
    assert.equal(0.5, limits({}, { limits = { cpus = 0.5 } }).cpus)
  end)

  it("says in the job's log when it asks for a limit that nobody knows", function()
    local ctx = plugin.ctx()
    plugin.policy("limits", {}).run(function() return {} end)({ limits = { memroy = 50 } }, ctx)
    assert.equal("the job's limit 'memroy' is not kept: there is none of that name\n", ctx.said.worker)
  end)

  it("reads sizes as people write them", function()
    assert.equal(64 << 20, limits({ memory = "1GiB" }, { limits = { memory = "64MiB" } }).memory)
  end)

  it("names a limit that is no number", function()
    for _, wrong in ipairs { {}, "lots" } do
      local ok, why = pcall(limits, {}, { limits = { memory = wrong } })
      assert.is_false(ok)
      assert.matches("memory", tostring(why))
    end
  end)
end)

-- What the kernel makes of them.
describe("jobs with limits #realtime", function()
  local json = require "worker.json"
  local sites = require "spec.support.site"

  local function once(job)
    local site <close> = sites.new()
    site:drop("a.json", json.encode(job))
    local run = site:once()
    assert.equal(0, run.code, run.stderr)
    return site:result "a", site:read("done", "a", "stdout.log"), site:read("done", "a", "stderr.log"),
      site:read("done", "a", "worker.log")
  end

  it("has no more open files than allowed", function()
    local _, out = once { script = "ulimit -n", limits = { open_files = 32 } }
    assert.equal("32\n", out)
  end)

  it("is ended when it writes a larger file than allowed", function()
    local result = once { script = "exec head -c 200000 /dev/zero > big", limits = { file_size = "64KiB" } }
    assert.equal("failed", result.state)
    assert.equal("SIGXFSZ", result.signal)
  end)

  it("has no more processes than allowed", function()
    local result, out, errors = once { script = "for i in 1 2 3 4 5 6 7 8 9; do sleep 0.2 & done; wait; echo all",
      limits = { pids = 4 } }
    if out == "all\n" then return pending "there is no control group for processes here" end
    assert.is_true(result.state ~= "success" or errors ~= "")
    assert.matches("[Ff]ork", errors)
  end)

  it("dumps no core", function()
    local result = once { script = "ulimit -c; kill -SEGV $$" }
    assert.equal("SIGSEGV", result.signal)
    assert.is_nil(result.reason:find("core dumped", 1, true))
  end)

  it("that need too much memory end as oom", function()
    local result = once { script = "head -c 300M /dev/zero | tail -c 290M", limits = { memory = "32MiB" } }
    if result.state == "failed" then return pending "there is no control group for memory here" end
    assert.equal("oom", result.state)
    assert.equal("it needed more memory than it may have", result.reason)
  end)

  it("that do without one of their processes that needed too much are told so", function()
    local job = { script = "head -c 300M /dev/zero | tail -c 290M | wc -c", limits = { memory = "32MiB" } }
    local result, _, _, notes = once(job)
    if result.state ~= "success" then return pending "the kernel ends the whole job, or memory has no limit here" end
    assert.matches("a process of the job was killed: it needed more memory", notes)
  end)
end)
