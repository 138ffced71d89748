-- The documents, held to what they say: examples run, settings check, links lead somewhere, and the
-- tour through the code knows every file.
local exit = require "worker.exit"
local fs = require "worker.fs"
local help = require "worker.help"
local jobfile = require "worker.jobfile"
local markdown = require "spec.support.markdown"
local process = require "worker.process"
local program = require "spec.support.program"
local scratch = require "spec.support.scratch"
local servers = require "spec.support.server"
local sys = require "worker.core.sys"
local task = require "worker.task"

local README = markdown.read "README.md"
local TOUR = markdown.read "src/README.md"
local LIBRARY = markdown.read "lua/worker/README.md"

local function each(doc, lang, fn)
  local count = 0
  for _, block in ipairs(doc.blocks) do
    if block.lang == lang then
      count = count + 1
      fn(block, ("%s:%d"):format(doc.path, block.line))
    end
  end
  assert.is_true(count > 0, ("%s has no block of %s"):format(doc.path, lang))
end

-- A directory that looks like a clone to whoever stands in it.
local function clone()
  local dir = scratch.dir()
  fs.mkdir(dir:path "build")
  fs.symlink(program.binary, dir:path("build", "worker"))
  for _, name in ipairs { "plugins", "config" } do fs.symlink(fs.realpath(name), dir:path(name)) end
  return dir
end

local function shell(dir, command)
  return process.spawn {
    argv = { "/bin/sh", "-c", command }, cwd = dir.root, merge = true,
    env = { PATH = sys.env "PATH", HOME = dir.root, TMPDIR = dir.root },
  }
end

