-- limits: how much of the machine a job may use.
local err = require "worker.error"
local time = require "worker.time"

local limits = { kind = "policy", name = "limits", api = 1 }

limits.doc = "Bounds memory, processor, processes, file size and open files of each job."

limits.config = {
  memory = { "size", doc = "Most memory; a job that needs more ends as oom." },
  swap = { "size", doc = "Most swap on top of the memory." },
  cpus = { "number", min = 0.01, doc = "Most processors at once; 0.5 is half of one." },
  pids = { "integer", min = 1, doc = "Most processes and threads." },
  file_size = { "size", doc = "Largest file a job may write." },
  open_files = { "integer", min = 8, default = 1024, doc = "Most files open in one process." },
  core_size = { "size", default = 0, doc = "Largest core dump." },
  nice = { "integer", min = -20, max = 19, doc = "Added to the priority: higher is more patient." },
}

-- A job may ask for less than is allowed here, not for more.
local function least(allowed, asked)
  if allowed and asked then return math.min(allowed, asked) end
  return allowed or asked
end

local function number_of(name, value)
  local number = type(value) == "string" and time.parse_size(value) or value
  if type(number) == "number" then return number end
  err.raise("config", ('the job\'s limit "%s": expected a number or a size like "64MiB", got %s'):format(name,
    type(value) == "string" and ('"%s"'):format(value) or "a " .. type(value)))
end

local function lower(into, allowed, asked, ctx)
  for name, value in pairs(asked) do
    if limits.config[name] then
      into[name] = least(allowed[name], number_of(name, value))
    else
      ctx.note(("the job's limit '%s' is not kept: there is none of that name"):format(tostring(name)))
    end
  end
end

function limits.run(conf, next)
  local allowed, names = {}, {}
  for name in pairs(limits.config) do
    allowed[name] = conf[name]
    if conf[name] then names[#names + 1] = name end
  end
  return function(job, ctx)
    local into = ctx.limits
    for i = 1, #names do into[names[i]] = allowed[names[i]] end
    if job.limits then lower(into, allowed, job.limits, ctx) end
    return next(job, ctx)
  end
end

return limits
