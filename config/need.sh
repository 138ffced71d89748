#!/bin/sh
# need.sh PACKAGE...: installs the Debian packages that are missing; says nothing when none is.
set -eu
missing=
for package in "$@"; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' ||
    missing="$missing $package"
done
[ -n "$missing" ] || exit 0
echo "installing:$missing"
if [ "$(id -u)" = 0 ]; then
  sudo=
elif command -v sudo >/dev/null 2>&1; then
  sudo=sudo
else
  echo "these packages are needed and you are neither root nor is sudo there: as root, run" >&2
  echo "  apt-get install$missing" >&2
  exit 1
fi
export DEBIAN_FRONTEND=noninteractive
# Somebody else may be installing just now, as a fresh machine does by itself: wait for them.
apt() { $sudo env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=600 -q "$@"; }
# shellcheck disable=SC2086
install() { apt install -y --no-install-recommends $missing; }
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# The package list may be empty or old: then fetch it and try again.
if install >"$log" 2>&1; then exit 0; fi
if apt update >>"$log" 2>&1 && install >>"$log" 2>&1; then exit 0; fi
tail -n 20 "$log" >&2
echo "could not install:$missing" >&2
exit 1
