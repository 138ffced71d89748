local err = require "worker.error"

describe("worker.error", function()
  it("is an object with a kind, whose text is its message", function()
    local why = err.new("http", "GET /x: 503", { status = 503 })
    assert.equal("GET /x: 503", tostring(why))
    assert.equal("http", why.kind)
    assert.equal(503, why.status)
    assert.is_true(err.is(why))
    assert.is_true(err.is(why, "http"))
    assert.is_false(err.is(why, "grpc"))
  end)

  it("takes its kind and message from nobody's fields", function()
    local why = err.new("http", "mine", { kind = "bug", message = "theirs" })
    assert.same({ "http", "mine" }, { why.kind, why.message })
  end)

  it("is raised as it is, without a place in front", function()
    local ok, why = pcall(err.raise, "file", "no such file", { path = "/x" })
    assert.is_false(ok)
    assert.same({ "file", "no such file", "/x" }, { why.kind, why.message, why.path })
  end)

  it("calls everything else a bug: strings, tables, nothing", function()
    for _, value in ipairs { "text", { kind = "http" }, 7, false } do
      assert.is_false(err.is(value))
      assert.equal("bug", err.kind(value))
    end
    assert.equal("bug", err.kind(nil))
    assert.equal("gone", err.kind(err.new("gone", "x")))
  end)

  it("of a wire keeps a sample of a readable length", function()
    local ok, why = pcall(err.wire, "not JSON", ("x"):rep(1000))
    assert.is_false(ok)
    assert.same({ "wire", "not JSON", 200 }, { why.kind, why.message, #why.sample })
    assert.is_nil(select(2, pcall(err.wire, "nothing at all")).sample)
  end)

  it("says that the server has forgotten us, also without words", function()
    assert.equal("the server no longer knows this worker", select(2, pcall(err.gone)).message)
    assert.equal("410", select(2, pcall(err.gone, "410")).message)
  end)

  it("gains context on its way up and stays itself", function()
    local why = err.new("file", "no such file", { path = "/x" })
    local wrapped = err.wrap(err.wrap(why, "loading the plugin"), "starting")
    assert.equal(why, wrapped)
    assert.equal("starting: loading the plugin: no such file", wrapped.message)
    assert.equal("/x", wrapped.path)
  end)

  it("is made of a plain string when that gains context", function()
    local wrapped = err.wrap("a.lua:1: oops", "starting")
    assert.same({ "bug", "starting: a.lua:1: oops" }, { wrapped.kind, wrapped.message })
  end)

  it("that ends a task arrives whole at who joins it", function()
    local task = require "worker.task"
    local ok, why = task.start(err.raise, "limit", "too much", { most = 7 }):join()
    assert.is_false(ok)
    assert.same({ "limit", "too much", 7 }, { why.kind, why.message, why.most })
  end)
end)
