-- callback.scud: a task of a .scud directory: find it, hand it over, write its status back.
--
-- tasks/tasks.scg is the truth, JSON files beside it are mirrors that may be stale.  A task id is
-- unique within a tag only: without a tag it is looked for in all of them, and where several have it
-- the active tag decides, if there is no doubt which that is.
local err = require "worker.error"
local fs = require "worker.fs"
local json = require "worker.json"
local log = require "worker.log"
local mirror = require "callback.mirror"
local scg = require "callback.scg"

local scud = {}

local FILE_MOST = 16 * 1024 * 1024
local MAY_RUN = { pending = true, ["in-progress"] = true }

-- How the end of a task becomes a status; what was no fault of the task leaves it as it was.
local STATUS_OF = { success = "done", failed = "blocked", timeout = "blocked", oom = "blocked" }

local function refuse(message, ...) err.raise("config", message:format(...)) end

local function read(path)
  local text, why = fs.read(path, FILE_MOST)
  if not text and why and why.name ~= "ENOENT" then refuse("%s cannot be read: %s", path, tostring(why)) end
  return text
end

-- Which tag is active: the two places that say so may disagree.
local function active_tag(dir)
  local plain = (read(fs.join(dir, "active-tag")) or ""):match("^%s*(.-)%s*$")
  local ok, state = pcall(json.decode, read(fs.join(dir, "workflow-state.json")) or "{}")
  local group = ok and type(state) == "table" and state.active_group or nil
  if plain == "" then return group end
  if group and group ~= plain then return nil, ("active-tag says %s, workflow-state.json says %s"):format(plain, group) end
  return plain
end

-- The phases that have the id, of this tag if one is given.
local function phases_with(phases, id, tag)
  local found, tags = {}, {}
  for _, phase in ipairs(phases) do
    if phase.tasks[id] and (not tag or phase.tag == tag) then
      found[#found + 1], tags[#tags + 1] = phase, phase.tag
    end
  end
  return found, table.concat(tags, ", ")
end

local function choose(dir, phases, id, tag)
  local found, tags = phases_with(phases, id, tag)
  if #found == 0 then
    refuse(tag and "there is no task %s with the tag %s" or "there is no task %s in tasks.scg", id, tag)
  end
  if #found == 1 then return found[1] end
  if tag then refuse("the tag %s is there more than once: task %s is ambiguous", tag, id) end
  local active, doubt = active_tag(dir)
  local of_active = active and phases_with(found, id, active) or {}
  if #of_active == 1 then return of_active[1] end
  refuse("task %s is ambiguous: the tags %s have one each (%s); say which with --tag", id, tags,
    doubt or active and "the active tag is " .. active or "no tag is active")
end

-- A dependency is in the same phase, or named with its tag ("api:3").
local function status_of(phases, phase, id)
  if phase.tasks[id] then return phase.tasks[id].status end
  local tag, rest = id:match("^(.-):(.+)$")
  for _, other in ipairs(tag and phases or {}) do
    if other.tag == tag and other.tasks[rest] then return other.tasks[rest].status end
  end
  return "not there"
end

local function check(phases, phase, node)
  if not MAY_RUN[node.status] then refuse("task %s of %s is %s: it is not run", node.id, node.tag, node.status) end
  for _, id in ipairs(node.dependencies) do
    local status = status_of(phases, phase, id)
    if status ~= "done" then refuse("task %s of %s waits for task %s, which is %s", node.id, node.tag, id, status) end
  end
end

--- Whether there is a task graph in this directory.
function scud.exists(dir)
  return fs.exists(fs.join(dir, "tasks", "tasks.scg"))
end

--- The task, ready to be run; raises kind "config" for one that is not there, ambiguous or not to be
-- run now.
function scud.find(dir, id, tag)
  local path = fs.join(dir, "tasks", "tasks.scg")
  local text = read(path) or refuse("there is no %s", path)
  local phases = scg.parse(text)
  local phase = choose(dir, phases, id, tag)
  local node = phase.tasks[id]
  check(phases, phase, node)
  node.dir, node.was = dir, node.status
  return node
end

-- Status ---------------------------------------------------------------------------------------------

local function rewrite(path, text)
  local stat = fs.stat(path)
  fs.write(path, text, { mode = stat and stat.mode & 511, sync = true })
end

local function write_mirrors(node, status)
  for _, name in ipairs { "tasks.json", node.tag .. ".json" } do
    local path = fs.join(node.dir, "tasks", name)
    local text = not name:find("/", 1, true) and read(path)
    local changed = text and mirror.with_status(text, node.tag, node.id, status)
    if changed and changed ~= text then rewrite(path, changed) end
  end
end

-- Read again just before it is written: the task and others may have changed the file meanwhile.
local function write_status(node, status, expected)
  local path = fs.join(node.dir, "tasks", "tasks.scg")
  local text = read(path)
  for _, phase in ipairs(text and scg.parse(text) or {}) do
    local now = phase.tag == node.tag and phase.tasks[node.id]
    if now then
      if now.status ~= expected then return now.status end
      rewrite(path, scg.with_status(text, now, scg.letter(status)))
      write_mirrors(node, status)
      return status
    end
  end
end

local function guarded(node, status, expected)
  local ok, is = pcall(write_status, node, status, expected)
  if ok then return is end
  log.warn("callback.status", ("the status of task %s could not be written: %s"):format(node.id, tostring(is)))
end

--- The task begins.
function scud.begin(node)
  guarded(node, "in-progress", node.was)
end

--- The task has ended in this state of a result; the status it has now. One that the task has set
-- itself meanwhile stays.
function scud.settle(node, state)
  return guarded(node, STATUS_OF[state] or node.was, "in-progress")
end

-- Handing it over ------------------------------------------------------------------------------------

local function section(parts, title, text)
  if text and text ~= "" then parts[#parts + 1] = ("\n## %s\n\n%s\n"):format(title, text) end
end

--- The task as text for whoever does it.
function scud.prompt(node, verify)
  local parts = { ("# Task %s: %s\n\nTag: %s\nComplexity: %d\nPriority: %s\n"):format(node.id, node.title, node.tag,
    node.complexity, node.priority) }
  if #node.dependencies > 0 then parts[#parts + 1] = "Depends on: " .. table.concat(node.dependencies, ", ") .. "\n" end
  section(parts, "Description", node.description)
  section(parts, "Details", node.details)
  section(parts, "Test strategy", node.test_strategy)
  section(parts, "Verification", verify and "Afterwards this has to succeed:\n\n    " .. verify)
  return table.concat(parts)
end

--- The task as JSON.
function scud.encode(node)
  return json.encode({
    id = node.id, tag = node.tag, title = node.title, status = node.was, complexity = node.complexity,
    priority = node.priority, dependencies = json.array(node.dependencies), description = node.description,
    details = node.details, test_strategy = node.test_strategy,
  }, { pretty = true }) .. "\n"
end

return scud
