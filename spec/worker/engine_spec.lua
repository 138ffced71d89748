-- The client of the Docker Engine API against an engine that does what the spec says.
local engine = require "worker.engine"
local engines = require "spec.support.engine"
local err = require "worker.error"
local json = require "worker.json"
local schema = require "worker.schema"
local server = require "spec.support.server"
local splitter = require "worker.engine.stream".splitter
local spec = require "worker.spec"
local task = require "worker.task"
local text = require "worker.text"

local frame = engines.frame

spec.after_each(engine.forget)

local CREATE = "POST /{v}/containers/create"
local REMOVE = "DELETE /{v}/containers/{id}"

local function conf_of(fake, more)
  local given = { host = fake.host, image = "there", pull = "never" }
  for name, value in pairs(more or {}) do given[name] = value end
  local conf, problems = schema.check({ kind = "executor", config = engine.fields {
    runtime = { "string", doc = "As docker has it." } } }, given)
  return assert(conf, problems and tostring(problems[1]))
end

-- Runs a job; its result, or nil and the error; what it wrote.
local function run(fake, job, more, ctx)
  local output = {}
  ctx = ctx or {}
  ctx.limits, ctx.grace = ctx.limits or {}, 3
  ctx.log = function(stream, data) output[stream] = (output[stream] or "") .. data end
  ctx.note = function(line) output.notes = (output.notes or "") .. line .. "\n" end
  job.id = "7"
  if not job.argv and not job.script then job.argv = { "true" } end
  local ok, result = task.try(engine.run, conf_of(fake, more), job, ctx)
  if ok then return result, output end
  return nil, result, output
end

local function created(fake)
  for _, request in ipairs(fake.daemon.requests) do
    if request.route == CREATE then return request.json end
  end
end

describe("worker.engine frames", function()
  local wire = frame(1, "one") .. frame(2, "") .. frame(2, "two\0\255") .. frame(1, ("x"):rep(300)) .. frame(0, "in")

  it("come out the same wherever the reads cut them", function()
    for size = 1, 40 do
      local frames, out = splitter(), {}
      for at = 1, #wire, size do
        for _, piece in ipairs(frames.feed(wire:sub(at, at + size - 1))) do
          out[piece[1]] = (out[piece[1]] or "") .. piece[2]
        end
      end
      assert.same({ stdout = "one" .. ("x"):rep(300) .. "in", stderr = "two\0\255" }, out)
      assert.is_false(frames.broken())
    end
  end)

  it("are put together as long as the stream is the same, and keep the order of the streams", function()
    local pieces = splitter().feed(frame(1, "a") .. frame(1, "b") .. frame(2, "c") .. frame(1, "d"))
    assert.same({ { "stdout", "ab" }, { "stderr", "c" }, { "stdout", "d" } }, pieces)
  end)

  it("of no known stream are refused", function()
    local ok, why = pcall(splitter().feed, "HTTP/1.1 500")
    assert.is_false(ok)
    assert.equal("wire", why.kind)
  end)
end)

