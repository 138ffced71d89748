-- args.lua: what a person typed, taken apart strictly.
--
-- A table of options says all there is to say about them, and help and completion read it too:
--
--   { log_level = { "enum", values = { "debug", "info" }, value = "LEVEL", doc = "How much to tell." },
--     verbose   = { "flag", short = "v", doc = "Tell more." } }
--
-- A key becomes its option with dashes (log_level: --log-level).  Types: "flag" (--x, --no-x),
-- "count" (-vv), "list" (may be repeated), "map" (NAME=VALUE, may be repeated), and every simple
-- type of worker.schema.  Accepted are --x=y, --x y, -x y, -xy, -abc for flags; "--" ends options.
-- A mistake is raised as an error of kind "usage".
local err = require "worker.error"
local sys = require "worker.core.sys"

local args = {}

local TRUTH = { ["true"] = true, yes = true, on = true, ["1"] = true,
  ["false"] = false, no = false, off = false, ["0"] = false }

--- `args.usage(message, fields)`: raise a mistake of the person who typed the command line; `hint` in
-- the fields is printed on a line of its own.
function args.usage(message, fields)
  err.raise("usage", message, fields)
end

--- `args.long(key, option)`: the option as it is typed, "--log-level" for log_level.
function args.long(key, option)
  return "--" .. (option and option.name or key:gsub("[_.]", "-"))
end

--- `args.placeholder(option)`: the word that stands for its value in help ("DIR"), nil for a flag.
function args.placeholder(option)
  if option[1] == "flag" or option[1] == "count" or option[1] == "boolean" then return nil end
  if option.value then return option.value end
  if option[1] == "map" then return "NAME=VALUE" end
  if option[1] == "enum" then return table.concat(option.values, "|") end
  return option[1]:upper()
end

--- `args.nearest(word, words)`: " (did you mean ...?)" when one of the words is close, else "".
-- `shape` is how the word is written ("--%s").
function args.nearest(word, words, shape)
  -- only needed when something is wrong, so only loaded then
  local near = require("worker.text").nearest(word, words)
  return near and (" (did you mean %s?)"):format((shape or "%s"):format(near)) or ""
end

-- Every way to write an option: long["log-level"] = { key, option }, long["no-color"] with no = true.
local function index(options)
  local long, short = {}, {}
  for key, option in pairs(options) do
    local name = args.long(key, option):sub(3)
    long[name] = { key = key, option = option, name = "--" .. name }
    if option[1] == "flag" or option[1] == "boolean" then
      long["no-" .. name] = { key = key, option = option, name = "--no-" .. name, no = true }
    end
    if option.short then short[option.short] = long[name] end
  end
  return long, short
end

