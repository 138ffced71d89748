local fs = require "worker.fs"
local plugin = require "spec.support.plugin"
local process = require "worker.process"
local scratch = require "spec.support.scratch"

describe("the policy workspace", function()
  local dir

  before_each(function() dir = scratch.dir() end)
  after_each(function() getmetatable(dir).__close(dir) end)

  local function run(fields, inner, job)
    local ctx, policy = plugin.ctx { workspace = dir:path "work" }, plugin.policy("workspace", fields)
    local ok, why = pcall(policy.run(inner), job or { id = "a/b" }, ctx)
    policy.close()
    return ctx.workdir, ok, why
  end

  -- Two jobs one after the other: the directories they had, and what the second one found in its own.
  local function twice(script, fields)
    local policy, dirs, found = plugin.policy("workspace", fields), {}, nil
    local call = policy.run(function(_, ctx)
      dirs[#dirs + 1] = ctx.workdir
      local stat = fs.stat(ctx.workdir)
      found = { list = fs.list(ctx.workdir), mode = stat.mode & 4095, uid = stat.uid,
        said = process.run { argv = { "sh", "-c", script }, cwd = ctx.workdir, env = { PATH = "/usr/bin:/bin" } }.stdout }
      return { state = "success" }
    end)
    for _ = 1, 2 do call({ id = "x" }, plugin.ctx { workspace = dir:path "work" }) end
    policy.close()
    assert.same({}, fs.list(dir:path "work"))
    return dirs[1] == dirs[2], found
  end

  it("is an empty directory of the job's own, gone afterwards", function()
    local seen
    local path, ok = run({}, function(_, ctx)
      seen = { fs.list(ctx.workdir), fs.stat(ctx.workdir).mode & 511 }
      fs.write(fs.join(ctx.workdir, "file"), "x")
      return { state = "success" }
    end)
    assert.is_true(ok)
    assert.same({ {}, 448 }, seen)
    assert.is_true(fs.is_within(path, dir:path "work"))
    assert.same({}, fs.list(dir:path "work"))
  end)

  it("is a plain name below its folder, whatever the job is called", function()
    for _, id in ipairs { "../../etc/x", "a b\n", ("x"):rep(500), ".", "-rf" } do
      local path = run({}, function() return {} end, { id = id })
      assert.matches("^job%-%w+$", fs.base(path))
      assert.equal(dir:path "work", fs.dir(fs.dir(path)))
    end
  end)

  it("that is kept has the name of the job, made fit", function()
    for id, name in pairs { ["../../etc/x"] = ".._.._etc_x", ["a b\n"] = "a_b_", ["."] = "." } do
      local path = run({ keep = "always" }, function() return {} end, { id = id })
      assert.equal(("job-%s-"):format(name), fs.base(path):sub(1, -7))
      assert.equal(dir:path "work", fs.dir(path))
    end
  end)

  it("goes to the next job, empty, when it is as good as new", function()
    local same, found = twice("ls -A; mkdir -p .a/b; touch .a/b/c d; ln -s / e; chmod 0 .a; chmod 777 .")
    assert.is_true(same)
    assert.same({ list = {}, mode = 448, uid = process.user().uid, said = "" }, found)
  end)

  it("that was replaced or has something hung on it goes to nobody else", function()
    local swap = [[here=$PWD; cd /; mv "$here" "$here.old"; mkdir -m 700 "$here"; touch "$here/x"]]
    local same, found = twice(swap)
    assert.is_false(same)
    assert.same({}, found.list)
    local hung = "python3 -c 'import os; os.setxattr(\".\", \"user.x\", b\"1\")'"
    same, found = twice(hung .. " && echo done")
    assert.is_false(same)
    assert.equal("done\n", found.said)
  end)

  it("of several jobs at once are as many directories", function()
    local policy, seen = plugin.policy "workspace", {}
    local call
    call = policy.run(function(job, ctx)
      assert.is_nil(seen[ctx.workdir])
      seen[ctx.workdir] = true
      if job.id < "3" then return call({ id = job.id + 1 .. "" }, plugin.ctx { workspace = dir:path "work" }) end
      return {}
    end)
    call({ id = "1" }, plugin.ctx { workspace = dir:path "work" })
    policy.close()
  end)

  it("is made again when somebody has tidied everything away", function()
    local policy = plugin.policy "workspace"
    local call = policy.run(function(_, ctx)
      assert.same({}, fs.list(ctx.workdir))
      fs.remove_tree(dir:path "work")
      return {}
    end)
    for _ = 1, 2 do call({ id = "x" }, plugin.ctx { workspace = dir:path "work" }) end
    policy.close()
    assert.is_false(fs.exists(dir:path "work"))
  end)

  it("is removed when the job fails, also with an error", function()
    local _, ok, why = run({}, function() error("broken", 0) end)
    assert.is_false(ok)
    assert.equal("broken", why)
    assert.same({}, fs.list(dir:path "work"))
  end)

  it("is removed also when full of directories nobody may write to", function()
    run({}, function(_, ctx)
      process.run { argv = { "sh", "-c", "mkdir -p a/b/c d; echo x > a/b/c/f; ln -s / out; chmod 555 a/b/c a/b a; chmod 0 d" },
        cwd = ctx.workdir, env = { PATH = "/usr/bin:/bin" } }
      return {}
    end)
    assert.same({}, fs.list(dir:path "work"))
    assert.is_true(fs.exists "/etc")
  end)

  it("stays when asked to, always or after a failure", function()
    assert.is_true(fs.exists((run({ keep = "always" }, function() return { state = "success" } end))))
    assert.is_true(fs.exists((run({ keep = "failed" }, function() return { state = "failed" } end))))
    assert.is_true(fs.exists((run({ keep = "failed" }, function() error("x", 0) end))))
    assert.is_false(fs.exists((run({ keep = "failed" }, function() return { state = "success" } end))))
  end)

  it("of a worker that is dead is removed, one that lives or was kept is not", function()
    local kept = run({ keep = "always" }, function() return {} end)
    dir:write("work/worker-jobs-dead/job-1/file", "x")
    dir:write("work/worker-jobs-dead/.lock", "")
    dir:write("work/worker-jobs-live/.lock", "")
    local lock = fs.lock(dir:path("work", "worker-jobs-live/.lock"))
    run({}, function() return {} end)
    assert.same({ fs.base(kept), "worker-jobs-live" }, (fs.list(dir:path "work")))
    lock:close()
  end)

  it("may be elsewhere", function()
    local path = run({ dir = dir:path "other" }, function() return {} end)
    assert.equal(dir:path "other", fs.dir(fs.dir(path)))
  end)
end)
