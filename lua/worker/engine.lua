-- engine.lua: a container engine, spoken to over the Docker Engine API: dockerd, podman's service.
--
--   local docker <close> = engine.open { host = "unix:///run/docker.sock" }
--   docker:ready()                                  -- raises kind "unusable" when it does not work
--   local box <close> = docker:container()          -- leaving the block ends and removes it
--   box:create { Image = "alpine:3.19", Cmd = { "echo", "hi" } }
--   local output <close> = box:attach()
--   box:start()
--   for stream, text in output:pieces() do ... end
--   local code = box:wait()
--
-- What goes wrong is kind "engine": `status` when the engine said no, `away` when there was no usable
-- answer, then `sent` is false when it surely did not hear the question.  The first conversation agrees
-- on a version; after an engine was away it is agreed anew, and what was known about the engine is
-- forgotten: another one may have come back.
--
--   worker.engine.address    where it is            worker.engine.stream   what a container writes
--   worker.engine.container  one container          worker.engine.images   having an image
--   worker.engine.owner      labels and orphans     worker.engine.prove    does a runtime work?
--   worker.engine.order      a job as a container   worker.engine.run      a job from start to result
--   worker.engine.fields     configuration          worker.engine.cache    results seen before
--   worker.engine.plan       what policies judge
local addresses = require "worker.engine.address"
local containers = require "worker.engine.container"
local err = require "worker.error"
local fields = require "worker.engine.fields"
local http = require "worker.http"
local images = require "worker.engine.images"
local log = require "worker.log"
local order = require "worker.engine.order"
local owner = require "worker.engine.owner"
local prove = require "worker.engine.prove"
local run = require "worker.engine.run"
local task = require "worker.task"

local engine = {}

local OLDEST, NEWEST = { 1, 25 }, { 1, 47 } -- what is used here is the same in all of these
local PATIENCE = 30
local PING_PATIENCE = 5
local INFO_PATIENCE = 15

local methods = {}
local meta = { __index = methods, __name = "worker.engine" }

--- `engine.open{ host=, tls={ ca=, cert=, key= }, owner= }`: an engine, nothing said to it yet.  Without
-- a host: DOCKER_HOST, else /var/run/docker.sock.  `owner` is what its containers are labelled with;
-- the host's name if absent.
function engine.open(options)
  options = options or {}
  local address = addresses.of(options)
  local client = { timeout = PATIENCE }
  for name, value in pairs(address.http) do client[name] = value end
  return setmetatable({
    address = address, client = http.client(client), owner = options.owner or owner.name(),
    owner_given = options.owner ~= nil,
    epoch = 0, -- counts the lives of the engine, as far as we have noticed
    lost = {}, pulls = {}, proofs = {}, sought = {}, gate = task.semaphore(1), readying = task.semaphore(1),
  }, meta)
end

--- `docker:close()`: close the connections.
function methods:close()
  images.close(self)
  self.client:close()
end
meta.__close = methods.close

-- Talking ----------------------------------------------------------------------------------------------

local function message_of(why)
  local reply = why.reply
  local ok, said = pcall(function() return (reply and reply.json or require("worker.json").decode(why.body)).message end)
  return ok and type(said) == "string" and said:match("^%s*(.-)%s*$") or why.message
end

--- `docker:judged(fn)`: what fn returns; an error of the connection becomes one of the engine.
function methods:judged(fn)
  local results = table.pack(task.try(fn))
  if results[1] then return table.unpack(results, 2, results.n) end
  local why = results[2]
  if err.is(why, "http") then
    err.raise("engine", message_of(why), { status = why.status })
  elseif err.is(why, "transport") then
    self:forget_life()
    err.raise("engine", ("the container engine at %s does not answer: %s"):format(self.address.shown, why.message),
      { away = true, reason = why.reason, sent = why.sent })
  end
  error(why, 0)
end

-- Only the first of those who notice ends the life.
function methods:forget_life()
  if not self.version then return end
  self.version, self.known, self.is_ready = nil, nil, nil
  self.proofs, self.sought = {}, {}
  self.epoch = self.epoch + 1
end

local function parse_version(text)
  local major, minor = tostring(text or ""):match("^(%d+)%.(%d+)$")
  return major and { tonumber(major), tonumber(minor) }
end

local function older(a, b) return a[1] < b[1] or a[1] == b[1] and a[2] < b[2] end

-- The newest version that both sides know.
local function negotiate(self)
  local reply = self.client:get("/_ping", { timeout = PING_PATIENCE })
  local theirs = parse_version(reply:header "Api-Version")
    or parse_version(self.client:get("/version", { timeout = PING_PATIENCE }).json.ApiVersion)
  if not theirs then err.wire("the engine does not say which version of the API it has", reply.head) end
  if older(theirs, OLDEST) then
    err.raise("engine", ("the engine has version %d.%d of the API; %d.%d is the oldest that will do"):format(
      theirs[1], theirs[2], OLDEST[1], OLDEST[2]))
  end
  local version = older(theirs, NEWEST) and theirs or NEWEST
  self.version = ("%d.%d"):format(version[1], version[2])
