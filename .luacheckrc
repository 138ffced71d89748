-- Zero warnings.  What each folder may see is part of the house: plugins get a safe base only.
std = "lua54"
max_line_length = 130
self = false
cache = false

files["plugins"] = {
  std = "none",
  read_globals = {
    "assert", "error", "ipairs", "math", "next", "pairs", "pcall", "print", "rawequal", "rawget",
    "rawlen", "rawset", "require", "select", "setmetatable", "getmetatable", "string", "table",
    "tonumber", "tostring", "type", "utf8", "xpcall",
  },
}
files["spec"] = { std = "lua54+busted" }
files["bench/*_spec.lua"] = { std = "lua54+busted" }
