-- The protocol strom: how steps run, as real processes, and what they say on stdout.
local fs = require "worker.fs"
local json = require "worker.json"
local strom = require "spec.support.strom"

local run_one = strom.run_one

-- The body that reported the step, as it was on the wire.
local function reported(fake)
  local asked = strom.asked(fake, strom.COMPLETE)
  assert.equal(1, #asked)
  return asked[1].body
end

describe("strom, execution #realtime:", function()
  it("exit 3 fails the step with its code and its stderr, and what needs it is skipped", function()
    local step, job = run_one { steps = {
      { name = "a", script = "echo why >&2; exit 3" }, { name = "b", script = "x", needs = { "a" } } } }
    assert.same({ "failed", 3, "skipped", "failed" }, { step.status, step.exit_code, job.steps[2].status, job.status })
    assert.equal("Exit code: 3\nStderr: why\n", step.error)
  end)

  it("a tolerated failure lets what needs it run", function()
    local _, job = run_one { steps = {
      { name = "a", script = "exit 3", continue_on_failure = true }, { name = "b", script = ":", needs = { "a" } } } }
    assert.same({ "failed", "completed", "completed" }, { job.steps[1].status, job.steps[2].status, job.status })
  end)

  it("death by a signal is -1", function()
    local step = run_one { script = "kill -9 $$" }
    assert.same({ "failed", -1 }, { step.status, step.exit_code })
    assert.matches("SIGKILL", step.error)
  end)

  it("the environment has what the step says and what Strøm says, and nothing of the worker's", function()
    local _, job = run_one { task = "t1", workspace = "ws", steps = { {
      name = "a[0]", script = "env", env = { GREETING = "hi", STROEM_JOB_ID = "forged" }, extra = { workspace = json.null } } } }
    local env = {}
    for _, line in ipairs(strom.lines(job, "stdout")) do
      local name, value = line:match("^([%w_]+)=(.*)$")
      if name then env[name] = value end
    end
    assert.same({ "hi", job.id, "t1", "a[0]" }, { env.GREETING, env.STROEM_JOB_ID, env.STROEM_TASK_NAME, env.STROEM_STEP_NAME })
    for _, name in ipairs { "STATE_DIR", "STATE_OUT_DIR", "GLOBAL_STATE_DIR", "GLOBAL_STATE_OUT_DIR", "ARTIFACTS_DIR" } do
      assert.matches("^/", env[name])
    end
    for _, value in pairs(env) do assert.is_nil(value:find(strom.TOKEN, 1, true)) end
    for name in pairs(env) do assert.is_nil(name:find "^STROEM__") end
  end)

  it("arguments reach inline code as they are", function()
    local _, job = run_one { script = 'for a in "$@"; do echo "[$a]"; done', args = { "a b", "", "'\"$x", "é" } }
    assert.same({ "[a b]", "[]", "['\"$x]", "[é]" }, strom.lines(job, "stdout"))
  end)

  it("inline code that is longer than one argument runs, with arguments, too", function()
    local long = ("# a comment\n"):rep(30000)
    for _, args in ipairs { {}, { "x" } } do
      local step = run_one { script = long .. "echo done $1", args = args }
      assert.equal("completed", step.status)
    end
  end)

  it("python code runs as a file beside the workspace, which is gone afterwards", function()
    local dir = strom.dir()
    local fake = strom.fake()
    local job = fake:add { language = "python", args = { "1" },
      script = "import sys, os\nprint(sys.argv[1:], len(os.listdir('.')))" }
    strom.worker(fake, nil, { dir = dir })
    assert.equal("completed", strom.wait_job(job).status)
    assert.same({ "['1'] 1" }, strom.lines(job, "stdout"))
    for _, name in ipairs(fs.list(dir:path "ws/workspaces/default", { type = "dir" })) do
      assert.same({}, fs.list(dir:path("ws/workspaces/default", name)))
    end
  end)

  it("an interpreter of its own is used", function()
    local _, job = run_one { language = "python", interpreter = "sh -e", script = "echo $0 | grep -c py$" }
    assert.same({ "1" }, strom.lines(job, "stdout"))
  end)

  it("a missing interpreter fails the step with the list of those tried", function()
    local step = run_one { language = "typescript", script = "x", env = { PATH = "/nowhere:/bin" } }
    assert.equal("failed", step.status)
    assert.matches("no interpreter for typescript here; tried: bun, deno", step.error)
  end)

  it("a process left behind that holds stdout does not hold the step", function()
    local step, job = run_one { script = "sleep 600 & echo done" }
    assert.equal("completed", step.status)
    assert.equal("done", strom.lines(job, "stdout")[1])
    assert.matches("left behind", strom.lines(job, "stderr")[1])
  end)

  it("types of old servers run: cmd is code", function()
    local _, job = run_one { type = "shell", cmd = "echo legacy" }
    assert.same({ "legacy" }, strom.lines(job, "stdout"))
  end)

  it("a secret that is a reference is looked up, or fails the step", function()
    local step = run_one { script = "echo no", env = { PASSWORD = "ref+vault://x" } }
    assert.same({ "failed", -1 }, { step.status, step.exit_code })
    assert.matches("vals", step.error)
  end)

  it("a step with a timeout is ended with its whole tree, TERM ignored or not, and the report says so", function()
    for _, script in ipairs { "sleep 300", "trap '' TERM; while :; do sleep 1; done" } do
      local step = run_one { script = script, timeout = 1 }
      assert.same({ "failed", -1, 1 }, { step.status, step.exit_code, step.completes })
      assert.matches("timed out", step.error)
    end
  end)

  it("many such steps do, however soon they come back", function()
    local fake, jobs = strom.fake(), {}
    for i = 1, 40 do jobs[i] = fake:add { script = "exit 1", retries = 2 } end
    strom.worker(fake, { max_concurrent = 4 })
    for _, job in ipairs(jobs) do
      local step = strom.wait_job(job)
      assert.same({ "failed", 3 }, { step.status, step.runs })
    end
  end)

  it("a step with retries runs anew each time under the same name", function()
    local step = run_one { script = "exit 1", retries = 2 }
    assert.same({ "failed", 3, 2, 2 }, { step.status, step.runs, step.retry_attempt, #step.retry_history })
  end)
end)

describe("strom, OUTPUT #realtime:", function()
  local function output_of(script)
    local step, job, fake = run_one { script = script }
    return reported(fake), step, job
  end

  it("the last valid line wins, with or without the blank, and is logged like any other", function()
    local body, _, job = output_of "echo 'OUTPUT: 1'; echo 'OUTPUT:{\"b\":2}'"
    assert.matches('"output":{"b":2}', body, 1, true)
    assert.equal(2, #strom.lines(job))
  end)

  it("malformed JSON after a good line keeps the good one, and the step succeeds", function()
    local body, step = output_of "echo 'OUTPUT: {\"a\":1}'; echo 'OUTPUT: {broken'"
    assert.matches('"output": {"a":1}', body, 1, true)
    assert.equal("completed", step.status)
  end)

  it("scalars, arrays and null are taken", function()
    for _, value in ipairs { '"text"', "[1,2]", "null", "true", "1.50" } do
      assert.matches('"output": ' .. value .. "}", (output_of(("echo 'OUTPUT: %s'"):format(value))), 1, true)
    end
  end)

  it("only stdout counts, and only the first column", function()
    assert.matches('"output":null', (output_of "echo 'OUTPUT: 1' >&2; echo '  OUTPUT: 2'; echo 'xOUTPUT: 3'"), 1, true)
  end)

  it("a last line without an end counts", function()
    assert.matches('"output": 7', (output_of "printf 'OUTPUT: 7'"), 1, true)
  end)

  it("empty arrays, big integers, duplicate keys and blanks are handed on byte for byte", function()
    for _, value in ipairs { "{}", "[]", "{\"x\":[]}", "9007199254740993", "123456789012345678901234567890",
      '{"a":1,"a":2}', '{ "b" : 1.0,"a":1e3 }' } do
      assert.matches('"output": ' .. value .. "}", (output_of(("echo 'OUTPUT: %s'"):format(value))), 1, true)
    end
  end)

  it("what the server could not store is dropped with a word in the log, and the step ends", function()
    for _, value in ipairs { "1e400", '"\\\\u0000"', '"\\\\ud800"', ("["):rep(200) .. ("]"):rep(200), "NaN", "\\377" } do
      local body, step, job = output_of(("printf 'OUTPUT: %s\\n'"):format(value))
      assert.matches('"output":null', body, 1, true)
      assert.equal("completed", step.status)
      assert.matches("a line OUTPUT: was ignored", strom.lines(job, "stderr")[1])
    end
  end)

  it("a value of 3 MB is dropped with a word in the log", function()
    local body, step, job = output_of [[printf 'OUTPUT: "'; head -c 3000000 /dev/zero | tr '\0' x; echo '"']]
    assert.matches('"output":null', body, 1, true)
    assert.equal("completed", step.status)
    assert.matches("was ignored: it is longer than", strom.lines(job, "stderr")[1])
  end)

  it("a value of 1 MB is delivered", function()
    local body, step = output_of [[printf 'OUTPUT: "'; head -c 1000000 /dev/zero | tr '\0' x; echo '"']]
    assert.equal("completed", step.status)
    assert.is_true(#body > 1000000)
  end)

  it("an event source sends each value as it comes, over its defaults", function()
    local fake = strom.fake()
    local job = fake:add { script = 'echo \'OUTPUT: {"n":1}\'; echo "OUTPUT: x"; echo "OUTPUT: 2"', extra = {
      event_source_config = { target_task = "t", source_id = "ws/x", input_defaults = { a = 1, n = 0 }, env = { E = "1" } } } }
    strom.worker(fake)
    strom.wait_job(job)
    assert.same({ { a = 1, n = 1 }, { a = 1, n = 0 } }, { fake.store.list[2].input, fake.store.list[3].input })
    assert.equal(3, #fake.store.list)
  end)
end)

describe("strom, bytes #realtime:", function()
  it("invalid UTF-8, NUL, CR and a partial line arrive as text, and all that follows", function()
    local step, job, fake = run_one { script = [[printf 'a\377\376b\n\000\nc\r\nend']] }
    assert.equal("completed", step.status)
    assert.same({ "a\u{fffd}\u{fffd}b", "\0", "c", "end" }, strom.lines(job, "stdout"))
    for _, seen in ipairs(strom.asked(fake, strom.LOGS)) do assert.truthy(utf8.len(seen.body)) end
  end)

  it("the same on stderr does not keep a failure from being reported", function()
    local step, _, fake = run_one { script = [[printf 'a\377\000b\n' >&2; exit 1]] }
    assert.same({ "failed", 1 }, { step.status, step.exit_code })
    assert.equal(1, #strom.asked(fake, strom.COMPLETE))
    assert.equal("Exit code: 1\nStderr: a\u{fffd}\u{fffd}b\n", step.error)
  end)

  it("a hundred thousand lines, one of 5 MB, as much on stderr: every request is below the limit, and it ends", function()
    local step, job, fake = run_one { script = [[
      seq 1 100000; head -c 5000000 /dev/zero | tr '\0' x; echo
      head -c 5000000 /dev/zero | tr '\0' e >&2; exit 1]] }
    assert.same({ "failed", 1 }, { step.status, step.exit_code })
    local size, number = 0, 0
    for _, line in ipairs(strom.lines(job, "stdout")) do
      size = size + #line
      if number < 100000 then
        number = number + 1
        if line ~= tostring(number) then error(("line %d is %s"):format(number, line:sub(1, 50))) end
      end
    end
    assert.equal(488895 + 5000000, size)
    for _, seen in ipairs(fake.seen) do assert.is_true(#seen.body < 2 * 1024 * 1024) end
    assert.matches("^Exit code: 1\nStderr: e+\n%.%.%. %d+ bytes", step.error)
  end)

  it("hundreds of thousands of empty lines do too", function()
    local step, job, fake = run_one { script = "yes '' | head -n 200000" }
    assert.equal("completed", step.status)
    assert.same({}, strom.lines(job, "stderr"))
    assert.equal(200000, #strom.lines(job))
    for _, seen in ipairs(fake.seen) do assert.is_true(#seen.body < 2 * 1024 * 1024) end
  end)
end)
