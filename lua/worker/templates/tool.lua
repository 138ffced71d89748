-- tool.lua: what `worker new tool` writes.  @NAME@ is the plugin's name, @VAR@ the same as a Lua name.
return {
  folder = "tools",
  plugin = [==[
-- @NAME@: a program in a container of its own, for tasks that name it.
--
-- The data says what the container is like, `config` what a task may give, and `command` makes the
-- argv of that.  Arguments that are paths arrive as paths inside the container, and never lead out of
-- the workspace.  Build no text for a shell from arguments: they come from strangers.
local @VAR@ = { kind = "tool", name = "@NAME@", api = 1 }

@VAR@.doc = "Counts the lines of a file of the workspace."

@VAR@.group = "file"                     -- for tasks that operate on files; or network, other
@VAR@.image = "alpine:3.19"
@VAR@.cpus, @VAR@.memory, @VAR@.pids, @VAR@.timeout = 0.1, "64MiB", 10, "30s"
@VAR@.workspace = "read"                 -- or "write"; without it there is no workspace
@VAR@.network = false

@VAR@.config = {
  path = { "string", required = true, example = "src/main.go", doc = "The file." },
}
@VAR@.paths = { "path" }
@VAR@.from = { path = { "file", 1 } }    -- other names in tasks; 1: the first without a name

function @VAR@.command(arguments)
  return { "wc", "-l", arguments.path }  -- and, as second value, what it reads
end

return @VAR@
]==],
  spec = [==[
-- The tool @NAME@: what it makes of tasks.
local tools = require "worker.tools"

describe("the tool @NAME@", function()
  local function job(parameters)
    return tools.job({ tool = "@NAME@", parameters = parameters }, { workspaces = { ["*"] = "/tmp" } })
  end

  it("gets a program and its arguments", function()
    assert.same({ "wc", "-l", "/workspace/notes.txt" }, job({ path = "notes.txt" }).argv)
  end)

  it("stays in the workspace", function()
    assert.has_error(function() job { path = "../../etc/passwd" } end)
  end)

  it("is done for tasks by its name", function()
    assert.equal("@NAME@", tools.route("file_operation", "@NAME@"))
  end)
end)
]==],
  next = { "worker spec spec/plugins/@NAME@_spec.lua", "worker explain @NAME@",
    "worker tool @NAME@ path=FILE" },
}
