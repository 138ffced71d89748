local err = require "worker.error"
local plugin = require "spec.support.plugin"
local sys = require "worker.core.sys"

describe("the policy retry", function()
  local function finish(fields, fn)
    local tries, before = 0, sys.mono()
    local ok, why = pcall(plugin.policy("retry", fields).finish(function(job, result)
      tries = tries + 1
      return fn(tries, job, result)
    end), { id = "a" }, { state = "success" })
    return ok, why, tries, sys.mono() - before
  end

  it("reports once when that works", function()
    local ok, got, tries = finish({}, function(_, job, result) return job.id .. result.state end)
    assert.same({ true, "asuccess", 1 }, { ok, got, tries })
  end)

  it("reports again while the server is away", function()
    local ok, _, tries = finish({}, function(n) if n < 6 then err.raise("transport", "reset") end end)
    assert.same({ true, 6 }, { ok, tries })
  end)

  it("waits as long as the server asks", function()
    local _, _, tries, took = finish({ first = 1 }, function(n)
      if n == 1 then err.raise("http", "busy", { status = 503, retry_after = 100 }) end
    end)
    assert.equal(2, tries)
    assert.is_true(took >= 100)
  end)

  it("gives up at once when the server refuses for good, and at a bug", function()
    for _, why in ipairs { err.new("http", "no", { status = 400 }), err.new("grpc", "no", { code = 3 }), "a bug" } do
      local ok, got, tries = finish({}, function() error(why, 0) end)
      assert.same({ false, why, 1 }, { ok, got, tries })
    end
  end)

  it("gives up when the time is over, with the last error", function()
    local ok, why, tries, took = finish({ ["for"] = 600 }, function() err.raise("transport", "still away") end)
    assert.is_false(ok)
    assert.equal("still away", tostring(why))
    assert.is_true(tries > 5)
    assert.is_true(took <= 661)
  end)
end)
