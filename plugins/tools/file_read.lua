-- file_read: what is in a file.
local file_read = { kind = "tool", name = "file_read", api = 1 }

file_read.doc = "Prints what is in a file of the workspace."

file_read.group = "file"
file_read.operations = { "read", "cat", "read_file" }
file_read.image = "alpine:3.19"
file_read.cpus, file_read.memory, file_read.pids, file_read.timeout = 0.1, "64MiB", 10, "30s"
file_read.workspace = "read"

file_read.config = {
  path = { "string", required = true, min = 1, example = "src/main.go", doc = "The file." },
}
file_read.paths = { "path" }
file_read.from = { path = { "target", "file", 1 } }

function file_read.command(arguments)
  return { "cat", arguments.path }
end

return file_read
