-- again: a job that failed is run once more, if it wants to.
local task = require "worker.task"

local again = { kind = "policy", name = "again", api = 1 }

again.doc = "Runs a job that failed again, as often as it asks for by its `retries`."

again.config = {
  most = { "integer", default = 3, min = 0, max = 100, doc = "How often at most, whatever a job asks for." },
  pause = { "duration", default = "1s", doc = "How long to wait before each time; twice as long before the next." },
}

-- What another try may change; a refusal stays one.
local function may_change(result)
  return type(result) == "table" and (result.state == "failed" or result.state == "error") and not result.rules
end

function again.run(conf, next)
  return function(job, ctx)
    if not job.retries then return next(job, ctx) end
    local left = math.min(math.tointeger(job.retries) or 0, conf.most)
    local result = next(job, ctx)
    local pause, most = conf.pause, left
    while left > 0 and may_change(result) and not ctx.is_draining() do
      ctx.note(("%s; again in %g s (%d of %d)"):format(result.reason or result.state, pause, most - left + 1, most))
      task.sleep(pause)
      result = next(job, ctx)
      left, pause = left - 1, pause * 2
    end
    return result
  end
end

return again
