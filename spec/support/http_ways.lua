-- http_ways.lua: the same tests over both ways that a request may go, which must behave alike.
--
--   ways(describe, "worker.http", function(client)
--     it("...", function() local api <close> = client {...} end)
--   end)
--
-- `client` is http.client.  Watching for a low speed is something only libcurl does for us, so asking
-- for it, with limits that are never reached, leads plain addresses through libcurl, too.
local http = require "worker.http"

local function by_libcurl(options)
  local more = { low_speed = { 1, 3600 } }
  for name, value in pairs(options) do more[name] = value end
  return http.client(more)
end

return function(describe, name, body)
  describe(name, function() body(http.client, "ours") end)
  describe(name .. ", by libcurl,", function() body(by_libcurl, "libcurl") end)
end
