-- What every plugin that is shipped has to keep, whatever it does.
local agent_slots = { protocol = { "open", "claim" }, executor = { "run" }, policy = {}, tool = { "command" },
  sink = { "publish" } }
local err = require "worker.error"
local fs = require "worker.fs"
local registry = require "worker.registry"
local sandbox = require "worker.sandbox"
local schema = require "worker.schema"
local yaml = require "worker.yaml"

local plugins = registry.open { "plugins" }

-- A value for every field that has no default, so that a sample is complete.
local function required(plugin)
  local missing = {}
  for name, field in pairs(plugin.config or {}) do
    if field.required then missing[#missing + 1] = name end
  end
  return missing
end

describe("the shipped plugins", function()
  it("are found", function()
    assert.same({ "local" }, (function()
      for _, name in ipairs(plugins:names "protocol") do if name == "local" then return { name } end end
    end)())
    assert.is_truthy(plugins:get("executor", "shell"))
    assert.is_true(#plugins:names "policy" >= 9)
  end)

  for _, entry in ipairs(plugins:all()) do
    describe(("%s %s"):format(entry.kind, entry.name), function()
      local plugin = entry.plugin

      it("loads", function()
        assert.is_nil(entry.problem)
        assert.equal(entry.kind, plugin.kind)
        assert.equal(entry.name, plugin.name)
      end)

      if not plugin then return end

      it("says in a sentence what it is", function()
        assert.matches("^%u.*%.$", plugin.doc)
        assert.is_true(#plugin.doc <= 200)
      end)

      it("documents every field, nested ones included", function()
        local function check(fields, path)
          for name, field in pairs(fields) do
            if name ~= "check" then
              assert.is_truthy(field.doc and field.doc:find("%.$"), ("%s%s: its doc is a sentence"):format(path, name))
              if field.fields then check(field.fields, path .. name .. ".") end
            end
          end
        end
        check(plugin.config or {}, "")
        assert.same({}, schema.verify(plugin.config or {}))
      end)

      -- A sample is written under the plugin's name; that of a protocol names it beside its fields.
      local function check_sample(text)
        if entry.kind == "protocol" then
          local name, rest = text:match("^protocol: ([%w_-]+)\n(.*)$")
          assert.equal(entry.name, name)
          text = rest
        end
        local value, marks = yaml.decode(text, { name = "sample" })
        local fields = value or {}
        if entry.kind ~= "protocol" then fields = fields[entry.name] or {} end
        -- The fields alone: a rule over all of them may ask for what only a real environment has.
        local conf, problems = schema.check(plugin.config or {}, fields, marks, "", { env = function() end })
        local told = {}
        for i, problem in ipairs(problems) do told[i] = tostring(problem) end
        assert.same({}, told)
        assert.is_table(conf)
      end

      it("has a sample that parses and passes its own schema", function()
        check_sample(schema.sample(plugin))
      end)

      it("has a sample whose comments, made values, pass it too", function()
        check_sample((schema.sample(plugin):gsub("\n( *)#([%w_]+:)", "\n%1%2")))
      end)

      it("names what is missing when it is given nothing", function()
        local conf, problems = schema.check(plugin, {}, nil, "", { env = function() end })
        local told = {}
        for i, problem in ipairs(problems) do told[i] = tostring(problem) end
        for _, name in ipairs(required(plugin)) do
          assert.is_truthy(table.concat(told, "\n"):find(name .. ": is required", 1, true), name)
        end
        assert.equal(conf == nil, #problems > 0)
      end)

      it("names an unknown key and the nearest right one", function()
        local name = next(plugin.config or {})
        if not name then return end
        local wrong = name .. "x"
        local value, marks = yaml.decode(("%s: 1\n"):format(wrong), { name = "w.yaml" })
        local _, problems = schema.check(plugin, value, marks, "", { env = function() end })
        local told = {}
        for i, problem in ipairs(problems) do told[i] = tostring(problem) end
        assert.matches("w%.yaml:1:1: .*unknown key", table.concat(told, "\n"))
        assert.is_truthy(table.concat(told, "\n"):find("did you mean", 1, true))
      end)

      it("is explained with every field in it", function()
        local text = schema.explain(plugin)
        for name in pairs(plugin.config or {}) do
          assert.is_truthy(text:find(name, 1, true), name)
        end
      end)

      it("has the slots of its kind", function()
        for _, slot in ipairs(agent_slots[entry.kind]) do assert.is_function(plugin[slot]) end
        if entry.kind == "policy" then
          assert.is_truthy(plugin.claim or plugin.run or plugin.finish)
        end
      end)

      it("loads in a sandbox of its own and touches no global", function()
        local source = fs.read(entry.path)
        local before = {}
        for name in pairs(_G) do before[name] = true end
        local env = sandbox.env({ name = entry.name, folder = entry.folder }, fs.read)
        local loaded = assert(load(source, "@" .. entry.path, "t", env))(entry.name)
        assert.equal(entry.name, loaded.name)
        for name in pairs(_G) do assert.is_true(before[name], name) end
        assert.is_nil(next(env))
      end)

      if entry.kind == "executor" then
        it("says what it would run, so that policies can judge it", function() assert.is_function(plugin.plan) end)
      end

      if entry.kind == "tool" then
        local tools = require "worker.tools"

        it("says what its container is like", function()
          local about = tools.about(entry.name)
          assert.is_true(about.cpus > 0 and about.memory > 0 and about.pids > 0 and about.timeout > 0)
          assert.is_truthy(about.image:find("^[%w][%w%._/-]*:[%w._-]+$"), about.image .. " has no tag")
          for _, argument in ipairs { "path", "target", "file", "directory" } do
            local path = false
            for _, name in ipairs(about.paths) do path = path or name == argument end
            assert.equal((plugin.config or {})[argument] ~= nil, path, argument .. " is a path")
          end
        end)

        it("makes an argv of its examples, whose paths are those of the container", function()
          local parameters = {}
          for name, field in pairs(plugin.config or {}) do parameters[name] = field.example end
          local job = tools.job({ tool = entry.name, parameters = parameters }, { workspaces = { ["*"] = "/" } })
          for _, word in ipairs(job.argv) do assert.is_string(word) end
          for _, name in ipairs(tools.about(entry.name).paths) do
            local path = parameters[name] or plugin.config[name].default
            local found = false
            for _, word in ipairs(job.argv) do
              found = found or word == fs.clean(fs.join("/workspace", path))
            end
            assert.is_true(found, path .. " is in " .. table.concat(job.argv, " "))
          end
        end)
      end

      if entry.kind == "policy" then
        it("returns a function for each chain it is in, from its defaults", function()
          local conf = schema.check(plugin, {}, nil, "", { env = function() end })
          for _, which in ipairs { "claim", "run", "finish" } do
            if plugin[which] then
              assert.is_function(plugin[which](conf, function() end))
            end
          end
        end)

        it("lets errors of what it wraps through", function()
          local conf = schema.check(plugin, {}, nil, "", { env = function() end })
          local why = err.new("wire", "unreadable")
          if plugin.claim then
            local ok, got = pcall(plugin.claim(conf, function() error(why, 0) end), { pause = function() return false end })
            assert.is_true(ok or got == why, tostring(got)) -- one that pauses first may see the stop before the error
          end
        end)
      end
    end)
  end
end)
