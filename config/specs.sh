#!/bin/sh
# specs.sh SECONDS COMMAND...: run specs.  Some open thousands of files; what hangs is ended, and that is told.
limit=$1
shift
ulimit -n "$(ulimit -H -n)"
timeout -k 5 "$limit" "$@"
code=$?
if [ $code = 124 ]; then
  echo "ended: the specs had not come to their end after $limit seconds; LIMIT=$((limit * 2)) gives them more time" >&2
fi
exit $code
