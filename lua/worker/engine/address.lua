-- engine/address.lua: where a container engine is, as worker.http and worker.sock want to hear it.
--
-- Without an address the environment decides as for every other client of the Docker Engine API:
-- DOCKER_HOST, and for TLS DOCKER_TLS_VERIFY with the files of DOCKER_CERT_PATH.
local err = require "worker.error"
local fs = require "worker.fs"
local sys = require "worker.core.sys"

local address = {}

local USUAL = "unix:///var/run/docker.sock"

local function tls_of(options)
  local tls = options.tls or {}
  local dir = sys.env "DOCKER_CERT_PATH"
  local verify = (sys.env "DOCKER_TLS_VERIFY" or "") ~= ""
  if tls.ca or tls.cert or tls.key then return { ca = tls.ca, cert = tls.cert, key = tls.key } end
  if options.host or not verify then return nil end
  dir = dir or fs.join(sys.env "HOME" or "/root", ".docker")
  return { ca = fs.join(dir, "ca.pem"), cert = fs.join(dir, "cert.pem"), key = fs.join(dir, "key.pem") }
end

local function remote(host, authority, tls)
  if not authority:find(":%d+$") then authority = authority .. (tls and ":2376" or ":2375") end
  return {
    shown = host, key = table.concat({ host, tls and tls.ca or "", tls and tls.cert or "" }, " "),
    http = {
      base = (tls and "https://" or "http://") .. authority, proxy = false,
      ca_file = tls and tls.ca, cert = tls and tls.cert, key = tls and tls.key,
    },
    sock = { address = authority, proxy = "", tls = tls and { ca_file = tls.ca, cert = tls.cert, key = tls.key } },
    authority = authority,
  }
end

--- `address.of{ host=, tls={ca=,cert=,key=} }`: { shown=, key=, http= (for http.client), sock= (for
-- sock.connect), authority=, is_local= }; is_local: the engine sees the files of this machine.
function address.of(options)
  local host = options.host or sys.env "DOCKER_HOST"
  if host == nil or host == "" then host = USUAL end
  local path = host:match("^unix://(/.+)$") or host:match("^/.+$")
  if path then
    return { shown = host, key = host, http = { unix = path }, sock = { unix = path }, authority = "localhost", is_local = true }
  end
  local scheme, authority = host:match("^(%a+)://([^/]+)/?$")
  if scheme == "tcp" or scheme == "http" or scheme == "https" then
    local tls = tls_of(options)
    return remote(host, authority, tls or scheme == "https" and {} or nil)
  end
  err.raise("config", ("'%s' is no address of a container engine: expected unix:///path or tcp://host:port"):format(host))
end

return address
