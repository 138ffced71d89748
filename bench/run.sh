#!/bin/sh
# run.sh WORKER -- measure WORKER against the least C that does the same (peer.c).
#
# Both run in turn, pair by pair, so that what else this machine does hits both alike; what is
# printed is the median of the pairs' ratios, with the least and the most of them.  PAIRS (25) says
# how many, JOBS (500) how long each is, about half a second, MIB (64) how much log.
set -eu
cd "$(dirname "$0")/.."
WORKER=$(realpath "${1:-build/worker}")
PAIRS=${PAIRS:-25} JOBS=${JOBS:-500} MIB=${MIB:-64}
DIR=$(mktemp -d "${TMPDIR:-/tmp}/worker-bench-XXXXXX")
PEER=$DIR/peer IDLE=
trap 'if [ -n "$IDLE" ]; then kill -QUIT "$IDLE"; wait "$IDLE" || true; fi 2>/dev/null; rm -rf "$DIR"' EXIT
export TENANT_ID=00000000-0000-0000-0000-000000000001

cc -std=c11 -O2 -o "$PEER" bench/peer.c
echo 'int main(void) { return 0; }' | cc -O2 -static -x c -o "$DIR/tiny" -

# One run of the worker, or of the peer, under the meter; its numbers go to $DIR/NAME.
meter() { # NAME METER-OPTIONS -- COMMAND...
  name=$1
  shift
  timeout -s KILL 60 "$PEER" meter "$@" >"$DIR/line" 2>"$DIR/err" </dev/null ||
    { echo "bench: $name did not end well:" >&2; tail -3 "$DIR/err" >&2; exit 1; }
  cat "$DIR/line" >>"$DIR/$name"
}

# The worker finds the meter through the environment.  What a script is given to is a setting of the
# executor: a static program there is run as `tiny -c :`, without a shell.
configure() { # SLOTS SHELL
  cat >"$DIR/worker.yaml" <<EOF
servers: [{ protocol: vulcan, slots: $1, executor: { shell: { shell: ["$2"] } } }]
state: $DIR/state
workspace: ${BENCH_WORKSPACE:-$DIR/jobs}
log: { level: error }
EOF
}
vulcan() { meter "$@" -- "$WORKER" run --config "$DIR/worker.yaml" plugins; }

# Of one column of two files of runs: the median of the ratios, the least and the most.
middle() { sort -n | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)], v[1], v[NR] }'; }
ratio() { paste "$DIR/w" "$DIR/p" | awk -v c="$1" '{ print $c / $(c + 6) }' | middle; }
alone() { awk -v c="$1" '{ print $c }' "$DIR/w" | middle | cut -d' ' -f1; }

pairs() { # calls worker_run and peer_run in turn, which write to $DIR/w and $DIR/p
  i=0
  while [ "$i" -lt "$PAIRS" ]; do
    worker_run
    peer_run
    i=$((i + 1))
  done
}

row() { # TITLE RATE-COLUMN UNIT CPU-COLUMN UNIT
  # shellcheck disable=SC2046 # three words each
  printf '%-38s %5.2f [%4.2f ..%5.2f] %6.2f [%4.2f ..%6.2f] %7.0f %s, %.0f %s\n' "$1" $(ratio "$2") $(ratio "$4") \
    "$(alone "$2")" "$3" "$(alone "$4")" "$5"
  rm "$DIR/w" "$DIR/p"
}

cycle() { # TITLE SLOTS JOBS [PROGRAM]
  slots=$2 jobs=$3 program=${4:-}
  configure "$slots" "${program:-/bin/sh}"
  worker_run() { vulcan w -j "$jobs"; }
  peer_run() { meter p -j "$jobs" -- "$PEER" cycle -n "$slots" ${program:+-x "$program"}; }
  pairs
  row "$1" 1 jobs/s 2 us/job
}

printf 'worker / peer, %2s pairs                 rate                  own CPU                worker\n' "$PAIRS"
cycle "sh -c :, 1 slot" 1 "$JOBS"
cycle "sh -c :, 8 slots" 8 $((JOBS * 2))
cycle "sh -c :, 32 slots" 32 $((JOBS * 2))
cycle "a static program, 1 slot" 1 "$JOBS" "$DIR/tiny"
cycle "a static program, 8 slots" 8 $((JOBS * 3)) "$DIR/tiny"
cycle "a static program, 32 slots" 32 $((JOBS * 3)) "$DIR/tiny"
if [ -w /dev/shm ]; then
  BENCH_WORKSPACE=$(mktemp -d /dev/shm/worker-bench-XXXXXX)
  cycle "sh -c :, 8 slots, workspaces in memory" 8 $((JOBS * 2))
  rm -rf "$BENCH_WORKSPACE"
  unset BENCH_WORKSPACE
fi

# Vulcan's server takes no log, so this has a protocol of its own.
worker_run() {
  meter w -w -j 1 -s "$PEER lines $MIB" -- sh -c 'exec "$0" run --protocol bench --url "$BENCH_URL" --slots 1 \
    --state "$1/state" --workspace "$1/jobs" --log-level error plugins bench/plugins' "$WORKER" "$DIR"
}
peer_run() { meter p -w -j 1 -- "$PEER" log "$PEER" lines "$MIB"; }
pairs
row "log, $MIB MiB posted as JSON" 3 MB/s 4 "ns/100 bytes"

# From exec to the first claim, which comes after the registration; curl sends one request.
configure 1 /bin/sh
worker_run() { vulcan w -f; }
peer_run() {
  meter p -f -- sh -c 'exec curl -s -o "$0" -H "Content-Type: application/json" -d "{}" "$BENCH_URL/work/request"' "$DIR/answer"
}
pairs
row "exec to the first claim, beside curl" 5 ms 6 ms

# At rest, and with many jobs: the local protocol, which needs no server.
switches() { cat /proc/"$1"/task/*/status | awk '/^voluntary/ { n += $2 } END { print n }'; }
memory() { awk -v k="$2:" '$1 == k { print $2 }' /proc/"$1"/status; }

"$WORKER" run --protocol local --dir "$DIR/local" --slots 300 --state "$DIR/state2" \
  --workspace "$DIR/jobs2" --log-level error plugins </dev/null &
IDLE=$!
sleep 2
before=$(switches "$IDLE") rss=$(memory "$IDLE" VmRSS)
sleep 5
after=$(switches "$IDLE")
printf '%-38s %7s %9d kB (%d kB anonymous)\n' "idle memory" "" "$rss" "$(memory "$IDLE" RssAnon)"
echo "$before $after" | awk '{ printf "%-38s %7s %9.1f /s\n", "idle wake-ups", "", ($2 - $1) / 5 }'
i=0
while [ "$i" -lt 300 ]; do
  echo 'exec sleep 60' >"$DIR/job" && mv "$DIR/job" "$DIR/local/inbox/$i.sh"
  i=$((i + 1))
done
sleep 4
printf '%-38s %7s %9d bytes each (%d run)\n' "memory for 300 running jobs" "" \
  $((($(memory "$IDLE" VmRSS) - rss) * 1024 / 300)) "$(pgrep -c -P "$IDLE" sleep)"
