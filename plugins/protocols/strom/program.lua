-- The program of a step: the words that run its code or its file.
--
-- Code of the shell is run by sh -c; code of another language, and what is longer than an argument may
-- be, becomes a file.  What a file is called where the program runs is the room's affair (room.lua).
local given = require "strom.given"

local program = {}

local word, words = given.word, given.words

local INLINE_MOST = 96 * 1024 -- of one argument

-- Programs that can run a language, the first one found wins; `add` makes dependencies available.
local PYTHON = { ext = "py", tools = {
  { "uv", "run", with = "--with" }, { "python3", add = { "python3", "-m", "pip", "install", "-q" } },
  { "python", add = { "python", "-m", "pip", "install", "-q" } },
} }
local JAVASCRIPT = { ext = "js", tools = {
  { "bun", "run", add = { "bun", "install" } }, { "node", add = { "npm", "install", "--no-save", "--silent" } },
} }
local TYPESCRIPT = { ext = "ts", tools = { { "bun", "run", add = { "bun", "install" } }, { "deno", "run" } } }
local GO = { ext = "go", tools = { { "go", "run" } } }
local LANGUAGES = {
  python = PYTHON, python3 = PYTHON, py = PYTHON, javascript = JAVASCRIPT, js = JAVASCRIPT, node = JAVASCRIPT,
  typescript = TYPESCRIPT, ts = TYPESCRIPT, go = GO, golang = GO,
}

local function quote(value) return "'" .. value:gsub("'", "'\\''") .. "'" end

local function quoted(list, from)
  local all = {}
  for i = from or 1, #list do all[#all + 1] = quote(list[i]) end
  return table.concat(all, " ")
end

-- One way to run the file: install what it depends on (for code of the step itself), then become the
-- program.
local function branch(tool, dependencies, own_code)
  local install, with = "", ""
  if #dependencies > 0 and tool.add and own_code then
    install = ("%s %s || exit 1; "):format(quoted(tool.add), quoted(dependencies))
  end
  if tool.with then
    for _, one in ipairs(dependencies) do with = with .. " " .. tool.with .. " " .. quote(one) end
  end
  local rest = quoted(tool, 2)
  return ('if command -v %s >/dev/null 2>&1; then %sexec %s %s%s "$@"; fi'):format(
    quote(tool[1]), install, quote(tool[1]), rest, with)
end

local function tools_of(spec, language)
  local own = word(spec.interpreter)
  if not own then return language.tools end
  local tool = {}
  for part in own:gmatch("%S+") do tool[#tool + 1] = part end
  return { tool }
end

-- A shell looks for the interpreter, because it knows the PATH that the job really has.
local function finder(spec, language, own_code)
  local lines, names, name = {}, {}, word(spec.language) or "this"
  for i, tool in ipairs(tools_of(spec, language)) do
    lines[i], names[i] = branch(tool, words(spec.dependencies), own_code), tool[1]
  end
  lines[#lines + 1] = ("echo %s >&2; exit 127"):format(
    quote(("no interpreter for %s here; tried: %s"):format(name, table.concat(names, ", "))))
  return { "/bin/sh", "-c", table.concat(lines, "\n"), "sh" }
end

local function with_args(argv, spec, file)
  if file then argv[#argv + 1] = file end
  for _, item in ipairs(words(spec.args)) do argv[#argv + 1] = item end
  return argv
end

--- `program.of_code(job, room, code)`: the job's argv or script, for code that came with the claim.
function program.of_code(job, room, code)
  local spec = job.spec
  local language = LANGUAGES[tostring(spec.language):lower()]
  if language or word(spec.interpreter) then
    local file = room.write(code, language and language.ext or "sh")
    job.argv = with_args(finder(spec, language, true), spec, file)
  elseif #words(spec.args) == 0 then
    job.script = code
  elseif #code <= INLINE_MOST then
    job.argv = with_args({ "/bin/sh", "-c", code, "sh" }, spec)
  else
    job.argv = with_args({ "/bin/sh" }, spec, room.write(code, "sh"))
  end
end

--- `program.of_source(job, room, name)`: the same for a file of the workspace.
function program.of_source(job, room, name)
  local spec = job.spec
  local path = room.source(name)
  local language = LANGUAGES[tostring(spec.language):lower()]
  if not language and not word(spec.interpreter) then
    job.argv = with_args({ path }, spec)
    return
  end
  job.argv = with_args(finder(spec, language, false), spec, path)
end

--- `program.of_image(job)`: an action of type docker: what runs in the image; whether that is an argument
-- of the image's own program.
function program.of_image(job)
  local spec = job.spec
  local first, rest, code = words(spec.entrypoint), words(spec.command), word(spec.cmd)
  if #rest == 0 and code then rest = { "sh", "-c", code } end
  local argv = table.move(rest, 1, #rest, #first + 1, first)
  job.argv = #argv > 0 and argv or nil
  return job.argv ~= nil and not code and #words(spec.entrypoint) == 0
end

return program
