-- A worker with one job, made to be killed: run by keeper_spec.lua as `worker spec` of this file.
-- It tells the pids of its keeper and of what its job started, then does nothing until the end.
local cgroup = require "worker.cgroup"
local process = require "worker.process"
local sys = require "worker.core.sys"
local task = require "worker.task"

local SCRIPT = [[
  echo job $$
  setsid sh -c 'echo job $$; exec sleep 1000' &
  (setsid sh -c 'echo job $$; exec sleep 1000' &) &
  trap "" TERM HUP; sleep 1000 & wait; sleep 1000
]]

describe("the victim", function()
  it("runs a job until it is killed #realtime", function()
    cgroup.open()
    local group <close> = cgroup.create("victim")
    local child <close> = process.spawn {
      argv = { "sh", "-c", SCRIPT }, env = { PATH = "/usr/bin:/bin" }, cgroup = group,
    }
    local _ <close> = cgroup.keep("session", child.pid)
    local dir = sys.env("VICTIM_DIR")
    local _ <close> = cgroup.keep("dir", dir)
    local _ <close> = cgroup.keep("dir", dir .. ".file")
    local text = ""
    for _, piece in child:output() do
      text = text .. piece
      if select(2, text:gsub("\n", "")) == 3 then break end
    end
    io.stdout:write(text, "group ", cgroup.describe().path or "none", "\n",
      "keeper ", cgroup.keeper_pid(), "\nall set\n")
    io.stdout:flush()
    while io.open(dir .. "/end") == nil do task.sleep(0.02) end
  end)
end)
