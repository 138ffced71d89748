-- web_search: what a search engine answers.
local err = require "worker.error"
local text = require "worker.text"

local web_search = { kind = "tool", name = "web_search", api = 1 }

web_search.doc = "Asks a search engine: its address with the question, or words for the one that is configured."

web_search.group = "network"
web_search.operations = { "search", "search_web" }
web_search.image = "curlimages/curl:8.6.0"
web_search.cpus, web_search.memory, web_search.pids, web_search.timeout = 0.2, "128MiB", 10, "30s"
web_search.network = true

web_search.config = {
  url = { "url", max = 32768, example = "https://search.example/?q=lua", doc = "The address, the question included." },
  query = { "string", min = 1, max = 4096, doc = "Words to look for, when there is no address." },
}
web_search.from = { url = { 1 }, query = { "q" } }
web_search.flags = { "-s", "-L" }

local function address_of(arguments, settings)
  if arguments.url then return arguments.url end
  if not arguments.query then
    err.raise("refused", "web_search needs a url, or a query", { code = "INVALID_ARGUMENT" })
  elseif not settings.search_url then
    err.raise("refused", "web_search has only a query, and the configuration names no search engine: set `search_url`",
      { code = "FAILED_PRECONDITION" })
  end
  local words = text.percent_encode(arguments.query)
  return (settings.search_url:gsub("{query}", function() return words end))
end

function web_search.command(arguments, settings)
  return { "curl", "-s", "-S", "-L", "--globoff", "--proto", "=http,https", "-A", "Mozilla/5.0", "--url",
    address_of(arguments, settings) }
end

return web_search