local function output_of(child)
  local parts = {}
  for _, text in child:output() do parts[#parts + 1] = text end
  return table.concat(parts)
end

-- The commands of a block, each with what it should print.
local function session(block)
  local steps = {}
  for line in block.text:gmatch("([^\n]*)\n") do
    local command = line:match("^%$ (.*)")
    if command then
      steps[#steps + 1] = { command = command, output = "" }
    else
      steps[#steps].output = steps[#steps].output .. line .. "\n"
    end
  end
  return steps
end

-- The lines of the README that start a worker (or play an orchestrator) and have this word.
local function command_with(word)
  local found
  each(README, "sh", function(block)
    for line in block.text:gmatch("[^\n]+") do
      if line:find(word, 1, true) then found = line end
    end
  end)
  return assert(found, "README.md has no command with " .. word)
end

local function start(dir, command)
  -- the defaults of the originals are places of the whole machine
  local child = shell(dir, ("exec env WORKER_STATE=%s STROEM__WORKSPACE_DIR=%s %s"):format(dir:path "state",
    dir:path "strom", command))
  local run = { child = child, said = "" }
  run.reader = task.start(function()
    for _, text in child:output() do run.said = run.said .. text end
  end)
  function run.says(pattern)
    return program.eventually(function() return run.said:match(pattern) end)
  end
  return setmetatable(run, { __close = function()
    child:close()
    run.reader:join()
  end })
end

describe("README.md #realtime", function()
  it("shows what its commands print", function()
    each(README, "console", function(block, place)
      local dir <close> = clone()
      for _, step in ipairs(session(block)) do
        local child <close> = shell(dir, step.command)
        assert.equal(step.output, output_of(child), place .. ": " .. step.command)
      end
    end)
  end)

  it("shows settings that are right, and jobs that can be read", function()
    each(README, "yaml", function(block, place)
      if not block.text:find("^servers:") then return jobfile.parse(place .. ".yaml", block.text) end
      local dir <close> = clone()
      dir:write("worker.yaml", block.text)
      local child <close> = shell(dir, "build/worker check --config worker.yaml")
      local said = output_of(child)
      assert.equal(0, child:wait().exit_code, place .. ": " .. said)
    end)
  end)

  it("shows code of the adapter that is there to be copied", function()
    local acme = fs.read "config/examples/protocols/acme.lua"
    each(README, "lua", function(block, place)
      assert.is_truthy(acme:find(block.text, 1, true), place .. " is not in acme.lua")
    end)
  end)

  for name, address in pairs { vulcan = "http://[%d.:]+", strom = "http://[%d.:]+", baaaht = "127[%d.:]+" } do
    it("tells how to try " .. name, function()
      local dir <close> = clone()
      local played <close> = start(dir, command_with("serve " .. name) .. " --address 127.0.0.1:0")
      local url = played.says(address)
      local command = command_with("--protocol " .. name):gsub(address, url)
      local worker <close> = start(dir, command)
      worker.says "[:=] ?success"
    end)
  end

  it("tells how to run the task of an environment", function()
    local dir <close> = clone()
    local fake <close> = servers.http({}, { any = servers.json(200, {}) })
    local worker <close> = start(dir, (command_with("worker callback"):gsub("http://[%d.:]+", fake.url)))
    worker.child:wait()
    assert.matches("/started$", fake.requests[1].path)
    assert.is_true(#fake.requests >= 2)
  end)

  it("names every signal and exit code", function()
    for _, row in ipairs(help.SIGNALS) do
      for name in row[1]:gmatch("%w+") do
        assert.is_truthy(README.text:find("\n| [^|\n]*`" .. name .. "`"), "signal " .. name)
      end
    end
    local codes = {}
    for row in README.text:gmatch("\n| ([%d, ]+) |") do
      for code in row:gmatch("%d+") do codes[tonumber(code)] = true end
    end
    for _, row in ipairs(exit.MEANINGS) do
      assert.is_true(codes[row[1]], "exit code " .. row[1])
      codes[row[1]] = nil
    end
    assert.same({}, codes)
  end)

  it("names targets of the Makefile", function()
    local makefile = fs.read "Makefile"
    for target in README.text:gmatch("make (%l+)") do
      if target ~= "test`" then assert.is_truthy(makefile:find("\n" .. target .. ":"), "make " .. target) end
    end
  end)
end)

describe("the documents", function()
  it("link to what is there", function()
    for _, doc in ipairs { README, TOUR, LIBRARY, markdown.read "plugins/protocols/callback/README.md" } do
      for _, link in ipairs(doc.links) do
        local path = fs.join(fs.dir(doc.path), link.target)
        assert.is_true(fs.exists(path), ("%s:%d: there is no %s"):format(doc.path, link.line, path))
      end
    end
  end)
end)

describe("config/worker.yaml #realtime", function()
  local function check(text)
    local dir <close> = clone()
    for name, secret in pairs { strom = "a token that is long enough", hook = "https://host.example/hook/9f3b",
      redis = "redis://:a-password@redis.example" } do
      fs.chmod(dir:write(name, secret), 384)
    end
    dir:write("worker.yaml", (text:gsub("/run/secrets/", dir:path "" .. "/")))
    local child <close> = shell(dir, "build/worker check --config worker.yaml")
    local said = output_of(child)
    assert.equal(0, child:wait().exit_code, said)
    assert.is_nil(said:find("warning", 1, true), said)
    return said
  end

  it("is right as it is", function() check(fs.read "config/worker.yaml") end)

  it("is right with what is commented out in it, too", function()
    local all = fs.read("config/worker.yaml"):gsub("\n  #([- ] )", "\n  %1")
    for _, name in ipairs { "local", "vulcan", "strom", "baaaht" } do
      assert.is_truthy(check(all):find("\n" .. name .. " ", 1, true), name)
    end
  end)
end)

describe("src/README.md", function()
  local function files(pattern)
    local list = {}
    local child <close> = process.spawn { argv = { "/bin/sh", "-c", "ls " .. pattern }, env = { PATH = sys.env "PATH" } }
    for path in output_of(child):gmatch("[^\n]+") do list[#list + 1] = path end
    return list
  end

  -- What the tour calls a file: `loop.c`, `commands/run.lua`.
  local function named(word) return TOUR.text:find("`" .. word .. "`", 1, true) ~= nil end

  it("knows every C file", function()
    for _, path in ipairs(files "src/*.c") do
      if path ~= "src/faults.c" or named "faults.c" then assert.is_true(named(fs.base(path)), path) end
    end
  end)

  it("knows every Lua file", function()
    for _, path in ipairs(files "$(find lua/worker -name '*.lua')") do
      local name = path:gsub("^lua/worker/", "")
      local folder = name:match("^(.-)/")
      assert.is_true(named(name) or folder ~= nil and named(folder .. "/"), path)
    end
  end)

  it("names nothing that is gone", function()
    for name in TOUR.text:gmatch("`([%l%d_/]+%.[cl]u?a?)`") do
      local path = name:find("%.c$") and "src/" .. name or "lua/worker/" .. name
      assert.is_true(fs.exists(path) or fs.exists(name) or fs.exists("plugins/" .. name), name)
    end
  end)
end)

-- The reference of the standard library: every piece of code in it is Lua; where it says what comes
-- out and needs nothing from outside, that is what comes out.
describe("lua/worker/README.md", function()
  -- Modules whose examples compute: they are run.
  local RUNS = { "yaml", "time", "json", "text", "secret", "error", "jobfile", "protobuf", "policy" }

  local function strip(line)
    return (line:gsub("%s*%-%-[%s>].*$", ""))
  end

  -- A piece of code as a chunk that gives its values; locals become globals, so that later pieces
  -- see them.
  local function compile(code, env)
    code = code:gsub("%.%.%. end", "end"):gsub("^local ([%a_][%w_, ]*)%f[=\0]", "%1"):gsub(" ?<close> ?", " ")
    code = code:gsub("^local ([%a_][%w_]* =)", "%1")
    local values = load("return " .. code, "=example", "t", env)
    if values then return values, true end
    local one_by_one = "return " .. code:gsub(";%s*", ", ")
    return load(one_by_one, "=example", "t", env) or load(code, "=example", "t", env), false
  end

  -- The pieces of a block: as many lines as make a whole, with what `-->` says of the last.
  local function pieces(block, place, env)
    local list, code, number = {}, "", block.line
    for line in block.text:gmatch("([^\n]*)\n") do
      number = number + 1
      local said = line:match("%-%->%s*(.*)$")
      code = code .. (code == "" and "" or "\n") .. strip(line):gsub("^%s+", code == "" and "" or " ")
      local chunk, is_value = compile(code, env)
      if code:find("^%s*$") then
        if said and #list > 0 then list[#list].said = list[#list].said or said end
        code = ""
      elseif chunk then
        list[#list + 1] = { code = code, run = chunk, is_value = is_value, said = said, line = number }
        code = ""
      end
    end
    assert.equal("", code, place .. ": this is no Lua")
    return list
  end

  local function section_of(block) return block.section and block.section:match("worker%.([%w_]+)") end

  it("is Lua wherever it says so", function()
    each(LIBRARY, "lua", function(block, place)
      assert.is_true(#pieces(block, place, {}) > 0, place)
    end)
  end)

  -- What `-->` says, as values; nil when it is words for people.
  local function expected(said, env)
    for _, text in ipairs { said, (said:gsub(";.*", "")), (said:gsub(",%s+%l[%w ]*.*", "")) } do
      local chunk = load("return " .. text, "=expected", "t", setmetatable({}, { __index = env.here }))
      if chunk then
        local got = table.pack(pcall(chunk))
        if got[1] and got[2] ~= nil or text == "nil" then return table.pack(table.unpack(got, 2, got.n)) end
      end
    end
  end

  -- Text may be shortened by three dots at its end.
  local function agree(want, got, at)
    local begin = type(want) == "string" and type(got) == "string" and want:match("^(.+)%.%.%.$")
    if begin then return assert.equal(begin, got:sub(1, #begin), at) end
    assert.same(want, got, at)
  end

  local function run_block(block, place)
    local env = setmetatable({ here = {}, print = function() end }, { __index = _G })
    for _, name in ipairs { "yaml", "schema", "time", "json", "text", "secret", "task", "error", "jobfile", "protobuf",
      "policy" } do
      env[name] = require("worker." .. name)
    end
    env.here = { json = env.json }
    local compared = 0
    for _, piece in ipairs(pieces(block, place, env)) do
      local got = table.pack(pcall(piece.run))
      local want = got[1] and piece.is_value and piece.said and expected(piece.said, env)
      if want and type(want[1]) ~= "table" then
        local at = ("%s:%d: %s"):format(LIBRARY.path, piece.line, piece.code)
        for i = 1, want.n do agree(want[i], got[i + 1], at) end
        compared = compared + 1
      end
    end
    return compared
  end

  for _, name in ipairs(RUNS) do
    it("tells what worker." .. name .. " gives", function()
      local compared = 0
      for _, block in ipairs(LIBRARY.blocks) do
        if block.lang == "lua" and section_of(block) == name then
          compared = compared + run_block(block, ("%s:%d"):format(LIBRARY.path, block.line))
        end
      end
      assert.is_true(compared >= 2, ("only %d examples of worker.%s say what they give"):format(compared, name))
    end)
  end

  it("shows the table that `worker proto` makes of a file #realtime", function()
    local dir <close> = scratch.dir()
    for i, block in ipairs(LIBRARY.blocks) do
      if block.lang == "proto" then
        dir:write("acme.proto", block.text)
        local run = program.run { "proto", dir:path "acme.proto" }
        assert.equal(LIBRARY.blocks[i + 1].text, run.stdout)
        return
      end
    end
    error "there is no such file"
  end)

  it("has a section for every module that plugins may require, and an index of them", function()
    local sandbox = fs.read "lua/worker/sandbox.lua"
    for name in sandbox:match("local LIBRARY = (%b{})"):gmatch("(%w+) = true") do
      if fs.exists(("lua/worker/%s.lua"):format(name)) then
        assert.is_truthy(LIBRARY.text:find("\n## worker." .. name .. "\n", 1, true), "worker." .. name)
        assert.is_truthy(LIBRARY.text:find(("[%s](#worker%s)"):format(name, name), 1, true), "index: " .. name)
      end
    end
  end)

  it("tells every slot of a protocol", function()
    local registry = fs.read "lua/worker/registry.lua"
    for slot in registry:match("slots = (%b{})"):gmatch('"(%w+)"') do
      assert.is_truthy(LIBRARY.text:find("`" .. slot .. "(", 1, true), slot)
    end
  end)

  it("names functions that are there", function()
    for _, block in ipairs(LIBRARY.blocks) do
      local section = block.lang == "lua" and section_of(block)
      local module = section and require("worker." .. section)
      for call in (module and block.text or ""):gmatch("%f[%w_]" .. (section or "") .. "%.([%a_]+)%s*[%({\"']") do
        assert.is_truthy(module[call], ("worker.%s has no %s"):format(section, call))
      end
    end
  end)
end)
