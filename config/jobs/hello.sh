echo "hello from job $WORKER_JOB_ID in $(pwd)"
