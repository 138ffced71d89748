-- completion.lua: what shells need to complete `worker`, made from the tables of the commands.
--
-- Everything is in the script, so completing starts no worker; only the names of plugins are asked
-- for, because they change: `worker plugins --names`.
local args = require "worker.args"
local commands = require "worker.commands"

local completion = {}

local FILES = { path = true }
local PLUGIN_OPTIONS = { protocol = true, executor = true }

-- What the value of an option is: "files", "plugins KIND", { words }, or nil for anything.
local function value_of(key, option)
  if option.values then return option.values end
  if PLUGIN_OPTIONS[option.path or key] then return "plugins " .. (option.path or key) end
  local placeholder = args.placeholder(option)
  if FILES[option[1]] or placeholder == "DIR" or placeholder == "FILE" then return "files" end
end

local function options_of(options)
  local list = {}
  for key, option in pairs(options) do
    if not option.hidden then
      list[#list + 1] = {
        long = args.long(key, option), short = option.short or nil, doc = option.doc or "",
        takes = args.placeholder(option) ~= nil, value = value_of(key, option),
      }
    end
  end
  table.sort(list, function(a, b) return a.long < b.long end)
  return list
end

local function words_of(command)
  if command.complete == "command" then return commands.names() end
  if command.complete == "plugin" then return "plugins all" end
  if command.complete == "tool" then return "plugins tool" end
  if command.complete then return command.complete end
  return command.server and "files" or nil
end

--- `completion.model()`: every command: { name, summary, options, words }.
function completion.model()
  local list = {}
  for _, name in ipairs(commands.names()) do
    local command = commands.get(name)
    list[#list + 1] = {
      name = name, summary = command.summary, options = options_of(commands.options_of(name)), words = words_of(command),
    }
  end
  return list
end

local function option_words(options)
  local words = {}
  for _, option in ipairs(options) do
    words[#words + 1] = option.long
    if option.short then words[#words + 1] = "-" .. option.short end
  end
  return table.concat(words, " ")
end

local function names(model)
  local words = {}
  for i, command in ipairs(model) do words[i] = command.name end
  return words
end

-- bash -----------------------------------------------------------------------------------------------

local BASH = [==[
# bash completion for worker, made by `worker completion bash`; put it into
# /usr/share/bash-completion/completions/worker or say: source <(worker completion bash)
_worker_files() { mapfile -t COMPREPLY < <(compgen -f -- "$1"); }
_worker_words() { mapfile -t COMPREPLY < <(compgen -W "$2" -- "$1"); }
_worker_plugins() { _worker_words "$1" "$("${COMP_WORDS[0]}" plugins --names "$2" 2>/dev/null)"; }

_worker() {
  local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} command= i
  COMPREPLY=()
  for ((i = 1; i < COMP_CWORD; i++)); do
    case ${COMP_WORDS[i]} in
      @COMMANDS@) command=${COMP_WORDS[i]}; break ;;
    esac
  done
  case $command:$before in
@VALUES@
  esac
  if [[ $word == -* ]]; then
    case $command in
@OPTIONS@
    esac
    return
  fi
  case $command in
@WORDS@
  esac
}
complete -o filenames -F _worker worker
]==]

local function bash_reply(what)
  if type(what) == "table" then return ('_worker_words "$word" "%s"'):format(table.concat(what, " ")) end
  if what == "files" or what == "directory" or what == "file" then return '_worker_files "$word"' end
  local kind = what and what:match("^plugins (%l+)$")
  return kind and ('_worker_plugins "$word" %s'):format(kind) or ":"
end

-- Without a command it is `run`: its options are those of the empty command.
local function bash_pattern(command, form)
  local own = form:format(command.name)
  return command.name == "run" and own .. "|" .. form:format("") or own
end

