#!/bin/sh
# transient.sh TASK PROJECT CALLBACK_URL CMD...: one task as a transient unit of systemd.
#
# The unit is named after the task, so that one that still runs is not started twice.  The secret is a
# credential of the unit: not in its environment, not readable by others.  KillMode=mixed sends TERM to
# the worker alone, which ends the task itself and tells that; TimeoutStopSec is more than --grace.
set -eu
[ $# -ge 4 ] || { sed -n '2s/^# //p' "$0" >&2; exit 64; }
task=$1 project=$2 url=$3
shift 3
set -- -- /usr/bin/worker callback --grace 20s -- "$@"
secret=/etc/worker/callback-secret
if [ -r "$secret" ]; then
  # shellcheck disable=SC2016 # the worker reads it, not the shell
  set -- --property="LoadCredential=secret:$secret" --setenv='CALLBACK_SECRET=${credential:secret}' "$@"
fi
exec "${SYSTEMD_RUN:-systemd-run}" --unit="worker-task-$(printf %s "$task" | tr -c 'A-Za-z0-9_.-' _)" \
  --description="task $task of $project" --collect \
  --property=KillMode=mixed --property=TimeoutStopSec=30 --property=Delegate=yes \
  --property=StateDirectory=worker --property=NoNewPrivileges=yes \
  --setenv=TASK_ID="$task" --setenv=PROJECT_ID="$project" --setenv=CALLBACK_URL="$url" "$@"
