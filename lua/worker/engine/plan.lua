-- engine/plan.lua: what is ordered from an engine, as policies judge it.
--
-- plan.of reads the very table that goes to the engine, and plan.apply writes into it what a policy
-- has changed: nothing in between could differ from either.
local json = require "worker.json"

local plan = {}

local NANO = 1e9

local function size_of(options)
  local size = tostring(options):match("size=(%d+)")
  return size and math.tointeger(tonumber(size))
end

-- A directory that the image declares becomes a volume without a name, writable whatever the rest is.
local function add_volumes(list, image)
  local declared = type(image.Config) == "table" and image.Config.Volumes
  local taken = {}
  for _, mount in ipairs(list) do taken[mount.target] = true end
  for target in pairs(type(declared) == "table" and declared or {}) do
    if not taken[target] then list[#list + 1] = { type = "volume", source = "", target = target, write = true } end
  end
end

local function mounts_of(host, image)
  local list = {}
  for i, mount in ipairs(host.Mounts or {}) do
    list[i] = { type = mount.Type, source = mount.Source, target = mount.Target, write = not mount.ReadOnly }
  end
  for target, options in pairs(host.Tmpfs or {}) do
    list[#list + 1] = { type = "tmpfs", target = target, size = size_of(options), write = true }
  end
  if image then add_volumes(list, image) end
  return list
end

-- Every name that the engine has for an image.
local function names_of(image)
  local names = {}
  for _, field in ipairs { "RepoTags", "RepoDigests" } do
    for _, name in ipairs(type(image[field]) == "table" and image[field] or {}) do names[#names + 1] = name end
  end
  return names
end

--- `plan.of(spec, image)`: the plan of what is to be created; `image` is what the engine knows of the
-- image, nil before it was asked.
function plan.of(spec, image)
  local host = spec.HostConfig
  return {
    isolation = "container", image = spec.Image, image_names = image and names_of(image), user = spec.User,
    cpus = host.NanoCpus and host.NanoCpus / NANO, memory = host.Memory, memory_swap = host.MemorySwap, pids = host.PidsLimit,
    network = host.NetworkMode, ports = {}, mounts = mounts_of(host, image), read_only = host.ReadonlyRootfs,
    privileged = host.Privileged == true, capabilities = table.move(host.CapAdd or {}, 1, #(host.CapAdd or {}), 1, {}),
    labels = spec.Labels, argv = spec.Entrypoint or spec.Cmd,
  }
end

--- `plan.apply(spec, changed)`: what is to be created, as the plan has it now.
function plan.apply(spec, changed)
  local host = spec.HostConfig
  host.NanoCpus = changed.cpus and math.floor(changed.cpus * NANO + 0.5) or nil
  host.Memory, host.MemorySwap, host.PidsLimit = changed.memory, changed.memory_swap, changed.pids
  host.NetworkMode, host.ReadonlyRootfs = changed.network, changed.read_only
  host.CapAdd = json.array(changed.capabilities)
  for i, mount in ipairs(host.Mounts or {}) do mount.ReadOnly = not changed.mounts[i].write end
end

return plan
