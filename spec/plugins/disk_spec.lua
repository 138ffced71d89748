local fs = require "worker.fs"
local plugin = require "spec.support.plugin"

describe("the policy disk", function()
  -- The disk is what it is; the limits are set around it.
  local function claim(fields, pauses)
    local waits = {}
    local ctx = { pause = function(seconds)
      waits[#waits + 1] = seconds
      return #waits < (pauses or 1)
    end }
    local job = plugin.policy("disk", fields).claim(function() return { id = "a" } end)(ctx)
    return job, waits
  end

  it("claims while there is room", function()
    local job, waits = claim { free = 1, inodes = 0 }
    assert.equal("a", job.id)
    assert.same({}, waits)
  end)

  it("claims nothing while less than asked is free, and looks again now and then", function()
    local job, waits = claim({ free = "1000000GiB", inodes = 0, every = 7 }, 3)
    assert.is_nil(job)
    assert.same({ 7, 7, 7 }, waits)
  end)

  it("claims nothing while there are too few inodes", function()
    if fs.disk_free("/tmp").inodes_total == 0 then return pending "inodes are not counted here" end
    assert.is_nil((claim { free = 1, inodes = 1 << 60 }))
  end)

  it("does not stop for a folder that is not there", function()
    assert.equal("a", claim({ free = "1000000GiB", path = "/no/such/folder" }).id)
  end)
end)
