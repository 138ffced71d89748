-- worker.time: clocks, durations, dates and sizes, for programs and for people.
--
-- Times are numbers of seconds everywhere; text is only what people read and write.  Durations and
-- sizes are written the way configuration files have them ("1h30m", "64MiB"), and what is formatted
-- here can be parsed here again.

local sys = require "worker.core.sys"

local time = {}

--- `time.mono()`: seconds on a clock that never goes back; only differences mean anything.
time.mono = sys.mono

--- `time.wall()`: seconds since 1970-01-01 UTC, as the machine's clock has it; it may jump.
time.wall = sys.wall

--- `time.iso([digits])`: the present moment as "2026-11-21T03:04:05.678Z", with 0, 3 (when not
-- given), 6 or 9 digits after the second.
function time.iso(digits)
  return sys.iso(digits or 3)
end

-- ---- durations ----

local UNITS = {
  { "w", 604800 }, { "d", 86400 }, { "h", 3600 }, { "m", 60 }, { "s", 1 },
  { "ms", 1e-3 }, { "us", 1e-6 }, { "ns", 1e-9 },
}
local SECONDS = { ["µs"] = 1e-6 }
for _, unit in ipairs(UNITS) do SECONDS[unit[1]] = unit[2] end

local LONGEST = 100 * 365 * 86400
local FOREVER = 10 * LONGEST

local function plain_seconds(number)
  if number ~= number or number < 0 or number > LONGEST then return nil end
  return number
end

-- Each unit at most once and from large to small, so that "30m1h" and "5m5m" are seen as mistakes.
local function sum_of_parts(text)
  local sum, last, at = 0, math.huge, 1
  while at <= #text do
    local number, unit, after = text:match("^(%d+%.?%d*)%s*(%a+)%s*()", at)
    if not number then number, unit, after = text:match("^(%d+%.?%d*)%s*(µs)%s*()", at) end
    local size = SECONDS[unit]
    if not size or size >= last then return nil end
    -- dividing keeps "250ms" exactly 0.25
    sum = sum + (size < 1 and tonumber(number) / (1 / size) or tonumber(number) * size)
    last, at = size, after
  end
  return sum
end

--- `time.parse_duration(text)`: seconds, or nil and what was expected.  Takes "1h30m", "250ms",
-- "1.5s", "2d", a plain number (seconds), as text or as a number.  Units: w d h m s ms us ns.
function time.parse_duration(text)
  local seconds
  if type(text) == "number" then
    seconds = plain_seconds(text)
  elseif type(text) == "string" then
    local trimmed = text:match("^%s*(.-)%s*$")
    if trimmed:find("^%d+%.?%d*$") then
      seconds = plain_seconds(tonumber(trimmed))
    elseif trimmed ~= "" then
      seconds = sum_of_parts(trimmed)
      seconds = seconds and plain_seconds(seconds)
    end
  end
  if not seconds then return nil, 'a duration like "30s" or "1h30m"' end
  return math.tointeger(seconds) or seconds
end

local function trimmed_number(number)
  return (("%.3f"):format(number):gsub("%.?0+$", ""))
end

local function below_a_second(seconds)
  for _, unit in ipairs { UNITS[6], UNITS[7], UNITS[8] } do
    if seconds >= unit[2] * 0.9999999 then return trimmed_number(seconds / unit[2]) .. unit[1] end
  end
  return "0s"
end

