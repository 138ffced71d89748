-- baaaht's tasks in real containers: the binary, a real dockerd, images of busybox under the names that tools
-- have.
local baaaht = require "spec.support.baaaht"
local docker = require "spec.support.docker"
local program = require "spec.support.program"
local scratch = require "spec.support.scratch"
local servers = require "spec.support.server"
local text = require "worker.text"

local said = baaaht.said

-- curl, as far as tools use it, made of what busybox has.
local CURL = [[#!/bin/sh
for word in "$@"; do
  case $last in --url) url=$word ;; esac
  last=$word
done
exec wget -q -O - "$url"
]]

describe("baaaht in containers #realtime", function()
  local daemon, missing, dir, fake, run

  setup(function()
    daemon, missing = docker.start()
    if not daemon then return end
    daemon:image "alpine:3.19"
    daemon:image("curlimages/curl:8.6.0", { ["bin/curl"] = CURL })
  end)

  teardown(function()
    if daemon then daemon:stop() end
  end)

  local function need()
    local why = docker.excuse(daemon, missing)
    if why then pending(why) end
    return not why
  end

  before_each(function()
    dir, fake, run = scratch.dir(), nil, nil
  end)

  after_each(function()
    if run then getmetatable(run).__close(run) end
    if daemon then assert.same({}, daemon:containers()) end
    getmetatable(dir).__close(dir)
  end)

  -- The worker as its people start it, with the file that they have.
  local function work(jobs, words)
    fake = baaaht.fake { jobs = jobs }
    dir:write("work/a.txt", "one\nTODO two\n")
    dir:write(".config/baaaht/config.yaml", ([[
orchestrator_addr: %s
heartbeat_interval: 500ms
tools:
  workspaces: { "*": %s }
  network: host
]]):format(fake.url, dir:path "work"))
    local all = { "--protocol", "baaaht", "--state", dir:path "state", "--log-output", "stderr",
      env = { HOME = dir.root, DOCKER_HOST = daemon.host } }
    table.move(words or {}, 1, #(words or {}), #all + 1, all)
    all[#all + 1] = program.plugins
    run = program.start(all)
  end

  local function ended(number)
    return program.eventually(function()
      local row = fake.list[number]
      return row.told.ends > 0 and row
    end)
  end

  local function output_of(number)
    local row = ended(number)
    return said(row) .. ": " .. table.concat(row.told.stdout)
  end

  local function running(n)
    program.eventually(function() return #daemon:containers "running" == n end)
  end

  it("runs the eight tools, by whatever name they are asked for", function()
    if not need() then return end
    local web <close> = servers.http { ["GET /page"] = servers.text(200, "hello\n") }
    local url = { url = web.url .. "/page" }
    local function file(command, parameters) return { type = "file_operation", command = command, parameters = parameters } end
    work({
      file("read", { path = "a.txt" }), file("write", { path = "b/c.txt", content = "new $(id)" }),
      file("grep", { pattern = "TODO", path = "/workspace" }), file("search", { pattern = "nothing" }),
      file("ls", { path = "." }), file("find", { name = "*.txt", type = "f", path = "a.txt" }),
      { type = "tool_execution", command = "file_read", arguments = { "a.txt" } },
      { type = "network_request", command = "fetch", parameters = url },
      { type = "network_request", command = "web_search", parameters = url },
      { type = "tool_execution", parameters = { operation = "cat", file = "a.txt" } },
      { type = "custom", command = 'echo "$0 $1"; pwd', arguments = { "x" }, working_directory = "/workspace" },
    }, { "--slots", "3" })
    assert.equal("COMPLETED: one\nTODO two\n", output_of(1))
    assert.equal("COMPLETED: ", output_of(2))
    assert.equal("new $(id)", dir:read "work/b/c.txt")
    assert.equal("COMPLETED: /workspace/a.txt:2:TODO two\n", output_of(3))
    assert.equal("COMPLETED: ", output_of(4))
    assert.matches("^COMPLETED: .* a%.txt\n", output_of(5))
    assert.equal("COMPLETED: /workspace/a.txt\n", output_of(6))
    assert.equal("COMPLETED: one\nTODO two\n", output_of(7))
    assert.equal("COMPLETED: hello\n", output_of(8))
    assert.equal("COMPLETED: hello\n", output_of(9))
    assert.equal("COMPLETED: one\nTODO two\n", output_of(10))
    assert.equal("COMPLETED: sh x\n/workspace\n", output_of(11))
    fake:add { type = "file_operation", command = "edit", parameters = { path = "a.txt", search = "TODO", replace = "done" } }
    assert.equal("COMPLETED: ", output_of(12))
    assert.equal("one\ndone two\n", dir:read "work/a.txt")
    fake:add(file("read", { path = "none.txt" }))
    local row = ended(13)
    assert.equal("FAILED", said(row))
    assert.matches("none.txt", row.told.complete.result.error_text)
  end)

  it("runs as many at once as it has places for, each in a container of its own", function()
    if not need() then return end
    work { { command = "sleep 4" }, { command = "sleep 4" }, { command = "sleep 4" } }
    running(3)
    for i = 1, 3 do assert.equal("COMPLETED: ", output_of(i)) end
  end)

  it("4 MB of output, byte for byte", function()
    if not need() then return end
    work { { command = "dd if=/dev/urandom bs=65536 count=64 2>/dev/null | tee /workspace/out" } }
    local row = ended(1)
    local got = table.concat(row.told.stdout)
    assert.equal(4 << 20, #got)
    assert.equal(text.sha256(dir:read "work/out"), text.sha256(got))
  end)

  it("ends a task that is cancelled, and one that takes too long: no container is left", function()
    if not need() then return end
    work { { command = "sleep 600" }, { command = "sleep 600", timeout = "1s" } }
    assert.equal("TIMEOUT TIMEOUT", said(ended(2)))
    running(1)
    fake:cancel(fake.list[1])
    assert.equal("CANCELLED CANCELLED", said(ended(1)))
    running(0)
  end)

  it("what a policy does not allow: PERMISSION with the rules, and no container", function()
    if not need() then return end
    fake = baaaht.fake { jobs = { { type = "file_operation", command = "read", parameters = { path = "a.txt" } } } }
    dir:write("work/a.txt", "x")
    dir:write("policy.yaml", "mode: strict\nmounts: { allow_bind_mounts: false }\n")
    dir:write("worker.yaml", ([[
servers:
  - protocol: baaaht
    orchestrator_addr: %s
    tools: { workspaces: { "*": %s } }
    executor: docker
policies:
  run: [ timeout, workspace, env, { enforce: { file: %s } } ]
]]):format(fake.url, dir:path "work", dir:path "policy.yaml"))
    run = program.start { "--config", dir:path "worker.yaml", "--state", dir:path "state", program.plugins,
      env = { HOME = dir.root, DOCKER_HOST = daemon.host } }
    local row = ended(1)
    assert.equal("FAILED PERMISSION", said(row))
    assert.matches("mount%.bind%.disabled", table.concat(row.told.error.details, " "))
  end)

  it("tells that the engine is away, and goes on when it is back", function()
    if not need() then return end
    local shared <const> = daemon
    daemon = assert(docker.start())
    daemon:image "alpine:3.19"
    local _ <close> = setmetatable({}, { __close = function()
      run:signal "TERM"
      run:wait()
      daemon:stop()
      daemon = shared
    end })
    work { { command = "echo before" } }
    assert.equal("COMPLETED: before\n", output_of(1))
    daemon:kill()
    fake:add { command = "echo meanwhile" }
    assert.equal("FAILED UNAVAILABLE", said(ended(2)))
    local beats = #baaaht.asked(fake, "Heartbeat")
    program.eventually(function() return #baaaht.asked(fake, "Heartbeat") > beats + 2 end)
    daemon:restart()
    run:says "works again"
    fake:add { command = "echo after" }
    assert.equal("COMPLETED: after\n", output_of(3))
  end)

  it("leaves nothing when it is asked to stop with a task that runs", function()
    if not need() then return end
    work({ { command = "sleep 600" } }, { "--shutdown-timeout", "500ms" })
    running(1)
    run:signal "TERM"
    assert.equal(80, run:wait().code)
    assert.equal("CANCELLED CANCELLED", said(fake.list[1]))
    assert.same({}, daemon:containers())
  end)
end)
