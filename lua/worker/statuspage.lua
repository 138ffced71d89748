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
:root{color-scheme:light dark;--line:#8884;--dim:#787878;--ok:#1a7f37;--bad:#cf222e;--warn:#9a6700}
@media(prefers-color-scheme:dark){:root{--dim:#999;--ok:#3fb950;--bad:#f85149;--warn:#d29922}}
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:64rem;padding:0 1rem}
h1{font-size:1.3rem;margin:0}h2{font-size:1rem;margin:2rem 0 .4rem}small,.dim{color:var(--dim)}p{margin:.4rem 0}
table{border-collapse:collapse;width:100%}td,th{text-align:left;vertical-align:baseline;
padding:.35rem .6rem;white-space:nowrap;border-bottom:1px solid var(--line)}td:first-child,th:first-child{padding-left:0}
td:first-child{white-space:normal;overflow-wrap:anywhere;min-width:9rem}
th{font-weight:600;color:var(--dim);font-size:.85rem}.n{text-align:right;font-variant-numeric:tabular-nums}
.w{white-space:normal;overflow-wrap:anywhere;width:60%}
.w code{display:-webkit-box;-webkit-box-orient:vertical;-webkit-line-clamp:3;overflow:hidden}
code{font:13px/1.6 ui-monospace,monospace}
.success,.ready,.works{color:var(--ok)}.failed,.error,.oom,.closed,.fails{color:var(--bad)}
.timeout,.cancelled,.lost,.draining,.opening,.unknown{color:var(--warn)}
.bar{display:inline-block;width:5rem;height:.6rem;background:var(--line);border-radius:.3rem;overflow:hidden}
.bar i{display:block;height:100%;background:var(--ok)}
@media(max-width:44rem){body{margin:1rem auto}.x,.bar{display:none}.w{width:auto}td,th{padding:.35rem .3rem}
td:first-child{min-width:5rem}}]]

-- Cells ---------------------------------------------------------------------------------------------------

-- Classes: n a number, w what may wrap, x what a narrow screen goes without.
local function cell(words, class, tag)
  return ("<%s%s>%s</%s>"):format(tag or "td", class and (' class="%s"'):format(class) or "", words, tag or "td")
end

-- Columns are { title, class }; a row is a list of cells' words.
local function table_of(columns, rows, nothing)
  if #rows == 0 then return ('<p class="dim">%s</p>'):format(nothing) end
  local lines = { "" }
  for _, column in ipairs(columns) do lines[1] = lines[1] .. cell(column[1], column[2], "th") end
  for _, words in ipairs(rows) do
    local line = {}
    for i, column in ipairs(columns) do line[i] = cell(words[i], column[2]) end
    lines[#lines + 1] = table.concat(line)
  end
  return "<table><tr>" .. table.concat(lines, "</tr><tr>") .. "</tr></table>"
end

local function marked(state) return ('<span class="%s">%s</span>'):format(state, state) end

local function dimmed(words) return words and words ~= "" and " <small>" .. escape(words) .. "</small>" or "" end

local function code(words) return "<code>" .. escape(words) .. "</code>" end

local function bar(part, whole)
  return ('<span class="bar"><i style="width:%d%%"></i></span> %d of %d'):format(
    whole > 0 and 100 * part // whole or 0, part, whole)
end

-- As exact as anybody wants it.
local function took(seconds)
  if seconds < 1 then return ("%d ms"):format(math.floor(seconds * 1000)) end
  return seconds < 10 and ("%.1f s"):format(seconds) or time.age(seconds)
end

local function ago(seconds) return seconds < 1 and "just now" or time.age(seconds) .. " ago" end

-- For a tab among others.
local function slots(servers)
  local running, all = 0, 0
  for _, server in ipairs(servers) do running, all = running + server.running, all + server.slots end
  return ("%d/%d"):format(running, all)
end

-- Tables --------------------------------------------------------------------------------------------------

local function servers_table(servers)
  local rows = {}
  for i, server in ipairs(servers) do
    rows[i] = { escape(server.name), marked(server.state) .. dimmed(server.connection) .. dimmed(server.error),
      bar(server.running, server.slots), tostring(server.done),
      server.contact_age and ago(server.contact_age) or "never" }
  end
  return table_of({ { "Server" }, { "State", "w" }, { "Slots" }, { "Done", "n" }, { "Last answer", "x" } }, rows, "None.")
end

local function executors_table(servers)
  local rows = {}
  for _, server in ipairs(servers) do
    for _, executor in ipairs(server.executors) do
      rows[#rows + 1] = { escape(executor.name), marked(executor.state) .. dimmed(executor.reason), escape(server.name) }
    end
  end
  return table_of({ { "Executor" }, { "State", "w" }, { "Server", "x" } }, rows, "None.")
end

local function jobs_table(servers)
  local rows = {}
  for _, server in ipairs(servers) do
    for _, job in ipairs(server.jobs) do
      rows[#rows + 1] = { code(job.id), escape(server.name), escape(job.executor or ""), time.age(job.seconds // 1),
        code(text.fit(text.strip_ansi(job.last_line or ""), 200)) }
    end
  end
  return table_of({ { "Job" }, { "Server", "x" }, { "On", "x" }, { "For", "n" }, { "Last line of output", "w" } }, rows,
    "No job is running.")
end

local function recent_table(recent)
  local rows = {}
  for i, result in ipairs(recent) do
    local on = (result.executor or "") .. (result.fallback and " instead of " .. result.fallback or "")
      .. (result.cached and ", seen before" or "")
    rows[i] = { code(result.id), escape(result.server), marked(result.state) .. dimmed(result.reason), escape(on),
      took(result.duration or 0), ago(time.wall() - result.finished) }
  end
  return table_of({ { "Job" }, { "Server", "x" }, { "Result", "w" }, { "On", "x" }, { "Took", "n" }, { "Ended" } }, rows,
    "No job has ended yet.")
end

local function sinks_table(sinks)
  local rows = {}
  for i, sink in ipairs(sinks) do
    rows[i] = { escape(sink.name), marked(sink.failing and "fails" or "works"), tostring(sink.delivered),
      tostring(sink.waiting), tostring(sink.dropped) }
  end
  return table_of({ { "Event sink" }, { "State", "w" }, { "Delivered", "n" }, { "Waiting", "n" }, { "Dropped", "n" } },
    rows, "None.")
end

-- A worker without a name of its own is called as its host.
local function title(status)
  return escape((status.name == status.host and "worker" or status.name) .. " on " .. status.host)
end

--- `statuspage.html(status)`: the page, from what stats:describe gives.
function statuspage.html(status)
  return table.concat {
    '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">',
    '<meta http-equiv="refresh" content="3"><title>',
    slots(status.servers), " ", title(status), "</title><style>", STYLE, "</style>",
    "<h1>", title(status), "</h1><small>version ", escape(status.version), ", pid ", escape(status.pid),
    ", started ", escape(time.ago(status.started)), "</small>",
    "<h2>Servers</h2>", servers_table(status.servers), "<h2>Running jobs</h2>", jobs_table(status.servers),
    "<h2>Recent results</h2>", recent_table(status.recent), "<h2>Executors</h2>", executors_table(status.servers),
    status.events and "<h2>Events</h2>" .. sinks_table(status.events) or "", "</html>",
  }
end

return statuspage
