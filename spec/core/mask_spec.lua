-- Hiding secrets (src/mask.c, src/mask_forms.c, src/lua_mask.c).
local core = require "worker.core.mask"
local task = require "worker.core.task"
local text = require "worker.core.text"
local encode = require "worker.core.json_encode"

local HEAD = 60 -- of a longer form, that much must be seen before it is hidden

local function masker_of(...)
  local masker = core.new()
  for _, secret in ipairs { ... } do assert.is_true(masker:add(secret)) end
  return masker
end

-- What a reader of mask.h would do by hand: mark every byte of every occurrence, then write stars.
local function by_hand(secrets, s)
  local hide = {}
  for _, secret in ipairs(secrets) do
    for i = 1, #s do
      local n = 0
      while n < #secret and s:byte(i + n) == secret:byte(n + 1) do n = n + 1 end
      if n == #secret or n >= HEAD then for j = i, i + n - 1 do hide[j] = true end end
    end
  end
  local out = {}
  for i = 1, #s do
    if not hide[i] then out[#out + 1] = s:sub(i, i)
    elseif not hide[i - 1] then out[#out + 1] = "***" end
  end
  return table.concat(out)
end

local function word(length, letters)
  local bytes = {}
  for i = 1, length do bytes[i] = letters:byte(math.random(#letters)) end
  return string.char(table.unpack(bytes))
end

-- A text full of secrets, halves of secrets and letters of secrets.
local function tempting(secrets, letters)
  local parts = {}
  for i = 1, math.random(40) do
    local secret, kind = secrets[math.random(#secrets)], math.random(4)
    parts[i] = kind == 1 and secret or kind == 2 and secret:sub(1, math.random(#secret))
      or kind == 3 and secret:sub(math.random(#secret)) or word(math.random(30), letters .. "\n")
  end
  return table.concat(parts)
end

describe("a masker", function()
  it("hides what a careful reader would, however the text is cut into chunks #realtime", function()
    local seed = os.time()
    math.randomseed(seed)
    for round = 1, 200 do
      task.yield()
      local letters, secrets = ({ "ab", "abc", "abcdefgh" })[math.random(3)], {}
      for i = 1, math.random(6) do
        secrets[i] = word(({ math.random(6, 12), math.random(6, 30), math.random(55, 150) })[math.random(3)], letters)
      end
      local masker, s = masker_of(table.unpack(secrets)), tempting(secrets, letters)
      local want, where = by_hand(secrets, s), ("seed %d, round %d"):format(seed, round)
      assert.equal(want, masker:text(s), where)
      local out, at = {}, 1
      while at <= #s do
        local n = math.random(0, math.random(2) == 1 and 3 or 60)
        out[#out + 1] = masker:feed(s:sub(at, at + n - 1))
        at = at + n
      end
      out[#out + 1] = masker:finish()
      assert.equal(want, table.concat(out), where)
    end
  end)

  it("holds back only what may be the beginning of a secret", function()
    local masker = masker_of("hunter2hunter2")
    assert.equal("password: ", masker:feed "password: hunter2")
    assert.equal("", masker:feed "hunter")
    assert.equal("*** is it\n", masker:feed "2 is it\n")
    assert.equal("", masker:feed "hunter2h")
    assert.equal("hunter2h", masker:finish())
    assert.equal("hunter3\n", masker:feed "hunter3\n")
  end)

  it("keeps its streams apart and lets them share the secrets", function()
    local masker = masker_of("s3cr3t-value")
    local out, err = masker:stream(), masker:stream()
    assert.equal("", out:feed "s3cr3t")
    assert.equal("-value", err:feed "-value")
    assert.equal("***", out:feed "-value")
    masker:add("another-one")
    assert.equal("***.", err:feed "another-one.")
    assert.equal("", out:finish() .. err:finish())
    assert.equal("***", out:feed "another-one")
    masker:add "one-more"
    assert.equal("", out:feed "-more")
    assert.equal("ab-more", err:feed "ab-more")
  end)

  it("takes secrets while it runs, and sees them in what it held back", function()
    local masker = masker_of("aaaa-first-secret")
    assert.equal("x ", masker:feed "x aaaa-first")
    masker:add("a-first-x")
    assert.equal("aaa***!", masker:feed "-x!")
    assert.equal("***, ***", masker:text "a-first-x, aaaa-first-secret")
  end)

  it("hides a long secret as soon as its beginning is certain", function()
    local key = word(4000, "abcdefghijklmnopqrstuvwxyz0123456789")
    local masker = masker_of(key)
    assert.equal("a***", masker:feed("a" .. key:sub(1, 1000)))
    assert.equal("!", masker:feed(key:sub(1001)) .. masker:feed "!")
    assert.equal("***-", masker:text(key:sub(1, 200) .. "-"))
    assert.equal(key:sub(1, HEAD - 1) .. "-", masker:text(key:sub(1, HEAD - 1) .. "-"))
    assert.equal(key:sub(2), masker:text(key:sub(2)))
  end)

  it("refuses what is too short, and counts it", function()
    local masker = core.new()
    assert.same({ false, "the secret 'pin' is shorter than 6 bytes and cannot be hidden" }, { masker:add("12345", "pin") })
    assert.same({ false, "a secret is shorter than 6 bytes and cannot be hidden" }, { masker:add "\n1234\r\n\n" })
    assert.is_true(masker:add "123456\n")
    assert.equal(2, masker:refused())
    assert.equal("12345 ***\n", masker:text "12345 123456\n")
    assert.equal("untouched", core.new():feed "untouched")
    local ok, err = pcall(masker.add, masker, ("x"):rep(300 * 1024))
    assert.is_false(ok)
    assert.equal("limit", err.kind)
  end)

  it("may hold any bytes", function()
    local masker = masker_of("\0\1\2\255\254\0\n\rx", ("\0"):rep(6))
    assert.equal("a***b", masker:text "a\0\1\2\255\254\0\n\rxb")
    assert.equal("***", masker:text(("\0"):rep(1000)))
  end)

  it("is closed once, and then refuses", function()
    local masker = masker_of("some-secret")
    local stream = masker:stream()
    masker:close()
    masker:close()
    assert.equal("worker.masker (closed)", tostring(masker))
    assert.has_error(function() masker:feed "x" end, "this masker is closed")
    assert.has_error(function() stream:feed "x" end, "the masker of this stream is closed")
  end)
end)

describe("the forms of a secret", function()
  local token = "p@ss w/rd'1\"<>&+ä"
  local masker = masker_of(token)

  local function hidden(form) assert.equal("[***]", masker:text("[" .. form .. "]"), form) end

  it("are hidden in percent, JSON, XML and shell quotes", function()
    hidden(token)
    hidden(text.percent(token))
    hidden(text.percent(token):gsub("%%%x%x", string.lower))
    hidden(text.percent(token, "/"))
    hidden(text.percent(token):gsub("%%20", "+"))
    hidden(encode(token):sub(2, -2))
    hidden([[p@ss w/rd'1\"\u003c\u003e\u0026+ä]])
    hidden("p@ss w/rd&#39;1&quot;&lt;&gt;&amp;+ä")
    hidden([[p@ss w/rd'\''1"<>&+ä]])
  end)

  it("are hidden in base64 wherever they stand in it", function()
    for front = 0, 5 do
      for back = 0, 5 do
        for _, url in ipairs { false, true } do
          local coded = text.base64(("u"):rep(front) .. token .. ("v"):rep(back), url)
          local shown = masker:text(coded)
          assert.matches("%*%*%*", shown)
          -- What is left around the stars is only what is decided by the neighbours.
          assert.is_true(#shown - 3 <= (front + back) * 2 + 4, coded .. " " .. shown)
        end
      end
    end
  end)

  it("of several lines are hidden with any newlines, and line by line", function()
    local key = "-----BEGIN KEY-----\nMIIEvQIBADANBg\nkqhkiG9w0BAQEF\nAASC\n-----END KEY-----\n"
    local many = masker_of(key)
    assert.equal("***\n", many:text(key))
    assert.equal("***\r\n", many:text((key:gsub("\n", "\r\n"))))
    assert.equal("***", many:text((key:gsub("\n$", ""):gsub("\n", " "))))
    assert.equal("***", many:text((key:gsub("\n$", ""):gsub("\n", "\\n"))))
    assert.equal("+ ***\n+ ***\n", many:text "+ MIIEvQIBADANBg\n+ kqhkiG9w0BAQEF\n")
    assert.equal("AASC\n-----END KEY-----", many:text "AASC\n-----END KEY-----")
    local shown = many:text(text.base64((key:gsub("\n", "\r\n"))))
    assert.matches("^%*%*%*", shown)
    assert.is_true(#shown < 12)
  end)

  it("in wrapped base64 are hidden line by line", function()
    local key = word(200, "abcdefghijklmnopqrstuvwxyz")
    local wrapped = text.base64(key):gsub(("."):rep(76), "%0\n")
    assert.not_matches("%w%w%w%w%w%w%w%w", masker_of(key):text(wrapped))
  end)
end)

describe("a secret", function()
  it("does not show itself", function()
    local secret = core.value "top-secret"
    assert.equal("***", tostring(secret))
    assert.equal("top-secret", secret:reveal())
    assert.equal(10, #secret)
    assert.is_false(getmetatable(secret))
    assert.is_true(core.is_secret(secret))
    assert.is_false(core.is_secret "top-secret")
    assert.equal(secret, core.value(secret))
    assert.equal(secret, core.value "top-secret")
    assert.not_equal(secret, core.value "top-secreT")
    assert.has_error(function() return secret .. "x" end)
    assert.has_error(function() return encode { secret } end)
    assert.equal("***", masker_of(secret):text "top-secret")
  end)
end)
