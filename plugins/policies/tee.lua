-- tee: a job's output also goes to files on this machine.
local fs = require "worker.fs"
local log = require "worker.log"
local time = require "worker.time"

local tee = { kind = "policy", name = "tee", api = 1 }

tee.doc = "Keeps what each job prints in files here: DIR/JOB/stdout.log and stderr.log, secrets masked."

tee.config = {
  dir = { "path", env = "WORKER_TEE_DIR", doc = "Where; nothing is kept if absent." },
  most = { "size", default = "64MiB", doc = "Most bytes of one stream; what follows is left out." },
}

local PRIVATE = 448 -- 0700

-- Any id is fine as an id; as the name of a folder it must be plain.
local function folder_of(conf, job)
  local name = job.id:gsub("[^%w._-]", "_"):gsub("^%.", "_"):sub(1, 200)
  local dir = fs.join(conf.dir, name)
  fs.mkdir(dir, { parents = true, mode = PRIVATE })
  return dir
end

-- A stream of a job that is run again goes on in the same file.
local function open(conf, dir, stream)
  local path = fs.join(dir, stream .. ".log")
  local stat = fs.stat(path)
  return { file = fs.open(path, "a", 384), room = conf.most - (stat and stat.size or 0) } -- 0600
end

local function write(conf, to, text)
  if to.room <= 0 then return end
  to.file:write(text:sub(1, to.room))
  to.room = to.room - #text
  if to.room <= 0 then
    to.file:write(("\n... what follows was not kept: more than %s\n"):format(time.format_size(conf.most)))
  end
end

-- Outside of mask, so that what arrives here is masked.
function tee.run(conf, next)
  if not conf.dir then return next end
  return function(job, ctx)
    local dir, files, plain, broken = folder_of(conf, job), {}, ctx.log, false
    local _ <close> = setmetatable({}, { __close = function()
      ctx.log = plain
      for _, to in pairs(files) do to.file:close() end
    end })
    function ctx.log(stream, text)
      plain(stream, text)
      if broken then return end
      local ok, why = pcall(function()
        files[stream] = files[stream] or open(conf, dir, stream)
        write(conf, files[stream], text)
      end)
      if ok then return end
      broken = true -- a full disk here is no reason to fail the job
      log.warn("tee.failed", ("job %s: its output is no longer kept: %s"):format(job.id, tostring(why)), { job = job.id })
    end
    return next(job, ctx)
  end
end

return tee
