-- `make install`: what is put where, that it works from there, and that it goes again.
local fs = require "worker.fs"
local markdown = require "spec.support.markdown"
local process = require "worker.process"
local program = require "spec.support.program"
local scratch = require "spec.support.scratch"
local sys = require "worker.core.sys"

describe("make install #realtime", function()
  local dir

  before_each(function() dir = scratch.dir() end)
  after_each(function() getmetatable(dir).__close(dir) end)

  local function run(command)
    local result = process.run { argv = { "/bin/sh", "-c", command }, merge = true, env = { PATH = sys.env "PATH" } }
    return result.exit_code, result.stdout
  end

  -- The binary is the one under test, however old it is.
  local function make(target, variables)
    local build = fs.dir(program.binary)
    local code, said = run(("make -s BUILD=%s -o %s %s %s"):format(build, program.binary, target, variables))
    assert.equal(0, code, said)
  end

  local function has(name)
    if run("command -v " .. name) ~= 0 then return pending(name .. " is not installed") end
    return true
  end

  it("puts documents there whose links hold", function()
    if not has "make" then return end
    make("install", "PREFIX=/usr DESTDIR=" .. dir.root)
    local docs = dir:path "usr/share/doc/worker"
    local links = 0
    for _, name in ipairs { "README.md", "src/README.md", "lua/worker/README.md" } do
      for _, link in ipairs(markdown.read(fs.join(docs, name)).links) do
        local path = fs.join(fs.dir(fs.join(docs, name)), link.target)
        assert.is_true(fs.exists(path), ("%s:%d: there is no %s"):format(name, link.line, path))
        links = links + 1
      end
    end
    assert.is_true(links > 15, links)
    make("uninstall", "PREFIX=/usr DESTDIR=" .. dir.root)
    assert.equal("", (select(2, run(("find %s -type f"):format(dir.root)))))
  end)

  it("puts a unit there that systemd takes, for the worker that was installed with it", function()
    if not has "make" then return end
    make("install", "PREFIX=" .. dir.root)
    local unit = dir:read "lib/systemd/system/worker.service"
    assert.is_truthy(unit:find(("\nExecStart=%s/bin/worker run\n"):format(dir.root), 1, true), unit)
    assert.is_truthy(unit:find(("\nDocumentation=file://%s/share/doc/worker/README.md\n"):format(dir.root), 1, true), unit)
    if not has "systemd-analyze" then return end
    local code, said = run(("systemd-analyze verify --man=no %s"):format(dir:path "lib/systemd/system/worker.service"))
    assert.equal(0, code, said)
    assert.is_nil(said:find("worker.service", 1, true), said)
  end)
end)
