-- A worker's folder was there before its lock; another that started in that moment took it for a dead
-- worker's and removed it, with the jobs that had just been claimed into it.
local fs = require "worker.fs"
local sites = require "spec.support.site"

describe("a worker that starts beside another #realtime", function()
  it("leaves alone what has no lock yet", function()
    local site <close> = sites.new()
    fs.mkdir(site:path("running", "new-abc"), { parents = true })
    assert.equal(0, site:once().code)
    assert.same({ "new-abc" }, site:list "running")
  end)

  it("takes over what a dead one had claimed", function()
    local site <close> = sites.new()
    fs.mkdir(site:path("running", "worker-abc"), { parents = true })
    fs.write(site:path("running", "worker-abc", "a.sh"), "true")
    assert.equal(0, site:once().code)
    assert.equal("success", site:result("a").state)
    assert.same({}, site:list "running")
  end)
end)
