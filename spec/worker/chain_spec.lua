local chain = require "worker.chain"
local err = require "worker.error"
local guard = require "worker.guard"
local task = require "worker.task"

describe("worker.chain", function()
  local function policy(name, wrap) return { conf = name, plugin = { name = name, run = wrap } } end

  it("is the innermost call when there is nothing around it", function()
    local function inner() return 1 end
    assert.equal(inner, chain.build("run", {}, inner))
    assert.equal(inner, chain.build("claim", { policy("a", print) }, inner))
  end)

  it("is what lies below a policy that returns just that", function()
    local function inner() return 1 end
    assert.equal(inner, chain.build("run", { policy("none", function(_, next) return next end) }, inner))
  end)

  it("goes through the policies in the order written, each with its fields", function()
    local function wrap(conf, next) return function(word) return conf .. "(" .. next(word) .. ")" end end
    local call = chain.build("run", { policy("a", wrap), policy("b", wrap) }, function(word) return word end)
    assert.equal("a(b(x))", call "x")
  end)

  it("names the policy that returns no function", function()
    local ok, why = pcall(chain.build, "run", { policy("lazy", function() end) }, print)
    assert.is_false(ok)
    assert.matches("policy 'lazy': its 'run' returned a nil", why)
  end)
end)

describe("worker.guard", function()
  local function raised(fn) return select(2, pcall(guard.wrap(fn))) end

  it("passes arguments and results through, nils included", function()
    assert.same({ n = 3, nil, 2, nil }, table.pack(guard.wrap(function(...) return ... end)(nil, 2, nil)))
  end)

  it("is the same under the catch of task.try, which lets a cancel through", function()
    assert.same({ n = 4, true, nil, 2, nil }, table.pack(task.try(guard.wrap(function(...) return ... end), nil, 2, nil)))
    local ok, why = task.try(guard.wrap(function() error("no", 0) end))
    assert.same({ false, "bug", "no" }, { ok, why.kind, why.message })
    assert.matches("chain_spec", why.traceback)
    local gone = err.new("gone", "gone")
    assert.equal(gone, select(2, task.try(guard.wrap(function() error(gone, 0) end))))
    local cancelled = err.new("cancelled", "no")
    assert.equal(cancelled, select(2, pcall(task.try, guard.wrap(function() error(cancelled, 0) end))))
  end)

  it("waits inside of task.try, and is cancelled there", function()
    local waits = guard.wrap(function(seconds) task.sleep(seconds) return "slept" end)
    assert.same({ true, "slept" }, { task.try(waits, 1) })
    assert.is_false((task.within(1, task.try, waits, 1000)))
  end)

  it("makes an object of whatever is raised, which can be printed", function()
    for _, value in ipairs { "text", 5, true, {}, print, setmetatable({}, { __tostring = function() error "no" end }),
      setmetatable({}, { __tostring = function() return {} end }), setmetatable({}, { __metatable = "x" }) } do
      local why = raised(function() error(value, 0) end)
      assert.equal("bug", why.kind)
      assert.is_string(tostring(why))
      assert.matches("chain_spec", why.traceback)
    end
    assert.equal("an error without a message", tostring(raised(error)))
  end)

  it("leaves error objects as they are", function()
    local why = err.new("transport", "reset")
    assert.equal(why, raised(function() error(why, 0) end))
    assert.is_nil(why.traceback)
  end)

  it("says where memory ran out", function()
    local why = raised(function() return ("x"):rep(1 << 30) end)
    assert.equal("limit", why.kind)
    assert.matches("chain_spec%.lua:%d+: it wanted more memory", why.message)
  end)
end)
