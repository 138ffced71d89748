-- The worker as a child on Vulcan's server as another child: real processes, real kills.
local http = require "worker.http"
local process = require "worker.process"
local program = require "spec.support.program"
local scratch = require "spec.support.scratch"
local task = require "worker.task"

local TENANT = "00000000-0000-0000-0000-000000000001"

-- A server process that can be killed and comes back at the same place with what it knew.
local site_methods = {}
local site_meta = { __index = site_methods }

local function new_site(knobs)
  local site = setmetatable({ dir = scratch.dir(), address = "127.0.0.1:0", knobs = knobs or {} }, site_meta)
  site.dir:write("jobs.yaml", "[]\n")
  site:start()
  return site
end

function site_methods:start()
  local words = { "serve", "vulcan", "--quiet", "--address", self.address, "--jobs", self.dir:path "jobs.yaml",
    "--state", self.dir:path "server" }
  for name, value in pairs(self.knobs) do
    words[#words + 1] = "--set"
    words[#words + 1] = name .. "=" .. value
  end
  self.server = program.start(words)
  local url = program.eventually(function()
    return table.concat(self.server.stdout):match("on (http://%S+)\n")
  end)
  self.url, self.address = url, url:match("//(.*)$")
  self.api = http.client { base = url }
end

function site_methods:kill()
  self.server:signal "KILL"
  self.server:wait()
  getmetatable(self.server).__close(self.server)
  self.api:close()
end

function site_meta:__close()
  self:kill()
  getmetatable(self.dir).__close(self.dir)
end

function site_methods:add(jobs) return self.api:post("/fake/fragments", { json = jobs }).json end

-- The rows by the id of the fragment.
function site_methods:rows()
  local rows = {}
  for _, row in ipairs(self.api:get("/fake/fragments", { max_body = 1 << 26 }).json) do rows[row.id] = row end
  return rows
end

function site_methods:workers(status)
  local n = 0
  for _, worker in ipairs(self.api:get("/fake/workers").json) do
    if worker.status == status then n = n + 1 end
  end
  return n
end

-- Wait until as many are in a state that matches; the rows.
function site_methods:wait(n, states)
  return program.eventually(function()
    local rows, count = self:rows(), 0
    for _, row in pairs(rows) do
      if states:find(row.status, 1, true) then count = count + 1 end
    end
    return count >= n and rows
  end)
end

function site_methods:work(words, env)
  local all = { "--protocol", "vulcan", "--state", self.dir:path "state", env = {
    ORCHESTRATOR_URL = self.url, TENANT_ID = TENANT, POLL_INTERVAL_SECS = "0.1" } }
  for name, value in pairs(env or {}) do all.env[name] = value end
  table.move(words or {}, 1, #(words or {}), #all + 1, all)
  all[#all + 1] = program.plugins
  return program.start(all)
end

-- So that an outage takes seconds: a server of little patience, and a worker that knows it.
local HASTY = { ["heartbeat-timeout"] = "2s", ["check-interval"] = "500ms" }
local KNOWN = { HEARTBEAT_TIMEOUT_SECS = "2", HEARTBEAT_INTERVAL_SECS = "0.5" }

describe("a worker on Vulcan #realtime", function()
  it("runs 200 fragments of mixed ends with the variables of the README: all terminal, codes and messages right", function()
    local site <close> = new_site()
    local kinds = {
      { "echo hi", "completed", 0 }, { "echo no >&2; exit 3", "failed", 3, "no\n" },
      { "exit 4", "failed", 4, "Script exited with code 4" },
      { "kill -9 $$", "failed", -1, "Script exited with code -1 (killed by SIGKILL)" },
      { "", "completed", 0 }, { "sleep 20", "failed", -1, "Script execution timed out" },
      { [[printf 'x\000y' >&2; exit 1]], "failed", 1, "x\u{FFFD}y" },
    }
    local jobs, kind_of = {}, {}
    for i = 1, 200 do
      local kind = kinds[i % 20 == 0 and 6 or i % 5 + 1] or kinds[7]
      jobs[i] = { script = kind[1], machine = i % 2 == 0 and "default" or nil }
      kind_of[i] = kind
    end
    local ids = site:add(jobs)
    local run <close> = site:work({ "--slots", "8" }, { WORKER_GROUP = "", HEARTBEAT_INTERVAL_SECS = "10",
      REQUEST_TIMEOUT_SECS = "30", SCRIPT_TIMEOUT_SECS = "1" })
    local rows = site:wait(200, "completed failed")
    for i, id in ipairs(ids) do
      local row, kind = rows[id], kind_of[i]
      assert.same({ kind[2], kind[3], kind[4], 1, 1 },
        { row.status, row.told.exit_code, row.error_message, row.reports, row.attempt })
    end
    run:signal "TERM"
    assert.equal(0, run:wait().code)
  end)

  it("survives two deaths of the server in mid-job: every result arrives once, it is alive again", function()
    local site <close> = new_site(HASTY)
    local ids = site:add { "sleep 9; exit 5", "sleep 9" }
    local _ <close> = site:work({ "--slots", "2" }, KNOWN)
    site:wait(2, "running")
    for death = 1, 2 do
      site:kill()
      task.sleep(3)
      site:start()
      program.eventually(function() return site:workers "error" >= 1 + death and site:workers "active" >= 1 end)
    end
    site:wait(2, "completed failed")
    task.sleep(1)
    local rows = site:rows()
    assert.same({ "failed", 1, 5 }, { rows[ids[1]].status, rows[ids[1]].reports, rows[ids[1]].told.exit_code })
    assert.same({ "completed", 1 }, { rows[ids[2]].status, rows[ids[2]].reports })
  end)

  it("delivers after the server's death what ended meanwhile", function()
    local site <close> = new_site(HASTY)
    local ids = site:add { "sleep 1; echo late >&2; exit 7" }
    local run <close> = site:work({}, KNOWN)
    site:wait(1, "running")
    site:kill()
    run:says "job%.report_late"
    site:start()
    local row = site:wait(1, "failed")[ids[1]]
    assert.same({ 1, "late\n" }, { row.reports, row.error_message })
    site:add "echo next"
    site:wait(1, "completed")
  end)

  it("killed in mid-job, the fragment is handed out again by the server and run, its processes are gone", function()
    local site <close> = new_site(HASTY)
    local tag = program.tag()
    local ids = site:add { ("test -e %s && exit 0; touch %s; sleep %s"):format(
      site.dir:path "been", site.dir:path "been", tag) }
    do
      local run <close> = site:work({}, KNOWN)
      program.eventually(function() return #program.of_tag(tag) > 0 end)
      run:signal "KILL"
      run:wait()
      -- before the handle is closed: that ends the keeper, too, which has this to do
      program.eventually(function() return #program.of_tag(tag) == 0 end)
    end
    local run <close> = site:work({}, KNOWN)
    local row = site:wait(1, "completed failed")[ids[1]]
    assert.same({ "completed", 2, 1 }, { row.status, row.attempt, row.reports })
    run:signal "TERM"
    assert.equal(0, run:wait().code)
  end)

  it("killed before it could report, it does so in its next life, and nothing is run twice", function()
    local site <close> = new_site(HASTY)
    local mark = site.dir:path "runs"
    local ids = site:add { ("echo x >> %s; sleep 1"):format(mark) }
    do
      local run <close> = site:work({}, KNOWN)
      site:wait(1, "running")
      site:kill()
      run:says "job%.report_late"
      run:signal "KILL"
      run:wait()
    end
    site.knobs = { ["heartbeat-timeout"] = "4s", ["check-interval"] = "500ms" }
    site:start()
    local run <close> = site:work({}, KNOWN)
    local row = site:wait(1, "completed")[ids[1]]
    assert.equal(1, row.reports)
    task.sleep(5)
    assert.equal("completed", site:rows()[ids[1]].status)
    assert.equal("x\n", site.dir:read "runs")
    run:signal "TERM"
    assert.equal(0, run:wait().code)
  end)

  it("completes what runs at the first TERM, and ends it at the second", function()
    local site <close> = new_site()
    local ids = site:add { "sleep 1; exit 6" }
    do
      local run <close> = site:work()
      site:wait(1, "running")
      run:signal "TERM"
      assert.equal(0, run:wait().code)
      assert.equal(6, site:rows()[ids[1]].told.exit_code)
    end
    ids = site:add { "sleep 1000" }
    local run <close> = site:work()
    site:wait(1, "running")
    run:signal "TERM"
    run:says "draining"
    run:signal "TERM"
    assert.equal(80, run:wait().code)
    assert.matches("cancelled", site:rows()[ids[1]].error_message)
  end)

  it("leaves scripts alone at Ctrl-C in its terminal: only the worker hears it", function()
    local site <close> = new_site()
    local ids = site:add { "sleep 1; exit 8" }
    local run <close> = site:work()
    site:wait(1, "running")
    -- the terminal signals the worker's whole group
    process.run { argv = { "/bin/kill", "-INT", "--", "-" .. run:pid() }, env = {} }
    assert.equal(0, run:wait().code)
    assert.equal(8, site:rows()[ids[1]].told.exit_code)
  end)

  it("stops at once when it is idle, or while nobody answers its registration", function()
    local site <close> = new_site()
    local run <close> = site:work({}, { POLL_INTERVAL_SECS = "1000" })
    program.eventually(function() return site:workers "active" == 1 end)
    run:signal "INT"
    assert.equal(0, run:wait().code)
    local alone <close> = site:work({}, { ORCHESTRATOR_URL = "http://127.0.0.1:1" })
    alone:says "server%.failing"
    alone:signal "TERM"
    assert.equal(0, alone:wait().code)
  end)

  it("says what is missing or wrong in its variables, with exit code 78", function()
    local site <close> = new_site()
    for _, wrong in ipairs { { { TENANT_ID = "me" }, "UUID" }, { { ORCHESTRATOR_URL = "localhost" }, "ORCHESTRATOR_URL" },
      { { SCRIPT_TIMEOUT_SECS = "soon" }, "SCRIPT_TIMEOUT_SECS" } } do
      local run <close> = site:work({}, wrong[1])
      local result = run:wait()
      assert.equal(78, result.code)
      assert.matches(wrong[2], result.stderr)
    end
    local result = program.run { "--protocol", "vulcan", program.plugins }
    assert.equal(78, result.code)
    assert.matches("tenant.*required", result.stderr)
  end)
end)
