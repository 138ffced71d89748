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

echo "$(ls "$dir/inbox" | wc -l) sample jobs lie in $dir/inbox; 4 run at a time:"
"$worker" --protocol local --dir "$dir" --once --slots 4 --workspace "$dir/work" "$here/../plugins"

echo
printf '%-16s %-10s %s\n' JOB STATE 'LAST LINE OF OUTPUT'
for result in "$dir"/done/*/result.json; do
  job=$(basename "$(dirname "$result")")
  state=$(sed -n 's/^ *"state": *"\([a-z]*\)".*/\1/p' "$result")
  line=$(cat "$(dirname "$result")"/stdout.log "$(dirname "$result")"/stderr.log | tail -n 1)
  printf '%-16s %-10s %s\n' "$job" "$state" "$line"
done
for reason in "$dir"/failed/*.reason; do
  [ -f "$reason" ] || continue
  printf '%-16s %-10s %s\n' "$(basename "$reason" .reason)" refused "$(head -n 1 "$reason")"
done
