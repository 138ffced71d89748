-- facts/containers.lua: docker, podman, gVisor.
local core = require "worker.core.facts"
local sys = require "worker.core.sys"

local containers = { name = "containers" }

local PATIENCE = 0.5 -- seconds for an engine on this host to answer

-- The Docker Engine API over its socket: nil and why when there is no answer.
local function get(socket, path)
  local ok, http = pcall(require, "worker.http")
  if not ok then return nil, "no HTTP client in this build" end
  local answered, reply = pcall(function()
    local client <close> = http.client { base = "http://engine", unix = socket, timeout = PATIENCE }
    return client:get(path)
  end)
  if not answered then return nil, tostring(reply) end
  return reply
end

local function docker_socket(options)
  local host = options.docker and "unix://" .. options.docker or sys.env("DOCKER_HOST")
  if not host then return "/var/run/docker.sock" end
  return host:match("^unix://(.+)$"), host
end

local function engine(socket, install)
  if not core.may(socket) then return "no", ("no socket at %s"):format(socket), install end
  local may, why = core.may(socket, "rw")
  if not may then
    return "no", ("%s: %s"):format(socket, why), "add this user to the socket's group"
  end
  local reply
  reply, why = get(socket, "/version")
  if not reply then return "no", ("%s does not answer: %s"):format(socket, why), "start the engine" end
  local version = type(reply.json) == "table" and reply.json.Version or "?"
  return "yes", ("%s, version %s"):format(socket, tostring(version))
end

local function docker(options)
  local socket, host = docker_socket(options)
  if not socket then return "unknown", ("DOCKER_HOST is %s, not a socket here"):format(host) end
  return engine(socket, "apt-get install docker.io")
end

local function podman_socket()
  local own = sys.env("XDG_RUNTIME_DIR")
  own = own and own .. "/podman/podman.sock"
  return own and core.may(own) and own or "/run/podman/podman.sock"
end

local function podman()
  return engine(podman_socket(), "apt-get install podman; systemctl enable --now podman.socket")
end

local function on_path(program)
  for dir in (sys.env("PATH") or "/usr/bin:/bin"):gmatch("[^:]+") do
    local path = dir .. "/" .. program
    if core.may(path, "x") then return path end
  end
end

local function gvisor(options)
  local path = on_path("runsc")
  local socket = docker_socket(options)
  local reply = socket and core.may(socket, "rw") and get(socket, "/info")
  local runtimes = reply and type(reply.json) == "table" and reply.json.Runtimes
  if type(runtimes) == "table" and runtimes.runsc then
    return "yes", "docker has the runtime runsc"
  elseif path then
    return "partly", ("%s, but docker does not know it"):format(path),
      "add it under \"runtimes\" in /etc/docker/daemon.json and restart docker"
  end
  return "no", "runsc is not on the PATH", "apt-get install runsc"
end

containers.questions = {
  { "docker", docker },
  { "podman", podman },
  { "gVisor", gvisor },
}

return containers
