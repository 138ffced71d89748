-- Claims of the protocol local, one by one: what is there, what others left, what somebody took away.
local fs = require "worker.fs"
local json = require "worker.json"
local plugin = require "spec.support.plugin"
local scratch = require "spec.support.scratch"
local task = require "worker.task"

describe("a claim of the protocol local", function()
  local dir, opened

  before_each(function() dir, opened = scratch.dir(), {} end)
  after_each(function()
    for _, worker in ipairs(opened) do worker.close() end
    getmetatable(dir).__close(dir)
  end)

  -- A worker on the directory: its plugin's functions without their first argument.
  local function open(fields)
    fields = fields or {}
    fields.dir = dir:path "jobs"
    local protocol, conf = plugin.get("protocol", "local", fields)
    local self = protocol.open(conf)
    local worker = { own = self.own }
    for _, name in ipairs { "claim", "start", "finish", "close" } do
      worker[name] = function(...) return protocol[name](self, ...) end
    end
    opened[#opened + 1] = worker
    return worker
  end

  local function drop(name, text)
    fs.rename(dir:write("aside-" .. name, text or "true"), dir:path("jobs", "inbox", name))
  end

  local function list(...) return fs.list(dir:path("jobs", ...)) end

  -- What a worker leaves that is killed: nobody has its lock.
  local function dead(files)
    for path, text in pairs(files) do
      local full = dir:path("jobs", "running", "worker-dead", path)
      fs.mkdir(fs.dir(full), { parents = true })
      fs.write(full, text)
    end
  end

  local function result_of(id) return json.decode(fs.read(dir:path("jobs", "done", id, "result.json"))) end

  it("takes over, with --once, what one left that died meanwhile, before it says that there is no more", function()
    local worker = open { once = true }
    dead { ["a.sh"] = "true" }
    assert.equal("a", worker.claim().id)
    assert.same({ fs.base(worker.own) }, list "running")
    assert.equal("end", worker.claim())
  end)

  it("looks now and then whether another has died", function()
    local worker = open()
    dead { ["a.sh"] = "true", ["b.sh"] = "true", ["b.sh.started"] = "b", ["b.out/stdout.log"] = "half\n" }
    assert.is_nil(worker.claim()) -- nothing came for half a minute
    assert.equal("a", worker.claim().id)
    assert.equal("error", result_of("b").state)
    assert.equal("half\n", fs.read(dir:path("jobs", "done", "b", "stdout.log")))
  end)

  it("looks for the dead, too, while there is always something to do", function()
    local worker = open()
    drop "a.sh"
    dead { ["b.sh"] = "true" }
    task.sleep(60)
    assert.equal("a", worker.claim().id)
    assert.same({ "b.sh" }, list "inbox")
  end)

  it("leaves a result as it is that a dead one had written", function()
    dead { ["a.sh"] = "true", ["a.sh.started"] = "a", ["a.out/result.json"] = '{ "id": "a", "state": "success" }' }
    dead { ["b.sh.started"] = "b", ["b.out/b.sh"] = "true", ["b.out/result.json"] = '{ "id": "b", "state": "failed" }' }
    dead { ["c.sh.started"] = "c" } -- in done/ already, but for the marker
    open()
    assert.equal("success", result_of("a").state)
    assert.equal("failed", result_of("b").state)
    assert.same({ "a", "b" }, list "done")
    assert.same({ "a.sh", "result.json" }, list("done", "a"))
    assert.same({ "b.sh", "result.json" }, list("done", "b"))
  end)

  it("takes a namesake of a job that runs, and puts it back under a name that is free", function()
    local worker = open()
    drop("a.sh", "echo 1")
    local first = worker.claim()
    drop("a.sh", "echo 2")
    local second = worker.claim()
    drop("a.sh", "echo 3")
    assert.same({ "a", "a.2" }, { first.id, second.id })
    assert.equal("echo 2", second.script)
    worker.start(first)
    worker.finish(first, { state = "success" })
    table.remove(opened).close()
    assert.same({ "a-2.sh", "a.sh" }, list "inbox")
    assert.same({ "a" }, list "done")
  end)

  it("that brought nothing is followed by the next at once, so that a file is seen when it is dropped", function()
    local worker = open()
    local pauses = {}
    local claim = plugin.policy("backoff").claim(worker.claim)
    local ctx = { pause = function(seconds) pauses[#pauses + 1] = seconds return true end }
    for _ = 1, 5 do assert.is_nil((claim(ctx))) end
    assert.same({}, pauses)
  end)

  it("finds a job behind ten thousand files that are none", function()
    local worker = open { once = true }
    drop "a.sh"
    local real = fs.list
    fs.list = function(path, options) -- in the order that a directory happens to have
      if path:find("inbox$") and (options or {}).most == 10000 then return { "other" }, true end
      return real(path, options)
    end
    local ok, job = pcall(worker.claim)
    fs.list = real
    assert.is_true(ok)
    assert.equal("a", job.id)
  end)

  it("does not blame a file for what this worker lacks", function()
    local worker = open()
    drop "a.sh"
    local path = fs.join(worker.own, "a.sh")
    local read = fs.read
    fs.read = function(name, ...)
      if name == path then require("worker.error").raise("file", "no descriptor is free", { name = "EMFILE" }) end
      return read(name, ...)
    end
    local ok, why = pcall(worker.claim)
    fs.read = read
    assert.same({ false, "file", "EMFILE" }, { ok, why.kind, why.name })
    assert.same({}, list "failed")
    assert.equal("a", worker.claim().id)
  end)

  it("makes the places again that somebody took away", function()
    local worker = open()
    drop "a.sh"
    local job = worker.claim()
    worker.start(job)
    fs.remove_tree(dir:path "jobs")
    worker.finish(job, { state = "success" })
    assert.equal("success", result_of("a").state)
    assert.is_nil(worker.claim())
    drop "b.sh"
    assert.equal("b", worker.claim().id)
    local held = {}
    for _, owner in ipairs(list "running") do
      if fs.exists(dir:path("jobs", "running", owner, "b.sh")) then held[#held + 1] = owner end
    end
    assert.equal(1, #held)
    assert.is_nil(fs.lock(dir:path("jobs", "running", held[1], ".lock"))) -- another process is kept out
  end)
end)
