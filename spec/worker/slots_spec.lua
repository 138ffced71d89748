local slots = require "worker.slots"

local function servers(...)
  local list = {}
  for i, count in ipairs { ... } do list[i] = { slots = count } end
  return list
end

local function granted(list, limit)
  local given, counts = slots.grant(list, limit), {}
  for i, server in ipairs(list) do counts[i] = given[server] end
  return counts
end

describe("the slots that are granted", function()
  it("are those that are asked for where there are open files for all of them", function()
    assert.same({ 8, 300 }, granted(servers(8, 300), 20000))
    assert.same({ 80 }, granted(servers(80), 1024))
    assert.same({ 10000 }, granted(servers(10000), math.huge))
  end)

  it("are fewer in proportion where there are not", function()
    assert.same({ 80 }, granted(servers(300), 1024))
    assert.same({ 20, 60 }, granted(servers(100, 300), 1024))
  end)

  it("are never less than one for a server", function()
    assert.same({ 1, 1 }, granted(servers(8, 8), 64))
    assert.same({ 1, 79 }, granted(servers(1, 300), 1024))
  end)

  it("are none where no worker could work", function()
    assert.matches("this worker may have 40 open files and needs 64 at least", slots.refusal(40))
    assert.is_nil(slots.refusal(64))
  end)
end)
