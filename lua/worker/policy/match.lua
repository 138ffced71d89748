-- policy/match.lua: patterns of a policy and what they are held against.
--
-- In a pattern * stands for anything, slashes included, and the whole has to fit.
local fs = require "worker.fs"

local match = {}

--- `match.glob(pattern, text)`: whether it fits.
function match.glob(pattern, text)
  local escaped = pattern:gsub("[%^%$%(%)%%%.%[%]%+%-%?]", "%%%0"):gsub("%*+", ".*")
  return text:find("^" .. escaped .. "$") ~= nil
end

--- `match.any(patterns, text)`: whether one of them does.
function match.any(patterns, text)
  for _, pattern in ipairs(patterns) do
    if match.glob(pattern, text) then return true end
  end
  return false
end

-- Directories -----------------------------------------------------------------------------------------

-- Whether the source is a directory in which, read part by part, something that the pattern names would be.
local function is_above(source, pattern)
  local parts = pattern:gmatch("[^/]+")
  for name in source:gmatch("[^/]+") do
    local part = parts()
    if not part or not match.glob(part, name) then return false end
  end
  return parts() ~= nil
end

--- `match.touches(pattern, source)`: whether mounting the source would show anything of what the pattern
-- names: it, something below it, or a directory it is in.
function match.touches(pattern, source)
  return match.glob(pattern, source) or match.glob(fs.join(pattern, "*"), source) or is_above(source, pattern)
end

-- Images ----------------------------------------------------------------------------------------------

local HUB = "docker.io/"

local function with_registry(repository)
  local first, rest = repository:match("^([^/]+)/(.+)$")
  if first == "index.docker.io" then first, repository = "docker.io", HUB .. rest end
  if first == "docker.io" then return rest:find("/", 1, true) and repository or HUB .. "library/" .. rest end
  if not first then return HUB .. "library/" .. repository end
  local is_registry = first:find("[.:]") or first == "localhost" or first:find("*", 1, true)
  return is_registry and repository or HUB .. repository
end

-- Repository, tag, digest.
local function split(name)
  local rest, digest = name:match("^(.-)@(.+)$")
  rest = rest or name
  local repository, tag = rest:match("^(.+):([^/:]+)$")
  return repository or rest, tag, digest
end

local function joined(repository, tag, digest)
  return repository .. (tag and ":" .. tag or "") .. (digest and "@" .. digest or "")
end

--- `match.image(name)`: the full name of an image: "alpine" is docker.io/library/alpine:latest.
function match.image(name)
  local repository, tag, digest = split(name)
  if not tag and not digest then tag = "latest" end
  return joined(with_registry(repository), tag, digest)
end

--- `match.tag(name)`: its tag, and its digest.
function match.tag(name)
  local _, tag, digest = split(match.image(name))
  return tag, digest
end

-- A pattern without a tag is meant for all of them.
local function patterns_of(pattern)
  if pattern:find("^%*") then return { pattern } end
  local repository, tag, digest = split(pattern)
  local full = joined(with_registry(repository), tag, digest)
  if tag or digest then return { full } end
  return { full, full .. ":*", full .. "@*" }
end

-- A digest decides alone which image it is; the tag beside it is only another way to name it.
local function forms_of(name)
  local repository, tag, digest = split(match.image(name))
  if not (tag and digest) then return { joined(repository, tag, digest) } end
  return { joined(repository, tag, digest), joined(repository, nil, digest), joined(repository, tag) }
end

--- `match.any_image(patterns, name, widely)`: whether one of the patterns fits the image; `widely`: also
-- by a tag that stands beside a digest.
function match.any_image(patterns, name, widely)
  for _, pattern in ipairs(patterns) do
    for _, full in ipairs(patterns_of(pattern)) do
      for i, form in ipairs(forms_of(name)) do
        if (i < 3 or widely) and match.glob(full, form) then return true end
      end
    end
  end
  return false
end

--- `match.names(asked, known)`: the full names that an image has to be judged by.  `known` are those that
-- the engine has for it, nil before it was asked.  Who asked for it by a part of its number asked for
-- any of them.
function match.names(asked, known)
  local forms = forms_of(asked)
  if not known then return { forms[1] } end
  for _, name in ipairs(known) do
    local full = match.image(name)
    for _, form in ipairs(forms) do
      if full == form then return { forms[1] } end
    end
  end
  local names = {}
  for i, name in ipairs(known) do names[i] = match.image(name) end
  return names
end

return match
