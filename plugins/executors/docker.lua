-- docker: runs a job in a container of a Docker Engine (dockerd, podman's service).
--
-- A job names an image, and argv or a script; what else it may say is in job.container.  Without a
-- word in the configuration a container has no network, no capabilities, no writable root and no way
-- to gain rights; its user is not root, and memory and processes are bounded.
local engine = require "worker.engine"

local docker = { kind = "executor", name = "docker", api = 1 }

docker.doc = "Runs jobs in containers of a Docker Engine: dockerd, or podman's service."

docker.isolation = "container"

docker.config = engine.fields {
  runtime = { "string", example = "crun", doc = "The engine's runtime to use; its default if absent." },
}

function docker.check(conf)
  engine.check(conf)
end

function docker.plan(conf, job, ctx)
  return engine.plan(conf, job, ctx)
end

function docker.run(conf, job, ctx)
  return engine.run(conf, job, ctx)
end

return docker
