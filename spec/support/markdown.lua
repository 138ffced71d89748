-- markdown.lua: what the documents say, for the specs that hold them to it.
--
--   local doc = markdown.read "README.md"
--   doc.blocks      { { lang =, text =, line =, section = }, ... } all fenced blocks
--   doc.links       { { target =, line = }, ... } what is linked within the project
--   doc.text
local fs = require "worker.fs"

local markdown = {}

function markdown.read(path)
  local doc = { path = path, text = assert(fs.read(path), path), blocks = {}, links = {} }
  local number, block, section = 0, nil, nil
  for line in (doc.text .. "\n"):gmatch("([^\n]*)\n") do
    number = number + 1
    local fence = line:match("^```(%w*)")
    if fence and block then
      doc.blocks[#doc.blocks + 1] = block
      block = nil
    elseif fence then
      block = { lang = fence, text = "", line = number, section = section }
    elseif block then
      block.text = block.text .. line .. "\n"
    else
      section = line:match("^## (.*)") or section
      for target in line:gmatch("%]%(([^)#:]+)%)") do
        doc.links[#doc.links + 1] = { target = target, line = number }
      end
    end
  end
  return doc
end

return markdown
