-- proto/words.lua: a .proto file as words, one at a time, each with its place.
--
--   local words = words.of(source, "acme.proto")
--   words.kind, words.text               the word that comes next: "name", "number", "text", "sign", "end"
--   words:take()                         it, and on to the one after it
--   words:fail(why)                      raise kind "config": acme.proto:3:7: why
local err = require "worker.error"

local words = {}

local methods = {}
local meta = { __index = methods, __name = "worker.proto.words" }

local ESCAPES = { n = "\n", t = "\t", r = "\r", a = "\a", b = "\b", f = "\f", v = "\v",
  ["\\"] = "\\", ["'"] = "'", ['"'] = '"', ["?"] = "?" }

--- `words:fail(why, at)`: raise where the next word is, or where `at` (what words:place gave) was.
function methods:fail(why, at)
  at = at or self.start
  local before = self.source:sub(1, at - 1)
  -- the source begins with a newline of ours
  local line, column = select(2, before:gsub("\n", "")), at - #before:match("^.*\n")
  err.raise("config", ("%s:%d:%d: %s"):format(self.file, line, column, why),
    { file = self.file, line = line, column = column })
end

--- `words:place()`: where the next word is, for a later words:fail.
function methods:place() return self.start end

-- Over blanks and comments.
local function skip(self)
  local source, pos = self.source, self.pos
  while true do
    pos = source:find("%S", pos) or #source + 1
    if source:find("^//", pos) then
      pos = source:find("\n", pos, true) or #source + 1
    elseif source:find("^/%*", pos) then
      local _, last = source:find("*/", pos + 2, true)
      self.start = pos
      if not last then self:fail "this comment does not end" end
      pos = last + 1
    else
      return pos
    end
  end
end

local function character(self, code, at)
  local ok, char = pcall(utf8.char, code)
  if ok and code <= 0x10ffff then return char end
  self:fail("there is no such character", at)
end

-- One escape, `pos` behind the backslash; what it means and the place behind it.
local function escape(self, pos)
  local source = self.source
  local octal = source:match("^[0-7][0-7]?[0-7]?", pos)
  if octal then return string.char(tonumber(octal, 8) & 0xff), pos + #octal end
  local hex = source:match("^[xX]%x%x?", pos)
  if hex then return string.char(tonumber(hex:sub(2), 16)), pos + #hex end
  local wide = source:match("^u%x%x%x%x", pos) or source:match("^U%x%x%x%x%x%x%x%x", pos)
  if wide then return character(self, tonumber(wide:sub(2), 16), pos), pos + #wide end
  local plain = ESCAPES[source:sub(pos, pos)]
  if not plain then self:fail("there is no such escape", pos) end
  return plain, pos + 1
end

local function read_text(self, pos)
  local source, quote, parts = self.source, self.source:sub(pos, pos), {}
  pos = pos + 1
  while true do
    local plain = source:match("^[^\\\n\"']+", pos)
    local char = source:sub(pos, pos)
    if plain then
      parts[#parts + 1], pos = plain, pos + #plain
    elseif char == quote then
      return "text", table.concat(parts), pos + 1
    elseif char == "\\" then
      parts[#parts + 1], pos = escape(self, pos + 1)
    elseif char == "" or char == "\n" then
      self:fail "this text does not end on its line"
    else
      parts[#parts + 1], pos = char, pos + 1
    end
  end
end

local function read_number(self, pos)
  local source = self.source
  local text = source:match("^0[xX]%x+", pos) or source:match("^%d*%.?%d*[eE][+-]?%d+", pos) or source:match("^%d*%.?%d*", pos)
  local value
  if text:find("^0[0-7]+$") then
    value = tonumber(text, 8)
  elseif text:find("^0[xX]") then
    value = #text <= 18 and math.tointeger(tonumber(text)) or nil
  else
    value = tonumber(text)
  end
  if not value or source:find("^[%w_]", pos + #text) then self:fail "this is no number" end
  self.value = value
  return "number", text, pos + #text
end

-- Read the next word.
local function advance(self)
  local pos = skip(self)
  self.start = pos
  local source = self.source
  local char = source:sub(pos, pos)
  if char == "" then
    self.kind, self.text, self.pos = "end", "the end of the file", pos
  elseif char:find("[%a_]") then
    local name = source:match("^[%w_]+", pos)
    self.kind, self.text, self.pos = "name", name, pos + #name
  elseif source:find("^%.?%d", pos) then
    self.kind, self.text, self.pos = read_number(self, pos)
  elseif char == '"' or char == "'" then
    self.kind, self.text, self.pos = read_text(self, pos)
  elseif char:find("[%[%]{}()<>=;,.:/+-]") then
    self.kind, self.text, self.pos = "sign", char, pos + 1
  else
    self:fail "this character means nothing here"
  end
end

--- `words:take()`: the next word's text and value, and on.
function methods:take()
  local text, value = self.text, self.value
  advance(self)
  return text, value
end

--- `words:is(text)`: whether the next word is this sign or name.
function methods:is(text)
  return self.text == text and (self.kind == "sign" or self.kind == "name")
end

--- `words:accept(text)`: go over this sign or name if it comes next; whether it did.
function methods:accept(text)
  if not self:is(text) then return false end
  advance(self)
  return true
end

local function shown(self)
  return self.kind == "end" and self.text or ("'%s'"):format(self.text:sub(1, 40))
end

--- `words:expect(text)`: go over this sign or name; anything else is a mistake.
function methods:expect(text)
  if not self:accept(text) then self:fail(("expected '%s', got %s"):format(text, shown(self))) end
end

--- `words:need(kind, what)`: the next word, which must be of this kind.
function methods:need(kind, what)
  if self.kind ~= kind then self:fail(("expected %s, got %s"):format(what, shown(self))) end
  return self:take()
end

--- `words.of(source, file)`: the words of a text.
function words.of(source, file)
  source = source:gsub("^\xef\xbb\xbf", "")
  local self = setmetatable({ source = "\n" .. source, file = file, pos = 2 }, meta)
  advance(self)
  return self
end

return words