--- `time.format_duration(seconds)`: the same as text, exact to the millisecond: "1h30m", "250ms",
-- "1.5s", "0s".
function time.format_duration(seconds)
  if seconds ~= seconds or seconds > FOREVER then return "forever" end
  if seconds < 0 then return "-" .. time.format_duration(-seconds) end
  if seconds < 0.9999999 then return below_a_second(seconds) end

  local rest, parts = math.floor(seconds * 1000 + 0.5), {}
  for index = 2, 4 do
    local size = UNITS[index][2] * 1000
    if rest >= size then
      parts[#parts + 1] = ("%d%s"):format(rest // size, UNITS[index][1])
      rest = rest % size
    end
  end
  if rest > 0 then parts[#parts + 1] = trimmed_number(rest / 1000) .. "s" end
  return table.concat(parts)
end

--- `time.age(seconds)`: a rough length of time in few letters, for tables and status lines:
-- "850ms", "12s", "4m10s", "3h05m", "2d4h".  Not exact; use format_duration for what is read back.
function time.age(seconds)
  if seconds < 0 then return "0s" end
  if seconds ~= seconds or seconds > FOREVER then return "forever" end
  if seconds < 1 then return ("%dms"):format(seconds * 1000 // 1) end
  local whole = math.floor(seconds)
  if whole < 60 then return ("%ds"):format(whole) end
  if whole < 3600 then return ("%dm%02ds"):format(whole // 60, whole % 60) end
  if whole < 86400 then return ("%dh%02dm"):format(whole // 3600, whole % 3600 // 60) end
  return ("%dd%dh"):format(whole // 86400, whole % 86400 // 3600)
end

--- `time.ago(wall [, now])`: how long ago a moment was, for people: "just now", "5 minutes ago",
-- "in 2 hours".
function time.ago(wall, now)
  local gap = (now or time.wall()) - wall
  local size = math.abs(gap)
  if size < 1 then return "just now" end
  local names = { { 86400, "day" }, { 3600, "hour" }, { 60, "minute" }, { 1, "second" } }
  for _, unit in ipairs(names) do
    if size >= unit[1] then
      local count = math.floor(size / unit[1])
      local text = ("%d %s%s"):format(count, unit[2], count == 1 and "" or "s")
      return gap > 0 and text .. " ago" or "in " .. text
    end
  end
end

-- ---- dates (RFC 3339) ----

local function is_leap(year)
  return year % 4 == 0 and (year % 100 ~= 0 or year % 400 == 0)
end

local MONTH_DAYS = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 }

local function days_in(year, month)
  return month == 2 and is_leap(year) and 29 or MONTH_DAYS[month]
end

-- Days from 1970-01-01 to the first of January of a year, counted by the leap years between.
local function days_before(year)
  local y = year - 1
  return 365 * (year - 1970) + y // 4 - y // 100 + y // 400 - 477
end

local function civil_seconds(year, month, day, hour, minute, second)
  if month < 1 or month > 12 or day < 1 or day > days_in(year, month) then return nil end
  -- 60 is a leap second; it counts as the second after
  if hour > 23 or minute > 59 or second > 60 then return nil end
  local days = days_before(year) + day - 1
  for before = 1, month - 1 do days = days + days_in(year, before) end
  return days * 86400 + hour * 3600 + minute * 60 + second
end

local function zone_seconds(zone)
  if zone == "Z" or zone == "z" then return 0 end
  local sign, hours, minutes = zone:match("^([+-])(%d%d):(%d%d)$")
  if not sign or tonumber(hours) > 23 or tonumber(minutes) > 59 then return nil end
  local seconds = tonumber(hours) * 3600 + tonumber(minutes) * 60
  return sign == "-" and -seconds or seconds
end

--- `time.parse(text)`: seconds since 1970 for an RFC 3339 date and time such as
-- "2026-11-21T03:04:05.678+01:00", or nil and what was expected.  Whole seconds are an integer.
function time.parse(text)
  local expected = 'a time like "2026-11-21T03:04:05Z"'
  if type(text) ~= "string" then return nil, expected end
  local y, mo, d, h, mi, s, fraction, zone =
    text:match("^(%d%d%d%d)%-(%d%d)%-(%d%d)[Tt ](%d%d):(%d%d):(%d%d)(%.?%d*)(.+)$")
  local shift = zone and zone_seconds(zone)
  if not shift or fraction == "." or (fraction ~= "" and fraction:sub(1, 1) ~= ".") then
    return nil, expected
  end
  local int = math.tointeger
  local seconds = civil_seconds(int(y), int(mo), int(d), int(h), int(mi), int(s))
  if not seconds then return nil, expected end
  seconds = seconds - shift
  return fraction == "" and seconds or seconds + tonumber("0" .. fraction)
end

--- `time.format(wall [, digits])`: that moment as RFC 3339 in UTC, with 0 (when not given), 3, 6 or
-- 9 digits after the second; the fraction is cut, not rounded.
function time.format(wall, digits)
  local whole = math.floor(wall)
  local at = os.date("!*t", whole)
  local text = ("%04d-%02d-%02dT%02d:%02d:%02d"):format(
    at.year, at.month, at.day, at.hour, at.min, at.sec)
  if digits and digits > 0 then
    text = ("%s.%0" .. digits .. "d"):format(text, math.floor((wall - whole) * 10 ^ digits))
  end
  return text .. "Z"
end

-- ---- sizes ----

-- A bare letter means the binary unit, as with the memory limits of Linux; only "MB" is decimal.
local SIZES = { b = 1, [""] = 1 }
for power, letter in ipairs { "k", "m", "g", "t", "p" } do
  SIZES[letter], SIZES[letter .. "ib"] = 1024 ^ power, 1024 ^ power
  SIZES[letter .. "b"] = 1000 ^ power
end

--- `time.parse_size(text)`: bytes, or nil and what was expected.  "64MiB" and "64M" are binary,
-- "64MB" is decimal, a plain number (or text of one) is bytes.
function time.parse_size(text)
  local expected = 'a size like "64MiB" or "10GB"'
  local bytes
  if type(text) == "number" then
    bytes = text
  elseif type(text) == "string" then
    local number, unit = text:match("^%s*(%d+%.?%d*)%s*(%a*)%s*$")
    local size = unit and SIZES[unit:lower()]
    bytes = size and tonumber(number) * size
  end
  if not bytes or bytes < 0 or bytes >= 2 ^ 63 then return nil, expected end
  return math.tointeger(bytes) or math.tointeger(bytes // 1)
end

--- `time.format_size(bytes)`: the size for people, with at most one decimal: "64MiB", "1.5GiB",
-- "900B".
function time.format_size(bytes)
  if bytes < 0 then return "-" .. time.format_size(-bytes) end
  local units, index = { "B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" }, 1
  -- 1023.96 would be shown as 1024.0
  while bytes >= 1023.95 and index < #units do
    bytes, index = bytes / 1024, index + 1
  end
  return (("%.1f"):format(bytes):gsub("%.0$", "")) .. units[index]
end

return time
