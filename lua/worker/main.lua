local main = {}
function main.run(_, command, ...)
  if command == "spec" then
    local options, paths = {}, {}
    local args = { ... }
    local i = 1
    while i <= #args do
      if args[i] == "--verbose" then options.verbose = true
      elseif args[i] == "--filter" then i = i + 1 options.filter = args[i]
      elseif args[i] == "--exclude" then i = i + 1 options.exclude = args[i]
      else paths[#paths + 1] = args[i] end
      i = i + 1
    end
    return require("worker.spec").run(paths, options)
  end
  io.stderr:write("worker: only `worker spec` for now\n")
  return 64
end
return main
