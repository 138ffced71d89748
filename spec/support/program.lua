-- program.lua: the worker from outside: the binary under test as a child with real time and signals.
--
--   local run <close> = program.start { "exec", "--", "true", cwd = dir.root, env = { A = "b" } }
--   run:says "job%.started"          wait until stderr has that pattern
--   run:signal "TERM"
--   local result = run:wait()        { code=, signal=, stdout=, stderr=, memory= }
--   program.run { ... }              start and wait
--   program.of_tag("4242.1")         pids of processes with that word on their command line
--
-- WORKER_BIN names the binary; without it that is the one that runs the specs.
local fs = require "worker.fs"
local process = require "worker.process"
local sys = require "worker.core.sys"
local task = require "worker.task"

local program = {}

program.binary = fs.realpath(sys.env "WORKER_BIN" or "/proc/self/exe")
program.plugins = fs.realpath "plugins"

local PATIENCE = 120

local methods = {}
local meta = { __index = methods }

-- What the worker itself ever had in memory; of a process that is gone, nothing.
local function memory_of(pid)
  local text = fs.read(("/proc/%d/status"):format(pid))
  return text and tonumber(text:match("VmHWM:%s*(%d+)"))
end

local function read_all(run)
  local since = 0
  for stream, text in run.child:output() do
    run.bytes[stream] = run.bytes[stream] + #text
    if run.count_only and stream == "stdout" then text = text:sub(-64) end
    local parts = run[stream]
    parts[#parts + 1] = text
    if run.count_only and #parts > 64 then run[stream] = { table.concat(parts):sub(-64) } end
    since = since + #text
    if since > 1 << 20 or run.memory == nil then
      run.memory = math.max(run.memory or 0, memory_of(run.child.pid) or 0)
      since = 0
    end
    run.heard:fire(1 << 20)
  end
  run.ended = true
  run.heard:fire(1 << 20)
end

--- Start the binary; options beside the words: cwd, env, count_only (keep no stdout, count it),
-- wrap (words in front of the binary), binary (another one).
function program.start(options)
  local argv = table.move(options.wrap or {}, 1, #(options.wrap or {}), 1, {})
  argv[#argv + 1] = options.binary or program.binary
  table.move(options, 1, #options, #argv + 1, argv)
  local env = { PATH = sys.env "PATH", HOME = "/tmp", WORKER_LUA = sys.env "WORKER_LUA" and fs.realpath(sys.env "WORKER_LUA") }
  for name, value in pairs(options.env or {}) do env[name] = value end
  local run = setmetatable({
    child = process.spawn { argv = argv, cwd = options.cwd, env = env },
    stdout = {}, stderr = {}, bytes = { stdout = 0, stderr = 0 }, heard = task.signal(),
    count_only = options.count_only,
  }, meta)
  run.reader = task.start(read_all, run)
  return run
end

--- Its process id.
function methods:pid() return self.child.pid end

--- The most memory it ever had, so far, in KiB.
function methods:peak()
  self.memory = math.max(self.memory or 0, memory_of(self.child.pid) or 0)
  return self.memory
end

--- Send it a signal; nobody else.
function methods:signal(name) self.child:kill(name) end

--- Wait until stderr has the pattern; an error with all of stderr when it ends without.
function methods:says(pattern)
  local said = task.within(PATIENCE, function()
    while not table.concat(self.stderr):find(pattern) do
      if self.ended then error("it ended and said: " .. table.concat(self.stderr), 0) end
      self.heard:wait(1)
    end
  end)
  if not said then error(("it never said %s, but: %s"):format(pattern, table.concat(self.stderr)), 2) end
end

--- Wait for its end.
function methods:wait()
  local ended, result = task.within(PATIENCE * 4, function()
    self.reader:join()
    return self.child:wait()
  end)
  if not ended then error("it does not end; it said: " .. table.concat(self.stderr), 2) end
  return {
    code = result.exit_code, signal = result.signal, bytes = self.bytes, memory = self.memory or 0,
    stdout = table.concat(self.stdout), stderr = table.concat(self.stderr),
  }
end

function meta:__close()
  self.child:close()
  self.reader:join()
end

--- Start it, wait for its end.
function program.run(options)
  local run <close> = program.start(options)
  return run:wait()
end

--- Wait until `what()` gives something; real time.
function program.eventually(what)
  local value
  task.within(PATIENCE, function()
    value = what()
    while not value do
      task.sleep(0.01)
      value = what()
    end
  end)
  return value or error("it never happened", 2)
end

--- The processes whose command line has this word: jobs carry one so that they can be found again.
function program.of_tag(tag)
  local pids = {}
  for _, name in ipairs(fs.list("/proc")) do
    local line = name:find("^%d+$") and select(2, pcall(fs.read, "/proc/" .. name .. "/cmdline"))
    if type(line) == "string" and line:find(tag, 1, true) then pids[#pids + 1] = tonumber(name) end
  end
  return pids
end

local tags = 0

--- A word that is on no other command line: a number of seconds to sleep.
function program.tag()
  tags = tags + 1
  return ("4%05d.%d"):format(sys.pid() % 100000, tags)
end

return program
