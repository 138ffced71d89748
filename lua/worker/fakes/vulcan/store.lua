-- What Vulcan's server keeps: workers, chains and their fragments, and the rules by which they change.
--
-- The rules are those of the real one, the odd ones included: a worker that was declared dead stays
-- so for ever and is still given work; a result is taken from any worker in any state, and the last
-- one wins; a claim whose answer is lost stays `running` as long as its worker is heard of.
local err = require "worker.error"
local stage = require "worker.fakes.stage"
local sys = require "worker.core.sys"

local store = {}

local INT32 = 2 ^ 31

local methods = {}
local meta = { __index = methods }

local TERMINAL = { completed = true, failed = true }

-- Jobs in ------------------------------------------------------------------------------------------------

local function chain_of(self, id)
  local chain = self.chains[id]
  if not chain then
    chain = { id = id, status = "active", fragments = {} }
    self.chains[id] = chain
  end
  return chain
end

local function place(self, row)
  self.fragments[row.id], self.list[#self.list + 1] = row, row
  table.insert(chain_of(self, row.chain).fragments, row)
  self.unsorted = true
end

local function check_job(job, number)
  local function wrong(what) err.raise("config", ("job %d: %s"):format(number, what)) end
  if type(job) == "string" then job = { script = job } end
  if type(job) ~= "table" then wrong "expected a script, or a map like { script: echo hi }" end
  for name, kind in pairs { script = "string", machine = "string", chain = "string", name = "string",
    parent = "string", status = "string", sequence = "number", parallel = "boolean" } do
    if job[name] ~= nil and type(job[name]) ~= kind then wrong(("%s must be a %s"):format(name, kind)) end
  end
  return job
end

--- `store:add(job)`: a fragment: a script, or { script=, machine=, chain=, sequence=, name=, parent=,
-- parallel=, status= }.  Jobs that name the same chain are steps of it; without a name each is a chain
-- of its own.  The row.
function methods:add(job)
  job = check_job(job, #self.list + 1)
  self.seeds = self.seeds + 1
  local row = {
    id = stage.uuid(), number = self.seeds, script = job.script, machine = job.machine, name = job.name,
    chain = job.chain and stage.uuid("chain " .. job.chain) or stage.uuid(), sequence = job.sequence or 0,
    parent = job.parent, parallel = job.parallel, status = job.status or "pending", attempt = 1, reports = 0,
  }
  place(self, row)
  self.keep:put("fragment", row)
  return row
end

-- Workers ------------------------------------------------------------------------------------------------

--- `store:register(tenant, group)`: always a new row.
function methods:register(tenant, group)
  local row = { id = stage.uuid(), tenant = tenant, group = group, status = "active", heard = sys.wall() }
  self.workers[row.id] = row
  self.keep:put("worker", row)
  return row
end

--- `store:heartbeat(worker)`: notes the time; the status stays what it is.
function methods:heartbeat(worker)
  worker.heard = sys.wall()
  self.keep:put("worker", worker)
end

-- Claims -------------------------------------------------------------------------------------------------

local function is_blocked(self, row)
  local siblings = self.chains[row.chain].fragments
  if row.parent then
    for _, other in ipairs(siblings) do
      if other.name == row.parent and other.parallel then return false end
    end
  end
  for _, other in ipairs(siblings) do
    if other.parent == row.parent and other.sequence < row.sequence and not TERMINAL[other.status] then
      return true
    end
  end
  return false
end

-- All pending ones by sequence; made anew only when one has come or come back.
local function sort_pending(self)
  local queue = {}
  for _, row in ipairs(self.list) do
    if row.status == "pending" then queue[#queue + 1] = row end
  end
  table.sort(queue, function(a, b)
    if a.sequence ~= b.sequence then return a.sequence < b.sequence end
    return a.number < b.number
  end)
  self.queue, self.first, self.unsorted = queue, 1, false
end

--- `store:claim(worker)`: the next fragment for it, which is then running; or nil.  Neither the
-- worker's status nor what it holds already is looked at.
function methods:claim(worker)
  if self.unsorted then sort_pending(self) end
  local queue = self.queue
  while queue[self.first] and queue[self.first].status ~= "pending" do self.first = self.first + 1 end
  for i = self.first, #queue do
    local row = queue[i]
    local fits = worker.group == nil or row.machine == worker.group
    if row.status == "pending" and fits and not is_blocked(self, row) then
      row.status, row.worker, row.started = "running", worker.id, sys.wall()
      worker.current = row.id
      self.keep:put("fragment", row)
      self.keep:put("worker", worker)
      return row
    end
  end
end

-- Results ------------------------------------------------------------------------------------------------

local function settle_chain(chain)
  local failed = false
  for _, row in ipairs(chain.fragments) do
    if not TERMINAL[row.status] then return end
    failed = failed or row.status == "failed"
  end
  chain.status = failed and "failed" or "completed"
end

--- `store:result(worker, row, said)`: said = { success, exit_code, error_message }.  Who reports and
-- what the fragment's state was does not matter.  The exit code of a failure is not kept (`told`
-- remembers it, for whoever tests a worker).
function methods:result(worker, row, said)
  row.reports = row.reports + 1
  row.told = { success = said.success, exit_code = said.exit_code, message = said.error_message,
    worker = worker.id, at = sys.wall() }
  if said.success then
    row.exit_code = said.exit_code or 0
    row.status = row.exit_code == 0 and "completed" or "failed"
  else
    row.status, row.error_message = "failed", said.error_message or "Unknown error"
  end
  worker.current = nil
  self.keep:put("fragment", row)
  self.keep:put("worker", worker)
  settle_chain(self.chains[row.chain])
end

--- `store.is_int32(value)`: whether it fits the column of exit codes.
function store.is_int32(value)
  return math.type(value) == "integer" and value >= -INT32 and value < INT32
end

-- The health monitor -------------------------------------------------------------------------------------

local function give_up(self, row)
  if row.attempt < self.knobs.max_attempts then
    row.status, row.attempt = "pending", row.attempt + 1
    row.worker, row.started, row.exit_code, row.error_message = nil, nil, nil, nil
    self.unsorted = true
  else
    -- its chain is not looked at: it stays active for ever
    row.status, row.error_message = "failed", "Worker died and max retry attempts exceeded"
  end
  self.keep:put("fragment", row)
end

--- `store:check()`: what the monitor does now and then: active workers that were not heard of for too
-- long are in error for good; what each held last is handed out again, finished or not.
function methods:check()
  for _, worker in pairs(self.workers) do
    if worker.status == "active" and sys.wall() - worker.heard > self.knobs.heartbeat_timeout then
      worker.status = "error"
      local row = worker.current and self.fragments[worker.current]
      if row then give_up(self, row) end
      worker.current = nil
      self.keep:put("worker", worker)
      self.on_death(worker, row)
    end
  end
end

--- `store:forget(worker)`: the row is gone, as after a database was set up anew.
function methods:forget(worker)
  self.workers[worker.id] = nil
end

--- `store:metrics(group)`: counts as /queue/metrics has them.
function methods:metrics(group)
  local pending, running, active = 0, 0, 0
  for _, row in ipairs(self.list) do
    -- fragments without a machine count for every group, although no group is given them
    if not group or row.machine == nil or row.machine == group then
      if row.status == "pending" then pending = pending + 1 end
      if row.status == "running" then running = running + 1 end
    end
  end
  for _, worker in pairs(self.workers) do
    if worker.status == "active" and (not group or worker.group == group) then active = active + 1 end
  end
  return pending, running, active
end

-- A life -------------------------------------------------------------------------------------------------

local function load(self)
  for kind, row in self.keep:rows() do
    if kind == "worker" then
      self.workers[row.id] = row
    else
      place(self, row)
      self.seeds = math.max(self.seeds, row.number)
    end
  end
  -- rows come in the order in which they last changed
  local function older(a, b) return a.number < b.number end
  table.sort(self.list, older)
  for _, chain in pairs(self.chains) do
    table.sort(chain.fragments, older)
    settle_chain(chain)
  end
end

--- `store.new(knobs, keep)`: knobs: heartbeat_timeout, max_attempts; keep: where the rows are kept.
function store.new(knobs, keep)
  local self = setmetatable({
    knobs = knobs, keep = keep, workers = {}, fragments = {}, list = {}, chains = {}, seeds = 0, unsorted = true,
    on_death = function() end,
  }, meta)
  load(self)
  return self
end

return store
