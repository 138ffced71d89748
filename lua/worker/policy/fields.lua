-- policy/fields.lua: what a policy file may say.
--
-- What is not said is not allowed: a switch that is missing is off, and a limit that is missing is none.
local fields = {}

local function patterns(doc, example)
  return { "list", of = { "string", min = 1 }, default = {}, doc = doc, example = example and { example } or nil }
end

local function numbers(doc)
  return { "list", of = { "integer", min = 0 }, default = {}, doc = doc }
end

local function switch(doc)
  return { "boolean", default = false, doc = doc }
end

local quotas = {
  max_cpus = { "integer", min = 1, example = 4000000000, doc = "Most processor, in billionths of one." },
  min_cpus = { "integer", min = 1, doc = "Least processor, in billionths of one." },
  max_memory = { "size", example = "8GiB", doc = "Most memory." },
  min_memory = { "size", doc = "Least memory." },
  max_memory_swap = { "one_of", of = { "size", { "integer", min = -1, max = -1 } },
    doc = "Most memory and swap together; -1 for as much as there is." },
  max_pids = { "integer", min = 1, example = 1024, doc = "Most processes." },
}

local mounts = {
  allow_bind_mounts = switch "Whether directories of the machine may be mounted.",
  allowed_bind_sources = patterns("Which directories; all if empty. * stands for anything.", "/srv/projects/*"),
  denied_bind_sources = patterns("Which directories never, with all below them and those they are in.", "/etc"),
  allow_volumes = switch "Whether volumes of the engine may be mounted.",
  allowed_volumes = patterns "Which volumes; all if empty.",
  denied_volumes = patterns "Which volumes never.",
  allow_tmpfs = switch "Whether directories in memory may be mounted.",
  max_tmpfs_size = { "size", doc = "Most memory of each of them." },
  enforce_read_only_rootfs = switch "Whether the container's own files have to be read-only.",
  mount_allowlist = { "list", default = {}, example = { { path = "/srv/docs/*", mode = "readonly" } },
    doc = "Instead of the two lists of sources: for a user, for a group, for everybody else; the first that fits counts.",
    of = { "record", fields = {
      path = { "string", required = true, pattern = "^/", doc = "The directory; * stands for anything." },
      user = { "string", min = 1, doc = "For whom: the label `username` of the job." },
      group = { "string", min = 1, doc = "For the users of which group of this machine." },
      mode = { "enum", values = { "readonly", "readwrite", "denied" }, default = "readonly", doc = "How it may be mounted." },
      check = function(entry)
        if entry.user and entry.group then return "is for a user or for a group, not for both", "group" end
      end,
    } } },
}

local network = {
  allow_network = switch "Whether containers may have a network.",
  allow_host_network = switch "Whether they may have that of the machine.",
  allowed_networks = patterns("Which networks; all if empty.", "bridge"),
  denied_networks = patterns "Which networks never.",
}

local images = {
  allowed_images = patterns("Which images; all if empty. Without a registry docker.io is meant, without a tag any.",
    "docker.io/library/*"),
  denied_images = patterns "Which images never.",
  require_digest = switch "Whether an image has to be named by its digest.",
  allow_latest_tag = switch "Whether the tag latest may be used.",
}

local security = {
  allow_privileged = switch "Whether jobs may have all rights over the machine.",
  allowed_capabilities = patterns("Which capabilities may be left to a job; none if empty.", "NET_BIND_SERVICE"),
  add_capabilities = patterns "Capabilities that every container gets.",
  drop_capabilities = patterns "Capabilities that none keeps.",
  allow_root = switch "Whether jobs may run as root.",
  require_non_root = switch "Whether it has to be certain that they do not.",
  allowed_uids = numbers "Which user ids they may run as; all if empty.",
  allowed_gids = numbers "Which group ids they may run as; all if empty.",
  read_only_rootfs = switch "Whether the container's own files have to be read-only.",
}

fields.all = {
  id = { "string", default = "default", min = 1, doc = "What log and events call it." },
  name = { "string", default = "Policy", doc = "What people call it." },
  description = { "string", doc = "What it is for." },
  mode = { "enum", values = { "strict", "permissive", "disabled" }, default = "strict",
    doc = "strict: what breaks a rule is not run. permissive: it is mended where that is possible, run, and told. "
      .. "disabled: nothing is looked at." },
  labels = { "map", of = { "string" }, default = {}, doc = "To be found again." },
  quotas = { "record", doc = "How much; what a job leaves open is filled in from the maxima.", fields = quotas },
  mounts = { "record", doc = "What of the machine is seen.", fields = mounts },
  network = { "record", doc = "Who can be talked to.", fields = network },
  images = { "record", doc = "What is run.", fields = images },
  security = { "record", doc = "As whom, and with which rights.", fields = security },
}

-- The policy of those who have none.
fields.default = {
  id = "default", name = "Default Policy", mode = "strict",
  quotas = { max_cpus = 4000000000, max_memory = "8GiB", max_memory_swap = "8GiB", max_pids = 1024 },
  mounts = { allow_volumes = true, allow_tmpfs = true, max_tmpfs_size = "256MiB" },
  network = { allow_network = true },
}

return fields
