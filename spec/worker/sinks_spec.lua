-- Event sinks: what the driver does around a plugin that only knows how to hand over one event.
local err = require "worker.error"
local events = require "worker.events"
local log = require "worker.log"
local secret = require "worker.secret"
local shape = require "worker.sinks.event"
local sinks = require "worker.sinks"
local task = require "worker.task"

-- What is logged meanwhile, as "level event message", without debug lines.
local lines
local kept = {}
before_each(function()
  lines = {}
  for _, level in ipairs { "info", "warn", "error" } do
    kept[level] = log[level]
    log[level] = function(name, message) lines[#lines + 1] = ("%s %s %s"):format(level, name, message) end -- luacheck: ignore
  end
end)
after_each(function()
  for level, original in pairs(kept) do log[level] = original end -- luacheck: ignore
end)

-- A sink that keeps what it is given; `more` replaces or adds functions.
local function fake(more)
  local sink = { got = {}, opened = 0, closed = 0, plugin = { kind = "sink", name = "fake" } }
  function sink.plugin.open() sink.opened = sink.opened + 1 end
  function sink.plugin.publish(_, event) sink.got[#sink.got + 1] = event.job and event.job.id or event.name end
  function sink.plugin.close() sink.closed = sink.closed + 1 end
  for name, fn in pairs(more or {}) do sink.plugin[name] = fn end
  return sink
end

local function entry(sink, more)
  local one = { name = "fake", plugin = sink.plugin, conf = {}, queue = 1000, keep = 600, output = false }
  for name, value in pairs(more or {}) do one[name] = value end
  return one
end

-- A worker's events with these sinks; happen(id, ...) lets jobs be claimed.
local function worker(...)
  local all = events.new()
  local told = { counts = { delivered = 0, dropped = 0 } }
  all:listen(function(name, facts)
    local what = name:match("^sink%.(%a+)$")
    if told.counts[what] then told.counts[what] = told.counts[what] + facts.count end
  end)
  local self = sinks.open({ name = "w", events = { ... } }, all)
  local function happen(...)
    for _, id in ipairs { ... } do all:emit("job.claimed", { server = "ci", job = { id = tostring(id) } }) end
  end
  return self, happen, told.counts, all
end

local function count(pattern)
  local n = 0
  for _, line in ipairs(lines) do n = n + (line:find(pattern) and 1 or 0) end
  return n
end

describe("an event", function()
  local function of(name, facts)
    return shape.new("w", name, facts)
  end

  it("has an id, a name, a time, and says whose it is", function()
    local told = of("job.claimed", { server = "ci", job = { id = "7", image = "debian" } })
    assert.equal("job.claimed", told.name)
    assert.equal("w", told.worker)
    assert.equal("ci", told.server)
    assert.same({ id = "7", image = "debian" }, told.job)
    assert.equal(26, #told.id)
    assert.matches("^%d%d%d%d%-%d%d%-%d%dT.*Z$", told.time)
  end)

  it("tells how a job ended, and on what it ran", function()
    local told = of("job.finished", { server = "ci", job = { id = "7", executor = { "gvisor", "docker" } }, ctx = {}, result = {
      state = "failed", exit_code = 3, reason = "exit code 3", duration = 1.23456, executor = "docker",
      usage = { cpu = 0.5, wall = 1, peak_memory = 7 }, output = { stdout = "hi" }, dropped = { stdout = 9 },
      fallback = { asked = "gvisor", used = "docker", reason = "gone", weaker = true },
    } })
    assert.equal("gvisor, docker", told.job.executor)
    assert.same({
      state = "failed", exit_code = 3, reason = "exit code 3", duration = 1.235, executor = "docker",
      usage = { cpu = 0.5, wall = 1, peak_memory = 7 }, output = { stdout = "hi" }, dropped = { stdout = 9 },
      fallback = { asked = "gvisor", used = "docker", reason = "gone", weaker = true },
    }, told.result)
    assert.is_nil(shape.quiet(told).result.output)
    assert.equal("hi", told.result.output.stdout)
  end)

  it("tells what a policy decided, and lists as lists", function()
    local told = of("policy.decision", { job = { id = "7" }, policy = "house", mode = "strict", decision = "refused",
      rules = { "image.denied" }, mended = {} })
    assert.same({ "house", "strict", "refused", { "image.denied" } }, { told.policy, told.mode, told.decision, told.rules })
    assert.matches('"mended":%[%]', require("worker.json").encode(told))
  end)

  it("lets nothing out that nobody meant to tell", function()
    local job = { id = "7", secrets = { secret.value "s3cr3t" }, env = { TOKEN = "s3cr3t" }, script = "s3cr3t",
      ticket = "s3cr3t" }
    local ctx = { secrets = { "s3cr3t" } }
    for _, name in ipairs(shape.NAMES) do
      local told = of(name, { server = "ci", job = job, ctx = ctx, self = job, result = { state = "success", job = job } })
      assert.is_nil(require("worker.json").encode(told):find("s3cr3t", 1, true), name)
    end
    for _, name in ipairs { "job.output", "server.polled", "sink.dropped" } do assert.is_nil(of(name, {})) end
  end)

  it("is text, whatever ids and reasons are made of, and bounded", function()
    local told = of("job.finished", { job = { id = "\255" }, result = { state = "error", reason = ("x"):rep(5000) .. "\0\255" } })
    assert.equal("\u{fffd}", told.job.id)
    assert.equal(1024, #told.result.reason)
    assert.equal("oops", of("server.failing", { error = err.new("wire", "oops"), doing = "claim" }).reason)
  end)
end)

describe("an event sink", function()
  it("gets what it wants, in order, and a worker that stops waits for the rest", function()
    local one, two = fake(), fake()
    local all, happen, counts, emitter = worker(entry(one), entry(two, { only = { "worker.stopped" } }))
    happen(1, 2, 3)
    emitter:emit("worker.stopped", { exit_code = 0 })
    all:close()
    assert.same({ "1", "2", "3", "worker.stopped" }, one.got)
    assert.same({ "worker.stopped" }, two.got)
    assert.same({ delivered = 5, dropped = 0 }, counts)
    assert.same({ 1, 1 }, { one.opened, one.closed })
    assert.same({}, lines)
  end)

  it("is not opened before there is something to tell", function()
    local sink = fake()
    local all = worker(entry(sink))
    task.sleep(5)
    all:close()
    assert.same({ 0, 0 }, { sink.opened, sink.closed })
  end)

  it("that flushes gets events in batches, which are repeated as a whole", function()
    local flushes, fail = {}, true
    local sink
    sink = fake { flush = function()
      flushes[#flushes + 1] = #sink.got
      if fail then
        fail, sink.got = false, {}
        err.raise("transport", "reset", { reason = "reset" })
      end
    end }
    local all, happen = worker(entry(sink))
    for i = 1, 100 do happen(i) end
    task.sleep(5)
    all:close()
    assert.same({ 64, 64, 100 }, flushes)
    assert.equal("100", sink.got[100])
  end)

  it("that does not flush never gets an event twice that has arrived", function()
    local tries = {}
    local sink = fake { publish = function(_, event)
      local id = event.job.id
      tries[id] = (tries[id] or 0) + 1
      task.sleep(50) -- slow, but each for itself in time
      if id == "2" and tries[id] == 1 then err.raise("transport", "reset", { reason = "reset" }) end
    end }
    local all, happen, counts = worker(entry(sink))
    happen(1, 2, 3, 4)
    task.sleep(300)
    all:close()
    assert.same({ ["1"] = 1, ["2"] = 2, ["3"] = 1, ["4"] = 1 }, tries)
    assert.same({ delivered = 4, dropped = 0 }, counts)
  end)

  it("that flushes gets fewer at once when they are large", function()
    local sizes = {}
    local sink = fake { publish = function(self) self.n = (self.n or 0) + 1 end, open = function() return {} end,
      flush = function(self)
        sizes[#sizes + 1] = self.n
        self.n = 0
      end }
    local all, _, _, emitter = worker(entry(sink, { output = true }))
    for i = 1, 6 do
      emitter:emit("job.finished", { server = "ci", job = { id = tostring(i) }, ctx = {},
        result = { state = "success", output = { stdout = ("x"):rep(400000) } } })
    end
    all:close()
    assert.same({ 3, 3 }, sizes)
  end)

  it("goes on after an event that cannot be told, and after a bug of the worker's own", function()
    local sink = fake()
    local all, happen, counts, emitter = worker(entry(sink))
    emitter:emit("job.claimed", { server = "ci", job = { id = {} } })
    assert.equal(1, counts.dropped)
    happen(1)
    task.sleep(1)
    local worked = all.feeds[1].trouble.worked
    all.feeds[1].trouble.worked = function() error "a slip of ours" end
    happen(2)
    task.sleep(0.5)
    all.feeds[1].trouble.worked = worked
    happen(3)
    task.sleep(5)
    all:close()
    assert.same({ "1", "2", "3" }, sink.got)
    assert.equal(1, count "^error sink%.error .*a slip of ours")
  end)

  it("that is dead delays nobody: events are queued, and the oldest are dropped and counted", function()
    local sink = fake { open = function() task.sleep(1e9) end }
    local other = fake()
    local all, happen, counts = worker(entry(sink, { queue = 10 }), entry(other))
    for i = 1, 200 do happen(i) end
    assert.equal(0, #other.got) -- nobody had a turn: telling an event does not wait
    task.sleep(1)
    assert.equal(200, #other.got)
    for i = 201, 300 do happen(i) end
    assert.is_true(all.feeds[1]:waiting() <= 11)
    assert.equal(1, count "^warn sink%.dropping .*more happens than it takes")
    all:close()
    assert.equal(300, counts.delivered)
    assert.equal(300, counts.dropped)
    assert.equal(1, count "^warn sink%.dropped event sink fake: 300 events were dropped")
  end)

  it("is bounded in bytes, too", function()
    local sink = fake { open = function() task.sleep(1e9) end }
    local all, _, counts, emitter = worker(entry(sink, { output = true }))
    task.sleep(1)
    for i = 1, 100 do
      emitter:emit("job.finished", { server = "ci", job = { id = tostring(i) }, ctx = {},
        result = { state = "success", output = { stdout = ("x"):rep(1 << 20) } } })
    end
    assert.is_true(all.feeds[1]:waiting() <= 17)
    all:close()
    assert.equal(100, counts.dropped)
  end)

  it("that fails and comes back is told of once each, and gets what waited", function()
    local down = true
    local sink
    sink = fake { publish = function(_, event)
      if down then err.raise("transport", "connection refused", { reason = "connect" }) end
      sink.got[#sink.got + 1] = event.job.id
    end }
    local all, happen, counts = worker(entry(sink))
    happen(1, 2)
    task.sleep(60)
    happen(3)
    down = false
    task.sleep(70)
    assert.same({ "1", "2", "3" }, sink.got)
    all:close()
    assert.equal(0, counts.dropped)
    assert.equal(2, #lines, table.concat(lines, "|"))
    assert.matches("^warn sink%.failing event sink fake: connection refused", lines[1])
    assert.matches("^info sink%.back event sink fake works again after ", lines[2])
    assert.is_true(sink.opened > 3 and sink.opened == sink.closed)
  end)

  it("whose connection ended while nothing happened is opened anew without a word", function()
    local broken = false
    local sink
    sink = fake { open = function()
      sink.opened, broken = sink.opened + 1, false
    end, publish = function(_, event)
      if broken then err.raise("transport", "reset", { reason = "reset" }) end
      sink.got[#sink.got + 1] = event.job.id
    end }
    local all, happen = worker(entry(sink))
    happen(1)
    task.sleep(100)
    broken = true
    happen(2)
    task.sleep(1)
    assert.same({ "1", "2" }, sink.got)
    assert.equal(2, sink.opened)
    assert.same({}, lines)
    all:close()
  end)

  it("drops what it could not hand over for too long", function()
    local down = true
    local sink
    sink = fake { publish = function(_, event)
      if down then err.raise("transport", "no route", { reason = "connect" }) end
      sink.got[#sink.got + 1] = event.job.id
    end }
    local all, happen, counts = worker(entry(sink, { keep = 60 }))
    happen(1, 2)
    task.sleep(200)
    happen(3)
    down = false
    task.sleep(70)
    assert.same({ "3" }, sink.got)
    all:close()
    assert.same({ delivered = 1, dropped = 2 }, counts)
    assert.equal(1, count "^warn sink%.dropped .* 2 events were dropped")
  end)

  it("that refuses one event for good gets the next one", function()
    local sink
    sink = fake { publish = function(_, event)
      if event.job.id == "2" then err.raise("http", "answered 413", { status = 413 }) end
      sink.got[#sink.got + 1] = event.job.id
    end }
    local all, happen, counts = worker(entry(sink))
    happen(1, 2, 3)
    task.sleep(1)
    all:close()
    assert.same({ "1", "3" }, sink.got)
    assert.same({ delivered = 2, dropped = 1 }, counts)
    assert.equal(1, count "^warn sink%.dropping .*refuses them: answered 413")
  end)

  it("that is not allowed in goes on trying: a person may set that right", function()
    local status, sink = 401, nil
    sink = fake { publish = function(_, event)
      if status then err.raise("http", "answered " .. status, { status = status }) end
      sink.got[#sink.got + 1] = event.job.id
    end }
    local all, happen = worker(entry(sink))
    happen(1)
    task.sleep(100)
    status = nil
    task.sleep(70)
    assert.same({ "1" }, sink.got)
    all:close()
  end)

  it("with a bug is told of with its traceback, once, and harms nobody", function()
    local sink = fake { publish = function() error "a slip" end }
    local other = fake()
    local all, happen, counts = worker(entry(sink), entry(other))
    happen(1, 2, 3)
    all:close()
    assert.equal(1, count "^error plugin%.failed .*a slip")
    assert.same({ "1", "2", "3" }, other.got)
    assert.equal(3, counts.dropped)
  end)

  it("that hangs is given up after a while and tried again", function()
    local hang = true
    local sink
    sink = fake { publish = function(_, event)
      if hang then task.sleep(1e9) end
      sink.got[#sink.got + 1] = event.job.id
    end }
    local all, happen = worker(entry(sink))
    happen(1)
    task.sleep(61)
    assert.equal(1, count "^warn sink%.failing .*took longer than 1m")
    hang = false
    task.sleep(70)
    assert.same({ "1" }, sink.got)
    all:close()
  end)

  it("does not keep a worker that stops: what it cannot take is counted", function()
    local sink = fake { publish = function() task.sleep(1e9) end }
    local all, happen, counts = worker(entry(sink))
    happen(1, 2)
    local began = require("worker.time").mono()
    all:close()
    assert.equal(5, math.floor(require("worker.time").mono() - began))
    assert.equal(2, counts.dropped)
  end)

  it("gets what jobs printed only when it asks for it", function()
    local seen = {}
    local function keeping(name)
      return fake { publish = function(_, event) seen[name] = event.result.output or "nothing" end }
    end
    local all, _, _, emitter = worker(entry(keeping "quiet"), entry(keeping "loud", { output = true }))
    emitter:emit("job.finished", { server = "ci", job = { id = "1" }, ctx = {},
      result = { state = "success", output = { stdout = "hi" } } })
    all:close()
    assert.same({ quiet = "nothing", loud = { stdout = "hi" } }, seen)
  end)
end)

describe("event sinks when the configuration is read again", function()
  it("are opened anew when they are the same; those that are gone hand over what they have", function()
    local same, gone, new = fake(), fake(), fake()
    local all, happen = worker(entry(same), entry(gone, { name = "gone", conf = { url = "x" } }))
    happen(1)
    task.sleep(1)
    happen(2)
    all:apply { name = "w", events = { entry(same), entry(new, { name = "new" }) } }
    happen(3)
    task.sleep(1)
    assert.same({ "1", "2", "3" }, same.got)
    assert.same({ "1", "2" }, gone.got)
    assert.same({ "3" }, new.got)
    assert.equal(2, same.opened)
    assert.same({ 1, 1 }, { gone.opened, gone.closed })
    all:close()
    assert.equal(2, same.closed)
  end)

  it("try at once when they were waiting for their next attempt", function()
    local down = true
    local sink
    sink = fake { publish = function(_, event)
      if down then err.raise("transport", "no route", { reason = "connect" }) end
      sink.got[#sink.got + 1] = event.job.id
    end }
    local all, happen = worker(entry(sink))
    happen(1)
    task.sleep(300)
    down = false
    all:apply { name = "w", events = { entry(sink) } }
    task.sleep(0.1)
    assert.same({ "1" }, sink.got)
    all:close()
  end)
end)
