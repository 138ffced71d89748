local plugin = require "spec.support.plugin"
local secret = require "worker.secret"
local text = require "worker.text"

describe("the policy mask", function()
  local TOKEN = "s3cr3t-token-of-mine"

  local function run(fields, job, inner, more)
    local ctx = plugin.ctx(more)
    local plain = ctx.log
    local ok, result = pcall(plugin.policy("mask", fields).run(inner), job, ctx)
    assert.equal(plain, ctx.log)
    return ctx.said, result, ok
  end

  it("hides a secret cut anywhere by chunks, for every cut", function()
    for cut = 1, #TOKEN - 1 do
      local said = run({ values = { TOKEN } }, {}, function(_, ctx)
        ctx.log("stdout", "a " .. TOKEN:sub(1, cut))
        ctx.log("stdout", TOKEN:sub(cut + 1) .. " b\n")
        return {}
      end)
      assert.equal("a *** b\n", said.stdout)
    end
  end)

  it("hides it byte for byte, and gives out what only began like it", function()
    local said = run({ values = { TOKEN } }, {}, function(_, ctx)
      for c in (TOKEN .. "|" .. TOKEN:sub(1, 9)):gmatch(".") do ctx.log("stdout", c) end
      return {}
    end)
    assert.equal("***|" .. TOKEN:sub(1, 9), said.stdout)
  end)

  it("hides base64 and percent forms", function()
    local said = run({ values = { TOKEN } }, {}, function(_, ctx)
      ctx.log("stdout", text.base64(TOKEN) .. "\n")
      ctx.log("stderr", text.percent_encode "s3cr3t-token-of-mine" .. "\n")
      return {}
    end)
    assert.is_nil(said.stdout:find(text.base64(TOKEN):sub(1, 12), 1, true))
    assert.equal("***\n", said.stderr)
  end)

  it("keeps the streams apart", function()
    local said = run({ values = { TOKEN } }, {}, function(_, ctx)
      ctx.log("stdout", TOKEN:sub(1, 5))
      ctx.log("stderr", TOKEN:sub(6))
      return {}
    end)
    assert.equal(TOKEN:sub(1, 5), said.stdout)
    assert.equal(TOKEN:sub(6), said.stderr)
  end)

  it("hides it in the result's reason", function()
    local _, result = run({ values = { TOKEN } }, {}, function()
      return { state = "failed", reason = "cannot log in with " .. TOKEN }
    end)
    assert.equal("cannot log in with ***", result.reason)
  end)

  it("hides it in an error that the job ends with", function()
    local _, why, ok = run({ values = { TOKEN } }, {}, function()
      require("worker.error").raise("spawn", "no program " .. TOKEN, { code = 2 })
    end)
    assert.is_false(ok)
    assert.is_nil(tostring(why):find(TOKEN, 1, true))
    assert.equal(2, why.code)
  end)

  it("gives out what it held back when the job fails", function()
    local said, _, ok = run({ values = { TOKEN } }, {}, function(_, ctx)
      ctx.log("stdout", "tail " .. TOKEN:sub(1, 4))
      error("broken", 0)
    end)
    assert.is_false(ok)
    assert.equal("tail " .. TOKEN:sub(1, 4), said.stdout)
  end)

  it("knows the secrets of the job and of named variables", function()
    local said = run({ env = { "PASSWORD" } }, { env = { PASSWORD = "from-the-env" } }, function(_, ctx)
      ctx.log("stdout", "from-the-env and from-the-job")
      return {}
    end, { secrets = { secret.value "from-the-job" } })
    assert.equal("*** and ***", said.stdout)
  end)

  it("does not hide what is too short, and leaves the log whole", function()
    local said = run({ values = { "ab" } }, {}, function(_, ctx)
      ctx.log("stdout", "abab")
      return {}
    end)
    assert.equal("abab", said.stdout)
  end)
end)
