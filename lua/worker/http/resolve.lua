-- http/resolve.lua: where a reference in an answer leads (RFC 3986, 5.2).
--
--   resolve("http://h/a/b?x", "../c") -> "http://h/c"
--
-- Leads it anywhere but to http or https, or to no host, the answer is nil.

-- What servers forget to escape; what is escaped already stays as it is.
local function escaped(text)
  return (text:gsub("[^\x21-\x7e]", function(char) return ("%%%02X"):format(char:byte()) end))
end

-- "." and ".." do not climb above the root; one at the end leaves a slash.
local function without_dots(path)
  local out, last = {}, nil
  for segment in path:gmatch("/([^/]*)") do
    last = segment
    if segment == ".." then
      table.remove(out)
    elseif segment ~= "." then
      out[#out + 1] = segment
    end
  end
  if last == "." or last == ".." then out[#out + 1] = "" end
  return "/" .. table.concat(out, "/")
end

local function below(base_path, base_query, reference)
  local path, query = reference:match("^([^?]*)(.*)$")
  if path == "" then
    return base_path .. (query ~= "" and query or base_query)
  elseif not path:find("^/") then
    path = base_path:match("^.*/") .. path
  end
  return without_dots(path) .. query
end

return function(base, reference)
  local scheme, authority, path, query = base:match("^(%a+:)//([^/?#]+)([^?#]*)(%??[^#]*)")
  reference = escaped(reference:gsub("#.*", ""))
  if reference:find("^%a[%w+.-]*:") then
    return reference:find("^[hH][tT][tT][pP][sS]?://[^/?]") and reference or nil
  elseif reference:find("^//") then
    return reference:find("^//[^/?]") and scheme .. reference or nil
  end
  return ("%s//%s%s"):format(scheme, authority, below(path == "" and "/" or path, query, reference))
end
