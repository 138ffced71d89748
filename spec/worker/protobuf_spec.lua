-- Messages of Protocol Buffers: bytes by the book both ways, and what a hostile peer may send.
local err = require "worker.error"
local protobuf = require "worker.protobuf"
local text = require "worker.text"

local ALL = {
  enums = { Color = { RED = 0, GREEN = 1, MINT = 1, BLUE = -3 } },
  messages = {
    Scalars = {
      i32 = { 1, "int32" }, i64 = { 2, "int64" }, u32 = { 3, "uint32" }, u64 = { 4, "uint64" },
      s32 = { 5, "sint32" }, s64 = { 6, "sint64" }, f32 = { 7, "fixed32" }, f64 = { 8, "fixed64" },
      sf32 = { 9, "sfixed32" }, sf64 = { 10, "sfixed64" }, real = { 11, "double" }, half = { 12, "float" },
      flag = { 13, "bool" }, name = { 14, "string" }, data = { 15, "bytes" }, color = { 16, "Color" },
    },
    Lists = {
      numbers = { 1, "int32", repeated = true }, loose = { 2, "int32", repeated = true, packed = false },
      names = { 3, "string", repeated = true }, colors = { 4, "Color", repeated = true },
      nodes = { 5, "Node", repeated = true },
    },
    Maps = {
      texts = { 1, "string", key = "string" }, nodes = { 2, "Node", key = "int64" }, flags = { 3, "bool", key = "bool" },
    },
    Node = { id = { 1, "int32" }, child = { 2, "Node" }, label = { 3, "string" } },
    Choice = {
      text = { 1, "string", oneof = "payload" }, node = { 2, "Node", oneof = "payload" },
      nothing = { 3, "Empty", oneof = "payload" }, other = { 4, "int32", oneof = "second" }, plain = { 5, "int32" },
    },
    Presence = { maybe = { 1, "int32", optional = true } },
    Empty = {},
  },
  services = { ["a.v1.Service"] = { Do = { "Node", "Choice" }, Talk = { "Node", "Choice", client_streams = true,
    server_streams = true } } },
}

local schema = protobuf.load(ALL)

local function codec(name) return schema:message(name) end
local function hex(name, value) return text.hex(codec(name).encode(value)) end
local function read(name, digits) return codec(name).decode(text.unhex((digits:gsub(" ", "")))) end

local function back(name, value)
  local bytes = codec(name).encode(value)
  local got = codec(name).decode(bytes)
  for key, one in pairs(value) do assert.same(one, got[key], key) end
  assert.equal(bytes, codec(name).encode(got))
  return got
end

local function refuses(words, name, digits)
  local ok, why = pcall(read, name, digits)
  assert.is_false(ok)
  assert.is_true(err.is(why, "wire"), tostring(why))
  assert.is_truthy(why.message:find(words, 1, true), why.message)
end

