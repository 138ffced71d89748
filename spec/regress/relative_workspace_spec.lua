-- With --workspace DIR relative, HOME and TMPDIR of a job were relative, too: wrong after its first cd; and a
-- script too long for an argument was looked for from the job's own directory.
local fs = require "worker.fs"
local program = require "spec.support.program"
local scratch = require "spec.support.scratch"

describe("a job in a workspace that was named from where the worker is #realtime", function()
  it("has a home wherever it goes, and its script however long it is", function()
    local dir <close> = scratch.dir()
    fs.mkdir(dir:path("jobs", "inbox"), { parents = true })
    fs.write(dir:path("jobs", "inbox", "a.sh"), ": " .. ("x"):rep(300000) .. "\ncd /; echo $HOME $TMPDIR")
    local run = program.run { "run", "--protocol", "local", "--dir", "jobs", "--once", "--workspace", "work",
      program.plugins, cwd = dir.root }
    assert.equal(0, run.code, run.stderr)
    local home, tmp = dir:read("jobs/done/a/stdout.log"):match("^(%S+) (%S+)\n$")
    assert.equal(home, tmp)
    assert.equal(fs.realpath(dir:path "work"), fs.dir(fs.dir(home)))
  end)
end)
