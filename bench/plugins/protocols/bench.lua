-- bench: the protocol of the benchmarks: a job for every claim, one request to report it.
local http = require "worker.http"

local bench = { kind = "protocol", name = "bench", api = 1 }

bench.doc = "Talks to the meter of the benchmarks, which always has one more job."

-- As many claims at a time as there are slots: the meter never has somebody wait.
bench.claims = 64

-- As much of a log at a time as the peer posts.
bench.batch = { bytes = 256 * 1024, seconds = 0.2 }

bench.config = {
  url = { "string", required = true, doc = "Where the meter listens." },
  program = { "string", doc = "Run this program instead of the job's script." },
}

function bench.open(conf)
  return {
    api = http.client { base = conf.url, bearer = "0123456789abcdef0123456789abcdef" },
    program = conf.program,
  }
end

function bench.claim(self)
  local work = self.api:post("/work/request", { json = { worker_id = "bench" } }).json
  return { id = work.fragment_id, script = work.run_script }
end

function bench.log(self, job, chunk)
  self.api:post("/log", { json = { id = job.id, stream = chunk.stream, offset = chunk.offset, text = chunk.text } })
end

function bench.finish(self, job, result)
  self.api:post("/work/result", { json = { fragment_id = job.id, exit_code = result.exit_code } })
end

function bench.close(self)
  self.api:close()
end

return bench
