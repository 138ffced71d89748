-- worker.yaml: configuration and job files, read with their places and written back.
--
-- A deliberately small YAML: one document, YAML 1.2 scalars (`yes` and `0755` are text), keys are
-- text and never twice, no merge keys, no tags.  What is read comes with marks, which know the
-- file, line and column of every value, so that whoever checks it can say where.

local core = require "worker.core.yaml"
local err = require "worker.error"
local json = require "worker.json"

local yaml = {}

--- `yaml.null`: what null is inside a list, the same as json.null.  In a map a null value is as
-- good as absent.
yaml.null = core.null

-- ---- reading ----

-- Lists are marked as such, so that empty ones stay lists when they are written, also as JSON.
local LIST = getmetatable(json.array {})

--- `yaml.parse(text, options)`: true, the value and its marks; or false and an error object of kind
-- "config" with file, line, column and reason.  Options: name (of the file, for messages), depth
-- (64), nodes (100000), bytes (4 MiB).
function yaml.parse(text, options)
  options = options or {}
  local name = options.name or "yaml"
  local ok, value, marks, column = core.parse(text, name, {
    depth = options.depth, nodes = options.nodes, bytes = options.bytes, list = LIST,
  })
  if not ok then
    local reason, line = value, marks
    return false, err.new("config", ("%s:%d:%d: %s"):format(name, line, column, reason),
      { file = name, line = line, column = column, reason = reason })
  end
  if value == core.null then value = nil end
  return true, value, marks
end

--- `yaml.decode(text, options)`: the value and its marks; raises what parse() would return.  An
-- empty text is nil.
function yaml.decode(text, options)
  local ok, value, marks = yaml.parse(text, options)
  if not ok then error(value, 0) end
  return value, marks
end

-- A place is line * 65536 + column.
local function split(place)
  return place // 65536, place % 65536
end

--- `yaml.where(marks, container, key, of_key)`: the file, line and column of container[key]; of the
-- key itself when of_key is true; of the container when there is no key (or it was not written).
-- Nothing when the container is not from a file.
function yaml.where(marks, container, key, of_key)
  local mark = marks and marks[container]
  if not mark then return nil end
  local file = mark.files and mark.files[key] or mark.file
  local places = of_key and mark.keys or mark.values
  return file, split(key ~= nil and places[key] or mark.at)
end

-- ---- writing ----

local DEPTH_MOST = 64

-- Words that other readers of YAML take for something else than text.
local WORDS = {}
for word in ("y n yes no on off true false null ~"):gmatch("%S+") do WORDS[word] = true end

local function is_plain(text)
  -- durations and sizes begin with a digit and are still nobody's number
  local shape = text:find("^[%a_/$][%w_/$ .@%%+=,;(){}~:*&!?'\"|<>-]*$") or text:find("^[1-9]%d*%a%w*$")
  return shape and not text:find(": ") and not text:find("[: ]$")
    and not WORDS[text:lower()] and type(core.plain(text)) == "string"
end

local ESCAPES = {
  ['"'] = '\\"', ["\\"] = "\\\\", ["\n"] = "\\n", ["\t"] = "\\t", ["\r"] = "\\r", ["\0"] = "\\0",
}

-- What YAML does not count as printable, or takes for the end of a line.
local function is_awkward(code)
  return code < 32 or code >= 127 and code < 160 or code == 0x2028 or code == 0x2029
    or code == 0xfeff or code == 0xfffe or code == 0xffff
end

