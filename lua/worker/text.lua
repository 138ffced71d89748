-- text.lua: text and bytes.
--
-- Jobs print anything: broken UTF-8, half characters at the end of a chunk, NUL bytes, colours,
-- progress bars, lines without end.  Servers take little of that.  What is here makes one out of the
-- other, at bounded memory; where a text comes in chunks there is an object with
-- `feed(chunk) -> text` and `finish() -> text`, which never cuts what belongs together.
local core = require "worker.core.text"
local flow = require "worker.core.flow"

local text = {}

local LINE_MOST = 64 * 1024

-- ---- UTF-8 ----

--- `text.valid(s)`: true; or false and the place of the first byte that is not UTF-8.
text.valid = core.valid

--- `text.repair(s)`: the text with broken bytes replaced by U+FFFD; a valid text is given back as it
-- is.
text.repair = core.repair

--- `text.repairer()`: the same for a stream: a character that a chunk cuts in two is put together.
text.repairer = flow.mender

--- `text.has_nul(s)`: whether there is a NUL byte in it (no argument of a program can hold one).
text.has_nul = core.has_nul

--- `text.cut(s, bytes, side)`: at most so many bytes of its "head" (the default) or "tail", never
-- ending or beginning inside a character.
text.cut = core.cut

--- `text.sample(s, bytes)`: a short piece (120 bytes) for a message: one line, printable, with "..."
-- where something is missing.
function text.sample(s, bytes)
  bytes = bytes or 120
  local names = { ["\n"] = "\\n", ["\r"] = "\\r", ["\t"] = "\\t" }
  local shown = core.cut(s, bytes)
  local short = #shown < #s
  -- Each broken byte is shown by itself: in a sample one wants to see what came.
  local ok, bad = core.valid(shown)
  while not ok do
    shown = ("%s\\x%02x%s"):format(shown:sub(1, bad - 1), shown:byte(bad), shown:sub(bad + 1))
    ok, bad = core.valid(shown)
  end
  shown = shown:gsub("%c", function(c) return names[c] or ("\\x%02x"):format(c:byte()) end)
  return short and shown .. "..." or shown
end

-- ---- logs ----

--- `text.strip_ansi(s)`: without terminal escapes: colours, cursor movements, titles.
text.strip_ansi = core.plain

--- `text.ansi_stripper()`: the same for a stream.
text.ansi_stripper = flow.stripper

--- `text.folder(most)`: for a stream whose lines overwrite themselves with carriage returns (progress
-- bars): of each line the last state; CR LF becomes LF. At most `most` bytes (64 KiB) of a line are
-- held back.
function text.folder(most)
  return flow.folder(most or LINE_MOST)
end

--- `text.fold(s)`: the same for a whole text.
function text.fold(s)
  local folder <close> = text.folder(math.max(#s, 1))
  return folder:feed(s) .. folder:finish()
end

--- `text.lines(most)`: a stream as lines: `feed(chunk) -> lines, cut`, `finish() -> lines, cut`. Lines
-- come without their end (LF or CR LF). A line longer than `most` bytes (64 KiB) comes in pieces:
-- `cut` is then a set of the places in `lines` whose line goes on in the next one; else it is nil.
function text.lines(most)
  return flow.lines(most or LINE_MOST)
end

--- `text.head_tail(head, tail)`: keeps the first and the last bytes of a stream (32 KiB each):
-- `add(chunk)`, `text()` with a line in the middle that counts what was dropped, `dropped() -> bytes,
-- lines`, `bytes()` of the whole stream.
function text.head_tail(head, tail)
  return flow.head_tail(head or LINE_MOST // 2, tail or LINE_MOST // 2)
end

-- ---- on a terminal ----

--- `text.width(s)`: how many columns it takes (wide characters two, combining ones none).
text.width = core.width

--- `text.fit(s, columns)`: the text if it fits, else its beginning with "…" behind it.
function text.fit(s, columns)
  if #s <= columns or core.width(s) <= columns then return s end
  return columns < 1 and "" or core.fit(s, columns - 1) .. "…"
end

--- `text.pad(s, columns, side)`: with blanks behind it, or in front of it for side "right".
function text.pad(s, columns, side)
  local blanks = (" "):rep(columns - core.width(s))
  return side == "right" and blanks .. s or s .. blanks
end

local function column_widths(rows, most)
  local widths = {}
  for _, row in ipairs(rows) do
    for i, cell in ipairs(row) do
      local width = core.width(tostring(cell))
      widths[i] = math.max(widths[i] or 0, most and math.min(width, most) or width)
    end
  end
  return widths
end

--- `text.table(rows, options)`: lines with the cells of a list of rows below each other. Options:
-- `gap` (two blanks), `right` (a set of columns to be set to the right), `most` (columns a cell may
-- take; longer ones are cut).
function text.table(rows, options)
  options = options or {}
  local widths = column_widths(rows, options.most)
  local right, lines = options.right or {}, {}
  for i, row in ipairs(rows) do
    local cells = {}
    for j, cell in ipairs(row) do
      local shown = text.fit(tostring(cell), widths[j])
      cells[j] = text.pad(shown, widths[j], right[j] and "right")
    end
    lines[i] = table.concat(cells, options.gap or "  "):gsub("%s+$", "")
  end
  return table.concat(lines, "\n") .. (#lines > 0 and "\n" or "")
end

-- ---- words ----

--- `text.nearest(word, words)`: which of a list of words was probably meant, or nil; of two that are equally
-- near the first by name, whatever order they come in.
function text.nearest(word, words)
  local best, distance
  for _, candidate in ipairs(words) do
    local far = core.distance(word, candidate)
    -- "proto" for "protocol" is far in letters and near in mind.
    if #word >= 3 and candidate:sub(1, #word):lower() == word:lower() then far = math.min(far, 1) end
    if not distance or far < distance or far == distance and candidate < best then best, distance = candidate, far end
  end
  local allowed = math.max(1, #word // 3)
  return distance and distance <= allowed and distance < #word and best or nil
end

-- ---- bytes as text ----

--- `text.percent_encode(s, keep)`: everything but letters, digits and "-._~" becomes %XX, except the
-- characters of the string `keep`.
function text.percent_encode(s, keep)
  return core.percent(s, keep)
end

--- `text.percent_decode(s, plus)`: the other way, or nil when a "%" is not followed by two hex digits;
-- with `plus` a "+" is a blank (forms).
text.percent_decode = core.unpercent

--- `text.base64(s, url)`: with padding; with `url` the alphabet for URLs, without padding.
text.base64 = core.base64

--- `text.unbase64(s)`: either alphabet, padded or not; nil when it is not base64.
text.unbase64 = core.unbase64

--- `text.hex(s)`: two hex digits a byte.
text.hex = core.hex

--- `text.unhex(s)`: the other way; nil when it is not hex.
text.unhex = core.unhex

-- ---- digests, names ----

--- `text.sha256(s)`: the digest as 64 hex digits.
function text.sha256(s)
  return core.hex(core.sha256(s))
end

--- `text.sha256_stream()`: `feed(chunk)`, and `finish()` for the digest (32 bytes; see text.hex).
text.sha256_stream = flow.sha256

--- `text.hmac_sha256(key, s)`: the keyed digest as 32 bytes (see text.hex, text.base64).
text.hmac_sha256 = core.hmac_sha256

--- `text.random_id(n)`: n (26) random characters, five bits each, of digits and small letters without
-- i l o u: a name that nobody guesses.
text.random_id = core.random_id

return text
