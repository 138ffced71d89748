-- Writing to stdout and stderr without stalling anybody, whatever they are.
local lone = require "spec.support.lone"

local WRITE = [[
  local out = require "worker.core.out".open(1)
  local ticks = 0
  local other = task.start(function() for _ = 1, 20 do task.sleep(0.002) ticks = ticks + 1 end end)
  local writer = task.start(function() out:write(("x"):rep(1 << 20)) end)
]]

describe("output", function()
  it("arrives whole, in its order", function()
    local ended = lone.run [[
      local out = require "worker.core.out".open(1)
      for i = 1, 200 do out:write(i .. "," .. ("x"):rep(5000) .. "\n") end
      out:close()
    ]]
    local n = 0
    for i in ended.stdout:gmatch("(%d+),x+\n") do
      n = n + 1
      assert.equal(n, tonumber(i))
    end
    assert.equal(200, n)
    assert.equal(200 * 5002 + 9 + 90 * 2 + 101 * 3, #ended.stdout)
  end)

  it("that nobody reads yet waits, and only whoever writes it", function()
    local ended = lone.run(WRITE .. [[
      other:join()
      io.stderr:write(ticks, " ", writer:state(), "\n")
      io.open(dir .. "/go", "w"):close()
      writer:join()
    ]], { sh = '"$WORKER" exec true 2>said | { while [ ! -e go ]; do sleep 0.02; done; wc -c; }' })
    assert.equal("20 parked\n", ended.files.said)
    assert.equal(tostring(1 << 20), ended.stdout:match("%d+"))
  end)

  it("that a cancelled task waits with is given up", function()
    local ended = lone.run(WRITE .. [[
      other:join()
      writer:cancel()
      local ok, why = writer:join()
      io.stderr:write(tostring(ok), " ", why.kind, "\n")
      local live = sys.live()
      io.stderr:write(live["loop.fds"] .. "\n")
      io.open(dir .. "/go", "w"):close()
    ]], { sh = '"$WORKER" exec true 2>said | { while [ ! -e go ]; do sleep 0.02; done; wc -c; }' })
    assert.matches("^false cancelled\n", ended.files.said)
  end)

  it("whose reader has gone raises, before and while it waits", function()
    local text = [[
      local out = require "worker.core.out".open(1)
      local why
      repeat
        local ok, problem = pcall(out.write, out, ("x"):rep(1 << 16))
        why = not ok and problem
      until why
      io.stderr:write(why.kind, ": ", why.message, "\n")
    ]]
    for _, reader in ipairs { "true", "{ sleep 0.1; }" } do
      local ended = lone.run(text, {
        sh = '"$WORKER" exec true 2>said | ' .. reader .. "; while [ ! -s said ]; do sleep 0.02; done",
      })
      assert.matches("^transport: writing output: Broken pipe", ended.files.said)
    end
  end)

  it("is appended to a file, and vanishes in /dev/null", function()
    local text = 'local out = require "worker.core.out".open(1) out:write "one\\n" out:write "two\\n"'
    local ended = lone.run(text, { sh = 'echo zero >file; "$WORKER" exec true >>file; "$WORKER" exec true >/dev/null' })
    assert.equal("zero\none\ntwo\n", ended.files.file)
    assert.equal(0, ended.code)
  end)

  it("leaves what it shares with others as it was", function()
    local ended = lone.run('require "worker.core.out".open(1):write "x"',
      { sh = '{ "$WORKER" exec true; grep flags /proc/self/fdinfo/1 >flags; } | cat' })
    assert.equal("x", ended.stdout)
    assert.matches("^flags:%s+0?100001\n$", ended.files.flags) -- O_WRONLY, and not O_NONBLOCK
  end)

  it("is stdout or stderr, one writer at a time, and closed for good", function()
    local ended = lone.run [[
      local core = require "worker.core.out"
      print(select(2, pcall(core.open, 5)))
      local out = core.open(2)
      out:close()
      print(select(2, pcall(out.write, out, "x")))
    ]]
    assert.matches("expected 1 or 2", ended.stdout)
    assert.matches("this output is closed", ended.stdout)
  end)
end)
