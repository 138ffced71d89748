-- file: every event a line of JSON, appended to a file.
--
-- The file is opened anew when the worker reads its configuration again (HUP), so that logrotate may
-- move it; who has no logrotate says max_size and keep_files.  One file belongs to one worker.
local fs = require "worker.fs"
local json = require "worker.json"

local file = { kind = "sink", name = "file", api = 1 }

file.doc = "Appends every event to a file, as a line of JSON."

local OWNER_AND_GROUP = 416 -- 0640

file.config = {
  path = { "path", required = true, example = "/var/log/worker/events.jsonl", doc = "The file." },
  max_size = { "size", min = 1024, example = "64MiB",
    doc = "Begin a new file when the next events would make it larger; never if absent." },
  keep_files = { "integer", default = 3, min = 0, max = 100, doc = "How many older files stay: PATH.1 is the latest of them." },
}

-- Files that may end in the middle of a line, because a write failed.
local torn = {}

local function open(self)
  self.file = fs.open(self.conf.path, "a", OWNER_AND_GROUP)
  self.size = self.file:size()
end

function file.open(conf)
  local self = { conf = conf, lines = {} }
  fs.mkdir(fs.dir(conf.path), { parents = true })
  open(self)
  return self
end

function file.publish(self, event)
  self.lines[#self.lines + 1] = json.encode(event) .. "\n"
end

-- PATH becomes PATH.1, that PATH.2, and so on; the last one goes.
local function rotate(self)
  local path, keep = self.conf.path, self.conf.keep_files
  self.file:close()
  for n = keep - 1, 1, -1 do
    local older = path .. "." .. n
    if fs.exists(older) then fs.rename(older, path .. "." .. n + 1) end
  end
  if keep > 0 then fs.rename(path, path .. ".1") else fs.remove(path) end
  open(self)
end

function file.flush(self)
  local path = self.conf.path
  local words = (torn[path] and "\n" or "") .. table.concat(self.lines)
  if self.conf.max_size and self.size > 0 and self.size + #words > self.conf.max_size then rotate(self) end
  torn[path] = true
  self.file:write(words)
  torn[path] = nil
  self.size, self.lines = self.size + #words, {}
end

function file.close(self)
  self.file:close()
end

return file
