-- proto/parse.lua: one .proto file (proto3) as plain data, its types still as they are written.
--
--   { package =, imports = { { path=, at= } }, messages = { { name=, fields = { ... } } }, enums = { ... },
--     services = { ... }, words = for words:fail(why, at) }
--
-- Everything has a full name already; a field says { name=, number=, type=, at=, scope=, repeated=,
-- optional=, key=, oneof=, packed= }.  Options other than `packed` are read over.
local wire = require "worker.protobuf.wire"
local words = require "worker.proto.words"

local parse = {}

local DEPTH_MOST = 50
local NUMBER_MOST = 536870911
local RESERVED_FROM, RESERVED_TO = 19000, 19999 -- kept by protobuf itself
local LEAST32, MOST32 = -0x80000000, 0x7fffffff

local function full(scope, name) return scope == "" and name or scope .. "." .. name end

-- a.b.c, with a dot in front where it is absolute.
local function read_path(w, what, absolute)
  local parts = { absolute and w:accept "." and "" or nil }
  repeat parts[#parts + 1] = w:need("name", what) until not w:accept "."
  return table.concat(parts, ".")
end

-- Options ------------------------------------------------------------------------------------------------

local CLOSING = { ["{"] = "}", ["["] = "]", ["<"] = ">" }

-- Over a value in braces, which only who declared the option can read.
local function skip_block(w, depth)
  if depth > DEPTH_MOST then w:fail(("deeper than %d"):format(DEPTH_MOST)) end
  local closing = CLOSING[w:take()]
  while not w:accept(closing) do
    if w.kind == "end" then w:fail(("expected '%s'"):format(closing)) end
    if w.kind == "sign" and CLOSING[w.text] then skip_block(w, depth + 1) else w:take() end
  end
end

local function read_constant(w)
  if w:is "{" then return skip_block(w, 1) end
  if w:accept "-" or w:accept "+" then
    if w.kind ~= "number" and w.kind ~= "name" then w:fail "expected a number" end
    return w:take()
  end
  if w.kind == "text" then
    local parts = {}
    while w.kind == "text" do parts[#parts + 1] = w:take() end
    return table.concat(parts)
  end
  if w.kind ~= "number" and w.kind ~= "name" then w:fail "expected a value" end
  return w:take()
end

-- name, (ext.name), (ext.name).field
local function read_option_name(w)
  local parts = {}
  repeat
    if w:accept "(" then
      parts[#parts + 1] = "(" .. read_path(w, "the name of an option", true) .. ")"
      w:expect ")"
    else
      parts[#parts + 1] = w:need("name", "the name of an option")
    end
  until not w:accept "."
  return table.concat(parts, ".")
end

local function read_option(w)
  local name = read_option_name(w)
  w:expect "="
  return name, read_constant(w)
end

-- [ a = 1, (b) = 2 ]
local function read_field_options(w)
  local options = {}
  if not w:accept "[" then return options end
  repeat
    local name, value = read_option(w)
    options[name] = value or true
  until not w:accept ","
  w:expect "]"
  return options
end

local function read_option_statement(w)
  local name, value = read_option(w)
  w:expect ";"
  return name, value
end

-- Fields -------------------------------------------------------------------------------------------------

local function read_number(w)
  local at = w:place()
  local _, number = w:need("number", "the number of the field")
  if math.type(number) ~= "integer" or number < 1 or number > NUMBER_MOST then
    w:fail(("a field's number is from 1 to %d"):format(NUMBER_MOST), at)
  elseif number >= RESERVED_FROM and number <= RESERVED_TO then
    w:fail(("the numbers %d to %d belong to protobuf itself"):format(RESERVED_FROM, RESERVED_TO), at)
  end
  return number, at
end

local function is_reserved(message, number, name)
  for _, range in ipairs(message.reserved) do
    if number >= range[1] and number <= range[2] then return ("the number %d is reserved"):format(number) end
  end
  return message.reserved_names[name] and ("the name '%s' is reserved"):format(name)
end

local function add_field(w, message, field)
  for _, other in ipairs(message.fields) do
    if other.name == field.name then w:fail(("there is a field '%s' already"):format(field.name), field.name_at) end
    if other.number == field.number then
      w:fail(("the number %d belongs to '%s' already"):format(field.number, other.name), field.number_at)
    end
  end
  message.fields[#message.fields + 1] = field
end

-- name = number [ options ];
local function read_rest(w, message, field)
  field.name_at, field.scope = w:place(), message.name
  field.name = w:need("name", "the name of the field")
  w:expect "="
  field.number, field.number_at = read_number(w)
  local options = read_field_options(w)
  if options.packed then field.packed = options.packed == "true" end
  w:expect ";"
  add_field(w, message, field)
end

local function read_type(w)
  return { at = w:place(), type = read_path(w, "the type of the field", true) }
end

local function read_map(w, message)
  w:expect "<"
  local key_at, key = w:place(), w:need("name", "the type of the key")
  local scalar = wire.scalars[key]
  if not (scalar and (scalar.packs or key == "string")) or key == "double" or key == "float" then
    w:fail(("'%s' cannot be the key of a map: expected a whole number, bool or string"):format(key), key_at)
  end
  w:expect ","
  local field = read_type(w)
  w:expect ">"
  field.key = key
  read_rest(w, message, field)
end

local function refuse_label(w)
  if w:is "required" then w:fail "proto3 has no required fields" end
  if w:is "group" then w:fail "proto3 has no groups: use a message" end
end

local function read_oneof(w, message)
  local at = w:place()
  local name, count = w:need("name", "the name of the oneof"), #message.fields
  for _, field in ipairs(message.fields) do
    if field.name == name or field.oneof == name then w:fail(("there is a '%s' already"):format(name), at) end
  end
  w:expect "{"
  while not w:accept "}" do
    if w:accept "option" then
      read_option_statement(w)
    elseif not w:accept ";" then
      for _, label in ipairs { "repeated", "optional", "map" } do
        if w:is(label) then w:fail(("a field of a oneof cannot be %s"):format(label)) end
      end
      refuse_label(w)
      local field = read_type(w)
      field.oneof = name
      read_rest(w, message, field)
    end
  end
  if #message.fields == count then w:fail("a oneof needs a field", at) end
end

-- Messages and enums ---------------------------------------------------------------------------------------

local function read_range_end(w, first, most)
  if not w:accept "to" then return first end
  if w:accept "max" then return most end
  local minus = w:accept "-"
  local _, last = w:need("number", "a number")
  return minus and -last or last
end

-- reserved 2, 5 to 9, 20 to max; or reserved "a", "b";
local function read_reserved(w, into, most)
  repeat
    if w.kind == "text" then
      into.reserved_names[w:take()] = true
    else
      local minus = w:accept "-"
      local _, first = w:need("number", "a number or a name in quotes")
      first = minus and -first or first
      local at, last = w:place(), read_range_end(w, first, most)
      if last < first then w:fail("this range ends before it begins", at) end
      into.reserved[#into.reserved + 1] = { first, last }
    end
  until not w:accept ","
  w:expect ";"
end

local function check_reserved(w, into, entries)
  for _, entry in ipairs(entries) do
    local why = is_reserved(into, entry.number, entry.name)
    if why then w:fail(why, entry.name_at) end
  end
end

local function read_enum_number(w)
  local at, minus = w:place(), w:accept "-"
  local _, number = w:need("number", "a number")
  number = minus and -number or number
  if math.type(number) ~= "integer" or number < LEAST32 or number > MOST32 then
    w:fail("a value of an enum has 32 bits", at)
  end
  return number, at
end

local function add_value(w, enum, value)
  for _, other in ipairs(enum.values) do
    if other.name == value.name then w:fail(("there is a value '%s' already"):format(value.name), value.name_at) end
    if other.number == value.number and not enum.aliases then
      enum.twice = enum.twice or { ("'%s' is %d, too; say `option allow_alias = true;` if that is meant"):format(
        other.name, value.number), value.number_at }
    end
  end
  enum.values[#enum.values + 1] = value
  if value.number ~= 0 and #enum.values == 1 then
    w:fail("the first value of an enum must be 0: it is what a missing field means", value.number_at)
  end
end

local function read_enum(w, file, scope)
  local at = w:place()
  local enum = { name = full(scope, w:need("name", "the name of the enum")), at = at, values = {}, reserved = {},
    reserved_names = {} }
  w:expect "{"
  while not w:accept "}" do
    if w:accept "option" then
      local name, value = read_option_statement(w)
      if name == "allow_alias" and value == "true" then enum.aliases = true end
    elseif w:accept "reserved" then
      read_reserved(w, enum, MOST32)
    elseif not w:accept ";" then
      local value = { name_at = w:place(), name = w:need("name", "the name of a value") }
      w:expect "="
      value.number, value.number_at = read_enum_number(w)
      read_field_options(w)
      w:expect ";"
      add_value(w, enum, value)
    end
  end
  if #enum.values == 0 then w:fail("an enum needs a value", at) end
  if enum.twice and not enum.aliases then w:fail(enum.twice[1], enum.twice[2]) end
  check_reserved(w, enum, enum.values)
  file.enums[#file.enums + 1] = enum
end

-- Fields that somebody else adds to a message: options, always, and those are not for the wire.
local function read_extend(w)
  read_path(w, "what is extended", true)
  local nowhere = { name = "", fields = {} }
  w:expect "{"
  while not w:accept "}" do
    if not w:accept ";" then
      if not w:accept "repeated" then w:accept "optional" end
      read_rest(w, nowhere, read_type(w))
    end
  end
end

local read_message

local statements = {
  message = function(w, file, message, depth) read_message(w, file, message.name, depth + 1) end,
  enum = function(w, file, message) read_enum(w, file, message.name) end,
  oneof = function(w, _, message) read_oneof(w, message) end,
  option = function(w) read_option_statement(w) end,
  reserved = function(w, _, message) read_reserved(w, message, NUMBER_MOST) end,
  extend = function(w) read_extend(w) end,
  extensions = function(w) w:fail "proto3 has no extensions" end,
}

local function read_member(w, file, message, depth)
  refuse_label(w)
  local statement = w.kind == "name" and statements[w.text]
  if statement then
    w:take()
    return statement(w, file, message, depth)
  end
  if w:is "map" then
    local at = w:place()
    w:take()
    if w:is "<" then return read_map(w, message) end
    return read_rest(w, message, { at = at, type = "map" })
  end
  local repeated = w:accept "repeated"
  local optional = not repeated and w:accept "optional"
  refuse_label(w)
  local field = read_type(w)
  field.repeated, field.optional = repeated or nil, optional or nil
  read_rest(w, message, field)
end

function read_message(w, file, scope, depth)
  if depth > DEPTH_MOST then w:fail(("messages in messages, deeper than %d"):format(DEPTH_MOST)) end
  local at = w:place()
  local message = { name = full(scope, w:need("name", "the name of the message")), at = at, fields = {}, reserved = {},
    reserved_names = {} }
  w:expect "{"
  while not w:accept "}" do
    if not w:accept ";" then read_member(w, file, message, depth) end
  end
  check_reserved(w, message, message.fields)
  file.messages[#file.messages + 1] = message
end

-- Services -----------------------------------------------------------------------------------------------

-- ( stream? TYPE )
local function read_side(w, scope)
  w:expect "("
  local at, streams = w:place(), false
  local path
  if w:accept "stream" then
    streams = w.kind == "name" or w:is "."
    path = not streams and "stream" or nil -- a message may be called so
  end
  local side = { at = w:place(), scope = scope, streams = streams }
  if path then side.at = at end
  side.type = path or read_path(w, "a message", true)
  w:expect ")"
  return side
end

local function read_method(w, service)
  local at = w:place()
  local method = { at = at, name = w:need("name", "the name of the method") }
  for _, other in ipairs(service.methods) do
    if other.name == method.name then w:fail(("there is a method '%s' already"):format(method.name), at) end
  end
  method.request = read_side(w, service.name)
  w:expect "returns"
  method.response = read_side(w, service.name)
  if w:accept "{" then
    while not w:accept "}" do
      if not w:accept ";" then
        w:expect "option"
        read_option_statement(w)
      end
    end
  else
    w:expect ";"
  end
  service.methods[#service.methods + 1] = method
end

local function read_service(w, file)
  local at = w:place()
  local service = { name = full(file.package, w:need("name", "the name of the service")), at = at, methods = {} }
  w:expect "{"
  while not w:accept "}" do
    if w:accept "option" then
      read_option_statement(w)
    elseif not w:accept ";" then
      w:expect "rpc"
      read_method(w, service)
    end
  end
  file.services[#file.services + 1] = service
end

-- The file -------------------------------------------------------------------------------------------------

local function read_syntax(w)
  local at = w:place()
  if not w:accept "syntax" then
    w:fail((w:is "edition" and "editions are not read" or "a file without syntax is proto2")
      .. ': expected `syntax = "proto3";`', at)
  end
  w:expect "="
  at = w:place()
  local version = w:need("text", '"proto3"')
  if version ~= "proto3" then w:fail(('only "proto3" is read, not "%s"'):format(version), at) end
  w:expect ";"
end

local function read_import(w, file)
  if not w:accept "public" then w:accept "weak" end
  local at = w:place()
  file.imports[#file.imports + 1] = { at = at, path = w:need("text", "a path in quotes") }
  w:expect ";"
end

local function read_package(w, file)
  if file.package ~= "" then w:fail "there is a package already" end
  if #file.messages + #file.enums + #file.services > 0 then w:fail "the package comes before what is in it" end
  file.package = read_path(w, "the name of the package")
  w:expect ";"
end

local top = {
  import = read_import, package = read_package, service = read_service,
  option = function(w) read_option_statement(w) end,
  message = function(w, file) read_message(w, file, file.package, 1) end,
  enum = function(w, file) read_enum(w, file, file.package) end,
  extend = function(w) read_extend(w) end,
}

--- `parse.file(source, name)`: the file; its first mistake is raised with its place.
function parse.file(source, name)
  local w = words.of(source, name)
  local file = { package = "", imports = {}, messages = {}, enums = {}, services = {}, words = w }
  read_syntax(w)
  while w.kind ~= "end" do
    if not w:accept ";" then
      local statement = w.kind == "name" and top[w.text]
      if not statement then w:fail("expected message, enum, service, import, package or option, got '" .. w.text .. "'") end
      w:take()
      statement(w, file)
    end
  end
  return file
end

return parse
