-- backoff: how long to wait between claims that bring nothing.
local err = require "worker.error"
local mono = require("worker.time").mono

local backoff = { kind = "policy", name = "backoff", api = 1 }

backoff.doc = "Waits longer and longer while there is no work or the server does not answer."

backoff.config = {
  idle = { "duration", doc = "Wait after the first claim that brought nothing; what the server's protocol "
    .. "suggests if absent, else 1s." },
  idle_most = { "duration", doc = "Longest wait while there is no work; four times the suggestion if absent, else 10s." },
  first = { "duration", default = "1s", doc = "Wait after the first claim that failed." },
  most = { "duration", default = "1m", doc = "Longest wait while claims fail." },
}

local ASKED_MOST = 600 -- seconds: a server may have the wrong date, and asking does it no harm

-- The next wait of a row of empty or failed claims, with full jitter above half.
local function longer(row, first, most)
  local delay = math.min(most, first * 2 ^ (row - 1))
  return delay * (0.5 + math.random() / 2)
end

function backoff.claim(conf, next)
  local row, kind, wait, noted = 0, nil, 0, nil
  local function note(began, what, first, most, asked)
    if what ~= kind then
      row = 1
    elseif began >= noted then -- several that were under way at once are one
      row = row + 1
    end
    kind, noted = what, mono()
    wait = math.max(longer(row, first, most), math.min(asked or 0, ASKED_MOST))
  end
  return function(ctx)
    if wait > 0 and not ctx.pause(wait) then return nil end
    local began = mono()
    local ok, job, again = pcall(next, ctx)
    if ok and (job ~= nil or again) then
      -- what was under way when another one failed says nothing against waiting
      if kind ~= "failed" or began >= noted then row, kind, wait = 0, nil, job == nil and again or 0 end
    elseif ok then
      note(began, "idle", conf.idle or ctx.idle or 1, conf.idle_most or ctx.idle and 4 * ctx.idle or 10)
    else
      note(began, "failed", conf.first, conf.most, err.is(job) and job.retry_after or nil)
      if err.is(job) then wait = job.pause or wait end -- the protocol's own pace
      error(job, 0)
    end
    return job
  end
end

return backoff
