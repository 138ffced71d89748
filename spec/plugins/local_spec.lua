-- The directory as the orchestrator, as a person meets it.
local fs = require "worker.fs"
local program = require "spec.support.program"
local sites = require "spec.support.site"
local sys = require "worker.core.sys"
local task = require "worker.task"

describe("the protocol local #realtime", function()
  local site

  before_each(function() site = sites.new() end)
  after_each(function() getmetatable(site).__close(site) end)

  it("gives each job a result, its output and the file it came in", function()
    site:drop("a.yaml", "script: |\n  echo out; echo err >&2; exit 3\nlabels: { team: blue }\n")
    local run = site:once()
    assert.equal(0, run.code, run.stderr)
    local result = site:result "a"
    assert.equal("a", result.id)
    assert.equal("failed", result.state)
    assert.equal(3, result.exit_code)
    assert.equal("exit code 3", result.reason)
    assert.equal("blue", result.labels.team)
    assert.is_true(result.duration > 0)
    assert.matches("^%d%d%d%d%-%d%d%-%d%dT", result.finished)
    assert.equal("out\n", site:read("done", "a", "stdout.log"))
    assert.equal("err\n", site:read("done", "a", "stderr.log"))
    assert.same({ "a.yaml", "result.json", "stderr.log", "stdout.log" }, site:list("done", "a"))
  end)

  it("takes .sh, .json, .yaml and .yml, and leaves other names alone", function()
    site:drop("a.sh", "true")
    site:drop("b.json", '{"argv": ["true"]}')
    site:drop("c.yaml", "argv: [ 'true' ]")
    site:drop("d.yml", "script: 'true'")
    site:drop("e.txt", "not a job")
    site:drop(".f.sh", "hidden: still being written")
    assert.equal(0, site:once().code)
    assert.same({ "a", "b", "c", "d" }, site:list "done")
    assert.same({ ".f.sh", "e.txt" }, site:list "inbox")
  end)

  it("follows no link, and takes no name too long for what belongs to it", function()
    site.dir:write("secret", "SECRET=1")
    fs.symlink(site.dir:path "secret", site:path("inbox", "link.sh"))
    fs.mkdir(site:path("inbox", "dir.sh"))
    local long = ("x"):rep(240)
    site:drop(long .. ".sh", "true")
    local run = site:once {}
    assert.equal(0, run.code, run.stderr)
    assert.same({}, site:list "done")
    assert.equal("link.sh: it is a link, not a file\n", site:read("failed", "link.sh.reason"))
    assert.matches("it is a dir, not a file", site:read("failed", "dir.sh.reason"))
    assert.same({}, site:list "inbox")
    local reason
    for _, name in ipairs(site:list "failed") do
      if name:find("^xxx.*%.reason$") then reason = site:read("failed", name) end
    end
    assert.equal("its name has 243 bytes, 200 are allowed\n", reason)
  end)

  it("puts a job file that cannot be read into failed/, with the place and the reason", function()
    site:drop("a.yaml", "script: echo\nscirpt: x\n")
    site:drop("b.json", '{"script": }')
    site:drop("c.yaml", "argv: [ a ]\nscript: b\n")
    site:drop("d.sh", "echo a\0b")
    site:drop("e.yaml", "a: b: c\n")
    assert.equal(0, site:once().code)
    assert.same({ "a.yaml", "a.yaml.reason", "b.json", "b.json.reason", "c.yaml", "c.yaml.reason", "d.sh", "d.sh.reason",
      "e.yaml", "e.yaml.reason" }, site:list "failed")
    assert.matches('^a%.yaml:2:1: .*unknown key; did you mean "script"%?', site:read("failed", "a.yaml.reason"))
    assert.matches("^b%.json: not JSON: line 1, column 12", site:read("failed", "b.json.reason"))
    assert.matches("^c%.yaml: a job has either argv or script, not both", site:read("failed", "c.yaml.reason"))
    assert.matches("^d%.sh: byte 7: .*NUL", site:read("failed", "d.sh.reason"))
    assert.matches("^e%.yaml:1:%d+: ", site:read("failed", "e.yaml.reason"))
    assert.is_nil(site:list("done")[1])
  end)

  it("writes no control character of a file's name into the worker's log", function()
    site:drop("bad\27[2J\194\155" .. "2J.yaml", "= = =")
    for _, format in ipairs { "text", "logfmt", "json" } do
      local said = site:once { "--log-format", format }.stderr
      site:drop("bad\27[2J\194\155" .. "2J.yaml", "= = =")
      assert.matches("bad", said)
      assert.is_nil(said:find("\27", 1, true))
      assert.is_nil(said:find("\194\155", 1, true))
    end
  end)

  it("runs a job of the same name again when it is dropped again, with a result of its own", function()
    for i = 1, 3 do
      site:drop("a.sh", "echo " .. i)
      assert.equal(0, site:once().code)
    end
    assert.same({ "a", "a.2", "a.3" }, site:list "done")
    assert.equal("3\n", site:read("done", "a.3", "stdout.log"))
  end)

  it("keeps two files apart that differ in their ending only", function()
    site:drop("a.sh", "echo sh")
    site:drop("a.json", '{"script": "echo json"}')
    assert.equal(0, site:once { "--slots", "2" }.code)
    assert.same({ "a", "a.2" }, site:list "done")
  end)

  it("runs a namesake that is dropped while the first still runs", function()
    site:drop("a.sh", ("touch %s; sleep 0.3; echo first"):format(site.dir:path "up"))
    local run <close> = site:start { "--slots", "2" }
    site:mark "up"
    site:drop("a.sh", "echo second")
    assert.equal("success", site:result("a").state)
    program.eventually(function() return #site:list "done" == 2 end)
    assert.equal("first\n", site:read("done", "a", "stdout.log"))
    assert.equal("second\n", site:read("done", "a.2", "stdout.log"))
    run:signal "TERM"
    assert.equal(0, run:wait().code)
  end)

  it("sees a job the moment it is dropped", function()
    local run <close> = site:start {}
    run:says "worker%.started"
    task.sleep(0.2)
    for i = 1, 5 do
      site:drop(i .. ".sh", "true")
      site:result(tostring(i))
    end
    run:signal "TERM"
    assert.equal(0, run:wait().code)
  end)

  it("stops at once when it is asked to while there is nothing to do", function()
    local run <close> = site:start {}
    site:drop("a.sh", "true")
    site:result "a"
    local before = sys.mono()
    run:signal "TERM"
    assert.equal(0, run:wait().code)
    assert.is_true(sys.mono() - before < 20) -- a claim may hang for 30
  end)

  it("makes an inbox that is not there, and goes on when it is taken away and comes back", function()
    fs.remove_tree(site.root)
    local run <close> = site:start {}
    program.eventually(function() return fs.exists(site:path "inbox") end)
    site:drop("a.sh", "true")
    assert.equal("success", site:result("a").state)
    run:signal "TERM"
    assert.equal(0, run:wait().code)
  end)

  it("says what is wrong when its directory cannot be made", function()
    site.dir:write("plain", "a file")
    local run <close> = program.start { "run", "--protocol", "local", "--dir", site.dir:path("plain", "jobs"),
      "--state", site.dir:path "state", program.plugins }
    run:says "plain"
    run:signal "TERM"
    local result = run:wait()
    assert.is_nil(result.stderr:find("traceback", 1, true), result.stderr)
  end)

  it("loses no job and no result when its disk is full", function()
    local mount = site.dir:path "small"
    fs.mkdir(mount)
    local function does(...)
      return require("worker.process").run({ argv = { ... }, env = { PATH = "/bin:/usr/bin" } }).code == 0
    end
    if not does("mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", mount) then
      return pending "file systems cannot be mounted here"
    end
    local _ <close> = setmetatable({}, { __close = function() does("umount", "-l", mount) end })
    local root = fs.join(mount, "jobs")
    fs.mkdir(fs.join(root, "inbox"), { parents = true })
    fs.write(fs.join(root, "inbox", "a.sh"), "yes ' hello' | tr -d '\\n' | head -c 3000000; exit 7")
    local run <close> = program.start { "run", "--protocol", "local", "--dir", root, "--workspace", site.work,
      "--state", site.dir:path "state", program.plugins }
    run:says "No space left"
    -- Room again: what could not be written is written now.
    does("mount", "-o", "remount,size=16m", mount)
    local text = program.eventually(function() return fs.read(fs.join(root, "done", "a", "result.json")) end)
    assert.matches('"exit_code": 7', text)
    local logged = fs.read(fs.join(root, "done", "a", "stdout.log"), 4000000)
    assert.is_true(logged == (" hello"):rep(500000), "the log has a hole")
    run:signal "TERM"
    assert.equal(0, run:wait().code)
  end)
end)
