-- Texts that come in chunks (src/text.c, src/lua_flow.c).
local core = require "worker.core.text"
local flow = require "worker.core.flow"
local task = require "worker.core.task"

-- What comes out when a text is fed in pieces of random size.
local function in_pieces(handle, text)
  local out, at = {}, 1
  while at <= #text do
    local n = math.random(1, 5)
    out[#out + 1] = handle:feed(text:sub(at, at + n - 1))
    at = at + n
  end
  out[#out + 1] = handle:finish()
  return table.concat(out)
end

local function at_once(handle, text) return handle:feed(text) .. handle:finish() end

describe("a repairer", function()
  it("gives the same as repairing the whole, wherever chunks end #realtime", function()
    local seed = os.time()
    math.randomseed(seed)
    for round = 1, 2000 do
      if round % 50 == 0 then task.yield() end
      local bytes = {}
      local some = "A\x80\xbf\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\xed\xff"
      for i = 1, math.random(30) do bytes[i] = string.char(some:byte(math.random(#some))) end
      local text = table.concat(bytes)
      assert.equal(core.repair(text), in_pieces(flow.mender(), text), "seed " .. seed)
      assert.equal(core.repair(text), at_once(flow.mender(), text), "seed " .. seed)
    end
  end)

  it("holds back no more than the beginning of a character", function()
    local mender = flow.mender()
    assert.equal("ab", mender:feed "ab\xf0\x9f\x98")
    assert.equal("😀c", mender:feed "\x80c")
    assert.equal("", mender:finish())
  end)
end)

describe("a stripper", function()
  local cases = {
    ["\27[1;31mred\27[0m"] = "red", ["a\27]0;title\ab"] = "ab", ["a\27]8;;http://x\27\\link\27]8;;\27\\b"] = "alinkb",
    ["\27(Bplain"] = "plain", ["\27[2K\27[1Gx"] = "x", ["\27Mup"] = "up", ["a\27[31\nb"] = "a\nb", ["a\27[3\27[1mb"] = "ab",
    ["a\27]0;never ended\nb"] = "a\nb",
    ["é\27[38;5;196mé"] = "éé", ["a\27"] = "a", ["\27[?25hx\27="] = "x", ["\27P1$r0m\27\\x"] = "x",
    ["a\27\27[1mb"] = "ab", ["a\27[é"] = "aé",
  }

  it("takes escapes out and nothing else, wherever chunks end", function()
    for text, plain in pairs(cases) do
      assert.equal(plain, core.plain(text), ("%q"):format(text))
      for _ = 1, 5 do assert.equal(plain, in_pieces(flow.stripper(), text), ("%q"):format(text)) end
    end
  end)
end)

describe("a folder", function()
  local cases = {
    ["10%\r20%\r100%\ndone\n"] = "100%\ndone\n", ["a\r\nb\r\n"] = "a\nb\n", ["a\r\r\nb"] = "a\nb", ["50%\r"] = "50%",
    ["\r\rx"] = "x", ["a\n\n\rb\r"] = "a\n\nb", [""] = "", ["\r\n"] = "\n", ["ab\rc\n"] = "c\n",
  }

  it("keeps the last state of each line, wherever chunks end", function()
    for text, folded in pairs(cases) do
      assert.equal(folded, at_once(flow.folder(100), text), ("%q"):format(text))
      for _ = 1, 5 do assert.equal(folded, in_pieces(flow.folder(100), text), ("%q"):format(text)) end
    end
  end)

  it("does not hold back more of a line than it may", function()
    local folder = flow.folder(10)
    assert.equal(("x"):rep(25), folder:feed(("x"):rep(25)))
    assert.equal("", folder:feed "\r")
    assert.equal("\n", folder:feed "again")
    assert.equal("again\n", folder:feed "\n")
  end)
end)

describe("lines", function()
  it("come without their ends, wherever chunks end", function()
    local text = "one\ntwo\r\n\nfour é\n\rfive\r\nlast"
    for _ = 1, 20 do
      local splitter, all, at = flow.lines(100), {}, 1
      while at <= #text do
        local n = math.random(1, 6)
        local lines, cut = splitter:feed(text:sub(at, at + n - 1))
        assert.is_nil(cut)
        table.move(lines, 1, #lines, #all + 1, all)
        at = at + n
      end
      table.move(splitter:finish(), 1, 1, #all + 1, all)
      assert.same({ "one", "two", "", "four é", "\rfive", "last" }, all)
    end
  end)

  it("come in marked pieces when they are too long, never cut inside a character", function()
    local splitter = flow.lines(4)
    local lines, cut = splitter:feed "abcdefghi\nab\n"
    assert.same({ "abcd", "efgh", "i", "ab" }, lines)
    assert.same({ true, true }, cut)
    lines, cut = splitter:feed "abééé"
    assert.same({ "abé" }, lines)
    assert.same({ true }, cut)
    lines, cut = splitter:feed "\n"
    assert.same({ "éé" }, lines)
    assert.is_nil(cut)
    assert.same({}, (splitter:finish()))
  end)

  it("put together give the text again, whatever the limit and the chunks #realtime", function()
    local seed = os.time()
    math.randomseed(seed)
    for _ = 1, 300 do
      task.yield()
      local bytes, whole, line = {}, {}, ""
      for i = 1, math.random(200) do bytes[i] = ({ "a", "b", "é", "\n", "😀" })[math.random(5)] end
      local text, most = table.concat(bytes), math.random(4, 12)
      local splitter, at = flow.lines(most), 1
      local function take(lines, cut)
        for i, piece in ipairs(lines) do
          assert.is_true(#piece <= most and core.valid(piece), "seed " .. seed)
          line = line .. piece
          if not (cut and cut[i]) then whole[#whole + 1], line = line, "" end
        end
      end
      while at <= #text do
        local n = math.random(1, 9)
        take(splitter:feed(text:sub(at, at + n - 1)))
        at = at + n
      end
      take(splitter:finish())
      assert.equal(text:gsub("\n$", ""), table.concat(whole, "\n"), "seed " .. seed)
    end
  end)
end)

describe("head and tail", function()
  it("are the whole text while it fits", function()
    local keep = flow.head_tail(10, 10)
    for c in ("abcdefghijklmnopqrst"):gmatch "." do keep:add(c) end
    assert.equal("abcdefghijklmnopqrst", keep:text())
    assert.same({ 0, 0 }, { keep:dropped() })
    keep:add "u"
    assert.equal("abcdefghij\n... 1 bytes (0 lines) dropped ...\nlmnopqrstu", keep:text())
  end)

  it("count the bytes and lines between them", function()
    local keep, total = flow.head_tail(100, 100), 0
    for i = 1, 2000 do
      local line = ("line %d\n"):format(i)
      keep:add(line)
      total = total + #line
    end
    local head, bytes, lines, tail = keep:text():match "^(.-)\n%.%.%. (%d+) bytes %((%d+) lines%) dropped %.%.%.\n(.*)$"
    assert.equal(total, keep:bytes())
    assert.equal(total, #head + bytes + #tail)
    local _, shown = (head .. tail):gsub("\n", "")
    assert.equal(2000, shown + lines)
    assert.matches("line 2000\n$", tail)
  end)

  it("never cut a character", function()
    for n = 1, 12 do
      local keep = flow.head_tail(n, n)
      keep:add(("😀é€"):rep(10))
      assert.is_true((core.valid(keep:text())))
    end
    local none = flow.head_tail(0, 0)
    none:add "x\n"
    assert.equal("... 2 bytes (1 lines) dropped ...\n", none:text())
  end)
end)

describe("a digest of a stream", function()
  it("is that of the whole", function()
    local text = ("0123456789"):rep(50)
    for size = 1, 130 do
      local sha = flow.sha256()
      for at = 1, #text, size do sha:feed(text:sub(at, at + size - 1)) end
      assert.equal(core.sha256(text), sha:finish())
    end
  end)
end)

describe("a handle", function()
  it("tells its state and refuses work once closed", function()
    local closed
    do
      local lines <close> = flow.lines(10)
      assert.matches("^worker.text.lines %(open%)", tostring(lines))
      closed = lines
    end
    assert.matches("closed", tostring(closed))
    assert.has_error(function() closed:feed "x" end, "this worker.text.lines is closed")
  end)
end)
