-- served.lua: `worker serve NAME` and workers on it, each a process: real jobs, real kills.
--
--   local site <close> = served.new("vulcan", { ["heartbeat-timeout"] = "2s" })
--   site.url, site.api                  its address, a client for it
--   site:kill(); site:start()           a death: it comes back at the same address with what it knew
--   local run = site:work { "--protocol", "vulcan", env = {} }    as program.start; ends with the site
--   site.dir                            a directory for whatever the test needs
local http = require "worker.http"
local program = require "spec.support.program"
local scratch = require "spec.support.scratch"

local served = {}

local methods = {}
local meta = { __index = methods }

--- A server that has no jobs; `knobs` are those of --set.
function served.new(name, knobs)
  local site = setmetatable({ name = name, dir = scratch.dir(), address = "127.0.0.1:0", knobs = knobs or {}, runs = {} },
    meta)
  site.dir:write("jobs.yaml", "[]\n")
  site:start()
  return site
end

function methods:start()
  local words = { "serve", self.name, "--quiet", "--address", self.address, "--jobs", self.dir:path "jobs.yaml",
    "--state", self.dir:path "server" }
  for name, value in pairs(self.knobs) do
    words[#words + 1] = "--set"
    words[#words + 1] = name .. "=" .. value
  end
  self.server = program.start(words)
  self.url = program.eventually(function() return table.concat(self.server.stdout):match("on (http://%S+)\n") end)
  self.address = self.url:match("//(.*)$")
  self.api = http.client { base = self.url }
end

function methods:kill()
  self.server:signal "KILL"
  self.server:wait()
  getmetatable(self.server).__close(self.server)
  self.api:close()
end

--- What the server says at a path.
function methods:get(path) return self.api:get(path, { max_body = 1 << 26 }).json end

--- A worker, with the shipped plugins and a state directory in site.dir.
function methods:work(words)
  local all = { "--state", self.dir:path "state" }
  for key, value in pairs(words) do
    if type(key) == "string" then all[key] = value end
  end
  table.move(words, 1, #words, #all + 1, all)
  all[#all + 1] = program.plugins
  local run = program.start(all)
  self.runs[#self.runs + 1] = run
  return run
end

function meta:__close()
  for _, run in ipairs(self.runs) do getmetatable(run).__close(run) end
  self:kill()
  getmetatable(self.dir).__close(self.dir)
end

return served
