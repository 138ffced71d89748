/* lua_text.c -- worker.core.text: text and bytes for Lua, a whole one at a time.  Floor 5.
 *
 *	valid(s) -> true | false, byte        repair(s) -> s            has_nul(s) -> bool
 *	cut(s, bytes, "head"|"tail") -> s     width(s) -> columns       fit(s, columns) -> s
 *	plain(s) -> s                         distance(a, b) -> n       random_id(n) -> s
 *	percent(s, keep) -> s                 unpercent(s, plus) -> s | nil
 *	base64(s, url) -> s                   unbase64(s) -> s | nil
 *	hex(s) -> s                           unhex(s) -> s | nil
 *	sha256(s) -> 32 bytes                 hmac_sha256(key, s) -> 32 bytes
 *	sha1(s) -> 20 bytes                   random(n) -> n bytes
 *	mask(s, key of 4 bytes) -> s
 *
 * What keeps a state between chunks is in lua_flow.c.  Output goes into a luaL_Buffer of the size
 * that is enough at worst: memory of Lua's, so a raise leaves nothing.
 */
#include <stdlib.h>
#include <string.h>

#include "worker/coding.h"
#include "worker/door.h"
#include "worker/doors.h"
#include "worker/sha1.h"
#include "worker/sha256.h"
#include "worker/text.h"
#include "worker/utf8.h"

/* --- characters --- */

static int core_valid(lua_State *L)
{
	size_t n;
	const char *s = luaL_checklstring(L, 1, &n);
	size_t good = utf8_valid(s, n);
	lua_pushboolean(L, good == n);
	if (good == n)
		return 1;
	lua_pushinteger(L, (lua_Integer)good + 1);
	return 2;
}

static int core_repair(lua_State *L)
{
	size_t n;
	const char *s = luaL_checklstring(L, 1, &n);
	size_t good = utf8_valid(s, n);
	if (good == n) {
		lua_settop(L, 1);
		return 1;
	}
	luaL_Buffer buffer;
	luaL_buffinit(L, &buffer);
	while (good < n) {
		luaL_addlstring(&buffer, s, good);
		luaL_addlstring(&buffer, UTF8_BAD, UTF8_BAD_SIZE);
		size_t bad = (size_t)-utf8_char(s + good, n - good);
		s += good + bad;
		n -= good + bad;
		good = utf8_valid(s, n);
	}
	luaL_addlstring(&buffer, s, n);
	luaL_pushresult(&buffer);
	return 1;
}

static int core_has_nul(lua_State *L)
{
	size_t n;
	const char *s = luaL_checklstring(L, 1, &n);
	lua_pushboolean(L, memchr(s, '\0', n) != NULL);
	return 1;
}

static int core_cut(lua_State *L)
{
	static const char *const sides[] = {"head", "tail", NULL};
	size_t n;
	const char *s = luaL_checklstring(L, 1, &n);
	lua_Integer most = luaL_checkinteger(L, 2);
	luaL_argcheck(L, most >= 0, 2, "must not be negative");
	int tail = luaL_checkoption(L, 3, "head", sides);
	if ((lua_Unsigned)most >= n) {
		lua_settop(L, 1);
		return 1;
	}
	size_t keep = (size_t)most;
	size_t at = tail ? utf8_ceil(s, n, n - keep) : utf8_floor(s, n, keep);
	lua_pushlstring(L, tail ? s + at : s, tail ? n - at : at);
	return 1;
}

static int core_width(lua_State *L)
{
	size_t n;
	const char *s = luaL_checklstring(L, 1, &n);
	lua_pushinteger(L, (lua_Integer)text_width(s, n));
	return 1;
}

static int core_fit(lua_State *L)
{
	size_t n;
	const char *s = luaL_checklstring(L, 1, &n);
	lua_Integer columns = luaL_checkinteger(L, 2);
	lua_pushlstring(L, s, text_fit(s, n, columns > 0 ? (size_t)columns : 0));
	return 1;
}

static int core_plain(lua_State *L)
{
	size_t n;
	const char *s = luaL_checklstring(L, 1, &n);
	if (memchr(s, 0x1b, n) == NULL) {
		lua_settop(L, 1);
		return 1;
	}
	struct text_ansi ansi = {0};
	luaL_Buffer buffer;
	char *to = luaL_buffinitsize(L, &buffer, n);
	luaL_pushresultsize(&buffer, text_plain(&ansi, to, s, n));
	return 1;
}

static int core_distance(lua_State *L)
{
	size_t n, m;
	const char *a = luaL_checklstring(L, 1, &n), *b = luaL_checklstring(L, 2, &m);
	lua_pushinteger(L, text_distance(a, n, b, m));
	return 1;
}

/* --- bytes as text --- */

static int core_percent(lua_State *L)
{
	size_t n;
	const char *s = luaL_checklstring(L, 1, &n), *keep = luaL_optstring(L, 2, "");
	luaL_Buffer buffer;
	char *to = luaL_buffinitsize(L, &buffer, CODING_PERCENT_SIZE(n));
	luaL_pushresultsize(&buffer, coding_percent(to, s, n, keep));
	return 1;
}

