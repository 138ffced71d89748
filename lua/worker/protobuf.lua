-- worker.protobuf: messages of Protocol Buffers (proto3), driven by tables that `worker proto` prints.
--
-- A table says { enums = { [name] = { NAME = number } }, messages = { [name] = { field = { number, type } } },
-- services = { [name] = { Method = { request, response } } } }; names are full ones.  A field may say
-- repeated = true, key = TYPE (a map from that to its type), optional = true, oneof = NAME, packed = false.
--
-- What comes out is plain data with every default filled in.  Who answers us is hostile until read:
-- lengths and numbers are strict, the depth and the number of values have ceilings.
local text = require "worker.text"
local wire = require "worker.protobuf.wire"

local protobuf = {}

local DEPTH_MOST = 100
local VALUES_MOST = 1000000 -- also of defaults: a message of two bytes may be a table of twenty fields

local LARGE = 1 << 20

local fail, scalars, span, to_varint = wire.fail, wire.scalars, wire.span, wire.to_varint

-- The shape of messages ----------------------------------------------------------------------------------

local function sorted_keys(map)
  local keys = {}
  for key in pairs(map) do keys[#keys + 1] = key end
  table.sort(keys)
  return keys
end

local KEYS = { bool = true, string = true }
for name, scalar in pairs(scalars) do
  if scalar.packs and name ~= "double" and name ~= "float" then KEYS[name] = true end
end

local function check_field(field, where)
  local number, name = field[1], field[2]
  local function wrong(why) error(("protobuf: %s: %s"):format(where, why), 0) end
  if math.type(number) ~= "integer" or number < 1 or number >> 29 ~= 0 then
    wrong "its number must be from 1 to 536870911"
  elseif type(name) ~= "string" then
    wrong "it has no type"
  elseif field.key and not KEYS[field.key] then
    wrong(("%s cannot be the key of a map"):format(tostring(field.key)))
  elseif field.oneof and (field.repeated or field.key) then
    wrong "what is one of several cannot be a list or a map"
  end
end

-- The type of a field: a scalar, or the message it holds.
local function type_of(self, name, where)
  if scalars[name] then return scalars[name] end
  if self.enums[name] then return self.enums[name] end
  if self.shapes[name] then return nil, self.shapes[name] end
  local near = text.nearest(name, sorted_keys(self.shapes))
  error(("protobuf: %s: there is no type '%s'%s"):format(where, name, near and (", did you mean %s?"):format(near) or ""), 0)
end

local function tag_of(number, kind) return number << 3 | kind end

-- One field, ready to be read and written.
local function new_field(self, shape, name, given)
  local where = shape.name .. "." .. name
  check_field(given, where)
  local scalar, message = type_of(self, given[2], where)
  local key = given.key and scalars[given.key]
  local kind = (message or key) and wire.BYTES or scalar.wire
  local field = {
    name = name, where = where, scalar = scalar, message = message, key = key, repeated = given.repeated,
    oneof = given.oneof, number = given[1], tag = to_varint(tag_of(given[1], kind)),
    packs = given.repeated and scalar and scalar.packs,
    explicit = message or given.oneof or given.optional,
  }
  if field.packs and given.packed ~= false then field.packed_tag = to_varint(tag_of(given[1], wire.BYTES)) end
  return field, kind
end

-- Reading ------------------------------------------------------------------------------------------------

local read_message

local function count(r, pos, values)
  r.left = r.left - values
  if r.left < 0 then fail(r, pos, ("more than %d values"):format(r.most)) end
end

local function fresh(r, shape, pos)
  count(r, pos, 1 + #shape.defaults)
  local value = {}
  for _, field in ipairs(shape.defaults) do
    if field.repeated or field.key then
      value[field.name] = {}
    else
      value[field.name] = field.scalar.default
    end
  end
  return value
end

-- A value of a field's type; a message goes into what was there before: parts of it may come apart.
local function read_value(r, field, pos, last, depth, before)
  if field.scalar then return field.scalar.read(r, pos, last) end
  local from, to = span(r, pos, last)
  return read_message(r, field.message, from, to, depth + 1, before), to + 1
end

local readers = {}

function readers.single(r, field, into, pos, last, depth)
  local value, after = read_value(r, field, pos, last, depth, into[field.name])
  if field.oneof then
    local other = into[field.oneof]
    if other and other ~= field.name then into[other] = nil end
    into[field.oneof] = field.name
  end
  into[field.name] = value
  return after
end

function readers.list(r, field, into, pos, last, depth)
  count(r, pos, 1)
  local list = into[field.name]
  local after
  list[#list + 1], after = read_value(r, field, pos, last, depth)
  return after
end

function readers.packed(r, field, into, pos, last)
  local from, to = span(r, pos, last)
  local list, read, n = into[field.name], field.scalar.read, #into[field.name]
  while from <= to do
    count(r, from, 1)
    n = n + 1
    list[n], from = read(r, from, to)
  end
  return to + 1
end

-- An entry is a message of two fields; what is missing in it has its default.
function readers.map(r, field, into, pos, last, depth)
  count(r, pos, 1)
  local from, to = span(r, pos, last)
  local entry = read_message(r, field.entry, from, to, depth + 1)
  local value = entry.value
  if value == nil then value = fresh(r, field.message, pos) end
  into[field.name][entry.key] = value
  return to + 1
end

local function unknown(r, shape, tag, pos, last, depth)
  local field = shape.numbers[tag >> 3]
  r.at = field and field.where or shape.name
  if field then fail(r, pos, ("the wire type %d is not that of this field"):format(tag & 7)) end
  return wire.skip(r, tag, pos, last, depth)
end

function read_message(r, shape, pos, last, depth, before)
  if depth > r.depth then fail(r, pos, ("deeper than %d"):format(r.depth)) end
  local value, entries = before or fresh(r, shape, pos), shape.entries
  while pos <= last do
    r.at = shape.name
    local tag, after = wire.tag(r, pos, last)
    local entry = entries[tag]
    if entry then
      r.at = entry.field.where
      pos = entry.read(r, entry.field, value, after, last, depth)
    else
      pos = unknown(r, shape, tag, after, last, depth)
    end
  end
  return value
end

-- Writing ------------------------------------------------------------------------------------------------

--
-- All parts go into one list, which becomes the message at the end: whatever is deep inside is copied
-- once.  Every writer returns how many bytes it has added.

local write_message

-- Mistakes are told with the name of the field.
local function scalar_bytes(field, value)
  local ok, bytes = pcall(field.scalar.write, value)
  if ok then return bytes end
  error(("protobuf: %s: %s"):format(field.where, bytes), 0)
end

local function add(out, bytes)
  out[#out + 1] = bytes
  return #bytes
end

-- A message behind its length, which is known afterwards.
local function write_inner(out, shape, value, depth, where)
  local place = #out + 1
  out[place] = ""
  local size = write_message(out, shape, value, depth + 1, where)
  out[place] = to_varint(size)
  return size + #out[place]
end

local function write_scalar(out, field, bytes)
  local size = add(out, field.tag)
  if field.scalar.wire == wire.BYTES then size = size + add(out, to_varint(#bytes)) end
  return size + add(out, bytes)
end

local function write_value(out, field, value, depth)
  if field.message then
    return add(out, field.tag) + write_inner(out, field.message, value, depth, field.where)
  end
  return write_scalar(out, field, scalar_bytes(field, value))
end

local function check_table(value, where, what)
  if type(value) ~= "table" then error(("protobuf: %s: expected %s, got a %s"):format(where, what, type(value)), 0) end
end

-- Zero, but not the negative one, which is another value.
local function is_default(field, value, bytes)
  local default = field.scalar.default
  if type(default) == "number" then return value == default and (math.type(value) ~= "float" or 1 / value > 0) end
  return value == default or value == 0 and bytes == "\0"
end

local writers = {}

function writers.single(out, field, value, depth)
  if field.explicit then return write_value(out, field, value, depth) end
  local bytes = scalar_bytes(field, value)
  if is_default(field, value, bytes) then return 0 end
  return write_scalar(out, field, bytes)
end

function writers.list(out, field, list, depth)
  check_table(list, field.where, "a list")
  local size = 0
  for _, value in ipairs(list) do size = size + write_value(out, field, value, depth) end
  return size
end

function writers.packed(out, field, list)
  check_table(list, field.where, "a list")
  if #list == 0 then return 0 end
  local all = {}
  for i, value in ipairs(list) do all[i] = scalar_bytes(field, value) end
  local bytes = table.concat(all)
  return add(out, field.packed_tag) + add(out, to_varint(#bytes)) + add(out, bytes)
end

-- Sorted, so that the same value always gives the same bytes.
function writers.map(out, field, map, depth)
  check_table(map, field.where, "a map")
  local keys = {}
  for key in pairs(map) do keys[#keys + 1] = key end
  table.sort(keys, function(a, b)
    if type(a) == type(b) and type(a) ~= "boolean" then return a < b end
    return tostring(a) < tostring(b)
  end)
  local size = 0
  for _, key in ipairs(keys) do
    local entry = { key = key, value = map[key] }
    size = size + add(out, field.tag) + write_inner(out, field.entry, entry, depth, field.where)
  end
  return size
end

local function check_names(shape, value, where)
  for name in pairs(value) do
    if not shape.names[name] and not shape.oneofs[name] then
      local near = text.nearest(tostring(name), sorted_keys(shape.names))
      error(("protobuf: %s: there is no field '%s' in %s%s"):format(where, tostring(name), shape.name,
        near and (", did you mean %s?"):format(near) or ""), 0)
    end
  end
end

function write_message(out, shape, value, depth, where)
  check_table(value, where, "a message")
  if depth > DEPTH_MOST then error(("protobuf: %s: deeper than %d"):format(where, DEPTH_MOST), 0) end
  check_names(shape, value, where)
  local size, chosen = 0, {}
  for _, field in ipairs(shape.fields) do
    local given = value[field.name]
    if given ~= nil then
      if field.oneof and chosen[field.oneof] then
        error(("protobuf: %s: only one of %s may be there, not %s and %s"):format(where, field.oneof,
          chosen[field.oneof], field.name), 0)
      elseif field.oneof then
        chosen[field.oneof] = field.name
      end
      size = size + field.write(out, field, given, depth)
    end
  end
  return size
end

-- The parts as one.  table.concat makes room for up to three times what comes out, which is too much where
-- one part is nearly all of it.
local function join(out)
  local large = 1
  for i, part in ipairs(out) do
    if #part > #out[large] then large = i end
  end
  if #out == 0 or #out[large] < LARGE then return table.concat(out) end
  return table.concat(out, "", 1, large - 1) .. out[large] .. table.concat(out, "", large + 1)
end

-- Loading a table ----------------------------------------------------------------------------------------

local function add_entry(shape, field, tag, read)
  shape.entries[tag] = { field = field, read = read }
end

local function add_field(self, shape, name, given)
  local field, kind = new_field(self, shape, name, given)
  local tag = tag_of(field.number, kind)
  if shape.numbers[field.number] then
    error(("protobuf: %s: %s has the number %d, too"):format(field.where, shape.numbers[field.number].name, field.number), 0)
  end
  if field.oneof then shape.oneofs[field.oneof] = true end
  shape.numbers[field.number], shape.names[name] = field, field
  shape.fields[#shape.fields + 1] = field
  if field.key then
    field.entry = self.entry_of(field, given)
    field.write = writers.map
    add_entry(shape, field, tag, readers.map)
  elseif field.repeated then
    field.write = field.packed_tag and writers.packed or writers.list
    add_entry(shape, field, tag, readers.list)
    -- either form is read, whatever the table says
    if field.packs then add_entry(shape, field, tag_of(field.number, wire.BYTES), readers.packed) end
  else
    field.write = writers.single
    add_entry(shape, field, tag, readers.single)
  end
end

local function new_shape(name)
  return { name = name, fields = {}, names = {}, numbers = {}, entries = {}, oneofs = {}, defaults = {} }
end

local function fill(self, shape, fields)
  for _, name in ipairs(sorted_keys(fields)) do add_field(self, shape, name, fields[name]) end
  table.sort(shape.fields, function(a, b) return a.number < b.number end)
  for name in pairs(shape.oneofs) do
    if shape.names[name] then error(("protobuf: %s: %s is both a field and a oneof"):format(shape.name, name), 0) end
  end
  for _, field in ipairs(shape.fields) do
    if field.repeated or field.key or not field.explicit then shape.defaults[#shape.defaults + 1] = field end
  end
end

local methods = {}
local meta = { __index = methods, __name = "worker.protobuf" }

local function reader_of(self, shape)
  return function(bytes)
    local r = { s = bytes, at = shape.name, depth = self.depth, left = self.values, most = self.values }
    return read_message(r, shape, 1, #bytes, 1)
  end
end

--- `protobuf.load(table, options)`: the messages of a table.  Options: depth (100), values (1,000,000):
-- how deep and how large what is read may be.
function protobuf.load(given, options)
  options = options or {}
  local self = setmetatable({
    enums = {}, shapes = {}, codecs = {}, services = given.services or {},
    depth = options.depth or DEPTH_MOST, values = options.values or VALUES_MOST,
  }, meta)
  function self.entry_of(field, of)
    local entry = new_shape(field.where)
    fill(self, entry, { key = { 1, of.key }, value = { 2, of[2] } })
    -- both are always written, as everybody does
    for _, part in ipairs(entry.fields) do part.explicit = true end
    return entry
  end
  for name, values in pairs(given.enums or {}) do self.enums[name] = wire.enum(values) end
  for name in pairs(given.messages or {}) do self.shapes[name] = new_shape(name) end
  for _, name in ipairs(sorted_keys(given.messages or {})) do fill(self, self.shapes[name], given.messages[name]) end
  for name, shape in pairs(self.shapes) do
    self.codecs[name] = {
      name = name, decode = reader_of(self, shape),
      encode = function(value)
        local out = {}
        write_message(out, shape, value, 1, name)
        return join(out)
      end,
    }
  end
  return self
end

--- `schema:message(name)`: its codec: { name=, encode(value) -> bytes, decode(bytes) -> value }.
function methods:message(name)
  local codec = self.codecs[name]
  if codec then return codec end
  local near = text.nearest(tostring(name), sorted_keys(self.codecs))
  error(("protobuf: there is no message '%s'%s"):format(tostring(name), near and (", did you mean %s?"):format(near) or ""), 2)
end

--- `schema:method(service, name)`: a method: { path = "/service/name", request = codec, response = codec,
-- client = a codec for who calls it, server = one for who answers, client_streams=, server_streams= }.
function methods:method(service, name)
  local given = (self.services[service] or {})[name]
  if not given then error(("protobuf: there is no method %s of %s"):format(tostring(name), tostring(service)), 2) end
  local request, response = self:message(given[1]), self:message(given[2])
  return {
    path = ("/%s/%s"):format(service, name), request = request, response = response,
    client = { encode = request.encode, decode = response.decode },
    server = { encode = response.encode, decode = request.decode },
    client_streams = given.client_streams == true, server_streams = given.server_streams == true,
  }
end

-- Time ---------------------------------------------------------------------------------------------------

local NANO = 1000000000

--- `protobuf.timestamp(seconds)`: a google.protobuf.Timestamp (or Duration) of seconds, as time.wall() gives.
function protobuf.timestamp(seconds)
  local whole = math.floor(seconds)
  local nanos = math.floor((seconds - whole) * NANO)
  return { seconds = math.tointeger(whole), nanos = math.tointeger(nanos) }
end

--- `protobuf.seconds(stamp)`: back again; nil for nil.
function protobuf.seconds(stamp)
  return stamp and stamp.seconds + stamp.nanos / NANO
end

return protobuf
