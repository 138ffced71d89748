-- secret.lua: values that are not printed, and hiding them where a job prints them.
--
-- A secret shows as *** wherever it is printed; only `reveal` gives its text, so a look for "reveal"
-- finds every place that uses one. The object's own memory is wiped when it goes; copies that Lua
-- makes as strings are not.
local core = require "worker.core.mask"
local log = require "worker.core.log"

local secret = {}

--- `secret.value(text)`: a secret: tostring gives ***, `value:reveal()` the text, `#value` its
-- length; == compares. A secret is given back as it is.
secret.value = core.value

--- `secret.is(value)`: whether it is a secret.
secret.is = core.is_secret

--- `secret.reveal(value)`: the text of a secret; anything else as it is.
function secret.reveal(value)
  if core.is_secret(value) then return value:reveal() end
  return value
end

--- `secret.register(value)`: the worker's own log never prints it from now on (tokens and passwords
-- of the worker itself, not of jobs). Gives the secret, and false when it is too short (under 6
-- bytes) to be hidden.
function secret.register(value)
  local object = core.value(value)
  return object, log.secret(object:reveal())
end

--- `secret.masker(values)`: hides secrets in what a job prints, in all forms in which they are usually
-- printed: `feed(text) -> text` and `finish() -> text` for a stream in chunks, `text(s)` for a whole
-- text, `stream()` for another stream (with feed and finish) that shares the secrets. `values` is a
-- list of strings or secrets, or a table of them by name. `add(value, name)` adds one at any time:
-- true, or false and a sentence when it is too short (under 6 bytes); `refused()` counts those.
-- The second result lists these sentences.
function secret.masker(values)
  local masker, warnings = core.new(), {}
  for name, value in pairs(values or {}) do
    local added, why = masker:add(value, type(name) == "string" and name or nil)
    if not added then warnings[#warnings + 1] = why end
  end
  table.sort(warnings)
  return masker, warnings
end

return secret
