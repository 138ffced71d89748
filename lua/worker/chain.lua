-- chain.lua: policies around one call.
--
-- The order is the order written in the configuration, outermost first.  A policy that has nothing
-- to say about a chain is not in it.
local chain = {}

--- `chain.build(which, policies, innermost)`: `policies` is a list of { plugin=, conf= }; returns the
-- function that goes through all of them to `innermost`.
function chain.build(which, policies, innermost)
  local call = innermost
  for i = #policies, 1, -1 do
    local policy = policies[i]
    local wrap = policy.plugin[which]
    if wrap then call = wrap(policy.conf, call) end
  end
  return call
end

return chain
