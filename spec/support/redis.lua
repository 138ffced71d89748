-- redis.lua: a real Redis server for the specs, one of their own: no port of the system, no data kept.
--
--   local server <close> = redis.start { password = "p", tls = true }
--   server.url                    "redis://:p@127.0.0.1:4711/0", or rediss:// and server.ca
--   server:listen("channel")      a connection that has subscribed (worker.redis)
--   server:kill() server:start()  kill -9; up again at the same place
--
-- The program is that of Debian's redis-tools, which decides by its name what it is: the package
-- redis-server would start a service on this machine.
local client = require "worker.redis"
local fs = require "worker.fs"
local process = require "worker.process"
local sock = require "worker.sock"
local sys = require "worker.core.sys"
local task = require "worker.task"

local redis = {}

local PROGRAM = "/usr/bin/redis-check-rdb"
local PATH = { PATH = sys.env "PATH" }
local PATIENCE = 60

local methods = {}
local meta = { __index = methods }

-- A port that nobody has; between now and its use somebody could take it, so starting tries again.
local function free_port()
  local listener <close> = sock.listen { address = "127.0.0.1:0" }
  return (listener:address():match(":(%d+)$"))
end

local function certificate(dir)
  local made = process.run { argv = { "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
    "-nodes", "-keyout", "key.pem", "-out", "cert.pem", "-days", "2", "-subj", "/CN=localhost", "-addext",
    "subjectAltName=IP:127.0.0.1,DNS:localhost" }, env = PATH, cwd = dir }
  assert(made.exit_code == 0, made.stderr)
end

local function words(self)
  local argv = { fs.join(self.dir, "redis-server"), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", self.dir,
    "--port", self.tls and "0" or self.port, "--unixsocket", self.unix }
  local function add(...) table.move({ ... }, 1, select("#", ...), #argv + 1, argv) end
  if self.password then add("--requirepass", self.password) end
  if self.tls then
    add("--tls-port", self.port, "--tls-cert-file", fs.join(self.dir, "cert.pem"),
      "--tls-key-file", fs.join(self.dir, "key.pem"), "--tls-ca-cert-file", self.ca, "--tls-auth-clients", "no")
  end
  return argv
end

-- Whether it listens; false when it has ended instead.
local function comes_up(self)
  local up
  task.within(PATIENCE, function()
    while up == nil do
      local ok, conn = task.try(sock.connect, { address = "127.0.0.1:" .. self.port, timeout = 1 })
      if ok then
        conn:close()
        up = true
      elseif self.ended then
        up = false
      else
        task.sleep(0.01)
      end
    end
  end)
  return up
end

--- Start it (again).
function methods:start()
  self.ended = false
  self.child = process.spawn { argv = words(self), env = PATH, merge = true }
  self.reader = task.start(function(child)
    for _, data in child:output() do self.said = data end
    self.ended = true
  end, self.child)
  return comes_up(self)
end

--- End it as a power cut would.
function methods:kill()
  self.child:kill "KILL"
  self.child:wait()
  self.reader:join()
  self.child:close()
end

--- A client of our own.
function methods:connect(more)
  local options = { url = self.url, tls = self.tls and { ca_file = self.ca } or nil }
  for name, value in pairs(more or {}) do options[name] = value end
  return client.connect(options)
end

--- One that has subscribed.
function methods:listen(...)
  local db = self:connect()
  db:subscribe(...)
  return db
end

function meta:__close()
  self.child:close()
  self.reader:join()
  fs.remove_tree(self.dir)
end

function redis.start(options)
  options = options or {}
  local dir = fs.temp_dir "/tmp/worker-redis-"
  fs.symlink(PROGRAM, fs.join(dir, "redis-server"))
  local self = setmetatable({ dir = dir, unix = fs.join(dir, "redis.sock"), password = options.password, tls = options.tls,
    ca = fs.join(dir, "cert.pem") }, meta)
  if self.tls then certificate(dir) end
  for _ = 1, 5 do
    self.port = free_port()
    self.url = ("%s://%s127.0.0.1:%s/0"):format(self.tls and "rediss" or "redis",
      self.password and ":" .. self.password .. "@" or "", self.port)
    if self:start() then return self end
    self:kill()
  end
  error("redis-server does not start: " .. tostring(self.said))
end

return redis
