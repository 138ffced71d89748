local err = require "worker.error"
local journal = require "worker.journal"
local scratch = require "spec.support.scratch"

describe("worker.journal", function()
  it("does what its reference shows", function()
    local dir <close> = scratch.dir()
    local path = dir:path("journal")
    do
      local book <close> = journal.open(path)
      book:put("job-7", "claim", "the job as it came")
      book:put("job-7", "result", "exit 0")
      book:put("job-8", "claim", "another job")
      -- the server has accepted the result of job 7
      book:drop("job-7")
    end
    local book <close> = journal.open(path)
    local left = {}
    for key, kind, payload in book:live() do left[#left + 1] = { key, kind, payload } end
    assert.same({ { "job-8", "claim", "another job" } }, left)
    assert.equal("another job", book:get("job-8", "claim"))
    assert.is_nil(book:get("job-7", "result"))
    assert.equal(1, book:stats().records)
    assert.equal("worker.journal (open)", tostring(book))
  end)

  it("can be changed while its records are walked through", function()
    local dir <close> = scratch.dir()
    local book <close> = journal.open(dir:path("journal"))
    for i = 1, 5 do book:put("k" .. i, "claim", tostring(i)) end
    local seen = {}
    for key, _, payload in book:live() do
      seen[#seen + 1] = payload
      book:drop(key)
      if key == "k2" then book:drop("k3") end
      book:put("new", "claim", "n")
    end
    assert.same({ "1", "2", "4", "5" }, seen)
  end)

  it("calls a second owner by its name", function()
    local dir <close> = scratch.dir()
    local _ <close> = journal.open(dir:path("journal"))
    local ok, why = pcall(journal.open, dir:path("journal"))
    assert.is_false(ok)
    assert.is_true(err.is(why, "locked"))
    assert.matches("journal%.lock is held by process %d+$", why.message)
  end)
end)