describe("protobuf writes and reads", function()
  it("numbers as the format wants them", function()
    assert.equal("089601", hex("Scalars", { i32 = 150 }))
    assert.equal("08ffffffffffffffffff01", hex("Scalars", { i32 = -1 }))
    assert.equal("10ffffffffffffffffff01", hex("Scalars", { i64 = -1 }))
    assert.equal("18ffffffff0f", hex("Scalars", { u32 = 4294967295 }))
    assert.equal("20ffffffffffffffffff01", hex("Scalars", { u64 = -1 }))
    assert.equal("2801", hex("Scalars", { s32 = -1 }))
    assert.equal("2802", hex("Scalars", { s32 = 1 }))
    assert.equal("30ffffffffffffffffff01", hex("Scalars", { s64 = math.mininteger }))
    assert.equal("3d01000000", hex("Scalars", { f32 = 1 }))
    assert.equal("41ffffffffffffffff", hex("Scalars", { f64 = -1 }))
    assert.equal("59000000000000f83f", hex("Scalars", { real = 1.5 }))
    assert.equal("650000c03f", hex("Scalars", { half = 1.5 }))
    assert.equal("6801", hex("Scalars", { flag = true }))
    assert.equal("8001fdffffffffffffffff01", hex("Scalars", { color = "BLUE" }))
  end)

  it("every scalar at its ends, exactly", function()
    back("Scalars", { i32 = -2147483648, i64 = math.mininteger, u32 = 4294967295, u64 = 9007199254740993,
      s32 = -2147483648, s64 = math.mininteger, f32 = 4294967295, f64 = math.mininteger, sf32 = -2147483648,
      sf64 = math.maxinteger, real = -1e300, half = 0.25, flag = true, name = "zażółć 日本", data = "\0\xff", color = "BLUE" })
    back("Scalars", { i32 = 2147483647, i64 = math.maxinteger, s32 = 2147483647, s64 = math.maxinteger, real = math.huge })
  end)

  it("defaults: not written, always there when read", function()
    assert.equal("", hex("Scalars", { i32 = 0, name = "", data = "", flag = false, color = "RED", real = 0.0 }))
    local got = read("Scalars", "")
    assert.same({ 0, "", false, "RED", 0.0 }, { got.i32, got.name, got.flag, got.color, got.real })
    assert.same({ numbers = {}, loose = {}, names = {}, colors = {}, nodes = {} }, read("Lists", ""))
    assert.is_nil(read("Node", "").child)
    assert.equal("590000000000000080", hex("Scalars", { real = -0.0 }))
  end)

  it("whole floats as integers, other ones never", function()
    assert.equal("0802", hex("Scalars", { i32 = 2.0 }))
    assert.has_error(function() hex("Scalars", { i32 = 2.5 }) end, "protobuf: Scalars.i32: expected a whole number, got 2.5")
  end)

  it("enums by name; a number that has no name stays one", function()
    assert.equal("800101", hex("Scalars", { color = "MINT" }))
    assert.equal("GREEN", read("Scalars", "8001 01").color)
    assert.equal(99, read("Scalars", "8001 63").color)
    assert.equal("800163", hex("Scalars", { color = 99 }))
    assert.has_error(function() hex("Scalars", { color = "PUCE" }) end, "protobuf: Scalars.color: there is no value 'PUCE'")
  end)

  it("lists, packed or not, and reads either form of both", function()
    assert.equal("0a03010203", hex("Lists", { numbers = { 1, 2, 3 } }))
    assert.equal("10011002", hex("Lists", { loose = { 1, 2 } }))
    assert.same({ 1, 2, 300 }, read("Lists", "0801 0a03 02 ac02").numbers)
    assert.same({ 1, 2 }, read("Lists", "1202 0102").loose)
    back("Lists", { names = { "a", "", "c" }, colors = { "BLUE", "RED" },
      nodes = { { id = 1, label = "" }, { id = 0, label = "x" } } })
  end)

  it("maps, sorted; an entry may lack its key or its value", function()
    assert.equal("0a060a01611201780a060a0162120179", hex("Maps", { texts = { b = "y", a = "x" } }))
    assert.same({ [""] = "x" }, read("Maps", "0a03 120178").texts)
    assert.same({ a = "" }, read("Maps", "0a03 0a0161").texts)
    assert.same({ [7] = { id = 0, label = "" } }, read("Maps", "1202 0807").nodes)
    back("Maps", { nodes = { [-1] = { id = 5, label = "" } }, flags = { [true] = false, [false] = true } })
  end)

  it("one of several: also an empty message, the last one wins", function()
    assert.equal("1a00", hex("Choice", { nothing = {} }))
    assert.equal("0a00", hex("Choice", { text = "" }))
    assert.equal("2000", hex("Choice", { other = 0 }))
    local got = read("Choice", "0a0178 1a00 2005")
    assert.same({ payload = "nothing", nothing = {}, second = "other", other = 5, plain = 0 }, got)
    assert.equal("1a002005", hex("Choice", got))
    assert.has_error(function() hex("Choice", { text = "a", node = {} }) end,
      "protobuf: Choice: only one of payload may be there, not text and node")
  end)

  it("what is optional apart from its default", function()
    assert.equal("0800", hex("Presence", { maybe = 0 }))
    assert.is_nil(read("Presence", "").maybe)
    assert.equal(0, read("Presence", "0800").maybe)
  end)

  it("a message that comes in parts as one", function()
    assert.same({ id = 7, label = "x" }, read("Node", "1202 0807 1203 1a0178").child)
    assert.equal(9, read("Node", "0807 0809").id)
  end)

  it("64 bits exactly where 32 are too few, and cuts where the format says so", function()
    assert.equal(-1, read("Scalars", "08ffffffff0f").i32)
    assert.equal(1, read("Scalars", "1881808080f0ffffffff01").u32)
    assert.is_true(read("Scalars", "6880808080808080808001").flag)
  end)

  it("fields that nobody knows by leaving them out, old groups too", function()
    assert.same({ id = 7, label = "" }, read("Node", "a20601 78 a1060102030405060708 a5060a0b0c0d a00605 0807"))
    assert.same({ id = 7, label = "" }, read("Node", "5b 0801 53 5a0158 54 5c 0807"))
  end)
end)

