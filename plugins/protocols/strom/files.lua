-- What a step needs on the disk and what it leaves there: its workspace (kept by revision and shared
-- by all steps that run in it), the state of its task and workspace, its artifacts.
local archive = require "worker.archive"
local cgroup = require "worker.cgroup"
local fs = require "worker.fs"
local http = require "worker.http"
local json = require "worker.json"
local report = require "strom.report"
local retry = require "worker.retry"
local task = require "worker.task"
local error = require "worker.error"

local files = {}

local DOWNLOAD = 600 -- seconds that a download may be silent
local STATE_MOST = 50 << 20
local PASSABLE = 457 -- 0711: steps may run as others, and see only their own

-- Two kinds of state, the same in all but names.
local STATES = {
  { key = "state", route = "state", with_task = true, dir = "STATE_DIR", out = "STATE_OUT_DIR" },
  { key = "global_state", route = "global-state", dir = "GLOBAL_STATE_DIR", out = "GLOBAL_STATE_OUT_DIR" },
}

local TYPES = {
  txt = "text/plain", log = "text/plain", md = "text/markdown", csv = "text/csv", html = "text/html",
  json = "application/json", xml = "application/xml", pdf = "application/pdf", zip = "application/zip",
  gz = "application/gzip", tar = "application/x-tar", png = "image/png", jpg = "image/jpeg",
  jpeg = "image/jpeg", svg = "image/svg+xml",
}

local methods = {}
local meta = { __index = methods }

-- A directory that cannot be used would fail every step there is, one after the other.
local function check_dir(conf)
  local ok, why = pcall(fs.workplace, fs.join(conf.workspace_dir, "steps"), PASSABLE)
  if not ok then
    error.raise("config", ("workspace_dir: this worker cannot work in %s (%s): name another directory"):format(
      conf.workspace_dir, tostring(why)))
  end
end

function files.new(api, conf)
  check_dir(conf)
  return setmetatable({
    api = api, conf = conf, current = {},
    cache = archive.cache(fs.join(conf.workspace_dir, "workspaces"), {
      keep = conf.max_retained_revisions, bytes = conf.workspace_bytes,
    }),
  }, meta)
end

-- The workspace ------------------------------------------------------------------------------------------

local function download(self, job, path, options)
  options.to_file, options.timeout, options.max_body = path, DOWNLOAD, self.conf.workspace_bytes
  local address = http.url("/worker/workspace", job.workspace .. ".tar.gz")
  return report.insist(function() return self.api:get(address, options) end)
end

-- Servers that pin nothing say which revision is current; it is only sent when we do not have it.
local function current_revision(self, job, path)
  local known = self.current[job.workspace]
  local reply = download(self, job, path, {
    headers = known and { ["If-None-Match"] = ('"%s"'):format(known) }, expect = { 200, 304 },
  })
  if reply.status == 304 then return known, false end
  local revision = reply:header("X-Revision")
  if not revision or revision == "" then error.wire("the workspace came without its revision") end
  self.current[job.workspace] = revision
  return revision, true
end

local function hold(self, job, scratch)
  local tarball, here = fs.join(scratch, "workspace.tar.gz"), false
  local revision = job.revision
  if not revision then revision, here = current_revision(self, job, tarball) end
  local fetched = false
  local held = self.cache:hold(job.workspace, revision, function(path)
    fetched = true
    if here then return fs.rename(tarball, path) end
    download(self, job, path, { query = { revision = job.revision } })
  end)
  return held, fetched
end

local function bring_workspace(self, job, ctx, scratch)
  if job.kind == "docker" then return nil end -- its image has all it needs
  if not job.workspace then -- the first servers share a directory with their workers
    fs.mkdir(self.conf.workspace_dir, { parents = true })
    return self.conf.workspace_dir
  end
  local ok, held, fetched = task.try(hold, self, job, scratch)
  if not ok then error.raise("file", "Failed to download workspace: " .. tostring(held)) end
  ctx.own(held)
  if fetched then self.cache:prune(job.workspace) end
  return held.path
end

-- State ----------------------------------------------------------------------------------------------------

local function state_path(job, state, ...)
  if not state.with_task then return http.url("/worker", state.route, job.workspace, ...) end
  return http.url("/worker", state.route, job.workspace, job.task, ...)
end

local function bring_state(self, job, state, dir, scratch)
  local path = fs.join(scratch, "state.tar.gz")
  local reply = report.insist(function()
    return self.api:get(state_path(job, state), { to_file = path, timeout = DOWNLOAD, max_body = STATE_MOST,
      expect = { 200, 204 } })
  end)
  if reply.status == 200 then archive.unpack(path, dir, { bytes = 16 * STATE_MOST }) end
  fs.remove(path)
end

local function bring_states(self, job, ctx, place)
  for _, state in ipairs(STATES) do
    if job[state.key] and job.workspace and (job.task or not state.with_task) then
      local ok, why = task.try(bring_state, self, job, state, place.env[state.dir], place.scratch)
      -- without the state that there is a step would begin anew, and put that in its place
      if not ok and retry.classify(why) == "retry" then
        error.raise("file", ("Failed to download the %s: %s"):format(state.route, tostring(why)))
      end
      if not ok then ctx.note(("the %s could not be fetched: %s"):format(state.route, tostring(why))) end
    end
  end
