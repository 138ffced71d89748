local text = require "worker.text"

describe("worker.text", function()
  it("makes what jobs print fit for servers (the example of the reference)", function()
    assert.equal("a\u{fffd}b", text.repair "a\xffb")
    local repairer = text.repairer()
    assert.equal("caf", repairer:feed "caf\xc3")
    assert.equal("é", repairer:feed "\xa9")
    assert.equal("", repairer:finish())

    assert.equal("ok", text.strip_ansi "\27[32mok\27[0m")
    assert.equal("100%\n", text.fold "10%\r50%\r100%\r\n")
    assert.equal("caf", text.cut("café!", 4))

    local kept = text.head_tail(4, 4)
    kept:add "begin\nmiddle\nend\n"
    assert.equal("begi\n... 9 bytes (2 lines) dropped ...\nend\n", kept:text())

    local lines, cut = text.lines(8):feed "one\nmuch too long\n"
    assert.same({ "one", "much too", " long" }, lines)
    assert.same({ [2] = true }, cut)
  end)

  it("finds the word that was meant", function()
    local commands = { "run", "exec", "check", "plugins", "explain", "doctor" }
    for word, meant in pairs { chekc = "check", plugin = "plugins", Explain = "explain", docter = "doctor", plug = "plugins",
      rum = "run" } do
      assert.equal(meant, text.nearest(word, commands))
    end
    for _, word in ipairs { "deploy", "x", "", "zzz" } do assert.is_nil(text.nearest(word, commands)) end
    assert.is_nil(text.nearest("run", {}))
  end)

  it("finds the same word in whatever order they come", function()
    assert.equal("slit", text.nearest("slet", { "slut", "slit" }))
    assert.equal("slit", text.nearest("slet", { "slit", "slut" }))
    assert.equal("log-format", text.nearest("log", { "log-level", "log-format", "log-output" }))
  end)

  it("shows a sample of anything on one line", function()
    assert.equal([[a\nb\t\x00\x1b[0m]], text.sample "a\nb\t\0\27[0m")
    assert.equal([[\xff\xfeé]], text.sample "\xff\xfeé")
    assert.equal(("x"):rep(120) .. "...", text.sample(("x"):rep(500)))
    assert.equal("é...", text.sample("éé", 3))
  end)

  it("lines up a table by what is seen", function()
    local rows = { { "NAME", "N" }, { "build", 1 }, { "日本", 10 } }
    assert.equal("NAME    N\nbuild   1\n日本   10\n", text.table(rows, { right = { [2] = true } }))
    assert.equal("", text.table {})
    assert.equal("a long…|x\nb      |\n", text.table({ { "a long name", "x" }, { "b", "" } }, { most = 7, gap = "|" }))
  end)

  it("fits and pads by columns", function()
    assert.equal("abc", text.fit("abc", 3))
    assert.equal("ab…", text.fit("abcd", 3))
    assert.equal("日…", text.fit("日本語", 4))
    assert.equal("", text.fit("abc", 0))
    assert.equal("é  |", text.pad("é", 3) .. "|")
    assert.equal("  日", text.pad("日", 4, "right"))
    assert.equal("long", text.pad("long", 2))
  end)

  it("codes and digests bytes", function()
    assert.equal("aGk=", text.base64 "hi")
    assert.equal("hi", text.unbase64 "aGk")
    assert.equal("a%20b%2Fc", text.percent_encode "a b/c")
    assert.equal("a b/c", text.percent_decode("a+b%2Fc", true))
    assert.equal("6869", text.hex "hi")
    assert.equal("hi", text.unhex "6869")
    assert.equal("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", text.sha256 "abc")
    local stream = text.sha256_stream()
    stream:feed "a"
    stream:feed "bc"
    assert.equal(text.sha256 "abc", text.hex(stream:finish()))
    assert.equal(32, #text.hmac_sha256("key", "text"))
    assert.equal(8, #text.random_id(8))
  end)
end)
