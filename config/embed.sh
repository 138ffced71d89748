#!/bin/sh
# embed.sh FILE.lua...: writes a C file that holds the Lua files, for worker/embed.h.
#
# They are compiled here: compiling them at every start takes longer than everything else the worker does
# until its first request.  Tracebacks have their files, lines and functions; the names of local variables
# are left out, which are a tenth of what is made when a chunk is loaded.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cat >"$dir/compile.c" <<'C'
#include <lauxlib.h>
#include <stdio.h>
#include <string.h>

#if LUA_VERSION_NUM != 504
#error "what lua_dump writes is known of Lua 5.4"
#endif

/* What lua_dump has written, and where in it we are; what is passed over does not go out. */
static unsigned char dumped[1 << 20];
static const unsigned char *at = dumped;
static int passed_over;

static void bytes(size_t n)
{
	if (!passed_over)
		fwrite(at, 1, n, stdout);
	at += n;
}

/* Seven bits a byte, the last one marked. */
static size_t number(void)
{
	const unsigned char *end = at;
	size_t n = 0;
	do
		n = n << 7 | (*end & 0x7f);
	while (!(*end++ & 0x80));
	bytes((size_t)(end - at));
	return n;
}

static void string(void)
{
	size_t n = number(); /* one more than its length; 0: there is none */
	bytes(n > 0 ? n - 1 : 0);
}

static void constant(void)
{
	int type = *at;
	bytes(1);
	if (type == 0x04 || type == 0x14) /* strings, short and long */
		string();
	else if (type == 0x03 || type == 0x13) /* integers, floats */
		bytes(8);
}

static void function(void)
{
	size_t n;
	string();   /* the file */
	number();   /* its first and its last line */
	number();
	bytes(3);   /* parameters, varargs, stack */
	bytes(4 * number()); /* code */
	for (n = number(); n > 0; n--)
		constant();
	bytes(3 * number()); /* upvalues */
	for (n = number(); n > 0; n--)
		function();
	bytes(number()); /* lines, relative and absolute */
	for (n = number(); n > 0; n--)
		number(), number();
	putchar(0x80); /* local variables: none */
	passed_over = 1;
	for (n = number(); n > 0; n--)
		string(), number(), number();
	passed_over = 0;
	for (n = number(); n > 0; n--) /* the names of upvalues */
		string();
}

static int put(lua_State *L, const void *data, size_t size, void *end)
{
	unsigned char **to = end;
	(void)L;
	if (size > (size_t)(dumped + sizeof dumped - *to))
		return 1;
	memcpy(*to, data, size);
	*to += size;
	return 0;
}

/* compile NAME <source >chunk */
int main(int argc, char **argv)
{
	static char text[1 << 20];
	size_t size = fread(text, 1, sizeof text, stdin);
	unsigned char *end = dumped;
	lua_State *L = luaL_newstate();
	if (argc != 2 || size == sizeof text || luaL_loadbufferx(L, text, size, argv[1], "t") != LUA_OK) {
		fprintf(stderr, "%s\n", L && argc == 2 ? lua_tostring(L, -1) : "compile NAME <source");
		return 1;
	}
	if (lua_dump(L, put, &end, 0))
		return 1;
	bytes(32); /* the head, and how many upvalues there are */
	function();
	return at != end || fflush(stdout);
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
