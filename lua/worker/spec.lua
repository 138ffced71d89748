-- spec.lua: busted inside the real binary.
--
-- Every `it` runs in a task of the real loop, so a spec is straight code against the real core and
-- may wait.  Time is virtual: with nothing ready the loop jumps to the next timer.  A name (of a
-- describe or an it) that contains #realtime switches that off.
--
-- After each test nothing may be left: the counts of sys.live() must be what they were before.
local core = require "worker.core.task"
local sys = require "worker.core.sys"
local task = require "worker.task"

local spec = {}

local LUA_PATH = "/usr/share/lua/5.4/?.lua;/usr/share/lua/5.4/?/init.lua;./?.lua"
local SETTLE_TURNS = 400
local HUNG = 300 -- real seconds after which a test is cancelled: nothing will come any more

-- The C libraries that busted's helpers ask for are not in the binary; what is needed of them is.
local function stand_ins()
  package.preload["system"] = function()
    return { gettime = sys.wall, monotime = sys.mono, sleep = task.sleep }
  end
  package.preload["term"] = function()
    return { isatty = function() return false end }
  end
  package.preload["lfs"] = function()
    local function no() return nil, "not in this build" end
    return {
      attributes = no, symlinkattributes = no, currentdir = function() return "." end,
      chdir = no, mkdir = no, rmdir = no, dir = no,
    }
  end
end

-- What is left over ------------------------------------------------------------------------------

local function counts()
  collectgarbage()
  collectgarbage()
  return sys.live()
end

local function leftovers(before)
  local after, left = counts(), {}
  for what, n in pairs(after) do
    local more = n - (before[what] or 0)
    if more > 0 then left[#left + 1] = ("%d %s"):format(more, what) end
  end
  table.sort(left)
  return #left > 0 and table.concat(left, ", ") or nil
end

-- Closing is partly deferred (a child that was killed is reaped a moment later), so what looks like
-- a leak gets some turns of real time to go away.
local function settle(before)
  local left = leftovers(before)
  for _ = 1, SETTLE_TURNS do
    if not left then return nil end
    task.sleep(0.005)
    left = leftovers(before)
  end
  return left
end

local cleanups = {}

--- `spec.after_each(fn)`: call fn after every test, before what is left over is counted.  For
-- support modules whose servers and files end with the test that made them.
function spec.after_each(fn)
  cleanups[#cleanups + 1] = fn
end

-- Running ----------------------------------------------------------------------------------------

local function full_name(busted, element)
  local names = {}
  while element and element.descriptor ~= "file" and element.name do
    table.insert(names, 1, element.name)
    element = busted.context.parent(element)
  end
  return table.concat(names, " ")
end

local function wrap_it(busted, options)
  local register = busted.register
  busted.register = function(descriptor, executor, attributes)
    if descriptor ~= "it" or type(executor) ~= "function" then
      return register(descriptor, executor, attributes)
    end
    return register(descriptor, function(element)
      local name = full_name(busted, element)
      if options.filter and not name:find(options.filter) then return end
      if options.exclude and name:find(options.exclude) then return end
      task.yield() -- each test has the whole time that Lua may run without waiting
      local before = counts()
      sys.virtual(not name:find("#realtime", 1, true))
      local watchdog = core.deadline(HUNG, true)
      executor(element)
      watchdog:close()
      for _, fn in ipairs(cleanups) do fn() end
      sys.virtual(false)
      local left = settle(before)
      if left then
        busted.publish({ "failure", "it" }, element, busted.context.parent(element),
          "left over after the test: " .. left, element.trace)
      end
    end, attributes)
  end
end

-- Reporting --------------------------------------------------------------------------------------

local function reporter(busted, options)
  local report = { passed = 0, failed = 0, skipped = 0, problems = {} }

  local function problem(kind, element, message, trace)
    report.problems[#report.problems + 1] = {
      kind = kind, name = full_name(busted, element), message = tostring(message), trace = trace,
    }
  end

  busted.subscribe({ "test", "start" }, function(element)
    if options.verbose then io.stdout:write("  ", full_name(busted, element), "\n") end
    return nil, true
  end)
  busted.subscribe({ "test", "end" }, function(element, _, status)
    if status == "success" then
      report.passed = report.passed + 1
    elseif status == "pending" then
      report.skipped = report.skipped + 1
    end
    element.counted = status
    return nil, true
  end)
  -- Several files take their time: a line when one is through says how far it is.
  busted.subscribe({ "file", "end" }, function(file)
    if options.tell_files then
      io.stdout:write(("%5d %s\n"):format(report.passed + report.failed, file.name))
    end
    return nil, true
  end)
  local function failed(element, _, message, trace)
    if element.counted == "success" then report.passed = report.passed - 1 end
    if not element.failed then report.failed = report.failed + 1 end
    element.failed = true
    problem("failed", element, message, trace)
    return nil, true
  end
  busted.subscribe({ "failure" }, failed)
  busted.subscribe({ "error" }, failed)
  busted.subscribe({ "pending" }, function(element, _, message)
    problem("skipped", element, message or "pending")
    return nil, true
  end)
  return report
end

local function print_report(report)
  for _, problem in ipairs(report.problems) do
    io.stdout:write(("\n%s: %s\n"):format(problem.kind, problem.name))
    io.stdout:write("  ", (problem.message:gsub("\n", "\n  ")), "\n")
    if problem.kind == "failed" and problem.trace and problem.trace.traceback then
      io.stdout:write((problem.trace.traceback:gsub("\n", "\n  ")), "\n")
    end
  end
  io.stdout:write(("\n%d passed, %d failed, %d skipped\n"):format(
    report.passed, report.failed, report.skipped))
  io.stdout:flush()
end

local function find_files(paths)
  local files = {}
  for _, path in ipairs(paths) do
    if path:find("%.lua$") then
      files[#files + 1] = path
    else
      local list = io.popen(("find '%s' -name '*_spec.lua' | sort"):format(path:gsub("'", "")))
      for line in list:lines() do files[#files + 1] = line end
      list:close()
    end
  end
  return files
end

local function load_file(busted, path)
  local chunk, why = loadfile(path)
  if not chunk then
    busted.publish({ "error", "file" }, { descriptor = "file", name = path }, nil, why, {})
    return
  end
  -- What lies below the test (busted, the runner) helps nobody.
  local function get_trace(_, info)
    info.traceback = info.traceback:gsub("\n%s*%[C%]: in function 'xpcall'.*", "")
    return info
  end
  -- busted gives the chunk its environment, so the chunk itself must be what is called.
  busted.executors.file(path, setmetatable({ getTrace = get_trace }, { __call = chunk }))
end

--- `spec.run(paths, options)`: run the spec files; 0 when all passed, 1 otherwise, 2 when there was
-- nothing to run.
function spec.run(paths, options)
  io.stdout:setvbuf("line")
  stand_ins()
  package.path = LUA_PATH
  local ok, make = pcall(require, "busted.core")
  if not ok then
    io.stderr:write("worker spec: busted is not installed: apt-get install lua-busted\n")
    return 69
  end
  local busted = make()
  wrap_it(busted, options)
  require "busted"(busted)
  local report = reporter(busted, options)
  local files = find_files(#paths > 0 and paths or { "spec" })
  options.tell_files = #files > 1
  for _, path in ipairs(files) do load_file(busted, path) end
  require "busted.execute"(busted)(1, { seed = 1 })
  print_report(report)
  if report.failed > 0 then return 1 end
  return report.passed > 0 and 0 or 2
end

return spec
