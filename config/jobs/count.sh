# Streams its output while it runs.
for i in 1 2 3 4 5; do
  echo "step $i of 5"
  sleep 0.2
done