describe("protobuf refuses", function()
  it("numbers that end early or never", function()
    refuses("Scalars.i32: byte 2: the message ends in the middle of a number", "Scalars", "08")
    refuses("Scalars.i32: byte 2: the message ends in the middle of a number", "Scalars", "08ffff")
    refuses("more than 10 bytes", "Scalars", "08ffffffffffffffffffff01")
    refuses("more than 64 bits", "Scalars", "08ffffffffffffffffff02")
    refuses("Scalars.f64: byte 2: the message ends", "Scalars", "41ffffff")
    refuses("Scalars.f32: byte 2: the message ends", "Scalars", "3dffffff")
  end)

  it("lengths beyond the message they are in", function()
    refuses("Node.label: byte 2: 5 bytes are announced, 1 are there", "Node", "1a0578")
    refuses("9223372036854775808 bytes are announced, 0 are there", "Node", "1a80808080808080808001")
    refuses("18446744073709551615 bytes are announced", "Node", "1affffffffffffffffff01")
    refuses("Node.label: byte 4: 9 bytes are announced, 1 are there", "Node", "1203 1a0978 1a0178")
    refuses("Lists.numbers: byte 3: the message ends in the middle of a number", "Lists", "0a0180 01")
  end)

  it("fields and wire types that do not exist", function()
    refuses("no field of the number 0", "Node", "0001")
    refuses("no field of the number 0", "Node", "0201")
    refuses("there is no field of the number", "Node", "8880808010 01")
    refuses("the wire type 6 does not exist", "Node", "a606")
    refuses("the wire type 7 does not exist", "Node", "a706")
    refuses("the wire type 4 ends what never began", "Node", "5c")
    refuses("the end of another group", "Node", "5b 54")
    refuses("the message ends in the middle of a group", "Node", "5b 0801")
  end)

  it("a known field of another wire type", function()
    refuses("Node.id: byte 2: the wire type 2 is not that of this field", "Node", "0a0178")
    refuses("Node.label: byte 2: the wire type 0", "Node", "1801")
    refuses("Node.child: byte 2: the wire type 3", "Node", "1314")
  end)

  it("text that is not UTF-8", function()
    refuses("Node.label: byte 4: text that is not UTF-8", "Node", "1a0361ff62")
    refuses("not UTF-8", "Node", "1a03eda080")
    refuses("not UTF-8", "Node", "1a02c080")
    refuses("not UTF-8", "Maps", "0a0512 03 61e282")
    assert.has_error(function() hex("Node", { label = "a\xff" }) end,
      "protobuf: Node.label: expected text in UTF-8: byte 2 is none")
  end)

  it("what is too deep, also in groups", function()
    local function nested(depth)
      local bytes = ""
      for _ = 1, depth do bytes = "\x12" .. string.pack("s1", bytes):sub(1) end
      return bytes
    end
    assert.is_table(codec("Node").decode(nested(60)))
    local shallow = protobuf.load(ALL, { depth = 5 })
    assert.is_table(shallow:message("Node").decode(nested(4)))
    local ok, why = pcall(shallow:message("Node").decode, nested(5))
    assert.is_false(ok)
    assert.matches("deeper than 5", why.message)
    refuses("deeper than 100", "Node", ("5b"):rep(101))
    local loop = {}
    loop.child = loop
    assert.has_error(function() codec("Node").encode(loop) end, "protobuf: Node.child: deeper than 100")
  end)

  it("more values than the ceiling, however small they are on the wire", function()
    local few = protobuf.load(ALL, { values = 50 })
    local function tries(name, bytes)
      local ok, why = pcall(few:message(name).decode, bytes)
      return ok or why.message:match("more than %d+ values")
    end
    assert.is_true(tries("Lists", ("\x08\x01"):rep(40)))
    assert.equal("more than 50 values", tries("Lists", ("\x08\x01"):rep(60)))
    assert.equal("more than 50 values", tries("Lists", "\x0a\x3c" .. ("\1"):rep(60)))
    assert.equal("more than 50 values", tries("Lists", ("\x2a\x00"):rep(16)))
    assert.equal("more than 50 values", tries("Maps", ("\x0a\x00"):rep(16)))
  end)

  it("whatever bytes it is given, without a bug", function()
    local byte, seeds = math.random, { "Scalars", "Lists", "Maps", "Node", "Choice" }
    local sample = codec("Maps").encode { texts = { a = "x" }, nodes = { [1] = { child = { id = 5 } } } }
    for round = 1, 3000 do
      local bytes = {}
      for i = 1, byte(0, 40) do bytes[i] = string.char(round % 3 == 0 and byte(0, 31) or byte(0, 255)) end
      local given = table.concat(bytes)
      if round % 4 == 0 then
        local cut = byte(1, #sample)
        given = sample:sub(1, cut - 1) .. string.char(byte(0, 255)) .. sample:sub(cut + 1)
      end
      for _, name in ipairs(seeds) do
        local ok, why = pcall(codec(name).decode, given)
        assert.is_true(ok or err.is(why, "wire"), ok or ("%s: %s: %s"):format(name, text.hex(given), tostring(why)))
        if ok then codec(name).encode(why) end
      end
    end
  end)

  it("to write what the table does not have", function()
    local function wrong(words, name, value) assert.has_error(function() codec(name).encode(value) end, words) end
    wrong("protobuf: Node: there is no field 'lable' in Node, did you mean label?", "Node", { lable = "x" })
    wrong("protobuf: Node.child: expected a message, got a string", "Node", { child = "x" })
    wrong("protobuf: Node.id: expected a number from -2147483648 to 2147483647, got 2147483648", "Node", { id = 1 << 31 })
    wrong("protobuf: Node.id: expected a whole number, got a string", "Node", { id = "1" })
    wrong("protobuf: Node.label: expected text, got a number", "Node", { label = 1 })
    wrong("protobuf: Scalars.flag: expected true or false, got a number", "Scalars", { flag = 1 })
    wrong("protobuf: Lists.names: expected a list, got a string", "Lists", { names = "x" })
    wrong("protobuf: Node: expected a message, got a nil", "Node", nil)
  end)
end)

describe("a table of messages", function()
  local function load(messages)
    return function() protobuf.load { messages = messages } end
  end

  it("is refused when it makes no sense, with the field", function()
    assert.has_error(load { M = { a = { 1, "int33" } } }, "protobuf: M.a: there is no type 'int33'")
    assert.has_error(load { M = { a = { 1, "Mm" } } }, "protobuf: M.a: there is no type 'Mm', did you mean M?")
    assert.has_error(load { M = { a = { 0, "int32" } } }, "protobuf: M.a: its number must be from 1 to 536870911")
    assert.has_error(load { M = { a = { 1, "int32" }, b = { 1, "int32" } } }, "protobuf: M.b: a has the number 1, too")
    assert.has_error(load { M = { a = { 1, "int32", key = "double" } } }, "protobuf: M.a: double cannot be the key of a map")
    assert.has_error(load { M = { a = { 1, "int32", oneof = "b" }, b = { 2, "int32" } } },
      "protobuf: M: b is both a field and a oneof")
  end)

  it("has the methods of its services, with codecs for either side", function()
    local method = schema:method("a.v1.Service", "Talk")
    assert.equal("/a.v1.Service/Talk", method.path)
    assert.is_true(method.client_streams and method.server_streams)
    assert.is_false(schema:method("a.v1.Service", "Do").client_streams)
    assert.equal("x", method.server.decode(method.request.encode { label = "x" }).label)
    assert.equal("x", method.client.decode(method.server.encode { text = "x" }).text)
    assert.has_error(function() schema:method("a.v1.Service", "Dance") end)
    assert.has_error(function() schema:message "Nod" end)
  end)
end)

describe("times of protobuf", function()
  it("are seconds and back", function()
    assert.same({ seconds = 1795230245, nanos = 250000000 }, protobuf.timestamp(1795230245.25))
    assert.same({ seconds = -2, nanos = 500000000 }, protobuf.timestamp(-1.5))
    assert.equal(1795230245.25, protobuf.seconds { seconds = 1795230245, nanos = 250000000 })
    assert.is_nil(protobuf.seconds(nil))
  end)
end)
