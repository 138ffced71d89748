-- disk: takes no work while the disk is nearly full.
local fs = require "worker.fs"
local log = require "worker.log"
local time = require "worker.time"

local disk = { kind = "policy", name = "disk", api = 1 }

disk.doc = "Claims no job while less than this is free: a full disk fails jobs that are not at fault."

disk.config = {
  free = { "size", default = "512MiB", doc = "Claim only while at least this much is free." },
  inodes = { "integer", default = 1000, min = 0, doc = "And at least this many inodes." },
  path = { "path", default = "/tmp", doc = "A folder on the disk to look at." },
  every = { "duration", default = "30s", doc = "How often to look again while it is full." },
}

local function shortage(conf)
  local space = fs.disk_free(conf.path)
  if not space then return nil end
  if space.bytes_free < conf.free then
    return ("%s is free on the disk of %s, %s is needed"):format(
      time.format_size(space.bytes_free), conf.path, time.format_size(conf.free))
  end
  -- Some file systems do not count inodes.
  if space.inodes_total > 0 and space.inodes_free < conf.inodes then
    return ("%d inodes are free on the disk of %s, %d are needed"):format(
      space.inodes_free, conf.path, conf.inodes)
  end
end

function disk.claim(conf, next)
  local short = false
  return function(ctx)
    local why = shortage(conf)
    while why do
      if not short then log.warn("disk.full", "no job is claimed: " .. why) end
      short = true
      if not ctx.pause(conf.every) then return nil end
      why = shortage(conf)
    end
    if short then log.info("disk.free", "there is room on the disk again") end
    short = false
    return next(ctx)
  end
end

return disk