local function quoted(text)
  local out = {}
  for _, code in utf8.codes(text) do
    local char = utf8.char(code)
    if ESCAPES[char] then
      char = ESCAPES[char]
    elseif is_awkward(code) then
      char = (code < 256 and "\\x%02x" or "\\u%04x"):format(code)
    end
    out[#out + 1] = char
  end
  return '"' .. table.concat(out) .. '"'
end

local function number_text(number)
  if math.type(number) == "integer" then return ("%d"):format(number) end
  if number ~= number then return ".nan" end
  if number == math.huge then return ".inf" end
  if number == -math.huge then return "-.inf" end
  for _, precision in ipairs { "%.15g", "%.16g", "%.17g" } do
    local text = precision:format(number)
    if tonumber(text) == number then
      return text:find("[.e]") and text or text .. ".0"
    end
  end
end

local function refuse(path, what)
  err.raise("bug", ("yaml.encode: %s at %s"):format(what, path == "" and "the top" or path))
end

local function scalar(value, path)
  local kind = type(value)
  if kind == "string" then
    if is_plain(value) then return value end
    if not utf8.len(value) then refuse(path, "text that is not UTF-8") end
    return quoted(value)
  end
  if kind == "number" then return number_text(value) end
  if kind == "boolean" then return tostring(value) end
  if value == nil or value == core.null then return "null" end
  return refuse(path, "a " .. kind)
end

--- `yaml.scalar(value)`: one string, number, boolean or null as it is written, quoted where it must
-- be.
function yaml.scalar(value)
  return scalar(value, "")
end

-- A script is easiest to read as it is.
local function block_text(text, indent)
  local body = text:gsub("\n$", "")
  if not body:find("\n") or body:find("^[%s]") or body:find("\n$") or body:find("[^\t\n\32-\126]")
    or body:find("[ \t]\n") or body:find("[ \t]$") then
    return nil
  end
  local mark = #body < #text and "|" or "|-"
  return mark .. "\n" .. (indent .. body:gsub("\n", "\n" .. indent)):gsub("\n +\n", "\n\n")
end

local function is_list(value)
  local n = #value
  if n == 0 then return next(value) == nil and json.is_array(value) end
  for key in pairs(value) do
    if math.type(key) ~= "integer" or key < 1 or key > n then return false end
  end
  return true
end

local function sorted_keys(value, first)
  local keys, rank = {}, {}
  for index, key in ipairs(first or {}) do rank[key] = index end
  for key in pairs(value) do keys[#keys + 1] = key end
  table.sort(keys, function(a, b)
    local ra, rb = rank[a] or math.huge, rank[b] or math.huge
    if ra ~= rb then return ra < rb end
    return tostring(a) < tostring(b)
  end)
  return keys
end

local write

local function write_list(out, value, indent, path, options)
  for index, item in ipairs(value) do
    out[#out + 1] = indent .. "-"
    write(out, item, indent .. "  ", ("%s[%d]"):format(path, index), options, true)
  end
end

local function write_map(out, value, indent, path, options, inline)
  for index, key in ipairs(sorted_keys(value, options.order)) do
    if type(key) == "table" then refuse(path, "a table as key") end
    local name = path == "" and tostring(key) or path .. "." .. tostring(key)
    -- the first key of a map in a list stands beside the dash
    local lead = inline and index == 1 and " " or indent
    out[#out + 1] = lead .. scalar(tostring(key), path) .. ":"
    write(out, value[key], indent .. "  ", name, options)
  end
end

-- Goes on behind "key:" or "-"; the pieces are put together without anything between them.
function write(out, value, indent, path, options, in_list)
  if type(value) ~= "table" then
    local block = type(value) == "string" and indent ~= "" and block_text(value, indent)
    out[#out + 1] = " " .. (block or scalar(value, path)) .. "\n"
    return
  end
  if #indent > 2 * DEPTH_MOST then refuse(path:sub(1, 60), "a table nested too deep (or in itself)") end
  if next(value) == nil then
    out[#out + 1] = is_list(value) and " []\n" or " {}\n"
  elseif is_list(value) then
    out[#out + 1] = "\n"
    write_list(out, value, indent, path, options)
  else
    if not in_list then out[#out + 1] = "\n" end
    write_map(out, value, indent, path, options, in_list)
  end
end

--- `yaml.encode(value, options)`: YAML text, in block style and always the same for the same value:
-- keys are sorted, those named in options.order first.  Raises for what YAML cannot hold, with the
-- path to it.
function yaml.encode(value, options)
  options = options or {}
  local out = {}
  if type(value) ~= "table" or next(value) == nil then
    write(out, value, "", "", options)
    return (out[1]:gsub("^ ", ""))
  end
  if is_list(value) then
    write_list(out, value, "", "", options)
  else
    write_map(out, value, "", "", options)
  end
  return table.concat(out)
end

return yaml