static int core_base64(lua_State *L)
{
	size_t n;
	const char *s = luaL_checklstring(L, 1, &n);
	bool url = lua_toboolean(L, 2);
	luaL_Buffer buffer;
	char *to = luaL_buffinitsize(L, &buffer, CODING_BASE64_SIZE(n));
	luaL_pushresultsize(&buffer, coding_base64(to, s, n, url));
	return 1;
}

static int push_hex(lua_State *L, const char *s, size_t n)
{
	luaL_Buffer buffer;
	char *to = luaL_buffinitsize(L, &buffer, CODING_HEX_SIZE(n));
	luaL_pushresultsize(&buffer, coding_hex(to, s, n));
	return 1;
}

static int core_hex(lua_State *L)
{
	size_t n;
	const char *s = luaL_checklstring(L, 1, &n);
	return push_hex(L, s, n);
}

/* Push what a reader wrote, or nil when it refused. */
static int push_read(lua_State *L, luaL_Buffer *buffer, ssize_t size)
{
	luaL_pushresultsize(buffer, size < 0 ? 0 : (size_t)size);
	if (size < 0)
		lua_pushnil(L);
	return 1;
}

static int core_unpercent(lua_State *L)
{
	size_t n;
	const char *s = luaL_checklstring(L, 1, &n);
	bool plus = lua_toboolean(L, 2);
	luaL_Buffer buffer;
	char *to = luaL_buffinitsize(L, &buffer, n);
	return push_read(L, &buffer, coding_unpercent(to, s, n, plus));
}

static int core_unbase64(lua_State *L)
{
	size_t n;
	const char *s = luaL_checklstring(L, 1, &n);
	luaL_Buffer buffer;
	char *to = luaL_buffinitsize(L, &buffer, n / 4 * 3 + 3);
	return push_read(L, &buffer, coding_unbase64(to, s, n));
}

static int core_unhex(lua_State *L)
{
	size_t n;
	const char *s = luaL_checklstring(L, 1, &n);
	luaL_Buffer buffer;
	char *to = luaL_buffinitsize(L, &buffer, n / 2);
	return push_read(L, &buffer, coding_unhex(to, s, n));
}

/* --- digests, chance --- */

static int core_sha256(lua_State *L)
{
	size_t n;
	unsigned char digest[SHA256_SIZE];
	struct sha256 sha;
	const char *s = luaL_checklstring(L, 1, &n);
	sha256_start(&sha);
	sha256_feed(&sha, s, n);
	sha256_end(&sha, digest);
	lua_pushlstring(L, (const char *)digest, sizeof digest);
	return 1;
}

static int core_hmac_sha256(lua_State *L)
{
	size_t key_size, n;
	unsigned char digest[SHA256_SIZE];
	const char *key = luaL_checklstring(L, 1, &key_size), *s = luaL_checklstring(L, 2, &n);
	sha256_hmac(key, key_size, s, n, digest);
	lua_pushlstring(L, (const char *)digest, sizeof digest);
	return 1;
}

static int core_sha1(lua_State *L)
{
	size_t n;
	unsigned char digest[SHA1_SIZE];
	const char *s = luaL_checklstring(L, 1, &n);
	sha1_digest(s, n, digest);
	lua_pushlstring(L, (const char *)digest, sizeof digest);
	return 1;
}

static int core_random(lua_State *L)
{
	char bytes[256];
	lua_Integer n = luaL_checkinteger(L, 1);
	luaL_argcheck(L, n >= 1 && n <= (lua_Integer)sizeof bytes, 1, "1 to 256 bytes");
	coding_bytes(bytes, (size_t)n);
	lua_pushlstring(L, bytes, (size_t)n);
	return 1;
}

static int core_mask(lua_State *L)
{
	size_t n, key_size;
	const char *s = luaL_checklstring(L, 1, &n), *key = luaL_checklstring(L, 2, &key_size);
	luaL_argcheck(L, key_size == 4, 2, "expected four bytes");
	luaL_Buffer buffer;
	char *to = luaL_buffinitsize(L, &buffer, n);
	coding_mask(to, s, n, key);
	luaL_pushresultsize(&buffer, n);
	return 1;
}

static int core_random_id(lua_State *L)
{
	char id[256];
	lua_Integer n = luaL_optinteger(L, 1, 26);
	luaL_argcheck(L, n >= 1 && n <= (lua_Integer)sizeof id, 1, "1 to 256 characters");
	coding_random(id, (size_t)n);
	lua_pushlstring(L, id, (size_t)n);
	return 1;
}

static const luaL_Reg functions[] = {
	{"valid", core_valid},
	{"repair", core_repair},
	{"has_nul", core_has_nul},
	{"cut", core_cut},
	{"width", core_width},
	{"fit", core_fit},
	{"plain", core_plain},
	{"distance", core_distance},
	{"percent", core_percent},
	{"unpercent", core_unpercent},
	{"base64", core_base64},
	{"unbase64", core_unbase64},
	{"hex", core_hex},
	{"unhex", core_unhex},
	{"sha256", core_sha256},
	{"hmac_sha256", core_hmac_sha256},
	{"sha1", core_sha1},
	{"random", core_random},
	{"mask", core_mask},
	{"random_id", core_random_id},
	{NULL, NULL},
};

int luaopen_worker_core_text(lua_State *L)
{
	luaL_newlib(L, functions);
	return 1;
}
