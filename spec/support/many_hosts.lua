-- Run by spec/core/dial_spec.lua in a worker of its own for which "many" has four addresses.
local core = require "worker.core.sock"
local listen = require "worker.core.listen".listen

it("every address of a name is tried", function()
  for _, here in ipairs { "127.0.0.2", "127.0.0.1", "127.0.0.3", "[::1]" } do
    local listener <close> = listen { address = here .. ":0" }
    local port = listener:address():match("%d+$")
    local conn <close> = core.connect { address = "many:" .. port }
    assert.equal(listener:address(), conn:peer())
    local other <close> = core.connect { address = "MANY:" .. port }
    assert.equal(listener:address(), other:peer())
  end
end)
