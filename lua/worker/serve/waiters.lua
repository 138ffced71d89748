-- serve/waiters.lua: the connections whose clients keep a server waiting: for a request, for the rest of one,
-- for somebody to read an answer.
--
-- When there is no room for a newcomer, the oldest of them has to go.  That its client drips, or is silent,
-- or asks without end and never reads, makes no difference: a newcomer always gets in, and has as much time
-- to say what it wants as it takes as many others as there is room for to come.
local waiters = {}

local methods = {}
local meta = { __index = methods }

--- `waiters.new()`.
function waiters.new()
  return setmetatable({ ages = {}, count = 0, waiting = {} }, meta)
end

--- `line:add(conn)`: from now on it keeps us waiting.  Its age is that of the first time.
function methods:add(conn)
  if not self.ages[conn] then
    self.count = self.count + 1
    self.ages[conn] = self.count
  end
  self.waiting[conn] = self.ages[conn]
end

--- `line:drop(conn)`: it no longer does.
function methods:drop(conn) self.waiting[conn] = nil end

--- `line:forget(conn)`: it is gone.
function methods:forget(conn) self.waiting[conn], self.ages[conn] = nil, nil end

--- `line:make_room()`: close the oldest; false when there is none.
function methods:make_room()
  local oldest, least = nil, math.huge
  for conn, age in pairs(self.waiting) do
    if age < least then oldest, least = conn, age end
  end
  if not oldest then return false end
  self:drop(oldest)
  oldest:close()
  return true
end

return waiters
