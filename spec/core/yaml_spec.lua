-- The door worker.core.yaml (lua_yaml.c, scalar.c): what is read, what is refused, and where.
local core = require "worker.core.yaml"

local function read(text, options)
  local ok, value, marks = core.parse(text, "w.yaml", options or {})
  assert(ok, value)
  return value, marks
end

-- "line:column: message" of a text that must be refused.
local function refused(text, options)
  local ok, message, line, column = core.parse(text, "w.yaml", options or {})
  assert.is_false(ok)
  return ("%d:%d: %s"):format(line, column, message)
end

describe("plain scalars", function()
  local function means(text, value)
    assert.same(value, core.plain(text))
    assert.equal(math.type(value), math.type(core.plain(text)))
  end

  it("are null, true and false only in the words of YAML 1.2", function()
    for _, text in ipairs { "", "~", "null", "Null", "NULL" } do means(text, core.null) end
    for _, text in ipairs { "true", "True", "TRUE" } do means(text, true) end
    for _, text in ipairs { "false", "False", "FALSE" } do means(text, false) end
    for _, text in ipairs { "yes", "no", "on", "off", "y", "n", "tRue", "nUll" } do means(text, text) end
  end)

  it("are integers in base ten, 0x and 0o", function()
    means("0", 0)
    means("-17", -17)
    means("+5", 5)
    means("0x1F", 31)
    means("0o17", 15)
    means("9223372036854775807", math.maxinteger)
    means("-9223372036854775808", math.mininteger)
  end)

  it("stay text when a number would not be what was written", function()
    for _, text in ipairs {
      "9223372036854775808", "0xffffffffffffffffff", "1e400", "0755", "-007", "00.5", "1_000", "1:30",
      "0x", "0o8", "+", "-", ".", "1e", "e5", "1.2.3", "2026-11-21", " 1", "nan", "inf", "0x1p3",
    } do
      means(text, text)
    end
  end)

  it("are floats with a point or an exponent", function()
    means("2.5", 2.5)
    means("-.5", -0.5)
    means("1.", 1.0)
    means("1e3", 1000.0)
    means("0.25E-1", 0.025)
    means(".inf", math.huge)
    means("-.INF", -math.huge)
    assert.is_true(core.plain(".nan") ~= core.plain(".nan"))
  end)
end)

