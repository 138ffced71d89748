-- context.lua: what one job brings along while it runs: ctx for executors and policies.
--
--   ctx.log(stream, text)   output of the job; policies may replace it by one that wraps it
--   ctx.note(text)          a line of the worker's own in the job's log (stream "worker")
--   ctx.workdir             the job's directory, once the workspace policy has made one
--   ctx.env                 the base environment, once the env policy has made one
--   ctx.limits              what the limits policy found
--   ctx.secrets             values that must not be seen
--   ctx.grace               seconds between TERM and KILL
--   ctx.draining            a signal that fires when the worker is asked to stop
--   ctx.review(plan, final) policies look at what is going to be run; absent when there is none that does
--   ctx.emit(name, facts)   tell whoever listens to the worker's events
--   ctx.own(handle)         something to close once the job is over and reported; gives it back
--   ctx.server, ctx.id      the server's name, the job's id
local fs = require "worker.fs"
local link = require "worker.link"
local log = require "worker.log"
local sys = require "worker.core.sys"
local text = require "worker.text"

local context = {}

local GRACE = 5
local KEEP = 64 * 1024
local PRIVATE = 448 -- 0700

-- Head and tail of the job's streams, for protocols that report output with the result: so many bytes
-- of each, or of those that the protocol names.
local function keep(kept, output, stream, data)
  if not kept[stream] then
    local bytes = output == true and KEEP or output
    if type(output) == "table" then bytes = output[stream] end
    if not bytes then return end
    kept[stream] = text.head_tail(bytes // 2, bytes - bytes // 2)
  end
  kept[stream]:add(data)
end

-- The last line of the output, cheaply: the chunk is only looked at when somebody asks.
local function last_line(ctx)
  local data = ctx.last_text
  if not data then return nil end
  return data:match("([^\r\n]+)[\r\n]*$")
end

-- Where a job's output goes when the server is slower than the job.
local function spool_of(server)
  if not server.spool_dir then return nil end
  return function()
    fs.mkdir(server.spool_dir, { parents = true, mode = PRIVATE })
    local path = fs.join(server.spool_dir, text.random_id())
    return require("worker.spool").open(path, { ceiling = server.spool_most })
  end
end

-- The last one first; one that fails does not keep the others open.
local function close(ctx)
  if not ctx.owned then return end
  for i = #ctx.owned, 1, -1 do
    local ok, why = pcall(ctx.owned[i].close, ctx.owned[i])
    if not ok then log.warn("job.close_failed", ("job %s: %s"):format(ctx.id, tostring(why)), { job = ctx.id }) end
  end
end

-- What a context can do or has from its server, each made when somebody asks for it: most jobs need little of it.
local made = {}

function made.log(ctx, server)
  local output, shipped = server.plugin.output, ctx.joblog
  if output and not ctx.kept then ctx.kept = {} end
  return function(stream, data)
    if type(data) ~= "string" then error("ctx.log: expected text, got a " .. type(data), 2) end
    if #data == 0 then return end
    ctx.last_text = data
    ctx.bytes = (ctx.bytes or 0) + #data
    if output and stream ~= "worker" then keep(ctx.kept, output, stream, data) end
    if server.watchers then
      server.events:emit("job.output", { job = ctx.job, ctx = ctx, stream = stream, text = data })
    end
    if shipped then shipped:write(stream, data) end
  end
end

function made.note(ctx)
  return function(line) ctx.log("worker", line .. "\n") end
end

-- Before and after the run there is nothing to end.
function made.cancel(ctx)
  return function(reason)
    ctx.cancel_reason = ctx.cancel_reason or reason
    if ctx.body then ctx.body:cancel(reason) end
  end
end

function made.own(ctx)
  local owned = {}
  ctx.owned = owned
  return function(handle)
    owned[#owned + 1] = handle
    return handle
  end
end

function made.give(ctx)
  local given = {}
  ctx.given = given
  return function(path) given[#given + 1] = path end
end

function made.emit(ctx, server)
  return function(name, facts)
    facts.job, facts.ctx = ctx.job, ctx
    return link.emit(server, name, facts)
  end
end

function made.server(_, server) return server.name end
function made.id(ctx) return ctx.job.id end
function made.draining(_, server) return server.drain_signal end

function made.is_draining(_, server)
  return function() return server.draining end
end

function made.last_line() return last_line end

local function meta_of(server)
  return { __close = close, __index = function(ctx, key)
    local make = made[key]
    if not make then return nil end
    local value = make(ctx, server)
    ctx[key] = value
    return value
  end }
end

--- `context.new(server, job)`: the context of one job of one server; to be closed.  Its `body` is the task
-- that runs the job, while it runs.
function context.new(server, job)
  local plugin, meta = server.plugin, server.context_meta
  if not meta then
    meta = meta_of(server)
    server.context_meta = meta
  end
  -- false is what every job's way asks for and few have: to know that it is absent would take longer
  local ctx = setmetatable({
    job = job, workspace = server.workspace, secrets = {}, grace = server.grace or GRACE, began = sys.mono(),
    limits = { memory = nil, open_files = nil, core_size = nil }, -- room for what the policy mostly finds
    cancel_reason = false, kept = false, owned = false, review = false,
  }, meta)
  if plugin.log then ctx.joblog = require("worker.joblog").new { batch = plugin.batch, spool = spool_of(server) } end
  if job.secrets then
    for i, value in ipairs(job.secrets) do ctx.secrets[i] = value end
  end
  return ctx
end

--- `context.output(ctx)`: what was kept of each stream: { stdout=, stderr= } as text, or nil; and how many
-- bytes of each were not, where there are any.
function context.output(ctx)
  if not ctx.kept or next(ctx.kept) == nil then return nil end
  local output, dropped = {}, nil
  for stream, kept in pairs(ctx.kept) do
    output[stream] = kept:text()
    local bytes = kept:dropped()
    if bytes > 0 then
      dropped = dropped or {}
      dropped[stream] = bytes
    end
  end
  return output, dropped
end

return context
