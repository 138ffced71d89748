local scratch = require "spec.support.scratch"
local spool = require "worker.spool"

describe("worker.spool", function()
  it("does what its reference shows", function()
    local dir <close> = scratch.dir()
    local path = dir:path("job-7.log")
    do
      local log <close> = spool.open(path, { ceiling = 16 << 20 })
      log:append("stdout", "compiling\n")
      log:append("stderr", "warning: unused\n")
      local shipped = {}
      for piece in log:pieces() do
        shipped[#shipped + 1] = piece.stream .. ": " .. piece.text
        log:ack(piece.next)
        if piece.stream == "stdout" then break end
      end
      assert.same({ "stdout: compiling\n" }, shipped)
    end
    -- the worker was restarted: shipping goes on where it was acknowledged
    local log = spool.open(path)
    local shipped = {}
    for piece in log:pieces() do shipped[#shipped + 1] = piece.text end
    assert.same({ "warning: unused\n" }, shipped)
    log:remove()
    assert.equal("worker.spool (closed)", tostring(log))
  end)

  it("counts what a flood has pushed out", function()
    local dir <close> = scratch.dir()
    local log <close> = spool.open(dir:path("s"), { ceiling = 2 << 20 })
    local line = ("x"):rep(1023) .. "\n"
    for _ = 1, 128 do log:append("stdout", line:rep(64)) end
    local kept, gaps = 0, {}
    for piece in log:pieces() do
      if piece.gap then gaps[#gaps + 1] = piece else kept = kept + #piece.text end
    end
    assert.equal(1, #gaps)
    assert.equal(8 << 20, kept + gaps[1].gap)
    assert.equal(gaps[1].gap // 1024, gaps[1].lines)
    assert.equal(gaps[1].gap, log:stats().dropped)
  end)
end)
