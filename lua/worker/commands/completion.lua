-- completion.lua: `worker completion`: a script that makes a shell complete `worker`.
local args = require "worker.args"

local SHELLS = { "bash", "zsh", "fish" }

local command = {
  summary = "print a script that completes worker in bash, zsh or fish",
  usage = "bash|zsh|fish",
  words = { 1, 1, missing = "say for which shell: worker completion bash, zsh or fish" },
  complete = SHELLS,
  examples = {
    { "source <(worker completion bash)", "in this bash" },
    { "worker completion fish > ~/.config/fish/completions/worker.fish", "in every fish to come" },
  },
}

function command.run(_, words)
  for _, shell in ipairs(SHELLS) do
    if words[1] == shell then
      io.stdout:write(require("worker.completion")[shell]())
      return 0
    end
  end
  args.usage(("there is no completion for '%s'%s"):format(words[1], args.nearest(words[1], SHELLS, "'%s'")))
end

return command
