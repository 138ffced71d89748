-- list: what is in a directory.
local list = { kind = "tool", name = "list", api = 1 }

list.doc = "Lists a directory of the workspace."

list.group = "file"
list.operations = { "ls", "list_files" }
list.image = "alpine:3.19"
list.cpus, list.memory, list.pids, list.timeout = 0.1, "64MiB", 10, "30s"
list.workspace = "read"

list.config = {
  path = { "string", default = ".", min = 1, doc = "The directory." },
  recursive = { "boolean", default = false, doc = "With all that is below it." },
}
list.paths = { "path" }
list.from = { path = { "target", "file", "directory", 1 } }
list.flags = { "-la", "-l", "-a" }

function list.command(arguments)
  return { "ls", arguments.recursive and "-laR" or "-la", arguments.path }
end

return list
