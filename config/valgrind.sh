#!/bin/sh
# valgrind.sh BINARY SPEC...: each file of specs under valgrind, alone, so that a finding has a place.
# A spec that is only too slow under it is no finding; what valgrind says of memory is.
set -u
worker=$1; shift
log=$(mktemp "${TMPDIR:-/tmp}/worker-valgrind-XXXXXX")
trap 'rm -f "$log"' EXIT
trap 'exit 130' INT TERM
ulimit -n 4096 # valgrind has a table of all of them
bad=0
for spec in "$@"; do
  WORKER_PATIENCE=60 timeout -k 5 "${LIMIT:-900}" valgrind -q --leak-check=full --errors-for-leak-kinds=definite \
    --child-silent-after-fork=yes --log-file="$log" "$worker" spec "$spec" >/dev/null 2>&1
  case $? in 124 | 137 | 139) echo "$spec: it did not end"; bad=$((bad + 1)) ;; esac
  # Of system calls that it does not know (newer than itself) it talks, too: those fail for us, as on
  # an older kernel.
  if grep -q '^==' "$log"; then
    echo "$spec:"
    grep '^==' "$log"
    bad=$((bad + 1))
  fi
done
echo "$bad files of specs with findings"
[ $bad = 0 ]
