-- Started with next to nothing: without standard streams, with files that may not grow, without a TMPDIR.
local fs = require "worker.fs"
local program = require "spec.support.program"
local scratch = require "spec.support.scratch"

describe("a worker that is started with little #realtime", function()
  local dir

  before_each(function() dir = scratch.dir() end)
  after_each(function() getmetatable(dir).__close(dir) end)

  -- `worker exec` behind this piece of shell; what the job left in its file, the exit code, stderr.
  local function exec(shell, env)
    env = env or { TMPDIR = dir.root }
    local result = program.run { "exec", "--script", ("echo hi; echo $? > %s"):format(dir:path "said"), env = env,
      wrap = { "sh", "-c", shell, "sh" } }
    return dir:read "said", result
  end

  for closed, heard in pairs { ["<&-"] = "hi\n", [">&-"] = "", ["2>&-"] = "hi\n", ["<&- >&- 2>&-"] = "" } do
    it("opens nothing in the place of a stream that is closed: " .. closed, function()
      local said, result = exec('exec "$@" ' .. closed)
      assert.same({ "0\n", 0, heard }, { said, result.code, result.stdout }, result.stderr)
    end)
  end

  it("does not die of a file that may not grow", function()
    local result = program.run { "exec", "--script", "echo hi", env = { TMPDIR = dir.root },
      wrap = { "sh", "-c", 'ulimit -f 0; exec "$@"', "sh" } }
    assert.is_nil(result.signal)
    assert.same({ 0, "hi\n" }, { result.code, result.stdout }, result.stderr)
  end)

  it("makes no TMPDIR that is not there", function()
    for _, tmp in ipairs { dir:path "nowhere", "" } do
      local said, result = exec('exec "$@"', { TMPDIR = tmp })
      assert.same({ "0\n", 0 }, { said, result.code }, result.stderr)
    end
    assert.is_false(fs.exists(dir:path "nowhere"))
  end)
end)
