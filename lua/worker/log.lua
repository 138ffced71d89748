-- log.lua: the worker's own log.
--
-- Every line has a stable event name for programs and a message for people:
--
--   log.info("job.finished", "job 7 succeeded in 3 s", { job = "7", state = "success" })
local core = require "worker.core.log"

local log = {}

local LEVELS = { debug = 0, info = 1, warn = 2, error = 3, off = 4 }

-- Fields in a stable order: names sorted, so that two lines of one event look alike.
local function pairs_of(fields)
  local names, list = {}, {}
  for name in pairs(fields) do
    names[#names + 1] = name
  end
  table.sort(names)
  for _, name in ipairs(names) do
    list[#list + 1] = name
    list[#list + 1] = fields[name]
  end
  return list
end

local function write(level, event, message, fields)
  if core.enabled(level) then
    core.write(level, event, message, fields and pairs_of(fields))
  end
end

--- `log.debug/info/warn/error(event, message, fields)`: one line.
function log.debug(event, message, fields) write(0, event, message, fields) end
function log.info(event, message, fields) write(1, event, message, fields) end
function log.warn(event, message, fields) write(2, event, message, fields) end
function log.error(event, message, fields) write(3, event, message, fields) end

--- `log.shows(level)`: whether lines of this level are printed, for who would take trouble over one.
function log.shows(level) return core.enabled(LEVELS[level]) end

--- `log.setup{ level=, format=, color=, output= }`: how the log looks, level and format by name, and where
-- it goes: "stderr", "stdout" or a path; raises kind "file" when that cannot be opened.
function log.setup(options)
  core.setup {
    level = options.level and LEVELS[options.level],
    format = options.format,
    color = options.color,
    fd = options.fd,
    output = options.output,
  }
end

--- `log.secret(text)`: never print this text; false when it is too short to be masked.
function log.secret(text) return core.secret(text) end

return log
