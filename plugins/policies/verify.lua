-- verify: a second command decides whether a job has done what it should.
local verify = { kind = "policy", name = "verify", api = 1 }

verify.doc = "Runs a command after a job that succeeded; the job has failed when that command fails."

verify.config = {
  command = { "string", example = "make check test", doc = "For jobs that bring none of their own; run by a shell." },
}

-- The same job with the same folder, environment and limits, but another command.
local function check_of(job, command)
  local check = {}
  for key, value in pairs(job) do check[key] = value end
  check.argv, check.stdin, check.script = nil, nil, command
  return check
end

function verify.run(conf, next)
  return function(job, ctx)
    local result = next(job, ctx)
    local command = job.verify or conf.command
    if not command or type(result) ~= "table" or result.state ~= "success" then return result end
    ctx.note("verification: " .. command)
    local checked = next(check_of(job, command), ctx)
    if checked.state == "success" then return result end
    checked.verify = true
    checked.reason = "the verification failed: " .. (checked.reason or checked.state)
    return checked
  end
end

return verify
