-- engine/cache.lua: results of jobs seen before.
--
-- The same image, the same program with the same input under the same limits, cut off from everything
-- else: then the same result may be given again.  Only success is kept; the oldest goes first.
local json = require "worker.json"
local sys = require "worker.core.sys"
local text = require "worker.text"

local cache = {}

local methods = {}
local meta = { __index = methods }

--- `cache.new{ entries=, bytes=, age= }`.
function cache.new(conf)
  return setmetatable({ conf = conf, entries = {}, order = {}, bytes = 0 }, meta)
end

--- `cache.key(spec, image, job)`: what names such a job; nil when it can reach anything that changes.
function cache.key(spec, image, job)
  if spec.HostConfig.NetworkMode ~= "none" or #spec.HostConfig.Mounts > 0 then return nil end
  local same = {}
  for name, value in pairs(spec) do same[name] = value end
  same.Labels = nil
  local env = {}
  for _, pair in ipairs(spec.Env) do
    if not pair:find("^WORKER_") then env[#env + 1] = pair end
  end
  same.Env = json.array(env)
  return text.sha256(json.encode { image.Id, json.object(same), job.stdin or json.null, json.object(job.files or {}) })
end

local function drop(self, key)
  local entry = self.entries[key]
  self.entries[key] = nil
  self.bytes = self.bytes - entry.bytes
  for i, other in ipairs(self.order) do
    if other == key then return table.remove(self.order, i) end
  end
end

--- `store:get(key)`: { result=, pieces= }, or nil.
function methods:get(key)
  local entry = self.entries[key]
  if entry and sys.mono() - entry.at > self.conf.age then
    drop(self, key)
    return nil
  end
  return entry
end

--- `store:recorder(log)`: a function like `log` that also remembers, as long as there is room, and
-- the list of what it remembered (pieces.bytes counts; pieces.lost when it was too much).
function methods:recorder(log)
  local pieces = { bytes = 0 }
  return function(stream, data)
    pieces.bytes = pieces.bytes + #data
    if pieces.bytes > self.conf.bytes then
      for i = 1, #pieces do pieces[i] = nil end
      pieces.lost = true
    else
      pieces[#pieces + 1] = { stream, data }
    end
    log(stream, data)
  end, pieces
end

--- `store:put(key, result, pieces)`: what becomes of the result later is that job's own.
function methods:put(key, result, pieces)
  if result.state ~= "success" or pieces.lost then return end
  if self.entries[key] then drop(self, key) end
  local kept = {}
  for name, value in pairs(result) do kept[name] = value end
  self.entries[key] = { result = kept, pieces = pieces, bytes = pieces.bytes, at = sys.mono() }
  self.order[#self.order + 1] = key
  self.bytes = self.bytes + pieces.bytes
  while #self.order > self.conf.entries or self.bytes > self.conf.bytes do drop(self, self.order[1]) end
end

return cache