describe("worker.engine", function()
  it("agrees on the older of the two versions", function()
    for version, path in pairs { ["1.30"] = "/v1.30/info", ["1.41"] = "/v1.41/info", ["1.99"] = "/v1.47/info" } do
      local fake = engines.fake { version = version }
      local docker <close> = engine.open { host = fake.host }
      docker:info()
      assert.equal(path, fake.daemon:last().path)
      fake.daemon:close()
    end
  end)

  it("refuses an engine that is too old, and says so", function()
    local fake = engines.fake { version = "1.12" }
    local docker <close> = engine.open { host = fake.host }
    local ok, why = task.try(docker.ready, docker)
    assert.is_false(ok)
    assert.equal("unusable", why.kind)
    assert.matches("version 1.12 of the API; 1.25 is the oldest", why.message, 1, true)
  end)

  it("refuses an address that is none", function()
    for _, host in ipairs { "ssh://me@there", "fd://", "docker.sock" } do
      local ok, why = pcall(engine.open, { host = host })
      assert.is_false(ok)
      assert.equal("config", why.kind)
    end
  end)

  it("runs a job: both streams, exit code, and the container is gone", function()
    local wire = frame(1, "out\n") .. frame(2, "err\n")
    local fake = engines.fake { output = { wire:sub(1, 5), wire:sub(6) }, exit = 3 }
    local result, output = run(fake, { script = "exit 3" })
    assert.equal("failed", result.state)
    assert.equal(3, result.exit_code)
    assert.equal("exit code 3", result.reason)
    assert.same({ stdout = "out\n", stderr = "err\n" }, output)
    assert.equal(2.5, math.floor(result.usage.wall * 100 + 0.5) / 100)
    assert.equal(1, fake.daemon:count(REMOVE))
    assert.matches("force=1", fake.daemon:last().target)
  end)

  it("attaches before it starts, so that no byte can be missed", function()
    local fake, order = engines.fake(), {}
    run(fake, {})
    for _, request in ipairs(fake.daemon.requests) do order[#order + 1] = request.path:match("/(%a+)$") end
    assert.matches("create attach start wait json", table.concat(order, " "), 1, true)
  end)

  it("takes the bytes of a terminal as they are", function()
    local fake = engines.fake { output = { "\1\0\0\0\0\0\0\3ab", "c\r\n" } }
    local _, output = run(fake, { container = { tty = true } })
    assert.equal("\1\0\0\0\0\0\0\3abc\r\n", output.stdout)
  end)

  it("hands stdin over and ends it", function()
    local heard
    local fake = engines.fake { output = function(conn)
      heard = conn:read_exactly(5) .. tostring(conn:read())
      conn:write(frame(1, "thanks"))
    end }
    local _, output = run(fake, { stdin = "hello" })
    assert.equal("hellonil", heard)
    assert.equal("thanks", output.stdout)
  end)

  it("keeps the result of a job that does not read its stdin", function()
    local fake = engines.fake { output = frame(1, "no thanks"), exit = 4 }
    local result, output = run(fake, { stdin = ("x"):rep(1 << 20) })
    assert.equal("failed", result.state)
    assert.equal("no thanks", output.stdout)
  end)

  it("gives a job nothing that nobody switched on", function()
    local fake = engines.fake()
    run(fake, { script = "id" })
    local order = created(fake)
    local host = order.HostConfig
    assert.equal("none", host.NetworkMode)
    assert.is_true(host.ReadonlyRootfs)
    assert.same({ "ALL" }, host.CapDrop)
    assert.equal(0, #host.CapAdd)
    assert.same({ "no-new-privileges" }, host.SecurityOpt)
    assert.equal(512 << 20, host.Memory)
    assert.equal(512 << 20, host.MemorySwap)
    assert.equal(256, host.PidsLimit)
    assert.same({ ["/tmp"] = "size=67108864,mode=1777,uid=65534,gid=65534" }, host.Tmpfs)
    assert.equal("65534:65534", order.User)
    assert.same({ "/bin/sh", "-c", "id" }, order.Entrypoint)
    assert.equal(0, #host.Mounts)
    assert.is_nil(host.Privileged)
    assert.same({ "HOME=/tmp" }, order.Env)
  end)

  it("leaves an image's own user, unless that is root", function()
    for own, used in pairs { app = "app", ["1000:1000"] = "1000:1000", root = "65534:65534", ["0:0"] = "65534:65534" } do
      local fake = engines.fake { image = { Id = "x", Config = { User = own } } }
      run(fake, {})
      assert.equal(used, created(fake).User)
      fake.daemon:close()
    end
  end)

  it("lets a job ask for less, and for more only where that is allowed", function()
    local fake = engines.fake()
    for _, asked in ipairs { { network = "host" }, { user = "root" }, { read_only = false }, { capabilities = { "SYS_ADMIN" } },
      { no_new_privileges = false }, { runtime = "kata" }, { ulimits = { nofile = 1 << 20 } } } do
      local _, why = run(fake, { container = asked })
      assert.equal("engine", why.kind)
      assert.matches(("add '%s' to the executor's `allow`"):format(next(asked)), why.message, 1, true)
    end
    local _, why = run(fake, { container = { privileged = true } })
    assert.matches("no field 'privileged'", why.message, 1, true)
    assert.equal(0, fake.daemon:count(CREATE))
    assert.equal("success", run(fake, { container = { network = "none" } }, { network = "bridge" }).state)
    assert.equal("none", created(fake).HostConfig.NetworkMode)
    assert.equal("success", run(fake, { container = { network = "bridge" } }, { allow = { "network" } }).state)
  end)

  it("gives more without a word of the executor only to what the configuration itself asks for", function()
    local grant = require("worker.engine.order").grant
    local fake = engines.fake()
    local function asked()
      return { network = "bridge", user = "1:2", mounts = { { source = "/tmp", target = "/t", write = true } } }
    end
    assert.matches("allow", select(2, run(fake, { container = asked() })).message)
    assert.equal("success", run(fake, { container = grant(asked()) }).state)
    local order = created(fake)
    assert.same({ "bridge", "1:2" }, { order.HostConfig.NetworkMode, order.User })
    assert.same({ { Type = "bind", Source = "/tmp", Target = "/t", ReadOnly = false } }, order.HostConfig.Mounts)
    local copied = json.decode(json.encode(grant(asked())))
    assert.matches("allow", select(2, run(fake, { container = copied })).message)
  end)

  it("hands no directory of this machine to an engine of another one", function()
    local grant = require("worker.engine.order").grant
    local fake = engines.fake { address = "127.0.0.1:0" }
    local _, why = run(fake, { container = grant { mounts = { { source = "/usr", target = "/workspace" } } } })
    assert.matches("is on another machine: /usr cannot be handed to it", why.message, 1, true)
    assert.equal(0, fake.daemon:count(CREATE))
  end)

  it("mounts what a job wants to see in the place of its own directory", function()
    local grant = require("worker.engine.order").grant
    local fake = engines.fake()
    run(fake, { container = grant { mounts = { { source = "/usr", target = "/workspace/" } } } }, { workspace = "/workspace" },
      { workdir = "/tmp" })
    assert.same({ { Type = "bind", Source = "/usr", Target = "/workspace/", ReadOnly = true } },
      created(fake).HostConfig.Mounts)
  end)

  it("mounts for a job only what really lies in one of the roots", function()
    local scratch = require "spec.support.scratch"
    local dir <close> = scratch.dir()
    local fs = require "worker.fs"
    dir:write("in/file", "x")
    fs.symlink("/etc", dir:path("in", "link"))
    local fake = engines.fake()
    for _, source in ipairs { "/etc/passwd", dir:path("in", "link"), dir:path("in", "..", "..") } do
      local _, why = run(fake, { container = { mounts = { { source = source, target = "/m" } } } },
        { mount_roots = { dir:path "in" } })
      assert.matches("in none of the executor's `mount_roots`", why.message, 1, true)
    end
    local _, why = run(fake, { container = { mounts = { { source = dir:path("in", "no"), target = "/m" } } } },
      { mount_roots = { dir:path "in" } })
    assert.equal("engine", why.kind)
    run(fake, { container = { mounts = { { source = dir:path("in", "file"), target = "/m" } } } },
      { mount_roots = { dir:path "in" } })
    assert.same({ { Type = "bind", Source = fs.realpath(dir:path("in", "file")), Target = "/m", ReadOnly = true } },
      created(fake).HostConfig.Mounts)
  end)

  it("takes the smaller of the executor's and the job's limits", function()
    local fake = engines.fake()
    run(fake, {}, { cpus = 2 }, { limits = { memory = 1 << 20, pids = 1000, cpus = 0.5, open_files = 64 } })
    local host = created(fake).HostConfig
    assert.same({ 1 << 20, 256, 500000000 }, { host.Memory, host.PidsLimit, host.NanoCpus })
    assert.same({ { Name = "nofile", Soft = 64, Hard = 64 } }, host.Ulimits)
  end)

  it("keeps the worker's own paths out of the environment", function()
    local fake = engines.fake { image = { Id = "x", Config = { Env = { "PATH=/opt", "HOME=/root" } } } }
    run(fake, { env = { A = "1" } }, { env = { B = "2" } },
      { env = { PATH = "/x", HOME = "/host", TMPDIR = "/host", WORKER_JOB_ID = "7" } })
    assert.same({ "A=1", "B=2", "WORKER_JOB_ID=7" }, created(fake).Env)
  end)

  it("names a container's end: oom, signals, what the engine could not run", function()
    local fake = engines.fake { exit = 137, state = { OOMKilled = true } }
    assert.equal("oom", run(fake, {}).state)
    fake = engines.fake { exit = 0, state = { OOMKilled = true } }
    assert.equal("success", run(fake, {}).state)
    fake = engines.fake { exit = 139 }
    local result = run(fake, {})
    assert.same({ "failed", "SIGSEGV", "exit code 139 (SIGSEGV)" }, { result.state, result.signal, result.reason })
    fake = engines.fake { exit = 128, state = { Error = "cannot mount /proc" } }
    result = run(fake, {})
    assert.same({ "error", "the engine could not run it: cannot mount /proc" }, { result.state, result.reason })
  end)

  it("tells a program that is not there from an engine that fails", function()
    local message = 'OCI runtime create failed: exec: "nope": executable file not found in $PATH: unknown'
    local fake = engines.fake { routes = { ["POST /{v}/containers/{id}/start"] = server.json(400, { message = message }) } }
    local _, why = run(fake, {})
    assert.same({ "spawn", 2 }, { why.kind, why.code })
    assert.equal(1, fake.daemon:count(REMOVE))
    fake = engines.fake { routes = {
      ["POST /{v}/containers/{id}/start"] = server.json(500, { message = "no space left on device" }) } }
    _, why = run(fake, {})
    assert.same({ "engine", 500, "no space left on device" }, { why.kind, why.status, why.message })
  end)

  it("is unusable while nothing answers, and leaves the job to others", function()
    local fake = engines.fake()
    local conf_host = fake.host
    fake.daemon:close()
    local _, why = run({ host = conf_host }, {})
    assert.equal("unusable", why.kind)
    assert.matches("does not answer", why.message)
  end)

  it("is no job for others when it may have begun: the answer to its start was lost", function()
    local fake = engines.fake { routes = { ["POST /{v}/containers/{id}/start"] = server.reset "after" } }
    local _, why = run(fake, {})
    assert.same({ "engine", true }, { why.kind, why.away })
  end)

  it("breaks off with an error of its own, not the job's, when the engine goes away while a job runs", function()
    local fake
    fake = engines.fake {
      output = function(conn)
        conn:write(frame(1, "so far") .. "\1\0")
        task.sleep(1)
        task.start(fake.daemon.close, fake.daemon)
      end,
    }
    local result, why, output = run(fake, {})
    assert.is_nil(result)
    assert.equal("engine", why.kind)
    assert.is_true(why.away)
    assert.equal("so far", output.stdout)
  end)

  it("removes a container that it could not remove, once the engine is back", function()
    local back = false
    local fake = engines.fake { routes = { [REMOVE] = function(_, reply)
      if back then return reply:empty(204) end
      reply:json(500, { message = "device or resource busy" })
    end } }
    assert.equal("success", run(fake, {}).state)
    back = true
    local unix = fake.unix
    fake.daemon:close()
    local conf = conf_of(fake)
    assert.is_false((task.try(engine.check, conf)))
    fake = engines.fake { unix = unix }
    engine.check(conf)
    assert.equal(1, fake.daemon:count(REMOVE))
  end)

  it("tries to remove it again while the engine lives", function()
    local left = 2
    local fake = engines.fake { routes = { [REMOVE] = function(_, reply)
      left = left - 1
      if left < 0 then return reply:empty(204) end
      reply:json(500, { message = "device or resource busy" })
    end } }
    assert.equal("success", run(fake, {}).state)
    local conf = conf_of(fake)
    for _ = 1, 3 do engine.check(conf) end
    assert.equal(3, fake.daemon:count(REMOVE))
  end)

  it("stops the container when the job is cancelled, and still hears it", function()
    local stopped = task.signal()
    local fake = engines.fake {
      output = function(conn)
        conn:write(frame(1, "working\n"))
        stopped:wait()
        conn:write(frame(1, "cleaning up\n"))
      end,
      routes = { ["POST /{v}/containers/{id}/stop"] = function(_, reply)
        stopped:fire()
        task.sleep(0.5)
        reply:empty(204)
      end },
    }
    local output = ""
    local ctx = { limits = {}, grace = 3, log = function(_, data) output = output .. data end }
    local done = task.within(5, engine.run, conf_of(fake), { id = "7", argv = { "sleep", "60" } }, ctx)
    assert.is_false(done)
    assert.equal("working\ncleaning up\n", output)
    assert.equal("3", fake.daemon.requests[#fake.daemon.requests - 1].query.t)
    assert.equal(1, fake.daemon:count(REMOVE))
  end)

  it("removes a container whose creation was cancelled in the middle", function()
    local fake = engines.fake { routes = { [CREATE] = server.after(2, server.json(201, { Id = "c1" })) } }
    assert.is_false((task.within(1, run, fake, {})))
    assert.equal(1, fake.daemon:count(REMOVE))
    assert.equal(fake.daemon:last().path:match("[^/]+$"), fake.daemon.requests[#fake.daemon.requests - 1].query.name)
  end)
end)

describe("worker.engine images", function()
  local PULL = "POST /{v}/images/create"

  local function puller(lines, present_after)
    local pulled = false
    return engines.fake { routes = {
      [PULL] = function(_, reply)
        local stream = reply:stream(200, { ["Content-Type"] = "application/json" })
        for _, line in ipairs(lines) do
          stream:write(line)
          task.sleep(3)
        end
        pulled = present_after
      end,
      ["GET /{v}/images/{name}/json"] = function(_, reply)
        if pulled then return reply:json(200, { Id = "x" }) end
        reply:json(404, { message = "No such image" })
      end,
    } }
  end

  it("are pulled when they are missing, with a word about it now and then", function()
    local fake = puller({
      '{"status":"Pulling from library/x","id":"latest"}\r\n{"status":"Pulling fs layer","progressDetail":{},"id":"a"}\r\n',
      '{"status":"Downloading","progressDetail":{"current":1048576,"total":2097152},"id":"a"}\r\n{"sta',
      'tus":"Pull complete","progressDetail":{},"id":"b"}\r\n', '{"status":"Status: Downloaded"}\r\n' }, true)
    local result, output = run(fake, {}, { image = "x", pull = "missing" })
    assert.equal("success", result.state)
    assert.matches("pulling x\npulling x: 1 of 2 layers, 1", output.notes, 1, true)
    for _, request in ipairs(fake.daemon.requests) do
      if request.route == PULL then assert.same({ fromImage = "x", tag = "latest" }, request.query) end
    end
  end)

  it("that cannot be pulled are an error with the registry's reason, also when it comes late", function()
    local fake = puller({ '{"status":"Pulling"}\r\n',
      '{"errorDetail":{"message":"toomanyrequests: slow down"},"error":"x"}\r\n' })
    local _, why = run(fake, {}, { image = "x", pull = "missing" })
    assert.equal("engine", why.kind)
    assert.equal("the image x cannot be had: toomanyrequests: slow down", why.message)
  end)

  it("are not pulled where that is forbidden, nor taken from elsewhere than allowed", function()
    local fake = engines.fake()
    local _, why = run(fake, { image = "absent" })
    assert.matches("absent is not on this machine", why.message)
    _, why = run(fake, { image = "evil/there" }, { images = { "good/*" } })
    assert.matches("not among those that jobs may use", why.message)
    for _, name in ipairs { "../../secret", "a b", "", "-x", "a?b" } do
      _, why = run(fake, { image = name })
      assert.matches("is no name of an image", why.message)
    end
    assert.equal(0, fake.daemon:count(PULL))
  end)

  it("are pulled to the end, although the job that wanted them has gone", function()
    local began, pulled = 0, false
    local fake = engines.fake { routes = {
      [PULL] = function(_, reply)
        began = began + 1
        local stream = reply:stream(200, { ["Content-Type"] = "application/json" })
        for _ = 1, 10 do
          stream:write '{"status":"Pulling"}\r\n'
          task.sleep(10)
        end
        pulled = true
      end,
      ["GET /{v}/images/{name}/json"] = function(_, reply)
        if pulled then return reply:json(200, { Id = "x", Config = {} }) end
        reply:json(404, { message = "no" })
      end,
    } }
    for _ = 1, 3 do
      assert.is_false((task.within(30, run, fake, {}, { image = "x", pull = "missing" })))
    end
    assert.equal("success", run(fake, {}, { image = "x", pull = "missing" }).state)
    assert.equal(1, began)
  end)

  it("are pulled once, however many jobs wait for them", function()
    local fake = puller({ '{"status":"Pulling"}\r\n' }, true)
    local jobs = {}
    for i = 1, 5 do jobs[i] = function() return run(fake, {}, { image = "x", pull = "missing" }).state end end
    assert.same({ "success", "success", "success", "success", "success" }, task.all(jobs))
    assert.equal(1, fake.daemon:count(PULL))
  end)

  it("that jobs are known to need are there before the first job", function()
    local fake = puller({ '{"status":"Pulling"}\r\n' }, true)
    local conf = conf_of(fake, { image = "x", pull = "missing" })
    engine.check(conf)
    engine.check(conf)
    assert.equal(1, fake.daemon:count(PULL))
    assert.equal("success", run(fake, {}, { image = "x", pull = "never" }).state)
  end)

  it("that cannot be had make no engine unusable: jobs may name others", function()
    local fake = puller({ '{"error":"denied"}\r\n' }, false)
    local conf = conf_of(fake, { image = "x", pull = "missing" })
    engine.check(conf)
    assert.equal(1, fake.daemon:count(PULL))
  end)

  it("that take too long are given up", function()
    local fake = engines.fake { routes = { [PULL] = server.hang() } }
    local _, why = run(fake, {}, { image = "x", pull = "missing", pull_timeout = 20 })
    assert.matches("the image x cannot be had: it took longer than 20s", why.message)
  end)
end)

describe("worker.engine orphans", function()
  local owner = require "worker.engine.owner"

  -- What a worker of ours left behind, but for `more`.
  local function left(more)
    local labels = owner.labels({ owner = "me" }, "job", {})
    labels["worker.run"] = "1 0 " .. labels["worker.run"]:match("%S+$") -- process 1, which began at another time
    for name, value in pairs(more) do labels[name] = value or nil end
    return { Id = "c", Labels = labels }
  end

  local function swept(container, options)
    local fake = engines.fake { containers = { container } }
    local docker <close> = engine.open { host = fake.host, owner = options and options.owner or "me" }
    docker.owner_given = not options or not options.by_default
    docker:ready()
    local filters
    for _, request in ipairs(fake.daemon.requests) do filters = filters or request.query.filters end
    assert.same({ label = { "worker.owner=" .. docker.owner } }, json.decode(filters))
    local count = fake.daemon:count(REMOVE)
    fake.daemon:close()
    return count
  end

  it("of our own dead lives are removed: a process that has gone, a boot of before", function()
    assert.equal(1, swept(left {}))
    assert.equal(1, swept(left { ["worker.boot"] = "another boot" }))
  end)

  it("that cannot be removed yet make no engine unusable", function()
    local busy = true
    local fake = engines.fake { containers = { left {} }, routes = { [REMOVE] = function(_, reply)
      if not busy then return reply:empty(204) end
      reply:json(500, { message = "device or resource busy" })
    end } }
    local docker <close> = engine.open { host = fake.host, owner = "me" }
    docker:ready()
    busy = false
    docker:ready()
    docker:ready()
    assert.equal(2, fake.daemon:count(REMOVE))
  end)

  it("that are none are left alone: another owner, our own life, a process that lives, no labels", function()
    local mine = owner.labels({ owner = "me" }, "job", {})
    assert.equal(0, swept(left { ["worker.owner"] = "you" }))
    assert.equal(0, swept(left { ["worker.run"] = mine["worker.run"] }))
    assert.equal(0, swept(left { ["worker.run"] = false }))
    assert.equal(0, swept(left { ["worker.run"] = "nonsense" }))
    assert.equal(0, swept(left { ["worker.boot"] = false }))
    assert.equal(0, swept { Id = "c" })
  end)

  it("of a worker in another container count as ours only by a name that we were given", function()
    local elsewhere = left { ["worker.run"] = "1 0 pid:[1]" }
    assert.equal(1, swept(elsewhere))
    assert.equal(0, swept(elsewhere, { by_default = true }))
  end)
end)

describe("worker.engine sandboxes", function()
  local prove = require "worker.engine.prove"

  local function fake_with(runtimes, release, more)
    local uname = {}
    for i, word in ipairs { "Linux", "host", release, "#1", "x86_64", "" } do uname[i] = word .. ("\0"):rep(65 - #word) end
    local options = { output = frame(1, table.concat(uname)), routes = {
      ["GET /{v}/info"] = server.json(200, { Runtimes = runtimes, KernelVersion = "6.1.0", Architecture = "x86_64" }),
      ["POST /{v}/images/create"] = server.text(200, '{"status":"sha256:1"}\n'),
      ["DELETE /{v}/images/{name}"] = server.json(200, json.array {}),
    } }
    for name, value in pairs(more or {}) do options[name] = value end
    return engines.fake(options)
  end

  local function check(fake)
    local ok, why = task.try(engine.check, conf_of(fake), "runsc")
    return ok or why.kind .. ": " .. why.message
  end

  it("are asked of the engine by name, not guessed from a word somewhere in its answers", function()
    local fake = fake_with({ runc = { path = "/opt/runsc-tools/runc" } }, "4.4.0")
    assert.matches("unusable: the engine has no runtime runsc %(it has runc%)", check(fake))
    assert.equal(0, fake.daemon:count(CREATE))
  end)

  it("are proved once by running something under them", function()
    local fake = fake_with({ runc = { path = "runc" }, runsc = { path = "/usr/bin/runsc" } }, "4.4.0")
    assert.is_true(check(fake))
    assert.is_true(check(fake))
    assert.equal(1, fake.daemon:count(CREATE))
    assert.equal("runsc", created(fake).HostConfig.Runtime)
    assert.equal(1, fake.daemon:count(REMOVE))
    assert.equal(1, fake.daemon:count "DELETE /{v}/images/{name}")
  end)

  it("are found under another name by their program", function()
    local fake = fake_with({ gvisor = { path = "/usr/local/bin/runsc" } }, "4.4.0")
    assert.is_true(check(fake))
    assert.equal("gvisor", created(fake).HostConfig.Runtime)
  end)

  it("that show the kernel of this machine are none", function()
    assert.matches("that is no sandbox", check(fake_with({ runsc = { path = "runc" } }, "6.1.0")))
  end)

  it("that cannot run anything are unusable, and nothing of the attempt stays", function()
    local fake = fake_with({ runsc = { path = "runsc" } }, "4.4.0", { exit = 128 })
    assert.matches("unusable: the runtime runsc does not work: a first program ended with exit code 128", check(fake))
    assert.equal(1, fake.daemon:count(REMOVE))
    assert.equal(1, fake.daemon:count "DELETE /{v}/images/{name}")
  end)

  it("have a test program that is a tar archive of one executable", function()
    for machine, number in pairs { x86_64 = 62, amd64 = 62, aarch64 = 183 } do
      local tar = prove.image(machine)
      assert.equal("probe\0", tar:sub(1, 6))
      assert.equal("\127ELF", tar:sub(513, 516))
      assert.equal(number, (("<I2"):unpack(tar, 513 + 18)))
      assert.equal(0, #tar % 512)
      local sum = 0
      for i = 1, 512 do sum = sum + ((i < 149 or i > 156) and tar:byte(i) or 32) end
      assert.equal(sum, tonumber(tar:sub(149, 154), 8))
    end
    assert.is_nil(prove.image "s390x")
  end)
end)

describe("worker.engine cache", function()
  local CACHE = { cache = { entries = 2, age = 60 } }
  local conf

  local function result_of(fake, job, more)
    conf = conf or conf_of(fake, more or CACHE)
    local output = ""
    job.id = text.random_id()
    local result = engine.run(conf, job, { limits = {}, log = function(_, data) output = output .. data end })
    return result, output
  end

  before_each(function() conf = nil end)

  it("gives the result and output of the same job again, and says so", function()
    local fake = engines.fake { output = frame(1, "42\n") }
    assert.is_nil(result_of(fake, { script = "echo 42" }).cached)
    local result, output = result_of(fake, { script = "echo 42" })
    assert.is_true(result.cached)
    assert.same({ "success", "42\n" }, { result.state, output })
    assert.equal(1, fake.daemon:count(CREATE))
  end)

  it("keeps nothing of what becomes of a result later", function()
    local fake = engines.fake()
    local first = result_of(fake, { script = "x" })
    first.fallback, first.outputs = { asked = "gvisor" }, { secret = "of the first job" }
    local second = result_of(fake, { script = "x" })
    assert.is_true(second.cached)
    assert.same({ nil, nil }, { second.fallback, second.outputs })
  end)

  it("does not take one job for another, nor for itself an hour later", function()
    local fake = engines.fake()
    for _, job in ipairs { { script = "a" }, { script = "b" }, { script = "b", stdin = "x" }, { script = "b", env = { A = "1" } },
      { script = "b", files = { ["/f"] = "1" } }, { script = "b", files = { ["/f"] = "2" } } } do
      assert.is_nil(result_of(fake, job).cached)
    end
    assert.is_true(result_of(fake, { script = "b", files = { ["/f"] = "2" } }).cached)
    task.sleep(61)
    assert.is_nil(result_of(fake, { script = "b", files = { ["/f"] = "2" } }).cached)
  end)

  it("forgets the oldest, keeps no failures, nothing with a network, and is off by itself", function()
    local fake = engines.fake()
    for _, script in ipairs { "1", "2", "3" } do result_of(fake, { script = script }) end
    assert.is_nil(result_of(fake, { script = "1" }).cached)
    assert.is_true(result_of(fake, { script = "3" }).cached)
    for _, more in ipairs { {}, { cache = { entries = 9 }, network = "bridge" } } do
      conf = nil
      result_of(fake, { script = "x" }, more)
      assert.is_nil(result_of(fake, { script = "x" }).cached)
    end
    conf = nil
    fake = engines.fake { exit = 1 }
    result_of(fake, { script = "x" })
    assert.is_nil(result_of(fake, { script = "x" }).cached)
  end)
end)

describe("worker.engine over TCP", function()
  it("speaks to an address and attaches there, too", function()
    local fake = engines.fake { address = "127.0.0.1:0", output = frame(1, "hi") }
    local result, output = run(fake, {})
    assert(result, output)
    assert.equal("success", result.state)
    assert.equal("hi", output.stdout)
  end)

  it("refuses to hand files to another machine", function()
    local fake = engines.fake { address = "127.0.0.1:0" }
    local _, why = run(fake, { files = { ["/x"] = "1" } })
    assert.matches("is on another machine", why.message)
    assert.equal(0, fake.daemon:count(CREATE))
    assert.is_false(err.is(why, "unusable"))
  end)
end)

