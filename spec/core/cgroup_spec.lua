-- A group per job: what it limits, what it measures, and that nothing gets out of it.  Each way of
-- working is forced in turn, so that the poor hosts are tested on the rich one.
local cgroup = require "worker.core.cgroup"
local core = require "worker.core.process"
local fs = require "worker.fs"
local process = require "worker.process"
local task = require "worker.task"

local ENV = { PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" }
local MIB = 1024 * 1024

local places = {}
for _, mode in ipairs { "auto", "v2", "v1" } do
  local place, reason = cgroup.open(mode)
  places[mode] = { can = place and place:can() or {}, reason = reason }
  if place then place:close() end
end

local function spawn(group, script, options)
  options = options or {}
  options.argv, options.env, options.cgroup = { "sh", "-c", script }, ENV, group
  return process.spawn(options)
end

local function read(child)
  local pieces = {}
  for _, text in child:output() do pieces[#pieces + 1] = text end
  return table.concat(pieces)
end

local function run(group, script)
  local child <close> = spawn(group, script)
  local output = read(child)
  return child:wait(), output
end

local function sh(script) return process.run({ argv = { "sh", "-c", script }, env = ENV }).stdout end

local function alive(pid)
  return sh(("grep -q '^State:.[^ZX]' /proc/%d/status 2>/dev/null && echo yes"):format(pid)) == "yes\n"
end

-- Read `count` numbers, one per line, without waiting for the end of the output.
local function numbers(child, count)
  local text, list = "", {}
  for _, piece in child:output() do
    text = text .. piece
    if select(2, text:gsub("\n", "")) >= count then break end
  end
  for number in text:gmatch("%d+") do list[#list + 1] = math.tointeger(number) end
  return list
end

-- Three that a process group does not hold: a new session, a double fork with an empty environment,
-- and one that ignores what can be ignored.
local ESCAPEES = [[
  setsid sh -c 'echo $$; exec sleep 1000' &
  setsid env -i PATH=/usr/bin:/bin sh -c '(sh -c "echo \$\$; exec sleep 1000" &) &'
  trap "" TERM HUP INT
  echo $$
  sleep 1000 & wait; sleep 1000
]]

for _, mode in ipairs { "v2", "v1" } do
  local can = places[mode].can

  describe("a job's group with cgroup " .. mode, function()
    local function case(name, needs, test)
      if next(can) == nil then
        return pending(name .. " (" .. tostring(places[mode].reason) .. ")")
      elseif needs and not can[needs] then
        return pending(("%s (cgroup %s has no %s controller here)"):format(name, mode, needs))
      end
      it(name, function()
        local place <close> = cgroup.open(mode)
        test(place)
        for _ = 1, 100 do
          if place:count() == 0 then break end
          task.sleep(0.01)
        end
        assert.equal(0, place:count())
      end)
    end

    case("kills what left the session, the parents and the environment #realtime", nil, function(place)
      local group <close> = place:create("escape")
      local child = spawn(group, ESCAPEES)
      local pids = numbers(child, 3)
      assert.equal(3, #pids)
      for _, pid in ipairs(pids) do assert.is_true(alive(pid)) end
      group:kill()
      assert.is_true(group:wait())
      for _, pid in ipairs(pids) do assert.is_false(alive(pid)) end
      child:close()
    end)

    case("kills while its processes go on forking #realtime", nil, function(place)
      local group <close> = place:create("forks", { pids = 200 })
      local child <close> = spawn(group, "echo 1; while :; do (sleep 0.02 &); done")
      numbers(child, 1)
      group:kill()
      assert.is_true(group:wait(20))
      assert.is_false(group:populated())
    end)

    case("tells when it is empty, and when it is not yet", nil, function(place)
      local group <close> = place:create("wait")
      local child <close> = spawn(group, "sleep 0.2 & exit 0")
      child:wait()
      assert.is_true(group:populated())
      assert.is_false(group:wait(0))
      assert.is_true(group:wait())
      assert.is_false(group:populated())
      assert.is_true(group:wait(0.1))
    end)

    case("signals every process in it and says how many", nil, function(place)
      local group <close> = place:create("signal")
      local child <close> = spawn(group, "setsid sleep 1000 & sleep 1000 & echo 1; wait")
      numbers(child, 1)
      for _ = 1, 100 do
        if group:signal(0) == 3 then break end
        task.sleep(0.01)
      end
      assert.equal(3, group:signal(0))
      assert.equal(3, group:signal(15))
      assert.is_true(group:wait())
      assert.equal(15, child:wait().signal)
    end)

    case("is removed when closed, with groups its job made inside and all in them", nil, function(place)
      local group = place:create("nested")
      local path = group:path()
      local child <close> = spawn(group, ([[
        mkdir -p %s/inner/deep
        sh -c 'echo 0 > %s/inner/deep/cgroup.procs; echo 1; exec sleep 1000']])
        :format(path, path))
      numbers(child, 1)
      group:close()
      child:close()
      assert.equal("worker.cgroup (closed)", tostring(group))
    end)

    case("has a name of its own, whatever the job is called", nil, function(place)
      local one <close> = place:create("../a b/cgroup.kill")
      local two <close> = place:create("../a b/cgroup.kill")
      assert.matches("/job%-___a_b_cgroup_kill%-1$", one:path())
      assert.matches("/job%-___a_b_cgroup_kill%-2$", two:path())
    end)

    -- Where the tree counts more than time every job gets a new one: what is said here holds as well.
    case("without a name counts from nothing, whoever had it before", nil, function(place)
      local paths = {}
      for i = 1, 2 do
        local group <close> = place:create()
        paths[i] = group:path()
        assert.is_false(group:populated())
        assert.is_true((group:usage().cpu or 0) == 0)
        assert.equal(0, run(group, "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done").code)
        assert.is_true((group:usage().cpu or 1) > 0)
      end
      local counts = places[mode].can
      assert.equal(mode == "v2" and not counts.memory and not counts.pids, paths[1] == paths[2])
    end)

    case("without a name counts from nothing after several children, whenever it was asked", nil, function(place)
      local function burn(group) assert.equal(0, run(group, "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done").code) end
      for _, ask in ipairs { "usage", "populated", "both", "nothing" } do
        local group = place:create()
        burn(group)
        if ask ~= "nothing" then
          group:populated()
          group:usage()
        end
        burn(group)
        if ask == "usage" or ask == "both" then group:usage() end
        if ask == "populated" or ask == "both" then group:populated() end
        group:close()
        local next <close> = place:create()
        assert.is_true((next:usage().cpu or 0) == 0, ask)
      end
    end)

    case("without a name is no one else's while it is used, once killed, frozen or with groups inside", nil, function(place)
      local function path_after(spoil)
        local group = place:create()
        local path, child = group:path(), spoil(group)
        group:close()
        if child then child:close() end
        return path
      end
      local one, two = place:create(), place:create()
      assert.not_equal(one:path(), two:path())
      one:close()
      two:close()
      for _, spoil in ipairs {
        function(group) return spawn(group, "exec sleep 1000") end,
        function(group)
          local child = spawn(group, "exec sleep 1000")
          group:kill()
          group:wait()
          return child
        end,
        function(group) fs.mkdir(group:path() .. "/inside") end,
        function(group)
          sh(("[ ! -e %s/cgroup.freeze ] || echo 1 >%s/cgroup.freeze"):format(group:path(), group:path()))
        end,
      } do
        local spoilt = path_after(spoil)
        local next <close> = place:create()
        local frozen_by_nobody = mode == "v1" and fs.exists(spoilt)
        assert.is_true(frozen_by_nobody or next:path() ~= spoilt)
        assert.equal(0, run(next, "exit 0").code)
      end
    end)

    case("without a name may be left while a child is on its way into it", nil, function(place)
      for _ = 1, 30 do
        local handle = task.start(function()
          local group <close> = place:create()
          spawn(group, "exec sleep 6084")
        end)
        task.yield()
        handle:cancel()
        handle:join()
        local next <close> = place:create()
        assert.equal(0, run(next, "exit 0").code)
        assert.is_false(next:populated())
      end
      for _ = 1, 100 do
        if sh("pgrep -fx 'sleep 6084'") == "" then break end
        task.sleep(0.01)
      end
      assert.equal("", sh("pgrep -fx 'sleep 6084'"))
    end)

    case("measures processor time", "cpu_time", function(place)
      local group <close> = place:create("cpu")
      run(group, "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done")
      assert.is_true(group:usage().cpu > 0.01)
    end)

    case("ends what needs more memory than it may have, and names it", "memory", function(place)
      local group <close> = place:create("oom", { memory = 32 * MIB, swap = 0 })
      assert.same({}, group:unenforced())
      local result = run(group, "x=$(head -c 200000000 /dev/zero | tr '\\0' x)")
      local usage = group:usage()
      assert.equal(9, result.signal)
      assert.is_true(usage.oom_kills >= 1)
      assert.is_true(usage.memory_peak > 16 * MIB and usage.memory_peak <= 33 * MIB)
    end)

    case("counts no such end where there was none", "memory", function(place)
      local group <close> = place:create("fine", { memory = 64 * MIB })
      assert.equal(0, run(group, "exec true").code)
      assert.equal(0, group:usage().oom_kills)
    end)

    case("refuses more processes than it may have, and counts that", "pids", function(place)
      local group <close> = place:create("pids", { pids = 5 })
      run(group, "for i in 1 2 3 4 5 6 7 8; do sleep 1000 & done 2>/dev/null; true")
      local usage = group:usage()
      assert.is_true(usage.pids_refused >= 1)
      assert.is_true(usage.pids <= 5)
    end)

    case("slows down what uses more processor than it may #realtime", "cpus", function(place)
      local group <close> = place:create("slow", { cpus = 0.1 })
      local child <close> = spawn(group, "while :; do :; done")
      task.sleep(0.5)
      local usage = group:usage()
      assert.is_true(usage.throttled > 0)
      if usage.cpu then assert.is_true(usage.cpu < 0.4) end
      group:kill()
      child:wait()
    end)

    case("is not taken for empty by who asks while a child is on its way in #realtime", nil, function(place)
      local group, pid = place:create(), nil
      task.scope(function(scope)
        scope:spawn(function()
          local handle <close> = core.spawn { env = ENV, cgroup = group,
            argv = { "sh", "-c", "setsid sleep 1000 >/dev/null 2>&1 & echo $!" } }
          pid = math.tointeger(select(2, handle:read(1)):match "%d+")
          handle:wait()
        end)
        scope:spawn(function() group:populated() end)
        scope:wait()
      end)
      group:close()
      for _ = 1, 500 do
        if not alive(pid) then break end
        task.sleep(0.01)
      end
      assert.is_false(alive(pid))
    end)

    local function score(pid) return tonumber(fs.read(("/proc/%d/oom_score_adj"):format(pid))) end

    case("makes better victims of all that lives in it for a moment, and of what they start #realtime", nil, function(place)
      local group <close> = place:create(nil, nil, 400)
      local child <close> = spawn(group, [[
        setsid sh -c 'echo $$; exec sleep 1000' &
        sh -c 'echo 700 >/proc/self/oom_score_adj; echo $$; exec sleep 1000' &
        echo $$
        sleep 0.5; sleep 1000 & echo $! >&2; wait]])
      local pids, own = numbers(child, 3), false
      for _ = 1, 200 do
        if group:signal(0) == 4 then break end
        task.sleep(0.01)
      end
      task.sleep(0.5)
      for _, pid in ipairs(pids) do
        if score(pid) == 700 and not own then own = true else assert.equal(400, score(pid)) end
      end
      assert.is_true(own)
      pids = numbers(child, 1)
      assert.equal(400, score(pids[1]))
    end)

    case("gives its score to each of many processes, some at a time #realtime", nil, function(place)
      local group <close> = place:create(nil, nil, 400)
      local first <close> = spawn(group, [[
        echo 0 >/proc/self/oom_score_adj; for i in $(seq 600); do sleep 1000 & done; echo 1; wait]])
      numbers(first, 1)
      local second <close> = spawn(group, "echo 1; exec sleep 1000") -- so all are looked at anew
      numbers(second, 1)
      task.sleep(1.5)
      local many, low = 0, 0
      for pid in fs.read(group:path() .. "/cgroup.procs"):gmatch("%d+") do
        many, low = many + 1, low + (score(pid) < 400 and 1 or 0)
      end
      assert.same({ 602, 0 }, { many, low })
    end)

    case("gives its score to none that came after it was closed #realtime", nil, function(place)
      local first = place:create(nil, nil, 400)
      run(first, "exit 0")
      first:close()
      local next <close> = place:create()
      local child <close> = spawn(next, "echo $$; exec sleep 1000")
      local own = tonumber(fs.read "/proc/self/oom_score_adj")
      task.sleep(0.35)
      assert.equal(math.max(own, 0), score(numbers(child, 1)[1]))
    end)

    case("has no score below 0 and above 1000", nil, function(place)
      for _, wrong in ipairs { -1, 1001 } do
        assert.has_error(function() place:create(nil, nil, wrong) end)
      end
    end)

    if mode == "v2" then
      case("that is frozen keeps a child from being born, and nobody else once it is given up #realtime", nil, function(place)
        local group <close> = place:create "frozen"
        sh(("echo 1 > %s/cgroup.freeze"):format(group:path()))
        local stuck = task.start(function() return spawn(group, "true") end)
        task.sleep(0.1)
        assert.is_false((task.within(0.3, run, nil, "true")))
        stuck:cancel()
        assert.is_true((task.within(10, run, nil, "true")))
      end)

      case("goes to no other job once there were groups below it", nil, function(place)
        local function path_of(script)
          local group <close> = place:create()
          local _, out = run(group, script .. "; sed -n 's/^0:://p' /proc/self/cgroup")
          return out
        end
        local first = path_of "true"
        assert.equal(first, path_of "true")
        path_of(("d=$(ls -d /sys/fs/cgroup/unified%s /sys/fs/cgroup%s 2>/dev/null); mkdir $d/x; rmdir $d/x"):format(
          first:gsub("\n", ""), first:gsub("\n", "")))
        assert.not_equal(first, path_of "true")
      end)
    end

    if mode == "v2" and next(can) and not can.memory then
      case("tells which limits nobody keeps", nil, function(place)
        local group <close> = place:create("bare", { memory = MIB, pids = 10 })
        assert.same({ memory = true, pids = true }, group:unenforced())
      end)
    end
  end)
end

describe("the place of the groups", function()
  if next(places.auto.can) == nil then
    return pending("is below our own group (" .. tostring(places.auto.reason) .. ")")
  end

  it("says why where there is none", function()
    local place, reason = cgroup.open("none")
    assert.is_nil(place)
    assert.matches("switched off", reason)
  end)

  it("says what it cannot do, a line each", function()
    local place <close> = cgroup.open("auto")
    local can, notes = place:can(), place:notes()
    for name, what in pairs { memory = "memory", pids = "number of processes", cpus = "cpu" } do
      if not can[name] then
        assert.matches("no control group can limit the " .. what, notes, 1, true)
      end
    end
    if can.kill and not can.oom_group then assert.matches("no memory controller", notes, 1, true) end
  end)

  it("is gone when closed, and so are the jobs in it", function()
    local place = cgroup.open("auto")
    local paths = place:paths()
    local group = place:create("left")
    local child <close> = spawn(group, "setsid sleep 1000 & echo $!; wait")
    local pid = numbers(child, 1)[1]
    place:close()
    assert.is_false(alive(pid))
    for _, path in ipairs(paths) do assert.equal("", sh("ls -d " .. path .. " 2>/dev/null")) end
    assert.equal("worker.cgroup (closed)", tostring(group))
    assert.has_error(function() group:usage() end)
  end)

  it("is made for each worker anew; those of living workers are left alone", function()
    local one <close> = cgroup.open("auto")
    local group <close> = one:create("mine")
    local two <close> = cgroup.open("auto")
    assert.not_equal(one:paths()[1], two:paths()[1])
    assert.equal(0, run(group, "exec true").code)
  end)

  it("ends the groups of workers that are dead #realtime", function()
    local place = cgroup.open("auto")
    local stale = {}
    for i, path in ipairs(place:paths()) do
      stale[i] = path:gsub("[^/]+$", "worker-999999999-1-dead")
      sh("mkdir -p " .. stale[i] .. "/job-7-1")
    end
    place:close()
    local child <close> = process.spawn { env = ENV, argv = { "sh", "-c", ([[
      for d in %s; do echo 0 > $d/job-7-1/cgroup.procs; done; echo $$; exec sleep 1000]])
      :format(table.concat(stale, " ")) } }
    local pid = numbers(child, 1)[1]
    assert.is_true(alive(pid))
    local again <close> = cgroup.open("auto")
    assert.is_false(alive(pid))
    for _, path in ipairs(stale) do assert.equal("", sh("ls -d " .. path .. " 2>/dev/null")) end
    assert.equal(0, again:count())
  end)
end)

if places.auto.can.birth and places.v1.can.memory and not places.v2.can.memory then
  it("a job has a v1 directory for what it asks to be limited, and no other", function()
    local place <close> = cgroup.open("auto")
    local function directories(group)
      local name, found = group:path():match("[^/]+$"), {}
      for i, path in ipairs(place:paths()) do
        if fs.exists(path .. "/" .. name) then found[#found + 1] = i end
      end
      return found
    end
    local plain <close> = place:create("plain")
    assert.same({ 1 }, directories(plain))
    local bounded <close> = place:create("bounded", { memory = 64 * MIB })
    assert.equal(2, #directories(bounded))
    assert.is_number(bounded:usage().memory)
  end)
else
  pending("a job has a v1 directory for what it asks to be limited (v2 and v1 are not both here)")
end
