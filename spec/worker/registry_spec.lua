local registry = require "worker.registry"
local scratch = require "spec.support.scratch"

describe("worker.registry", function()
  local dir

  before_each(function() dir = scratch.dir() end)
  after_each(function() getmetatable(dir).__close(dir) end)

  local GOOD = 'return { kind = "policy", name = "%s", api = 1, run = function(_, next) return next end }'

  -- What is said of a policy with this text.
  local function problem(source, name)
    dir:write(("policies/%s.lua"):format(name or "p"), source)
    local plugin, why = registry.open({ dir.root }):get("policy", name or "p")
    assert.is_nil(plugin)
    return why
  end

  it("finds files and folders, and a later place wins", function()
    dir:write("one/policies/a.lua", GOOD:format "a")
    dir:write("one/policies/b/init.lua", GOOD:format "b")
    dir:write("one/policies/README.md", "not one")
    dir:write("two/policies/a.lua", (GOOD:format "a"):gsub("run =", "doc = 'second', run ="))
    local found = registry.open { dir:path "one", dir:path "two" }
    assert.same({ "a", "b" }, found:names "policy")
    assert.equal("second", found:get("policy", "a").doc)
    assert.is_table(found:get("policy", "b"))
    assert.equal(2, #found:all())
  end)

  it("suggests the nearest name", function()
    dir:write("policies/timeout.lua", GOOD:format "timeout")
    local _, why = registry.open({ dir.root }):get("policy", "timeuot")
    assert.matches("there is no policy 'timeuot' in .*did you mean 'timeout'%?", why)
  end)

  it("loads a plugin once, and remembers what is wrong with one", function()
    dir:write("policies/p.lua", GOOD:format "p")
    dir:write("policies/q.lua", "=")
    local found = registry.open { dir.root }
    assert.equal(found:get("policy", "p"), found:get("policy", "p"))
    assert.same({ found:get("policy", "q") }, { found:get("policy", "q") })
  end)

  for name, case in pairs {
    ["no table"] = { "return 5", "must return a table, this one returned a number" },
    ["another kind"] = { 'return { kind = "protocol" }', 'says kind = "policy", this one says "protocol"' },
    ["another name"] = { 'return { kind = "policy", name = "q", api = 1 }', "named 'p', it calls itself 'q'" },
    ["another api"] = { 'return { kind = "policy", name = "p", api = 7 }', "written for plugin api 7" },
    ["a slot that is no function"] = { 'return { kind = "policy", name = "p", api = 1, run = 5 }',
      "'run' must be a function, not a number" },
    ["a slot that does not exist"] = { 'return { kind = "policy", name = "p", api = 1, claims = print }',
      "has no slot 'claims' %(did you mean 'claim'%?%)" },
    ["a config that is wrong"] = { 'return { kind = "policy", name = "p", api = 1, config = { x = { "durration" } } }',
      "config: .*durration" },
    ["a syntax error"] = { "return {\n  kind = = 1 }", "policies/p%.lua:2: unexpected symbol" },
    ["an error"] = { "\nerror 'broken'", "policies/p%.lua:2: broken" },
    ["an error that is none"] = { "error()", "an error without a message" },
  } do
    it("says what is wrong with " .. name, function()
      local why = problem(case[1])
      assert.matches("^policy 'p' cannot be used: ", why)
      assert.matches(case[2], why)
    end)
  end

  it("names what a protocol lacks", function()
    dir:write("protocols/p.lua", 'return { kind = "protocol", name = "p", api = 1, open = print }')
    local _, why = registry.open({ dir.root }):get("protocol", "p")
    assert.matches("a protocol needs the function 'claim'", why)
  end)
end)
