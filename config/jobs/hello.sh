echo "hello from job $WORKER_JOB_ID, by $(id -un) in a directory of its own"
