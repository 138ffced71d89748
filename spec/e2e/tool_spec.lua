-- `worker tool`, as far as it gets without an engine.
local program = require "spec.support.program"

describe("worker tool #realtime", function()
  -- words, exit code, what is said
  local CASES = {
    { {}, 64, "say which tool" },
    { { "grpe" }, 64, "no tool 'grpe' %(did you mean 'grep'" },
    { { "grep" }, 64, "grep.pattern: is required" },
    { { "grep", "TODO" }, 64, "expected ARGUMENT=VALUE, got 'TODO'" },
    { { "list", "pth=x" }, 64, "list has no argument 'pth' %(did you mean 'path'" },
    { { "list", "path=../.." }, 64, "leads out of the workspace" },
    { { "list", "--workspace", "/no/such/place" }, 64, "/no/such/place cannot be used" },
    { { "list", "--policy", "/no/such.yaml" }, 78, "no/such.yaml" },
    { { "file_write", "path=x", "--input", "/no/such/file" }, 78, "no/such/file" },
    { { "list" }, 125, "engine at unix:///no/such.sock does not answer" },
  }

  for _, case in ipairs(CASES) do
    it(("ends with %d for: %s"):format(case[2], table.concat(case[1], " ")), function()
      local words = { "tool", env = { DOCKER_HOST = "unix:///no/such.sock" } }
      table.move(case[1], 1, #case[1], 2, words)
      local run = program.run(words)
      assert.equal(case[2], run.code, run.stderr)
      assert.matches(case[3], run.stderr)
    end)
  end
end)
