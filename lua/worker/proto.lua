-- worker.proto: .proto files (proto3) as a table for worker.protobuf.
--
-- proto/words.lua and proto/parse.lua read one file; here imports are followed, types are found, and
-- what nobody uses of what was imported is left out.  Mistakes are raised with kind "config" and
-- file:line:column in front.
local err = require "worker.error"
local fs = require "worker.fs"
local known = require "worker.proto.known"
local parse = require "worker.proto.parse"
local text = require "worker.text"
local wire = require "worker.protobuf.wire"

local proto = {}

local FILE_MOST = 4 * 1024 * 1024
local LINE_MOST = 116

-- Files --------------------------------------------------------------------------------------------------

local function define(self, name, kind, file, at)
  if self.symbols[name] then file.words:fail(("'%s' is defined already"):format(name), at) end
  self.symbols[name] = kind
end

local function know_package(self, package)
  while package ~= "" do
    self.packages[package] = true
    package = package:match("^(.*)%.") or ""
  end
end

local function add_known(self, path)
  for name, values in pairs(known[path].enums or {}) do self.symbols[name], self.ready.enums[name] = "enum", values end
  for name, fields in pairs(known[path].messages or {}) do self.symbols[name], self.ready.messages[name] = "message", fields end
  know_package(self, "google.protobuf")
end

