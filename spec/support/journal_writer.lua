-- journal_writer.lua: a process that does nothing but write to a journal, to be killed.
--
-- Run by journal_kill_spec as `worker spec spec/support/journal_writer.lua`, with the directory
-- and a seed in the environment.  Before and after each operation it says so in the file "told";
-- a line there, once written, survives the process.  A payload follows from its key, so whoever
-- reads it back can tell whether it is whole.
local journal = require "worker.core.journal"
local sys = require "worker.core.sys"
local task = require "worker.task"
local fs = require "worker.fs"

local writer = { WRITERS = 4, OPTIONS = { compact_bytes = 30000, max_bytes = 4 << 20 } }

--- What belongs to a key like "3-w1-17-2300": the last number is its length.
function writer.payload(key)
  local size = tonumber(key:match("(%d+)$"))
  return (key .. "\n"):rep(size // #key + 1):sub(1, size)
end

local function size()
  return math.random(20) == 1 and math.random(100000) or math.random(3000)
end

local function write(book, told, prefix, old)
  local mine = old
  for n = 1, math.huge do
    local key = ("%s-%d-%d"):format(prefix, n, size())
    local payload = writer.payload(key)
    told:write(("putting %s\n"):format(key))
    book:put(key, "claim", payload)
    told:write(("put %s\n"):format(key))
    mine[#mine + 1] = key
    while #mine > 8 do
      local gone = table.remove(mine, math.random(#mine))
      told:write(("dropping %s\n"):format(gone))
      book:drop(gone)
      told:write(("dropped %s\n"):format(gone))
    end
  end
end

--- Write until killed.
function writer.run(dir, seed)
  math.randomseed(seed)
  local told <close> = fs.open(dir .. "/told", "a")
  local book <close> = journal.open(dir .. "/journal", writer.OPTIONS)
  local old = {}
  for i, record in ipairs(book:list()) do
    local heir = i % writer.WRITERS + 1
    old[heir] = old[heir] or {}
    table.insert(old[heir], record.key)
  end
  local writers = {}
  for i = 1, writer.WRITERS do
    writers[i] = function() write(book, told, ("%d-w%d"):format(seed, i), old[i] or {}) end
  end
  task.all(writers)
end

if sys.env("JOURNAL_WRITER_DIR") then
  describe("a writer", function()
    it("writes until it is killed #realtime", function()
      writer.run(sys.env("JOURNAL_WRITER_DIR"), tonumber(sys.env("JOURNAL_WRITER_SEED")))
    end)
  end)
end

return writer
