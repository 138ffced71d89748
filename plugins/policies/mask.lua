-- mask: secrets do not appear in logs and results.
local err = require "worker.error"
local log = require "worker.log"
local secret = require "worker.secret"

local mask = { kind = "policy", name = "mask", api = 1 }

mask.doc = "Replaces secrets in a job's output and result by ***, also across chunks and encoded."

mask.config = {
  values = { "list", of = { "secret" }, default = {}, doc = "Secrets of every job." },
  env = { "list", of = { "string" }, default = {},
    doc = "Names whose values in the job's environment are secret." },
}

local function secrets_of(conf, job, ctx)
  local list = {}
  for _, value in ipairs(conf.values) do list[#list + 1] = secret.reveal(value) end
  for _, value in ipairs(ctx.secrets) do list[#list + 1] = secret.reveal(value) end
  for _, name in ipairs(conf.env) do list[#list + 1] = job.env and job.env[name] end
  return list
end

-- What the job could not do may name what nobody should see: a program, an address.
local function masked_error(masker, why)
  if type(why) == "string" then return masker:text(why) end
  if err.is(why) and type(why.message) == "string" then why.message = masker:text(why.message) end
  return why
end

function mask.run(conf, next)
  local nothing_of_ours = #conf.values == 0 and #conf.env == 0
  return function(job, ctx)
    if nothing_of_ours and #ctx.secrets == 0 then return next(job, ctx) end
    local list = secrets_of(conf, job, ctx)
    if #list == 0 then return next(job, ctx) end
    local masker, too_short = secret.masker(list)
    for _, why in ipairs(too_short) do
      log.warn("mask.short", ("job %s: %s"):format(job.id, why), { job = job.id })
    end
    local plain, streams = ctx.log, {}
    function ctx.log(stream, data)
      streams[stream] = streams[stream] or masker:stream()
      plain(stream, streams[stream]:feed(data))
    end
    -- What a masker still holds back comes out when the job has ended, however it ended.
    local _ <close> = setmetatable({}, { __close = function()
      for stream, masked in pairs(streams) do plain(stream, masked:finish()) end
      ctx.log = plain
    end })
    local ok, result = pcall(next, job, ctx)
    if not ok then error(masked_error(masker, result), 0) end
    if type(result) == "table" and type(result.reason) == "string" then
      result.reason = masker:text(result.reason)
    end
    return result
  end
end

return mask
