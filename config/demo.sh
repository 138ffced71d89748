#!/bin/sh
# demo.sh BINARY: the main job on the embedded default.  A directory is the orchestrator: sample job
# files go into its inbox, the worker runs them all and stops.
set -eu
worker=$1
here=$(dirname "$0")
dir=$(mktemp -d "${TMPDIR:-/tmp}/worker-demo-XXXXXX")
trap 'rm -rf "$dir"' EXIT
mkdir -p "$dir/inbox"
cp "$here"/jobs/* "$dir/inbox/"

echo "$(ls "$dir/inbox" | wc -l) sample jobs (config/jobs) in $dir/inbox; 4 run at a time."
echo "One of them fails, one takes too long and one cannot be read: on purpose."
echo
# Text for people even where it goes into a file.
WORKER_LOG_FORMAT=${WORKER_LOG_FORMAT:-text} "$worker" --protocol local --dir "$dir" --once --slots 4 --workspace "$dir/work" "$here/../plugins"

echo
# One line per job, no longer than a terminal is wide.
row() { printf '  %-10s %-8s %.59s\n' "$1" "$2" "$3"; }

row JOB RESULT 'LAST LINE OF OUTPUT'
for result in "$dir"/done/*/result.json; do
  out=$(dirname "$result")
  row "$(basename "$out")" "$(sed -n 's/^ *"state": *"\([a-z]*\)".*/\1/p' "$result")" \
    "$(cat "$out/stdout.log" "$out/stderr.log" | tail -n 1)"
done
for reason in "$dir"/failed/*.reason; do
  [ -f "$reason" ] && row "$(basename "$reason" .yaml.reason)" refused "$(head -n 1 "$reason")"
done
