local secret = require "worker.secret"

describe("worker.secret", function()
  it("hides what must not be seen (the example of the reference)", function()
    local token = secret.value "s3cr3t-token"
    assert.equal("token ***", "token " .. tostring(token))
    assert.equal("s3cr3t-token", token:reveal())

    local masker, warnings = secret.masker { token = token, pin = "1234" }
    assert.same({ "the secret 'pin' is shorter than 6 bytes and cannot be hidden" }, warnings)
    assert.equal("login ", masker:feed "login s3cr3t")            -- a chunk may cut it in two
    assert.equal("*** ok\n", masker:feed "-token ok\n")
    assert.equal("", masker:finish())
    assert.equal("Basic dXNlcjp***4=", masker:text "Basic dXNlcjpzM2NyM3QtdG9rZW4=") -- user:s3cr3t-token
  end)

  it("reveals secrets and leaves other values alone", function()
    assert.equal("abcdef", secret.reveal(secret.value "abcdef"))
    assert.equal("abcdef", secret.reveal "abcdef")
    assert.is_nil(secret.reveal(nil))
    assert.is_true(secret.is(secret.value ""))
    assert.is_false(secret.is {})
  end)

  it("keeps registered secrets out of the worker's log", function()
    local object, hidden = secret.register "a-registered-token"
    assert.equal("a-registered-token", object:reveal())
    assert.is_true(hidden)
    local _, short = secret.register "abc"
    assert.is_false(short)
  end)

  it("makes maskers of lists, of names, and of nothing", function()
    local masker = secret.masker { "first-one", secret.value "second-one" }
    local out, err = masker:stream(), masker:stream()
    assert.equal("***.", out:feed "first-one.")
    assert.equal("***.", err:feed "second-one.")
    assert.equal("x", secret.masker():feed "x")
    local few, warnings = secret.masker { "a", "b" }
    assert.equal(2, #warnings)
    assert.equal(2, few:refused())
    assert.is_true(few:add "long enough")
  end)
end)