describe("a document", function()
  it("becomes tables, and quoted numbers stay text", function()
    local value = read(
      "a: 1\nb: [x, '2', \"3\", 4.5]\nc:\n  d: true\n  text: |\n    one\n    two\n")
    assert.same({ a = 1, b = { "x", "2", "3", 4.5 }, c = { d = true, text = "one\ntwo\n" } }, value)
  end)

  it("may begin with a byte order mark and end its lines with CRLF", function()
    local value, marks = read("\xef\xbb\xbfa: 1\r\nb: x\r\n")
    assert.same({ a = 1, b = "x" }, value)
    assert.equal(1 * 65536 + 1, marks[value].keys.a)
  end)

  it("may be empty", function()
    for _, text in ipairs { "", "# a remark\n", "---\n", "~" } do
      assert.equal(core.null, (read(text)))
    end
  end)

  it("has text as keys, whatever they look like", function()
    assert.same({ ["1"] = "a", ["true"] = "b", ["null"] = "c" }, (read("1: a\ntrue: b\nnull: c")))
  end)

  it("leaves null out of maps and keeps it in lists", function()
    local value, marks = read("a: ~\nb: [1, null, 3]\nc:\n")
    assert.same({ b = { 1, core.null, 3 } }, value)
    assert.equal(3, marks[value].keys.c // 65536)
  end)

  it("may hold NUL and any character in double quotes", function()
    assert.same({ a = "x\0y\u{e9}\u{1f600}" }, (read('a: "x\\0y\\u00e9\\U0001f600"')))
  end)

  it("gives lists the metatable that is asked for", function()
    local meta = {}
    assert.equal(meta, getmetatable(read("[]", { list = meta })))
  end)

  it("takes !!str, and no tag that would build something", function()
    assert.same({ a = "12" }, (read("a: !!str 12")))
    assert.equal("1:4: the tag !foo has no meaning here; remove it", refused("a: !foo x"))
    assert.equal("1:4: the tag tag:yaml.org,2002:python/object has no meaning here; remove it",
      refused("a: !!python/object x"))
    assert.matches("^1:4: the tag", refused("a: !bar [x]"))
  end)
end)

describe("marks", function()
  it("tell the line and column of keys, values, containers and list entries", function()
    local value, marks = read("a: 1\nservers:\n  - protocol: x\n    url:  y\n")
    local servers = value.servers
    assert.same({ file = "w.yaml", kind = "map", at = 65537, keys = { a = 65537, servers = 2 * 65536 + 1 },
      values = { a = 65540, servers = 3 * 65536 + 3 } }, marks[value])
    assert.same({ file = "w.yaml", kind = "list", at = 3 * 65536 + 3, values = { 3 * 65536 + 5 } },
      marks[servers])
    assert.equal(4 * 65536 + 11, marks[servers[1]].values.url)
  end)

  it("count characters, not bytes", function()
    local value, marks = read("{é: ü, b: 1}")
    assert.equal(65536 + 8, marks[value].keys.b)
  end)
end)

describe("what is refused", function()
  local cases = {
    ["a: 1\nb: 2\na: 3"] = "3:1: the key 'a' is here twice; it was first on line 1",
    ["a: ~\na: 3"] = "2:1: the key 'a' is here twice; it was first on line 1",
    ["a:\n\t- x"] = "2:1: a tab cannot indent; use spaces",
    ["a: 1\n\tb: 2"] = "2:1: a tab cannot indent; use spaces (in what begins on line 1)",
    ["a: @x"] = "1:4: '@' cannot begin a value; put the text in quotes",
    ["a: b: c"] = "1:5: a ':' cannot stand here; put the text in quotes, or check the indentation",
    ["a: 1\nb\nc: 2"] = "2:1: expected ':' after this key",
    ["a: 1\n b: 'x\nc: 1"] = "2:3: a ':' cannot stand here; put the text in quotes, or check the indentation",
    ["x: 1\na: 'b\nc: d"] = "2:4: these quotes are never closed",
    ["a: [1, 2\nb: 3"] = "2:2: expected ',' or ']' to go on with the list (in what begins on line 1)",
    ["<<: {a: 1}"] = "1:1: merge keys (<<) are not supported; write the fields out",
    ["? [a]\n: 1"] = "1:3: a key must be plain text",
    ["a: 1\n---\nb: 2"] = "2:1: a second document begins here; only one is allowed",
    ["a: *x"] = "1:4: *x names no anchor above",
    ["a: &x [1, *x]"] = "1:11: *x stands inside what it names",
    ["a: \xff"] = "1:4: not UTF-8 text (byte 0xff)",
    ["é: \xc3"] = "1:4: not UTF-8 text (byte 0xc3)",
    ["a: \1"] = "1:4: a control character (byte 0x01)",
    ["\xff\xfea\0"] = "1:1: not UTF-8 text (byte 0xff)",
  }
  for text, expected in pairs(cases) do
    it(("says where and why: %q"):format(text):gsub("\\?\n", "\\n"), function()
      assert.equal(expected, refused(text))
    end)
  end

  it("is what is too deep, too many or too large", function()
    assert.equal("1:65: nested deeper than 64 levels", refused(("["):rep(2000)))
    assert.equal("1:4: nested deeper than 3 levels", refused("[[[[]]]]", { depth = 3 }))
    assert.equal("1:8: more than 4 values (an alias counts as much as what it names)",
      refused("[1,2,3,4]", { nodes = 4 }))
    assert.equal("1:1: larger than 2 bytes", refused("abc", { bytes = 2 }))
  end)
end)

describe("aliases", function()
  it("stand for what they name, also for null and false", function()
    assert.same({ a = { 1 }, b = { 1 } }, (read("a: &x [1]\nb: *x")))
    assert.same({ a = false, b = false }, (read("a: &x false\nb: *x")))
    assert.same({ b = { core.null } }, (read("a: &x null\nb: [*x]")))
    assert.same({ a = 1, b = 2, c = 2 }, (read("a: &x 1\nb: &x 2\nc: *x")))
  end)

  it("do not multiply beyond the ceiling (a billion laughs)", function()
    local lines = { "a0: &a0 [x,x,x,x,x,x,x,x,x,x]" }
    for i = 1, 9 do
      lines[#lines + 1] = ("a%d: &a%d [%s*a%d]"):format(i, i, ("*a%d,"):format(i - 1):rep(9), i - 1)
    end
    assert.matches("more than 100000 values", refused(table.concat(lines, "\n")))
  end)
end)

describe("any bytes at all", function()
  -- Pieces of YAML thrown together: whatever comes, it is a value or a located message.
  local PIECES = {
    "a", "b: ", "- ", "\n", "  ", "\t", "[", "]", "{", "}", ",", ":", "'", '"', "&x ", "*x", "!", "!!str ",
    "|", ">", "#", "%", "@", "---\n", "...\n", "\0", "\xff", "\xc3\xa9", "\r\n", "? ", "<<: ", "1", ".5", "~",
  }

  it("give a value or a message with a place", function()
    local seed = 20261121
    local state = seed
    local function random(n)
      state = (state * 1103515245 + 12345) % 2147483648
      return state // 65536 % n + 1
    end
    local values = 0
    for _ = 1, 5000 do
      local pieces = {}
      for i = 1, random(14) do pieces[i] = PIECES[random(#PIECES)] end
      local text = table.concat(pieces)
      local ok, message, line, column = core.parse(text, "x", {})
      if ok then
        values = values + 1
      else
        assert(type(message) == "string" and line >= 1 and column >= 1, ("seed %d: %q"):format(seed, text))
      end
    end
    assert.is_true(values > 100)
  end)
end)
