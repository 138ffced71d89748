-- worker proto: .proto files as a table for worker.protobuf.
local fs = require "worker.fs"
local proto = require "worker.proto"

local command = {
  summary = "turn .proto files into a table for an adapter",
  usage = "[--include DIR] FILE...",
  doc = "Prints a Lua module for worker.protobuf: the messages, enums and services of the files (proto3), and what "
    .. "they need of those they import. Imports are looked for in the folders of --include, beside the file, and "
    .. "above it; google/protobuf/*.proto need not be there.",
  words = { 1, math.huge, missing = "say which file: worker proto FILE.proto" },
  complete = "file",
  options = {
    include = { "list", short = "I", value = "DIR", doc = "A folder where imports are." },
  },
  examples = {
    { "worker proto acme.proto >plugins/protocols/acme/messages.lua", "then require \"acme.messages\" in the plugin" },
  },
}

function command.run(options, paths)
  local names = {}
  for i, path in ipairs(paths) do names[i] = fs.base(path) end
  local title = ("Made by `worker proto %s`: change that and make it again."):format(table.concat(names, " "))
  io.stdout:write(proto.print(proto.load(paths, { include = options.include }), title))
  return 0
end

return command
