-- proto/known.lua: the files that everybody may import without having them, as tables.

local known = {}

local function wrapper(type) return { value = { 1, type } } end

local P = "google.protobuf."

known["google/protobuf/timestamp.proto"] = { messages = {
  [P .. "Timestamp"] = { seconds = { 1, "int64" }, nanos = { 2, "int32" } },
} }

known["google/protobuf/duration.proto"] = { messages = {
  [P .. "Duration"] = { seconds = { 1, "int64" }, nanos = { 2, "int32" } },
} }

known["google/protobuf/empty.proto"] = { messages = { [P .. "Empty"] = {} } }

known["google/protobuf/any.proto"] = { messages = {
  [P .. "Any"] = { type_url = { 1, "string" }, value = { 2, "bytes" } },
} }

known["google/protobuf/field_mask.proto"] = { messages = {
  [P .. "FieldMask"] = { paths = { 1, "string", repeated = true } },
} }

known["google/protobuf/struct.proto"] = {
  enums = { [P .. "NullValue"] = { NULL_VALUE = 0 } },
  messages = {
    [P .. "Struct"] = { fields = { 1, P .. "Value", key = "string" } },
    [P .. "ListValue"] = { values = { 1, P .. "Value", repeated = true } },
    [P .. "Value"] = {
      null_value = { 1, P .. "NullValue", oneof = "kind" }, number_value = { 2, "double", oneof = "kind" },
      string_value = { 3, "string", oneof = "kind" }, bool_value = { 4, "bool", oneof = "kind" },
      struct_value = { 5, P .. "Struct", oneof = "kind" }, list_value = { 6, P .. "ListValue", oneof = "kind" },
    },
  },
}

known["google/protobuf/wrappers.proto"] = { messages = {
  [P .. "DoubleValue"] = wrapper "double", [P .. "FloatValue"] = wrapper "float", [P .. "Int64Value"] = wrapper "int64",
  [P .. "UInt64Value"] = wrapper "uint64", [P .. "Int32Value"] = wrapper "int32", [P .. "UInt32Value"] = wrapper "uint32",
  [P .. "BoolValue"] = wrapper "bool", [P .. "StringValue"] = wrapper "string", [P .. "BytesValue"] = wrapper "bytes",
} }

-- Imported by who declares options of their own, which have no meaning on the wire.
known["google/protobuf/descriptor.proto"] = {}

return known
