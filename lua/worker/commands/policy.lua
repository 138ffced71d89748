-- policy.lua: `worker policy`: what a policy says to a task, and whether a policy file is right.
local args = require "worker.args"
local err = require "worker.error"
local exit = require "worker.exit"
local fs = require "worker.fs"
local jobfile = require "worker.jobfile"
local json = require "worker.json"
local places = require "worker.places"
local policy = require "worker.policy"
local registries = require "worker.registry"
local sample = require "worker.policy.sample"
local schema = require "worker.schema"
local shelf = require "worker.tools.shelf"
local task = require "worker.task"
local terminal = require "worker.terminal"
local tools = require "worker.tools"
local yaml = require "worker.yaml"

local VERBS = { "explain", "check", "sample" }
local FILE_MOST = 16 << 20

local command = {
  summary = "what a policy says to a task, rule by rule; whether a policy file is right",
  usage = "explain TASK | check FILE... | sample",
  doc = "explain prints each rule and its verdict for what would be run for a task (a tool, or a type and "
    .. "an operation) or a job, written as JSON or YAML; nothing is run, nobody is asked. With --config it is judged "
    .. "as that worker would. The exit code is 1 when it is refused. check tells what is wrong with policy files, "
    .. "with line and column. sample prints the default policy, with every setting there is.",
  words = { 1, nil, missing = "say what to do: worker policy explain TASK, check FILE or sample" },
  complete = VERBS,
  options = {
    policy = { "string", value = "FILE", doc = "Judge by this policy file; by the default policy otherwise." },
    config = { "string", value = "FILE", doc = "Judge as a worker with this configuration would." },
    server = { "string", value = "NAME", doc = "As for this one of its servers; the first otherwise." },
    executor = { "string", value = "NAME", doc = "As this executor would run it; docker, or the server's first." },
    workspace = { "string", value = "DIR", doc = "Where tools work; the working directory otherwise." },
    plugins = { "list", value = "DIR", doc = "Look for plugins here." },
    json = { "flag", doc = "Print JSON." },
  },
  examples = {
    { "worker policy explain task.json --policy policy.yaml", "would it be run?" },
    { "worker policy explain task.json --config /etc/worker/worker.yaml", "would that worker run it?" },
    { "worker policy check policy.yaml", "before it is used" },
    { "worker policy sample > policy.yaml", "a file to begin with" },
  },
}

-- Whose word counts ---------------------------------------------------------------------------------------

local function plugin_of(registry, kind, name, given)
  local plugin, why = registry:get(kind, name)
  if not plugin then err.raise("config", why) end
  local conf, problems = schema.check(plugin, given or {}, nil, name)
  if not conf then err.raise("config", tostring(problems[1])) end
  return { name = name, plugin = plugin, conf = conf }
end

local function load_config(options)
  local conf, problems = require("worker.config").load { config = options.config, dirs = options.plugins }
  if not conf then err.raise("config", "the configuration is wrong", { problems = problems }) end
  return conf
end

local function named(list, name, what)
  if not name then return list[1] end
  local names = {}
  for i, one in ipairs(list) do
    names[i] = one.name
    if one.name == name then return one end
  end
  args.usage(("there is no %s '%s' in this configuration%s"):format(what, name, args.nearest(name, names, "'%s'")))
end

-- { executor=, limits=, enforce=, tools= }: as a worker would have them.
local function worker_of(options)
  if not options.config then
    local registry = registries.open(places.plugin_dirs(options.plugins or {}))
    return { registry = registry, executor = plugin_of(registry, "executor", options.executor or "docker"),
      limits = plugin_of(registry, "policy", "limits"), tools = { workspaces = { ["*"] = options.workspace or "." } } }
  end
  local conf = load_config(options)
  local server = named(conf.servers, options.server, "server")
  local found = { registry = conf.registry, executor = named(server.executors, options.executor, "executor"),
    workdir = fs.join(conf.workspace, "JOB"), tools = server.conf.tools or {} }
  for _, one in ipairs(conf.policies.run) do
    if one.name == "limits" or one.name == "enforce" then found[one.name] = one end
  end
  if options.workspace then
    found.tools = setmetatable({ workspaces = { ["*"] = options.workspace } }, { __index = found.tools })
  end
  return found
end

local function policy_of(options, worker, job)
  if options.policy then return policy.read(options.policy) end
  if not worker.enforce and options.config then
    err.raise("config", "this configuration has no policy: `enforce` is not among its policies around a run")
  end
  local conf = worker.enforce and worker.enforce.conf or { sessions = {} }
  local base = conf.file and policy.read(conf.file) or policy.default()
  local own = job.session and conf.sessions[job.session]
  return own and policy.merge(base, policy.read(own)) or base
