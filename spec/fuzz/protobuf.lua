-- protobuf.lua: bytes that may be a message.
--
-- Either they are refused as what cannot be read, or they are a message, and then writing and reading
-- it again gives the same.
local err = require "worker.error"
local fuzz = require "worker.core.fuzz"
local protobuf = require "worker.protobuf"
local task = require "worker.task"

local schema = protobuf.load {
  enums = { ["a.State"] = { IDLE = 0, BUSY = 1 } },
  messages = { ["a.All"] = {
    number = { 1, "int32" }, large = { 2, "int64" }, whole = { 3, "uint32" }, huge = { 4, "uint64" },
    turned = { 5, "sint32" }, turned_large = { 6, "sint64" }, fixed = { 7, "fixed32" }, fixed_large = { 8, "fixed64" },
    signed = { 9, "sfixed32" }, signed_large = { 10, "sfixed64" }, real = { 11, "float" }, exact = { 12, "double" },
    flag = { 13, "bool" }, text = { 14, "string" }, blob = { 15, "bytes" }, state = { 16, "a.State" },
    again = { 17, "a.All" }, list = { 18, "int32", repeated = true }, texts = { 19, "string", repeated = true },
    all = { 20, "a.All", repeated = true }, env = { 21, "string", key = "string" }, tree = { 22, "a.All", key = "int32" },
    one = { 23, "string", oneof = "what" }, other = { 24, "a.All", oneof = "what" }, maybe = { 25, "int32", optional = true },
    loose = { 26, "uint64", repeated = true, packed = false },
  } },
}
local all = schema:message "a.All"

while true do
  local ok, message = task.try(all.decode, fuzz.next())
  if ok then
    local bytes = all.encode(message)
    local again = all.encode(all.decode(bytes))
    -- a map has no order: what is written may be ordered differently, but not be longer
    assert(#again == #bytes, "read, written and read again it is another message")
  elseif not err.is(message, "wire") and not err.is(message, "limit") then
    error(message, 0)
  end
end
