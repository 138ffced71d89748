-- The event sink `file`.
local fs = require "worker.fs"
local json = require "worker.json"
local process = require "worker.process"
local scratch = require "spec.support.scratch"
local sink = require "spec.support.sink"
local sys = require "worker.core.sys"
local task = require "worker.task"

local dir
before_each(function() dir = scratch.dir() end)
after_each(function() fs.remove_tree(dir.root) end)

-- The ids of the jobs that a file tells of.
local function ids(name)
  local list = {}
  for line in (dir:read(name) or ""):gmatch("([^\n]*)\n") do
    local ok, event = pcall(json.decode, line)
    list[#list + 1] = ok and event.job.id or "?"
  end
  return table.concat(list, " ")
end

describe("the event sink file", function()
  it("appends a line of JSON for each event, below folders that it makes", function()
    local path = dir:path("log", "worker", "events.jsonl")
    for _, id in ipairs { "1", "2" } do
      local told <close> = sink.open("file", { path = path })
      told:job(id)
      told:job(id .. "\n")
    end
    assert.equal("1 1\n 2 2\n", ids "log/worker/events.jsonl")
    assert.equal(416, fs.stat(path).mode & 511 | 416) -- nothing for others
    assert.equal(0, fs.stat(path).mode & 7)
  end)

  it("goes on in a new file when the old one was moved and the configuration is read again", function()
    local path = dir:path "e"
    local told <close> = sink.open("file", { path = path })
    told:job "1"
    task.sleep(1)
    fs.rename(path, path .. ".old")
    told:job "2"
    task.sleep(1)
    told:apply()
    told:job "3"
    task.sleep(1)
    assert.equal("1 2", ids "e.old")
    assert.equal("3", ids "e")
  end)

  it("begins a new file when one is full, and keeps a few", function()
    local told <close> = sink.open("file", { path = dir:path "e", max_size = 1024, keep_files = 2 })
    for i = 1, 40 do
      told:job(tostring(i))
      task.sleep(1)
    end
    local all = ids "e.2" .. " " .. ids "e.1" .. " " .. ids "e"
    assert.matches(" 38 39 40$", " " .. all)
    assert.is_true(#(dir:read "e.1") <= 1024 and #(dir:read "e.2") <= 1024)
    assert.is_false(fs.exists(dir:path "e.3"))
    local last
    for id in all:gmatch("%d+") do
      assert.is_true(last == nil or tonumber(id) == last + 1)
      last = tonumber(id)
    end
  end)

  it("keeps none when it is told so", function()
    local told <close> = sink.open("file", { path = dir:path "e", max_size = 1024, keep_files = 0 })
    for i = 1, 40 do
      told:job(tostring(i))
      task.sleep(1)
    end
    assert.same({ "e" }, (fs.list(dir.root)))
  end)

  it("on a full disk keeps what happens until there is room, and ends the torn line", function()
    local mount = dir:path "small"
    fs.mkdir(mount)
    local function sh(command)
      return process.run { argv = { "/bin/sh", "-c", command }, env = { PATH = sys.env "PATH" } }.exit_code == 0
    end
    if not sh("mount -t tmpfs -o size=16k tmpfs " .. mount) then return pending "a full disk needs the right to mount one" end
    local unmount <close> = setmetatable({}, { __close = function() sh("umount " .. mount) end }) -- luacheck: ignore unmount
    fs.write(mount .. "/filler", ("x"):rep(11 * 1024))
    do
      local told <close> = sink.open("file", { path = mount .. "/e" })
      for i = 1, 60 do told:job(tostring(i)) end
      task.sleep(10)
      assert.is_true(told:waiting() > 0)
      fs.remove(mount .. "/filler")
      task.sleep(70)
      assert.equal(0, told:waiting())
      assert.same({ delivered = 60, dropped = 0 }, told.counts)
    end
    assert.matches(" %?.* 1 2 3 .*59 60$", " " .. ids "small/e")
  end)
end)
