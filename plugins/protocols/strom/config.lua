-- What worker-config.yaml may say: the keys of Strøm's own worker, under their own names.
local log = require "worker.log"
local secret = require "worker.secret"

local config = {}

local ABILITIES = { "shell", "script", "docker", "kubernetes", "agent" }
local TOKEN_LEAST = 32

local function unused(what) return { "any", doc = what .. " Read for compatibility; only script steps are taken." } end

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
    doc = "What this worker can do: script (called shell by old servers)." },
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
  runner_image = unused "Image of script steps in containers.",
  docker = unused "How to reach Docker.",
  kubernetes = unused "How to reach Kubernetes.",
  agents = unused "Providers of language models.",
}

-- A rule over all of it.
function config.check(conf)
  local able = false
  for _, name in ipairs(conf.capabilities) do able = able or name == "shell" or name == "script" end
  if not able then return "only script steps can be taken yet: add script", "capabilities" end
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

return config
