local yaml = require "worker.yaml"

describe("worker.yaml", function()
  it("reads values with their places, and writes them (the example of the reference)", function()
    local conf, marks = yaml.decode("servers:\n  - protocol: local\n    slots: 4\n", { name = "worker.yaml" })
    assert.equal(4, conf.servers[1].slots)
    local file, line, column = yaml.where(marks, conf.servers[1], "slots")
    assert.equal("worker.yaml:3:12", ("%s:%d:%d"):format(file, line, column))
    assert.equal("servers:\n  - protocol: local\n    slots: 4\n", yaml.encode(conf))
  end)

  it("raises what cannot be read, with the place", function()
    local ok, why = pcall(yaml.decode, "a: 1\na: 2", { name = "x.yaml" })
    assert.is_false(ok)
    assert.equal("config", why.kind)
    assert.equal("x.yaml:2:1: the key 'a' is here twice; it was first on line 1", tostring(why))
    assert.same({ "x.yaml", 2, 1 }, { why.file, why.line, why.column })
  end)

  it("returns it instead from parse()", function()
    local ok, why = yaml.parse("[")
    assert.is_false(ok)
    assert.equal("yaml:2:1: expected a value here", why.message)
    ok, why = yaml.parse("17")
    assert.same({ true, 17 }, { ok, why })
  end)

  it("knows where keys and containers are, and nothing about other tables", function()
    local value, marks = yaml.decode("a:\n  b: 1\n", { name = "f" })
    assert.same({ "f", 2, 3 }, { yaml.where(marks, value.a, "b", true) })
    assert.same({ "f", 2, 3 }, { yaml.where(marks, value.a) })
    assert.same({ "f", 2, 3 }, { yaml.where(marks, value.a, "absent") })
    assert.is_nil((yaml.where(marks, {}, "b")))
    assert.is_nil((yaml.where(nil, value, "a")))
  end)

  it("has nil for an empty text, and null in lists", function()
    assert.is_nil((yaml.decode("")))
    assert.same({ 1, yaml.null }, (yaml.decode("[1, ~]")))
  end)
end)

describe("yaml.encode", function()
  it("quotes what would be read as something else", function()
    for _, text in ipairs {
      "yes", "No", "on", "null", "~", "true", "123", "1.5", "0x1f", "", " ", "a: b", "a #b", "- a", "#a",
      "@a", "`a", "[a]", "{a}", "a:", "'a'", '"a"', "&a", "*a", "!a", "|", ">", "%a", "=", ".5", ".inf",
      "2026-11-21", "a\nb", "\t", "a\0b", "\u{85}", "\u{2028}", "\u{feff}", "---", "...", "a\rb", "é",
    } do
      assert.equal('"', yaml.scalar(text):sub(1, 1), text)
      assert.equal(text, (yaml.decode(yaml.scalar(text))))
    end
  end)

  it("leaves the rest bare", function()
    for _, text in ipairs {
      "local", "a b", "/var/lib/worker", "https://ci.example/a?b=c", "${file:/run/secrets/x}", "a-b_c.d", "x:y",
    } do
      assert.equal(text, yaml.scalar(text))
      assert.equal(text, (yaml.decode("a: " .. text)).a)
    end
  end)

  it("writes numbers so that they read back as they are", function()
    for _, number in ipairs { 0, -1, math.maxinteger, math.mininteger, 0.1, 1.0, 1e300, -2.5e-9, math.huge } do
      local back = yaml.decode(yaml.scalar(number))
      assert.equal(number, back)
      assert.equal(math.type(number), math.type(back))
    end
  end)

  it("writes scripts as they are", function()
    assert.equal("script: |\n  echo a\n    b\n\n  c\n", yaml.encode { script = "echo a\n  b\n\nc\n" })
    assert.equal("script: |-\n  a\n  b\n", yaml.encode { script = "a\nb" })
  end)

  it("puts the named keys first and the others in order", function()
    assert.equal("z: 1\na: 2\nb: 3\n", yaml.encode({ a = 2, b = 3, z = 1 }, { order = { "z" } }))
  end)

  it("refuses what YAML cannot hold, with the path", function()
    local function refusal(value)
      local ok, why = pcall(yaml.encode, value)
      assert.is_false(ok)
      return tostring(why)
    end
    assert.equal("yaml.encode: a function at a.b[2]", refusal { a = { b = { 1, print } } })
    assert.equal("yaml.encode: text that is not UTF-8 at x", refusal { x = "\xff" })
    local loop = {}
    loop.again = loop
    assert.matches("nested too deep", refusal(loop))
  end)

  -- Whatever is written is read back the same.
  it("and yaml.decode are each other's opposite", function()
    local seed = 7
    local state = seed
    local function random(n)
      state = (state * 1103515245 + 12345) % 2147483648
      return state // 65536 % n + 1
    end
    local CHARS = {
      "a", "b", "y", "n", " ", "\n", "\t", ":", "#", "-", "é", "\u{2028}", "\0", "'", '"', "\\", "{", "}", "[",
      "]", ",", "&", "*", "!", "|", ">", "%", "@", "`", "1", "0", ".", "e", "~", "\r", "\u{85}", "\u{10ffff}",
    }
    local function text()
      local out = {}
      for i = 1, random(9) - 1 do out[i] = CHARS[random(#CHARS)] end
      return table.concat(out)
    end
    local function value(depth)
      local kind = random(depth > 3 and 4 or 6)
      if kind <= 2 then return text() end
      if kind == 3 then return (random(1000) - 500) / 16 end
      if kind == 4 then return random(2) == 1 end
      local out = {}
      for i = 1, random(4) do out[kind == 5 and i or text()] = value(depth + 1) end
      return out
    end
    for _ = 1, 1500 do
      local before = { it = value(0) }
      local written = yaml.encode(before)
      local ok, after = yaml.parse(written)
      assert(ok, ("seed %d: %s: %q"):format(seed, tostring(after), written))
      assert.same(before, after, written)
    end
  end)
end)
