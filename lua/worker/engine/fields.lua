-- engine/fields.lua: the configuration of executors that run jobs in containers.
--
-- Everything a container may do is off until somebody switches it on here; `allow` says what a job
-- may ask for beyond that.
local fields = {}

local COMMON = {
  host = { "string", example = "unix:///run/docker.sock",
    doc = "Where the engine is: unix:///path or tcp://host:port; DOCKER_HOST, else /var/run/docker.sock, if absent." },
  tls = { "record", doc = "For tcp: the files to trust and to show; DOCKER_CERT_PATH if absent.", fields = {
    ca = { "path", doc = "Certificates of the authority that signed the engine's." },
    cert = { "path", doc = "Our certificate." },
    key = { "path", doc = "The key of our certificate." },
  } },
  owner = { "string", min = 1, max = 200,
    doc = "Whose containers these are; the host's name if absent. At start, what dead workers of that name left is removed." },
  image = { "string", example = "debian:12", doc = "The image of jobs that name none." },
  images = { "list", of = { "string" }, default = { "*" }, example = { "registry.example/ci/*" },
    doc = "Images that jobs may name; * stands for anything." },
  pull = { "enum", values = { "missing", "always", "never" }, default = "missing",
    doc = "Whether images are fetched: those not here, every time, or never." },
  pull_timeout = { "duration", default = "10m", doc = "How long fetching an image may take." },
  shell = { "list", of = { "string" }, default = { "/bin/sh", "-c" }, min = 1,
    doc = "What runs scripts in the container; the script is its last argument." },
  user = { "string", default = "auto",
    doc = "Who runs the job: auto is the image's own user unless that is root, then 65534:65534; or a user, or uid:gid." },
  network = { "string", default = "none", doc = "The network of the containers: none, bridge, host or a name." },
  read_only = { "boolean", default = true, doc = "Nothing of the image can be written to." },
  tmpfs = { "map", of = { "size" }, default = { ["/tmp"] = "64MiB" }, keys = "^/",
    doc = "Directories in memory, with their sizes." },
  memory = { "size", default = "512MiB", doc = "Most memory." },
  swap = { "size", default = 0, doc = "Most swap on top of the memory." },
  cpus = { "number", min = 0.01, doc = "Most processors at once." },
  pids = { "integer", default = 256, min = 1, doc = "Most processes and threads." },
  capabilities = { "list", of = { "string" }, default = {}, doc = "Capabilities to leave; all others are dropped." },
  no_new_privileges = { "boolean", default = true, doc = "No program gains rights by being executed." },
  seccomp = { "path", doc = "A seccomp profile (JSON); the engine's own if absent." },
  ulimits = { "map", of = { "integer" }, default = {}, doc = "Limits per process by name: nofile, fsize, core, ..." },
  init = { "boolean", default = false, doc = "A small init as the first process; the engine must have one." },
  workspace = { "string", pattern = "^/", example = "/workspace",
    doc = "Where the job's own directory appears, writable, and where the job starts; nowhere if absent." },
  mounts = { "list", default = {}, doc = "What every container sees of this machine.", of = { "record", fields = {
    source = { "path", required = true, doc = "A file or directory of this machine." },
    target = { "string", required = true, pattern = "^/", doc = "Where it appears." },
    write = { "boolean", default = false, doc = "Whether it may be written to." },
  } } },
  mount_roots = { "list", of = { "path" }, default = {},
    doc = "Jobs may ask for mounts of what is in these directories." },
  path_map = { "map", of = { "string" }, default = {}, example = { ["/app/work"] = "/srv/work" },
    doc = "If the worker itself runs in a container: its directories, and what the engine calls them." },
  env = { "map", of = { "string" }, default = {}, doc = "Environment of every container." },
  labels = { "map", of = { "string" }, default = {}, doc = "Labels of every container." },
  stop_signal = { "string", default = "TERM", doc = "The first signal when a job is ended." },
  allow = { "list", default = {}, of = { "enum", values = {
    "network", "user", "read_only", "capabilities", "no_new_privileges", "runtime", "ulimits" } },
    doc = "What a job may change for itself." },
  cache = { "record", doc = "Keep results of jobs without network and mounts, to give them again for the same image and job.",
    fields = {
      entries = { "integer", default = 0, min = 0, doc = "How many results; 0 keeps none." },
      bytes = { "size", default = "64MiB", doc = "How much output in all of them." },
      age = { "duration", default = "1h", doc = "How long a result is good for." },
    } },
}

local function copy(value)
  if type(value) ~= "table" then return value end
  local fresh = {}
  for key, item in pairs(value) do fresh[key] = copy(item) end
  return fresh
end

--- `fields.with(more)`: these and more.
function fields.with(more)
  local all = copy(COMMON)
  for name, field in pairs(more or {}) do all[name] = field end
  return all
end

return fields
