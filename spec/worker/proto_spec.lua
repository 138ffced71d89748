-- .proto files as tables: what is read, what is refused and where, and that protoc thinks the same.
local err = require "worker.error"
local process = require "worker.process"
local proto = require "worker.proto"
local protobuf = require "worker.protobuf"
local scratch = require "spec.support.scratch"
local sys = require "worker.core.sys"

local HEAD = 'syntax = "proto3";\n'

-- The table of some files; the last one is asked for, or the one called main.proto.
local function load_all(files, options)
  local dir <close> = scratch.dir()
  for name, source in pairs(files) do dir:write(name, source) end
  local given = { include = {} }
  for i, name in ipairs(options and options.include or {}) do given.include[i] = dir:path(name) end
  return proto.load({ dir:path(options and options.main or "main.proto") }, given)
end

local function load(source) return load_all { ["main.proto"] = HEAD .. source } end

local function refuses(where, why, source)
  local dir <close> = scratch.dir()
  local path = dir:write("main.proto", source)
  local ok, wrong = pcall(proto.load, { path })
  assert.is_false(ok, source)
  assert.is_true(err.is(wrong, "config"), tostring(wrong))
  assert.equal(("%s:%s: %s"):format(path, where, why), wrong.message)
end

describe("worker.proto reads", function()
  it("messages, enums, maps, oneofs, options, comments", function()
    assert.same({
      enums = { ["a.b.E"] = { ZERO = 0, ONE = 1, UN = 1, LESS = -5 } },
      messages = { ["a.b.M"] = {
        id = { 1, "string" }, es = { 2, "a.b.E", repeated = true }, m = { 3, "a.b.M", key = "int64" },
        s = { 4, "string", oneof = "what" }, b = { 5, "bytes", oneof = "what" }, maybe = { 6, "sint32", optional = true },
        loose = { 7, "double", repeated = true, packed = false }, tight = { 8, "double", repeated = true },
      } },
      services = {},
    }, load [[
      package a.b;  // to the end of the line
      option java_package = "x" 'y';
      option (my.option) = { a: 1 b { c: "}" } list: [1, 2] };
      /* over
         lines */
      enum E { option allow_alias = true; ZERO = 0; ONE = 1 [deprecated = true]; UN = 1; LESS = -5; reserved 7 to max; }
      message M {
        reserved 20, 30 to 35, 1000 to max; reserved "gone", 'away';
        string id = 1;; repeated E es = 2; map<int64, M> m = 3;
        oneof what { option (x) = -1.5e3; string s = 4; bytes b = 0x5; }
        optional sint32 maybe = 6 [json_name = "a\x41\101\n", (q.r).s = true];
        repeated double loose = 7 [packed = false]; repeated double tight = 8 [packed=true];
        extend google.protobuf.FieldOptions { string note = 50001; }
      }]])
  end)

  it("types from the inside out, as far as their first part says", function()
    local messages = load([[
      package a.b;
      message T {}
      message M {
        message T { message U {} }
        T one = 1; T.U two = 2; b.T three = 3; .a.b.T four = 4; a.b.M.T five = 5; M.T.U six = 6;
      }]]).messages["a.b.M"]
    local types = {}
    for _, field in pairs(messages) do types[field[1]] = field[2] end
    assert.same({ "a.b.M.T", "a.b.M.T.U", "a.b.T", "a.b.T", "a.b.M.T", "a.b.M.T.U" }, types)
  end)

  it("words of the language as names of fields and types", function()
    local messages = load([[
      message message { string message = 1; string string = 2; }
      message Odd { .message reserved = 1; map map = 2; string option = 3; string end = 4; repeated message to = 5; }
      message map {}
      message stream {} service service { rpc rpc (stream stream) returns (stream); }]])
    assert.equal("map", messages.messages.Odd.map[2])
    assert.same({ "stream", "stream", client_streams = true }, messages.services.service.rpc)
  end)

  it("services, with who streams", function()
    assert.same({ ["p.S"] = { A = { "p.M", "p.M" }, B = { "p.M", "p.M", client_streams = true },
      C = { "p.M", "p.M", server_streams = true } } }, load([[ package p; message M {}
        service S { option deprecated = true; rpc A (M) returns (M); rpc B (stream M) returns (.p.M) {}
          rpc C (p.M) returns (stream M) { option idempotency_level = NO_SIDE_EFFECTS; }; }]]).services)
  end)

  it("imports beside it, above it, in folders that are named, and those that everybody has", function()
    local got = load_all({
      ["agent/v1/main.proto"] = HEAD .. [[ package agent.v1; import "common/v1/status.proto"; import public "beside.proto";
        import "google/protobuf/timestamp.proto"; import "lib/far.proto"; import "google/protobuf/descriptor.proto";
        message M { common.v1.Status s = 1; google.protobuf.Timestamp t = 2; Beside b = 3; Far f = 4; }]],
      ["agent/v1/beside.proto"] = HEAD .. 'package agent.v1; import "agent/v1/main.proto"; message Beside { M m = 1; }',
      ["common/v1/status.proto"] = HEAD .. "package common.v1; enum Status { UNKNOWN = 0; } message Unused {}",
      ["inc/lib/far.proto"] = HEAD .. "message Far {}",
    }, { main = "agent/v1/main.proto", include = { "inc" } })
    local names = {}
    for name in pairs(got.messages) do names[#names + 1] = name end
    table.sort(names)
    assert.same({ "Far", "agent.v1.Beside", "agent.v1.M", "google.protobuf.Timestamp" }, names)
    assert.same({ ["common.v1.Status"] = { UNKNOWN = 0 } }, got.enums)
  end)

  it("a file that begins with a byte order mark", function()
    assert.is_table(load_all({ ["main.proto"] = "\xef\xbb\xbf" .. HEAD .. "message M {}" }).messages.M)
  end)
end)

-- What is wrong, where, and the words for it.
local MISTAKES = {
  { "2:13", "there is no type 'strin', did you mean string?", "message M { strin a = 1; }" },
  { "2:13", "there is no type 'p.X'", "message M { p.X a = 1; }" },
  { "2:24", "a field's number is from 1 to 536870911", "message M { string a = 0; }" },
  { "2:24", "a field's number is from 1 to 536870911", "message M { string a = 536870912; }" },
  { "2:24", "the numbers 19000 to 19999 belong to protobuf itself", "message M { string a = 19500; }" },
  { "2:38", "the number 1 belongs to 'a' already", "message M { string a = 1; string b = 1; }" },
  { "2:34", "there is a field 'a' already", "message M { string a = 1; string a = 2; }" },
  { "2:20", "the number 7 is reserved", "message M { string a = 7; reserved 5 to 9; }" },
  { "2:20", "the name 'a' is reserved", 'message M { string a = 7; reserved "a"; }' },
  { "2:24", "this range ends before it begins", "message M { reserved 9 to 5; }" },
  { "2:13", "proto3 has no required fields", "message M { required string a = 1; }" },
  { "2:22", "proto3 has no groups: use a message", "message M { optional group A = 1 {} }" },
  { "2:24", "proto3 has no extensions", "message M { extensions 100 to 199; }" },
  { "2:17", "'double' cannot be the key of a map: expected a whole number, bool or string",
    "message M { map<double, string> a = 1; }" },
  { "2:23", "a field of a oneof cannot be repeated", "message M { oneof o { repeated string a = 1; } }" },
  { "2:19", "a oneof needs a field", "message M { oneof o { } }" },
  { "2:14", "the first value of an enum must be 0: it is what a missing field means", "enum E { A = 1; }" },
  { "2:21", "'A' is 0, too; say `option allow_alias = true;` if that is meant", "enum E { A = 0; B = 0; }" },
  { "2:17", "there is a value 'A' already", "enum E { A = 0; A = 1; }" },
  { "2:6", "an enum needs a value", "enum E {}" },
  { "2:21", "a value of an enum has 32 bits", "enum E { A = 0; B = 2147483648; }" },
  { "3:9", "'M' is defined already", "message M {}\nmessage M {}" },
  { "2:38", "'E' is no message", "enum E { A = 0; } service S { rpc R (E) returns (E); }" },
  { "2:51", "there is a method 'R' already", "message M {} service S { rpc R(M) returns(M); rpc R(M) returns(M); }" },
  { "2:8", "there is no file 'gone.proto'; where it is can be said with --include", 'import "gone.proto";' },
  { "2:21", "expected ';', got '}'", "message M { M a = 1 }" },
  { "2:14", "expected the name of the field, got '='", "message M {M = 1;}" },
  { "3:1", "expected the type of the field, got the end of the file", "message M {\n" },
  { "2:1", "expected message, enum, service, import, package or option, got 'struct'", "struct M {}" },
  { "2:20", "there is a package already", "package a; package b;" },
  { "2:13", "this comment does not end", "message M { /* }" },
  { "2:8", "this text does not end on its line", 'import "a\n";' },
  { "2:22", "there is no such escape", [[option a = "abcdefgh\q";]] },
  { "2:24", "this is no number", "message M { string a = 1x; }" },
  { "2:9", "this character means nothing here", "message ~ {}" },
}

describe("worker.proto refuses", function()
  for _, case in ipairs(MISTAKES) do
    it(case[2], function() refuses(case[1], case[2], HEAD .. case[3]) end)
  end

  it("what is not proto3", function()
    refuses("1:1", 'a file without syntax is proto2: expected `syntax = "proto3";`', "message M {}")
    refuses("1:10", 'only "proto3" is read, not "proto2"', 'syntax = "proto2";')
    refuses("1:1", 'editions are not read: expected `syntax = "proto3";`', 'edition = "2023";')
  end)

  it("files without an end to what is in what", function()
    local ok, why = pcall(load, ("message M {"):rep(60))
    assert.matches("messages in messages, deeper than 50", ok or why.message)
    ok, why = pcall(load, "option a = " .. ("{ a "):rep(60))
    assert.matches("deeper than 50", ok or why.message)
  end)

  it("whatever it is given, without a bug", function()
    local words = { "message", "M", "{", "}", "enum", "E", "=", "1", "0", ";", "string", "repeated", "map", "<", ">", ",",
      "oneof", '"x"', "(", ")", "[", "]", "service", "rpc", "returns", "stream", "option", ".", "reserved", "to", "max",
      "-", "/*", "'", "\\" }
    local dir <close> = scratch.dir()
    for _ = 1, 1500 do
      local parts = { HEAD }
      for i = 2, math.random(2, 30) do parts[i] = words[math.random(#words)] end
      local path = dir:write("main.proto", table.concat(parts, " "))
      local ok, why = pcall(proto.load, { path })
      assert.is_true(ok or err.is(why, "config"), tostring(why))
    end
  end)
end)

describe("worker.proto prints", function()
  it("a module that gives the same table again, the same text for the same table", function()
    local given = load [[ package a; enum E { Z = 0; A_LONG_NAME_OF_A_VALUE = 1; ANOTHER_LONG_NAME_OF_A_VALUE = 2;
      A_THIRD_LONG_NAME_OF_A_VALUE = 3; A_FOURTH_LONG_NAME_OF_A_VALUE = 4; A_FIFTH_LONG_NAME = 5; }
      message M { E end = 1; map<bool, M> m = 2; oneof o { string s = 3; } repeated E es = 4 [packed = false]; }
      message Nothing {} service S { rpc R (stream M) returns (stream Nothing); }]]
    local text = proto.print(given, "A title")
    assert.same(given, assert(_G.load(text, "=printed", "t", {}))())
    assert.equal(text, proto.print(given, "A title"))
    for line in text:gmatch("[^\n]+") do assert.is_true(#line <= 120, line) end
    assert.is_table(protobuf.load(given))
  end)
end)

-- The reference: protoc reads the same files, and its messages are ours, byte for byte.
describe("protoc #realtime", function()
  local function protoc(dir, words, stdin)
    local argv = { "protoc", "-I", dir.root, table.unpack(words) }
    argv[#argv + 1] = "main.proto"
    return process.run { argv = argv, cwd = dir.root, stdin = stdin or "", env = { PATH = sys.env "PATH" } }
  end

  it("refuses what we refuse", function()
    local dir <close> = scratch.dir()
    for _, case in ipairs(MISTAKES) do
      dir:write("main.proto", HEAD .. case[3])
      -- the one thing it lets pass
      local passes = case[2]:find "^this range" ~= nil
      assert.equal(passes, protoc(dir, { "-o", "/dev/null" }).exit_code == 0, case[3])
    end
  end)

  local SOURCE = HEAD .. [[
    package t;
    enum E { A = 0; B = 1; C = -7; }
    message M {
      int32 i32 = 1; int64 i64 = 2; uint32 u32 = 3; sint32 s32 = 5; sint64 s64 = 6; fixed32 f32 = 7;
      sfixed32 sf32 = 9; sfixed64 sf64 = 10; double real = 11; float half = 12; bool flag = 13; string name = 14;
      bytes data = 15; E e = 16; repeated int32 packed = 17; repeated int32 loose = 18 [packed = false];
      repeated string names = 19; M inner = 20; repeated M list = 21; map<string, int64> counts = 22;
      map<int32, M> by_id = 23; oneof what { string text = 24; M message = 25; E kind = 26; } optional int32 maybe = 27;
      repeated E es = 28; repeated double reals = 29;
    }]]

  local function random_text()
    local list = { "", "a", "zażółć", "日本語", "line\nline", "\u{10FFFF}", "quote\"s'" }
    return list[math.random(#list)]
  end

  local function numbers(fn)
    local list = {}
    for i = 1, math.random(0, 4) do list[i] = fn() end
    return list
  end

  local random_message

  local function int32() return math.random(-2147483648, 2147483647) end
  local function int64() return math.random(0) end
  local function enum() return ({ "A", "B", "C" })[math.random(3)] end

  local MAKERS = {
    i32 = int32, s32 = int32, sf32 = int32, maybe = int32, i64 = int64, s64 = int64, sf64 = int64,
    u32 = function() return math.random(0, 4294967295) end, f32 = function() return math.random(0, 4294967295) end,
    real = function() return math.random() * 1e10 end, half = function() return math.random(0, 1000) / 8 end,
    flag = function() return math.random(2) == 1 end, name = random_text, data = function() return "\0\xff" .. random_text() end,
    e = enum, packed = function() return numbers(int32) end, loose = function() return numbers(int32) end,
    names = function() return numbers(random_text) end, es = function() return numbers(enum) end,
    reals = function() return numbers(math.random) end,
    counts = function() return { [random_text()] = int64() } end,
    by_id = function(depth) return { [int32()] = random_message(depth + 1) } end,
    inner = function(depth) return random_message(depth + 1) end,
    list = function(depth) return numbers(function() return random_message(depth + 1) end) end,
  }

  function random_message(depth)
    local message = {}
    for name, make in pairs(MAKERS) do
      if math.random() < (depth > 2 and 0 or 0.5) or depth > 2 and name == "i32" then message[name] = make(depth) end
    end
    local choice = math.random(4)
    if choice == 1 then message.text = random_text() elseif choice == 2 then message.kind = enum() end
    if choice == 3 and depth < 3 then message.message = random_message(depth + 1) end
    return message
  end

  it("makes the same bytes of the same message, there and back", function()
    local dir <close> = scratch.dir()
    local path = dir:write("main.proto", SOURCE)
    local codec = protobuf.load(proto.load { path }):message "t.M"
    for _ = 1, 25 do
      local bytes = codec.encode(random_message(1))
      local as_text = protoc(dir, { "--decode=t.M" }, bytes)
      assert.equal(0, as_text.exit_code, as_text.stderr)
      local theirs = protoc(dir, { "--encode=t.M", "--deterministic_output" }, as_text.stdout)
      assert.equal(bytes, theirs.stdout)
      assert.equal(bytes, codec.encode(codec.decode(theirs.stdout)))
    end
  end)
end)