end

--- `files:bring(job, ctx)`: everything that the step finds: { cwd=, env=, scratch= }; no cwd where it needs
-- no workspace.
function methods:bring(job, ctx)
  fs.mkdir(fs.join(self.conf.workspace_dir, "steps"), { parents = true, mode = PASSABLE })
  local scratch = fs.temp_dir(fs.join(self.conf.workspace_dir, "steps", "step-"))
  ctx.own { close = function() fs.remove_tree(scratch) end }
  ctx.own(cgroup.keep("dir", fs.realpath(scratch)))
  local place = { scratch = scratch, env = {}, cwd = bring_workspace(self, job, ctx, scratch) }
  for _, name in ipairs { "STATE_DIR", "STATE_OUT_DIR", "GLOBAL_STATE_DIR", "GLOBAL_STATE_OUT_DIR", "ARTIFACTS_DIR" } do
    local dir = fs.join(scratch, (name:lower():gsub("_dir$", "")))
    fs.mkdir(dir)
    place.env[name] = fs.realpath(dir)
  end
  bring_states(self, job, ctx, place)
  ctx.give(scratch)
  return place
end

-- What a step wrote, not what a link that it left leads to: that may be a file of ours.
local function read_own(dir, name)
  local file <close> = fs.open_beneath(dir, name, "r")
  local pieces, size = {}, 0
  for piece in function() return file:read(65536) end do
    pieces[#pieces + 1], size = piece, size + #piece
    if size > STATE_MOST then error.raise("limit", name .. " is too large") end
  end
  return json.decode(table.concat(pieces))
end

-- The lines `STATE: {...}` become state.json, over what the step wrote there itself.
local function add_lines(dir, lines)
  if not lines then return end
  local path = fs.join(dir, "state.json")
  local ok, before = task.try(read_own, dir, "state.json")
  local merged = ok and type(before) == "table" and not json.is_array(before) and before or json.object {}
  for name, value in pairs(lines) do merged[name] = value end
  fs.write(path, json.encode(merged))
end

-- The step may have put a link in its place, to files that are not its own.
local function check_place(dir)
  local stat = fs.lstat(dir)
  if not stat or stat.type ~= "dir" then error.raise("file", dir .. " is not the directory that the step was given") end
end

local function send_state(self, job, state, dir, scratch)
  check_place(dir)
  add_lines(dir, job.watch.states[state.key])
  local list = archive.files(dir)
  if #list == 0 then return end
  local has_json = false
  for _, file in ipairs(list) do has_json = has_json or fs.base(file.name) == "state.json" end
  local path = fs.join(scratch, "out.tar.gz")
  archive.pack(path, dir, { bytes = STATE_MOST })
  report.insist(function()
    self.api:post(state_path(job, state, job.job), { query = { has_json = tostring(has_json) }, file = path,
      headers = { ["Content-Type"] = "application/gzip" }, timeout = DOWNLOAD })
  end)
end

--- `files:send_states(job, ctx)`: what the step wrote for the next run, however it ended.
function methods:send_states(job, ctx)
  if not job.workspace then return end
  for _, state in ipairs(STATES) do
    if job.task or not state.with_task then
      local ok, why = task.try(send_state, self, job, state, job.place.env[state.out], job.place.scratch)
      if not ok then ctx.note(("the %s could not be saved: %s"):format(state.route, tostring(why))) end
    end
  end
end

-- Artifacts ------------------------------------------------------------------------------------------------

local function send_artifact(self, path, root, file)
  local source <close> = fs.open_beneath(root, file.name, "r")
  local left = file.size -- it was announced; what was added since is not part of it
  self.api:post(path, {
    body = function()
      local piece = left > 0 and source:read(math.min(left, 65536)) or nil
      left = left - (piece and #piece or left)
      return piece
    end,
    length = file.size, timeout = DOWNLOAD,
    headers = { ["Content-Type"] = TYPES[(file.name:match("%.(%w+)$") or ""):lower()] or "application/octet-stream" },
  })
end

local function send_all(self, root, base)
  check_place(root)
  for _, file in ipairs(archive.files(root)) do
    local segments = {}
    for part in file.name:gmatch("[^/]+") do segments[#segments + 1] = part end
    local path = http.url(base, table.unpack(segments))
    report.insist(function() send_artifact(self, path, root, file) end)
  end
end

--- `files:send_artifacts(job, ctx, result)`: of a step that succeeded; when that fails, so has the step.
function methods:send_artifacts(job, ctx, result)
  if result.state ~= "success" then return end
  local base = http.url("/worker/jobs", job.job, "steps", job.step, "artifacts")
  local ok, why = task.try(send_all, self, job.place.env.ARTIFACTS_DIR, base)
  if ok then return end
  local reason = "artifact upload failed: " .. tostring(why)
  ctx.note(reason)
  task.try(self.api.delete, self.api, base)
  return { state = "failed", exit_code = 1, reason = reason, value = result.value, upload_failed = true }
end

return files
