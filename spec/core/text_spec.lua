-- Whole texts (src/utf8.c, src/coding.c, src/sha256.c, src/lua_text.c).
local core = require "worker.core.text"
local task = require "worker.core.task"

local BAD = "\u{fffd}"

-- Broken bytes and what they become, from the table of the Unicode standard (3.9, U+FFFD).
local broken = {
  ["\x80"] = BAD, ["\xc0\xaf"] = BAD .. BAD, ["\xe0\x80\xbf"] = BAD:rep(3), ["\xf0\x81\x82\x41"] = BAD:rep(3) .. "A",
  ["\xed\xa0\x80\xed\xbf\xbf"] = BAD:rep(6), ["\xf4\x91\x92\x93\xff\x41\x80\xbf\x42"] = BAD:rep(5) .. "A" .. BAD:rep(2) .. "B",
  ["\xe1\x80\xe2\xf0\x91\x92\xf1\xbf\x41"] = BAD:rep(4) .. "A", ["a\xe2\x82"] = "a" .. BAD, ["\xf0\x9f\x98"] = BAD,
  ["\xc3\xc3\xa9"] = BAD .. "é",
}

describe("UTF-8", function()
  it("is told from what is not", function()
    for _, text in ipairs { "", "a", "é", "€", "😀", "\0", "\u{7ff}\u{800}\u{ffff}\u{10000}\u{10ffff}", ("x"):rep(100) .. "é" } do
      assert.is_true(core.valid(text))
      assert.equal(text, core.repair(text))
    end
    for text in pairs(broken) do assert.is_false((core.valid(text))) end
    for n = 0, 40 do assert.same({ false, n + 1 }, { core.valid(("x"):rep(n) .. "\xff" .. ("y"):rep(40)) }) end
  end)

  it("is repaired by maximal subparts", function()
    for text, mended in pairs(broken) do
      assert.equal(mended, core.repair(text))
      assert.equal("é" .. mended .. "z", core.repair("é" .. text .. "z"))
    end
  end)

  it("is what Lua's own library thinks it is", function()
    for first = 0x80, 0xff do
      task.yield()
      for second = 0x7e, 0xc1 do
        for _, rest in ipairs { "", "\x80", "\xbf\xbf" } do
          local text = string.char(first, second) .. rest
          assert.equal(utf8.len(text) ~= nil, (core.valid(text)), ("%q"):format(text))
        end
      end
    end
  end)

  it("is cut between characters, from either end", function()
    local text = "aé€😀z"
    for most = 0, #text + 1 do
      local head, tail = core.cut(text, most), core.cut(text, most, "tail")
      assert.is_true(#head <= most and #tail <= most)
      assert.is_true(#head > most - 4 and core.valid(head) and core.valid(tail))
      assert.equal(head, text:sub(1, #head))
      assert.equal(tail, text:sub(#text - #tail + 1))
    end
    assert.equal("\x80\x80", core.cut("\x80\x80\x80\x80\x80", 2))
    assert.equal("", core.cut("😀", 3))
    assert.has_error(function() core.cut("x", -1) end)
  end)

  it("has a width on a terminal", function()
    for text, width in pairs { [""] = 0, abc = 3, ["é"] = 1, ["e\u{301}"] = 1, ["日本"] = 4, ["😀"] = 2, ["\xff"] = 1 } do
      assert.equal(width, core.width(text), text)
    end
    assert.equal("日", core.fit("日本", 3))
    assert.equal("", core.fit("日本", 1))
  end)

  it("shows NUL", function()
    assert.is_true(core.has_nul "a\0b")
    assert.is_false(core.has_nul "ab")
  end)
end)

describe("bytes as text", function()
  local all = {}
  for i = 0, 255 do all[i + 1] = string.char(i) end
  all = table.concat(all)

  it("are base64 as in RFC 4648", function()
    local cases = { [""] = "", f = "Zg==", fo = "Zm8=", foo = "Zm9v", foob = "Zm9vYg==", fooba = "Zm9vYmE=", foobar = "Zm9vYmFy" }
    for plain, coded in pairs(cases) do
      assert.equal(coded, core.base64(plain))
      assert.equal(coded:gsub("=", ""), core.base64(plain, true))
      assert.equal(plain, core.unbase64(coded))
      assert.equal(plain, core.unbase64((coded:gsub("=", ""))))
    end
    assert.equal("-_8", core.base64("\xfb\xff", true))
    assert.equal(all, core.unbase64(core.base64(all)))
    assert.equal(all, core.unbase64(core.base64(all, true)))
    for _, text in ipairs { "Zg=", "Z", "Zg==Zg==", "Zm 9v", "Zh==", "====", "=" } do assert.is_nil(core.unbase64(text), text) end
  end)

  it("are hex", function()
    assert.equal("00ff4a", core.hex "\0\xffJ")
    assert.equal(all, core.unhex(core.hex(all)))
    assert.equal(all, core.unhex(core.hex(all):upper()))
    for _, text in ipairs { "0", "0g", "g0", "0x" } do assert.is_nil(core.unhex(text)) end
  end)

  it("are percent-encoded as in RFC 3986", function()
    assert.equal("a-Z_0.9~%20%2F%25%C3%A9%00", core.percent "a-Z_0.9~ /%é\0")
    assert.equal("a/b%20c", core.percent("a/b c", "/"))
    assert.equal(all, core.unpercent(core.percent(all)))
    assert.equal("a b+c", core.unpercent("a+b%2bc", true))
    for _, text in ipairs { "%", "%4", "%4g", "a%" } do assert.is_nil(core.unpercent(text)) end
  end)
end)

describe("SHA-256", function()
  local function digest(s) return core.hex(core.sha256(s)) end

  it("agrees with FIPS 180-4 and with sha256sum for every length around a block", function()
    assert.equal("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", digest "")
    assert.equal("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", digest "abc")
    assert.equal("cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0", digest(("a"):rep(1000000)))
    local path = os.tmpname()
    for n = 54, 66 do
      local file = assert(io.open(path, "w"))
      file:write(("q"):rep(n))
      file:close()
      local pipe <close> = assert(io.popen("sha256sum < " .. path))
      assert.equal(pipe:read("a"):sub(1, 64), digest(("q"):rep(n)))
    end
    os.remove(path)
  end)

  it("has the keyed digests of RFC 4231", function()
    local function hmac(key, s) return core.hex(core.hmac_sha256(key, s)) end
    assert.equal("b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7", hmac(("\x0b"):rep(20), "Hi There"))
    assert.equal("5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843", hmac("Jefe", "what do ya want for nothing?"))
    assert.equal("60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
      hmac(("\xaa"):rep(131), "Test Using Larger Than Block-Size Key - Hash Key First"))
  end)
end)

describe("words", function()
  it("have a distance", function()
    for _, case in ipairs { { "", "", 0 }, { "a", "", 1 }, { "timeout", "timeuot", 1 }, { "Token", "token", 0 },
      { "kitten", "sitting", 3 }, { "slots", "slot", 1 }, { "abc", "xyz", 3 } } do
      assert.equal(case[3], core.distance(case[1], case[2]))
      assert.equal(case[3], core.distance(case[2], case[1]))
    end
    assert.equal(64, core.distance(("a"):rep(1000), ("b"):rep(1000)))
  end)

  it("are random on demand", function()
    local seen = {}
    for _ = 1, 1000 do
      local id = core.random_id()
      assert.matches("^[0-9a-hjkmnp-tv-z]+$", id)
      assert.equal(26, #id)
      assert.is_nil(seen[id])
      seen[id] = true
    end
    assert.equal(256, #core.random_id(256))
    assert.has_error(function() core.random_id(257) end)
  end)
end)
