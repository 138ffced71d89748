-- What a worker costs a task in a container: the same container by hand through the engine's API, and
-- through the worker from the pull to the report, in turn, many times; and the same with an engine that
-- answers at once, played by this process: what the worker adds, without the engine's own spread.
local docker = require "spec.support.docker"
local engine = require "worker.engine"
local engines = require "spec.support.engine"
local fs = require "worker.fs"
local json = require "worker.json"
local program = require "spec.support.program"
local queue = require "spec.support.queue"
local scratch = require "spec.support.scratch"
local sys = require "worker.core.sys"
local task = require "worker.task"

local IMAGE = "busybox:bench"
local PAIRS = tonumber(sys.env "PAIRS" or "") or 25
local WARM = 3

local WORKER = [[
servers:
  - protocol: queue
    url: %s
    languages: { python: { command: [ echo, hi ] } }
    executor: { docker: { host: "%s", image: "%s", pull: never } }
health: { address: off }
]]

-- As the executor orders it.
local function order(file)
  return { Image = IMAGE, User = "65534:65534", Entrypoint = { "echo", "hi" }, Env = { "HOME=/tmp" }, AttachStdout = true,
    AttachStderr = true, StopSignal = "SIGTERM", HostConfig = {
      NetworkMode = "none", ReadonlyRootfs = true, CapDrop = { "ALL" }, SecurityOpt = { "no-new-privileges" },
      Memory = 512 << 20, MemorySwap = 512 << 20, PidsLimit = 256, OomScoreAdj = 500,
      Tmpfs = { ["/tmp"] = "size=67108864,mode=1777,uid=65534,gid=65534" },
      Ulimits = { { Name = "core", Soft = 0, Hard = 0 }, { Name = "nofile", Soft = 1024, Hard = 1024 } },
      Mounts = { { Type = "bind", Source = file, Target = "/code", ReadOnly = true } },
      LogConfig = { Type = "none", Config = json.object {} } } }
end

local function by_hand(client, file)
  local began, said = sys.mono(), ""
  do
    local box <close> = client:container()
    box:create(order(file))
    local output <close> = box:attach()
    box:start()
    for _, text in output:pieces() do said = said .. text end
    assert.equal(0, box:wait())
  end
  assert.equal("hi\n", said)
  return sys.mono() - began
end

-- From the pull to the report; whoever waits for it does not look every few milliseconds, which the engine
-- would feel.
local function through(fake)
  local told = task.signal()
  fake:bend("complete", function(_, reply, go)
    reply:send(go())
    told:fire()
  end)
  local id = fake:add "x"
  told:wait()
  local report = fake:report(id)
  assert.equal("hi\n", report.body.output.output)
  for i = #fake.seen, 1, -1 do
    if fake.seen[i].way == "next" and fake.seen[i].at < report.at then return report.at - fake.seen[i].at end
  end
end

-- Where the median of what these were drawn from lies, with 95 of 100: as many of them are above it as
-- below, whatever their distribution, and how unevenly that can come out is binomial.
local function interval(list)
  table.sort(list)
  local aside = math.floor((#list - 1.96 * math.sqrt(#list)) / 2)
  return list[math.max(1, aside)] * 1000, list[math.min(#list, #list + 1 - aside)] * 1000
end

local function load_now() return (fs.read("/proc/loadavg", 100) or "?"):match "^%S+" end

-- The value below which this part of a list lies, in milliseconds.
local function at(part, list)
  table.sort(list)
  return list[math.max(1, math.floor(#list * part + 0.5))] * 1000
end

describe("a task in a container #realtime", function()
  it("by hand and through the worker", function()
    local daemon <close>, missing = docker.start()
    local why = docker.excuse(daemon, missing)
    if why then return pending(why) end
    daemon:image(IMAGE)
    local dir <close> = scratch.dir()
    local file = dir:write("code", "x")
    local fake = queue.fake { websocket = true }
    dir:write("worker.yaml", WORKER:format(fake.url, daemon.host, IMAGE))
    local run <close> = program.start { "--config", dir:path "worker.yaml", "--state", dir:path "state", program.plugins }
    run:says "queue_websocket_connected"
    local client <close> = engine.open { host = daemon.host }
    local hand, worker, more, load = {}, {}, {}, load_now()
    for i = 1 - WARM, PAIRS do
      -- who goes first changes: what a container leaves for the engine to do hits both alike
      local first = i % 2 == 0 and by_hand(client, file)
      local second = through(fake)
      first = first or by_hand(client, file)
      if i > 0 then hand[i], worker[i], more[i] = first, second, second - first end
    end
    io.stdout:write(("a task in a container, %3d pairs     by hand    worker    difference of a pair\n"):format(PAIRS))
    local function line(name, ...) io.stdout:write(("  %-34s %6.0f ms %6.0f ms %9.1f ms\n"):format(name, ...)) end
    line("median", at(0.5, hand), at(0.5, worker), at(0.5, more))
    local low, high = interval(more)
    -- both as they are when nothing else has the processor
    line("quietest tenth", at(0.1, hand), at(0.1, worker), at(0.1, worker) - at(0.1, hand))
    io.stdout:write(("  the median difference lies between %.1f and %.1f ms (95 of 100); load %s before, %s after\n")
      :format(low, high, load, load_now()))
    run:signal "TERM"
    run:wait()
  end)

  it("with an engine that answers at once", function()
    local played = engines.fake { output = function(conn) conn:write(engines.frame(1, "hi\n")) end }
    local dir <close> = scratch.dir()
    local fake = queue.fake { websocket = true }
    dir:write("worker.yaml", WORKER:format(fake.url, played.host, "there"))
    local run <close> = program.start { "--config", dir:path "worker.yaml", "--state", dir:path "state", program.plugins }
    run:says "queue_websocket_connected"
    local client <close> = engine.open { host = played.host }
    local worker, more = {}, {}
    for i = 1 - WARM, 4 * PAIRS do
      local hand, seconds = by_hand(client, "/x"), through(fake)
      if i > 0 then worker[i], more[i] = seconds, seconds - hand end
    end
    io.stdout:write(("  without the engine: median %.1f ms, quietest tenth %.1f ms\n")
      :format(at(0.5, worker), at(0.1, worker)))
    io.stdout:write(("  of that added by the worker: median %.1f ms, between %.1f and %.1f ms (95 of 100)\n")
      :format(at(0.5, more), interval(more)))
    run:signal "TERM"
    run:wait()
  end)
end)
