#!/bin/sh
# python-image.sh: a root filesystem with Python, as a tar archive to be imported as an image.
#
# It is made once, by debootstrap (a minute, as root), and kept below the cache folder of whoever runs
# this; its path is printed.
set -eu
cache=${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/worker-specs
file=$cache/python-3.11-bookworm.tar
if [ ! -e "$file" ]; then
  command -v debootstrap >/dev/null || { echo "debootstrap is not installed: apt-get install debootstrap" >&2; exit 1; }
  mkdir -p "$cache"
  work=$(mktemp -d "$cache/making.XXXXXX")
  trap 'rm -rf "$work"' EXIT
  root=$work/root
  # Whoever waits for the path need not wait for what a failing mirror would have said.
  if ! debootstrap --variant=minbase --include=python3 bookworm "$root" >"$work/log" 2>&1; then
    tail -n 20 "$work/log" >&2
    exit 1
  fi
  ln -s python3 "$root/usr/bin/python"
  rm -rf "$root/etc/resolv.conf" "$root/boot" "$root/debootstrap" "$root/usr/lib/apt" \
    "$root"/usr/lib/*-linux-gnu/gconv "$root"/usr/lib/*-linux-gnu/perl* "$root/usr/share/perl"* \
    "$root/usr/share/doc" "$root/usr/share/info" "$root/usr/share/locale" "$root/usr/share/man" \
    "$root/usr/share/zoneinfo" "$root/var/cache" "$root/var/lib/apt" "$root/var/lib/dpkg" "$root"/var/log/*
  tar -C "$root" --exclude='./dev/*' -cf "$work/tar" .
  mv "$work/tar" "$file"
fi
echo "$file"
