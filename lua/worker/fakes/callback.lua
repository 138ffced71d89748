-- An address that takes callbacks, as whoever started the machine of a task has one.
--
--   local fake <close> = callback.serve { cancel = true }
--   fake.events                       what came, decoded, in order
--
-- What every fake can do is told in worker.fakes.stage.
local err = require "worker.error"
local json = require "worker.json"
local stage = require "worker.fakes.stage"

local KNOBS = {
  status = { "integer", default = 200, min = 200, max = 599, doc = "What every event is answered with." },
  cancel = { "boolean", default = false, doc = "Whether the answers say that the task is to be ended." },
}

local function take(self, request)
  local ok, event = pcall(json.decode, request:read_body())
  if not ok or type(event) ~= "table" then stage.failed(400, "an event is a JSON object") end
  self.events[#self.events + 1] = event
  self.tell("fake.event", ("%s: %s"):format(request.target, json.encode(event)))
  return self.knobs.status, stage.JSON, json.encode { cancel = self.knobs.cancel }
end

return stage.play {
  name = "callback", summary = "an address for the events of tasks", port = 9000, knobs = KNOBS,
  open = function(self) self.events = {} end,
  methods = { add = function()
    err.raise("config", "callback has no jobs to hand out: a worker is given its task when it is started")
  end },
  routes = { ["POST /{path...}"] = take },
  forgets = "callback keeps nothing: it only takes what comes",
  hint = function(self)
    return ("TASK_ID=7 PROJECT_ID=demo CALLBACK_URL=%s/hook worker callback -- echo hello"):format(self.url)
  end,
}
