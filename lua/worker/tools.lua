-- tools.lua: programs for agents, each in a container of its own.
--
-- A tool is a plugin of kind "tool": data about its container, its arguments, and a function that
-- makes an argv of them.  A protocol makes jobs of tasks:
--
--   acme.config = tools.fields { url = ... }        -- where workspaces are, by session
--   function acme.claim(self) return tools.job(task, self.tools) end
--
-- and a program calls them:
--
--   local box <close> = tools.open { workspace = "/path/to/project" }
--   local text = box:file_read { path = "main.go" }
--
--   worker.tools.shelf   where tools are found       worker.tools.shape   what a tool says of itself
--   worker.tools.task    a task as a job             worker.tools.paths   staying in the workspace
--   worker.tools.box     tools from Lua
local box = require "worker.tools.box"
local engine = require "worker.engine"
local shape = require "worker.tools.shape"
local shelf = require "worker.tools.shelf"
local tasks = require "worker.tools.task"

local tools = {}

local SETTINGS = {
  workspaces = { "map", of = { "path" }, default = {}, example = { ["*"] = "/srv/projects/{session}" },
    doc = "Directories that tools work in: by session, by LABEL=VALUE of the task, or * for all others. "
      .. "{session} stands for the session's id." },
  user = { "string", default = "owner",
    doc = "Who tools run as: owner is who owns the workspace; or uid:gid." },
  network = { "string", default = "bridge", doc = "The engine's network for tools that need one." },
  search_url = { "string", example = "https://search.example/?q={query}",
    doc = "What web_search asks when a task brings words and no address." },
}

local function copy(value)
  if type(value) ~= "table" then return value end
  local fresh = {}
  for key, item in pairs(value) do fresh[key] = copy(item) end
  return fresh
end

--- `tools.fields(more)`: these fields of a protocol's configuration and `tools`, with what tools need to
-- know of this machine.
function tools.fields(more)
  local fields = copy(more or {})
  fields.tools = { "record", doc = "Where tools work, and as whom.", fields = copy(SETTINGS) }
  return fields
end

--- `tools.names()`: all tools that can be used, those of a team's own plugins included.
function tools.names()
  local names = {}
  for _, name in ipairs(shelf.names()) do
    if shelf.find(name) then names[#names + 1] = name end
  end
  return names
end

--- `tools.about(name)`: what a tool says of its container: image, cpus, memory, pids, timeout, ...; with
-- its `doc` and `group`.
function tools.about(name)
  local tool, about = shelf.get(name), {}
  for key, value in pairs(shape.read(tool)) do about[key] = copy(value) end
  about.name, about.doc = tool.name, tool.doc
  return about
end

--- `tools.route(kind, operation)`: the name of the tool for an operation of a task of this type; raises
-- kind "refused".
tools.route = tasks.route

--- `tools.job(task, conf)`: the job of a task.  The task: id, session_id, labels; type and operation (or
-- command, or parameters.operation), or `tool`; parameters (by name), arguments (a list), input_data,
-- environment, working_directory, timeout_ns, max_retries with retry_on_failure, constraints.  conf is
-- the record `tools` of tools.fields.  Raises kind "refused" with a `code` (INVALID_ARGUMENT,
-- UNIMPLEMENTED, PERMISSION, FAILED_PRECONDITION) when it cannot be.
tools.job = tasks.job

--- `tools.open{ workspace=, engine=, sandbox=, policy=, user=, network=, search_url=, output= }`: tools to call from
-- Lua: box:TOOL(parameters), box:execute(task), box:start(task), box:status(id), box:wait(id),
-- box:cancel(id).  engine: fields of worker.engine (host, pull, ...); sandbox: the runtime to use
-- ("runsc"); policy: one of worker.policy, or its file; output: the most bytes that a tool may say (64 MiB).
function tools.open(options)
  return box.open(engine.open, options or {})
end

return tools
