-- facts/read.lua: reading the kernel's small files, for the facts.
local read = {}

--- `read.text(path)`: the whole file, or nil.
function read.text(path)
  local file <close> = io.open(path)
  return file and file:read("a") or nil
end

--- `read.number(path)`: the first number in the file, or nil.
function read.number(path)
  return math.tointeger((read.text(path) or ""):match("%-?%d+"))
end

--- `read.field(text, key)`: the rest of the line "key: value", or nil.
function read.field(text, key)
  return text and ("\n" .. text):match("\n" .. key .. ":%s*([^\n]*)")
end

--- `read.size(bytes)`: "1.5 GiB", for people.
function read.size(bytes)
  local units, at = { "B", "KiB", "MiB", "GiB", "TiB", "PiB" }, 1
  while bytes >= 1024 and at < #units do
    bytes, at = bytes / 1024, at + 1
  end
  return (bytes >= 100 or at == 1) and ("%.0f %s"):format(bytes, units[at])
    or ("%.1f %s"):format(bytes, units[at])
end

return read
