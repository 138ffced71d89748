-- scratch.lua: a directory for one test.
--
--   local dir <close> = scratch.dir()
--   dir:path("a", "b")              a path in it
--   dir:write("a/b", "text")        a file in it, directories included
--   dir:read("a/b")                 its content, or nil
--
-- It is removed at the end of the block, whatever the test made of it.
local fs = require "worker.fs"

local scratch = {}

local methods = {}
local meta = { __index = methods }

function scratch.dir()
  return setmetatable({ root = fs.temp_dir("/tmp/worker-spec-") }, meta)
end

function methods:path(...)
  return fs.join(self.root, ...)
end

function methods:write(name, text)
  fs.mkdir(fs.dir(self:path(name)), { parents = true })
  fs.write(self:path(name), text)
  return self:path(name)
end

function methods:read(name)
  return (fs.read(self:path(name), 1 << 28))
end

function meta.__close(self)
  fs.remove_tree(self.root)
end

return scratch
