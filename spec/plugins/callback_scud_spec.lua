-- The callback protocol and SCUD: finding a task, handing it over, writing its status back.
local callback = require "spec.support.callback"
local fs = require "worker.fs"
local json = require "worker.json"
local server = require "spec.support.server"

local GRAPH = [[
# SCUD Graph v1
# Phase: api

@meta {
  name api
  updated 2026-01-05T10:00:00Z
}

@nodes
# id | title | status | complexity | priority
1 | Lay the ground | D | 3 | H
2 | Build \| paint the house | P | 5 | C
3 | Move in | P | 2 | M
4 | Was split | X | 8 | L
5 | Was done | D | 1 | L
6 | Waits | B | 1 | L
7 | Short
8 | From elsewhere | P | 1 | M

@edges
2 -> 1
3 -> 2
8 -> web:1

@details
2 | description |
  Use bricks.

  @home is where the paint is.
2 | test_strategy |
  Knock on it.
---
# SCUD Graph v1
# Epic: web

@nodes
1 | Another one | P | 1 | M
9 | Only here   |   I   | 1 | M
]]

local MIRROR = [[{"web":{"name":"web","tasks":[{"id":"1","status":"pending"}]},
 "api" : { "tasks" : [ {"id":"1", "status":"done", "note":"say \"[{\" twice"},
   {"status": "pending",  "id": "2", "dependencies":["1"], "points": 5.0} ], "name":"api" }}
]]

local function project(more)
  local dir = callback.folder()
  local function put(name, text)
    fs.mkdir(fs.dir(fs.join(dir, name)), { parents = true })
    fs.write(fs.join(dir, name), text)
  end
  put(".scud/tasks/tasks.scg", GRAPH)
  for name, text in pairs(more or {}) do put(name, text) end
  return dir, function(name) return (fs.read(fs.join(dir, ".scud", name))) end
end

local function takes_all() return server.http({}, { any = server.status(200) }) end

local function run(dir, id, options)
  options = options or {}
  options.conf = options.conf or {}
  options.conf.dir, options.conf.task = dir, id
  local fake = takes_all()
  local ran = callback.run(fake, options)
  ran.told, ran.fake = fake:last().json, fake
  return ran
end

