local sys = require "worker.core.sys"
local task = require "worker.task"
local time = require "worker.time"

describe("worker.time", function()
  it("reads and writes what a configuration says (the example of the reference)", function()
    assert.equal(5400, time.parse_duration("1h30m"))
    assert.equal("1h30m", time.format_duration(5400))
    assert.equal(67108864, time.parse_size("64MiB"))
    assert.equal("64MiB", time.format_size(67108864))
    assert.equal(1795230245, time.parse("2026-11-21T03:04:05Z"))
    assert.equal("2026-11-21T03:04:05Z", time.format(1795230245))
  end)

  it("has clocks that go on while a task sleeps", function()
    local mono, wall = time.mono(), time.wall()
    task.sleep(3600)
    assert.is_true(time.mono() - mono >= 3600)
    assert.is_true(time.wall() - wall >= 3600)
    assert.matches("^%d%d%d%d%-%d%d%-%d%dT%d%d:%d%d:%d%d%.%d%d%dZ$", time.iso())
    assert.matches(":%d%dZ$", time.iso(0))
  end)
end)

describe("durations", function()
  local good = {
    ["30s"] = 30, ["1h30m"] = 5400, ["1h 30m"] = 5400, ["250ms"] = 0.25, ["1.5s"] = 1.5, ["2d"] = 172800,
    ["1w"] = 604800, ["30"] = 30, ["0.5"] = 0.5, ["0"] = 0, ["100us"] = 0.0001, ["5µs"] = 5e-6,
    [" 10m "] = 600, ["1d1h1m1s1ms"] = 90061.001,
  }
  for text, seconds in pairs(good) do
    it(("are read: %q is %s"):format(text, seconds), function()
      assert.equal(seconds, time.parse_duration(text))
    end)
  end

  it("are refused when they could mean something else", function()
    for _, text in ipairs { "", " ", "soon", "-3", "30m1h", "5m5m", "5x", "m", "1e9", "1h30", "1,5s", "∞" } do
      local seconds, expected = time.parse_duration(text)
      assert.is_nil(seconds, text)
      assert.equal('a duration like "30s" or "1h30m"', expected)
    end
    for _, value in ipairs { -1, 0 / 0, math.huge, true, {} } do
      assert.is_nil((time.parse_duration(value)))
    end
  end)

  it("are integers when they are whole", function()
    assert.equal("integer", math.type(time.parse_duration("1.0h")))
    assert.equal("float", math.type(time.parse_duration("1.5s")))
  end)

  it("read back as what was written", function()
    for _, seconds in ipairs { 0, 0.0015, 0.25, 0.999, 1, 59.999, 60, 90061, 604800, 86400 * 400, 1e-6 } do
      assert.equal(seconds, time.parse_duration(time.format_duration(seconds)))
    end
    assert.equal("1s", time.format_duration(0.99999999))
    assert.equal("-1m30s", time.format_duration(-90))
    assert.equal("forever", time.format_duration(math.huge))
  end)

  it("are short in tables and plain in sentences", function()
    assert.equal("850ms", time.age(0.85))
    assert.equal("4m10s", time.age(250.9))
    assert.equal("3h05m", time.age(11100))
    assert.equal("2d4h", time.age(187200))
    assert.equal("just now", time.ago(10, 10.4))
    assert.equal("1 minute ago", time.ago(0, 119))
    assert.equal("in 2 hours", time.ago(7300, 0))
    assert.equal("5 minutes ago", time.ago(time.wall() - 301))
  end)
end)

describe("dates", function()
  it("are read with zone and fraction", function()
    assert.equal(0, time.parse("1970-01-01T00:00:00Z"))
    assert.equal(-1, time.parse("1969-12-31T23:59:59Z"))
    assert.equal(1795226645.678, time.parse("2026-11-21T03:04:05.678+01:00"))
    assert.equal(951868740, time.parse("2000-02-29t00:00:00-23:59"))
    assert.equal(253402300799, time.parse("9999-12-31 23:59:59Z"))
    assert.equal(1483228800, time.parse("2016-12-31T23:59:60Z"))
  end)

  it("are refused when there is no such moment", function()
    for _, text in ipairs {
      "2023-02-29T12:00:00Z", "2026-13-01T00:00:00Z", "2026-00-01T00:00:00Z", "2026-04-31T00:00:00Z",
      "2026-11-21T24:00:00Z", "2026-11-21T03:60:05Z", "2026-11-21T03:04:05", "2026-11-21",
      "2026-11-21T03:04:05.Z", "2026-11-21T03:04:05+25:00", "26-11-21T03:04:05Z", "", 17,
    } do
      assert.is_nil((time.parse(text)), text)
    end
  end)

  it("read back as what was written, over eight hundred years", function()
    for day = -146097, 146097, 97 do
      local wall = day * 86400 + day % 86400
      assert.equal(wall, time.parse(time.format(wall)))
    end
    assert.equal(1795230245.25, time.parse(time.format(1795230245.25, 3)))
    assert.equal("1969-12-31T23:59:59.500Z", time.format(-0.5, 3))
  end)

  it("agree with the core's own clock", function()
    for day = 0, 50000, 53 do
      assert.equal(sys.iso(0, day * 86400 + 1), time.format(day * 86400 + 1))
    end
  end)
end)

describe("sizes", function()
  it("are binary with i or alone, decimal with B", function()
    local good = {
      ["64MiB"] = 1 << 26, ["64M"] = 1 << 26, ["64MB"] = 64000000, ["512k"] = 1 << 19, ["1.5GiB"] = 3 << 29,
      ["7"] = 7, ["5 MiB"] = 5 << 20, ["1PB"] = 10 ^ 15 // 1 | 0, ["0"] = 0, ["10b"] = 10,
    }
    for text, bytes in pairs(good) do
      local size = time.parse_size(text)
      assert.equal(bytes, size, text)
      assert.equal("integer", math.type(size))
    end
    assert.equal(12, time.parse_size(12))
  end)

  it("are refused when nobody knows how much that is", function()
    for _, text in ipairs { "", "x", "-1", "1 X", "MiB", "1MiBs", "99999PiB", "1e3", true } do
      local size, expected = time.parse_size(text)
      assert.is_nil(size)
      assert.equal('a size like "64MiB" or "10GB"', expected)
    end
    assert.is_nil((time.parse_size(-5)))
  end)

  it("are shown with at most one decimal", function()
    local shown = {
      [0] = "0B", [900] = "900B", [1024] = "1KiB", [1536] = "1.5KiB", [1000000] = "976.6KiB",
      [1048575] = "1MiB", [1 << 40] = "1TiB", [math.maxinteger] = "8EiB",
    }
    for bytes, text in pairs(shown) do assert.equal(text, time.format_size(bytes)) end
    assert.equal("-2KiB", time.format_size(-2048))
  end)
end)