local function names_of(long)
  local names = {}
  for name, entry in pairs(long) do
    if not entry.option.hidden then names[#names + 1] = name end
  end
  table.sort(names)
  return names
end

-- Values -----------------------------------------------------------------------------------------------

local function read_simple(entry, text)
  local option = entry.option
  if option[1] == "string" and not (option.pattern or option.min or option.max) then return text end
  local value, why = require("worker.schema").parse(option, text)
  if value == nil then
    local near = option.values and args.nearest(text, option.values, '"%s"') or ""
    args.usage(("%s: %s"):format(entry.name, (why:gsub("; did you mean.*$", "")) .. near))
  end
  return value
end

local function read_flag(entry, text)
  if text == nil then return not entry.no end
  local value = TRUTH[text:lower()]
  if entry.no or value == nil then args.usage(("%s takes no value, got \"%s\""):format(entry.name, text)) end
  return value
end

local readers = {}

function readers.flag(entry, text) return read_flag(entry, text) end

function readers.count(entry, text, before)
  if text then args.usage(("%s takes no value, got \"%s\""):format(entry.name, text)) end
  return (before or 0) + 1
end

function readers.list(entry, text, before)
  local list = before or {}
  local of = entry.option.of
  list[#list + 1] = of and read_simple({ name = entry.name, option = type(of) == "table" and of or { of } }, text)
    or text
  return list
end

function readers.map(entry, text, before)
  local map = before or {}
  local name, value = text:match("^([^=]+)=(.*)$")
  if not name then args.usage(("%s: expected NAME=VALUE, got \"%s\""):format(entry.name, text)) end
  map[name] = value
  return map
end

-- A field of the configuration stays text: it is checked together with everything else.  What may
-- be repeated is joined the way it could have been written at once.
local function read_field(entry, text, before)
  local kind = entry.option[1]
  if kind == "boolean" then return tostring(read_flag(entry, text)) end
  if before and (kind == "list" or kind == "map") then return before .. "," .. text end
  return text
end

local function is_bare(entry)
  local kind = entry.option[1]
  return kind == "flag" or kind == "count" or kind == "boolean"
end

local function store(values, entry, text)
  local option, into = entry.option, values
  local read = readers[option[1]] or read_simple
  if option.into then
    into = values[option.into] or {}
    values[option.into], read = into, read_field
  end
  local key = option.key or entry.key
  into[key] = read(entry, text, into[key])
end

-- The walk ---------------------------------------------------------------------------------------------

-- state: argv, at (next word), values, words, long, short, problem (the first mistake).

local function unknown(state, name)
  local hint = state.settings.on_unknown and state.settings.on_unknown(name)
  args.usage(("unknown option --%s%s"):format(name, args.nearest(name, names_of(state.long), "--%s")),
    { option = name, hint = hint })
end

-- The value of an option in the next word.  One that looks like an option is taken for a forgotten
-- value, not for a value.
local function next_value(state, entry)
  local word = state.argv[state.at]
  if word == nil or word:find("^%-%-") then
    local shown = args.placeholder(entry.option)
    args.usage(("%s needs a value: %s %s"):format(entry.name, entry.name, shown),
      word and { hint = ("a value that begins with dashes is written %s=%s"):format(entry.name, word) })
  end
  state.at = state.at + 1
  return word
end

local function take_long(state, word)
  local name, text = word:match("^%-%-([^=]+)=(.*)$")
  name = name or word:sub(3)
  local entry = state.long[name]
  if not entry then
    if state.settings.lenient then return end
    unknown(state, name)
  end
  if text == nil and not is_bare(entry) then text = next_value(state, entry) end
  store(state.values, entry, text)
end

local function unknown_short(state, letter, word)
  local hint = state.long[word:sub(2):match("^[^=]+")] and (" (did you mean -%s?)"):format(word) or ""
  args.usage(("unknown option -%s%s"):format(letter, hint))
end

local function take_short(state, word)
  local at = 2
  while at <= #word do
    local letter = word:sub(at, at)
    local entry = state.short[letter]
    if not entry then
      if state.settings.lenient then return end
      unknown_short(state, letter, word)
    end
    if not is_bare(entry) then
      local rest = word:sub(at + 1)
      return store(state.values, entry, rest ~= "" and rest or next_value(state, entry))
    end
    store(state.values, entry)
    at = at + 1
  end
end

local function take(state, word)
  if word:find("^%-%-") then
    take_long(state, word)
  elseif word:find("^%-.") then
    take_short(state, word)
  else
    state.words[#state.words + 1] = word
    if state.settings.stop_at_word then return true end
  end
end

local function rest_is_words(state)
  table.move(state.argv, state.at, #state.argv, #state.words + 1, state.words)
  state.at = #state.argv + 1
end

local function walk(state)
  while state.at <= #state.argv do
    local word = state.argv[state.at]
    state.at = state.at + 1
    if word == "--" then return rest_is_words(state) end
    local ok, stop = pcall(take, state, word)
    if not ok then
      if not err.is(stop, "usage") then error(stop, 0) end
      state.problem = state.problem or stop
    elseif stop then
      return rest_is_words(state)
    end
  end
end

-- What was not typed comes from the environment, where the option names a variable.
local function fill_from_environment(values, options)
  for key, option in pairs(options) do
    local text = option.env and not option.into and values[key] == nil and sys.env(option.env)
    if text and text ~= "" then
      local of_env = { key = key, option = option, name = option.env }
      values[key] = (readers[option[1]] or read_simple)(of_env, text)
    end
  end
end

local function check_count(words, range)
  if not range then return end
  local least, most = range[1], range[2]
  if #words < least then args.usage(range.missing or "something is missing") end
  if most and #words > most then
    args.usage(("'%s' is one word too many"):format(words[most + 1]))
  end
end

--- `args.parse(argv, options, settings)`: the values by key, and the words that are no options.
-- Settings: words = { least, most, missing = "..." } bounds the words; stop_at_word ends options at
-- the first word; lenient passes over options that are not known.  With --help among the options
-- nothing else is complained about.
function args.parse(argv, options, settings)
  local long, short = index(options)
  local state = {
    argv = argv, at = 1, values = {}, words = {}, long = long, short = short, settings = settings or {},
  }
  walk(state)
  if state.values.help then return state.values, state.words end
  if not state.settings.lenient then
    if state.problem then error(state.problem, 0) end
    check_count(state.words, state.settings.words)
    fill_from_environment(state.values, options)
  end
  return state.values, state.words
end

--- `args.for_run(argv, options)`: the command line of a server, where the fields of its plugins are
-- options too; see worker.args.server.
function args.for_run(argv, options)
  return require("worker.args.server").parse(argv, options)
end

--- `args.to_config(values, dirs)`: what config.load takes, from what args.for_run returned.
function args.to_config(values, dirs)
  return require("worker.args.server").to_config(values, dirs)
end

return args
