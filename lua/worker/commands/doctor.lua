-- doctor.lua: `worker doctor`: what this host can do for a worker, and what to do about the rest.
local exit = require "worker.exit"
local facts = require "worker.facts"
local terminal = require "worker.terminal"

local command = {
  summary = "tell what this host can do, what is missing and how to get it",
  usage = "[options]",
  doc = "Looks at the kernel, control groups, limits, disk, clock and container engines; changes "
    .. "nothing. The exit code is 1 when something is missing without which no worker runs.",
  words = { 0, 0 },
  log_level = "warn",
  options = {
    workspace = { "path", value = "DIR", env = "WORKER_WORKSPACE",
      doc = "Where the directories of jobs will be (else where temporary files are)." },
    json = { "flag", doc = "Print JSON." },
  },
  examples = {
    { "worker doctor", "on a new machine" },
    { "worker doctor --json --workspace /var/lib/worker", "for a program that sets machines up" },
  },
}

local MARKS = {
  yes = { "green", "ok" }, partly = { "yellow", "partly" }, no = { "yellow", "no" },
  essential = { "red", "MISSING" }, unknown = { "dim", "unknown" },
}

-- Without these no job can run; all else only makes it run better.
local ESSENTIAL = { ["kernel version"] = true, workspaces = true, ["temporary files"] = true }

local function is_missing(fact)
  return fact.state == "no" and ESSENTIAL[fact.name] == true
end

local function missing_of(list)
  local names = {}
  for _, fact in ipairs(list) do
    if is_missing(fact) then names[#names + 1] = fact.name end
  end
  return names
end

local function row_of(fact, paint)
  local mark = MARKS[is_missing(fact) and "essential" or fact.state]
  -- padded before it is painted, so that all areas have the same columns
  return { paint(mark[1], ("%-7s"):format(mark[2])), ("%-18s"):format(fact.name), fact.detail }
end

local function print_areas(list, paint)
  local at = 1
  while list[at] do
    local area, rows = list[at].area, {}
    while list[at] and list[at].area == area do
      rows[#rows + 1] = row_of(list[at], paint)
      at = at + 1
    end
    io.stdout:write(paint("bold", area), "\n", terminal.columns(rows, { indent = 2 }), "\n")
  end
end

local function print_advice(list, paint)
  local rows = {}
  for _, fact in ipairs(list) do
    if fact.advice then rows[#rows + 1] = { fact.name, fact.advice } end
  end
  if #rows == 0 then return end
  io.stdout:write(paint("bold", "What can be done"), "\n", terminal.columns(rows, { indent = 2 }), "\n")
end

local function print_verdict(missing)
  if #missing > 0 then
    io.stdout:write("No worker can run here before this is mended: ", table.concat(missing, ", "), ".\n")
  else
    io.stdout:write("A worker can run here.\n")
  end
end

function command.run(options)
  local list = facts.list { workdir = options.workspace }
  local missing = missing_of(list)
  if options.json then
    local json = require "worker.json"
    for _, fact in ipairs(list) do fact.essential = ESSENTIAL[fact.name] == true end
    io.stdout:write(json.encode { ok = #missing == 0, facts = json.array(list) }, "\n")
  else
    local paint = terminal.painter(terminal.color(options.color))
    print_areas(list, paint)
    print_advice(list, paint)
    print_verdict(missing)
  end
  return #missing == 0 and exit.OK or exit.FAILED
end

return command
