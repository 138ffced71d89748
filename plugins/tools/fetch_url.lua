-- fetch_url: what an address answers.
local fetch_url = { kind = "tool", name = "fetch_url", api = 1 }

fetch_url.doc = "Prints what an address answers; redirects are followed."

fetch_url.group = "network"
fetch_url.operations = { "fetch", "web_fetch", "get", "curl" }
fetch_url.image = "curlimages/curl:8.6.0"
fetch_url.cpus, fetch_url.memory, fetch_url.pids, fetch_url.timeout = 0.2, "128MiB", 10, "60s"
fetch_url.network = true

fetch_url.config = {
  url = { "url", required = true, max = 32768, example = "https://example.com/", doc = "The address: http or https." },
}
fetch_url.from = { url = { "target", 1 } }
fetch_url.flags = { "-s", "-L" }

-- No redirect leads to files of the container or to other protocols, and nothing in the address is a
-- pattern.
function fetch_url.command(arguments)
  return { "curl", "-s", "-S", "-L", "--globoff", "--proto", "=http,https", "--url", arguments.url }
end

return fetch_url
