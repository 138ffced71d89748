-- The worker as a child on a Strøm server as another child: the file people have, real steps, real kills.
local fs = require "worker.fs"
local http = require "worker.http"
local program = require "spec.support.program"
local scratch = require "spec.support.scratch"
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

local site_methods = {}
local site_meta = { __index = site_methods }

local function new_site()
  local site = setmetatable({ dir = scratch.dir(), address = "127.0.0.1:0", workers = {} }, site_meta)
  site.dir:write("jobs.yaml", "[]\n")
  site.dir:write("run/worker-config.yaml", CONFIG)
  fs.chmod(site.dir:path "run/worker-config.yaml", 384)
  site:start()
  return site
end

function site_methods:start()
  self.server = program.start { "serve", "strom", "--quiet", "--address", self.address, "--jobs", self.dir:path "jobs.yaml",
    "--state", self.dir:path "server", "--set", "token=" .. TOKEN, "--set", "sweep-interval=1s" }
  local url = program.eventually(function() return table.concat(self.server.stdout):match("on (http://%S+)\n") end)
  self.url, self.address = url, url:match("//(.*)$")
  self.api = http.client { base = url }
end

function site_methods:kill()
  self.server:signal "KILL"
  self.server:wait()
  getmetatable(self.server).__close(self.server)
  self.api:close()
end

-- A worker in the directory of the file; only what differs from it comes from the environment.
function site_methods:worker(...)
  local worker = program.start { "--protocol", "strom", "--state", self.dir:path "state", "--heartbeat", "1s",
    program.plugins, cwd = self.dir:path "run",
    env = { STROEM__SERVER_URL = self.url, STROEM__WORKSPACE_DIR = self.dir:path "ws", STROEM__POLL_INTERVAL_SECS = "1" }, ... }
  self.workers[#self.workers + 1] = worker
  return worker
end

function site_methods:add(job) return self.api:post("/api/jobs", { json = job }).json.id end

function site_methods:jobs() return self.api:get("/api/jobs", { max_body = 1 << 26 }).json end

function site_methods:job(id) return self.api:get(http.url("/api/jobs", id)).json end

function site_methods:lines(id)
  local lines = {}
  local entries = self.api:get(http.url("/api/jobs", id, "logs"), { max_body = 1 << 26 }).json
  for i, entry in ipairs(entries) do lines[i] = entry.line end
  return lines
end

local OVER = { completed = true, failed = true, cancelled = true }

-- Wait until all jobs have ended.
function site_methods:wait_all()
  for _ = 1, 4 do
    local ok = pcall(program.eventually, function()
      for _, job in ipairs(self:jobs()) do
        if not OVER[job.status] then return false end
      end
      return true
    end)
    if ok then return end
  end
  error("the jobs do not end", 2)
end

function site_meta:__close()
  for _, worker in ipairs(self.workers) do getmetatable(worker).__close(worker) end
  self:kill()
  getmetatable(self.dir).__close(self.dir)
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
      wanted[site:add { script = kind.script, type = kind.type, cmd = kind.cmd, timeout = kind.timeout }] = kind
    end
    local worker = site:worker()
    site:wait_all()
    for _, job in ipairs(site:jobs()) do
      local step, kind = job.steps[1], wanted[job.id]
      assert.same({ kind.code, 1, 1 }, { step.exit_code, step.runs, step.completes })
      assert.equal(kind.error, kind.error and step.error_message:sub(1, #kind.error))
      if kind.lines then
        local lines = site:lines(job.id)
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
    for i = 1, 4 do ids[i] = site:add { script = "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do echo line $i; sleep 0.5; done" } end
    site:worker()
    program.eventually(function() return #site:lines(ids[1]) > 2 end)
    for _ = 1, 2 do
      site:kill()
      task.sleep(1.5)
      site:start()
      task.sleep(1)
    end
    site:wait_all()
    for _, id in ipairs(ids) do
      local job = site:job(id)
      assert.same({ "completed", 1, 1 }, { job.status, job.steps[1].runs, job.steps[1].completes })
      assert.same({ "line 1", "line 2", "line 3", "line 4", "line 5", "line 6", "line 7", "line 8", "line 9", "line 10",
        "line 11", "line 12" }, site:lines(id))
    end
  end)

  it("killed by -9 leaves no process of its step; started again it reports the step", function()
    local site <close> = new_site()
    local tag = program.tag()
    local id = site:add { script = ("echo up; sleep %s & setsid sleep %s & wait"):format(tag, tag) }
    local worker = site:worker()
    program.eventually(function() return #site:lines(id) == 1 end)
    worker:signal "KILL"
    worker:wait()
    program.eventually(function() return #program.of_tag("sleep\0" .. tag) == 0 end)
    assert.equal("running", site:job(id).status)
    site:worker()
    site:wait_all()
    local step = site:job(id).steps[1]
    assert.same({ "failed", -1, 1 }, { step.status, step.exit_code, step.completes })
    assert.matches("interrupted", step.error_message)
  end)

  it("asked to stop finishes its step and takes no other", function()
    local site <close> = new_site()
    local ids = {}
    for i = 1, 6 do ids[i] = site:add { script = "echo up; sleep 2; echo down" } end
    local worker = site:worker()
    program.eventually(function() return #site:lines(ids[1]) == 1 end)
    worker:signal "TERM"
    assert.equal(0, worker:wait().code)
    local count = { completed = 0, pending = 0 }
    for _, job in ipairs(site:jobs()) do count[job.status] = (count[job.status] or 0) + 1 end
    assert.same({ completed = 4, pending = 2 }, count)
    assert.same({ "up", "down" }, site:lines(ids[1]))
  end)

  it("a cancelled step is gone with its whole tree, and the worker goes on", function()
    local site <close> = new_site()
    local tag = program.tag()
    local id = site:add { script = ("trap '' TERM; echo up; sleep %s & setsid sleep %s & wait; sleep %s"):format(tag, tag, tag) }
    site:worker()
    program.eventually(function() return #site:lines(id) == 1 end)
    site.api:post(http.url("/api/jobs", id, "cancel"), { json = {} })
    program.eventually(function() return site:job(id).steps[1].status == "failed" end)
    assert.equal(0, #program.of_tag("sleep\0" .. tag))
    assert.equal("cancelled", site:job(id).status)
    local after = site:add { script = "echo after" }
    program.eventually(function() return site:job(after).status == "completed" end)
  end)

  it("another token is told once, never printed, and ends the worker", function()
    local site <close> = new_site()
    local result = program.run { "--protocol", "strom", "--server-url", site.url, "--state", site.dir:path "other",
      program.plugins, env = { STROEM__WORKER_TOKEN = "0123456789abcdef-not-the-right-one" } }
    assert.equal(77, result.code)
    assert.matches("401", result.stderr)
    assert.is_nil(result.stderr:find("not-the-right-one", 1, true))
  end)
end)
