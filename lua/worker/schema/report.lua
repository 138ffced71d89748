-- worker.schema.report: what one check has found, and where.
--
-- A run collects problems, warnings and origins.  An `at` says where the check stands: path (for
-- messages), rel (the path below the spec, for flags and environment; nil inside lists), container
-- and key (which the marks of worker.yaml turn into file, line and column), and origin, when the
-- value is not from a file ("--slots", "WORKER_SLOTS").

local yaml = require "worker.yaml"

local report = {}

local PROBLEMS_MOST = 50

local Problem = {}
Problem.__index = Problem
Problem.__tostring = function(problem) return problem.text end

--- `report.new_run(marks, options)`: an empty collection; see schema.check for the options.
function report.new_run(marks, options)
  return {
    marks = marks or {}, flags = options.flags or {}, env = options.env or function() end,
    env_prefix = options.env_prefix, env_fills = options.env_fills,
    literal = not options.references,
    problems = { count = 0 }, warnings = {}, origins = {}, warned = {},
  }
end

--- `report.trial(run, changes)`: the same run with some of its fields replaced.
function report.trial(run, changes)
  return setmetatable(changes, { __index = run })
end

--- `report.place(run, at, of_key)`: where a value was written, as text; and file, line, column when
-- that is a file.
function report.place(run, at, of_key)
  if at.origin then return at.origin end
  local file, line, column = yaml.where(run.marks, at.container, at.key, of_key)
  return file and ("%s:%d:%d"):format(file, line, column), file, line, column
end

--- `report.below(at, key, name)`: where one of the values inside stands.
function report.below(at, container, key, name)
  local path = name or tostring(key)
  if at.path ~= "" and not path:find("^%[") then path = "." .. path end
  return {
    path = at.path .. path, container = container, key = key, as_text = at.as_text,
    origin = at.origin, origin_path = at.origin_path,
  }
end

-- "place: path: message", without the parts that are not there or say the same.
local function new_problem(run, at, message, of_key)
  local place, file, line, column = report.place(run, at, of_key)
  local parts = { place }
  if at.path ~= "" and not (at.origin and at.path == at.origin_path) then parts[#parts + 1] = at.path end
  parts[#parts + 1] = message
  return setmetatable({
    text = table.concat(parts, ": "), message = message, path = at.path,
    file = file, line = line, column = column,
  }, Problem)
end

--- `report.complain(run, at, message, of_key)`: one problem more.  Always returns nil.
function report.complain(run, at, message, of_key)
  local problems = run.problems
  problems.count = problems.count + 1
  if problems.count <= PROBLEMS_MOST then
    problems[#problems + 1] = new_problem(run, at, message, of_key)
  end
end

--- `report.warn(run, at, message)`: one warning more; each text only once.
function report.warn(run, at, message)
  if run.warned[message] then return end
  run.warned[message] = true
  run.warnings[#run.warnings + 1] = new_problem(run, at, message)
end

--- `report.problem(text, fields)`: a problem that no check has found (a file that is missing).
function report.problem(text, fields)
  local problem = { text = text, message = text, path = "" }
  for key, value in pairs(fields or {}) do problem[key] = value end
  return setmetatable(problem, Problem)
end

--- `report.in_order(list)`: sorted as the file has them, which is the order in which a person mends
-- them; those without a place come first, and those of one place by name.
function report.in_order(list)
  for index, problem in ipairs(list) do problem.rank = index end
  table.sort(list, function(a, b)
    if (a.file or "") ~= (b.file or "") then return (a.file or "") < (b.file or "") end
    if a.line ~= b.line then return (a.line or 0) < (b.line or 0) end
    if a.column ~= b.column then return (a.column or 0) < (b.column or 0) end
    if a.path ~= b.path then return a.path < b.path end
    return a.rank < b.rank
  end)
  return list
end

--- `report.problems(run)`: the problems in order; the last one says how many more there are.
function report.problems(run)
  local list = report.in_order(table.move(run.problems, 1, #run.problems, 1, {}))
  if run.problems.count > #list then
    list[#list + 1] = report.problem(("... and %d more"):format(run.problems.count - #list))
  end
  return list
end

return report