describe("callback: a SCUD task", function()
  it("is found by the id where only one phase has it", function()
    local ran = run(project(), "2")
    assert.equal("completed", ran.told.status)
    assert.equal("api", ran.told.tag)
    assert.equal("Build | paint the house", ran.told.title)
  end)

  it("is ambiguous where several phases have its id and no tag is active: it is refused", function()
    local ran = run(project(), "1")
    assert.equal(0, ran.runs)
    assert.equal("failed", callback.statuses(ran.fake))
    assert.equal("config", ran.told.reason)
    assert.matches("ambiguous: the tags api, web", ran.told.error)
  end)

  it("is that of the active tag then, which is told", function()
    local ran = run(project { [".scud/active-tag"] = "web\n" }, "1")
    assert.equal("completed", ran.told.status)
    assert.equal("web", ran.told.tag)
  end)

  it("is refused where the two records of the active tag disagree", function()
    local ran = run(project { [".scud/active-tag"] = "web\n",
      [".scud/workflow-state.json"] = '{"active_group":"api"}' }, "1")
    assert.matches("active%-tag says web, workflow%-state.json says api", ran.told.error)
    assert.equal(0, ran.runs)
  end)

  it("is that of the given tag", function()
    assert.equal("completed", run(project(), "1", { conf = { tag = "web" } }).told.status)
    assert.matches("no task 2 with the tag web", run(project(), "2", { conf = { tag = "web" } }).told.error)
  end)

  for id, why in pairs {
    ["3"] = "waits for task 2, which is pending", ["4"] = "is expanded", ["5"] = "is done", ["6"] = "is blocked",
    ["7"] = "there is no task 7", ["8"] = "waits for task web:1, which is pending", ["x"] = "there is no task x",
  } do
    it(("is not run when it %s"):format(why), function()
      local dir, read = project()
      local ran = run(dir, id)
      assert.equal(0, ran.runs)
      assert.equal("failed", ran.told.status)
      assert.matches(why, ran.told.error, 1, true)
      assert.equal(GRAPH, read "tasks/tasks.scg")
    end)
  end

  it("reaches the command as arguments, environment, file and input", function()
    local seen
    local ran = run(project(), "2", { conf = { argv = { "do", "{{task_id}}:{{title}}", "a {{description}} b", "{{file}}" } },
      task = function(job)
        seen = json.decode(fs.read(job.argv[4]))
        return { state = "success" }
      end })
    local job = ran.job
    assert.equal("2:Build | paint the house", job.argv[2])
    assert.equal("a Use bricks.\n\n@home is where the paint is. b", job.argv[3])
    assert.equal("2", job.env.SCUD_TASK_ID)
    assert.equal("api", job.env.TASK_TAG)
    assert.equal("Knock on it.", job.env.TASK_TEST_STRATEGY)
    assert.matches("# Task 2: Build | paint the house", job.stdin, 1, true)
    assert.matches("Knock on it.", job.stdin, 1, true)
    assert.same({ "1" }, seen.dependencies)
    assert.equal("critical", seen.priority)
    assert.is_false(fs.exists(job.argv[4]))
  end)

  it("is no text of a shell, and what it says is not filled in again", function()
    local dir, read = project()
    fs.write(fs.join(dir, ".scud/tasks/tasks.scg"), (read "tasks/tasks.scg":gsub("Build [^\n]- house", "$(id) {{file}}")))
    local job = run(dir, "2", { conf = { argv = { "do", "{{title}}" } } }).job
    assert.same({ "do", "$(id) {{file}}" }, job.argv)
  end)

  it("is refused when an argument asks for what it does not have", function()
    local ran = run(project(), "2", { conf = { argv = { "do", "{{titel}}" } } })
    assert.equal(0, ran.runs)
    assert.matches("nothing to put in for {{titel}}", ran.told.error, 1, true)
  end)

  it("is in progress while it runs and done afterwards, and nothing else in the files changes", function()
    local dir, read = project { [".scud/tasks/tasks.json"] = MIRROR }
    local during
    local ran = run(dir, "2", { task = function()
      during = read "tasks/tasks.scg"
      return { state = "success" }
    end })
    assert.equal((GRAPH:gsub("house | P", "house | I")), during)
    assert.equal((GRAPH:gsub("house | P", "house | D")), read "tasks/tasks.scg")
    assert.equal((MIRROR:gsub('"status": "pending"', '"status": "done"')), read "tasks/tasks.json")
    assert.equal("done", ran.told.scud_status)
  end)

  it("keeps the blanks and the line ends of its line", function()
    local dir, read = project()
    local dos = GRAPH:gsub("\n", "\r\n")
    fs.write(fs.join(dir, ".scud/tasks/tasks.scg"), dos)
    run(dir, "9")
    assert.equal((dos:gsub("|   I   |", "|   D   |")), read "tasks/tasks.scg")
  end)

  it("is blocked when it fails, and as it was when it was ended or could not run", function()
    local dir, read = project()
    run(dir, "2", { task = function() return { state = "failed", exit_code = 1 } end })
    assert.equal((GRAPH:gsub("house | P", "house | B")), read "tasks/tasks.scg")
    dir, read = project()
    run(dir, "2", { task = function() return { state = "cancelled" } end })
    assert.equal(GRAPH, read "tasks/tasks.scg")
  end)

  it("keeps the status that it has given itself", function()
    local dir, read = project()
    local ran = run(dir, "2", { task = function()
      fs.write(fs.join(dir, ".scud/tasks/tasks.scg"), (GRAPH:gsub("house | P", "house | R")))
      return { state = "success" }
    end })
    assert.equal((GRAPH:gsub("house | P", "house | R")), read "tasks/tasks.scg")
    assert.equal("review", ran.told.scud_status)
  end)

  it("leaves the file alone where that is wanted", function()
    local dir, read = project()
    run(dir, "2", { conf = { write_back = false } })
    assert.equal(GRAPH, read "tasks/tasks.scg")
  end)

  it("leaves a mirror alone that is no JSON or does not have it", function()
    for _, text in ipairs { "{", '{"api":{"tasks":[{"id":"3","status":"pending"}]}}', '{"api":{"tasks":[]}}', "[1]" } do
      local dir, read = project { [".scud/tasks/tasks.json"] = text }
      assert.equal("completed", run(dir, "2").told.status)
      assert.equal(text, read "tasks/tasks.json")
    end
  end)

  it("has its status in the file of its tag, too, where ids are numbers", function()
    local text = '{"tag":"api","tasks":[{"id":2,"status":"pending","depends_on":[1]}],"waves":[]}'
    local dir, read = project { [".scud/tasks/api.json"] = text }
    run(dir, "2")
    assert.equal((text:gsub("pending", "done")), read "tasks/api.json")
  end)

  it("is not looked for where there is no task graph, or it is not wanted", function()
    assert.equal("completed", run(callback.folder(), "77").told.status)
    assert.equal("completed", run(project(), "77", { conf = { scud = "no" } }).told.status)
    assert.matches("there is no .*tasks.scg", run(callback.folder(), "77", { conf = { scud = "yes" } }).told.error)
  end)
end)
