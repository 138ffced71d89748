-- site.lua: a directory for the `local` protocol, and workers on it.
--
--   local site <close> = sites.new()
--   site:drop("a.sh", "exit 3")             a job file, as a person drops it: written aside, renamed in
--   local run <close> = site:start { "--slots", "8" }
--   site:result "a"                         waits for done/a/result.json; the decoded table
local fs = require "worker.fs"
local json = require "worker.json"
local program = require "spec.support.program"
local scratch = require "spec.support.scratch"

local sites = {}

local methods = {}
local meta = { __index = methods }

function sites.new()
  local dir = scratch.dir()
  local site = setmetatable({ dir = dir, root = dir:path "jobs", work = dir:path "work" }, meta)
  fs.mkdir(fs.join(site.root, "inbox"), { parents = true })
  fs.mkdir(site.work)
  return site
end

--- Drop a job file into the inbox.
function methods:drop(name, text)
  local aside = self.dir:write("aside-" .. name, text)
  fs.rename(aside, fs.join(self.root, "inbox", name))
end

--- Start a worker on it; options beside the words as for program.start.
function methods:start(options)
  local words = { "run", "--protocol", "local", "--dir", self.root, "--workspace", self.work,
    "--state", self.dir:path "state" }
  for key, value in pairs(options or {}) do
    if type(key) == "string" then words[key] = value end
  end
  table.move(options or {}, 1, #(options or {}), #words + 1, words)
  words[#words + 1] = program.plugins
  return program.start(words)
end

--- The inbox worked off by one worker with --once; its end.
function methods:once(options)
  options = options or {}
  options[#options + 1] = "--once"
  local run <close> = self:start(options)
  return run:wait()
end

function methods:path(...) return fs.join(self.root, ...) end

--- What is in a directory of it.
function methods:list(...) return fs.list(self:path(...)) end

function methods:read(...) return (fs.read(self:path(...), 1 << 26)) end

--- Wait for a result.
function methods:result(id)
  local text = program.eventually(function() return self:read("done", id, "result.json") end)
  return json.decode(text)
end

--- Wait until a job has left this file in `name` beside the site.
function methods:mark(name)
  return program.eventually(function() return fs.exists(self.dir:path(name)) end)
end

function meta:__close() getmetatable(self.dir).__close(self.dir) end

return sites
