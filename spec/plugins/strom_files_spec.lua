-- The protocol strom: workspaces, state and artifacts.
local fs = require "worker.fs"
local process = require "worker.process"
local server = require "spec.support.server"
local strom = require "spec.support.strom"
local task = require "worker.task"

-- A fake whose workspace "default" holds these files; put() makes another revision.
local function with_workspace(files, options)
  local dir = strom.dir()
  local fake = strom.fake(options)
  local function put(more, forget)
    for name, text in pairs(more) do fs.chmod(dir:write(name, text), 493) end
    return fake:put_workspace("default", dir.root, forget)
  end
  put(files)
  return fake, put
end

local function output_of(job)
  strom.wait_job(job)
  return table.concat(strom.lines(job, "stdout"), "\n")
end

describe("strom, workspaces #realtime:", function()
  it("a source runs from the workspace, with its arguments, and a library's from below _libraries", function()
    local fake = with_workspace { ["bin/x.sh"] = "#!/bin/sh\necho own \"$2\" $(cat data)", data = "content",
      ["_libraries/tools/x.sh"] = "#!/bin/sh\necho library" }
    local own = fake:add { source = "bin/x.sh", args = { "1", "a b" } }
    local library = fake:add { source = "x.sh", action = "tools.x" }
    strom.worker(fake)
    assert.equal("own a b content", output_of(own))
    assert.equal("library", output_of(library))
  end)

  it("a source that is missing, or leads out, fails the step with a readable error", function()
    local fake = with_workspace {}
    strom.worker(fake)
    for source, why in pairs { ["bin/none.sh"] = "'bin/none.sh' is not a file of the workspace",
      ["../../x"] = "leads out of the workspace", ["/bin/true"] = "leads out of the workspace" } do
      local step = strom.wait_job(fake:add { source = source })
      assert.same({ "failed", -1 }, { step.status, step.exit_code })
      assert.matches(why, step.error, 1, true)
    end
  end)

  it("a pinned revision is what its steps see; the next job sees the new one; neither disturbs the other", function()
    local fake, put = with_workspace { f = "one" }
    local first = fake.workspaces.default.revision
    local old = fake:add { script = "sleep 1; cat f", revision = first }
    strom.worker(fake, { max_concurrent = 2 })
    strom.wait_for(function() return old.steps[1].status == "running" end)
    put { f = "two" }
    local new = fake:add "cat f"
    assert.equal("two", output_of(new))
    assert.equal("one", output_of(old))
  end)

  it("steps at the same time share one download", function()
    local fake = with_workspace { f = "one" }
    for _ = 1, 6 do fake:add "sleep 0.3; cat f" end
    strom.worker(fake, { max_concurrent = 6 })
    for _, job in ipairs(fake.store.list) do assert.equal("one", output_of(job)) end
    assert.equal(1, #strom.asked(fake, strom.WORKSPACE))
  end)

  it("old revisions are removed, never under a running step", function()
    local fake, put = with_workspace { f = "0" }
    local dir = strom.dir()
    local first = fake.workspaces.default.revision
    local slow = fake:add { script = "sleep 2; cat f", revision = first }
    strom.worker(fake, { max_concurrent = 2, max_retained_revisions = 1 }, { dir = dir })
    strom.wait_for(function() return slow.steps[1].status == "running" end)
    for i = 1, 4 do
      put { f = tostring(i) }
      assert.equal(tostring(i), output_of(fake:add "cat f"))
    end
    local kept = fs.list(dir:path "ws/workspaces/default", { type = "dir" })
    assert.is_true(#kept <= 3, #kept .. " revisions")
    assert.equal("0", output_of(slow))
  end)

  it("a revision that the server no longer has fails the step, with a line in its log", function()
    local fake, put = with_workspace { f = "1" }
    local first = fake.workspaces.default.revision
    put({ f = "2" }, true)
    local job = fake:add { script = "x", revision = first }
    strom.worker(fake)
    local step = strom.wait_job(job)
    assert.same({ "failed", -1 }, { step.status, step.exit_code })
    assert.matches("Failed to download workspace: .*404", step.error)
    assert.equal(1, #strom.lines(job, "stderr"))
    assert.matches("download workspace", strom.lines(job, "stderr")[1])
    assert.equal(0, #strom.asked(fake, strom.START))
  end)

  it("a tarball that is cut off, no archive or hostile fails the step, and nothing lands outside", function()
    local fake = with_workspace { f = ("x"):rep(10000) }
    local dir = strom.dir()
    local whole = fake.workspaces.default.revisions[fake.workspaces.default.revision]
    dir:write("in/x", "x")
    local function tar(...)
      process.run { argv = { "tar", "-C", dir:path "in", "-czPf", dir:path "t.tar.gz", ... }, env = { PATH = "/usr/bin:/bin" } }
      return dir:read "t.tar.gz"
    end
    fs.symlink("/etc", dir:path "in/link")
    strom.worker(fake, nil, { dir = dir })
    for _, content in ipairs { whole:sub(1, #whole // 2), "no archive", "", tar "link", tar(dir:path "in/x"),
      tar("--transform=s,x,../../../out,", "x") } do
      fake:put_tarball("default", content)
      local step = strom.wait_job(fake:add ":")
      assert.same({ "failed", -1 }, { step.status, step.exit_code })
      assert.matches("Failed to download workspace", step.error)
    end
    assert.same({}, fs.list(dir:path "ws/workspaces/default", { type = "dir" }))
    assert.is_false(fs.exists(dir:path "ws/out"))
    fake:put_tarball("default", whole)
    assert.equal("completed", strom.wait_job(fake:add ":").status)
  end)

  it("a cache that was wiped is filled again, whatever the server thinks that we have", function()
    local fake = with_workspace({ f = "1" }, { generation = "s1" })
    local dir = strom.dir()
    strom.worker(fake, nil, { dir = dir })
    assert.equal("1", output_of(fake:add { type = "script", script = "cat f" }))
    fs.remove_tree(dir:path "ws/workspaces")
    assert.equal("1", output_of(fake:add { type = "script", script = "cat f" }))
  end)

  it("nothing of a step stays behind but the cached workspace", function()
    local fake = with_workspace { f = "1" }
    local dir = strom.dir()
    local worker = strom.worker(fake, nil, { dir = dir })
    strom.wait_job(fake:add { language = "python", script = "open('made','w')" })
    worker:stop()
    assert.same({}, fs.list(dir:path "ws/steps"))
    assert.same({}, fs.list(dir:path "work"))
  end)
end)

describe("strom, state #realtime:", function()
  it("what a run prints as STATE: or writes to its directory the next run finds, early lines too", function()
    local fake = strom.fake()
    strom.worker(fake)
    strom.wait_job(fake:add { task = "t", script = [[
      echo 'STATE: {"c":1,"big":9007199254740993}'; echo 'GLOBAL_STATE: {"g":true}'; echo 'STATE: {"d":[]}'
      sleep 1.5; mkdir $STATE_OUT_DIR/sub; echo file > $STATE_OUT_DIR/sub/f]] })
    local second = fake:add { task = "t",
      script = "cat $STATE_DIR/state.json $STATE_DIR/sub/f $GLOBAL_STATE_DIR/state.json" }
    assert.equal('{"big":9007199254740993,"c":1,"d":[]}file\n{"g":true}', output_of(second))
    assert.same({ has_json = "true" }, strom.asked(fake, strom.STATE)[1].query)
    assert.equal("", output_of(fake:add { task = "other", script = "ls $STATE_DIR" }))
  end)

  it("lines are put over what the step itself wrote, and state is saved however the step ends", function()
    local fake = strom.fake()
    strom.worker(fake)
    strom.wait_job(fake:add { task = "t", script = [[
      echo '{"a":1,"b":1}' > $STATE_OUT_DIR/state.json; echo 'STATE: {"b":2}'; exit 3]] })
    assert.equal('{"a":1,"b":2}', output_of(fake:add { task = "t", script = "cat $STATE_DIR/state.json" }))
  end)

  it("what is no object is no state", function()
    local fake = strom.fake()
    strom.worker(fake)
    local job = fake:add "echo 'STATE: [1]'; echo 'STATE: x'"
    strom.wait_job(job)
    assert.matches("a line STATE: was ignored", strom.lines(job, "stderr")[1])
    assert.equal(0, #strom.asked(fake, strom.STATE))
  end)

  it("a server without storage, or state that cannot be fetched, is a warning only", function()
    local fake = strom.fake { storage = false }
    strom.worker(fake)
    local job = fake:add { script = "echo 'STATE: {\"a\":1}'",
      extra = { state_storage_key = "k", global_state_storage_key = "k" } }
    assert.equal("completed", strom.wait_job(job).status)
    assert.matches("the state could not be fetched", table.concat(strom.lines(job, "stderr"), "\n"))
    assert.matches("the state could not be saved", table.concat(strom.lines(job, "stderr"), "\n"))
  end)

  it("state of more than 50 MiB is a warning only, and not sent", function()
    local fake = strom.fake()
    strom.worker(fake)
    local job = fake:add "truncate -s 60M $STATE_OUT_DIR/big"
    assert.equal("completed", strom.wait_job(job).status)
    assert.matches("the state could not be saved: .*more than", strom.lines(job, "stderr")[1])
    assert.equal(0, #strom.asked(fake, strom.STATE))
  end)
end)

describe("strom, artifacts #realtime:", function()
  it("files of any name arrive, links do not", function()
    local fake = strom.fake()
    strom.worker(fake)
    local job = fake:add [[cd "$ARTIFACTS_DIR"; mkdir -p a/b; echo hi > a/b/x.txt; : > empty
      echo odd > 'a #?%ü.json'; ln -s /etc/passwd link; sleep 0.1; echo $(pwd) >/dev/null]]
    local step = strom.wait_job(job)
    assert.equal("completed", step.status)
    local names = {}
    for name in pairs(step.artifacts) do names[#names + 1] = name end
    table.sort(names)
    assert.same({ "a #?%ü.json", "a/b/x.txt", "empty" }, names)
    assert.same({ "hi\n", "text/plain" }, { step.artifacts["a/b/x.txt"].body, step.artifacts["a/b/x.txt"].type })
    assert.equal("application/json", step.artifacts["a #?%ü.json"].type)
  end)

  it("one that is refused fails the step, and those that came before are taken back", function()
    local fake = strom.fake { artifact_most = 1000 }
    strom.worker(fake)
    local job = fake:add "echo a > $ARTIFACTS_DIR/a; head -c 2000 /dev/zero > $ARTIFACTS_DIR/b"
    local step = strom.wait_job(job)
    assert.same({ "failed", 1 }, { step.status, step.exit_code })
    assert.matches("^artifact upload failed: ", step.error)
    assert.equal(1, #strom.asked(fake, strom.NO_ARTIFACTS))
    assert.same({}, step.artifacts)
  end)

  it("none are taken from where a link that the step left leads to", function()
    local fake = strom.fake()
    strom.worker(fake)
    local step = strom.wait_job(fake:add "rm -r $ARTIFACTS_DIR; ln -s /etc $ARTIFACTS_DIR")
    assert.same({ "failed", 1 }, { step.status, step.exit_code })
    assert.matches("is not the directory that the step was given", step.error)
    assert.equal(0, #strom.asked(fake, strom.ARTIFACTS))
  end)

  it("are sent when the server is back that was away", function()
    local fake = strom.fake()
    strom.worker(fake)
    local job = fake:add "echo a > $ARTIFACTS_DIR/a; sleep 0.5"
    strom.wait_for(function() return #strom.asked(fake, strom.START) == 1 end)
    task.sleep(0.1)
    fake:stop()
    task.sleep(3)
    fake:start()
    local step = strom.wait_job(job)
    assert.equal("completed", step.status)
    assert.equal("a\n", step.artifacts.a.body)
  end)

  it("a failure that passes is tried again", function()
    local fake = strom.fake()
    fake:bend(strom.ARTIFACTS, strom.instead(server.status(503)))
    strom.worker(fake)
    local step = strom.wait_job(fake:add "echo a > $ARTIFACTS_DIR/a")
    assert.equal("completed", step.status)
    assert.equal("a\n", step.artifacts.a.body)
  end)

  it("a step that failed sends none; one that made none asks for nothing", function()
    local fake = strom.fake { storage = false }
    strom.worker(fake)
    assert.equal(7, strom.wait_job(fake:add "echo a > $ARTIFACTS_DIR/a; exit 7").exit_code)
    assert.equal("completed", strom.wait_job(fake:add ":").status)
    assert.equal(0, #strom.asked(fake, strom.ARTIFACTS))
  end)

  it("files without a server that stores them fail the step", function()
    local fake = strom.fake { storage = false }
    strom.worker(fake)
    assert.equal("failed", strom.wait_job(fake:add "echo a > $ARTIFACTS_DIR/a").status)
  end)
end)
