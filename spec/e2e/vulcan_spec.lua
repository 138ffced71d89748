-- The worker as a child on Vulcan's server as another child: real processes, real kills.
local process = require "worker.process"
local program = require "spec.support.program"
local served = require "spec.support.served"
local task = require "worker.task"

local TENANT = "00000000-0000-0000-0000-000000000001"

local function new_site(knobs) return served.new("vulcan", knobs) end

local function add(site, jobs) return site.api:post("/fake/fragments", { json = jobs }).json end

-- The rows by the id of the fragment.
local function rows_of(site)
  local rows = {}
  for _, row in ipairs(site:get "/fake/fragments") do rows[row.id] = row end
  return rows
end

local function workers(site, status)
  local n = 0
  for _, worker in ipairs(site:get "/fake/workers") do
    if worker.status == status then n = n + 1 end
  end
  return n
end

-- Wait until as many are in a state that matches; the rows.
local function wait(site, n, states)
  return program.eventually(function()
    local rows, count = rows_of(site), 0
    for _, row in pairs(rows) do
      if states:find(row.status, 1, true) then count = count + 1 end
    end
    return count >= n and rows
  end)
end

local function work(site, words, env)
  local all = { "--protocol", "vulcan", env = { ORCHESTRATOR_URL = site.url, TENANT_ID = TENANT, POLL_INTERVAL_SECS = "0.1" } }
  for name, value in pairs(env or {}) do all.env[name] = value end
  table.move(words or {}, 1, #(words or {}), #all + 1, all)
  return site:work(all)
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
    local ids = add(site, jobs)
    local run <close> = work(site, { "--slots", "8" }, { WORKER_GROUP = "", HEARTBEAT_INTERVAL_SECS = "10",
      REQUEST_TIMEOUT_SECS = "30", SCRIPT_TIMEOUT_SECS = "1" })
    local rows = wait(site, 200, "completed failed")
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
    local ids = add(site, { "sleep 9; exit 5", "sleep 9" })
    local _ <close> = work(site, { "--slots", "2" }, KNOWN)
    wait(site, 2, "running")
    for death = 1, 2 do
      site:kill()
      task.sleep(3)
      site:start()
      program.eventually(function() return workers(site, "error") >= 1 + death and workers(site, "active") >= 1 end)
    end
    wait(site, 2, "completed failed")
    task.sleep(1)
    local rows = rows_of(site)
    assert.same({ "failed", 1, 5 }, { rows[ids[1]].status, rows[ids[1]].reports, rows[ids[1]].told.exit_code })
    assert.same({ "completed", 1 }, { rows[ids[2]].status, rows[ids[2]].reports })
  end)

  it("delivers after the server's death what ended meanwhile", function()
    local site <close> = new_site(HASTY)
    local ids = add(site, { "sleep 1; echo late >&2; exit 7" })
    local run <close> = work(site, {}, KNOWN)
    wait(site, 1, "running")
    site:kill()
    run:says "job%.report_late"
    site:start()
    local row = wait(site, 1, "failed")[ids[1]]
    assert.same({ 1, "late\n" }, { row.reports, row.error_message })
    add(site, "echo next")
    wait(site, 1, "completed")
  end)

  it("killed in mid-job, the fragment is handed out again by the server and run, its processes are gone", function()
    local site <close> = new_site(HASTY)
    local tag = program.tag()
    local ids = add(site, { ("test -e %s && exit 0; touch %s; sleep %s"):format(
      site.dir:path "been", site.dir:path "been", tag) })
    do
      local run <close> = work(site, {}, KNOWN)
      -- once it has left its mark: before, the next one would sleep, too
      program.eventually(function() return site.dir:read "been" and #program.of_tag(tag) > 0 end)
      run:signal "KILL"
      run:wait()
      -- before the handle is closed: that ends the keeper, too, which has this to do
      program.eventually(function() return #program.of_tag(tag) == 0 end)
    end
    local run <close> = work(site, {}, KNOWN)
    local row = wait(site, 1, "completed failed")[ids[1]]
    assert.same({ "completed", 2, 1 }, { row.status, row.attempt, row.reports })
    run:signal "TERM"
    assert.equal(0, run:wait().code)
  end)

  it("killed before it could report, it does so in its next life, and nothing is run twice", function()
    local site <close> = new_site(HASTY)
    local mark = site.dir:path "runs"
    local ids = add(site, { ("echo x >> %s; sleep 1"):format(mark) })
    do
      local run <close> = work(site, {}, KNOWN)
      wait(site, 1, "running")
      site:kill()
      run:says "job%.report_late"
      run:signal "KILL"
      run:wait()
    end
    site.knobs = { ["heartbeat-timeout"] = "4s", ["check-interval"] = "500ms" }
    site:start()
    local run <close> = work(site, {}, KNOWN)
    local row = wait(site, 1, "completed")[ids[1]]
    assert.equal(1, row.reports)
    task.sleep(5)
    assert.equal("completed", rows_of(site)[ids[1]].status)
    assert.equal("x\n", site.dir:read "runs")
    run:signal "TERM"
    assert.equal(0, run:wait().code)
  end)

  it("asked to stop while the server is away, it keeps the result, says so, ends with 84, and reports it later", function()
    local site <close> = new_site(HASTY)
    local ids = add(site, { "sleep 1; exit 9" })
    local run = work(site, { "--shutdown-timeout", "1s" }, KNOWN)
    wait(site, 1, "running")
    site:kill()
    run:says "job%.report_late"
    run:signal "TERM"
    local result = run:wait()
    assert.equal(84, result.code, result.stderr)
    assert.matches("it is kept, and the next start reports it", result.stderr)
    site:start()
    work(site, {}, KNOWN)
    assert.equal(9, wait(site, 1, "failed")[ids[1]].told.exit_code)
  end)

  it("completes what runs at the first TERM, and ends it at the second", function()
    local site <close> = new_site()
    local ids = add(site, { "sleep 1; exit 6" })
    do
      local run <close> = work(site)
      wait(site, 1, "running")
      run:signal "TERM"
      assert.equal(0, run:wait().code)
      assert.equal(6, rows_of(site)[ids[1]].told.exit_code)
    end
    ids = add(site, { "sleep 1000" })
    local run <close> = work(site)
    wait(site, 1, "running")
    run:signal "TERM"
    run:says "draining"
    task.sleep(0.02)
    run:signal "TERM"
    assert.equal(80, run:wait().code)
    assert.matches("cancelled", rows_of(site)[ids[1]].error_message)
  end)

  it("leaves scripts alone at Ctrl-C in its terminal: only the worker hears it", function()
    local site <close> = new_site()
    local ids = add(site, { "sleep 1; exit 8" })
    local run <close> = work(site)
    wait(site, 1, "running")
    -- the terminal signals the worker's whole group
    process.run { argv = { "/bin/sh", "-c", "kill -s INT -- -$0", tostring(run:pid()) }, env = {} }
    assert.equal(0, run:wait().code)
    assert.equal(8, rows_of(site)[ids[1]].told.exit_code)
  end)

  it("stops at once when it is idle, or while nobody answers its registration", function()
    local site <close> = new_site()
    local run <close> = work(site, {}, { POLL_INTERVAL_SECS = "1000" })
    program.eventually(function() return workers(site, "active") == 1 end)
    run:signal "INT"
    assert.equal(0, run:wait().code)
    local alone <close> = work(site, {}, { ORCHESTRATOR_URL = "http://127.0.0.1:1" })
    alone:says "server%.failing"
    alone:signal "TERM"
    assert.equal(0, alone:wait().code)
  end)

  it("says what is missing or wrong in its variables, with exit code 78", function()
    local site <close> = new_site()
    for _, wrong in ipairs { { { TENANT_ID = "me" }, "UUID" }, { { ORCHESTRATOR_URL = "localhost" }, "ORCHESTRATOR_URL" },
      { { SCRIPT_TIMEOUT_SECS = "soon" }, "SCRIPT_TIMEOUT_SECS" } } do
      local run <close> = work(site, {}, wrong[1])
      local result = run:wait()
      assert.equal(78, result.code)
      assert.matches(wrong[2], result.stderr)
    end
    local result = program.run { "--protocol", "vulcan", program.plugins }
    assert.equal(78, result.code)
    assert.matches("tenant.*required", result.stderr)
  end)
end)
