-- facts.lua: what this host can do for a worker, and what to do about what it cannot.
--
--   for _, fact in ipairs(facts.list()) do print(fact.state, fact.name, fact.detail) end
--
-- A fact is plain data: {area=, name=, state=, detail=, advice=}.  `state` is "yes", "partly", "no",
-- or "unknown" where finding out failed (which is no reason to fail); `advice`, only where something
-- is missing, says what to do.  `worker doctor` prints them; so can anybody else.
--
--   worker.facts.kernel      kernel, control groups, namespaces, limits, rights
--   worker.facts.machine     memory, disk, clock, container, systemd
--   worker.facts.containers  docker, podman, gVisor
local containers = require "worker.facts.containers"
local kernel = require "worker.facts.kernel"
local machine = require "worker.facts.machine"

local facts = {}

local AREAS = { kernel, machine, containers }

local STATES = { yes = true, partly = true, no = true, unknown = true }

-- One question must not keep the others from being answered.
local function ask(area, name, question, options)
  local ok, state, detail, advice = pcall(question, options)
  if not ok then
    state, detail, advice = "unknown", tostring(state), nil
  end
  assert(STATES[state], name)
  return { area = area, name = name, state = state, detail = detail, advice = advice }
end

--- `facts.list(options)`: all facts, in a fixed order.  Options: `workdir` (where workspaces will
-- be; the place for temporary files if not given), `docker` (the socket of the engine, if not where
-- DOCKER_HOST or custom say).  Takes a second or two at most: sockets that do not answer are given up.
function facts.list(options)
  local list = {}
  for _, area in ipairs(AREAS) do
    for _, entry in ipairs(area.questions) do
      list[#list + 1] = ask(area.name, entry[1], entry[2], options or {})
    end
  end
  return list
end

--- `facts.find(list, name)`: the fact of that name in a list, or nil.
function facts.find(list, name)
  for _, fact in ipairs(list) do
    if fact.name == name then return fact end
  end
end

local MARKS = { yes = "ok", partly = "~", no = "-", unknown = "?" }

--- `facts.text(list)`: the list for a terminal: areas, a mark and a line each, advice below it.
function facts.text(list)
  local lines, area, width = {}, nil, 0
  for _, fact in ipairs(list) do width = math.max(width, #fact.name) end
  for _, fact in ipairs(list) do
    if fact.area ~= area then
      lines[#lines + 1] = (area and "\n" or "") .. fact.area
      area = fact.area
    end
    lines[#lines + 1] = ("  %-2s  %-" .. width .. "s  %s"):format(
      MARKS[fact.state], fact.name, fact.detail)
    if fact.advice then lines[#lines + 1] = (" "):rep(width + 8) .. "-> " .. fact.advice end
  end
  return table.concat(lines, "\n")
end

return facts