-- Where an import may be: the folders somebody named, then the one of the file and those above it.
local function find_import(self, path, from)
  local dirs = table.move(self.include, 1, #self.include, 1, {})
  local dir = fs.dir(from)
  dirs[#dirs + 1] = dir
  while dir ~= "." and dir ~= "/" and dir ~= "" do
    dir = fs.dir(dir)
    dirs[#dirs + 1] = dir
  end
  for _, place in ipairs(dirs) do
    local candidate = fs.join(place, path)
    if fs.exists(candidate) then return candidate end
  end
end

local function add_file(self, path)
  local real = fs.realpath(path) or path
  if self.files[real] then return end
  local source, why = fs.read(path, FILE_MOST)
  if not source then err.raise("config", ("%s: %s"):format(path, tostring(why))) end
  local file = parse.file(source, path)
  self.files[real] = file
  self.list[#self.list + 1] = file
  know_package(self, file.package)
  for _, message in ipairs(file.messages) do define(self, message.name, "message", file, message.at) end
  for _, enum in ipairs(file.enums) do define(self, enum.name, "enum", file, enum.at) end
  for _, import in ipairs(file.imports) do
    local found = find_import(self, import.path, path)
    if found then
      add_file(self, found)
    elseif known[import.path] then
      add_known(self, import.path)
    else
      file.words:fail(("there is no file '%s'; where it is can be said with --include"):format(import.path), import.at)
    end
  end
  return file
end

-- Types --------------------------------------------------------------------------------------------------

-- From the scope of the field outwards: the first place that has the name's first part decides.
local function lookup(self, name, scope)
  if name:sub(1, 1) == "." then return self.symbols[name:sub(2)] and name:sub(2) end
  local first = name:match("^[^.]+")
  while true do
    local prefix = scope == "" and "" or scope .. "."
    local whole = prefix .. name
    if first == name then
      if self.symbols[whole] then return whole end
    elseif self.symbols[prefix .. first] == "message" or self.packages[prefix .. first] then
      return self.symbols[whole] and whole
    end
    if scope == "" then return nil end
    scope = scope:match("^(.*)%.") or ""
  end
end

local function nearest(self, name)
  local last, names = name:match("[^.]+$"), {}
  for symbol in pairs(self.symbols) do names[#names + 1] = symbol:match("[^.]+$") end
  for scalar in pairs(wire.scalars) do names[#names + 1] = scalar end
  table.sort(names)
  local near = text.nearest(last, names)
  return near and near ~= last and (", did you mean %s?"):format(near) or ""
end

local function resolve(self, file, use, kind)
  if not kind and wire.scalars[use.type] then return use.type end
  local name = lookup(self, use.type, use.scope)
  if not name then file.words:fail(("there is no type '%s'%s"):format(use.type, nearest(self, use.type)), use.at) end
  if kind and self.symbols[name] ~= kind then file.words:fail(("'%s' is no %s"):format(use.type, kind), use.at) end
  return name
end

local function field_of(self, file, field)
  local type = resolve(self, file, field)
  -- every number is packed unless somebody says no
  local packs = field.repeated and field.packed == false and (self.symbols[type] == "enum" or wire.scalars[type].packs)
  return { field.number, type, repeated = field.repeated, optional = field.optional, key = field.key, oneof = field.oneof,
    packed = not packs and nil }
end

local function ready_file(self, file)
  for _, enum in ipairs(file.enums) do
    local values = {}
    for _, value in ipairs(enum.values) do values[value.name] = value.number end
    self.ready.enums[enum.name] = values
  end
  for _, message in ipairs(file.messages) do
    local fields = {}
    for _, field in ipairs(message.fields) do fields[field.name] = field_of(self, file, field) end
    self.ready.messages[message.name] = fields
  end
end

local function service_of(self, file, service)
  local methods = {}
  for _, method in ipairs(service.methods) do
    methods[method.name] = {
      resolve(self, file, method.request, "message"), resolve(self, file, method.response, "message"),
      client_streams = method.request.streams or nil, server_streams = method.response.streams or nil,
    }
  end
  return methods
end

-- What is used, from the messages and services of the files that were asked for.
local function reach(self, out, name)
  if self.ready.enums[name] then
    out.enums[name] = self.ready.enums[name]
  elseif self.ready.messages[name] and not out.messages[name] then
    out.messages[name] = self.ready.messages[name]
    for _, field in pairs(self.ready.messages[name]) do reach(self, out, field[2]) end
  end
end

--- `proto.load(paths, options)`: the table of one or more files and of what they need of others.  Options:
-- include (a list of folders where imports are).
function proto.load(paths, options)
  local self = {
    include = options and options.include or {}, files = {}, list = {}, symbols = {}, packages = {},
    ready = { enums = {}, messages = {} },
  }
  local mine, out = {}, { enums = {}, messages = {}, services = {} }
  for _, path in ipairs(paths) do
    add_file(self, path)
    mine[self.files[fs.realpath(path)]] = true
  end
  for _, file in ipairs(self.list) do ready_file(self, file) end
  for _, file in ipairs(self.list) do
    if mine[file] then
      for _, list in ipairs { file.messages, file.enums } do
        for _, one in ipairs(list) do reach(self, out, one.name) end
      end
      for _, service in ipairs(file.services) do
        out.services[service.name] = service_of(self, file, service)
        for _, method in pairs(out.services[service.name]) do
          reach(self, out, method[1])
          reach(self, out, method[2])
        end
      end
    end
  end
  return out
end

-- Printing -----------------------------------------------------------------------------------------------

local KEYWORDS = {}
for word in ([[and break do else elseif end false for function goto if in local nil not or repeat return then
  true until while]]):gmatch("%a+") do KEYWORDS[word] = true end

local function key(name)
  if name:find("^[%a_][%w_]*$") and not KEYWORDS[name] then return name end
  return ("[%q]"):format(name)
end

local function by_name(map)
  local names = {}
  for name in pairs(map) do names[#names + 1] = name end
  table.sort(names)
  return names
end

local function by_number(map, number_of)
  local names = by_name(map)
  table.sort(names, function(a, b)
    local m, n = number_of(map[a]), number_of(map[b])
    if m ~= n then return m < n end
    return a < b
  end)
  return names
end

-- { a, b, c } on one line if it fits, else on as many as it needs.
local function braces(parts, indent, room)
  local line = table.concat(parts, ", ")
  if #parts == 0 then return "{}" end
  if #line + #indent + room + 6 <= LINE_MOST then return "{ " .. line .. " }" end
  local lines, now = {}, indent .. "  "
  for _, part in ipairs(parts) do
    if #now + #part + 2 > LINE_MOST and now:find("%S") then
      lines[#lines + 1] = (now:gsub(" $", ""))
      now = indent .. "  "
    end
    now = now .. part .. ", "
  end
  lines[#lines + 1] = (now:gsub(" $", ""))
  return "{\n" .. table.concat(lines, "\n") .. "\n" .. indent .. "}"
end

local FLAGS = { "repeated", "optional", "packed", "client_streams", "server_streams" }

-- 1, "string", repeated = true
local function entry(list)
  local parts = {}
  for i, value in ipairs(list) do parts[i] = type(value) == "string" and ("%q"):format(value) or tostring(value) end
  for _, name in ipairs(FLAGS) do
    if list[name] ~= nil then parts[#parts + 1] = ("%s = %s"):format(name, list[name]) end
  end
  for _, name in ipairs { "key", "oneof" } do
    if list[name] then parts[#parts + 1] = ("%s = %q"):format(name, list[name]) end
  end
  return parts
end

local function print_entries(lines, map, names)
  for _, name in ipairs(names) do
    lines[#lines + 1] = ("      %s = %s,"):format(key(name), braces(entry(map[name]), "      ", #name))
  end
end

local function print_group(lines, title, map, print_one)
  if next(map) == nil then return end
  lines[#lines + 1] = ("  %s = {"):format(title)
  for _, name in ipairs(by_name(map)) do print_one(name, map[name]) end
  lines[#lines + 1] = "  },"
end

local function print_table(lines, name, map, names)
  if #names == 0 then
    lines[#lines + 1] = ("    [%q] = {},"):format(name)
    return
  end
  lines[#lines + 1] = ("    [%q] = {"):format(name)
  print_entries(lines, map, names)
  lines[#lines + 1] = "    },"
end

--- `proto.print(table, title)`: it as the text of a Lua module, always the same for the same table.
function proto.print(given, title)
  local lines = { ("-- %s"):format(title), "", "return {" }
  print_group(lines, "enums", given.enums, function(name, values)
    local parts = {}
    for i, value in ipairs(by_number(values, function(n) return n end)) do
      parts[i] = ("%s = %d"):format(key(value), values[value])
    end
    lines[#lines + 1] = ("    [%q] = %s,"):format(name, braces(parts, "    ", #name + 8))
  end)
  print_group(lines, "messages", given.messages, function(name, fields)
    print_table(lines, name, fields, by_number(fields, function(field) return field[1] end))
  end)
  print_group(lines, "services", given.services, function(name, methods)
    print_table(lines, name, methods, by_name(methods))
  end)
  lines[#lines + 1] = "}"
  return table.concat(lines, "\n") .. "\n"
end

return proto
