-- env: what a job's environment looks like before the job adds its own.
local process = require "worker.process"
local secret = require "worker.secret"

local env = { kind = "policy", name = "env", api = 1 }

env.doc = "Builds each job's environment from nothing: a few fixed names, and those allowed here."

env.config = {
  path = { "string", default = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    doc = "PATH of the jobs." },
  pass = { "list", of = { "string" }, default = {},
    doc = "Names of the worker's own environment that jobs may see." },
  set = { "map", of = { "string" }, default = {}, env = "WORKER_JOB_ENV",
    doc = "Names and values that every job gets." },
  secrets = { "map", of = { "secret" }, default = {}, env = "WORKER_JOB_SECRETS",
    doc = "The same, but the policy mask hides the values in output and results." },
}

-- These tell a child how to talk to our supervisor, or where our secrets are: never passed on.
local NEVER = { NOTIFY_SOCKET = true, WATCHDOG_USEC = true, WATCHDOG_PID = true, LISTEN_FDS = true,
  LISTEN_PID = true, LISTEN_FDNAMES = true, CREDENTIALS_DIRECTORY = true, INVOCATION_ID = true,
  JOURNAL_STREAM = true }

local function may_pass(name)
  return not NEVER[name] and not name:find("^WORKER_")
end

function env.run(conf, next)
  local fixed = { PATH = conf.path, LANG = "C.UTF-8", SHELL = "/bin/sh" }
  for _, name in ipairs(conf.pass) do
    if may_pass(name) then fixed[name] = process.inherited(name) or fixed[name] end
  end
  for name, value in pairs(conf.set) do fixed[name] = value end
  local secrets = {}
  for name, value in pairs(conf.secrets) do
    fixed[name] = secret.reveal(value)
    secrets[#secrets + 1] = value
  end
  local tmpdir = fixed.TMPDIR
  fixed.TMPDIR, fixed.WORKER_JOB_ID = "", "" -- room for those of each job
  return function(job, ctx)
    -- who the job is and where its home is, only its executor knows
    local own = process.env(fixed)
    own.TMPDIR, own.WORKER_JOB_ID = tmpdir or ctx.workdir or "/tmp", job.id
    ctx.env = own
    for i = 1, #secrets do ctx.secrets[#ctx.secrets + 1] = secrets[i] end
    return next(job, ctx)
  end
end

return env
