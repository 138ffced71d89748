-- terminal.lua: text for people: colours, columns, lines of a readable length.
local sys = require "worker.core.sys"

local terminal = {}

local STDOUT = 1
local WIDTH, WIDTH_MOST = 80, 100
local CODES = { bold = "1", dim = "2", red = "31", green = "32", yellow = "33", cyan = "36" }

--- `terminal.color(wanted, fd)`: whether to colour: as was asked for (true, false), else when the
-- descriptor is a terminal and neither NO_COLOR nor TERM=dumb speak against it.
function terminal.color(wanted, fd)
  if wanted ~= nil then return wanted end
  if (sys.env("NO_COLOR") or "") ~= "" or sys.env("TERM") == "dumb" then return false end
  return sys.isatty(fd or STDOUT)
end

--- `terminal.painter(on)`: a function paint(style, words); without colour it returns the words.
function terminal.painter(on)
  return function(style, words)
    if not on then return words end
    return ("\27[%sm%s\27[0m"):format(CODES[style], words)
  end
end

--- `terminal.width()`: how long a line may be: the terminal's width, but never hard to read.
function terminal.width()
  local columns = sys.terminal_width(STDOUT) or tonumber(sys.env("COLUMNS") or "") or WIDTH
  return math.max(40, math.min(columns, WIDTH_MOST))
end

local function display_width(words)
  words = words:gsub("\27%[[%d;]*m", "")
  return utf8.len(words) or #words
end

--- `terminal.wrap(words, width, indent)`: the text in lines of at most width, every line but the
-- first indented by `indent` blanks (which count).
function terminal.wrap(words, width, indent)
  local lines, line = {}, ""
  local room = math.max(width - indent, 20)
  for word in words:gmatch("%S+") do
    if line ~= "" and display_width(line) + 1 + display_width(word) > room then
      lines[#lines + 1], line = line, word
    else
      line = line == "" and word or line .. " " .. word
    end
  end
  lines[#lines + 1] = line
  return table.concat(lines, "\n" .. (" "):rep(indent))
end

--- `terminal.columns(rows, options)`: rows of words as aligned columns; the last column is wrapped.
-- Options: indent, gap, most (the widest a column but the last may be; a longer word gets a line of
-- its own, as in help texts).
function terminal.columns(rows, options)
  options = options or {}
  local indent, gap, most = options.indent or 0, options.gap or 2, options.most or 60
  local widths = {}
  for _, row in ipairs(rows) do
    for i = 1, #row - 1 do
      local width = display_width(row[i])
      if width <= most then widths[i] = math.max(widths[i] or 0, width) end
    end
  end
  local out = {}
  for _, row in ipairs(rows) do
    local line, at = (" "):rep(indent), indent
    for i = 1, #row - 1 do
      local width = display_width(row[i])
      local room = (widths[i] or 0) + gap
      if width > most and i == #row - 1 then
        line = line .. row[i] .. "\n" .. (" "):rep(at + room)
      else
        line = line .. row[i] .. (" "):rep(math.max(room - width, 1))
      end
      at = at + room
    end
    line = line .. terminal.wrap(row[#row], terminal.width(), at)
    out[#out + 1] = (line:gsub("[ ]+\n", "\n"):gsub("%s+$", ""))
  end
  return table.concat(out, "\n") .. (#out > 0 and "\n" or "")
end

return terminal
