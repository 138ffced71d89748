#!/bin/sh
# embed.sh FILE.lua...: writes a C file that holds the Lua files, for worker/embed.h.
set -eu
echo '#include "worker/embed.h"'
n=0
for file in "$@"; do
  printf 'static const unsigned char file_%d[] = {' "$n"
  od -An -v -tu1 "$file" | sed 's/  */,/g; s/^,//; s/$/,/'
  echo '0};'
  n=$((n + 1))
done
echo 'const struct host_file embed_files[] = {'
n=0
for file in "$@"; do
  module=$(printf '%s' "${file#lua/}" | sed 's/\.lua$//; s/\/init$//; s/\//./g')
  printf '\t{"%s", (const char *)file_%d, sizeof file_%d - 1},\n' "$module" "$n" "$n"
  n=$((n + 1))
done
printf '\t{0, 0, 0},\n};\n'
