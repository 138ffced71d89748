local agent = require "worker.agent"
local err = require "worker.error"
local events = require "worker.events"
local log = require "worker.log"
local record = require "worker.record"
local sys = require "worker.core.sys"
local task = require "worker.task"

-- A protocol in memory: jobs to hand out, and everything that was said to it.
local function protocol(jobs, more)
  local said = { open = 0, finished = {}, log = {}, claims = 0 }
  local plugin = { kind = "protocol", name = "fake", api = 1, config = {} }
  function plugin.open() said.open = said.open + 1 return { life = said.open } end
  function plugin.claim()
    said.claims = said.claims + 1
    local job = table.remove(jobs, 1)
    if job == nil then return "end" end
    return job
  end
  function plugin.finish(_, job, result)
    said.finished[#said.finished + 1] = { id = job.id, state = result.state, reason = result.reason,
      exit_code = result.exit_code }
  end
  for name, value in pairs(more or {}) do plugin[name] = value end
  return plugin, said
end

local function executor(run)
  return { conf = {}, plugin = { kind = "executor", name = "fake", api = 1, run = function(_, job, ctx)
    return run(job, ctx)
  end } }
end

local ok_executor = executor(function(job, ctx)
  ctx.log("stdout", "hello from " .. job.id .. "\n")
  return { state = "success", exit_code = 0 }
end)

local function serve(plugin, options)
  options = options or {}
  local server = agent.new {
    name = "fake", plugin = plugin, conf = options.conf or {}, slots = options.slots or 1,
    executor = options.executor or ok_executor, policies = options.policies,
    events = events.new(), record = options.record or record.none(), ended = options.ended,
  }
  return server, server.serve
end

