-- The reader of JSON (src/json.c, src/lua_json.c).
local cjson = require "cjson"
local core = require "worker.core.json"
local task = require "worker.core.task"

local function problem(text, options)
  local ok, err = pcall(core.decode, text, options)
  assert(not ok, "taken: " .. text)
  return err
end

describe("json.decode", function()
  it("gives integers as integers, all 64 bits of them", function()
    local list = core.decode "[0, -1, 9007199254740993, 9223372036854775807, -9223372036854775808]"
    assert.same({ 0, -1, 9007199254740993, math.maxinteger, math.mininteger }, list)
    for _, number in ipairs(list) do assert.equal("integer", math.type(number)) end
  end)

  it("keeps the digits of an integer that is larger", function()
    local big = core.decode "[9223372036854775808, -9223372036854775809, 18446744073709551616]"
    assert.equal("9223372036854775808", tostring(big[1]))
    assert.equal("-9223372036854775809", tostring(big[2]))
    assert.equal("18446744073709551616", tostring(big[3]))
    assert.equal(core.number "9223372036854775808", big[1])
    assert.not_equal(big[1], big[2])
  end)

  it("reads doubles as the C library would", function()
    for _, text in ipairs { "0.1", "1e22", "1e23", "123456789012345680.0", "5e-324", "1.7976931348623157e308",
      "2.2250738585072011e-308", "0.30000000000000004", "9007199254740993.0", "1E+2", "1e-400",
      "0.000000000000000000000000000000000000000000001234567890123456789", "100000000000000000000.5" } do
      assert.equal(tonumber(text), core.decode(text), text)
      assert.equal("float", math.type(core.decode(text)), text)
    end
    assert.equal("-inf", tostring(1 / core.decode "-0"))
  end)

  it("leaves null fields out and keeps null list items", function()
    local value = core.decode '{"id":null,"list":[1,null,3]}'
    assert.is_nil(value.id)
    assert.equal(3, #value.list)
    assert.equal(core.null, value.list[2])
    assert.equal(cjson.null, core.null)
    assert.is_nil(core.decode "null")
  end)

  it("puts what it is told in the place of null", function()
    local value = core.decode('{"id":null,"list":[null]}', { null = core.null })
    assert.equal(core.null, value.id)
    value = core.decode('{"id":null,"list":[null]}', { null = false })
    assert.same({ id = false, list = { false } }, value)
  end)

  it("takes the last of equal keys, also when it is null", function()
    assert.same({ a = 3 }, core.decode '{"a":1,"a":2,"a":3}')
    assert.is_nil(core.decode '{"a":1,"a":null}'.a)
    local members = {}
    for i = 1, 100 do members[i] = ('"k%d":%d'):format(i % 50, i) end
    assert.equal(99, core.decode("{" .. table.concat(members, ",") .. "}").k49)
  end)

  it("reads every escape and joins surrogate pairs", function()
    assert.equal('"\\/\b\f\n\r\tA\0é€😀', core.decode [["\"\\\/\b\f\n\r\t\u0041\u0000\u00e9\u20AC\ud83d\uDE00"]])
  end)

  it("reads long lists and objects, and nested ones to the limit", function()
    local list, members = {}, {}
    for i = 1, 1000 do list[i], members[i] = tostring(i), ('"k%d":[%d]'):format(i, i) end
    local numbers = core.decode("[" .. table.concat(list, ",") .. "]")
    assert.equal(1000, #numbers)
    assert.equal(777, numbers[777])
    local object = core.decode("{" .. table.concat(members, " ,\n") .. "}")
    assert.same({ 777 }, object.k777)
    local deep = ("["):rep(128) .. ("]"):rep(128)
    assert.is_true(core.valid(deep))
    assert.is_table(core.decode(deep))
    assert.matches("nested too deep", problem("[" .. deep .. "]").message)
    assert.is_table(core.decode(("["):rep(1000) .. ("]"):rep(1000), { depth = 1000 }))
    assert.matches("nested too deep", problem('{"a":{}}', { depth = 1 }).message)
  end)

  it("says line, column and byte, what it expected, and shows the place", function()
    local err = problem '{\n  "a": 1,\n  "b": nul\n}'
    assert.same({ "wire", 3, 8, 20 }, { err.kind, err.line, err.column, err.byte })
    assert.equal([[not JSON: line 3, column 8 (byte 20): expected a value, near ' "a": 1,.  "b": nul.}']], err.message)
    assert.matches("but the text ends", problem '{"a":[1,'.message)
  end)

  it("refuses more bytes than allowed, and NUL where told to", function()
    assert.matches("max_bytes", problem("[1,2]", { max_bytes = 4 }).message)
    assert.matches("u0000", problem([["a\u0000b"]], { no_nul = true }).message)
    assert.has_error(function() core.decode(12) end)
  end)
end)

-- Both readers, and cjson where it is right, must agree on each of these.
local good = { "[]", "{}", " [ ] ", "\t{\n}\r", "0", "-0", "1.5e+3", '""', "true", "false", "null", '"\\u0000"',
  '"\u{10ffff}"', '"\127"', '{"":0}', "[[[]]]", '{"a":[{"b":null}]}', '"\\ud834\\udd1e"', "1e-999", "[1 , 2]" }
local bad = { "", " ", "[", "]", "{", "}", "[1,]", "[,1]", "[1 2]", "{,}", '{"a"}', '{"a":}', '{"a":1,}', "{1:2}", "{a:1}",
  "[1]]", "1 2", "01", "-", "-01", "+1", ".5", "1.", "1.e3", "1e", "1e+", "0x10", "NaN", "Infinity", "-Infinity",
  "1e999", "-1e999", "nul", "nulll", "True", "'a'", '"a', '"\\"', '"\\x41"', '"\\u12"', '"\\u12g4"', '"\\ud800"',
  '"\\ud800\\u0041"', '"\\udc00"', '"\\ud800\\', '"\n"', '"\t"', '"\0"', "[1]\0", "\xef\xbb\xbf[]", '"\xff"', '"\xc0\x80"',
  '"\xed\xa0\x80"', '"\xf4\x90\x80\x80"', '"\xe2\x82"', "// x\n1", "[1/**/]", "\v1", "\u{a0}1", "--1", "1-", "[\"a\" 1]" }

describe("json.valid and json.decode", function()
  for _, text in ipairs(good) do
    it(("take %q"):format(text), function()
      assert.is_true(core.valid(text))
      assert.is_true((pcall(core.decode, text)))
    end)
  end

  for _, text in ipairs(bad) do
    it(("refuse %q"):format(text), function()
      local ok, message = core.valid(text)
      assert.is_false(ok)
      assert.equal(message, problem(text).message)
    end)
  end

  it("read any prefix of a text without a crash, and only the whole is right", function()
    local text = '{"a":[1,-2.5e3,"\\ud83d\\ude00é",true,null,{"b":{}}],"c":""}'
    for n = 0, #text - 1 do
      local from, _, cut = core.scan(text:sub(1, n))
      assert.is_nil(from)
      assert.is_true(cut or n == 0)
    end
    assert.is_true(core.valid(text))
  end)

  it("agree on garbage made from good texts #realtime", function()
    local seed = os.time()
    math.randomseed(seed)
    local pieces = { "[", "]", "{", "}", ",", ":", '"a"', "1", "-", ".", "e", '"', "\\", "u",
      "00", "null", " ", "\xc3", "\xa9", "\0" }
    for i = 1, 5000 do
      if i % 100 == 0 then task.yield() end
      local made = {}
      for j = 1, math.random(12) do made[j] = pieces[math.random(#pieces)] end
      local text = table.concat(made)
      local valid = core.valid(text)
      assert.equal(valid, (pcall(core.decode, text)), ("seed %d: %q"):format(seed, text))
      if valid and not text:find('"[^"]*%z') then
        assert.is_true((pcall(cjson.decode, "[" .. text .. "]")), ("seed %d: %q"):format(seed, text))
      end
    end
  end)
end)

describe("json.scan", function()
  it("finds one value after the other", function()
    local text = ' {"a":1}[2] "x"\n3 '
    local found, at = {}, 1
    while true do
      local from, to = core.scan(text, at)
      if not from then break end
      found[#found + 1] = text:sub(from, to)
      at = to + 1
    end
    assert.same({ '{"a":1}', "[2]", '"x"', "3" }, found)
  end)

  it("tells a text that ends too early from one that is wrong", function()
    local cut, wrong = { core.scan '{"a":' }, { core.scan '{"a"]' }
    assert.is_true(cut[3])
    assert.is_false(wrong[3])
    assert.equal(0, select("#", core.scan "  \n"))
    assert.has_error(function() core.scan("[]", 4) end)
  end)
end)

describe("json.last_object_line", function()
  it("gives the last line that is an object, as it was written", function()
    local output = 'building\n{"ok": false}\n  { "ok" :true, "n":1.0 }\t\r\n{"cut":\n[1]\n\n'
    assert.equal('{ "ok" :true, "n":1.0 }', core.last_object_line(output))
    assert.equal('{"a":1}', core.last_object_line '{"a":1}')
    assert.is_nil(core.last_object_line "no object\n[1]\n{]}\n")
    assert.is_nil(core.last_object_line "")
    assert.is_nil(core.last_object_line([[{"a":"\u0000"}]], { no_nul = true }))
  end)
end)
