-- A worker that could not read its signals turned for ever on the descriptor that had some, deaf to TERM.
local process = require "worker.process"
local program = require "spec.support.program"

describe("a worker whose signals cannot be read #realtime", function()
  it("ends, says why, and leaves nothing running", function()
    if process.run({ argv = { "strace", "-V" }, env = process.env() }).code ~= 0 then pending "needs strace" return end
    local tag = program.tag()
    local run <close> = program.start { "exec", "--plugins", program.plugins, "--script",
      ("kill -s TERM $PPID; sleep %s"):format(tag),
      wrap = { "strace", "-f", "-qq", "-o", "/dev/null", "-P", "anon_inode:[signalfd]", "-e", "trace=read",
        "-e", "inject=read:error=EIO" },
      env = { ASAN_OPTIONS = "detect_leaks=0" } } -- the leak check of a sanitized build cannot be traced
    local result = run:wait()
    assert.equal(70, result.code, result.stderr)
    assert.matches("signals cannot be read any more: Input/output error", result.stderr)
    program.eventually(function() return #program.of_tag(tag) == 0 end)
  end)
end)
