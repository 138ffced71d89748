#!/bin/sh
# grpc.sh WORKER -- measure worker.grpc against the least C on nghttp2 that makes the same calls.
#
# Both talk to the same server (grpc.c), in turn and pair by pair, over a Unix socket; PAIRS (5) says
# how many pairs.
set -eu
cd "$(dirname "$0")/.."
WORKER=$(realpath "${1:-build/worker}")
PAIRS=${PAIRS:-5} CALLS=${CALLS:-20000} MIB=${MIB:-256}
DIR=$(mktemp -d "${TMPDIR:-/tmp}/worker-bench-XXXXXX")
SERVER=
trap 'if [ -n "$SERVER" ]; then kill "$SERVER"; wait "$SERVER" || true; fi 2>/dev/null; rm -rf "$DIR"' EXIT

cc -std=c11 -D_GNU_SOURCE -O2 -o "$DIR/grpc" bench/grpc.c -lnghttp2
"$DIR/grpc" serve "$DIR/sock" &
SERVER=$!
until [ -S "$DIR/sock" ]; do sleep 0.1; done

ours() { GRPC="$*" timeout -s KILL 100 "$WORKER" spec bench/grpc_spec.lua | sed -n 's/^GRPC //p'; }

median() { sort -n | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }
ratio() { awk -v c="$1" '{ print $c / $(c + 2) }' "$DIR/pairs" | median; }
alone() { awk -v c="$1" '{ print $c }' "$DIR/pairs" | median; }

row() { # TITLE UNIT ARGUMENTS...
  title=$1 unit=$2
  shift 2
  : >"$DIR/pairs"
  i=0
  while [ "$i" -lt "$PAIRS" ]; do
    echo "$(ours "$@") $("$DIR/grpc" "$@")" >>"$DIR/pairs"
    i=$((i + 1))
  done
  printf '%-38s %7.2f %9.1f %9.0f %9.1f %s\n' "$title" "$(ratio 1)" "$(ratio 2)" "$(alone 1)" \
    "$(alone 2)" "$unit"
}

echo "median of $PAIRS pairs              rate ratio  CPU ratio   rate   own CPU"
for n in 1 8 64; do
  row "unary calls, $n at once" "us a call" unary "$DIR/sock" "$n" "$CALLS"
done
row "a stream of 32 KiB, MB/s" "ns a KiB" stream "$DIR/sock" "$MIB"