local function bash_values(command, lines)
  for _, option in ipairs(command.options) do
    if option.takes then
      local pattern = bash_pattern(command, "%s:" .. option.long)
      if option.short then pattern = pattern .. "|" .. bash_pattern(command, "%s:-" .. option.short) end
      lines[#lines + 1] = ("    %s) %s; return ;;"):format(pattern, bash_reply(option.value))
    end
  end
end

--- `completion.bash()`: the script for bash.
function completion.bash()
  local model, values, options, words = completion.model(), {}, {}, {}
  for _, command in ipairs(model) do
    bash_values(command, values)
    options[#options + 1] = ('      %s) _worker_words "$word" "%s" ;;'):format(
      bash_pattern(command, command.name == "run" and "'%s'" or "%s"), option_words(command.options))
    if command.words then
      words[#words + 1] = ("    %s) %s ;;"):format(command.name, bash_reply(command.words))
    end
  end
  words[#words + 1] = ("    '') _worker_words \"$word\" \"%s\"\n"
    .. "      ((${#COMPREPLY[@]})) || _worker_files \"$word\" ;;"):format(table.concat(names(model), " "))
  return (BASH:gsub("@(%u+)@", {
    COMMANDS = table.concat(names(model), "|"), VALUES = table.concat(values, "\n"),
    OPTIONS = table.concat(options, "\n"), WORDS = table.concat(words, "\n"),
  }))
end

-- zsh ------------------------------------------------------------------------------------------------

local ZSH = [==[
#compdef worker
# zsh completion for worker, made by `worker completion zsh`; put it into a folder of $fpath as _worker.
_worker_plugins() { local -a found; found=(${(f)"$(${words[1]} plugins --names $1 2>/dev/null)"}); compadd -a found; }

_worker() {
  local -a commands
  local command=${words[(r)(@COMMANDS@)]}
  commands=(
@LIST@
  )
  if [[ -z $command && $words[CURRENT] != -* ]]; then
    _describe command commands
    _files -/
    return
  fi
  case ${command:-run} in
@CASES@
  esac
}
_worker "$@"
]==]

local function zsh_quote(words)
  return (words:gsub("'", "'\\''"):gsub("[%[%]:]", "\\%0"))
end

local function zsh_action(what)
  if type(what) == "table" then return "(" .. table.concat(what, " ") .. ")" end
  if what == "files" or what == "directory" or what == "file" then return "_files" end
  local kind = what and what:match("^plugins (%l+)$")
  return kind and "_worker_plugins " .. kind or " "
end

local function zsh_option(option)
  local value = option.takes and (":value:%s"):format(zsh_action(option.value)) or ""
  local long = option.long .. (option.takes and "=" or "")
  local doc = zsh_quote(option.doc)
  if not option.short then return ("'%s[%s]%s'"):format(long, doc, value) end
  return ("'(-%s %s)'{-%s,%s}'[%s]%s'"):format(option.short, option.long, option.short, long, doc, value)
end

--- `completion.zsh()`: the script for zsh.
function completion.zsh()
  local model, list, cases = completion.model(), {}, {}
  for _, command in ipairs(model) do
    list[#list + 1] = ("    '%s:%s'"):format(command.name, zsh_quote(command.summary))
    local specs = {}
    for i, option in ipairs(command.options) do specs[i] = zsh_option(option) end
    if command.words then specs[#specs + 1] = ("'*:word:%s'"):format(zsh_action(command.words)) end
    cases[#cases + 1] = ("    %s) _arguments \\\n      %s ;;"):format(command.name, table.concat(specs, " \\\n      "))
  end
  return (ZSH:gsub("@(%u+)@", {
    COMMANDS = table.concat(names(model), "|"), LIST = table.concat(list, "\n"),
    CASES = table.concat(cases, "\n"),
  }))
end

-- fish -----------------------------------------------------------------------------------------------

local function fish_quote(words)
  return "'" .. words:gsub("[\\']", "\\%0") .. "'"
end

local function fish_arguments(what)
  if type(what) == "table" then return " -f -a " .. fish_quote(table.concat(what, " ")) end
  if what == "files" or what == "directory" or what == "file" then return " -F" end
  local kind = what and what:match("^plugins (%l+)$")
  return kind and (" -f -a '(worker plugins --names %s 2>/dev/null)'"):format(kind) or ""
end

local function fish_command(lines, command, all)
  local condition = ("-n '__fish_seen_subcommand_from %s'"):format(command.name)
  if command.name == "run" then
    condition = ("-n 'not __fish_seen_subcommand_from %s; or __fish_seen_subcommand_from run'"):format(all)
  end
  for _, option in ipairs(command.options) do
    lines[#lines + 1] = ("complete -c worker %s -l %s%s%s%s -d %s"):format(condition, option.long:sub(3),
      option.short and " -s " .. option.short or "", option.takes and " -r" or "",
      option.takes and fish_arguments(option.value) or "", fish_quote(option.doc))
  end
  if command.words and command.name ~= "run" then
    lines[#lines + 1] = ("complete -c worker %s%s"):format(condition, fish_arguments(command.words))
  end
end

--- `completion.fish()`: the script for fish.
function completion.fish()
  local model = completion.model()
  local all = table.concat(names(model), " ")
  local lines = {
    "# fish completion for worker, made by `worker completion fish`; put it into",
    "# ~/.config/fish/completions/worker.fish", "complete -c worker -f",
  }
  for _, command in ipairs(model) do
    lines[#lines + 1] = ("complete -c worker -n 'not __fish_seen_subcommand_from %s' -a %s -d %s"):format(
      all, command.name, fish_quote(command.summary))
  end
  for _, command in ipairs(model) do fish_command(lines, command, all) end
  return table.concat(lines, "\n") .. "\n"
end

return completion
