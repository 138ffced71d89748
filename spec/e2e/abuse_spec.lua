-- A plugin that misbehaves fails by its name, file and line; a healthy server in the same worker goes
-- on finishing jobs.  All of them misbehave in one worker, side by side: that is harder for it than one
-- at a time, and takes a tenth of the time.
local program = require "spec.support.program"
local sites = require "spec.support.site"

-- A protocol whose first `claim` is the given Lua.
local function protocol(name, claim)
  return 'local hit return { kind = "protocol", name = "' .. name .. '", api = 1, finish = function() end,'
    .. " open = function() return {} end, claim_breaks = true, claim = function(self)"
    .. ' if hit then require("worker.task").sleep(3600) end hit = true ' .. claim .. " end }"
end

local function executor(name, run)
  return 'return { kind = "executor", name = "' .. name .. '", api = 1,'
    .. " run = function(conf, job, ctx) " .. run .. " end }"
end

-- What claim does, and what the log says of it ("AT" is the plugin's file and line).
local CLAIMS = {
  ["loops for ever"] = { "while true do end", "AT: stopped after running" },
  ["loops for ever behind pcall"] = { "while true do pcall(function() while true do end end) end",
    "AT: stopped after running" },
  ["loops for ever in the handler of xpcall"] = {
    "xpcall(error, function() while true do end end) while true do end", "AT: stopped after running" },
  ["loops for ever in __close"] = {
    'local x <close> = setmetatable({}, { __close = function() while true do end end }) error "first"',
    "AT: stopped after running" },
  ["makes a string of 1 GiB"] = { 'return ("x"):rep(1 << 30)', "AT: it wanted more memory" },
  ["fills a table"] = { 'local t, kib = {}, ("x"):rep(1024) while true do t[#t + 1] = kib:rep(4096) end',
    "AT: it wanted more memory" },
  ["sets a global"] = { "count = 1", "AT: a plugin must not set the global 'count'" },
  ["reads a global that is not there"] = { "return io.open", "AT: there is no global 'io' for a plugin" },
  ["makes a coroutine"] = { "coroutine.wrap(function() end)()", "AT: there is no global 'coroutine'" },
  ["loads code"] = { 'load "return 1"', "AT: there is no global 'load'" },
  ["looks at the stack"] = { "debug.traceback()", "AT: there is no global 'debug'" },
  ["requires os"] = { 'require "os"', "AT: a plugin may require .* not 'os'" },
  ["requires a door of the core"] = { 'require "worker.core.sys"', "AT: a plugin may require .* not 'worker.core.sys'" },
  ["requires the driver"] = { 'require "worker.agent"', "AT: a plugin may require .* not 'worker.agent'" },
  ["waits inside gsub"] = { '("x"):gsub("x", function() require("worker.task").sleep(1) end)',
    "AT: this call waits; it cannot do so inside gsub" },
  ["waits inside sort"] = { "table.sort({ 1, 2 }, function() require('worker.task').sleep(1) end)",
    "AT: this call waits" },
  ["raises nothing"] = { "error()", "claim: an error without a message" },
  ["raises a table"] = { "error {}", "claim: table" },
  ["raises a function"] = { "error(print)", "claim: function" },
  ["raises what cannot be printed"] = {
    "error(setmetatable({}, { __tostring = function() error 'no' end }))", "an error that cannot be printed" },
  ["raises what loops when printed"] = {
    "error(setmetatable({}, { __tostring = function() while true do end end }))", "an error that cannot be printed" },
  ["raises what is printed as no text"] = {
    "error(setmetatable({}, { __tostring = function() return {} end }))", "an error that cannot be printed" },
  ["raises a cancel"] = { 'require("worker.error").raise("cancelled", "all of you")', "AT: only the worker cancels" },
  ["raises an error turned into a cancel"] = {
    'local why = require("worker.error").new("wire", "all of you") why.kind = "cancelled" error(why)',
    "server%.failed.*all of you" },
  ["uses __gc"] = { "setmetatable({}, { __gc = function() while true do end end })", "AT: a plugin may not use __gc" },
  ["counts to 2^62 in C with nothing in hand"] = { 'error(#(""):rep(1 << 62))', "claim: 0" },
  ["shifts more entries than there are"] = {
    "table.insert(setmetatable({}, { __len = function() return 1 << 60 end }), 1, 1)", "AT: .*__len is too large" },
  ["moves more entries than there are"] = { "table.move({}, 1, 1 << 60, 2)", "AT: .*too many entries" },
  ["sets a function in a shared module"] = { 'require("worker.fs").rename = nil', "AT: .*cannot be set in it" },
  ["gets at a shared module through pairs"] = {
    'local _, real = pairs(require "worker.fs") real.rename = nil error "tried"', "claim: AT: tried" },
  ["gets at shared data"] = {
    'local fields = require("worker.jobfile").fields for name in pairs(fields) do fields[name] = nil end error "tried"',
    "claim: AT: tried" },
  ["gets at the metatable of errors"] = {
    'getmetatable(require("worker.error").new("a", "b")).__tostring = nil', "AT: attempt to index a nil value" },
  ["gets at the metatable of strings"] = { 'getmetatable("").__index = nil', "AT: attempt to index a nil value" },
  ["sets a function of string"] = {
    'string.format = nil table.concat = nil error "tried"', "claim: AT: tried" },
  ["hands out a number as a job"] = { "return 5", "a job is a table, not a number" },
  ["hands out a job without an id"] = { "return {}", "a job needs an id" },
  ["hands out a job with a loop for fields"] = {
    "return setmetatable({}, { __index = function() while true do end end })", "AT: stopped after running" },
  ["hands out a job with secrets that are none"] = { 'return { id = "x", secrets = 5 }', "secrets must be a list" },
}

-- What an executor does, and the reason its job ends with.
local RUNS = {
  ["loops for ever"] = { "while true do end", "AT: stopped after running" },
  ["makes a string of 1 GiB"] = { 'return ("x"):rep(1 << 30)', "AT: it wanted more memory" },
  ["fails"] = { "local nothing return nothing.field", "AT: attempt to index a nil value" },
  ["returns nothing"] = { "", "the executor returned no result" },
  ["returns a state that is none"] = { 'return { state = "great" }', "the executor returned no result" },
  ["logs what is no text"] = { 'ctx.log("stdout", {})', "AT: ctx.log: expected text, got a table" },
  ["raises a cancel of its own"] = {
    'local why = require("worker.error").new("wire", "mine") why.kind = "cancelled" error(why)', "cancelled" },
}

local function sorted(cases)
  local names = {}
  for name in pairs(cases) do names[#names + 1] = name end
  table.sort(names)
  return names
end

local function at_line(text, path)
  return (text:gsub("AT", function() return (path:gsub("%p", "%%%0")) .. ":%d+" end))
end

describe("with a plugin that misbehaves #realtime", function()
  local site

  before_each(function() site = sites.new() end)
  after_each(function() getmetatable(site).__close(site) end)

  local function drop_three()
    for i = 1, 3 do site:drop(("good-%d.sh"):format(i), "echo fine") end
  end

  local function config(servers)
    return site.dir:write("worker.yaml", ("state: %s\nworkspace: %s\nservers:\n%s"):format(
      site.dir:path "state", site.work, servers))
  end

  local function good_server(more)
    return ("  - { name: good, protocol: local, dir: %s%s }\n"):format(site.root, more or "")
  end

  local function run(path)
    return program.start { "run", "--config", path, "--log-level", "debug", site.dir:path "plugins", program.plugins,
      env = { WORKER_PATIENCE = "1" } }
  end

  local function stop(worker)
    worker:signal "QUIT"
    local result = worker:wait()
    assert.is_nil(result.signal)
    assert.is_nil(result.stderr:find("internal error", 1, true), result.stderr)
    return result
  end

  local function the_good_one_works()
    drop_three()
    for i = 1, 3 do assert.equal("success", site:result("good-" .. i).state) end
  end

  -- Each case is a plugin and a server of its own: bad1, bad2 ...
  local function servers(cases, make)
    local list, paths = {}, {}
    for i, name in ipairs(sorted(cases)) do
      list[i], paths[name] = make("bad" .. i, cases[name][1])
    end
    return table.concat(list) .. good_server(), paths
  end

  local function said_by(worker, server)
    local lines = {}
    for line in table.concat(worker.stderr):gmatch("[^\n]+") do
      if line:find("server=" .. server .. "$") or line:find("server=" .. server .. " ") then lines[#lines + 1] = line end
    end
    return table.concat(lines, "\n")
  end

  it("in its claim, each is told by file and line, and the others go on", function()
    local list, paths = servers(CLAIMS, function(bad, code)
      return ("  - { name: %s, protocol: %s }\n"):format(bad, bad),
        site.dir:write(("plugins/protocols/%s.lua"):format(bad), protocol(bad, code))
    end)
    local worker <close> = run(config(list))
    for i, name in ipairs(sorted(CLAIMS)) do
      local pattern = at_line(CLAIMS[name][2], paths[name])
      local ok = pcall(program.eventually, function() return said_by(worker, "bad" .. i):find(pattern) end)
      assert.is_true(ok, ("a plugin that %s: expected %s, it said: %s"):format(name, pattern, said_by(worker, "bad" .. i)))
    end
    the_good_one_works()
    stop(worker)
  end)

  it("in an executor, only its job fails", function()
    local list, paths = servers(RUNS, function(bad, code)
      site.dir:write(bad .. "/inbox/hit.sh", "true")
      return ("  - { name: %s, protocol: local, dir: %s, executor: %s }\n"):format(bad, site.dir:path(bad), bad),
        site.dir:write(("plugins/executors/%s.lua"):format(bad), executor(bad, code))
    end)
    local worker <close> = run(config(list))
    for i, name in ipairs(sorted(RUNS)) do
      local text = program.eventually(function() return site.dir:read(("bad%d/done/hit/result.json"):format(i)) end)
      assert.matches(at_line(RUNS[name][2], paths[name]), text)
    end
    the_good_one_works()
    stop(worker)
  end)

  describe("at load", function()
    local function refused(source)
      local path = site.dir:write("plugins/protocols/bad.lua", source)
      local worker <close> = run(config("  - { name: bad, protocol: bad }\n" .. good_server()))
      local result = worker:wait()
      assert.equal(78, result.code, result.stderr)
      assert.is_nil(result.stderr:find("traceback", 1, true), result.stderr)
      assert.matches("worker%.yaml:4:%d+: servers%[1%]%.protocol: protocol 'bad' cannot be used", result.stderr)
      return result.stderr, path
    end

    it("a syntax error is told with file and line", function()
      local said, path = refused("\nreturn {\n  kind = = 1\n}")
      assert.is_truthy(said:find(path .. ":3: ", 1, true), said)
    end)

    it("a loop without end is told with file and line", function()
      local said, path = refused("\nwhile true do end")
      assert.is_truthy(said:find(path .. ":2: stopped", 1, true), said)
    end)

    it("too much memory is told with file and line", function()
      local said, path = refused("\nlocal x = ('x'):rep(1 << 30)\nreturn x")
      assert.is_truthy(said:find(path .. ":2: ", 1, true), said)
    end)

    it("reaching for the operating system is told with file and line", function()
      local said, path = refused("\n\nos.execute 'true'")
      assert.is_truthy(said:find(path .. ":3: there is no global 'os'", 1, true), said)
    end)

    it("precompiled code is refused", function()
      local said = refused(string.dump(function() return {} end))
      assert.matches("binary chunk", said)
    end)

    it("a broken plugin that nobody asked for is no matter", function()
      site.dir:write("plugins/protocols/bad.lua", "= = =")
      drop_three()
      local worker <close> = run(config(good_server(", once: true")))
      assert.equal(0, worker:wait().code)
      assert.equal("success", site:result("good-3").state)
    end)
  end)
end)
