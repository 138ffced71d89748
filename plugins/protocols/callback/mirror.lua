-- callback.mirror: one status in a JSON file of tasks, changed in place.
--
-- The file is other people's: its order, its blanks and its numbers stay as they are, so the text is
-- not decoded and written again, but searched for the one value.
local json = require "worker.json"

local mirror = {}

-- Behind the string that begins at `at`.
local function after_string(text, at)
  at = at + 1
  while true do
    local stop = text:find('["\\]', at)
    if text:sub(stop, stop) == '"' then return stop + 1 end
    at = stop + 2
  end
end

local function after_blanks(text, at) return text:find("[^%s]", at) or #text + 1 end

-- Behind the value that begins at `at`; the text is valid JSON.
local function after_value(text, at)
  local depth = 0
  while true do
    local char = text:sub(at, at)
    if char == '"' then
      at = after_string(text, at)
    elseif char == "{" or char == "[" then
      depth, at = depth + 1, at + 1
    elseif char == "}" or char == "]" then
      depth, at = depth - 1, at + 1
    elseif depth == 0 then
      return text:find("[%s,%]}]", at) or #text + 1
    else
      at = text:find('["%[%]{}]', at)
    end
    if depth == 0 then return at end
  end
end

-- The members of the object, or entries of the list, that begins at `at`: key or nil, from, to.
local function entries(text, at)
  local is_object = text:sub(at, at) == "{"
  local pos = after_blanks(text, at + 1)
  return function()
    local char = text:sub(pos, pos)
    if char == "," then pos = after_blanks(text, pos + 1) end
    if char == "}" or char == "]" or char == "" then return nil end
    local key = true
    if is_object then
      local stop = after_string(text, pos)
      key = json.decode(text:sub(pos, stop - 1))
      pos = after_blanks(text, after_blanks(text, stop) + 1)
    end
    local from, stop = pos, after_value(text, pos)
    pos = after_blanks(text, stop)
    return key, from, stop - 1
  end
end

local function member(text, at, name)
  if text:sub(at, at) ~= "{" then return nil end
  for key, from, to in entries(text, at) do
    if key == name then return from, to end
  end
end

-- The status of the task with this id in the object that begins at `at` and has a list "tasks".
local function status_in(text, at, id)
  local tasks = member(text, at, "tasks")
  if not tasks or text:sub(tasks, tasks) ~= "[" then return nil end
  for _, from in entries(text, tasks) do
    local id_from, id_to = member(text, from, "id")
    local found = id_from and text:sub(id_from, id_to)
    if found and (found == id or found == json.encode(id)) then return member(text, from, "status") end
  end
end

--- The text with the status of the task replaced, or nil when the file does not have it. The file is
-- keyed by tag, or is that of one tag.
function mirror.with_status(text, tag, id, status)
  if not json.valid(text) then return nil end
  local top = after_blanks(text, 1)
  local phase = member(text, top, tag)
  local from, to = status_in(text, phase or top, id)
  if not from or text:sub(from, from) ~= '"' then return nil end
  return text:sub(1, from - 1) .. json.encode(status) .. text:sub(to + 1)
end

return mirror
