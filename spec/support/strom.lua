-- strom.lua: a Strøm server and a worker on it, in the process of the specs (see spec.support.stage).
--
--   local fake = strom.fake { jobs = { "echo hi" }, generation = "s0" }
--   local worker = strom.worker(fake, { max_concurrent = 2 }, { run = function(job, ctx) ... end })
local fakes = require "worker.fakes.strom"
local stage = require "spec.support.stage"

local strom = setmetatable({}, { __index = stage })

strom.TOKEN = "0123456789abcdef0123456789abcdef"
strom.CLAIM, strom.LOGS = "POST /worker/jobs/claim", "POST /worker/jobs/{job}/logs"
strom.START = "POST /worker/jobs/{job}/steps/{step}/start"
strom.COMPLETE = "POST /worker/jobs/{job}/steps/{step}/complete"
strom.REGISTER, strom.HEARTBEAT = "POST /worker/register", "POST /worker/heartbeat"
strom.CANCELLED, strom.WORKSPACE = "GET /worker/jobs/{job}/cancelled", "GET /worker/workspace/{file}"
strom.ARTIFACTS = "POST /worker/jobs/{job}/steps/{step}/artifacts/{name...}"
strom.NO_ARTIFACTS = "DELETE /worker/jobs/{job}/steps/{step}/artifacts"
strom.STATE = "POST /worker/state/{workspace}/{task}/{job}"

--- A fake that remembers what it was asked in fake.seen.
function strom.fake(options) return stage.fake(fakes, options) end

--- A worker on the fake: fields of its configuration; options of stage.worker.
function strom.worker(fake, fields, options)
  local all = { protocol = "strom", dir = stage.dir(), grace = 0.5, policies = options and options.run and { { "timeout" } } }
  for name, value in pairs(options or {}) do all[name] = value end
  all.fields = { server_url = fake.url .. "/", worker_token = strom.TOKEN, worker_name = "w",
    poll_interval_secs = all.run and 1 or "100ms", workspace_dir = all.dir:path "ws", cancel_poll = "500ms" }
  for name, value in pairs(fields or {}) do all.fields[name] = value end
  all.slots = all.fields.max_concurrent
  return stage.worker(all)
end

local OVER = { completed = true, failed = true, skipped = true, cancelled = true }

--- Wait until every step of the job has ended; its first step, the job.
function strom.wait_job(job)
  stage.wait_for(function()
    for _, step in ipairs(job.steps) do
      if not OVER[step.status] then return false end
    end
    return true
  end)
  return job.steps[1], job
end

--- Run one job on a fake and a worker made for it; its first step, the job, the fake.
function strom.run_one(fields, options, worker_fields)
  local fake = strom.fake(options)
  local job = fake:add(fields)
  strom.worker(fake, worker_fields)
  local step = strom.wait_job(job)
  return step, job, fake
end

--- The lines in the log of a job, of one stream or all.
function strom.lines(job, stream)
  local list = {}
  for _, entry in ipairs(job.log) do
    if not stream or entry.stream == stream then list[#list + 1] = entry.line end
  end
  return list
end

return strom
