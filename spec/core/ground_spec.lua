-- The floors below Lua, checked by the small C program of ground.c beside the binary under test.
describe("the ground floors", function()
  local binary = (os.getenv("WORKER_BIN") or "build/worker"):gsub("worker$", "ground")
  local pipe = io.popen(binary .. " 2>&1")
  local output = pipe:read("a")
  pipe:close()
  local said = {}
  for verdict, sentence in output:gmatch("(n?o?t? ?ok) ([^\n]+)") do
    if not said[sentence] then
      said[sentence] = true
      it(sentence, function() assert.equal("ok", verdict) end)
    end
  end

  it("were all checked", function() assert.is_true(output:find("no wake%-ups") ~= nil, output) end)
end)
