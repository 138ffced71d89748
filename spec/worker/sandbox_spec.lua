local sandbox = require "worker.sandbox"

describe("worker.sandbox", function()
  -- Run a plugin's text in a sandbox; what it returns, or false and what it raised.
  local function run(source, plugin, files)
    local env = sandbox.env(plugin or { name = "spec" }, function(path)
      return files and files[path] or nil, "no such file"
    end)
    return pcall(assert(load(source, "@spec.lua", "t", env)))
  end

  local function refuses(source, pattern)
    local ok, why = run(source)
    assert.is_false(ok, source)
    assert.matches(pattern, tostring(why))
  end

  it("has the safe part of Lua", function()
    local ok, sum = run [[
      local t = {}
      for i, word in ipairs { "a", "b" } do t[i] = word:upper() .. #word end
      table.sort(t, function(a, b) return a > b end)
      return table.concat(t, ",") .. math.max(1, 2) .. utf8.char(228) .. select("#", 1, 2) .. tostring(rawlen(t))
    ]]
    assert.same({ true, "B1,A12ä22" }, { ok, sum })
  end)

  for _, name in ipairs { "os", "io", "debug", "package", "coroutine", "load", "loadfile", "dofile", "collectgarbage",
    "_G", "warn" } do
    it("has no " .. name, function() refuses("return " .. name, "spec%.lua:1: there is no global '" .. name) end)
  end

  it("refuses globals of its own", function()
    refuses("x = 1", "spec%.lua:1: a plugin must not set the global 'x': make it local")
    refuses("function f() end", "'f'")
  end)

  it("requires the library and nothing else", function()
    assert.is_true((run 'return require("worker.json").encode({})'))
    for _, name in ipairs { "os", "worker.core.sys", "worker.agent", "worker.registry", "worker.sandbox", "worker.runner",
      "worker.record", "worker.config", "worker.main", "cjson", "spec", "spec.x", "../x", "worker.json.x" } do
      refuses(("require %q"):format(name), "a plugin may require")
    end
    refuses("require()", "a plugin may require")
    refuses("require {}", "a plugin may require")
  end)

  it("requires files of its own folder, once, in the same world", function()
    local files = { ["plugins/acme/wire.lua"] = "local n = 0 return { next = function() n = n + 1 return n end }",
      ["plugins/acme/bad.lua"] = "x = 1", ["plugins/acme/broken.lua"] = "= =" }
    local plugin = { name = "acme", folder = "plugins/acme" }
    local ok, n = run('require("acme.wire").next() return require("acme.wire").next()', plugin, files)
    assert.same({ true, 2 }, { ok, n })
    for name, pattern in pairs { bad = "plugins/acme/bad.lua:1: .*global 'x'", broken = "plugins/acme/broken.lua:1:",
      gone = "cannot read plugins/acme/gone.lua" } do
      local good, why = run(('require "acme.%s"'):format(name), plugin, files)
      assert.is_false(good)
      assert.matches(pattern, why)
    end
  end)

  it("gives every plugin its own libraries", function()
    run "string.format = nil table.insert = nil"
    assert.is_true((run "return string.format and table.insert"))
    assert.is_function(string.format)
  end)

  it("has modules that nobody changes for the others", function()
    refuses('require("worker.json").encode = nil', "worker.json is the same for all plugins; 'encode' cannot be set")
    run [[
      local _, real = pairs(require "worker.json")
      real.encode = nil
      local fields = require("worker.jobfile").fields
      for name in pairs(fields) do fields[name] = nil end
    ]]
    assert.is_true((run 'return require("worker.json").encode({})'))
    assert.is_function(require("worker.json").encode)
    assert.is_table(require("worker.jobfile").fields.argv)
  end)

  it("has no metatable but those the plugin set", function()
    assert.same({ true, true }, { run "local m = {} return getmetatable(setmetatable({}, m)) == m" })
    assert.same({ true, true }, { run [[
      local error = require "worker.error"
      return getmetatable("") == nil and getmetatable(error.new("a", "b")) == nil and getmetatable(error) == nil
        and getmetatable(_ENV) == nil and getmetatable(print) == nil
    ]] })
    refuses("setmetatable(_ENV, {})", "protected metatable")
    refuses("setmetatable({}, { __gc = print })", "a plugin may not use __gc")
  end)

  it("does not catch a cancel, nor code that ran away", function()
    local err = require "worker.error"
    for _, why in ipairs { err.new("cancelled", "enough"), err.new("limit", "ran away", { runaway = true }) } do
      local ok, got = pcall(function()
        local env = sandbox.env({ name = "spec" }, print)
        for _, source in ipairs { "return pcall(...)", "return xpcall(..., function() return 'caught' end)" } do
          load(source, "@spec.lua", "t", env)(function() error(why, 0) end)
        end
      end)
      assert.is_false(ok)
      assert.equal(why, got)
    end
    assert.same({ true, false, "plain" }, { run "return pcall(error, 'plain')" })
  end)

  it("does not make cancels", function()
    refuses('require("worker.error").raise("cancelled", "x")', "only the worker cancels")
    refuses('require("worker.error").new("cancelled", "x")', "only the worker cancels")
  end)
end)
