echo "hello from job $WORKER_JOB_ID, in a directory of its own"
