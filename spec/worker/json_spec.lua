local json = require "worker.json"

describe("worker.json", function()
  it("reads and writes without surprises (the example of the reference)", function()
    local reply = json.decode '{"job_id":null,"id":9007199254740993,"tags":[],"list":[1,null]}'
    assert.is_nil(reply.job_id)                                  -- null is absent
    assert.equal(9007199254740993, reply.id)                     -- an integer, to its last digit
    assert.equal(json.null, reply.list[2])                       -- but a list keeps its places
    assert.equal('{"id":9007199254740993,"list":[1,null],"tags":[]}', json.encode(reply))

    local output = json.raw '{"z":1.0, "a":[]}'                  -- checked now, spliced as it is
    assert.equal('{"output":{"z":1.0, "a":[]},"state":"success"}', json.encode { state = "success", output = output })
    assert.equal('{"env":{},"tags":[]}', json.encode { tags = json.array {}, env = {} })
  end)

  it("raises an error of kind wire that says where", function()
    local ok, err = pcall(json.decode, '{"a":}')
    assert.is_false(ok)
    assert.equal("wire", err.kind)
    assert.equal(6, err.column)
    assert.equal(err.message, tostring(err))
    assert.same({ false, err.message }, { json.valid '{"a":}' })
  end)

  it("goes through several values in a row", function()
    local found = {}
    for value in json.values '{"n":1}\n{"n":2}{"n":3}  null 4' do found[#found + 1] = value end
    assert.same({ { n = 1 }, { n = 2 }, { n = 3 }, json.null, 4 }, found)
    local ok, err = pcall(function() for _ in json.values '1 {"n"' do end end)
    assert.is_false(ok)
    assert.equal("wire", err.kind)
    for _ in json.values " \n" do error "there is none" end
  end)

  it("knows its own marks", function()
    assert.is_true(json.is_array(json.decode "[]"))
    assert.is_false(json.is_array(json.decode "{}"))
    assert.is_false(json.is_array "[]")
    for _, value in ipairs { json.null, json.array {}, json.object {}, json.raw "1", json.number "1" } do
      assert.is_true(json.is_special(value))
    end
    for _, value in ipairs { {}, "x", 1, io.stdout } do assert.is_false(json.is_special(value)) end
    assert.equal('{"n":{}}', json.encode { n = json.object() })
  end)

  it("hands on what a script wrote as its last line", function()
    assert.equal('{"version": "1.0"}', json.last_object_line 'ok\n{"version": "1.0"}\n')
  end)
end)
