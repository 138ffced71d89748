local supervisor = require "worker.supervisor"
local task = require "worker.task"

-- NOTIFY_SOCKET belongs to the process, so the real thing is seen from outside: a child binary with
-- a datagram socket beside it (python3 is only the witness).
describe("worker.supervisor", function()
  it("does nothing without one", function()
    local none = supervisor.new()
    assert.is_nil(none.address)
    none:ready("x")
    none:stopping()
    none:run()
  end)

  it("is asked for more time from the moment of stopping on, with a watchdog or without", function()
    for _, watchdog in ipairs { 600, false } do
      local one, extended = supervisor.new(), 0
      one.address, one.watchdog = "/nowhere", watchdog or nil
      function one.tell(_, text)
        if text:find "EXTEND_TIMEOUT_USEC=15000000" then extended = extended + 1 end
      end
      local running = task.start(one.run, one)
      task.sleep(3)
      one:stopping()
      assert.equal(0, extended)
      task.sleep(12)
      assert.equal(3, extended)
      running:cancel "enough"
      running:join()
    end
  end)

  it("is told READY, then STOPPING, and the socket is not in a job's environment #realtime", function()
    if not os.execute("command -v python3 >/dev/null 2>&1") then return pending("python3 is not installed") end
    local worker = os.getenv("WORKER_BIN") or "build/worker"
    local pipe = io.popen(([[python3 - <<'PY'
import os, socket, subprocess, tempfile
d = tempfile.mkdtemp()
os.makedirs(d + "/jobs/inbox")
open(d + "/jobs/inbox/a.sh", "w").write("env | grep -c -E 'NOTIFY|WATCHDOG'")
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind(d + "/notify"); s.settimeout(10)
env = dict(os.environ, NOTIFY_SOCKET=d + "/notify", WATCHDOG_USEC="200000")
p = subprocess.Popen(["%s", "--protocol", "local", "--dir", d + "/jobs", "--workspace", d + "/w", "plugins"],
                     env=env, stderr=subprocess.DEVNULL)
seen = []
def until(word):
    while True:
        text = s.recv(4096).decode()
        seen.append(text)
        if word in text: return
until("READY=1"); until("WATCHDOG=1")
import time
while not os.path.exists(d + "/jobs/done/a/result.json"): time.sleep(0.05)
p.terminate(); until("STOPPING=1"); p.wait(10)
print("ready stopping", open(d + "/jobs/done/a/stdout.log").read().strip())
import shutil; shutil.rmtree(d)
PY]]):format(worker))
    local said = pipe:read("a")
    pipe:close()
    assert.equal("ready stopping 0\n", said)
  end)
end)
