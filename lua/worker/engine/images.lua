-- engine/images.lua: having the image that a job names.
local err = require "worker.error"
local json = require "worker.json"
local sys = require "worker.core.sys"
local task = require "worker.task"
local text = require "worker.text"
local time = require "worker.time"

local images = {}

local TELL_EVERY = 5
local SILENCE = 120      -- seconds without a word from a registry
local LINE = 1024 * 1024
local KEEP = "/:@"

-- What a reference may look like: anything else would be another path of the API.
local function check_name(name)
  if type(name) ~= "string" or #name > 512 or not name:find("^[%w][%w%._/:@-]*$") or name:find("..", 1, true) then
    err.raise("engine", ("'%s' is no name of an image"):format(text.sample(tostring(name))))
  end
end

--- `images.find(engine, name)`.
function images.find(engine, name)
  check_name(name)
  local reply = engine:call("GET", "/images/" .. text.percent_encode(name, KEEP) .. "/json", { expect = { 200, 404 } })
  return reply.status == 200 and reply.json or nil
end

-- Repository and tag.  Without a tag the engine would fetch every tag there is.
local function split(name)
  if name:find("@", 1, true) then return name end
  local repository, tag = name:match("^(.+):([^/:]+)$")
  return repository or name, tag or "latest"
end

-- Layers as they go: { [id] = { current, total, done } }.
local function summary(layers)
  local done, all, bytes = 0, 0, 0
  for _, layer in pairs(layers) do
    all = all + 1
    done = done + (layer.done and 1 or 0)
    bytes = bytes + layer.current
  end
  return ("%d of %d layers, %s"):format(done, all, time.format_size(bytes))
end

local FINISHED = { ["Pull complete"] = true, ["Already exists"] = true, ["Download complete"] = true }

local function note_layer(layers, said)
  if type(said.id) ~= "string" or said.status == nil or tostring(said.status):find("^Pulling from") then return end
  local layer = layers[said.id] or { current = 0 }
  local detail = type(said.progressDetail) == "table" and said.progressDetail or {}
  if said.status == "Downloading" and type(detail.current) == "number" then layer.current = detail.current end
  layer.done = layer.done or FINISHED[said.status]
  layers[said.id] = layer
end

-- The answer is a line of JSON per step; that it failed is only said in there.
local function follow(engine, options, heard)
  local reader, failure = text.lines(LINE), nil
  local function take(lines)
    for _, line in ipairs(lines) do
      local ok, said = pcall(json.decode, line)
      if ok and type(said) == "table" then
        local detail = type(said.errorDetail) == "table" and said.errorDetail.message
        failure = failure or said.error and tostring(detail or said.error)
        heard(said)
      end
    end
  end
  options.each = function(chunk) take((reader:feed(chunk))) end
  options.timeout = SILENCE
  engine:call("POST", "/images/create", options)
  take((reader:finish()))
  if failure then err.raise("engine", failure) end
end

--- `images.pull(engine, name, told)`.
function images.pull(engine, name, told)
  check_name(name)
  told = told or function() end
  local layers, next_word = {}, sys.mono() + TELL_EVERY
  local repository, tag = split(name)
  follow(engine, { query = { fromImage = repository, tag = tag } }, function(said)
    note_layer(layers, said)
    if sys.mono() < next_word then return end
    next_word = sys.mono() + TELL_EVERY
    told(("pulling %s: %s"):format(name, summary(layers)))
  end)
end

--- `images.import(engine, name, tar)`.
function images.import(engine, name, tar)
  check_name(name)
  local repository, tag = split(name)
  follow(engine, {
    query = { fromSrc = "-", repo = repository, tag = tag }, body = tar,
    headers = { ["Content-Type"] = "application/x-tar" },
  }, function() end)
end

-- A pull of its own: it goes on when the job that wanted the image first has gone, so that one which
-- takes longer than a job may comes to its end all the same.
local function begin(engine, name, policy)
  local pull = { heard_by = {} }
  engine.pulls[name] = pull
  local function told(words)
    for _, hear in pairs(pull.heard_by) do pcall(hear, words) end
  end
  pull.handle = task.start(function()
    pull.ok, pull.why = task.try(function()
      if not task.within(policy.timeout, images.pull, engine, name, told) then
        err.raise("engine", "it took longer than " .. time.format_duration(policy.timeout))
      end
    end)
    engine.pulls[name] = nil
  end)
  return pull
end

-- Wait for it, hearing how far it is.
local function follow_pull(engine, name, policy)
  policy.told("pulling " .. name)
  local pull, key = engine.pulls[name] or begin(engine, name, policy), {}
  pull.heard_by[key] = policy.told
  local _ <close> = setmetatable({}, { __close = function() pull.heard_by[key] = nil end })
  pull.handle:join()
  if pull.ok then return end
  local why = pull.why or "the engine was closed"
  err.raise("engine", ("the image %s cannot be had: %s"):format(name, tostring(why)), { away = err.is(why) and why.away or nil })
end

--- `images.need(engine, name, policy)`: several who need the same image pull it once.
function images.need(engine, name, policy)
  local found = policy.pull ~= "always" and images.find(engine, name)
  if found then return found end
  if policy.pull == "never" then
    err.raise("engine", ("the image %s is not on this machine, and `pull` is never: load it, or allow to pull"):format(name))
  end
  follow_pull(engine, name, policy)
  return images.find(engine, name)
    or err.raise("engine", ("the image %s is not there after it was pulled"):format(name))
end

--- `images.close(engine)`: end what is being pulled.
function images.close(engine)
  for _, pull in pairs(engine.pulls) do pull.handle:cancel "closed" end
end

return images
