-- With `executor: { shell: { user: nobody } }`, as the README has it, every job failed: the folders above its
-- directory were closed to everybody but the worker.
local fs = require "worker.fs"
local program = require "spec.support.program"
local scratch = require "spec.support.scratch"
local strom = require "spec.support.strom"
local sys = require "worker.core.sys"

local PASSABLE = 457 -- 0711

local function open_dir()
  local dir = scratch.dir()
  fs.chmod(dir.root, PASSABLE)
  return dir
end

local function run_local(dir, workspace)
  fs.mkdir(dir:path("jobs", "inbox"), { parents = true })
  fs.write(dir:path("jobs", "inbox", "short.sh"), "id -un; pwd; touch mine; echo $HOME; ls .. 2>&1")
  fs.write(dir:path("jobs", "inbox", "long.sh"), ": " .. ("x"):rep(300000) .. "\nid -un")
  local servers = "servers: [{ protocol: local, dir: %s, once: true, executor: { shell: { user: nobody } } }]\n"
  fs.write(dir:path "worker.yaml", (servers .. "state: %s\n%s"):format(dir:path "jobs", dir:path "state", workspace))
  return program.run { "run", "--config", dir:path "worker.yaml", program.plugins, cwd = dir.root }
end

describe("a job that runs as another user #realtime", function()
  if sys.uid() ~= 0 then return pending "only root can do that" end

  for name, workspace in pairs { ["the state folder"] = "", ["a folder of its own"] = "workspace: work\n" } do
    it("has a directory, a home and its script, below " .. name .. ", and sees no other's", function()
      local dir <close> = open_dir()
      local run = run_local(dir, workspace)
      assert.equal(0, run.code, run.stderr)
      local who, where, home, above = dir:read("jobs/done/short/stdout.log"):match("^(%S+)\n(%S+)\n(%S+)\n(.*)$")
      assert.same({ "nobody", where }, { who, home })
      assert.matches("Permission denied", above)
      assert.equal("nobody\n", dir:read "jobs/done/long/stdout.log")
    end)
  end

  it("is told why it cannot be where it should", function()
    local dir <close> = open_dir()
    fs.mkdir(dir:path "closed", { mode = 448 })
    local run = run_local(dir, "workspace: closed\n")
    assert.matches("chdir %S+: Permission denied to the user it runs as %(each folder above has to let others pass%)",
      run.stderr .. (dir:read "jobs/done/short/result.json" or ""))
  end)

  it("has the files of its Strøm step, and those alone", function()
    local fake = strom.fake()
    local job = fake:add { script = [[
      id -un; cat "$0" >/dev/null && echo read; ls >/dev/null && echo listed
      echo x > $ARTIFACTS_DIR/a && echo y > $STATE_OUT_DIR/b && echo written
      ls $STATE_DIR/../.. 2>&1 | grep -o denied
      echo 'OUTPUT: {"n":1}']] }
    local dir = strom.dir()
    fs.chmod(dir.root, PASSABLE)
    strom.worker(fake, { workspace_dir = dir:path "ws" }, { dir = dir, user = "nobody" })
    local step = strom.wait_job(job)
    assert.same({ "completed", 1 }, { step.status, step.output and step.output.n })
    assert.same({ "nobody", "read", "listed", "written", "denied", 'OUTPUT: {"n":1}' }, strom.lines(job, "stdout"))
  end)
end)
