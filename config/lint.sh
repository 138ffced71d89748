#!/bin/sh
# lint.sh: every linter must stay silent.
set -u
bad=0
say() { printf '  %s\n' "$1"; }
build=${BUILD:-build}
mkdir -p "$build/lint"

for cc in gcc clang; do
  say "$cc -Werror"
  make --no-print-directory BUILD="$build/lint/$cc" CC="$cc" CFLAGS="-O1 -Werror" \
    "$build/lint/$cc/worker" "$build/lint/$cc/ground" >"$build/lint/$cc.log" 2>&1 ||
    { grep -v '^  CC' "$build/lint/$cc.log"; bad=1; }
done

say clang-format
clang-format --dry-run -Werror src/*.c include/worker/*.h spec/*/*.c || bad=1

say cppcheck
cppcheck --quiet --std=c11 --language=c -D_GNU_SOURCE -Iinclude --inline-suppr --error-exitcode=1 \
  --enable=warning,performance,portability --suppress=missingIncludeSystem \
  --suppress=nullPointerRedundantCheck src || bad=1

say luacheck
luacheck --no-color -q lua plugins spec bench .luacheckrc >"$build/lint/lua.log" || { cat "$build/lint/lua.log"; bad=1; }

exit $bad
