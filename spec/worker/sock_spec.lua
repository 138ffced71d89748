local sock = require "worker.sock"
local task = require "worker.task"

describe("worker.sock", function()
  it("serves the example of the reference", function()
    local listener <close> = sock.listen { address = "127.0.0.1:0" }
    task.scope(function(scope)
      scope:spawn(function()
        local conn <close> = listener:accept()
        for line in function() return conn:line() end do conn:write(line:upper()) end
      end)

      local conn <close> = sock.connect { address = listener:address(), timeout = 5 }
      conn:write("hello\n")
      assert.equal("HELLO\n", conn:line(80, { timeout = 5 }))
      conn:shutdown()
      assert.is_nil(conn:line())
    end)
  end)

  it("tells its state in its name", function()
    local listener = sock.listen { address = "127.0.0.1:0" }
    local conn = sock.connect { address = listener:address() }
    assert.equal("worker.sock (open)", tostring(conn))
    assert.equal("worker.sock.listener (open)", tostring(listener))
    listener:close()
    conn:close()
    assert.equal("worker.sock (closed)", tostring(conn))
    assert.equal("worker.sock.listener (closed)", tostring(listener))
    assert.is_nil(conn:peer())
  end)

  it("refuses nonsense where it is said", function()
    local listener <close> = sock.listen { address = "127.0.0.1:0" }
    local conn <close> = sock.connect { address = listener:address() }
    for _, wrong in ipairs { 0, -1, 1 << 30, "many" } do
      assert.is_false((pcall(conn.read, conn, wrong)))
    end
    assert.is_false((pcall(conn.read, conn, 1, { timeout = "soon" })))
    assert.is_false((pcall(conn.read_exactly, conn)))
    assert.is_false((pcall(conn.read, listener)))
    assert.is_false((pcall(sock.connect, { address = "x:1", tls = "yes" })))
  end)
end)
