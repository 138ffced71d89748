-- gvisor: runs a job in a container under gVisor, which stands between it and this machine's kernel.
--
-- The same as docker, with another runtime.  That the runtime is there is asked of the engine, that it
-- works is proved by running something under it before the first job.
local engine = require "worker.engine"

local gvisor = { kind = "executor", name = "gvisor", api = 1 }

gvisor.doc = "Runs jobs in containers under gVisor: each has a kernel of its own."

gvisor.isolation = "sandbox"

gvisor.config = engine.fields {
  runtime = { "string", default = "runsc", doc = "The engine's name for gVisor's runtime, or the name of its program." },
}

function gvisor.check(conf)
  engine.check(conf, conf.runtime)
end

function gvisor.plan(conf, job, ctx)
  return engine.plan(conf, job, ctx)
end

function gvisor.run(conf, job, ctx)
  return engine.run(conf, job, ctx, conf.runtime)
end

return gvisor
