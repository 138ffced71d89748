#!/bin/sh
# fuzz.sh SECONDS [NAME...] -- feed hostile input to what reads the network, under ASan and UBSan.
#
# NAME is http (answers of HTTP/1.1), h2 (frames of HTTP/2, as either side), grpc (heads, messages and
# trailers), protobuf, ws (frames of WebSockets, as either side) or redis (replies); all of them without one.  spec/fuzz/NAME has
# the inputs to begin with; what is found on the way stays in BUILD/corpus/NAME, and an input that fails
# is left in BUILD as NAME-crash-...: put it with the first ones once it is mended.
set -eu
cd "$(dirname "$0")/.."
BUILD=${BUILD:-build/fuzz} seconds=${1:-60}
[ $# = 0 ] || shift
[ $# -gt 0 ] || set -- http h2 grpc protobuf ws redis
SANITIZE="-O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=undefined"

objects=
for file in src/*.c; do
  case $file in */main.c | */faults.c) continue ;; esac
  objects="$objects $BUILD/$(basename "$file" .c).o"
done
# shellcheck disable=SC2086
make --no-print-directory -s BUILD="$BUILD" CC=clang HARDEN= \
  CFLAGS="$SANITIZE -fsanitize=fuzzer-no-link" $objects "$BUILD/embed.o" | sed '/^  CC/d'

for name; do
  program=lua wrap=
  case $name in http | h2) program=$name ;; esac
  [ "$name" != http ] || wrap=-Wl,--wrap=dial_start,--wrap=dial_finish,--wrap=dial_reason,--wrap=dial_cancel
  # shellcheck disable=SC2086
  clang -std=c11 -D_GNU_SOURCE -Iinclude -I/usr/include/lua5.4 -Wall -Wextra $SANITIZE \
    -fsanitize=fuzzer -o "$BUILD/$program-fuzzer" "spec/fuzz/$program.c" $objects "$BUILD/embed.o" \
    -l:liblua5.4.a -l:liblua5.4-cjson.a -lyaml -larchive -lnghttp2 -lpthread -lm -ldl $wrap
  mkdir -p "$BUILD/corpus/$name"
  echo "  FUZZ $name ($seconds s)"
  # Lua allocates as it likes: looking for leaks after each input would take all the time.
  FUZZ=spec/fuzz/$name.lua "$BUILD/$program-fuzzer" -max_total_time="$seconds" -max_len=4096 \
    -detect_leaks=$([ $program = lua ] && echo 0 || echo 1) -artifact_prefix="$BUILD/$name-" \
    -verbosity=0 -print_final_stats=1 "$BUILD/corpus/$name" "spec/fuzz/$name" 2>"$BUILD/$name.log" ||
    { tail -n 60 "$BUILD/$name.log"; exit 1; }
  sed -n 's/^stat::number_of_executed_units: */    inputs: /p' "$BUILD/$name.log"
done
