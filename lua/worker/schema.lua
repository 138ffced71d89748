-- worker.schema: what a configuration may say, as plain data; and the checking of it.
--
-- A spec is a table of fields, a field is { "type", required=, default=, doc=, ... }.  The same
-- data checks a configuration, fills in what was left out, and becomes documentation and samples.
-- All mistakes are found in one go, each with file, line and column:
--
--   worker.yaml:12:7: servers[1].wait: expected a duration like "30s", got "soon"

local check = require "worker.schema.check"
local report = require "worker.schema.report"
local verify = require "worker.schema.verify"

local schema = {}

-- Whose `check` is a rule over the fields.  An executor's asks whether this machine can do the
-- work.
local RULED = { protocol = true, policy = true, sink = true }

-- A plugin says its kind as text; in a table of fields, even `kind` would be a field.
local fields_of = verify.fields_of

--- `schema.check(spec, value, marks, name, options)`: the checked configuration with defaults filled
-- in, or nil; then the list of problems (each with text, file, line, column, path, message; tostring
-- gives the text), the list of warnings, and the origin of each value by path.  The spec is a table
-- of fields, or a plugin (its config is meant).  marks come from worker.yaml and may be nil; name is
-- how the value is called in messages ("servers[1]").  Options: references (put in what ${file:...}
-- and the like name: only for what was written by whoever runs the worker, never for a job), env(name)
-- reads the environment (without it the environment is not looked at), env_prefix ("WORKER_"),
-- env_fills (the environment only fills in what the file leaves out), flags (path -> text).
function schema.check(spec, value, marks, name, options)
  local run = report.new_run(marks, options or {})
  if value == nil then value = {} end
  local at = { path = name or "", rel = "", container = value }
  local conf = check.record(run, fields_of(spec), value, at, RULED[spec.kind] and spec.check)
  if run.problems.count > 0 then conf = nil end
  return conf, report.problems(run), run.warnings, run.origins
end

--- `schema.parse(field, value, env)`: one value from text, as flags and environment variables are: the
-- value, or nil and what is wrong with it.  With env(name) references are put in.
function schema.parse(field, value, env)
  local run = report.new_run(nil, { env = env, references = env ~= nil })
  local result = check.value(run, field, value, { path = "", as_text = true })
  if run.problems.count > 0 then return nil, run.problems[1].message end
  return result
end

--- `schema.problem(text, fields)`: a problem as schema.check returns them, for what no spec can
-- say.
schema.problem = report.problem

--- `schema.in_order(problems)`: the list sorted by place.
schema.in_order = report.in_order

--- `schema.verify(spec)`: what is wrong with a spec itself, as a list of texts: unknown types and
-- attributes, fields without doc, defaults and examples that would not pass.  Empty when all is
-- well.
function schema.verify(spec)
  local run = report.new_run(nil, {})
  return verify.spec(fields_of(spec), function(field, value)
    run.problems = { count = 0 }
    check.value(run, field, value, { path = "" })
    return run.problems[1] and run.problems[1].message
  end)
end

--- `schema.explain(plugin)`: the documentation of a plugin as text, for a terminal.
function schema.explain(plugin)
  return require "worker.schema.explain".text(plugin)
end

--- `schema.sample(plugin, options)`: a YAML block to copy: what is required as it could be, all
-- else commented out with its default.  Options: indent (text before each line), skip (names to
-- leave out), key (the first line instead of "protocol: NAME").
function schema.sample(plugin, options)
  return require "worker.schema.explain".sample(plugin, options)
end

return schema
