-- timeout: ends a job that takes too long.
local task = require "worker.task"
local time = require "worker.time"

local timeout = { kind = "policy", name = "timeout", api = 1 }

timeout.doc = "Ends a job that takes longer than it said, or longer than is allowed."

timeout.config = {
  default = { "duration", default = "1h", doc = "Limit for jobs that name none." },
  most = { "duration", doc = "No job gets more than this, whatever it asks for." },
}

function timeout.run(conf, next)
  return function(job, ctx)
    local limit = job.timeout or conf.default
    if conf.most then limit = math.min(limit, conf.most) end
    local done, result = task.within(limit, next, job, ctx)
    if done then return result end
    return { state = "timeout", reason = "ran longer than " .. time.format_duration(limit) }
  end
end

return timeout
