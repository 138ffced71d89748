#!/bin/sh
# fly.sh APP IMAGE TASK PROJECT CALLBACK_URL CMD...: one task on a Fly machine of its own.
#
# Prints the request for the Machines API; with FLY_API_TOKEN it is sent.
#
#   auto_destroy, restart "no"   the machine goes with its task; what it did not tell is told by its
#                                exit code, which the API's events have
#   stop_config                  Fly stops a machine by INT and waits 5 s unless told; here 10 s, more than
#                                --grace, so that there is time to end the task and to tell that
#   init.exec                    the whole command line: ENTRYPOINT and CMD of the image do not count
#   name                         one machine per task: a second one at a time is refused by the API
#
# Secrets (CALLBACK_SECRET, ANTHROPIC_API_KEY) belong to the app: fly secrets set NAME=VALUE -a APP.
set -eu
[ $# -ge 6 ] || { sed -n '2s/^# //p' "$0" >&2; exit 64; }
app=$1 image=$2 task=$3 project=$4 url=$5
shift 5

string() { printf '"%s"' "$(printf %s "$1" | sed 's/[\\"]/\\&/g')"; }
command="$(string /usr/bin/worker),"
for word in callback --grace 5s -- "$@"; do command="$command $(string "$word"),"; done

body=$(cat <<JSON
{
  "name": $(string "worker-$task"),
  "config": {
    "image": $(string "$image"),
    "auto_destroy": true,
    "restart": { "policy": "no" },
    "stop_config": { "signal": "SIGINT", "timeout": "10s" },
    "guest": { "cpu_kind": "shared", "cpus": 2, "memory_mb": 2048 },
    "env": {
      "TASK_ID": $(string "$task"),
      "PROJECT_ID": $(string "$project"),
      "CALLBACK_URL": $(string "$url")
    },
    "init": { "exec": [ ${command%,} ] }
  }
}
JSON
)
[ -n "${FLY_API_TOKEN:-}" ] || { printf '%s\n' "$body"; exit 0; }
curl -sS --fail-with-body -X POST -H 'Content-Type: application/json' --data "$body" -K - \
  "https://api.machines.dev/v1/apps/$app/machines" <<CONFIG
header = "Authorization: Bearer $FLY_API_TOKEN"
CONFIG
