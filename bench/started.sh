#!/bin/sh
# started.sh WORKER [N]: from exec to the `started` POST on the wire, beside curl doing the same POST.
#
# The worker has read its configuration and plugins and found its place for control groups by then; what
# it runs afterwards (true) is not measured.  Where that is allowed, both run before whatever else the
# machine does, as on an idle one.  Exit 1 when the median is not under 30 ms: an orchestrator that
# starts a machine per task must not wait for the worker.
set -eu
worker=${1:?usage: started.sh WORKER [N]}
n=${2:-30}
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cc -O2 -Wall -Wextra -D_GNU_SOURCE -o "$dir/started" "$(dirname "$0")/started.c"

export TASK_ID=bench PROJECT_ID=bench WORKER_STATE="$dir/state" WORKER_LOG_LEVEL=warn
body='{"project_id":"bench","status":"started","task_id":"bench"}'
first=
chrt -f 10 true 2>/dev/null && first='chrt -f 10'
ours=$($first "$dir/started" "$n" "$worker" callback -- true)
curl=$($first "$dir/started" "$n" curl -s -o /dev/null -H 'content-type: application/json' -d "$body" @URL@ || true)
printf 'worker callback   %s\ncurl              %s\n' "$ours" "$curl"
echo "$ours" | awk '{ exit !($2 < 30) }'
