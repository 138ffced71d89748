-- What a person gets wrong in a configuration: exit code 78, and for each mistake its place, what was
-- expected, and the nearest right name.  Never a traceback.
local fs = require "worker.fs"
local program = require "spec.support.program"
local scratch = require "spec.support.scratch"

-- A configuration, and what is said of it.  FILE is its path.
local MISTAKES = {
  ["an unknown key"] = { "servres:\n  - protocol: local\n", 'FILE:1:1: .*unknown key; did you mean "servers"%?' },
  ["an unknown key of a protocol"] = { "servers:\n  - protocol: local\n    onec: true\n",
    'FILE:3:5: servers%[1%]%.onec: unknown key; did you mean "once"%?' },
  ["a wrong type"] = { "servers:\n  - { protocol: local, slots: many }\n",
    'FILE:2:%d+: servers%[1%]%.slots: expected a whole number, got "many"' },
  ["no server at all"] = { "servers: []\n", "there is no server to work for: give %-%-protocol NAME" },
  ["a duration that is none"] = { "shutdown: { timeout: soon }\nservers: [{ protocol: local }]\n",
    'FILE:1:%d+: shutdown%.timeout: expected a duration like "30s".*, got "soon"' },
  ["a list instead of a map"] = { "servers:\n  - [ protocol, local ]\n", "FILE:2:%d+: servers%[1%]: expected a map" },
  ["too few slots"] = { "servers: [{ protocol: local, slots: 0 }]\n", "FILE:1:%d+: servers%[1%]%.slots: " },
  ["no protocol"] = { "servers:\n  - { name: a }\n", "FILE:2:%d+: servers%[1%]%.protocol: is required" },
  ["a protocol that is not there"] = { "servers:\n  - protocol: locla\n",
    "FILE:2:15: servers%[1%]%.protocol: there is no protocol 'locla' in .*did you mean 'local'%?" },
  ["a missing required value"] = { "servers:\n  - protocol: strict\n", "FILE:2:%d+: servers%[1%]%.url: is required" },
  ["an address that is none"] = { "servers:\n  - { protocol: strict, url: example }\n",
    "FILE:2:%d+: servers%[1%]%.url: expected an address" },
  ["a policy that is not there"] = { "policies: { run: [ timeuot ] }\nservers: [{ protocol: local }]\n",
    "FILE:1:%d+: policies%.run.*did you mean 'timeout'%?" },
  ["a policy in the wrong place"] = { "policies: { claim: [ timeout ] }\nservers: [{ protocol: local }]\n",
    "policies%.claim.*: the policy timeout has nothing to do there; it belongs to run" },
  ["bad YAML"] = { "servers:\n  - protocol: local\n   slots: 1\n", "FILE:3:%d+: " },
  ["a tab"] = { "servers:\n\t- protocol: local\n", "FILE:2:1: .*[Tt]ab" },
  ["a key that is there twice"] = { "name: a\nname: b\n", "FILE:2:1: the key 'name' is here twice" },
  ["two servers of one name"] = { "servers:\n  - { protocol: local, name: a }\n  - { protocol: local, name: a }\n",
    "another server is called a too" },
  ["a variable that is not set"] = { "servers:\n  - { protocol: strict, url: '${env:NOT_SET_ANYWHERE}' }\n",
    "FILE:2:%d+: .*NOT_SET_ANYWHERE" },
  ["a secret's file that is not there"] = { "servers:\n  - { protocol: strict, url: 'http://x', token: '${file:/no/such}' }\n",
    "FILE:2:%d+: .*/no/such" },
  ["a health address that is none"] = { "health:\n  address: 127.0.0.1:seven\nservers: [{ protocol: strict, url: 'http://x' }]\n",
    'FILE:2:12: health%.address: expected an address like "127%.0%.0%.1:9252".*, got "127%.0%.0%.1:seven"' },
  ["a port that there is not"] = { "health: { address: '127.0.0.1:99999' }\nservers: [{ protocol: strict, url: 'http://x' }]\n",
    "FILE:1:%d+: health%.address: expected a port from 1 to 65535" },
  ["nothing at all"] = { "", "no server to work for" },
}

