-- statuspage.lua: the worker at a glance, as one HTML page without anything from elsewhere.
local text = require "worker.text"
local time = require "worker.time"

local statuspage = {}

local ENTITIES = { ["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;", ['"'] = "&quot;", ["'"] = "&#39;" }

-- Job output and server errors are anybody's words: nothing of them may become markup.
local function escape(words)
  return (text.repair(tostring(words)):gsub("[&<>\"']", ENTITIES))
end

local STYLE = [[
:root{color-scheme:light dark;--line:#8884;--dim:#888;--ok:#1a7f37;--bad:#cf222e;--warn:#9a6700}
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:60rem;padding:0 1rem}
h1{font-size:1.3rem;margin:0}h2{font-size:1rem;margin:2rem 0 .4rem}small,.dim{color:var(--dim)}
table{border-collapse:collapse;width:100%}td,th{text-align:left;padding:.35rem .6rem;border-bottom:1px solid var(--line)}
th{font-weight:600;color:var(--dim);font-size:.85rem}td.n{text-align:right;font-variant-numeric:tabular-nums}
code{font:13px/1.4 ui-monospace,monospace;word-break:break-all}
.success,.ready{color:var(--ok)}.failed,.error,.oom,.closed{color:var(--bad)}
.timeout,.cancelled,.lost,.draining,.opening{color:var(--warn)}
.bar{display:inline-block;width:6rem;height:.6rem;background:var(--line);border-radius:.3rem;overflow:hidden}
.bar i{display:block;height:100%;background:var(--ok)}]]

local function row(...)
  return "<tr>" .. table.concat({ ... }) .. "</tr>"
end

local function cell(words, class)
  return ("<td%s>%s</td>"):format(class and (' class="%s"'):format(class) or "", words)
end

local function head(...)
  local words = {}
  for i, word in ipairs { ... } do words[i] = "<th>" .. word .. "</th>" end
  return row(table.concat(words))
end

local function bar(part, whole)
  return ('<span class="bar"><i style="width:%d%%"></i></span> %d of %d'):format(
    whole > 0 and 100 * part // whole or 0, part, whole)
end

local function servers_table(servers)
  local rows = { head("Server", "State", "Slots", "Done", "Last answer") }
  for _, server in ipairs(servers) do
    local state = ('<span class="%s">%s</span>'):format(server.state, server.state)
    if server.connection then state = state .. " <small>" .. escape(server.connection) .. "</small>" end
    if server.error then state = state .. " <small>" .. escape(server.error) .. "</small>" end
    rows[#rows + 1] = row(cell(escape(server.name)), cell(state), cell(bar(server.running, server.slots)),
      cell(server.done, "n"), cell(server.contact_age and time.format_duration(server.contact_age // 1) .. " ago" or "never"))
  end
  return "<table>" .. table.concat(rows) .. "</table>"
end

local function jobs_table(servers)
  local rows = { head("Job", "Server", "For", "Last line of output") }
  for _, server in ipairs(servers) do
    for _, job in ipairs(server.jobs) do
      rows[#rows + 1] = row(cell("<code>" .. escape(job.id) .. "</code>"), cell(escape(server.name)),
        cell(time.format_duration(job.seconds // 1), "n"),
        cell("<code>" .. escape(text.fit(text.strip_ansi(job.last_line or ""), 100)) .. "</code>"))
    end
  end
  if #rows == 1 then return '<p class="dim">No job is running.</p>' end
  return "<table>" .. table.concat(rows) .. "</table>"
end

local function sinks_table(sinks)
  local rows = { head("Event sink", "State", "Waiting", "Delivered", "Dropped") }
  for _, sink in ipairs(sinks) do
    local state = sink.failing and '<span class="failed">failing</span>' or '<span class="ready">ok</span>'
    rows[#rows + 1] = row(cell(escape(sink.name)), cell(state), cell(sink.waiting, "n"), cell(sink.delivered, "n"),
      cell(sink.dropped, "n"))
  end
  return "<h2>Events</h2><table>" .. table.concat(rows) .. "</table>"
end

local function recent_table(recent)
  local rows = { head("Job", "Server", "Result", "Took", "Ended") }
  for _, result in ipairs(recent) do
    rows[#rows + 1] = row(cell("<code>" .. escape(result.id) .. "</code>"), cell(escape(result.server)),
      cell(('<span class="%s">%s</span> <small>%s</small>'):format(result.state, result.state, escape(result.reason or ""))),
      cell(time.format_duration(result.duration or 0), "n"), cell(escape(time.format(result.finished, 0))))
  end
  if #rows == 1 then return '<p class="dim">No job has ended yet.</p>' end
  return "<table>" .. table.concat(rows) .. "</table>"
end

--- `statuspage.html(status)`: the page, from what stats:describe gives.
function statuspage.html(status)
  return table.concat {
    '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">',
    '<meta http-equiv="refresh" content="3"><title>worker on ', escape(status.host), "</title><style>", STYLE, "</style>",
    "<h1>worker on ", escape(status.host), "</h1><small>version ", escape(status.version), ", pid ", escape(status.pid),
    ", since ", escape(time.format(status.started, 0)), "</small>",
    "<h2>Servers</h2>", servers_table(status.servers), "<h2>Running jobs</h2>", jobs_table(status.servers),
    "<h2>Recent results</h2>", recent_table(status.recent),
    status.events and sinks_table(status.events) or "", "</html>",
  }
end

return statuspage
