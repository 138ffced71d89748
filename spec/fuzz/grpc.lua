-- grpc.lua: a server that answers, and a client that asks, as the input says.
--
-- The input is a header block (lines of "name: value" up to an empty one), a second one for the
-- trailers, and a body.  The client must end with an answer or an error object, and the server must
-- go on serving.
local core = require "worker.core.h2"
local err = require "worker.error"
local fuzz = require "worker.core.fuzz"
local grpc = require "worker.grpc"
local sock = require "worker.sock"
local task = require "worker.task"

local function block(lines)
  local list = {}
  for name, value in lines:gmatch "(:?[^:\n]+): ?([^\n]*)" do
    if #list < 60 then
      list[#list + 1] = name
      list[#list + 1] = value
    end
  end
  return list
end

local function parse(input)
  local head, trailers, body = input:match "^(.-)\n\n(.-)\n\n(.*)$"
  return block(head or input), block(trailers or ""), body or ""
end

local reply = { {}, {}, "" }

-- Answers every request with the reply of the moment.
local function play(conn)
  local link <close> = core.open(conn, { server = true })
  task.scope(function(scope)
    local stream = link:accept()
    while stream do
      scope:spawn(function(one)
        local held <close> = one -- luacheck: ignore held
        one:respond(reply[1], #reply[1] == 0)
        one:write(reply[3])
        one:finish(reply[2])
        one:sent()
      end, stream)
      stream = link:accept()
    end
  end)
end

local function place()
  local path = os.tmpname()
  os.remove(path)
  return "@" .. path
end

local hostile, honest_place = place(), place()
local listener = sock.listen { unix = hostile }
task.start(function()
  while true do
    local conn = listener:accept()
    task.start(function()
      local held <close> = conn -- luacheck: ignore held
      task.try(play, conn)
    end)
  end
end)

local services = { ["a.B"] = {
  Echo = function(message) return message end,
  Chat = { stream = function(call)
    for message in function() return call:receive() end do call:send(message) end
  end },
} }
local server = grpc.serve {
  listen = "unix-abstract:" .. honest_place:sub(2), max_receive = 1000, max_header = 4096, services = services,
}

local function fine(ok, why)
  if ok then return end
  if not err.is(why) or why.kind == "bug" then error(why, 0) end
end

local client = grpc.client {
  target = "unix-abstract:" .. hostile:sub(2), max_receive = 1000, max_header = 4096, timeout = 0.2,
}
local honest = grpc.client { target = server.target }

while true do
  local head, trailers, body = parse(fuzz.next())
  reply = { head, trailers, body }
  fine(task.try(client.call, client, "/a.B/C", "hello"))
  fine(task.try(function()
    local call <close> = client:stream("/a.B/C", { timeout = 0.2 })
    call:send "x"
    while call:receive() do call:send "y" end
  end))
  fine(task.try(function()
    local link <close> = core.open(sock.connect { unix = honest_place }, {})
    local stream <close> = link:request(head, body, true, 0.2)
    stream:head()
    while stream:read() do end -- luacheck: ignore 542
  end))
  assert(honest:call("/a.B/Echo", "still here") == "still here")
end
