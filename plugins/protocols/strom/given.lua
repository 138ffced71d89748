-- What a server said, if it is of the kind that is wanted.
local given = {}

--- `given.word(value)`: a text that is not empty, or nil.
function given.word(value) return type(value) == "string" and value ~= "" and value or nil end

--- `given.words(value)`: the texts of a list.
function given.words(value)
  local list = {}
  for _, item in ipairs(type(value) == "table" and value or {}) do
    if type(item) == "string" then list[#list + 1] = item end
  end
  return list
end

return given
