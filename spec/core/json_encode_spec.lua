-- The writer of JSON (src/json_write.c, src/lua_json_encode.c).
local cjson = require "cjson"
local core = require "worker.core.json"
local encode = require "worker.core.json_encode"
local task = require "worker.core.task"

local function refusal(value, options)
  local ok, err = pcall(encode, value, options)
  assert(not ok, "written")
  return type(err) == "table" and err.message or err
end

describe("json encode", function()
  it("sorts keys, so that the same value always gives the same text", function()
    local keys = {}
    for i = 1, 40 do keys[("key%02d"):format(i)] = i end
    local last = 0
    for key in encode(keys):gmatch '"key(%d+)"' do
      assert.is_true(tonumber(key) > last)
      last = tonumber(key)
    end
    assert.equal('{"":0,"a":1,"a\\u0000":2,"aaaaaaaa":3,"aaaaaaaab":4,"b":5,"é":6}',
      encode { b = 5, ["é"] = 6, aaaaaaaab = 4, aaaaaaaa = 3, ["a\0"] = 2, a = 1, [""] = 0 })
  end)

  it("tells lists from objects, empty ones too", function()
    assert.equal('{"a":[],"b":{},"c":{},"d":[1]}',
      encode { a = core.array {}, b = core.object {}, c = {}, d = { 1 } })
    assert.equal('{"x":[[],{}]}', encode(core.decode '{"x":[[],{}]}'))
  end)

  it("writes null for json.null, in fields and in lists", function()
    assert.equal('{"a":null,"b":[null]}', encode { a = core.null, b = { cjson.null } })
    assert.equal("null", encode(nil))
  end)

  it("writes the shortest digits that read back", function()
    local cases = { [0.1] = "0.1", [1 / 3] = "0.3333333333333333", [0.1 + 0.2] = "0.30000000000000004",
      [5.0] = "5", [1e15] = "1000000000000000", [2 ^ 53] = "9007199254740992", [1e300] = "1e+300",
      [-1.25] = "-1.25", [1763694960.123456] = "1763694960.123456", [0.001] = "0.001",
      [1e-5] = "0.00001", [1.7976931348623157e308] = "1.7976931348623157e+308", [0.5] = "0.5", [100.0] = "100" }
    for number, text in pairs(cases) do assert.equal(text, encode(number)) end
    assert.equal("-0", encode(-0.0))
    assert.equal("9223372036854775807", encode(math.maxinteger))
    assert.equal("-9223372036854775808", encode(math.mininteger))
  end)

  it("reads back every double it writes #realtime", function()
    local seed = os.time()
    math.randomseed(seed)
    for i = 1, 20000 do
      if i % 100 == 0 then task.yield() end
      local number = string.unpack("d", string.pack("i8", math.random(0)))
      if i % 2 == 0 then number = math.random(1, 10 ^ 12) / 10 ^ math.random(0, 12) end
      if number == number and math.abs(number) ~= math.huge then
        local text = encode(number)
        assert.equal(number, tonumber(text), ("seed %d: %s"):format(seed, text))
        assert.is_true(#text <= #("%.17g"):format(number) + 6)
        assert.is_true(core.valid(text))
      end
    end
  end)

  it("escapes what must be escaped and nothing else", function()
    assert.equal([["\"\\/\b\f\n\r\t\u0000\u001f]] .. "\127é😀" .. '"', encode "\"\\/\b\f\n\r\t\0\31\127é😀")
    for n = 0, 70 do -- places before and behind each step of the fast loops
      local text = ("x"):rep(n) .. '"' .. ("y"):rep(n) .. "é" .. ("z"):rep(n)
      assert.equal('"' .. text:gsub('"', '\\"') .. '"', encode(text))
      assert.equal(text, core.decode(encode(text)))
    end
  end)

  it("repairs broken UTF-8, or refuses it when strict", function()
    local bad = "\u{fffd}"
    local cases = { ["\xff"] = bad, ["a\xc3"] = "a" .. bad, ["\xe2\x82x"] = bad .. "x", ["\xf0\x9f\x98\x41"] = bad .. "A",
      ["\xed\xa0\x80"] = bad:rep(3), ["\xc0\xaf"] = bad:rep(2), ["\xf4\x90\x80\x80"] = bad:rep(4) }
    for broken, mended in pairs(cases) do
      assert.equal('"' .. mended .. '"', encode(broken))
      assert.matches("not UTF%-8", refusal({ k = broken }, { strict = true }))
    end
    assert.equal('"' .. bad:rep(5000) .. '"', encode(("\xff"):rep(5000)))
    assert.matches("^json: %$%.list%[2%]: ", refusal({ list = { "a", "\xff" } }, { strict = true }))
  end)

  it("splices checked text byte for byte", function()
    local raw = core.raw ' {"z" : 1.0,\n"a":[]} '
    assert.equal('{"output": {"z" : 1.0,\n"a":[]} }', encode { output = raw })
    local big = "123456789012345678901234567890"
    assert.equal("[1e5," .. big .. "]", encode { core.number "1e5", core.decode(big) })
    assert.has_error(function() core.raw "{} x" end)
    assert.has_error(function() core.raw "NaN" end)
    assert.has_error(function() core.number "1x" end)
    assert.has_error(function() core.raw([["\u0000"]], { no_nul = true }) end)
  end)

  it("names the path of what has no JSON form", function()
    local loop = { a = {} }
    loop.a.b = { loop }
    assert.matches("^json: %$%.steps%[3%]%.env: a function has no JSON form", refusal { steps = { 1, 2, { env = print } } })
    assert.matches("^json: %$: a list with holes", refusal { 1, nil, 3 })
    assert.matches("^json: %$%.x: a list with holes", refusal { x = core.array { [2] = 1 } })
    assert.matches("^json: %$: a table with list items and other keys", refusal { 1, 2, n = 2 })
    assert.matches("^json: %$: a key that is a number", refusal(core.object { 1 }))
    assert.matches("^json: %$: a key that is a boolean", refusal { [true] = 1 })
    assert.matches("^json: %$%.x: a number that is not finite", refusal { x = 1 / 0 })
    assert.matches("^json: %$%[1%]: a number that is not finite", refusal { 0 / 0 })
    assert.matches('^json: %$%["a b"%]: a userdata', refusal { ["a b"] = io.stdout })
    assert.matches("^json: %$%.a%.b%[1%]: a table inside itself", refusal(loop))
  end)

  it("refuses depth and size over the limits, and works on afterwards", function()
    local deep = {}
    for _ = 1, 200 do deep = { deep } end
    assert.matches("nested too deep", refusal(deep))
    assert.equal(("["):rep(201):sub(1, 200) .. "{}" .. ("]"):rep(200), encode(deep, { depth = 201 }))
    assert.matches("max_bytes", refusal(("x"):rep(5000), { max_bytes = 1000 }))
    assert.equal("[1]", encode { 1 })
  end)

  it("allows one table in two places, which is no loop", function()
    local shared = { 1 }
    assert.equal('{"a":[1],"b":[[1],[1]]}', encode { a = shared, b = { shared, shared } })
  end)

  it("writes pretty texts", function()
    assert.equal('{\n  "a": [\n    1,\n    {}\n  ],\n  "b": []\n}',
      encode({ a = { 1, {} }, b = core.array {} }, { pretty = true }))
  end)

  it("writes what cjson reads as the same value #realtime", function()
    local seed = os.time()
    math.randomseed(seed)
    local function make(depth)
      local kind = math.random(depth > 3 and 4 or 6)
      if kind == 1 then return math.random(-1000, 1000) end
      if kind == 2 then return math.random() < 0.5 end
      if kind == 3 then return math.random(1000) / 8 end
      local value = {}
      if kind == 4 then
        for i = 1, math.random(0, 20) do value[i] = utf8.char(math.random(1, 0x2fff)) end
        return table.concat(value)
      end
      for i = 1, math.random(1, depth == 1 and 40 or 6) do value[kind == 5 and i or "k" .. i] = make(depth + 1) end
      return value
    end
    for _ = 1, 100 do
      task.yield()
      local value = make(1)
      local text = encode { value }
      assert.same({ value }, cjson.decode(text), "seed " .. seed)
      assert.same({ value }, core.decode(text), "seed " .. seed)
      assert.equal(text, encode(core.decode(text)), "seed " .. seed)
    end
  end)
end)
