-- Event sinks of a whole worker, from outside: real Redis, real files, receivers that are dead.
local fs = require "worker.fs"
local http = require "worker.http"
local json = require "worker.json"
local orchestrator = require "worker.fakes.queue"
local program = require "spec.support.program"
local redis = require "spec.support.redis"
local scratch = require "spec.support.scratch"
local sock = require "worker.sock"

local dir
before_each(function() dir = scratch.dir() end)
after_each(function() fs.remove_tree(dir.root) end)

local function config(events, more)
  dir:write("worker.yaml", ("servers: [ { protocol: local, dir: jobs, slots: 2 } ]\nstate: state\nevents:\n%s%s"):format(
    events, more or ""))
end

local function job(name, script)
  dir:write("jobs/inbox/" .. name .. ".sh", script or "true")
end

local function start(...)
  return program.start { "--config", "worker.yaml", cwd = dir.root, ... }
end

local function done(name)
  return program.eventually(function() return dir:read("jobs/done/" .. name .. "/result.json") end)
end

-- The events of a file of lines, as "name" or "name job".
local function told(name)
  local list = {}
  for line in (dir:read(name) or ""):gmatch("([^\n]+)\n") do
    local event = json.decode(line)
    list[#list + 1] = event.name .. (event.job and " " .. event.job.id or "")
  end
  return list
end

local function count(text, pattern)
  return select(2, text:gsub(pattern, ""))
end

describe("event sinks of a worker #realtime", function()
  it("hear of its life and of every job's", function()
    config "  - file: { path: all.jsonl }\n  - file: { path: ends.jsonl, only: [ job.finished ] }\n"
    job("one", "exit 3")
    local run <close> = start()
    done "one"
    run:signal "TERM"
    assert.equal(0, run:wait().code)
    assert.same({ "worker.started", "executor.ready", "server.opened", "job.claimed one", "job.started one", "job.finished one",
      "job.reported one", "worker.stopping", "server.draining", "server.closed", "worker.stopped" }, told "all.jsonl")
    assert.same({ "job.finished one" }, told "ends.jsonl")
    local result = json.decode(dir:read("ends.jsonl")).result
    assert.same({ "failed", 3, "shell" }, { result.state, result.exit_code, result.executor })
  end)

  it("hear which executor ran a job, and that it shields this machine less than the one asked for", function()
    dir:write("worker.yaml", "servers:\n  - protocol: local\n    dir: jobs\n    executor:\n"
      .. "      - docker: { host: \"unix:///nobody/here.sock\", image: any }\n      - shell\n"
      .. "events: [ { file: { path: all.jsonl, only: [ executor.failing, job.fallback, job.finished ] } } ]\n")
    job "one"
    local run <close> = start("--once", "--state", "state")
    assert.equal(0, run:wait().code)
    assert.same({ "executor.failing", "job.fallback one", "job.finished one" }, told "all.jsonl")
    local events = {}
    for line in dir:read("all.jsonl"):gmatch "[^\n]+" do events[#events + 1] = json.decode(line) end
    assert.equal("docker", events[1].executor)
    assert.same({ "docker", "shell", true }, { events[2].asked, events[2].used, events[2].weaker })
    assert.matches("nobody/here", events[2].reason)
    assert.same({ "shell", "docker", true }, { events[3].result.executor, events[3].result.fallback.asked,
      events[3].result.fallback.weaker })
  end)

  it("hear once of a server that goes away, and once that it is back", function()
    local fake <close> = orchestrator.serve { jobs = {} }
    dir:write("worker.yaml", ("servers:\n  - { protocol: queue, executor: shell, url: %q, websocket: \"off\", poll: 20ms }\n"
      .. "health: { address: \"off\" }\nevents: [ { file: { path: all.jsonl, only: [ server.failing, server.back ] } } ]\n")
      :format(fake.url))
    local run <close> = start("--state", "state")
    run:says "worker_started"
    fake:stop()
    program.eventually(function() return #told "all.jsonl" == 1 end)
    fake:start()
    program.eventually(function() return #told "all.jsonl" == 2 end)
    assert.same({ "server.failing", "server.back" }, told "all.jsonl")
    run:signal "TERM"
    run:wait()
  end)

  it("get over a Redis that is killed and comes back, and say so once each; no job waits for it", function()
    local server <close> = redis.start()
    config(("  - redis: { url: %q, only: [ job.finished ] }\n"):format(server.url))
    local ear = server:listen "worker:job.finished"
    local function heard() return json.decode((select(2, ear:message(60)))).job.id end
    local run <close> = start()
    job "a"
    assert.equal("a", heard())
    ear:close()
    server:kill()
    for _, name in ipairs { "b", "c", "d" } do
      job(name)
      done(name)
    end
    run:says "event=sink%.failing"
    server:start()
    ear = server:listen "worker:job.finished"
    run:signal "HUP" -- try now, not when the next attempt is due
    assert.same({ b = true, c = true, d = true }, { [heard()] = true, [heard()] = true, [heard()] = true })
    run:says "event=sink%.back"
    job "e"
    assert.equal("e", heard())
    ear:close()
    run:signal "TERM"
    local said = run:wait()
    assert.equal(0, said.code)
    assert.equal(1, count(said.stderr, "event=sink%.failing"))
    assert.equal(1, count(said.stderr, "event=sink%.back"))
    assert.equal(0, count(said.stderr, "event=sink%.drop"))
  end)

  it("are there for the queue by its own variable: REDIS_URL", function()
    local server <close> = redis.start()
    local ear <close> = server:listen("evaluation:running", "evaluation:completed", "evaluation:failed")
    local fake <close> = orchestrator.serve { jobs = {} }
    dir:write("worker.yaml", "servers:\n  - protocol: queue\n    executor: shell\n    languages:\n"
      .. "      python: { command: [ /bin/sh, -c, \"{code}\" ] }\nhealth: { address: \"off\" }\n")
    local run <close> = program.start { "--config", "worker.yaml", "--state", "state", cwd = dir.root,
      env = { QUEUE_SERVICE_URL = fake.url, REDIS_URL = server.url } }
    local function heard()
      local channel, message = ear:message(60)
      return channel, json.decode(message)
    end
    for code, channel in pairs { ["echo 42"] = "evaluation:completed", ["echo no >&2; exit 3"] = "evaluation:failed" } do
      fake:add { eval_id = code, code = code, timeout = 30 }
      local first, running = heard()
      assert.same({ "evaluation:running", code, 30 }, { first, running.eval_id, running.timeout })
      local last, ended = heard()
      assert.same({ channel, code }, { last, ended.eval_id })
      assert.equal(channel == "evaluation:completed" and "42\n" or "no\n", ended.output)
      assert.is_string(ended.error)
    end
    -- Redis dies in the middle of a task, and is back when the task has long been reported.
    local ready = dir:path "ready"
    fake:add { eval_id = "through", code = ("touch %s; while [ -e %s ]; do sleep 0.01; done; echo 43"):format(ready, ready) }
    assert.equal("evaluation:running", heard())
    program.eventually(function() return fs.exists(ready) end)
    ear:close()
    server:kill()
    fs.remove(ready)
    program.eventually(function() return #fake.reports == 3 end)
    run:says '"event":"sink.failing"'
    server:start()
    local again <close> = server:listen "evaluation:completed"
    run:signal "HUP"
    assert.equal("43\n", json.decode((select(2, again:message(60)))).output)
    run:signal "TERM"
    local said = run:wait()
    assert.equal(0, said.code)
    for _, event in ipairs { "failing", "back" } do assert.equal(1, count(said.stderr, '"event":"sink%.' .. event)) end
  end)

  it("that never answer delay neither jobs nor the end; what they missed is counted", function()
    local silent <close> = sock.listen { address = "127.0.0.1:0" }
    config(("  - webhook: { url: \"http://%s/\", queue: 5, only: [ job.finished ] }\n  - file: { path: all.jsonl }\n"):format(
      silent:address()), ("health: { address: %q }\n"):format(dir:path "health.sock"))
    for i = 1, 20 do job("j" .. i) end
    local run <close> = start()
    for i = 1, 20 do done("j" .. i) end
    local api <close> = http.client { unix = dir:path "health.sock" }
    local status = program.eventually(function()
      local seen = api:get("/status.json").json
      return seen.events[1].dropped + seen.events[1].waiting == 20 and seen
    end)
    assert.equal("webhook", status.events[1].name)
    assert.is_true(status.events[1].waiting <= 6)
    local metrics = api:get("/metrics").body
    assert.matches('worker_events_total{result="dropped",sink="webhook"} 1%d\n', metrics)
    assert.matches('worker_events_total{result="delivered",sink="file"} %d+\n', metrics)
    assert.matches('worker_events_waiting{sink="webhook"} %d\n', metrics)
    run:signal "TERM"
    local said = run:wait()
    assert.equal(0, said.code)
    assert.equal(1, count(said.stderr, "event=sink%.dropping"))
    assert.matches("event=sink%.dropped .-20 events were dropped", said.stderr)
    assert.equal(20, count(table.concat(told "all.jsonl", "\n"), "job%.finished"))
  end)

  it("follow the configuration when it is read again, and files that were moved", function()
    config "  - file: { path: one.jsonl, only: [ job.finished ] }\n"
    local run <close> = start()
    job "a"
    program.eventually(function() return #told "one.jsonl" == 1 end)
    fs.rename(dir:path "one.jsonl", dir:path "one.jsonl.old")
    config("  - file: { path: one.jsonl, only: [ job.finished ] }\n  - file: { path: two.jsonl, only: [ job.finished ] }\n")
    run:signal "HUP"
    run:says "event=worker%.reloaded"
    job "b"
    program.eventually(function() return #told "one.jsonl" == 1 and #told "two.jsonl" == 1 end)
    config "  - file: { path: two.jsonl, only: [ job.finished, worker.stopped ] }\n"
    run:signal "HUP"
    program.eventually(function() return count(table.concat(run.stderr), "event=worker%.reloaded") == 2 end)
    job "c"
    done "c"
    run:signal "TERM"
    assert.equal(0, run:wait().code)
    assert.same({ "job.finished a" }, told "one.jsonl.old")
    assert.same({ "job.finished b" }, told "one.jsonl")
    assert.same({ "job.finished b", "job.finished c", "worker.stopped" }, told "two.jsonl")
  end)

  it("that cannot work are a warning, and a mistake in their settings is exit code 78", function()
    config "  - file: { path: /proc/nothing/events }\n"
    job "a"
    local run <close> = start("--once")
    local said = run:wait()
    assert.equal(0, said.code)
    assert.equal(1, count(said.stderr, "event=sink%.failing"))
    config "  - redis: { url: \"http://:geheim@h\" }\n"
    local wrong = program.run { "check", "--config", "worker.yaml", cwd = dir.root }
    assert.equal(78, wrong.code)
    assert.matches("\nworker%.yaml:4:19: events%[1%]%.redis%.url: ", wrong.stderr)
    assert.is_nil(wrong.stderr:find("geheim", 1, true))
  end)
end)
