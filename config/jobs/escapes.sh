# A child in a session of its own does not get away either.
setsid sleep 600 &
echo "left a child in a session of its own"
