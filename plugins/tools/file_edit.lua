-- file_edit: text of a file replaced.
--
-- `search` and `replace` are plain text.  They become one command of sed in which nothing of them can
-- mean anything else; without a replacement the lines that have the text go.
local err = require "worker.error"

local file_edit = { kind = "tool", name = "file_edit", api = 1 }

file_edit.doc = "Replaces text in a file of the workspace, everywhere; without a replacement its lines are removed."

file_edit.group = "file"
file_edit.operations = { "edit", "sed", "edit_file" }
file_edit.image = "alpine:3.19"
file_edit.cpus, file_edit.memory, file_edit.pids, file_edit.timeout = 0.1, "64MiB", 10, "30s"
file_edit.workspace = "write"

file_edit.config = {
  path = { "string", required = true, min = 1, example = "src/main.go", doc = "The file." },
  search = { "string", required = true, min = 1, max = 32768, example = "TODO", doc = "The text to look for, as it is." },
  replace = { "string", default = "", max = 32768, example = "DONE",
    doc = "What comes in its place; lines with the text are removed if empty." },
}
file_edit.paths = { "path" }
file_edit.from = { path = { "target", "file", 1 } }
file_edit.flags = { "-i" }

local function refuse_nul(text, name)
  if text:find("\0", 1, true) then
    err.raise("refused", ("file_edit: %s has a NUL byte"):format(name), { code = "INVALID_ARGUMENT" })
  end
end

-- All that means something in a pattern, and the slash around it.
local function pattern_of(text)
  return (text:gsub("[\\/.*%[%]^$]", "\\%0"):gsub("\n", "\\n"))
end

-- All that means something in a replacement; a line break is a backslash and the break itself.
local function replacement_of(text)
  return (text:gsub("[\\/&\n]", "\\%0"))
end

-- A text of several lines is looked for in the file as a whole, which is read into one line first.
local WHOLE = ":a;$!{N;ba;};"

function file_edit.command(arguments)
  refuse_nul(arguments.search, "search")
  refuse_nul(arguments.replace, "replace")
  local pattern = pattern_of(arguments.search)
  local several = arguments.search:find("\n", 1, true) ~= nil
  local script = ("s/%s/%s/g"):format(pattern, replacement_of(arguments.replace))
  if arguments.replace == "" and not several then script = ("/%s/d"):format(pattern) end
  return { "sed", "-i", "-e", (several and WHOLE or "") .. script, arguments.path }
end

return file_edit
