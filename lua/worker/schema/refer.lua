-- worker.schema.refer: ${file:...}, ${env:...} and ${credential:...} inside configured text.
--
-- What is referred to is put in once and not looked at again, so a secret that happens to contain
-- "${" stays what it is.  "$${" stands for a "${" that means itself.  Files lose their trailing
-- newline, which editors add and no token has.

local fs = require "worker.fs"
local task = require "worker.task"

local refer = {}

local FILE_MOST = 1 << 20
local OTHERS_READ = 4 -- the bit of a mode that lets everybody read

--- `refer.is_open(path)`: whether everybody on the machine can read the file.
function refer.is_open(path)
  local ok, stat = task.try(fs.stat, path)
  return ok and stat ~= nil and stat.mode & OTHERS_READ ~= 0
end

--- `refer.file(path)`: the text of a file without its trailing newline; or nil and why it cannot be
-- read.  A third value is a warning, when everybody on the machine can read it.
function refer.file(path)
  local ok, text, why = task.try(fs.read, path, FILE_MOST)
  if not ok then why, text = text, nil end
  if not text then return nil, path .. ": " .. tostring(why):gsub("^%l+ .-: ", "", 1) end
  local warning
  if refer.is_open(path) then
    warning = ("everybody on this machine can read %s; chmod 600 it"):format(path)
  end
  return (text:gsub("\r?\n$", "")), nil, warning
end

local sources = {}

function sources.file(name)
  return refer.file(name)
end

function sources.env(name, env)
  local value = env(name)
  if not value then return nil, ("the environment has no %s"):format(name) end
  return value
end

function sources.credential(name, env)
  local dir = env("CREDENTIALS_DIRECTORY")
  if not dir then
    return nil, "there are no credentials: CREDENTIALS_DIRECTORY is not set "
      .. "(systemd sets it for LoadCredential=)"
  end
  if name:find("/") or name == ".." then
    return nil, ("%s is not the name of a credential"):format(name)
  end
  return refer.file(dir .. "/" .. name)
end

local function resolve(inside, env)
  local source, name = inside:match("^(%a+):(.+)$")
  if not sources[source] then
    -- what is inside is not repeated: it may be a part of a secret
    return nil, "${...} must be ${file:PATH}, ${env:NAME} or ${credential:NAME}; "
      .. "a ${ that means itself is written $${"
  end
  local value, why, warning = sources[source](name, env)
  if not value then return nil, ("${%s}: %s"):format(inside, why) end
  return value, nil, warning
end

--- `refer.expand(text, env)`: the text with its references put in, whether there were any, and a
-- list of warnings; or nil and the reason.  env(name) gives the value of an environment variable.
function refer.expand(text, env)
  local out, at, found, warnings = {}, 1, false, {}
  while true do
    local from = text:find("${", at, true)
    if not from then break end
    if from > at and text:sub(from - 1, from - 1) == "$" then
      out[#out + 1] = text:sub(at, from - 2) .. "${"
      at = from + 2
    else
      local close = text:find("}", from, true)
      if not close then return nil, "${ without its }" end
      local value, why, warning = resolve(text:sub(from + 2, close - 1), env)
      if not value then return nil, why end
      out[#out + 1] = text:sub(at, from - 1) .. value
      at, found, warnings[#warnings + 1] = close + 1, true, warning
    end
  end
  return table.concat(out) .. text:sub(at), found, warnings
end

return refer
