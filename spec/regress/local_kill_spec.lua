-- Of 1,000 jobs one was lost when a worker was killed at the wrong moment: its job file had been moved to
-- the job's output, and that not yet to done/; who took over what the dead one left removed both.
local fs = require "worker.fs"
local json = require "worker.json"
local process = require "worker.process"
local sites = require "spec.support.site"

-- What changes names, and so who has a job and how far it is.
local CALLS = { "mkdir", "rename", "renameat", "renameat2", "unlink", "unlinkat", "rmdir" }
local MOST = 40

describe("a directory whose worker is killed #realtime", function()
  local site

  before_each(function() site = sites.new() end)
  after_each(function() getmetatable(site).__close(site) end)

  -- Each job once, and its end told once.
  local function nothing_is_lost(at, ids)
    for _, id in ipairs(ids) do
      local ran = site.dir:read("ran-" .. id) or ""
      assert.is_true(ran == "" or ran == "x\n", at .. ": ran twice: " .. id)
    end
    assert.same(ids, site:list "done", at)
    for _, id in ipairs(ids) do
      local result = json.decode(site:read("done", id, "result.json"))
      assert.equal(id, result.id, at)
      if result.state ~= "success" then
        assert.equal("error", result.state, at)
        assert.matches("interrupted", result.reason, 1, true, at)
      elseif site.dir:read("ran-" .. id) ~= "x\n" then
        error(at .. ": a success that did not run: " .. id)
      end
      assert.is_true(fs.exists(site:path("done", id, id .. ".sh")), at)
    end
    assert.same({}, site:list "inbox", at)
    assert.same({}, site:list "running", at)
  end

  -- Killed as it enters the n-th such call; whether there was one.
  local function kill_at(call, n)
    for _, id in ipairs { "a", "b" } do
      site:drop(id .. ".sh", ("echo x >> %s"):format(site.dir:path("ran-" .. id)))
    end
    local run <close> = site:start { "--once", wrap = { "strace", "-f", "-qq", "-o", "/dev/null",
      "-e", "trace=" .. call, "-e", ("inject=%s:signal=KILL:when=%d"):format(call, n) },
      env = { ASAN_OPTIONS = "detect_leaks=0" } } -- the leak check of a sanitized build cannot be traced
    return run:wait().code ~= 0
  end

  for _, call in ipairs(CALLS) do
    it("loses no job and runs none twice, at whichever " .. call .. " that is", function()
      if process.run({ argv = { "strace", "-V" }, env = process.env() }).code ~= 0 then pending "needs strace" return end
      local n = 1
      while kill_at(call, n) and n < MOST do
        assert.equal(0, site:once().code)
        nothing_is_lost(("%s %d"):format(call, n), { "a", "b" })
        for _, name in ipairs { "done", "failed" } do fs.remove_tree(site:path(name)) end
        for _, id in ipairs { "a", "b" } do fs.remove(site.dir:path("ran-" .. id)) end
        n = n + 1
      end
      assert.is_true(n > 1 and n < MOST, ("it was killed %d times"):format(n - 1))
    end)
  end
end)
