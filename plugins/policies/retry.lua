-- retry: reports a result again and again until the server has it.
local log = require "worker.log"
local retry = require "worker.retry"
local task = require "worker.task"

local policy = { kind = "policy", name = "retry", api = 1 }

policy.doc = "Reports a result again until the server has taken it, or refuses it for good."

policy.finish_by_id = true

policy.config = {
  ["for"] = { "duration", default = "24h", doc = "How long to go on trying." },
  first = { "duration", default = "1s", doc = "Wait after the first failure; doubles from there." },
  most = { "duration", default = "1m", doc = "Longest wait between two tries." },
}

function policy.finish(conf, next)
  return function(job, result)
    local ok, why = task.try(next, job, result)
    if ok then return why end
    if retry.classify(why) == "retry" then
      log.warn("job.report_late", ("job %s: the server did not take the result: %s; trying again")
        :format(job.id, tostring(why)), { job = job.id })
    end
    -- Nearly every report arrives at once: only what has failed gets a plan.
    for attempt in retry.attempts { first = conf.first, most = conf.most, for_ = conf["for"] } do
      if retry.classify(why) ~= "retry" or not attempt:wait(why.retry_after) then error(why, 0) end
      ok, why = task.try(next, job, result)
      if ok then return why end
    end
  end
end

return policy
