-- find: files by name.
local find = { kind = "tool", name = "find", api = 1 }

find.doc = "Prints the names of files of the workspace."

find.group = "file"
find.operations = { "find_files" }
find.image = "alpine:3.19"
find.cpus, find.memory, find.pids, find.timeout = 0.2, "128MiB", 20, "60s"
find.workspace = "read"

find.config = {
  path = { "string", default = ".", min = 1, doc = "The directory to look into." },
  name = { "string", min = 1, max = 4096, example = "*.go", doc = "What names look like: * and ? stand for anything." },
  type = { "enum", values = { "f", "d", "l" }, doc = "Only files, directories or links." },
}
find.paths = { "path" }
find.from = { path = { "target", "directory", 1 }, name = { "pattern" } }

function find.command(arguments)
  local argv = { "find", arguments.path }
  if arguments.type then table.move({ "-type", arguments.type }, 1, 2, #argv + 1, argv) end
  if arguments.name then table.move({ "-name", arguments.name }, 1, 2, #argv + 1, argv) end
  return argv
end

return find