local function states(said)
  local list = {}
  for _, result in ipairs(said.finished) do list[#list + 1] = result.id .. "=" .. result.state end
  table.sort(list)
  return table.concat(list, " ")
end

describe("worker.agent", function()
  it("opens for as long as the protocol has patience, then gives the server up with 69", function()
    local asked, tries = {}, 0
    local plugin = protocol({}, {
      patience = function(conf, again)
        asked[#asked + 1] = { conf.tries, again }
        return { first = 1, factor = 1, tries = conf.tries }
      end,
      open = function()
        tries = tries + 1
        err.raise("transport", "nobody there")
      end,
    })
    local server, run = serve(plugin, { conf = { tries = 3 } })
    assert.equal(69, run(server))
    assert.equal(3, tries)
    assert.same({ { 3, false } }, asked)
  end)

  it("opens anew with the patience for that", function()
    local asked, lives = {}, 0
    local plugin = protocol({}, {
      patience = function(_, again)
        asked[#asked + 1] = again
        return { first = 1, tries = again and 2 or 9 }
      end,
      open = function(_, about)
        lives = lives + 1
        if lives > 1 then err.raise("transport", "nobody there") end
        assert.same({ 1, { { name = "fake", isolation = "process" } } }, { about.slots, about.executors })
        return {}
      end,
      claim = function() err.gone() end,
    })
    local server, run = serve(plugin)
    assert.equal(69, run(server))
    assert.same({ { false, true }, 3 }, { asked, lives })
  end)

  it("claims also while no executor works, where nobody else would take the job", function()
    local usable = false
    local plugin, said = protocol({ { id = "a" }, { id = "b" } }, { claims_always = true })
    local broken = executor(function() return { state = "success", exit_code = 0 } end)
    broken.plugin.check = function() if not usable then err.raise("unusable", "the engine is away") end end
    local claim = plugin.claim
    function plugin.claim(self)
      usable = said.claims > 0
      if usable then task.sleep(60) end
      return claim(self)
    end
    local server, run = serve(plugin, { executor = broken })
    assert.equal(0, run(server))
    assert.equal("a=error b=success", states(said))
  end)

  it("counts how its jobs ended, beside those of other servers", function()
    local ended = { success = 4 }
    local server, run = serve(protocol { { id = "a" }, { id = "b" }, { id = "c" } }, { ended = ended,
      executor = executor(function(job) return { state = job.id == "b" and "failed" or "success", exit_code = 0 } end) })
    assert.equal(0, run(server))
    assert.same({ success = 6, failed = 1 }, ended)
  end)

  it("runs jobs one by one until the server has no more", function()
    local plugin, said = protocol { { id = "a" }, { id = "b" } }
    local server, run = serve(plugin)
    assert.equal(0, run(server))
    assert.equal("a=success b=success", states(said))
  end)

  it("runs as many jobs at once as it has slots", function()
    local now, most = 0, 0
    local jobs = {}
    for i = 1, 10 do jobs[i] = { id = tostring(i) } end
    local plugin, said = protocol(jobs)
    local server, run = serve(plugin, { slots = 3, executor = executor(function()
      now = now + 1
      most = math.max(most, now)
      task.sleep(1)
      now = now - 1
      return { state = "success" }
    end) })
    assert.equal(0, run(server))
    assert.equal(3, most)
    assert.equal(10, #said.finished)
  end)

  it("asks for several jobs at once while there are some, and one at a time while there are none", function()
    local left, most, asking, idle = 40, 0, 0, {}
    local plugin, said = protocol({}, { claims = 4, claim = function()
      asking = asking + 1
      most = math.max(most, asking)
      task.sleep(1)
      asking = asking - 1
      if left == 0 then
        idle[#idle + 1] = asking
        return #idle == 20 and "end" or nil
      end
      left = left - 1
      return { id = tostring(left) }
    end })
    local server, run = serve(plugin, { slots = 8 })
    local before = sys.mono()
    assert.equal(0, run(server))
    assert.equal(40, #said.finished)
    assert.equal(4, most)
    assert.is_true(sys.mono() - before < 40 / 4 + 3 + 20 * 1.1) -- one after the other it took 60 seconds
    for i = 5, 20 do assert.equal(0, idle[i]) end
    assert.equal(8, server.free)
  end)

  it("goes on asking while what one claim brought has to wait", function()
    local n, began, at = 0, sys.mono(), {}
    local plugin = protocol({}, { claims = 4, hands_out_retries = true, claim = function()
      n = n + 1
      local mine = n
      task.sleep(0.1)
      if mine == 1 then return { id = "a" } end
      if mine <= 3 then return nil end -- all but one claimer stop
      if mine == 4 then -- and that one brings the next try of what is still being reported
        task.sleep(3)
        return { id = "a" }
      end
      return mine <= 8 and { id = "j" .. mine } or "end"
    end })
    local told = false
    function plugin.finish(_, job)
      if job.id ~= "a" or told then return end
      told = true
      task.sleep(300)
    end
    local server, run = serve(plugin, { slots = 8, executor = executor(function(job)
      at[job.id] = sys.mono() - began
      task.sleep(1)
      return { state = "success", exit_code = 0 }
    end) })
    assert.equal(0, run(server))
    assert.is_true(at.j5 < 10 and at.a > 300)
  end)

  it("asks a server that hands out one and the same job for ever no more often for having many claims", function()
    local claims = 0
    local plugin = protocol({}, { claims = 16, claim = function()
      claims = claims + 1
      task.sleep(0.05)
      return { id = "a" }
    end })
    local server, run = serve(plugin, { slots = 20, executor = executor(function()
      task.sleep(90)
      return { state = "success", exit_code = 0 }
    end) })
    local handle = task.start(run, server)
    task.sleep(60)
    assert.is_true(claims <= 130, claims .. " claims")
    server:drain "enough"
    server:cancel_jobs "enough"
    handle:join()
  end)

  it("runs a job once that two claims bring at the same time, each of which may be another try", function()
    local runs, most, now = 0, 0, 0
    local jobs = { { id = "a" }, { id = "a" }, { id = "a" } }
    local slow = setmetatable({ claimed = function() task.sleep(2) end }, { __index = record.none() })
    local plugin = protocol({}, { claims = 3, hands_out_retries = true, claim = function()
      task.sleep(0.1)
      return table.remove(jobs, 1) or "end"
    end })
    local server, run = serve(plugin, { slots = 3, record = slow, executor = executor(function()
      runs, now = runs + 1, now + 1
      most = math.max(most, now)
      task.sleep(5)
      now = now - 1
      return { state = "success", exit_code = 0 }
    end) })
    assert.equal(0, run(server))
    assert.equal(1, most)
    assert.is_true(runs >= 1)
  end)

  it("has the place of a job that is being reported for the next one, where the protocol lets it", function()
    local function most_of(slots, aside)
      local running, telling, most_running, most_telling, list = 0, 0, 0, 0, {}
      for i = 1, 12 do list[i] = { id = tostring(i) } end
      local plugin, said = protocol(list, { reports_aside = aside })
      local finish = plugin.finish
      function plugin.finish(...)
        telling = telling + 1
        most_telling = math.max(most_telling, telling)
        task.sleep(10)
        telling = telling - 1
        return finish(...)
      end
      local server, run = serve(plugin, { slots = slots, executor = executor(function()
        running = running + 1
        most_running = math.max(most_running, running)
        task.sleep(1)
        running = running - 1
        return { state = "success", exit_code = 0 }
      end) })
      assert.equal(0, run(server))
      assert.equal(12, #said.finished)
      assert.same({ slots, false, 0, 0 }, { server.free, server:busy(), server.running, server.telling })
      return { most_running, most_telling }
    end
    assert.same({ 3, 3 }, most_of(3, nil))
    assert.same({ 3, 6 }, most_of(3, true)) -- the last three have ended as well, and keep their places
    assert.same({ 1, 1 }, most_of(1, true))
  end)

  it("reports what it has begun to report before it ends, and counts it as busy until then", function()
    local plugin, said = protocol({ { id = "a" } }, { reports_aside = true })
    local finish = plugin.finish
    function plugin.finish(...)
      task.sleep(60)
      return finish(...)
    end
    local server, run = serve(plugin, { slots = 2 })
    local handle = task.start(run, server)
    task.sleep(5)
    assert.same({ true, 0 }, { server:busy(), server.running })
    server:drain("enough")
    assert.same({ true, 0 }, { handle:join() })
    assert.equal("a=success", states(said))
  end)

  it("tells an executor's error from a job's failure", function()
    local plugin, said = protocol { { id = "a" }, { id = "b" }, { id = "c" }, { id = "d" } }
    local server, run = serve(plugin, { executor = executor(function(job)
      if job.id == "a" then return { state = "failed", exit_code = 3 } end
      if job.id == "b" then err.raise("spawn", "no such program") end
      if job.id == "c" then error("a bug") end
      return "nonsense"
    end) })
    run(server)
    assert.equal("a=failed b=error c=error d=error", states(said))
    assert.equal("no such program", said.finished[2].reason)
    assert.matches("no result", said.finished[4].reason)
  end)

  it("refuses a malformed job and reports it where it has an id", function()
    local plugin, said = protocol { { id = "a", argv = "rm -rf" }, { id = 7 }, 12, { id = "b" } }
    local server, run = serve(plugin)
    run(server)
    assert.equal("a=error b=success", states(said))
    assert.matches("argv must be a list", said.finished[1].reason)
  end)

  it("runs a job once that is handed out twice while it runs", function()
    local runs = 0
    local plugin, said = protocol { { id = "a" }, { id = "a" }, { id = "b" } }
    local server, run = serve(plugin, { slots = 3, executor = executor(function()
      runs = runs + 1
      task.sleep(1)
      return { state = "success" }
    end) })
    run(server)
    assert.equal(2, runs)
    assert.equal("a=success b=success", states(said))
  end)

  it("opens again and again while the server is away", function()
    local tries = 0
    local plugin, said = protocol { { id = "a" } }
    local open = plugin.open
    function plugin.open()
      tries = tries + 1
      if tries < 5 then err.raise("transport", "connection refused") end
      return open()
    end
    local server, run = serve(plugin)
    assert.equal(0, run(server))
    assert.equal(5, tries)
    assert.equal("a=success", states(said))
  end)

  it("gives a server up that refuses its credentials, with exit code 77", function()
    local plugin = protocol({}, { open = function() err.raise("http", "401", { status = 401 }) end })
    local server, run = serve(plugin)
    assert.equal(77, run(server))
  end)

  it("opens anew, once, when the server no longer knows it, and keeps the jobs running", function()
    local plugin, said
    plugin, said = protocol({ { id = "a" } }, {
      finish = function(self, job, result)
        if self.life == 1 then err.raise("gone", "who are you") end
        said.finished[#said.finished + 1] = { id = job.id, state = result.state }
      end,
    })
    local server, run = serve(plugin)
    assert.equal(0, run(server))
    assert.equal(2, said.open)
    assert.equal("a=success", states(said))
  end)

  it("ends a job that the server cancels", function()
    local plugin, said = protocol({ { id = "a" } }, { beat = function() return "cancel" end })
    local server, run = serve(plugin, { executor = executor(function() task.sleep(3600) end) })
    run(server)
    assert.equal("a=cancelled", states(said))
  end)

  it("ends a job that the server gave to another worker, and does not report it", function()
    local plugin, said = protocol({ { id = "a" } }, { beat = function() return "lost" end })
    local ended
    local server, run = serve(plugin, { executor = executor(function()
      local _ <close> = setmetatable({}, { __close = function() ended = true end })
      task.sleep(3600)
    end) })
    run(server)
    assert.is_true(ended)
    assert.equal("", states(said))
  end)

  it("says once when a lease is answered by a word that nobody knows, and keeps the job", function()
    local told = {}
    local plugin, said = protocol({ { id = "a" } }, { beat = function() return "cancelled" end })
    local server, run = serve(plugin, { conf = { beat = 1 }, executor = executor(function()
      task.sleep(60)
      return { state = "success" }
    end) })
    local kept = log.error
    log.error = function(_, message) told[#told + 1] = message end -- luacheck: ignore
    run(server)
    log.error = kept -- luacheck: ignore
    assert.equal("a=success", states(said))
    assert.same({ 'fake: beat: it returned "cancelled"; it returns "keep", "cancel" or "lost"' }, told)
  end)

  it("keeps a result that its plugin fails to report, or has no right to, and says so at the end", function()
    local dropped = {}
    local kept = setmetatable({ keeps = true, forget = function(_, _, job) dropped[#dropped + 1] = job.id end },
      { __index = record.none() })
    local plugin = protocol({ { id = "a" }, { id = "b" }, { id = "c" } }, { finish = function(_, job)
      if job.id == "a" then error "a bug" end
      if job.id == "c" then err.raise("http", "answered 401", { status = 401 }) end
    end })
    local server, run = serve(plugin, { record = kept })
    run(server)
    assert.same({ "b" }, dropped)
    assert.equal(2, server.untold)
  end)

  it("keeps a job whose lease cannot be asked for a while", function()
    local beats = 0
    local plugin, said = protocol({ { id = "a" } }, { beat = function()
      beats = beats + 1
      err.raise("transport", "connection reset")
    end })
    local server, run = serve(plugin, { executor = executor(function()
      task.sleep(60)
      return { state = "success" }
    end) })
    run(server)
    assert.is_true(beats >= 5)
    assert.equal("a=success", states(said))
  end)

  it("ships the log in order, again after failures, before the result", function()
    local got, tries = {}, 0
    local plugin, said = protocol({ { id = "a" } }, { log = function(_, _, chunk)
      tries = tries + 1
      if tries % 2 == 1 then err.raise("transport", "reset") end
      got[#got + 1] = chunk
    end })
    local finish = plugin.finish
    function plugin.finish(...) got[#got + 1] = "finish" finish(...) end
    local server, run = serve(plugin, { executor = executor(function(_, ctx)
      for i = 1, 5 do
        ctx.log(i % 2 == 0 and "stderr" or "stdout", "line " .. i .. "\n")
        task.sleep(1)
      end
      return { state = "success" }
    end) })
    run(server)
    local text, offset = {}, 0
    for i = 1, #got - 1 do
      assert.equal(offset, got[i].offset)
      offset = offset + #got[i].text
      text[#text + 1] = got[i].stream .. ":" .. got[i].text
    end
    assert.equal("stdout:line 1\nstderr:line 2\nstdout:line 3\nstderr:line 4\nstdout:line 5\n", table.concat(text))
    assert.equal("finish", got[#got])
    assert.equal("a=success", states(said))
  end)

  it("goes on with the job when the server refuses its log for good", function()
    local plugin, said = protocol({ { id = "a" } }, {
      log = function() err.raise("http", "413", { status = 413 }) end,
    })
    local server, run = serve(plugin, { executor = executor(function(_, ctx)
      for _ = 1, 100 do ctx.log("stdout", ("x"):rep(65536)) end
      return { state = "success" }
    end) })
    run(server)
    assert.equal("a=success", states(said))
  end)

  it("finishes what runs and takes no more when it drains", function()
    local server
    local jobs = {}
    for i = 1, 100 do jobs[i] = { id = tostring(i) } end
    local plugin, said = protocol(jobs)
    local run
    server, run = serve(plugin, { executor = executor(function()
      task.sleep(10)
      return { state = "success" }
    end) })
    local handle = task.start(run, server)
    task.sleep(15)
    server:drain("enough")
    assert.same({ true, 0 }, { handle:join() })
    assert.equal(2, #said.finished)
  end)

  it("does not lose the job of a claim that was under way when it drained", function()
    local plugin, said = protocol({}, { claim = function() task.sleep(5) return { id = "late" } end })
    local server, run = serve(plugin)
    local handle = task.start(run, server)
    task.sleep(1)
    server:drain("enough")
    handle:join()
    assert.equal("late=success", states(said))
  end)

  it("gives the job of such a claim back where the server takes it", function()
    local released
    local plugin, said = protocol({}, {
      claim = function() task.sleep(5) return { id = "late" } end,
      release = function(_, job) released = job.id end,
    })
    local server, run = serve(plugin)
    local handle = task.start(run, server)
    task.sleep(1)
    server:drain("enough")
    handle:join()
    assert.equal("late", released)
    assert.equal("", states(said))
  end)

  it("cancels running jobs when asked to and still reports them", function()
    local plugin, said = protocol { { id = "a" } }
    local server, run = serve(plugin, { executor = executor(function() task.sleep(3600) end) })
    local handle = task.start(run, server)
    task.sleep(1)
    server:drain("stop")
    server:cancel_jobs("the worker stops")
    handle:join()
    assert.equal("a=cancelled", states(said))
    assert.equal("the worker stops", said.finished[1].reason)
  end)

  it("pulses with the running jobs, also while a claim takes long", function()
    local pulses, running = 0, 0
    local jobs = { { id = "a" } }
    local plugin = protocol(jobs, {
      claim = function()
        if #jobs > 0 then return table.remove(jobs) end
        task.sleep(100)
        return "end"
      end,
      pulse = function(_, list) pulses = pulses + 1 running = math.max(running, #list) end,
    })
    local server, run = serve(plugin, { slots = 2, conf = { heartbeat = 10 }, executor = executor(function()
      task.sleep(50)
      return { state = "success" }
    end) })
    run(server)
    assert.is_true(pulses >= 9)
    assert.equal(1, running)
  end)

  it("wraps claims, runs and reports in the policies, in the order written", function()
    local order = {}
    local function policy(name)
      local function wrap(_, next)
        return function(...) order[#order + 1] = name return next(...) end
      end
      return { conf = {}, plugin = { claim = wrap, run = wrap, finish = wrap } }
    end
    local both = { policy "outer", policy "inner" }
    local plugin = protocol { { id = "a" } }
    local server, run = serve(plugin, { policies = { run = both, finish = { both[2] } } })
    run(server)
    assert.same({ "outer", "inner", "inner" }, order)
  end)

  it("claims nothing when the executor cannot work on this machine", function()
    local plugin, said = protocol { { id = "a" } }
    local cannot = executor(function() return { state = "success" } end)
    cannot.plugin.check = function() err.raise("config", "there is no docker here") end
    local server, run = serve(plugin, { executor = cannot })
    assert.equal(78, run(server))
    assert.equal(0, said.claims)
    assert.equal(0, said.open)
  end)

  it("breaks a claim off at once where the plugin says that it takes nothing", function()
    local plugin = protocol({}, { claim = function() task.sleep(1000) end, claim_breaks = true })
    local server, run = serve(plugin)
    local handle = task.start(run, server)
    task.sleep(1)
    local before = sys.mono()
    server:drain("enough")
    handle:join()
    assert.is_true(sys.mono() - before < 1)
  end)

  it("lets a job run on when it drains for longer than a claim may take", function()
    local plugin, said = protocol({ { id = "a" }, { id = "b" } })
    local server, run = serve(plugin, { executor = executor(function()
      task.sleep(300)
      return { state = "success" }
    end) })
    local handle = task.start(run, server)
    task.sleep(1)
    server:drain("enough")
    assert.same({ true, 0 }, { handle:join() })
    assert.equal("a=success", states(said))
  end)

  it("asks again after a pause when it was handed something that is no job", function()
    local claims = 0
    local plugin, said = protocol({}, { claim = function()
      claims = claims + 1
      return claims < 4 and { id = "bad", secrets = 5 } or "end"
    end })
    local server, run = serve(plugin)
    local before = sys.mono()
    assert.equal(0, run(server))
    assert.is_true(sys.mono() - before >= 3)
    assert.equal("bad=error bad=error bad=error", states(said))
  end)

  it("ends alone when its plugin raises a cancel of its own", function()
    local plugin = protocol({}, { claim = function() err.raise("cancelled", "not ours") end })
    local server, run = serve(plugin)
    assert.equal(70, run(server))
  end)

  it("asks again when the protocol says, and not sooner", function()
    local at = {}
    local backoff = require("worker.registry").open({ "plugins" }):get("policy", "backoff")
    local plugin = protocol({}, { claim = function()
      at[#at + 1] = sys.mono()
      if #at == 4 then return "end" end
      return nil, 7
    end })
    local server, run = serve(plugin, { policies = { claim = { {
      plugin = backoff, conf = { first = 1, most = 60 },
    } } } })
    run(server)
    for i = 2, 4 do assert.is_true(math.abs(at[i] - at[i - 1] - 7) < 0.1) end
  end)

  it("pulses at a steady pace, and sooner after one that failed", function()
    local at, fails = {}, 0
    local plugin = protocol({}, {
      claim = function() task.sleep(100) return "end" end,
      pulse = function()
        at[#at + 1] = sys.mono()
        task.sleep(4)
        if #at > 3 and fails < 3 then
          fails = fails + 1
          err.raise("transport", "connection reset")
        end
      end,
    })
    local server, run = serve(plugin, { conf = { heartbeat = 10 } })
    run(server)
    assert.is_true(math.abs(at[2] - at[1] - 10) < 0.1)
    for i, most in ipairs { 1, 2, 4 } do
      local wait = at[4 + i] - at[3 + i] - 4
      assert.is_true(wait >= most / 2 - 0.1 and wait <= most + 0.1)
    end
    assert.is_true(math.abs(at[8] - at[7] - 10) < 0.1)
  end)

  it("leaves to the server what a dead worker held, where the server hands it out again", function()
    local forgotten, reported = {}, {}
    local left = { { job = { id = "claimed" } }, { job = { id = "started" }, started = true },
      { job = { id = "done" }, started = true, result = { state = "success" } } }
    local kept = setmetatable({
      left = function() return left end,
      forget = function(_, _, job) forgotten[#forgotten + 1] = job.id end,
    }, { __index = record.none() })
    local plugin = protocol({}, {
      hands_out_again = true, claim = function() task.sleep(1) return "end" end,
      finish = function(_, job) reported[#reported + 1] = job.id end,
    })
    local server, run = serve(plugin, { record = kept })
    run(server)
    table.sort(forgotten)
    assert.same({ "claimed", "done", "started" }, forgotten)
    assert.same({ "done" }, reported)
  end)

  it("tells an outage of its claims once, however well its pulses do", function()
    local plugin, tries = protocol({}, { pulse = function() end }), 0
    function plugin.claim()
      tries = tries + 1
      if tries == 40 then return "end" end
      task.sleep(1)
      err.raise("http", "answered 500", { status = 500 })
    end
    local server, run = serve(plugin, { conf = { heartbeat = 2 } })
    local told, begun = server.trouble.failed, 0
    function server.trouble.failed(...)
      local first = told(...)
      begun = begun + (first and 1 or 0)
      return first
    end
    run(server)
    assert.equal(40, tries)
    assert.equal(1, begun)
  end)

  it("does not call a server back whose claims never worked", function()
    local plugin = protocol({}, { claim = function() err.raise("http", "answered 500", { status = 500 }) end })
    local heard = {}
    local server, run = serve(plugin, { policies = { claim = { { conf = {}, plugin = { name = "patient", claim = function(_, next)
      return function(context)
        local ok, job = pcall(next, context)
        if ok then return job end
        if context.pause(1) then error(job, 0) end
      end
    end } } } } })
    server.events:listen(function(name) heard[name] = true end)
    task.start(function()
      task.sleep(10)
      server:drain "it is time"
    end)
    run(server)
    assert.is_true(heard["server.failing"])
    assert.is_nil(heard["server.back"])
  end)

  it("lets its protocol hear what happens, and leaves to it what it tells itself", function()
    local heard, emitted = {}, {}
    local plugin = protocol({ { id = "a" } }, { heard = function(conf, name, facts)
      assert.equal("c", conf.mark)
      heard[#heard + 1] = name
      if name == "job.claimed" then error "broken" end
      if name == "server.opened" then assert.same({ "fake" }, facts.executors) end
      return name == "job.started"
    end })
    local server, run = serve(plugin, { conf = { mark = "c" }, executor = { name = "fake", conf = {},
      plugin = ok_executor.plugin } })
    server.events:listen(function(name, facts) emitted[name] = facts.told or false end)
    run(server)
    assert.same({ "executor.ready", "server.opened", "server.polled", "job.claimed", "job.started", "job.finished",
      "job.reported", "server.polled", "server.draining", "server.closed" }, heard)
    assert.is_true(emitted["job.started"])
    assert.is_false(emitted["job.claimed"])
    assert.is_false(emitted["job.finished"])
  end)

  it("says that a job was reported when its server knows, be it after a restart, and not before", function()
    local reported = {}
    local function reporting(jobs, finish, kept)
      local plugin = protocol(jobs, { finish = finish })
      local server, run = serve(plugin, { record = kept })
      server.events:listen(function(name, facts)
        if name == "job.reported" then reported[#reported + 1] = facts.job.id .. "=" .. facts.result.state end
      end)
      run(server)
    end
    local kept = setmetatable({ left = function()
      return { { job = { id = "done" }, result = { state = "failed" } }, { job = { id = "cut off" }, started = true } }
    end }, { __index = record.none() })
    reporting({ { id = "new" } }, function() end, kept)
    table.sort(reported)
    assert.same({ "cut off=error", "done=failed", "new=success" }, reported)
    reported = {}
    reporting({ { id = "unsaid" } }, function() err.raise("transport", "nobody there") end)
    assert.same({}, reported)
  end)

  it("counts what it could not keep of the output", function()
    local got
    local plugin = protocol({ { id = "a" } }, { output = 100, finish = function(_, _, result) got = result end })
    local server, run = serve(plugin, { executor = executor(function(_, ctx)
      ctx.log("stdout", ("x"):rep(1000))
      ctx.log("stderr", "short")
      return { state = "success" }
    end) })
    run(server)
    assert.same({ stdout = 900 }, got.dropped)
    assert.equal("short", got.output.stderr)
  end)

  it("keeps the output that the protocol wants to report: all of it, or some streams", function()
    local function kept(output)
      local got
      local plugin = protocol({ { id = "a" } }, { output = output, finish = function(_, _, result)
        got = result.output
      end })
      local server, run = serve(plugin, { executor = executor(function(_, ctx)
        ctx.log("stdout", "out\n")
        ctx.log("stderr", "err\n")
        return { state = "success" }
      end) })
      run(server)
      return got
    end
    assert.same({ stdout = "out\n", stderr = "err\n" }, kept(true))
    assert.same({ stderr = "err\n" }, kept { stderr = 1024 })
    assert.is_nil(kept(nil))
  end)

  it("reports a job whose cancel came too late, when it had just ended", function()
    local server
    local plugin, said = protocol { { id = "a" } }
    local run
    server, run = serve(plugin, { executor = executor(function()
      server:cancel_jobs("too late")
      return { state = "success" }
    end) })
    run(server)
    assert.equal("a=success", states(said))
  end)

  it("gives a server up whose plugin runs away for the third time, and leaves the others alone", function()
    local function run_away() err.raise("limit", "fake.lua:7: stopped after running for 5.0 s", { runaway = true }) end
    for _, slot in ipairs { "open", "claim", "beat", "pulse", "finish" } do
      local calls, jobs = 0, {}
      for i = 1, 9 do jobs[i] = { id = tostring(i) } end
      local plugin = protocol(jobs, { [slot] = function()
        calls = calls + 1
        return run_away()
      end })
      local server, run = serve(plugin, { conf = { heartbeat = 5, beat = 5 }, executor = executor(function()
        task.sleep(60)
        return { state = "success" }
      end) })
      assert.equal(70, run(server), slot)
      assert.is_true(calls >= 3 and calls <= 5, slot .. " was called " .. calls .. " times")
      assert.matches("fake.lua:7: .*3 times in %w+; meanwhile nobody else could work", tostring(server.failure))
    end
  end)

  it("bears one that runs away now and then", function()
    local at = 0
    local plugin = protocol({}, { claim = function()
      at = at + 1
      if at == 5 then return "end" end
      task.sleep(400)
      err.raise("limit", "slow", { runaway = true })
    end })
    local server, run = serve(plugin)
    assert.equal(0, run(server))
  end)
end)
