-- callback.scg: the task graph in .scud/tasks/tasks.scg: read it, and change one status in it.
--
-- A file has phases, divided by lines "---"; ids are unique within a phase only.  Reading is lenient as
-- its other readers are (a line with too few columns is no task), but loses nothing of a description:
-- blank lines and lines that begin with @ stay.  Writing replaces one letter and nothing else.
local scg = {}

local STATUS = { P = "pending", I = "in-progress", D = "done", R = "review", B = "blocked", F = "deferred",
  C = "cancelled", X = "expanded" }
local PRIORITY = { C = "critical", H = "high", M = "medium", L = "low" }
local ESCAPED = { ["\\n"] = "\n", ["\\|"] = "|", ["\\\\"] = "\\" }
local STATUS_COLUMN = 3

-- The columns of a line with where they stand: { { text=, from=, to= } ... }; "\|" divides nothing.
local function columns_of(line)
  local columns, from, at = {}, 1, 1
  while true do
    local stop = line:find("[\\|]", at)
    if stop and line:sub(stop, stop) == "\\" then
      at = stop + 2
    else
      local last = stop and stop - 1 or #line
      local raw = line:sub(from, last)
      local word = raw:match("^%s*(.-)%s*$")
      local begin = from + #raw:match("^%s*")
      columns[#columns + 1] = { text = word:gsub("\\[n|\\]", ESCAPED), from = begin, to = begin + #word - 1 }
      if not stop then return columns end
      from, at = stop + 1, stop + 1
    end
  end
end

local sections = {}

function sections.nodes(phase, line, number)
  local columns = columns_of(line)
  if #columns < 5 then return end
  local id, letter = columns[1].text, columns[STATUS_COLUMN].text
  local node = {
    id = id, tag = phase.tag, title = columns[2].text, letter = letter, status = STATUS[letter] or "pending",
    complexity = math.tointeger(tonumber(columns[4].text)) or 0,
    priority = PRIORITY[columns[5].text] or "medium", dependencies = {}, line = number,
  }
  phase.tasks[id] = phase.tasks[id] or node
end

function sections.edges(phase, line)
  local dependent, dependency = line:match("^%s*(%S+)%s*%->%s*(%S+)")
  if dependent then phase.edges[#phase.edges + 1] = { dependent, dependency } end
end

function sections.meta(phase, line)
  local key, value = line:match("^%s*(%S+)%s+(.-)%s*$")
  if key == "name" then phase.tag = value end
end

-- A field begins with "id | field |"; its lines are indented by two blanks, empty ones between them
-- belong to it.
function sections.details(phase, line)
  local text = line:match("^  (.*)$") or line == "" and ""
  if text and phase.field then
    table.insert(phase.field.lines, text)
    return
  end
  local id, name = line:match("^%s*(%S+)%s*|%s*([%w_]+)%s*|")
  phase.field = id and { id = id, name = name, lines = {} } or nil
  if id then phase.fields[#phase.fields + 1] = phase.field end
end

local function new_phase()
  return { tag = "", tasks = {}, edges = {}, fields = {} }
end

-- Which section a line opens; within a description an indented "@" is text.
local function opens(line)
  return line:match("^@(%l+)")
end

local function finish(phase)
  for _, node in pairs(phase.tasks) do node.tag = phase.tag end
  for _, edge in ipairs(phase.edges) do
    local node = phase.tasks[edge[1]]
    if node then table.insert(node.dependencies, edge[2]) end
  end
  for _, field in ipairs(phase.fields) do
    local node = phase.tasks[field.id]
    if node then node[field.name] = table.concat(field.lines, "\n"):match("^(.-)%s*$") end
  end
  return phase
end

local function read_line(phase, section, line, number)
  local opened = opens(line)
  if opened then
    phase.field = nil
    return opened
  end
  local tag = line:match("^# Phase:%s*(.-)%s*$") or line:match("^# Epic:%s*(.-)%s*$")
  if tag then phase.tag = tag end
  local is_comment = line:find("^#") or line:find("^%s*$") and section ~= "details"
  if sections[section] and not is_comment and line ~= "}" then sections[section](phase, line, number) end
  return section
end

--- The phases of a file, in its order: { tag=, tasks = { id -> task } }; a task has id, tag, title,
-- status, complexity, priority, dependencies, and description, details, test_strategy where it has any.
function scg.parse(text)
  local phases, phase, section, number = {}, new_phase(), nil, 0
  for line in (text .. "\n"):gmatch("([^\n]*)\n") do
    number = number + 1
    line = line:gsub("\r$", "")
    if line == "---" then
      phases[#phases + 1] = finish(phase)
      phase, section = new_phase(), nil
    else
      section = read_line(phase, section, line, number)
    end
  end
  phases[#phases + 1] = finish(phase)
  return phases
end

--- The letter of a status; nil for one that the file has no letter for.
function scg.letter(status)
  for letter, word in pairs(STATUS) do
    if word == status then return letter end
  end
end

--- The text with the status of this task (of scg.parse of the same text) replaced.
function scg.with_status(text, node, letter)
  local at = 1
  for _ = 2, node.line do at = text:find("\n", at, true) + 1 end
  local stop = text:find("\n", at, true) or #text + 1
  local column = columns_of(text:sub(at, stop - 1))[STATUS_COLUMN]
  return text:sub(1, at + column.from - 2) .. letter .. text:sub(at + column.to)
end

return scg
