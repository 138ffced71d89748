-- The worker's own log: what a line looks like, whatever is in it, and what a reader that stops costs.
local json = require "worker.json"
local lone = require "spec.support.lone"

-- The lines that the text writes with `write(message, fields...)`.
local function lines_of(format, text, options)
  local ended = lone.run(('log.setup { format = %q } local function write(...) log.write(1, "a.b", ...) end '):format(
    format) .. text, options)
  assert.equal(0, ended.code, ended.stderr)
  local lines = {}
  for line in ended.stderr:gmatch("[^\n]*\n") do lines[#lines + 1] = line end
  return lines, ended.stderr
end

describe("a log line", function()
  it("in text is the time and the message", function()
    assert.matches("^%d%d:%d%d:%d%d hello\n$", lines_of("text", 'write("hello")')[1])
    assert.matches("^%d%d:%d%d:%d%d error  hello job=7\n$",
      lines_of("text", 'log.write(3, "a", "hello", { "job", 7 })')[1])
  end)

  it("in logfmt names everything", function()
    assert.matches('^ts=[%d-]+T[%d:.]+Z level=info event=a%.b msg="hello you" job=7 empty="" quoted="a=b"\n$',
      lines_of("logfmt", 'write("hello you", { "job", 7, "empty", "", "quoted", "a=b" })')[1])
  end)

  it("in JSON keeps numbers and truths what they are", function()
    local line = json.decode(lines_of("json", [[
      write("hello", { "n", 7, "x", 1.5, "t", true, "s", "7", "inf", 1/0, "nan", 0/0 })]])[1])
    line.ts = nil
    assert.matches("nan$", line.nan)
    line.nan = nil
    assert.same({ level = "info", event = "a.b", msg = "hello", n = 7, x = 1.5, t = true, s = "7", inf = "inf" }, line)
  end)

  it("for the journal has a priority", function()
    local text = 'for level = 0, 3 do log.write(level, "a", "hello") end'
    assert.same({ "<6>hello\n", "<4>hello\n", "<3>hello\n" }, (lines_of("journal", text)))
    assert.same({ "<7>hello\n" }, (lines_of("journal", 'log.setup { level = 0 } log.write(0, "a", "hello")')))
  end)

  local HOSTILE = [["a\nlevel=error \r\27[2J\1\127\194\155x \"q\" \\ \255\226\130 \226\130\172"]]

  it("stays one line, whatever is in it", function()
    for _, format in ipairs { "logfmt", "json" } do
      local lines, all = lines_of(format, ('write(%s, { "k", %s })'):format(HOSTILE, HOSTILE))
      assert.equal(1, #lines)
      assert.not_matches("[%c]", lines[1]:sub(1, -2))
      assert.is_truthy(utf8.len(all))
      assert.not_matches("\194\155", all)
    end
  end)

  it("in text indents what follows a newline, so that nothing looks like a line of ours", function()
    local lines = lines_of("text", ("write(%s)"):format(HOSTILE))
    assert.equal(2, #lines)
    assert.equal('  level=error \\x0d\\x1b[2J\\x01\\x7f\\u009bx "q" \\ \u{FFFD}\u{FFFD} €\n', lines[2])
  end)

  it("in JSON comes back as it went in, where it was text", function()
    local line = json.decode(lines_of("json", 'write("a\\n\\t\\"\\\\\\1\\127€", { "k", "\\0" })')[1])
    assert.equal("a\n\t\"\\\1\127€", line.msg)
    assert.equal("\0", line.k)
  end)

  it("that is too long is cut, and still is JSON", function()
    local line = lines_of("json", 'write(("é"):rep(40000), { "k", "v", "q", ("\\""):rep(9) })')[1]
    assert.is_true(#line <= 32 << 10)
    assert.equal("", (json.decode(line).msg:gsub("é", "")))
  end)

  it("below the level is not written", function()
    assert.same({ "<4>b\n" }, (lines_of("journal",
      'log.setup { level = 2 } log.write(1, "a", "a") log.write(2, "a", "b") print(log.enabled(1), log.enabled(2))')))
  end)
end)

describe("a secret", function()
  it("is in no line of any format, however it is written there", function()
    local secret = 'pa"ss\\wo\nrd\t\1'
    for _, format in ipairs { "text", "logfmt", "json", "journal" } do
      local _, all = lines_of(format, ([[
        log.setup { level = 0 }
        log.secret(%q)
        write("token " .. %q .. "!", { "k", %q, "url", "http://u:" .. %q .. "@h" })
      ]]):format(secret, secret, secret, secret))
      assert.not_matches("wo", all)
      assert.equal(3, select(2, all:gsub("%*%*%*", "")), all)
    end
  end)

  it("that begins with another one leaves nothing of its end", function()
    local _, all = lines_of("text", 'log.secret "abcdef" log.secret "abcdefghij" write "x abcdefghij abcdef y"')
    assert.matches("x %*%*%* %*%*%* y", all)
  end)

  it("that is short would mask half of the log, and is not taken", function()
    local lines = lines_of("journal", 'assert(not log.secret "12345") assert(log.secret "123456") write "12345 123456"')
    assert.same({ "<6>12345 ***\n" }, lines)
  end)
end)

describe("a reader that has stopped #realtime", function()
  -- Reads nothing until `go` is there.
  local SLOW = '"$WORKER" exec true 2>&1 >"$PWD/out" | { while [ ! -e go ]; do sleep 0.02; done; cat >err; }'

  it("stops nobody; lines are dropped, and counted when he reads again", function()
    local ended = lone.run([[
      log.setup { format = "logfmt" }
      local ticks = 0
      local other = task.start(function() for _ = 1, 20 do task.sleep(0.001) ticks = ticks + 1 end end)
      for i = 1, 3000 do log.write(1, "line", "n" .. i .. ("x"):rep(100)) end
      for _ = 1, 20 do log.write(1, "long", ("y"):rep(30000)) end
      other:join()
      print(ticks)
      io.open(dir .. "/go", "w"):close()
      for _ = 1, 50 do
        task.sleep(0.02)
        log.write(1, "after", "afterwards")
      end
    ]], { sh = SLOW })
    assert.equal("20\n", ended.files.out)
    local seen, dropped, after = 0, 0, 0
    for line in ended.files.err:gmatch("[^\n]+") do
      if line:find("event=l[io]n[eg]") and line:find('["xy]$') then seen = seen + 1 end
      if line:find("event=after", 1, true) then after = after + 1 end
      dropped = dropped + (tonumber(line:match("event=log.dropped .*lines=(%d+)")) or 0)
    end
    assert.is_true(dropped > 1000 and after > 10, dropped .. " " .. after)
    -- the one that was cut in the middle is seen or not: its end is missing
    assert.is_true(math.abs(3020 + 50 - seen - dropped - after) <= 1, ("%d %d %d"):format(seen, dropped, after))
  end)

  it("that has gone costs nothing but lines", function()
    local ended = lone.run([[
      for i = 1, 100 do log.write(1, "line", "n" .. i) end
      print "done"
    ]], { sh = '"$WORKER" exec true 2>&1 >"$PWD/out" | true; sleep 0.1' })
    assert.equal("done\n", ended.files.out)
  end)
end)

describe("the log goes", function()
  it("to stdout, or to a file that is appended to, and opened anew when it was moved away #realtime", function()
    local ended = lone.run [[
      log.setup { format = "journal", output = "stdout" }
      log.write(1, "a", "one")
      log.setup { output = dir .. "/log" }
      log.write(1, "a", "two")
      log.setup { output = dir .. "/log" }
      log.write(1, "a", "three")
      os.rename(dir .. "/log", dir .. "/old")
      log.setup { output = dir .. "/log" }
      log.write(1, "a", "four")
      log.setup { output = "stderr" }
      log.write(1, "a", "five")
    ]]
    assert.same({ "<6>one\n", "<6>five\n" }, { ended.stdout, ended.stderr })
    assert.same({ "<6>two\n<6>three\n", "<6>four\n" }, { ended.files.old, ended.files.log })
  end)

  it("where it went, when there is no such place", function()
    local ended = lone.run [[
      local ok, why = pcall(log.setup, { output = dir .. "/no/such/log" })
      log.write(1, "a", tostring(ok) .. " " .. why.kind)
    ]]
    assert.matches("false file\n$", ended.stderr)
  end)
end)

describe("live lines", function()
  it("are taken off before a log line, once, and whoever drew them learns that", function()
    local ended = lone.run [[
      log.setup { format = "journal" }
      print(log.overlay "<erase>")
      log.write(1, "a", "one")
      log.write(1, "a", "two")
      print(log.overlay "<erase>", log.overlay "")
      log.write(1, "a", "three")
    ]]
    assert.equal("<erase><6>one\n<6>two\n<6>three\n", ended.stderr)
    assert.equal("false\nfalse\ttrue\n", ended.stdout)
  end)
end)
