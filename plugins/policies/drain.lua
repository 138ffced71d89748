-- drain: how long a job may go on once the worker is asked to stop.
local task = require "worker.task"
local time = require "worker.time"

local drain = { kind = "policy", name = "drain", api = 1 }

drain.doc = "Ends jobs that are still running some time after the worker was asked to stop."

drain.config = {
  limit = { "duration",
    doc = "How long a job may go on after the worker was asked to stop; shutdown.timeout if absent." },
}

local function watch(conf, ctx)
  while not ctx.is_draining() do ctx.draining:wait() end
  task.sleep(conf.limit)
  ctx.note(("the worker stops and this job had %s to finish: it is ended"):format(
    time.format_duration(conf.limit)))
  ctx.cancel("the worker stops")
end

function drain.run(conf, next)
  if not conf.limit then return next end
  return function(job, ctx)
    return task.scope(function(scope)
      scope:spawn(watch, conf, ctx)
      return next(job, ctx)
    end)
  end
end

return drain
