-- chain.lua: policies around one call.
--
-- The order is the order written in the configuration, outermost first.  A policy that has nothing
-- to say about a chain, or returns `next` itself, is not in it.
local guard = require "worker.guard"

local chain = {}

local function link(which, policy, call, own, folder)
  local wrapped = policy.plugin[which](policy.conf, call, own, folder)
  if type(wrapped) ~= "function" then
    error(("policy '%s': its '%s' returned a %s; it returns the function to call instead of `next`")
      :format(policy.plugin.name, which, type(wrapped)), 0)
  end
  return wrapped == call and call or guard.wrap(wrapped)
end

--- `chain.build(which, policies, innermost, own, folder)`: `policies` is a list of { plugin=, conf= };
-- returns the function that goes through all of them to `innermost`.  `own(handle)` is for what a policy
-- keeps from one call to the next: it is closed with the server.  In `folder` jobs have their directories.
function chain.build(which, policies, innermost, own, folder)
  local call = innermost
  for i = #policies, 1, -1 do
    if policies[i].plugin[which] then call = link(which, policies[i], call, own, folder) end
  end
  return call
end

return chain