local STRICT = [[
return { kind = "protocol", name = "strict", api = 1, open = function() end, claim = function() return "end" end,
  config = {
    url = { "url", required = true, doc = "Where it is." },
    token = { "secret", doc = "Lets us in." },
  } }
]]

describe("a configuration with #realtime", function()
  local dir

  before_each(function()
    dir = scratch.dir()
    dir:write("plugins/protocols/strict.lua", STRICT)
  end)
  after_each(function() getmetatable(dir).__close(dir) end)

  local function worker(command, path, ...)
    return program.run { command, "--config", path, "--state", dir:path "state", dir:path "plugins", program.plugins, ... }
  end

  local names = {}
  for name in pairs(MISTAKES) do names[#names + 1] = name end
  table.sort(names)
  for _, name in ipairs(names) do
    it(name .. " ends with 78 and is told with its place", function()
      local text, said = table.unpack(MISTAKES[name])
      local path = dir:write("worker.yaml", text)
      said = said:gsub("FILE", function() return (path:gsub("%p", "%%%0")) end)
      for _, command in ipairs { "run", "check" } do
        local result = worker(command, path)
        assert.equal(78, result.code, result.stderr)
        assert.equal("", result.stdout)
        assert.matches(said, result.stderr)
        assert.is_nil(result.stderr:find("traceback", 1, true), result.stderr)
        assert.is_nil(result.stderr:find("lua/worker/", 1, true), result.stderr)
      end
      assert.is_false(fs.exists(dir:path "state")) -- nothing was started
    end)
  end

  it("several mistakes tells all of them at once, in the order of the file", function()
    local path = dir:write("worker.yaml", "nmae: x\nservers:\n  - { protocol: local, slots: x }\n  - { protocol: strict }\n")
    local said = worker("run", path).stderr
    local first, second, third = said:find(":1:1:", 1, true), said:find(":3:", 1, true), said:find(":4:", 1, true)
    assert.is_true(first < second and second < third, said)
  end)

  it("a health address on the command line that is none ends with 78 and says so", function()
    for _, command in ipairs { "run", "check" } do
      local result = program.run { command, "--protocol", "strict", "--url", "http://x", "--health-address", "localhost",
        dir:path "plugins", program.plugins }
      assert.equal(78, result.code, result.stderr)
      assert.matches('%-%-health%-address: expected an address like "127%.0%.0%.1:9252".*, got "localhost"', result.stderr)
      assert.is_nil(result.stderr:find("%.lua"), result.stderr)
    end
  end)

  it("its file missing says which and where that was asked for", function()
    local result = worker("run", dir:path "not-there.yaml")
    assert.equal(78, result.code)
    assert.matches("not%-there%.yaml", result.stderr)
    assert.matches("%-%-config", result.stderr)
  end)

  it("a token everybody can read is a warning, and the token is not told", function()
    dir:write("token", "s3cr3t-token-of-mine")
    local path = dir:write("worker.yaml", ("servers:\n  - { protocol: strict, url: 'http://x', token: '${file:%s}' }\n")
      :format(dir:path "token"))
    fs.chmod(dir:path "token", 420) -- 0644
    local result = worker("run", path)
    assert.equal(0, result.code, result.stderr)
    assert.matches("warning: .*token", result.stderr)
    assert.matches("chmod 600", result.stderr)
    assert.is_nil(result.stderr:find("s3cr3t", 1, true))
    fs.chmod(dir:path "token", 384) -- 0600
    assert.is_nil(worker("run", path).stderr:find("warning", 1, true))
  end)

  it("a token in the file itself that everybody can read is a warning, too", function()
    local path = dir:write("worker.yaml", "servers:\n  - { protocol: strict, url: 'http://x', token: s3cr3t-token-of-mine }\n")
    fs.chmod(path, 420)
    local result = worker("run", path)
    assert.equal(0, result.code, result.stderr)
    assert.matches("warning", result.stderr)
    assert.is_nil(result.stderr:find("s3cr3t", 1, true))
  end)
end)
