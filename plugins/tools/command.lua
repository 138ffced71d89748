-- command: a command line of the task's own.
local command = { kind = "tool", name = "command", api = 1 }

command.doc = "Runs the command of a task by a shell, in the workspace where there is one."

command.image = "alpine:3.19"
command.cpus, command.memory, command.pids, command.timeout = 0.5, "256MiB", 64, "60s"
command.workspace, command.optional = "write", true

command.config = {
  command = { "string", required = true, min = 1, max = 131071, example = "make test", doc = "Text for /bin/sh." },
  arguments = { "list", of = { "string" }, default = {}, doc = "What it finds in $1, $2 and so on." },
}
command.from = { arguments = { "*" } }

function command.command(arguments)
  local argv = { "sh", "-c", arguments.command, "sh" }
  return table.move(arguments.arguments, 1, #arguments.arguments, #argv + 1, argv)
end

return command
