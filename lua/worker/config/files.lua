-- worker.config.files: which files make up the configuration, and their merging into one tree.
--
-- The first place that has a file wins: --config, WORKER_CONFIG, the person's own
-- ($XDG_CONFIG_HOME), the machine's (/etc/worker), and only the last one has a conf.d beside it.
-- A file that somebody named has to be there; the others may be missing, or in a place that is closed
-- to us, as another user's HOME that su and setpriv leave in the environment.

local fs = require "worker.fs"
local schema = require "worker.schema"
local task = require "worker.task"
local yaml = require "worker.yaml"

local files = {}

local FILE_MOST = 1 << 20

-- What `look` finds; where looking is not allowed nothing, and it is noted why.
local function look_at(closed, look, path)
  local ok, found = task.try(look, path)
  if ok then return found end
  closed[#closed + 1] = tostring(found)
end

local function conf_d(closed, dir)
  local paths = {}
  for _, name in ipairs(look_at(closed, fs.list, dir) or {}) do
    if name:find("^[^.].*%.ya?ml$") then paths[#paths + 1] = fs.join(dir, name) end
  end
  table.sort(paths)
  return paths
end

local function own_file(env)
  local home = env("HOME")
  local dir = env("XDG_CONFIG_HOME") or (home and fs.join(home, ".config"))
  return dir and fs.join(dir, "worker", "worker.yaml")
end

--- `files.find(options)`: the paths to read, in order; when a person named one, who named it; else a list
-- of why places could not be looked at. Options: config (from --config), env(name), etc ("/etc/worker").
function files.find(options)
  if options.config then return { options.config }, "--config" end
  local named = options.env("WORKER_CONFIG")
  if named then return { named }, "WORKER_CONFIG" end
  local own, closed = own_file(options.env), {}
  if own and look_at(closed, fs.exists, own) then return { own } end
  local etc = options.etc or "/etc/worker"
  local main, more = fs.join(etc, "worker.yaml"), conf_d(closed, fs.join(etc, "conf.d"))
  if look_at(closed, fs.exists, main) then table.insert(more, 1, main) end
  return more, nil, closed
end

-- ---- merging ----

-- The place of one entry moves with it, and so does the name of its file.
local function move_mark(to, to_key, from, from_key)
  if not to or not from then return end
  to.files = to.files or {}
  to.files[to_key] = from.files and from.files[from_key] or from.file
  to.values[to_key] = from.values[from_key]
  if to.keys then to.keys[to_key] = from.keys[from_key] end
end

local function append(base, more, marks)
  for index, item in ipairs(more) do
    base[#base + 1] = item
    move_mark(marks[base], #base, marks[more], index)
  end
end

local function is_map(value, marks)
  return type(value) == "table" and marks[value] ~= nil and marks[value].kind == "map"
end

-- A later file adds to maps, adds servers, and replaces everything else.
local function merge(base, more, marks, top)
  for key in pairs(marks[more].keys) do
    local old, new = base[key], more[key]
    if is_map(old, marks) and is_map(new, marks) then
      merge(old, new, marks)
    elseif top and key == "servers" and type(old) == "table" and type(new) == "table" then
      append(old, new, marks)
    else
      base[key] = new
      move_mark(marks[base], key, marks[more], key)
    end
  end
end

-- ---- reading ----

local function read(path, named_by)
  local ok, text, why = task.try(fs.read, path, FILE_MOST)
  if ok and text then return text end
  local reason = tostring(ok and why or text):gsub("^%l+ .-: ", "", 1)
  local by = named_by and (" (given by %s)"):format(named_by) or ""
  return nil, schema.problem(("%s: %s%s"):format(path, reason, by), { file = path })
end

local function parse(text, path)
  local ok, tree, marks = yaml.parse(text, { name = path })
  if not ok then
    local where = { file = path, line = tree.line, column = tree.column }
    return nil, schema.problem(tree.message, where)
  end
  if tree ~= nil and not is_map(tree, marks) then
    return nil, schema.problem(path .. ":1:1: expected a map of settings, like `servers: [ ... ]`",
      { file = path, line = 1, column = 1 })
  end
  return tree or false, marks
end

--- `files.load(paths, named_by)`: the merged tree, its marks, and a list of problems.
function files.load(paths, named_by)
  local base, all, problems = nil, {}, {}
  for _, path in ipairs(paths) do
    local text, problem = read(path, named_by)
    local tree, marks
    if text then
      tree, marks = parse(text, path)
      problem = tree == nil and marks or nil
    end
    if problem then
      problems[#problems + 1] = problem
    elseif tree then
      for container, mark in pairs(marks) do all[container] = mark end
      if base then merge(base, tree, all, true) else base = tree end
    end
  end
  return base or {}, all, problems
end

return files
