-- about.lua: what a plugin says of itself, in a sentence and in a paragraph.
--
-- That is its `doc`; without one, the comment its file begins with.
local fs = require "worker.fs"

local about = {}

local SOURCE_MOST = 1024 * 1024

local function first_comment(path)
  local source = fs.read(path, SOURCE_MOST)
  local lines = {}
  for line in (source or ""):gmatch("[^\n]*") do
    local words = line:match("^%-%-%s?(.*)$")
    if not words or words == "" then break end
    lines[#lines + 1] = words
  end
  -- a file may begin with its own name
  return (table.concat(lines, " "):gsub("^[%w_/.-]+:%s+", "", 1))
end

--- `about.paragraph(entry)`: all of it; entry is one of registry:all().
function about.paragraph(entry)
  local doc = entry.plugin and entry.plugin.doc
  if type(doc) == "string" then return doc end
  return first_comment(entry.path)
end

--- `about.sentence(entry)`: its first sentence.
function about.sentence(entry)
  local text = about.paragraph(entry):gsub("%s+", " ")
  return text:match("^(.-[.!?])%s") or text
end

return about
