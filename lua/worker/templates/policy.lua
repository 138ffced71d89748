-- policy.lua: what `worker new policy` writes.  @NAME@ is the plugin's name, @VAR@ the same as a Lua
-- name.
return {
  folder = "policies",
  plugin = [==[
-- @NAME@: a rule around every job.
--
-- A policy wraps one or more of claim, run and finish: it gets the next function and returns one of
-- its own.  What it does before and after calling `next` is the rule; not calling it is a refusal.
local @VAR@ = { kind = "policy", name = "@NAME@", api = 1 }

@VAR@.doc = "Refuses jobs that lack a variable they should have."

@VAR@.config = {
  needs = { "list", of = "string", default = {}, doc = "Variables that every job must set.",
    example = { "PROJECT" } },
}

function @VAR@.run(conf, next)
  return function(job, ctx)
    for _, name in ipairs(conf.needs) do
      if not (job.env and job.env[name]) then
        return { state = "failed", reason = ("the job does not set %s"):format(name) }
      end
    end
    return next(job, ctx)
  end
end

return @VAR@
]==],
  spec = [==[
-- The policy @NAME@ around a run that always succeeds.
local registry = require "worker.registry"
local schema = require "worker.schema"

local @VAR@ = assert(registry.open({ "plugins" }):get("policy", "@NAME@"))

describe("the policy @NAME@", function()
  local function run(conf, job)
    local call = @VAR@.run(assert(schema.check(@VAR@, conf)), function() return { state = "success" } end)
    return call(job, {})
  end

  it("lets jobs pass", function()
    assert.equal("success", run({}, { id = "1" }).state)
    assert.equal("success", run({ needs = { "PROJECT" } }, { id = "1", env = { PROJECT = "x" } }).state)
  end)

  it("refuses a job without the variable, and says why", function()
    local result = run({ needs = { "PROJECT" } }, { id = "1" })
    assert.equal("failed", result.state)
    assert.matches("PROJECT", result.reason)
  end)
end)
]==],
  next = {
    "worker spec spec/plugins/@NAME@_spec.lua", "worker explain @NAME@",
    "add it to `policies: run:` in worker.yaml",
  },
}
