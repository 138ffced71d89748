local jobfile = require "worker.jobfile"
local jobs = require "worker.job"
local secret = require "worker.secret"

describe("worker.jobfile", function()
  it("knows a job file by its name", function()
    for _, name in ipairs { "a.sh", "a.json", "a.yaml", "a.yml", "a.b.json" } do assert.is_true(jobfile.is(name), name) end
    for _, name in ipairs { "a", "a.txt", ".a.sh", ".sh", "sh", "a.sh~", "a.sh.part", "" } do
      assert.is_false(jobfile.is(name), name)
    end
  end)

  it("reads all three kinds", function()
    assert.same({ script = "echo" }, jobfile.parse("a.sh", "echo"))
    local job = jobfile.parse("a.json", '{"argv": ["a", "b"], "timeout": "2m", "env": {"A": "1"}}')
    assert.same({ "a", "b" }, { table.unpack(job.argv) })
    assert.equal(120, job.timeout)
    assert.equal("1", job.env.A)
    assert.equal("x\n", jobfile.parse("a.yaml", "script: |\n  x\n").script)
  end)

  for text, said in pairs {
    ["a.yaml\nscirpt: x"] = 'a%.yaml:1:1: scirpt: unknown key; did you mean "script"%?',
    ["a.yaml\nscript: [ x ]"] = "a%.yaml:1:9: script: expected text",
    ["a.yaml\nargv: []"] = "a%.yaml:1:7: argv: ",
    ["a.yaml\nargv: [ x"] = "a%.yaml:%d+:%d+: ",
    ["a.yaml\ntimeout: 5s"] = "a%.yaml: a job has either argv or script",
    ["a.yaml\n{ script: x, argv: [ y ] }"] = "a%.yaml: a job has either argv or script, not both",
    ["a.yaml\n"] = "a%.yaml",
    ["a.json\n{"] = "a%.json: not JSON: line 1, column 2",
    ["a.json\n[]"] = "a%.json",
    ['a.json\n{"argv": []}'] = "a%.json: argv: ",
    ['a.json\n{"script": "x", "env": {"A=B": "c"}}'] = 'a%.json: env: "A=B" cannot name a variable',
    ["a.sh\na\0b"] = "a%.sh: byte 2: a script must not have a NUL",
    ["a.txt\nx"] = "a%.txt: a job file ends in %.json, %.yaml or %.sh",
  } do
    it(("tells what is wrong with %q"):format(text), function()
      local name, source = text:match("^([^\n]+)\n(.*)$")
      local ok, why = pcall(jobfile.parse, name, source)
      assert.is_false(ok)
      assert.equal("config", why.kind)
      assert.matches("^" .. said, why.message)
    end)
  end

  it("never reads files or variables that a job names", function()
    local job = jobfile.parse("a.yaml", "script: '${file:/etc/hostname}'\nsecrets: [ '${env:HOME}' ]\n")
    assert.equal("${file:/etc/hostname}", job.script)
    assert.equal("${env:HOME}", secret.reveal(job.secrets[1]))
  end)
end)

describe("worker.job", function()
  it("takes what is a job", function()
    for _, job in ipairs { { id = "a" }, { id = "a", argv = { "x" } }, { id = "a", script = "", timeout = 0 },
      { id = "a", env = {}, secrets = { "x", secret.value "y" }, limits = {}, cwd = "/", stdin = "" } } do
      assert.is_nil(jobs.check(job))
    end
  end)

  for said, job in pairs {
    ["a job is a table, not a number"] = 5, ["a job needs an id"] = {}, ["an id: a string"] = { id = 5 },
    ["1 to 512 bytes"] = { id = ("x"):rep(513) }, ["argv must"] = { id = "a", argv = {} },
    ["argv must be a list"] = { id = "a", argv = { 5 } }, ["script must"] = { id = "a", script = {} },
    ["timeout must"] = { id = "a", timeout = -1 }, ["timeout must be a number"] = { id = "a", timeout = 0 / 0 },
    ["env must"] = { id = "a", env = { 5 } }, ["env must map"] = { id = "a", env = "x" },
    ["secrets must"] = { id = "a", secrets = 5 }, ["secrets must be"] = { id = "a", secrets = { {} } },
    ["limits must"] = { id = "a", limits = "x" }, ["cwd must"] = { id = "a", cwd = 5 },
    ['env: "A=B" cannot name'] = { id = "a", env = { ["A=B"] = "x" } },
    ["env: the value of A"] = { id = "a", env = { A = "\0" } },
    ["stdin must"] = { id = "a", stdin = true },
  } do
    it("says: " .. said, function()
      assert.is_truthy(jobs.check(job):find(said, 1, true), jobs.check(job))
    end)
  end

  it("makes an error of a result that is none", function()
    local good = { state = "success" }
    assert.equal(good, jobs.check_result(good))
    for _, bad in ipairs { 5, {}, "success", { state = "great" }, { state = {} } } do
      local result = jobs.check_result(bad)
      assert.equal("error", result.state)
      assert.matches("returned no result", result.reason)
    end
  end)
end)
