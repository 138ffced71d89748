-- What may be said of a queue: the variables of Crucible's own workers, and what those could not do.
local config = {}

config.IMAGE = "python:3.11-slim"

config.fields = {
  url = { "url", default = "http://queue:8081", env = "QUEUE_SERVICE_URL", doc = "Address of the queue service." },
  api_url = { "url", default = "http://api:8080", env = "API_SERVICE_URL",
    doc = "Address of the API service. Read for compatibility; nothing is asked of it." },
  api_key = { "secret", env = { "API_KEY", "QUEUE_API_KEY" }, doc = "Sent as X-API-Key with every request, unless empty." },
  worker_id = { "string", default = "worker-1", max = 200, env = "HOSTNAME",
    doc = "What this worker is called in reports, logs and /health." },
  dialect = { "enum", values = { "worker-service", "queue-worker" }, default = "worker-service",
    doc = "Whose reports: those of worker-service (every end of a program is a completion, with its status inside), "
      .. "or those of queue-worker with its executors (timeouts are failures)." },
  image = { "string", default = config.IMAGE, env = "EXECUTOR_IMAGE",
    doc = "The image of Python tasks, unless `executor` is configured: then it has its own." },
  languages = { "map", default = {}, keys = "^[%w_+#.-]+$",
    example = { node = { image = "node:20-slim", command = { "node", "/code.js" }, file = "/code.js" } },
    doc = "More languages than Python, or another way to run that.", of = { "record", fields = {
      image = { "string", doc = "The image; the executor's own if absent." },
      command = { "list", of = { "string" }, required = true, min = 1, example = { "node", "/code.js" },
        doc = "What runs the code; a word {code} becomes the code itself, else it is in the file." },
      file = { "string", default = "/code", pattern = "^[/-]",
        doc = "Where the code lies in the container; - for its standard input." },
    } } },
  code = { "enum", values = { "auto", "file", "stdin" }, default = "auto",
    doc = "How Python's code comes into its container: as /code.py, for which the engine has to see the files of this "
      .. "machine, or on standard input; auto: by whether the worker itself is in a container, or DOCKER_HOST elsewhere." },
  timeout = { "duration", default = "30s", min = "1s", doc = "How long a task may run that does not say it." },
  timeout_most = { "duration", default = "1h", min = "1s", doc = "No task may run longer, whatever it says." },
  poll = { "duration", default = "1s", min = "10ms", doc = "Wait before asking again when there was no task." },
  websocket = { "enum", values = { "auto", "off" }, default = "auto",
    doc = "auto asks the queue for a WebSocket at /ws that tells when there is a task; without one it is polled." },
  concurrency = { "integer", min = 1, max = 10000, env = { "EXECUTOR_COUNT", "MAX_CONCURRENT_EXECUTIONS" },
    doc = "How many tasks run at a time; the same as slots." },
  take = { "record", doc = "Take only some of the tasks.", fields = {
    engines = { "list", of = { "string", min = 1 }, default = {}, doc = "Only those that ask for one of these engines." },
    languages = { "list", of = { "string", min = 1 }, default = {}, doc = "Only those in one of these languages." },
    others = { "enum", values = { "return", "fail" }, default = "return",
      doc = "What happens to others that the queue hands out: they go back to the end of the line, or fail." },
  } },
}

--- What holds unless somebody configured it: how the published workers run code, with their gaps closed.
function config.suggests(conf)
  local box = { image = conf.image, memory = "100MiB", cpus = 0.5, pids = 64, tmpfs = { ["/tmp"] = "10MiB" } }
  return {
    executor = { { docker = box }, { gvisor = box } }, health = "0.0.0.0:8082", log = "json",
    -- as the workers of that platform are told where its Redis is
    events = { when = "REDIS_URL", { redis = { format = "queue", output = true } } },
  }
end

return config
