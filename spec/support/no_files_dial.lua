-- Run by spec/core/dial_spec.lua in a worker of its own that may have very few file descriptors.
local core = require "worker.core.sock"
local http = require "worker.http"
local listen = require "worker.core.listen".listen
local sys = require "worker.core.sys"
local task = require "worker.task"

it("connecting without file descriptors fails and leaves nothing", function()
  local listener <close> = listen { unix = "@no-files-dial-" .. sys.pid(), max_connections = 1000 }
  local unix, ends = listener:address():sub(6), {}
  repeat
    local connected, conn = pcall(core.connect, { unix = unix })
    ends[#ends + 1] = connected and conn or nil
  until not connected
  for _, address in ipairs { "127.0.0.1:1", "localhost:1", "some.name.invalid:1" } do
    local ok, why = pcall(core.connect, { address = address })
    assert.is_false(ok)
    assert.equal("transport", why.kind)
    assert.matches("Too many open files", why.message)
    local api <close> = http.client { base = "http://" .. address }
    ok, why = task.try(api.post, api, "/")
    assert.is_false(ok)
    assert.same({ "connect", false }, { why.reason, why.sent })
    assert.matches("Too many open files", why.message)
  end
  for _, conn in ipairs(ends) do conn:close() end
end)
