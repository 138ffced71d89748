#!/bin/sh
# run.sh WORKER -- measure WORKER against the least C that does the same (peer.c).
#
# Both run in turn, pair by pair, so that what else this machine does hits both alike; what is
# printed is the median of the pairs' ratios.  PAIRS (5) says how many, JOBS (200) how long each is.
set -eu
cd "$(dirname "$0")/.."
WORKER=$(realpath "${1:-build/worker}")
PAIRS=${PAIRS:-5} JOBS=${JOBS:-200} MIB=${MIB:-64}
DIR=$(mktemp -d "${TMPDIR:-/tmp}/worker-bench-XXXXXX")
PEER=$DIR/peer IDLE=
trap 'if [ -n "$IDLE" ]; then kill -QUIT "$IDLE"; wait "$IDLE" || true; fi 2>/dev/null; rm -rf "$DIR"' EXIT

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

# The worker finds the meter through the environment; every life has a state directory of its own.
cat >"$DIR/worker" <<EOF
#!/bin/sh
exec "$WORKER" run --protocol bench --url "\$BENCH_URL" --state "$DIR/state" \
  --workspace "\${BENCH_WORKSPACE:-$DIR/jobs}" --log-level error "\$@" plugins bench/plugins
EOF
chmod +x "$DIR/worker"

median() { sort -n | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }

# The median of the ratios in column COLUMN of two files of runs, and of the first one alone.
ratio() { paste "$DIR/$1" "$DIR/$2" | awk -v c="$3" '{ print $c / $(c + 5) }' | median; }
alone() { awk -v c="$2" '{ print $c }' "$DIR/$1" | median; }

pairs() { # NAME: calls worker_run and peer_run in turn
  i=0
  while [ "$i" -lt "$PAIRS" ]; do
    worker_run
    peer_run
    i=$((i + 1))
  done
}

cycle() { # TITLE SLOTS JOBS [PROGRAM]
  key=$(echo "$1" | tr -c 'a-z0-9\n' _)
  title=$1 slots=$2 jobs=$3 program=${4:-}
  worker_run() {
    meter "w$key" -j "$jobs" -- "$DIR/worker" --slots "$slots" ${program:+--program "$program"}
  }
  peer_run() { meter "p$key" -j "$jobs" -- "$PEER" cycle -n "$slots" ${program:+-x "$program"}; }
  pairs
  printf '%-38s %7.2f %9.1f %9.0f %9.0f\n' "$title" "$(ratio "w$key" "p$key" 1)" \
    "$(ratio "w$key" "p$key" 2)" "$(alone "w$key" 1)" "$(alone "w$key" 2)"
}

echo "median of $PAIRS pairs              rate ratio  CPU ratio   jobs/s   us/job (own)"
cycle "sh -c :, 1 slot" 1 "$JOBS"
cycle "sh -c :, 8 slots" 8 "$JOBS"
cycle "sh -c :, 32 slots" 32 "$JOBS"
cycle "static program, 8 slots" 8 $((JOBS * 2)) "$DIR/tiny"
if [ -w /dev/shm ]; then
  BENCH_WORKSPACE=$(mktemp -d /dev/shm/worker-bench-XXXXXX)
  export BENCH_WORKSPACE
  cycle "sh -c :, 8 slots, workspaces in memory" 8 "$JOBS"
  rm -rf "$BENCH_WORKSPACE"
  unset BENCH_WORKSPACE
fi

worker_run() { meter wlog -w -j 1 -s "$PEER lines $MIB" -- "$DIR/worker" --slots 1; }
peer_run() { meter plog -w -j 1 -- "$PEER" log "$PEER" lines "$MIB"; }
pairs
printf '%-38s %7.2f %9.1f %6.0f MB/s %5.0f ns/100 bytes\n' "log, $MIB MiB posted as JSON" \
  "$(ratio wlog plog 3)" "$(ratio wlog plog 4)" "$(alone wlog 3)" "$(alone wlog 4)"
printf '%-38s %7s %9.1f ms\n' "exec to first claim" "" "$(alone wsh__c____8_slots 5)"

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
