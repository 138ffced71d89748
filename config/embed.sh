#!/bin/sh
# embed.sh FILE.lua...: writes a C file that holds the Lua files, for worker/embed.h.
#
# They are compiled here, with all that tracebacks need: compiling them at every start takes longer
# than everything else the worker does until its first request.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cat >"$dir/compile.c" <<'C'
#include <lauxlib.h>
#include <stdio.h>

static int put(lua_State *L, const void *data, size_t size, void *to)
{
	(void)L;
	return fwrite(data, 1, size, to) != size;
}

/* compile NAME <source >chunk */
int main(int argc, char **argv)
{
	static char text[1 << 20];
	size_t size = fread(text, 1, sizeof text, stdin);
	lua_State *L = luaL_newstate();
	if (argc != 2 || size == sizeof text || luaL_loadbufferx(L, text, size, argv[1], "t") != LUA_OK) {
		fprintf(stderr, "%s\n", L && argc == 2 ? lua_tostring(L, -1) : "compile NAME <source");
		return 1;
	}
	return lua_dump(L, put, stdout, 0) || fflush(stdout);
}
C
${CC:-cc} -O1 -I/usr/include/lua5.4 -o "$dir/compile" "$dir/compile.c" -l:liblua5.4.a -lm -ldl

module_of() { printf '%s' "${1#lua/}" | sed 's/\.lua$//; s/\/init$//'; }

echo '#include "worker/embed.h"'
n=0
for file in "$@"; do
  "$dir/compile" "@lua/$(module_of "$file").lua" <"$file" >"$dir/chunk"
  printf 'static const unsigned char file_%d[] = {' "$n"
  od -An -v -tu1 "$dir/chunk" | sed 's/  */,/g; s/^,//; s/$/,/'
  echo '0};'
  n=$((n + 1))
done
echo 'const struct host_file embed_files[] = {'
n=0
for file in "$@"; do
  printf '\t{"%s", (const char *)file_%d, sizeof file_%d - 1},\n' "$(module_of "$file" | tr / .)" "$n" "$n"
  n=$((n + 1))
done
printf '\t{0, 0, 0},\n};\n'
