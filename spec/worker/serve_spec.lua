local serve = require "worker.serve"
local sock = require "worker.sock"
local talk = require "spec.support.talk"
local task = require "worker.task"

local server

describe("worker.serve", function()
  it("serves the example of the reference", function()
    local http <close> = serve.http {
      address = "127.0.0.1:0",
      handler = serve.routes {
        ["GET /livez"] = function(_, reply) reply:text(200, "ok\n") end,
        ["POST /tasks/{id}/fail"] = function(request, reply)
          reply:json(200, { id = request.params.id, why = request:json().why })
        end,
      },
    }
    local conn = sock.connect { address = http.address }
    conn:write("GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    local text = talk.rest(conn)
    assert.matches("^HTTP/1.1 200 OK\r\n", text)
    assert.matches("\r\n\r\nok\n$", text)

    conn = sock.connect { address = http.address }
    conn:write("POST /tasks/7/fail HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
      .. "Content-Length: 14\r\n\r\n{\"why\":\"late\"}")
    assert.matches('"why":"late"', (talk.rest(conn)))
  end)
end)


describe("routes", function()
  before_each(function()
    local function show(request, reply)
      local names = {}
      for name, value in pairs(request.params) do names[#names + 1] = name .. "=" .. value end
      table.sort(names)
      reply:text(200, request.route .. "|" .. table.concat(names, ",") .. "|" .. (request.query.q or ""))
    end
    server = talk.server {
      handler = serve.routes {
        ["GET /"] = show, ["GET /tasks/{id}"] = show, ["DELETE /tasks/{id}"] = show,
        ["GET /tasks/all"] = show, ["POST /tasks/{id}/fail"] = show, ["GET /files/{path...}"] = show,
        ["ANY /any"] = show,
      },
    }
  end)

  local function body_of(line)
    return talk.answer(server, line .. " HTTP/1.1\r\nHost: x\r\n\r\n"):match("\r\n\r\n(.*)$")
  end

  it("finds literal before named before the rest, and decodes", function()
    assert.equal("GET /||", body_of("GET /"))
    assert.equal("GET /tasks/all||", body_of("GET /tasks/all"))
    assert.equal("GET /tasks/{id}|id=a/b c|x y", body_of("GET /tasks/a%2Fb%20c?q=x+y"))
    assert.equal("POST /tasks/{id}/fail|id=all|", body_of("POST /tasks/all/fail"))
    assert.equal("GET /files/{path...}|path=a/b/c|", body_of("GET /files/a/b/c"))
    assert.equal("ANY /any||", body_of("PURGE /any"))
  end)

  it("answers HEAD from GET, OPTIONS, 404 and 405 by itself", function()
    assert.matches("^HTTP/1.1 200 .*\r\n\r\n$", talk.answer(server, "HEAD /tasks/7 HTTP/1.1\r\nHost: x\r\n\r\n"))
    assert.matches("^HTTP/1.1 404 ", talk.answer(server, "GET /tasks HTTP/1.1\r\nHost: x\r\n\r\n"))
    assert.matches("^HTTP/1.1 404 ", talk.answer(server, "GET /tasks/ HTTP/1.1\r\nHost: x\r\n\r\n"))
    assert.matches("^HTTP/1.1 404 ", talk.answer(server, "GET /tasks/7/../8 HTTP/1.1\r\nHost: x\r\n\r\n"))
    local text = talk.answer(server, "PUT /tasks/7 HTTP/1.1\r\nHost: x\r\n\r\n")
    assert.matches("^HTTP/1.1 405 ", text)
    assert.matches("Allow: DELETE, GET, HEAD, OPTIONS\r\n", text)
    assert.matches("^HTTP/1.1 204 .*Allow: ", talk.answer(server, "OPTIONS /tasks/7 HTTP/1.1\r\nHost: x\r\n\r\n"))
  end)
end)

describe("closing a server", function()
  it("lets requests end within their grace", function()
    server = talk.server { handler = function(_, reply) task.sleep(5); reply:text(200, "done") end }
    local conn = talk.say(server, "GET / HTTP/1.1\r\nHost: x\r\n\r\n", true)
    local idle = talk.say(server, "", true)
    task.sleep(1)
    server:close(10)
    assert.matches("done$", (talk.rest(conn)))
    assert.equal("end", select(2, talk.rest(idle)))
  end)

  it("cuts off what takes longer", function()
    server = talk.server { handler = function(_, reply) task.sleep(50); reply:text(200, "done") end }
    local conn = talk.say(server, "GET / HTTP/1.1\r\nHost: x\r\n\r\n", true)
    task.sleep(1)
    server:close(10)
    assert.equal("", (talk.rest(conn)))
  end)
end)

it("a server listens on a socket file with its mode", function()
  local path = os.tmpname()
  os.remove(path)
  server = talk.server { unix = path, mode = 432 } -- 0660
  local pipe <close> = io.popen("stat -c %a " .. path)
  assert.equal("660", pipe:read("l"))
  local conn = sock.connect { unix = path }
  conn:write("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
  assert.same({ 200 }, talk.statuses((talk.rest(conn))))
end)
