-- metrics.lua: counters, gauges and histograms, in the text format of Prometheus.
--
--   local registry = metrics.new()
--   local jobs = registry:counter("worker_jobs_total", "Jobs that ended.")
--   jobs:add(1, { source = "ci", result = "success" })
--   registry:text()
--
-- Labels must have few values: never an id.
local metrics = {}

local methods = {}
local meta = { __index = methods, __name = "worker.metrics" }

local ESCAPES = { ["\\"] = "\\\\", ["\n"] = "\\n", ['"'] = '\\"' }

-- {a="b",c="d"}, in a stable order; also the key under which the value is kept.
local function label_text(labels, extra)
  if not labels and not extra then return "" end
  local names, words = {}, {}
  for name in pairs(labels or {}) do names[#names + 1] = name end
  table.sort(names)
  for i, name in ipairs(names) do
    words[i] = ('%s="%s"'):format(name, tostring(labels[name]):gsub('[\\\n"]', ESCAPES))
  end
  if extra then words[#words + 1] = extra end
  return "{" .. table.concat(words, ",") .. "}"
end

-- A plain decimal to the microsecond: nine digits are not even seconds, where they are seconds since 1970.
local function number_text(value)
  if value == math.huge then return "+Inf" end
  if math.type(value) == "integer" or value == math.floor(value) and math.abs(value) < 2 ^ 53 then
    return ("%d"):format(value)
  end
  return (("%.6f"):format(value):gsub("%.?0+$", ""))
end

local function sorted(map)
  local keys = {}
  for key in pairs(map) do keys[#keys + 1] = key end
  table.sort(keys)
  return keys
end

-- Counters and gauges ------------------------------------------------------------------------------

local plain = {}
plain.__index = plain

--- `metric:add(n, labels)`; `metric:set(n, labels)` for gauges, and for what somebody else counts.
function plain:add(n, labels)
  local key = label_text(labels)
  self.values[key] = (self.values[key] or 0) + n
end

function plain:set(n, labels)
  self.values[label_text(labels)] = n
end

--- `metric:clear()`: forget all values, before a gauge is filled anew.
function plain:clear()
  self.values = {}
end

function plain:write(lines)
  for _, key in ipairs(sorted(self.values)) do
    lines[#lines + 1] = self.name .. key .. " " .. number_text(self.values[key])
  end
end

-- Histograms ---------------------------------------------------------------------------------------

local histogram = {}
histogram.__index = histogram

--- `histogram:observe(value, labels)`: count a value into its bucket.
function histogram:observe(value, labels)
  local key = label_text(labels)
  local series = self.series[key]
  if not series then
    series = { labels = labels, sum = 0, count = 0, buckets = {} }
    for i = 1, #self.bounds do series.buckets[i] = 0 end
    self.series[key] = series
  end
  series.sum, series.count = series.sum + value, series.count + 1
  for i, bound in ipairs(self.bounds) do
    if value <= bound then series.buckets[i] = series.buckets[i] + 1 end
  end
end

function histogram:write(lines)
  for _, key in ipairs(sorted(self.series)) do
    local series = self.series[key]
    for i, bound in ipairs(self.bounds) do
      lines[#lines + 1] = ("%s_bucket%s %d"):format(self.name,
        label_text(series.labels, ('le="%s"'):format(number_text(bound))), series.buckets[i])
    end
    lines[#lines + 1] = ("%s_bucket%s %d"):format(self.name, label_text(series.labels, 'le="+Inf"'), series.count)
    lines[#lines + 1] = ("%s_sum%s %s"):format(self.name, key, number_text(series.sum))
    lines[#lines + 1] = ("%s_count%s %d"):format(self.name, key, series.count)
  end
end

-- The registry -------------------------------------------------------------------------------------

local function add(self, name, kind, help, metric)
  metric.name, metric.kind, metric.help = name, kind, help
  self.list[#self.list + 1] = metric
  return metric
end

--- `metrics.new()`: an empty registry.
function metrics.new()
  return setmetatable({ list = {} }, meta)
end

--- `registry:counter(name, help)`, `registry:gauge(name, help)`.
function methods:counter(name, help) return add(self, name, "counter", help, setmetatable({ values = {} }, plain)) end
function methods:gauge(name, help) return add(self, name, "gauge", help, setmetatable({ values = {} }, plain)) end

--- `registry:histogram(name, help, bounds)`: bounds in ascending order; +Inf is added.
function methods:histogram(name, help, bounds)
  return add(self, name, "histogram", help, setmetatable({ series = {}, bounds = bounds }, histogram))
end

--- `registry:text()`: everything, in the order it was made.
function methods:text()
  local lines = {}
  for _, metric in ipairs(self.list) do
    lines[#lines + 1] = ("# HELP %s %s"):format(metric.name, metric.help)
    lines[#lines + 1] = ("# TYPE %s %s"):format(metric.name, metric.kind)
    metric:write(lines)
  end
  return table.concat(lines, "\n") .. "\n"
end

return metrics