end

-- What would be run -----------------------------------------------------------------------------------------

local function is_task(value)
  return type(value) == "table" and (value.tool or value.type or value.operation or value.command or value.config) ~= nil
end

-- A task as orchestrators keep it has what is asked for in a part of its own.
local function flat(value)
  local all = {}
  for _, part in ipairs { value, type(value.config) == "table" and value.config or {} } do
    for name, item in pairs(part) do all[name] = item end
  end
  return all
end

local function job_of_task(path, value, worker)
  local ok, job = task.try(tools.job, flat(value), worker.tools)
  if ok then return job end
  err.raise("config", ("%s: %s"):format(path, tostring(job)))
end

local function job_of(path, worker)
  local source, why = fs.read(path, FILE_MOST)
  if not source then err.raise("config", tostring(why)) end
  local value = not path:find("%.sh$") and yaml.decode(source, { name = path })
  local job = is_task(value) and job_of_task(path, value, worker) or jobfile.parse(fs.base(path), source)
  job.id = job.id or fs.base(path)
  return job
end

local function plan_of(worker, job)
  local executor = worker.executor
  if not executor.plugin.plan then
    err.raise("config", ("the executor %s does not say what it would run: it has no `plan`"):format(executor.name))
  end
  local ctx = { id = job.id, limits = {}, env = {}, secrets = {}, workdir = worker.workdir, note = function() end }
  local function plan(_, with) return executor.plugin.plan(executor.conf, job, with) end
  local through = worker.limits and worker.limits.plugin.run(worker.limits.conf, plan) or plan
  return through(job, ctx)
end

-- Telling ---------------------------------------------------------------------------------------------------

local WORDS = { kept = { "kept", "green" }, broken = { "broken", "red" }, mended = { "changed", "yellow" },
  unasked = { "-", "dim" } }

local function print_table(decision, given, worker, plan)
  local paint = terminal.painter(terminal.color())
  io.stdout:write(terminal.columns({
    { "policy", ("%s (%s), %s"):format(decision.policy, decision.mode, given.name) },
    { "would run", ("%s by %s as %s, network %s"):format(plan.image or "a process", worker.executor.name,
      plan.user or "the image's user", plan.network) },
  }), "\n")
  local rows = { { paint("bold", "RULE"), paint("bold", "VERDICT"), paint("bold", "WHY") } }
  for _, verdict in ipairs(decision.verdicts) do
    local word = WORDS[verdict.state]
    rows[#rows + 1] = { verdict.rule, paint(word[2], word[1]), (verdict.detail or "")
      .. (verdict.state == "broken" and verdict.severity == "warning" and " (a warning)" or "") }
  end
  local broken = #decision.broken
  io.stdout:write(terminal.columns(rows), "\n", decision.allowed and paint("green", "It would be run")
    or paint("red", "It would be refused"), broken > 0 and (": %d rule%s broken.\n"):format(broken, broken == 1 and "" or "s")
    or ".\n")
end

local verbs = {}

function verbs.explain(options, words)
  if #words ~= 1 then args.usage("say which task: worker policy explain TASK") end
  local worker = worker_of(options)
  shelf.set(worker.registry:shelf())
  local job = job_of(words[1], worker)
  local given = policy_of(options, worker, job)
  local plan = plan_of(worker, job)
  local decision = policy.judge(given, plan)
  if options.json then
    decision.broken, decision.mended = json.array(decision.broken), json.array(decision.mended)
    decision.verdicts = json.array(decision.verdicts)
    io.stdout:write(json.encode(decision, { pretty = true }), "\n")
  else
    print_table(decision, given, worker, plan)
  end
  return decision.allowed and exit.OK or 1
end

function verbs.check(_, words)
  if #words == 0 then args.usage("say which file: worker policy check FILE") end
  local wrong = false
  for _, path in ipairs(words) do
    local found, problems = policy.check(path)
    for _, problem in ipairs(problems) do io.stderr:write(tostring(problem), "\n") end
    wrong = wrong or not found
    if found then io.stdout:write(("%s: policy %s (%s), in order\n"):format(path, found.id, found.mode)) end
  end
  return wrong and exit.CONFIG or exit.OK
end

function verbs.sample()
  io.stdout:write(sample())
  return exit.OK
end

function command.run(options, words)
  local verb = table.remove(words, 1)
  if verbs[verb] then return verbs[verb](options, words) end
  args.usage(("there is no `worker policy %s`%s"):format(verb, args.nearest(verb, VERBS, "'%s'")))
end

return command
