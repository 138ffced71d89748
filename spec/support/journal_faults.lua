-- journal_faults.lua: what a journal does when the disk fails under it.
--
-- Run by journal_kill_spec under strace, which makes the system call fail that is named in the
-- environment: JOURNAL_FAULT_CALL, from JOURNAL_FAULT_FIRST on, JOURNAL_FAULT_COUNT times.
local journal = require "worker.core.journal"
local sys = require "worker.core.sys"

local dir = sys.env("JOURNAL_FAULT_DIR")
if not dir then return end

describe("a journal on a failing disk", function()
  it("tells whom it concerns and loses nothing that was reported written #realtime", function()
    local expected, failures = {}, {}
    do
      local book <close> = journal.open(dir .. "/journal", { compact_bytes = 5000 })
      for i = 1, 60 do
        local key, payload = "k" .. i % 7, ("p"):rep(200) .. i
        local ok, why = pcall(book.put, book, key, "claim", payload)
        if ok then expected[key] = payload else failures[#failures + 1] = why end
        assert.equal(expected[key], (book:get(key, "claim")))
      end
      assert.is_true(#failures > 0 or sys.env("JOURNAL_FAULT_SILENT") ~= nil, "nothing has failed")
      for _, why in ipairs(failures) do assert.same({ "file", "EIO" }, { why.kind, why.name }) end
    end
    local book <close>, report = journal.open(dir .. "/journal")
    assert.same({ 0, 0 }, { report.cut, report.damaged })
    for key, payload in pairs(expected) do assert.equal(payload, book:get(key, "claim")) end
    assert.equal(7, report.records)
  end)
end)
