-- grep: lines that fit a pattern.
local grep = { kind = "tool", name = "grep", api = 1 }

grep.doc = "Prints the lines of files of the workspace that fit a pattern; none is no failure."

grep.group = "file"
grep.operations = { "search", "search_files" }
grep.image = "alpine:3.19"
grep.cpus, grep.memory, grep.pids, grep.timeout = 0.2, "128MiB", 20, "60s"
grep.workspace = "read"

grep.config = {
  pattern = { "string", required = true, min = 1, max = 32768, example = "TODO", doc = "A basic regular expression." },
  path = { "string", default = ".", min = 1, doc = "A file, or a directory with all that is below it." },
}
grep.paths = { "path" }
grep.from = { pattern = { "search", "query", 1 }, path = { "target", "file", "directory", 2 } }
grep.flags = { "-r", "-n", "-I", "-rn", "-rnI" }

-- The script is always the same; pattern and path are its arguments.  1 means that nothing fits.
local SCRIPT = 'grep -r -n -I -e "$1" -- "$2"; test $? -le 1'

function grep.command(arguments)
  return { "sh", "-c", SCRIPT, "sh", arguments.pattern, arguments.path }
end

return grep
