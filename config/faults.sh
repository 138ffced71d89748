#!/bin/sh
# faults.sh BINARY [SCENARIO...]: runs each scenario with the first place failing, the second, and
# so on until it has no more (see src/faults.c).  Whatever fails, the worker must not crash, leak,
# hang, or report a job as a success that did not run.
#
#   STEP=5 FROM=1 TO=100000   every 5th place only, a range of them
#   MODE=+                    the function goes on failing: then a worker may wait for better times, but
#                             has to end when it is asked to; worker exec waits for nothing
#   faults.sh --wrap          prints the linker's options
set -u
here=$(cd "$(dirname "$0")/.." && pwd)
if [ "$1" = --wrap ]; then
  sed -n 's/^\(MEMORY\|CALL\|NUMBERED\|OTHER\)(\([a-zA-Z0-9_]*\),.*/-Wl,--wrap=\2/p' "$here/src/faults.c"
  exit
fi
worker=$(realpath "$1"); shift
[ $# -gt 0 ] || set -- exec local events http_spec sock_spec spawn_spec journal_spec json_spec yaml_spec
STEP=${STEP:-1} FROM=${FROM:-1} TO=${TO:-100000} MODE=${MODE:-}
PATIENCE=20
# How long one that was asked to end may take: where nothing can be written any more the results of its
# jobs are tried until the time to stop is over.
LAST=3
[ -z "$MODE" ] || LAST=20
top=$(mktemp -d "${TMPDIR:-/tmp}/worker-faults-XXXXXX")
trap 'rm -rf "$top"' EXIT
trap 'exit 130' INT TERM
# lua-cjson loses a buffer when Lua has no memory for what comes out of it.
echo leak:strbuf_new >"$top/suppressed"
export LSAN_OPTIONS=print_suppressions=0:suppressions=$top/suppressed

# limited COMMAND...: ended after PATIENCE; a loop that still turns ends by TERM, with its own code.
limited() {
  timeout -k $LAST $PATIENCE env WORKER_FAULT="$n$MODE" WORKER_FAULT_TO="$dir/fault" \
    ASAN_OPTIONS="detect_leaks=1:exitcode=97:log_path=$dir/report" \
    UBSAN_OPTIONS=print_stacktrace=1 "$@" >"$dir/out" 2>&1
}

run_exec() {
  limited "$worker" exec --plugins "$here/plugins" \
    --script "echo ran >> $dir/ran; echo hello"
  code=$?
  [ $code != 0 ] || [ -s "$dir/ran" ] || blame "a success that did not run"
  [ $code != 0 ] || grep -q '^hello' "$dir/out" || blame "a success without its output"
  [ $code != 124 ] || blame "a hang"
}

run_local() {
  mkdir -p "$dir/inbox"
  echo "echo ran >> $dir/a.ran" >"$dir/inbox/a.sh"
  echo "echo ran >> $dir/b.ran; exit 3" >"$dir/inbox/b.sh"
  printf 'servers: [ { protocol: local, dir: . } ]\nevents: [ %s ]\n' "${1:-}" >"$dir/worker.yaml"
  limited "$worker" --config "$dir/worker.yaml" --once --shutdown-timeout 1s \
    --workspace "$dir/work" "$here/plugins"
  code=$?
  [ $code != 124 ] || [ -n "$MODE" ] || blame "a hang"
  for job in a b; do
    result=$dir/done/$job/result.json
    case $(cat "$result" 2>/dev/null) in
      *'"state": "success"'*)
        [ $job = a ] || blame "a failed job reported as a success"
        [ -s "$dir/$job.ran" ] || blame "a success that did not run" ;;
    esac
    [ ! -f "$result" ] || [ ! -f "$dir/$job.ran" ] || [ "$(wc -l <"$dir/$job.ran")" = 1 ] ||
      blame "a job that ran more than once"
    [ -n "$(find "$dir/inbox" "$dir/running" "$dir/done" "$dir/failed" -name "$job*" 2>/dev/null)" ] ||
      blame "a job that is lost"
  done
}

# The same, told to a file, and to somebody who is not there.
run_events() {
  run_local "{ file: { path: events } }, { webhook: { url: \"http://127.0.0.1:1/\" } }"
  [ $n != 0 ] || grep -q '"worker.stopped"' "$dir/events" || blame "an event that is not told"
}

# A test may fail or wait for what will not come; the loop below it must go on.
run_spec() {
  (cd "$here" && limited "$worker" spec "spec/core/$1.lua")
  code=$?
  [ $code != 124 ] || code=0
}

blame() {
  bad=$((bad + 1))
  echo "$scenario, place $n$MODE: $1 (exit code $code)"
  [ ! -f "$dir/fault" ] || sed 's/^/  fault: /' "$dir/fault"
  addr2line -pfe "$worker" $(sed -n 's/.*(+\(0x[0-9a-f]*\)).*/\1/p' "$dir/fault") | sed 's/^/  at: /'
  for report in "$dir"/report.*; do
    [ ! -f "$report" ] || head -n 40 "$report" | sed 's/^/    /'
  done
  tail -n 5 "$dir/out" | sed 's/^/  said: /'
}

play() {
  case $scenario in
    *_spec) run_spec "$scenario" ;;
    *) "run_$scenario" ;;
  esac
}

runs=0 bad=0
for scenario in "$@"; do
  # What fails with nothing failing would be a test of nothing.
  n=0 dir=$top/$scenario
  mkdir "$dir"
  play
  [ $code = 0 ] || { blame "it fails by itself"; cat "$dir/out"; continue; }
  n=$FROM
  while [ "$n" -le "$TO" ]; do
    dir=$top/$scenario-$n
    mkdir "$dir"
    play
    runs=$((runs + 1))
    case $code in
      143) ;;
      137) blame "only KILL ended it" ;;
      129 | 13? | 14? | 15?) blame "a crash" ;;
    esac
    if [ -n "$(ls "$dir"/report.* 2>/dev/null)" ]; then blame "the sanitizer found something"; fi
    [ -f "$dir/fault" ] || { rm -rf "$dir"; break; }
    rm -rf "$dir"
    n=$((n + STEP))
  done
  echo "$scenario: $n places"
done
echo "$((runs - bad)) passed, $bad failed"
[ $bad = 0 ]
