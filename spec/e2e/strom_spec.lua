-- The worker as a child on a Strøm server as another child: the file people have, real steps, real kills.
local fs = require "worker.fs"
local http = require "worker.http"
local program = require "spec.support.program"
local served = require "spec.support.served"
local task = require "worker.task"

local TOKEN = "your-worker-token"

-- As Strøm's own documentation has it.
local CONFIG = [[
server_url: "http://localhost:8080"
worker_token: "your-worker-token"
worker_name: "worker-1"
max_concurrent: 4
poll_interval_secs: 2
workspace_dir: "/tmp/stroem-workspace"
capabilities:
  - shell
]]

local function new_site()
  local site = served.new("strom", { token = TOKEN, ["sweep-interval"] = "1s" })
  site.dir:write("run/worker-config.yaml", CONFIG)
  fs.chmod(site.dir:path "run/worker-config.yaml", 384)
  return site
end

-- A worker in the directory of the file; only what differs from it comes from the environment.
local function work(site)
  return site:work { "--protocol", "strom", "--heartbeat", "1s", cwd = site.dir:path "run",
    env = { STROEM__SERVER_URL = site.url, STROEM__WORKSPACE_DIR = site.dir:path "ws", STROEM__POLL_INTERVAL_SECS = "1" } }
end

local function add(site, job) return site.api:post("/api/jobs", { json = job }).json.id end

local function job_of(site, id) return site:get(http.url("/api/jobs", id)) end

local function lines_of(site, id)
  local lines = {}
  for i, entry in ipairs(site:get(http.url("/api/jobs", id, "logs"))) do lines[i] = entry.line end
  return lines
end

local OVER = { completed = true, failed = true, cancelled = true }

-- Wait until all jobs have ended.
local function wait_all(site)
  program.eventually(function()
    for _, job in ipairs(site:get "/api/jobs") do
      if not OVER[job.status] then return false end
    end
    return true
  end)
end

describe("worker --protocol strom #realtime", function()
  it("with the README's file alone runs two hundred mixed jobs, each reported once with its own end", function()
    local site <close> = new_site()
    local wanted = {}
    local kinds = {
      { script = "echo $STROEM_STEP_NAME; echo 'OUTPUT: {\"n\":1}'", code = 0 },
      { script = "echo out; echo why >&2; exit 3", code = 3, error = "Exit code: 3\nStderr: why\n" },
      { type = "shell", cmd = "seq 1 200", code = 0, lines = 200 },
      { script = "kill -9 $$", code = -1, error = "Exit code: -1" },
      { script = "sleep 60", timeout = 1, code = -1, error = "Step timed out" },
    }
    for i = 1, 200 do
      local kind = kinds[i % 50 == 5 and 5 or i % 4 + 1]
      wanted[add(site, { script = kind.script, type = kind.type, cmd = kind.cmd, timeout = kind.timeout })] = kind
    end
    local worker = work(site)
    wait_all(site)
    for _, job in ipairs(site:get "/api/jobs") do
      local step, kind = job.steps[1], wanted[job.id]
      assert.same({ kind.code, 1, 1 }, { step.exit_code, step.runs, step.completes })
      assert.equal(kind.error, kind.error and step.error_message:sub(1, #kind.error))
      if kind.lines then
        local lines = lines_of(site, job.id)
        assert.equal(kind.lines, #lines)
        for i, line in ipairs(lines) do assert.equal(tostring(i), line) end
      end
    end
    worker:signal "TERM"
    assert.equal(0, worker:wait().code)
  end)

  it("goes on when the server is killed in mid-step, twice: every result once, every line once", function()
    local site <close> = new_site()
    local ids = {}
    for i = 1, 4 do ids[i] = add(site, { script = "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do echo line $i; sleep 0.5; done" }) end
    work(site)
    program.eventually(function() return #lines_of(site, ids[1]) > 2 end)
    for _ = 1, 2 do
      site:kill()
      task.sleep(1.5)
      site:start()
      task.sleep(1)
    end
    wait_all(site)
    for _, id in ipairs(ids) do
      local job = job_of(site, id)
      assert.same({ "completed", 1, 1 }, { job.status, job.steps[1].runs, job.steps[1].completes })
      assert.same({ "line 1", "line 2", "line 3", "line 4", "line 5", "line 6", "line 7", "line 8", "line 9", "line 10",
        "line 11", "line 12" }, lines_of(site, id))
    end
  end)

  it("killed by -9 leaves no process of its step; started again it reports the step", function()
    local site <close> = new_site()
    local tag = program.tag()
    local id = add(site, { script = ("echo up; sleep %s & setsid sleep %s & wait"):format(tag, tag) })
    local worker = work(site)
    program.eventually(function() return #lines_of(site, id) == 1 end)
    worker:signal "KILL"
    worker:wait()
    program.eventually(function() return #program.of_tag("sleep\0" .. tag) == 0 end)
    assert.equal("running", job_of(site, id).status)
    work(site)
    wait_all(site)
    local step = job_of(site, id).steps[1]
    assert.same({ "failed", -1, 1 }, { step.status, step.exit_code, step.completes })
    assert.matches("interrupted", step.error_message)
  end)

  it("asked to stop finishes its step and takes no other", function()
    local site <close> = new_site()
    local ids = {}
    for i = 1, 6 do ids[i] = add(site, { script = "echo up; sleep 2; echo down" }) end
    local worker = work(site)
    program.eventually(function() return #lines_of(site, ids[1]) == 1 end)
    worker:signal "TERM"
    assert.equal(0, worker:wait().code)
    local count = { completed = 0, pending = 0 }
    for _, job in ipairs(site:get "/api/jobs") do count[job.status] = (count[job.status] or 0) + 1 end
    assert.same({ completed = 4, pending = 2 }, count)
    assert.same({ "up", "down" }, lines_of(site, ids[1]))
  end)

  it("a cancelled step is gone with its whole tree, and the worker goes on", function()
    local site <close> = new_site()
    local tag = program.tag()
    local id = add(site, {
      script = ("trap '' TERM; echo up; sleep %s & setsid sleep %s & wait; sleep %s"):format(tag, tag, tag) })
    work(site)
    program.eventually(function() return #lines_of(site, id) == 1 end)
    site.api:post(http.url("/api/jobs", id, "cancel"), { json = {} })
    program.eventually(function() return job_of(site, id).steps[1].status == "failed" end)
    assert.equal(0, #program.of_tag("sleep\0" .. tag))
    assert.equal("cancelled", job_of(site, id).status)
    local after = add(site, { script = "echo after" })
    program.eventually(function() return job_of(site, after).status == "completed" end)
  end)

  it("another token is told once, never printed, and ends the worker", function()
    local site <close> = new_site()
    local result = program.run { "--protocol", "strom", "--server-url", site.url, "--state", site.dir:path "other",
      program.plugins, env = { STROEM__WORKSPACE_DIR = site.dir:path "ws",
        STROEM__WORKER_TOKEN = "0123456789abcdef-not-the-right-one" } }
    assert.equal(77, result.code)
    assert.matches("401", result.stderr)
    assert.is_nil(result.stderr:find("not-the-right-one", 1, true))
  end)
end)
