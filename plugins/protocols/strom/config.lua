-- What worker-config.yaml may say: the keys of Strøm's own worker, under their own names.
local log = require "worker.log"
local secret = require "worker.secret"

local config = {}

local ABILITIES = { "shell", "script", "docker", "kubernetes", "agent" }
local TAKEN = { shell = true, script = true, docker = true }
local TOKEN_LEAST = 32

local IMAGE = "ghcr.io/fremvaerk/stroem-runner:latest" -- what Strøm's own worker runs scripts in

local function unused(what) return { "any", doc = what .. " Read for compatibility; such steps are not taken." } end

config.fields = {
  server_url = { "url", required = true, env = "STROEM__SERVER_URL", example = "http://localhost:8080",
    doc = "Address of the Strøm server." },
  worker_token = { "secret", required = true, env = "STROEM__WORKER_TOKEN",
    doc = "The token that all workers of the server share." },
  worker_name = { "string", min = 1, env = "STROEM__WORKER_NAME",
    doc = "What the server calls this worker; the host's name if absent." },
  max_concurrent = { "integer", min = 1, max = 10000, env = "STROEM__MAX_CONCURRENT",
    doc = "How many steps run at a time; the same as slots." },
  poll_interval_secs = { "duration", default = 2, min = "100ms", env = "STROEM__POLL_INTERVAL_SECS",
    doc = "Wait before asking again when there was no work; up to four times as long while there is none." },
  workspace_dir = { "path", default = "/tmp/stroem-workspace",
    env = { "STROEM__WORKSPACE_DIR", "STROEM__WORKSPACE_CACHE_DIR" },
    doc = "Where workspaces are kept and steps run." },
  workspace_cache_dir = { "path", doc = "Newer name of workspace_dir." },
  max_retained_revisions = { "integer", default = 2, min = 0, env = "STROEM__MAX_RETAINED_REVISIONS",
    doc = "How many revisions of a workspace stay that no step uses." },
  capabilities = { "list", of = { "enum", values = ABILITIES }, default = { "script" }, min = 1,
    doc = "What this worker can do: script (called shell by old servers), docker." },
  tags = { "list", of = { "string", min = 1 }, default = {}, doc = "Labels that steps may ask for." },
  exclusive = { "boolean", default = false, env = "STROEM__EXCLUSIVE", doc = "Take only steps that ask for a label." },
  request_timeout_secs = { "duration", default = 30, min = "1s", env = "STROEM__REQUEST_TIMEOUT_SECS",
    doc = "How long a request may take." },
  connect_timeout_secs = { "duration", default = 10, min = "1s", env = "STROEM__CONNECT_TIMEOUT_SECS",
    doc = "How long connecting may take." },
  heartbeat = { "duration", default = 30, min = "1s", max = "60s",
    doc = "How often the server hears that this worker lives; it gives up after 120s." },
  cancel_poll = { "duration", default = 3, min = "100ms", doc = "How often a running step asks whether it was cancelled." },
  workspace_bytes = { "size", default = "4GiB", doc = "Largest workspace, unpacked." },
  runner_image = { "string", min = 1, example = IMAGE, env = "STROEM__RUNNER_IMAGE",
    doc = "Image of scripts in containers; the action's, then the executor's own, if absent." },
  docker = { "record", doc = "The container engine, unless `executor` is configured.", fields = {
    host = { "string", doc = "Where it is: unix:///path or tcp://host:port; as Docker's own programs find it if absent." },
  } },
  kubernetes = unused "How to reach Kubernetes.",
  agents = unused "Providers of language models.",
}

-- A rule over all of it.
function config.check(conf)
  local able = false
  for _, name in ipairs(conf.capabilities) do able = able or TAKEN[name] end
  if not able then return "steps of these kinds cannot be taken: add script or docker", "capabilities" end
  for _, tag in ipairs(conf.tags) do
    for _, name in ipairs(ABILITIES) do
      if tag == name and name ~= "shell" then
        return ("'%s' is a capability and no label; servers refuse it as one"):format(tag), "tags"
      end
    end
  end
  conf.workspace_dir = conf.workspace_cache_dir or conf.workspace_dir
  if #secret.reveal(conf.worker_token) < TOKEN_LEAST then
    log.warn("strom.short_token", ("worker_token has fewer than %d characters: servers from 0.5.11 on take none like it")
      :format(TOKEN_LEAST))
  end
end

local function takes(conf, ability)
  for _, name in ipairs(conf.capabilities) do
    if name == ability then return true end
  end
  return false
end

--- What holds unless somebody configured it: steps for Docker find what they find with Strøm's own worker,
-- a network and an image that can be written to; the rest stays closed.
function config.suggests(conf)
  if not takes(conf, "docker") then return {} end
  return { executor = { "shell", { docker = { host = conf.docker and conf.docker.host, image = IMAGE, network = "bridge",
    read_only = false } } } }
end

return config