end

--- `docker:path(path)`: with the agreed version in front; agrees on one first.
function methods:path(path)
  if not self.version then
    local place <close> = self.gate:take() -- luacheck: ignore place
    if not self.version then self:judged(function() negotiate(self) end) end
  end
  return "/v" .. self.version .. path
end

--- `docker:call(method, path, options)`: one request, options as for worker.http; the reply.
function methods:call(method, path, options)
  local all = { method = method, path = self:path(path) }
  for name, value in pairs(options or {}) do all[name] = value end
  return self:judged(function() return self.client:request(all) end)
end

--- `docker:ping()`: raises kind "engine" unless it answers.
function methods:ping()
  self:path ""
  self:judged(function() return self.client:get("/_ping", { timeout = PING_PATIENCE }) end)
end

--- `docker:info()`: what it says of itself; asked once per life.
function methods:info()
  if not self.known then
    local said = self:call("GET", "/info", { timeout = INFO_PATIENCE }).json
    if type(said) ~= "table" then err.wire "the engine says nothing of itself" end
    self.known = said
  end
  return self.known
end

-- What it has ------------------------------------------------------------------------------------------

--- `docker:image(name)`: what it knows of a local image; nil when there is none.
methods.image = images.find

--- `docker:pull(name, told)`: fetch an image; told(text) hears now and then how far it is.
methods.pull = images.pull

--- `docker:import(name, tar)`: an image made of a tar archive.
methods.import = images.import

--- `docker:need(name, policy)`: the image, pulled if the policy { pull=, timeout=, told= } allows.
methods.need = images.need

--- `docker:runtime(name)`: the engine's own name for a runtime ("runsc"), proved by having run
-- something; nil and why it cannot be used.
methods.runtime = prove.runtime

--- `docker:container()`: a container to be.
function methods:container() return containers.new(self) end

--- `docker:containers(filters)`: a list of those there are, ended ones included.
function methods:containers(filters)
  local query = { all = "1", filters = filters and require("worker.json").encode(filters) }
  local list = self:call("GET", "/containers/json", { query = query }).json
  return type(list) == "table" and list or {}
end

-- Removing and being ready ------------------------------------------------------------------------------

--- `docker:remove(box)`: remove a container now, or when the engine is looked at again.  Nothing stops it.
-- Whether it is gone.
function methods:remove(box)
  return task.shield(function()
    local ok, why = pcall(box.remove, box)
    if ok then
      self.lost[box.name] = nil
    elseif not self.lost[box.name] then
      self.lost[box.name] = box
      log.warn("container.left", ("the container %s could not be removed yet: %s"):format(box.name, tostring(why)))
    end
    return ok
  end)
end

-- More may be lost meanwhile; they have their turn the next time.
local function remove_lost(self)
  local boxes = {}
  for _, box in pairs(self.lost) do boxes[#boxes + 1] = box end
  for _, box in ipairs(boxes) do self:remove(box) end
end

--- `docker:ready()`: it answers, and what dead workers of ours left there is gone, as far as the engine
-- can remove it; raises kind "unusable" when it does not work.  Cheap while the engine lives.
function methods:ready()
  local place <close> = self.readying:take() -- luacheck: ignore place
  local ok, why = task.try(function()
    self:ping()
    remove_lost(self)
    if not self.is_ready then
      self:info()
      owner.sweep(self)
    end
    self.is_ready = self.version ~= nil -- nil: it went away meanwhile
  end)
  if not ok then err.raise("unusable", tostring(why)) end
end

-- For executors ----------------------------------------------------------------------------------------

local shared = {}

--- `engine.shared(conf)`: the one engine of this address, whoever asks.
function engine.shared(conf)
  local key = addresses.of(conf).key .. " " .. (conf.owner or "")
  shared[key] = shared[key] or engine.open(conf)
  return shared[key]
end

--- `engine.forget()`: close the shared engines.
function engine.forget()
  for key, one in pairs(shared) do
    one:close()
    shared[key] = nil
  end
end

--- `engine.fields(more)`: the configuration that executors on an engine have in common, and more.
engine.fields = fields.with

--- `engine.grant(container)`: for a protocol that hands jobs its own directories: what this job.container
-- asks for needs no `allow` and no `mount_roots`.  Gives it back; never for what a server wrote.
engine.grant = order.grant

--- `engine.check(conf, sandbox)`: for an executor's check: raises kind "unusable" unless jobs can run;
-- with `sandbox`, unless they can run under the runtime of that name.
function engine.check(conf, sandbox)
  run.check(engine.shared(conf), conf, sandbox)
end

--- `engine.plan(conf, job, ctx)`: for an executor's plan: what the job would be run as; asks nobody.
function engine.plan(conf, job, ctx)
  return run.plan(engine.shared(conf), conf, job, ctx)
end

--- `engine.run(conf, job, ctx, sandbox)`: for an executor's run: the job in a container; its result.
function engine.run(conf, job, ctx, sandbox)
  return run.job(engine.shared(conf), conf, job, ctx, sandbox)
end

return engine
