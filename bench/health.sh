#!/bin/sh
# health.sh WORKER -- how long /health takes while every slot is busy with a loud job: for a good client
# alone, and beside CLIENTS (2000) that do what they should not.  PROBES (300) says how often it asks.
set -eu
cd "$(dirname "$0")/.."
WORKER=$(realpath "${1:-build/worker}")
CLIENTS=${CLIENTS:-2000} PROBES=${PROBES:-300} PORT=${PORT:-18082}
DIR=$(mktemp -d "${TMPDIR:-/tmp}/worker-health-XXXXXX")
RUN= CROWD=
trap 'for pid in $CROWD $RUN; do kill -KILL "$pid" 2>/dev/null || true; done; wait; rm -rf "$DIR"' EXIT
trap 'exit 1' INT TERM
ulimit -n "$(ulimit -H -n)"
cc -std=c11 -O2 -Wall -o "$DIR/health" bench/health.c

mkdir -p "$DIR/local/inbox"
for i in 1 2 3 4; do
  echo 'while :; do echo "line of a job that talks all the time"; sleep 0.001; done' >"$DIR/local/inbox/loud-$i.sh"
done
"$WORKER" run --protocol local --dir "$DIR/local" --slots 4 --state "$DIR/state" --workspace "$DIR/jobs" \
  --health-address "127.0.0.1:$PORT" plugins >"$DIR/log" 2>&1 </dev/null &
RUN=$!
sleep 2
memory() { awk '$1 == "VmHWM:" { print $2 }' "/proc/$RUN/status"; }
row() {
  printf '%-14s ' "$1"
  "$DIR/health" probe "$PORT" "$PROBES" || true
  printf '%-14s %s kB of memory at most; load %s\n' "" "$(memory)" "$(cut -d' ' -f1-3 /proc/loadavg)"
}
row "alone"
"$DIR/health" crowd "$PORT" "$CLIENTS" &
CROWD=$!
row "$CLIENTS others"
