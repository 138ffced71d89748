-- engine/prove.lua: does a sandboxing runtime really work here?
--
-- That an engine lists a runtime means that its name is in a file.  So something is run under it: a
-- program of a few dozen bytes that asks the kernel for its name and writes down the answer.  Under a
-- sandbox with a kernel of its own the answer is not the name of this machine's kernel.  The program
-- comes with us, as an image with nothing else in it, because no other image may be there yet.
local err = require "worker.error"
local task = require "worker.task"
local text = require "worker.text"
local owner = require "worker.engine.owner"

local prove = {}

local PATIENCE = 60

-- The program -------------------------------------------------------------------------------------------

-- uname into the stack; write it to stdout; exit(0).
local CODE = {
  x86_64 = { machine = 62, code = "4881ec00020000b83f0000004889e70f05b801000000bf010000004889e6ba860100000f05b83c000000"
    .. "31ff0f05" },
  aarch64 = { machine = 183, code = "ff0308d1e0030091081480d2010000d4200080d2e1030091c23080d2080880d2010000d4000080d2"
    .. "a80b80d2010000d4" },
}
local BASE, HEADERS = 0x400000, 64 + 56
local FIELD = 65 -- bytes of each of the six fields of the answer

-- The least file that Linux executes: a header, one segment with everything in it.
local function executable(machine, code)
  local size = HEADERS + #code
  return "\127ELF\2\1\1" .. ("\0"):rep(9)
    .. ("<I2I2I4I8I8I8I4I2I2I2I2I2I2"):pack(2, machine, 1, BASE + HEADERS, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    .. ("<I4I4I8I8I8I8I8I8"):pack(1, 5, 0, BASE, BASE, size, size, 0x10000) .. code
end

local function tar_of(name, data)
  local function head(sum)
    return ("z"):pack(name):sub(1, -2) .. ("\0"):rep(100 - #name) .. "0000755\0" .. "0000000\0" .. "0000000\0"
      .. ("%011o\0"):format(#data) .. "00000000000\0" .. sum .. "0" .. ("\0"):rep(100) .. "ustar\00000" .. ("\0"):rep(247)
  end
  local sum = 0
  for _, byte in ipairs { head(" " .. (" "):rep(7)):byte(1, -1) } do sum = sum + byte end
  return head(("%06o\0 "):format(sum)) .. data .. ("\0"):rep(-#data % 512 + 1024)
end

--- `prove.image(architecture)`: a tar archive with the program as "probe"; nil where we have none.
function prove.image(architecture)
  local known = CODE[({ amd64 = "x86_64", arm64 = "aarch64" })[architecture] or architecture]
  return known and tar_of("probe", executable(known.machine, text.unhex(known.code)))
end

-- Running it --------------------------------------------------------------------------------------------

local function kernel_under(engine, runtime, image)
  local box <close> = engine:container()
  box:create { Image = image, Entrypoint = { "/probe" }, Labels = owner.labels(engine, "probe of " .. runtime),
    HostConfig = { Runtime = runtime, NetworkMode = "none", CapDrop = { "ALL" }, LogConfig = { Type = "none" } } }
  local output <close> = box:attach()
  box:start()
  local said = {}
  for stream, piece in output:pieces() do
    if stream == "stdout" then said[#said + 1] = piece end
  end
  local code = box:wait()
  if code ~= 0 then err.raise("engine", ("a first program ended with exit code %d"):format(code)) end
  local release = table.concat(said):sub(2 * FIELD + 1, 3 * FIELD):match("^[^\0]+")
  return release or err.raise("engine", "a first program wrote nothing")
end

local function run_once(engine, runtime)
  local info = engine:info()
  local tar = prove.image(info.Architecture)
  if not tar then err.raise("engine", ("there is no test program for %s"):format(tostring(info.Architecture))) end
  local image = "worker-probe:" .. text.random_id(10)
  local release
  local ok, why = task.try(function()
    engine:import(image, tar)
    release = kernel_under(engine, runtime, image)
  end)
  task.shield(pcall, engine.call, engine, "DELETE", "/images/" .. image, { expect = { 200, 404 } })
  if not ok then error(why, 0) end
  if release == info.KernelVersion then
    err.raise("engine", ("what runs under it sees the kernel of this machine (%s): that is no sandbox"):format(release))
  end
  return release
end

-- The engine's name for it: the same, or one whose program is called so.
local function find(engine, wanted)
  local runtimes, names = engine:info().Runtimes, {}
  if type(runtimes) ~= "table" then runtimes = {} end
  if runtimes[wanted] then return wanted end
  for name, one in pairs(runtimes) do
    names[#names + 1] = name
    local path = type(one) == "table" and (one.path or one.runtimeType)
    if type(path) == "string" and (path:match("[^/]+$") == wanted or path:find("." .. wanted .. ".", 1, true)) then
      return name
    end
  end
  table.sort(names)
  return nil, ("the engine has no runtime %s (it has %s): add it under \"runtimes\" in its configuration, and restart it")
    :format(wanted, #names > 0 and table.concat(names, ", ") or "none")
end

--- `prove.runtime(engine, wanted)`: see worker.engine; proved once per life of the engine, with the
-- kernel release that was seen as second value.
function prove.runtime(engine, wanted)
  local name, why = find(engine, wanted)
  if not name then return nil, why end
  local proof = engine.proofs[name]
  if proof then return name, proof end
  local ok, release = task.try(function()
    local done, seen = task.within(PATIENCE, run_once, engine, name)
    return done and seen or err.raise("engine", ("nothing came of it in %d s"):format(PATIENCE))
  end)
  if not ok then return nil, ("the runtime %s does not work: %s"):format(name, tostring(release)) end
  engine.proofs[name] = release
  return name, release
end

return prove
