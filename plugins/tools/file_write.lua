-- file_write: a file with new content, and the directories it needs.
local file_write = { kind = "tool", name = "file_write", api = 1 }

file_write.doc = "Writes a file of the workspace; the directories above it are made."

file_write.group = "file"
file_write.operations = { "write", "tee", "write_file" }
file_write.image = "alpine:3.19"
file_write.cpus, file_write.memory, file_write.pids, file_write.timeout = 0.1, "64MiB", 10, "30s"
file_write.workspace = "write"

file_write.config = {
  path = { "string", required = true, min = 1, example = "notes/today.txt", doc = "The file." },
  content = { "string", default = "", doc = "What it shall hold; the input of the task if absent." },
}
file_write.paths = { "path" }
file_write.from = { path = { "target", "file", 1 } }
file_write.input = "content"

-- The script is always the same; the names are its arguments, the content is its input.
local SCRIPT = 'mkdir -p -- "$1" && exec cat >"$2"'

function file_write.command(arguments)
  local dir = arguments.path:match("^(.*)/[^/]*$")
  return { "sh", "-c", SCRIPT, "sh", dir, arguments.path }, arguments.content
end

return file_write
