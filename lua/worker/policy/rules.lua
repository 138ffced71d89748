-- policy/rules.lua: every rule: its id, when it is broken, and how a container is mended.
--
-- A rule has check(policy, plan): nil where policy or plan have nothing to do with it, true when it is
-- kept, false and what is wrong when it is broken.  mend(policy, plan) changes the plan so that the
-- rule is kept and says what it did.  fill(policy, plan) does the same for what nobody asked for: it
-- comes first, whatever the mode is.
local groups = require "worker.policy.groups"
local match = require "worker.policy.match"
local time = require "worker.time"

local NANO = 1e9

local rules = {}

local function rule(id, definition)
  definition.id, definition.severity = id, definition.severity or "error"
  rules[#rules + 1] = definition
end

-- Quotas ------------------------------------------------------------------------------------------------

local function nano_of(plan) return plan.cpus and math.floor(plan.cpus * NANO + 0.5) end

local function processors(nano) return ("%.3g processors"):format(nano / NANO) end

local function at_most(value, most, shown)
  if not most or not value then return nil end
  if value <= most then return true end
  return false, ("%s is more than %s"):format(shown(value), shown(most))
end

local function at_least(value, least, shown)
  if not least or not value then return nil end
  if value >= least then return true end
  return false, ("%s is less than %s"):format(shown(value), shown(least))
end

-- What nobody has bounded is bounded by the policy.
local function filler(name, limit, shown)
  return function(policy, plan)
    local most = policy.quotas[limit]
    if plan[name] or not most then return nil end
    plan[name] = most
    return "set to " .. shown(most)
  end
end

rule("quota.cpu.max", {
  check = function(policy, plan) return at_most(nano_of(plan), policy.quotas.max_cpus, processors) end,
  fill = function(policy, plan)
    if plan.cpus or not policy.quotas.max_cpus then return nil end
    plan.cpus = policy.quotas.max_cpus / NANO
    return "set to " .. processors(policy.quotas.max_cpus)
  end,
})

rule("quota.cpu.min", { severity = "warning",
  check = function(policy, plan) return at_least(nano_of(plan), policy.quotas.min_cpus, processors) end })

rule("quota.memory.max", {
  check = function(policy, plan) return at_most(plan.memory, policy.quotas.max_memory, time.format_size) end,
  fill = filler("memory", "max_memory", time.format_size),
})

rule("quota.memory.min", { severity = "warning",
  check = function(policy, plan) return at_least(plan.memory, policy.quotas.min_memory, time.format_size) end })

rule("quota.memory_swap.max", {
  check = function(policy, plan)
    local most, value = policy.quotas.max_memory_swap, plan.memory_swap
    if not most or not value then return nil end
    if most == -1 then return true end
    if value == -1 then return false, "swap is unbounded" end
    return at_most(value, most, time.format_size)
  end,
  -- swap without memory would be refused by the engine
  fill = function(policy, plan)
    local most = policy.quotas.max_memory_swap
    if plan.memory_swap or not most or most == -1 or not plan.memory then return nil end
    plan.memory_swap = plan.memory
    return "set to " .. time.format_size(plan.memory_swap)
  end,
})

rule("quota.pids.max", {
  check = function(policy, plan) return at_most(plan.pids, policy.quotas.max_pids, tostring) end,
  fill = filler("pids", "max_pids", tostring),
})

-- Mounts ------------------------------------------------------------------------------------------------

local function of_type(plan, kind)
  local list = {}
  for _, mount in ipairs(plan.mounts or {}) do
    if mount.type == kind then list[#list + 1] = mount end
  end
  return list
end

local function names_of(list, field)
  local names = {}
  for i, mount in ipairs(list) do names[i] = tostring(mount[field]) end
  return table.concat(names, ", ")
end

local function switched(kind, switch, what, field)
  return function(policy, plan)
    local list = of_type(plan, kind)
    if #list == 0 then return nil end
    if policy.mounts[switch] then return true end
    return false, ("%s are not allowed: %s"):format(what, names_of(list, field))
  end
end

-- Those of a kind that `is_fine` does not let pass.
local function all_fine(list, what, is_fine)
  if #list == 0 then return nil end
  local bad = {}
  for _, mount in ipairs(list) do
    if not is_fine(mount) then bad[#bad + 1] = mount end
  end
  if #bad == 0 then return true end
  return false, ("%s: %s"):format(what, names_of(bad, bad[1].source and "source" or "target"))
end

local function touched(patterns, source)
  for _, pattern in ipairs(patterns) do
    if match.touches(pattern, source) then return true end
  end
  return false
end

-- The mode that the allowlist has for a directory: a user's entries before a group's before those for
-- everybody.
local function listed_mode(policy, plan, source)
  local user = (plan.labels or {}).username
  local function first(applies)
    for _, entry in ipairs(policy.mounts.mount_allowlist) do
      local fits = entry.mode == "denied" and match.touches(entry.path, source) or match.glob(entry.path, source)
      if fits and applies(entry) then return entry.mode end
    end
  end
  return first(function(entry) return entry.user ~= nil and entry.user == user end)
    or first(function(entry) return entry.group ~= nil and user ~= nil and groups.has(entry.group, user) end)
    or first(function(entry) return not entry.user and not entry.group end)
end

local function may_bind(policy, plan, source)
  local mounts = policy.mounts
  if #mounts.mount_allowlist > 0 then return (listed_mode(policy, plan, source) or "denied") ~= "denied" end
  if touched(mounts.denied_bind_sources, source) then return false end
  return #mounts.allowed_bind_sources == 0 or match.any(mounts.allowed_bind_sources, source)
end

rule("mount.bind.disabled", { check = switched("bind", "allow_bind_mounts", "directories of the machine", "source") })

rule("mount.bind.source_not_allowed", {
  check = function(policy, plan)
    return all_fine(of_type(plan, "bind"), "not to be mounted", function(mount)
      return may_bind(policy, plan, mount.source)
    end)
  end,
  fill = function(policy, plan)
    local closed = {}
    for _, mount in ipairs(#policy.mounts.mount_allowlist > 0 and of_type(plan, "bind") or {}) do
      if mount.write and listed_mode(policy, plan, mount.source) == "readonly" then
        mount.write = false
        closed[#closed + 1] = mount
      end
    end
    return #closed > 0 and "made read-only: " .. names_of(closed, "source") or nil
  end,
})

rule("mount.volume.disabled", { check = switched("volume", "allow_volumes", "volumes", "target") })

rule("mount.volume.not_allowed", {
  check = function(policy, plan)
    local mounts = policy.mounts
    return all_fine(of_type(plan, "volume"), "not to be mounted", function(mount)
      local allowed = #mounts.allowed_volumes == 0 or match.any(mounts.allowed_volumes, mount.source or "")
      return allowed and not match.any(mounts.denied_volumes, mount.source or "")
    end)
  end,
})

rule("mount.tmpfs.disabled", { check = switched("tmpfs", "allow_tmpfs", "directories in memory", "target") })

rule("mount.tmpfs.size_exceeded", {
  check = function(policy, plan)
    local most = policy.mounts.max_tmpfs_size
    if not most then return nil end
    return all_fine(of_type(plan, "tmpfs"), "larger than " .. time.format_size(most), function(mount)
      return mount.size ~= nil and mount.size <= most
    end)
  end,
})

local function read_only(section, switch)
  return {
    field = "read_only",
    check = function(policy, plan)
      if not policy[section][switch] then return nil end
      if plan.read_only then return true end
      return false, "the job may write to the files it is started from"
    end,
    mend = function(_, plan)
      plan.read_only = true
      return "made read-only"
    end,
  }
end

rule("mount.readonly_rootfs.required", read_only("mounts", "enforce_read_only_rootfs"))

-- Network -----------------------------------------------------------------------------------------------

local USUAL = { bridge = true, default = true, host = true }

local function has_network(plan) return (plan.network or "none") ~= "none" end

local function cut(_, plan)
  plan.network = "none"
  return "cut"
end

rule("network.host.disabled", { field = "network", mend = cut,
  check = function(policy, plan)
    if plan.network ~= "host" then return nil end
    if policy.network.allow_host_network then return true end
    return false, "the job has the network of the machine"
  end })

rule("network.disabled", { field = "network", mend = cut,
  check = function(policy, plan)
    if not has_network(plan) then return nil end
    if policy.network.allow_network then return true end
    return false, "the job has a network: " .. plan.network
  end })

rule("network.configured", { field = "network", mend = cut,
  check = function(policy, plan)
    if policy.network.allow_network or not has_network(plan) or USUAL[plan.network] then return nil end
    return false, "the job joins the network " .. plan.network
  end })

rule("network.ports.disabled", {
  check = function(policy, plan)
    if #(plan.ports or {}) == 0 then return nil end
    if policy.network.allow_network then return true end
    return false, "the job can be reached at ports: " .. table.concat(plan.ports, ", ")
  end,
  mend = function(_, plan)
    plan.ports = {}
    return "closed"
  end,
})

rule("network.denied", { field = "network", mend = cut,
  check = function(policy, plan)
    if #policy.network.denied_networks == 0 or not has_network(plan) then return nil end
    if not match.any(policy.network.denied_networks, plan.network) then return true end
    return false, plan.network
  end })

rule("network.not_allowed", { field = "network", mend = cut,
  check = function(policy, plan)
    if #policy.network.allowed_networks == 0 or not has_network(plan) then return nil end
    if match.any(policy.network.allowed_networks, plan.network) then return true end
    return false, plan.network
  end })

-- Images ------------------------------------------------------------------------------------------------

local function of_image(check)
  return { check = function(policy, plan)
    if not plan.image then return nil end
    return check(policy.images, plan, match.names(plan.image, plan.image_names))
  end }
end

-- By any of its names.
rule("image.denied", of_image(function(images, plan)
  if #images.denied_images == 0 then return nil end
  for _, name in ipairs { plan.image, table.unpack(plan.image_names or {}) } do
    if match.any_image(images.denied_images, name, true) then return false, match.image(name) end
  end
  return true
end))

rule("image.not_allowed", of_image(function(images, plan, names)
  if #images.allowed_images == 0 then return nil end
  for _, name in ipairs(names) do
    if match.any_image(images.allowed_images, name) then return true end
  end
  return false, names[1] or plan.image
end))

rule("image.latest_tag", of_image(function(images, plan)
  local tag, digest = match.tag(plan.image)
  if tag ~= "latest" or digest then return nil end
  if images.allow_latest_tag then return true end
  return false, match.image(plan.image)
end))

rule("image.digest_required", of_image(function(images, plan)
  if not images.require_digest then return nil end
  if select(2, match.tag(plan.image)) then return true end
  return false, match.image(plan.image)
end))

-- Security ----------------------------------------------------------------------------------------------

local function id_of(word)
  return word == "root" and 0 or math.tointeger(tonumber(word or ""))
end

-- User and group as numbers; nil for what is a name that only the image knows.
local function ids_of(plan)
  local user, group = plan.user:match("^([^:]*):?(.*)$")
  return user == "" and 0 or id_of(user), group ~= "" and id_of(group) or nil
end

rule("security.privileged.disabled", {
  check = function(policy, plan)
    if not plan.privileged then return nil end
    if policy.security.allow_privileged then return true end
    return false, "the job has all rights over the machine"
  end,
})

rule("security.root.disabled", {
  check = function(policy, plan)
    if not plan.user then return nil end
    if policy.security.allow_root or ids_of(plan) ~= 0 then return true end
    return false, "the job runs as root"
  end,
})

rule("security.non_root_required", {
  check = function(policy, plan)
    if not policy.security.require_non_root or not plan.user then return nil end
    local uid = ids_of(plan)
    if uid and uid ~= 0 then return true end
    return false, uid and "the job runs as root" or ("nobody knows whether '%s' is root"):format(plan.user)
  end,
})

local function among(list, id, user)
  if #list == 0 or not user then return nil end
  for _, one in ipairs(list) do
    if one == id then return true end
  end
  return false, id and tostring(id) or ("nobody knows the number of '%s'"):format(user)
end

rule("security.uid.not_allowed", {
  check = function(policy, plan)
    return among(policy.security.allowed_uids, plan.user and ids_of(plan), plan.user)
  end,
})

rule("security.gid.not_allowed", {
  check = function(policy, plan)
    return among(policy.security.allowed_gids, plan.user and select(2, ids_of(plan)), plan.user)
  end,
})

local function capability(name) return (name:upper():gsub("^CAP_", "")) end

local function holds(list, name)
  for _, one in ipairs(list) do
    if capability(one) == capability(name) or one == "*" or one:upper() == "ALL" then return true end
  end
  return false
end

rule("security.capability.not_allowed", {
  check = function(policy, plan)
    local security, bad = policy.security, {}
    if #(plan.capabilities or {}) == 0 then return nil end
    for _, name in ipairs(plan.capabilities) do
      local allowed = holds(security.allowed_capabilities, name) or holds(security.add_capabilities, name)
      if not allowed or holds(security.drop_capabilities, name) then bad[#bad + 1] = capability(name) end
    end
    if #bad == 0 then return true end
    return false, table.concat(bad, ", ")
  end,
  mend = function(policy, plan)
    local security, kept = policy.security, {}
    for _, name in ipairs(plan.capabilities) do
      local allowed = holds(security.allowed_capabilities, name) or holds(security.add_capabilities, name)
      if allowed and not holds(security.drop_capabilities, name) then kept[#kept + 1] = name end
    end
    plan.capabilities = kept
    return "dropped"
  end,
  field = "capabilities",
  fill = function(policy, plan)
    local added = {}
    for _, name in ipairs(plan.capabilities and policy.security.add_capabilities or {}) do
      if not holds(plan.capabilities, name) and not holds(policy.security.drop_capabilities, name) then
        table.insert(plan.capabilities, capability(name))
        added[#added + 1] = capability(name)
      end
    end
    return #added > 0 and "added: " .. table.concat(added, ", ") or nil
  end,
})

rule("security.readonly_rootfs.required", read_only("security", "read_only_rootfs"))

return rules
