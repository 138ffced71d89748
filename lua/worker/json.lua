-- json.lua: JSON, strictly by RFC 8259, without surprises.
--
--   null            absent (nil) as a field and as the whole text, so that `if reply.job_id then`
--                   is right; json.null inside a list, where leaving it out would move the others
--   integers        stay integers, all 64 bits; a larger one is an object that holds its digits and
--                   is written as it came (tostring gives the digits)
--   lists           are marked, so that an empty one is written as [] again; a table of your own
--                   is a list when it has items, else an object; json.array{} says "list"
--   text            must be UTF-8: broken bytes are refused when reading, repaired when writing
--   the same value  always gives the same text: keys are sorted
--
-- The work is done in C; this file is the door's sign.
local core = require "worker.core.json"
local encode = require "worker.core.json_encode"

local json = {}

--- `json.decode(text, options)`: the value. Raises an error of kind "wire" with `line`, `column` and
-- `byte` when the text is not JSON. Options: `depth` (128), `max_bytes` (16 MiB), `no_nul` (refuse
-- \u0000), `null` (a value that stands for null everywhere, fields too, as json.null).
json.decode = core.decode

--- `json.encode(value, options)`: the text. What has no JSON form (a function, a number that is not
-- finite, a list with holes, a table inside itself) raises an error that names its path. Options:
-- `pretty` (two spaces), `sorted` (true), `strict` (refuse broken UTF-8 instead of repairing it),
-- `depth` (128), `max_bytes` (64 MiB; more raises kind "limit").
json.encode = encode

--- `json.null`: null inside a list, and for a field that must be written as null. The same value as
-- cjson.null.
json.null = core.null

--- `json.array(list)`: mark a table as a list, so that an empty one is written as []. Gives the table.
json.array = core.array

--- `json.object(table)`: mark a table as an object; its keys must be strings. Gives the table.
json.object = core.object

--- `json.is_array(value)`: whether it is marked as a list; decoded lists are.
json.is_array = core.is_array

--- `json.is_special(value)`: whether it is one of the values this module made: json.null, a marked
-- table, json.raw, json.number.
json.is_special = core.is_special

--- `json.raw(text, options)`: text that is JSON already; it is checked now and written byte for byte
-- by json.encode. Options as for json.valid. tostring gives the text.
json.raw = core.raw

--- `json.number(text)`: a number as its digits, for what 64 bits or a double cannot hold.
json.number = core.number

--- `json.valid(text, options)`: true; or false and what is wrong where. Options: `depth`,
-- `max_bytes`, `no_nul`.
json.valid = core.valid

--- `json.scan(text, at, options)`: where the value begins and ends that comes next from `at` (1) on,
-- for texts with several values in a row. Nothing when only space follows; nil, a message and
-- whether the text only ends too early, when there is no whole value.
json.scan = core.scan

--- `json.values(text, options)`: iterates over the values of a text that has several in a row (one
-- a line, or just one behind the other); a null among them is json.null. Raises like json.decode.
function json.values(text, options)
  local at = 1
  return function()
    local from, to = core.scan(text, at, options)
    if not from then
      -- Decoding the rest raises with the same words as always; only space is the end.
      return text:find("%S", at) and core.decode(text:sub(at), options) or nil
    end
    at = to + 1
    local value = core.decode(text:sub(from, to), options)
    if value == nil then return json.null end -- nil would end the loop
    return value
  end
end

--- `json.last_object_line(text, options)`: the last line of a text that is a JSON object, exactly as
-- it was written (without the blanks around it), or nil: how a script hands its result to us.
json.last_object_line = core.last_object_line

return json
