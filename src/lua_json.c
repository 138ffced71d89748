/* lua_json.c -- worker.core.json: reading JSON for Lua.  Floor 5.
 *
 *	json.decode(text, {depth=, max_bytes=, no_nul=, null=}) -> value; raises kind "wire"
 *	json.valid(text, {depth=, max_bytes=, no_nul=}) -> true | false, message
 *	json.scan(text, at, {depth=, no_nul=}) -> from, to | nil | nil, message, cut
 *	json.last_object_line(text, {depth=, no_nul=}) -> line | nil
 *	json.raw(text, {...}), json.number(text): written as they are by the encoder
 *	json.array(table), json.object(table), json.null
 *	json.is_array(value), json.is_special(value)
 *
 * The decoder makes one pass and builds tables as it goes.  What belongs into a table waits on the
 * Lua stack, a batch at a time, so that the table is made with its final size in nearly all cases;
 * growing it field by field would cost more than the parsing.  Nothing is allocated outside Lua, so
 * a raise at any point leaves nothing behind.
 */
#include <string.h>

#include "worker/door.h"
#include "worker/doors.h"
#include "worker/json.h"

#define LIST_META   "worker.json.array"
#define OBJECT_META "worker.json.object"
#define RAW_META    "worker.json.raw"
#define NUMBER_META "worker.json.number"

#define JSON_BYTES ((lua_Integer)16 * 1024 * 1024)

/* How many list items or object members wait on the stack before their table is made. */
#define BATCH 24

struct decoder {
	struct json_text text;
	unsigned depth; /* how many more levels may be opened */
	int null;	/* stack index of what stands for null, or 0 */
};

static int raise_fault(lua_State *L, const struct json_text *text)
{
	struct err err;
	size_t line, column;
	json_explain(text, &err);
	json_where(text, &line, &column);
	door_push_error(L, "wire", &err);
	lua_pushinteger(L, (lua_Integer)line);
	lua_setfield(L, -2, "line");
	lua_pushinteger(L, (lua_Integer)column);
	lua_setfield(L, -2, "column");
	lua_pushinteger(L, text->at - text->start + 1);
	lua_setfield(L, -2, "byte");
	return lua_error(L);
}

/* --- values --- */

static void decode_value(lua_State *L, struct decoder *d, bool in_list);

static void push_verbatim(lua_State *L, const char *meta, const char *bytes, size_t size)
{
	memcpy(lua_newuserdatauv(L, size, 0), bytes, size);
	luaL_setmetatable(L, meta);
}

static void decode_string(lua_State *L, struct decoder *d)
{
	struct json_string string;
	if (json_string(&d->text, &string) == -1)
		raise_fault(L, &d->text);
	if (!string.escaped) {
		lua_pushlstring(L, string.bytes, string.size);
		return;
	}
	luaL_Buffer buffer;
	char *to = luaL_buffinitsize(L, &buffer, string.size);
	luaL_pushresultsize(&buffer, json_unescape(&string, to));
}

static void decode_number(lua_State *L, struct decoder *d)
{
	struct json_number number;
	if (json_number(&d->text, &number) == -1)
		raise_fault(L, &d->text);
	if (number.kind == JSON_INTEGER)
		lua_pushinteger(L, number.integer);
	else if (number.kind == JSON_REAL)
		lua_pushnumber(L, number.real);
	else
		push_verbatim(L, NUMBER_META, number.bytes, number.size);
}

static void decode_word(lua_State *L, struct decoder *d, bool in_list)
{
	int word = json_word(&d->text);
	if (word == -1)
		raise_fault(L, &d->text);
	if (word != 'n')
		lua_pushboolean(L, word == 't');
	else if (d->null != 0)
		lua_pushvalue(L, d->null);
	else if (in_list)
		lua_pushlightuserdata(L, NULL);
	else
		lua_pushnil(L);
}

static void decode_open(lua_State *L, struct decoder *d)
{
	if (d->depth == 0) {
		json_fail(&d->text, d->text.at, "values nested too deep");
		raise_fault(L, &d->text);
	}
	d->depth--;
	d->text.at++;
	luaL_checkstack(L, 2 * BATCH + 8, "JSON nested too deep");
	lua_pushnil(L); /* where the table will be */
	json_space(&d->text);
}

/* After a value: true when a comma says that another follows; false behind the closing one. */
static bool decode_more(lua_State *L, struct decoder *d, char closing)
{
	json_space(&d->text);
	bool ended = d->text.at == d->text.end;
	if (!ended && *d->text.at == ',') {
		d->text.at++;
		return true;
	}
	if (ended || *d->text.at != closing) {
		json_fail(&d->text, d->text.at,
			  closing == ']' ? "expected ',' or ']'" : "expected ',' or '}'");
		raise_fault(L, &d->text);
	}
	d->text.at++;
	d->depth++;
	return false;
}

/* Move what waits above ${base} into the list there, behind its ${count} items. */
static lua_Integer flush_list(lua_State *L, int base, lua_Integer count)
{
	int waiting = lua_gettop(L) - base;
	if (count == 0) {
		lua_createtable(L, waiting, 0);
		luaL_setmetatable(L, LIST_META);
		lua_replace(L, base);
	}
	for (int i = waiting; i > 0; i--)
		lua_rawseti(L, base, count + i);
	return count + waiting;
}

static void decode_list(lua_State *L, struct decoder *d)
{
	decode_open(L, d);
	int base = lua_gettop(L);
	lua_Integer count = 0;
	if (d->text.at < d->text.end && *d->text.at == ']') {
		d->text.at++;
		d->depth++;
		flush_list(L, base, 0);
		return;
	}
	do {
		decode_value(L, d, true);
		if (lua_gettop(L) - base == BATCH)
			count = flush_list(L, base, count);
	} while (decode_more(L, d, ']'));
	flush_list(L, base, count);
}

/* Move the pairs that wait above ${base} into the table there, in their order: of equal keys the
 * last one wins. */
static void flush_object(lua_State *L, int base)
{
	int top = lua_gettop(L);
	if (lua_isnil(L, base)) {
		lua_createtable(L, 0, (top - base) / 2);
		lua_replace(L, base);
	}
	for (int i = base + 1; i < top; i += 2) {
		lua_pushvalue(L, i);
		lua_pushvalue(L, i + 1);
		lua_rawset(L, base);
	}
	lua_settop(L, base);
}

static void decode_key(lua_State *L, struct decoder *d)
{
	json_space(&d->text);
	if (d->text.at == d->text.end || *d->text.at != '"') {
		json_fail(&d->text, d->text.at, "expected a key in quotes");
		raise_fault(L, &d->text);
	}
	decode_string(L, d);
	json_space(&d->text);
	if (d->text.at == d->text.end || *d->text.at != ':') {
		json_fail(&d->text, d->text.at, "expected ':'");
		raise_fault(L, &d->text);
	}
	d->text.at++;
}

static void decode_object(lua_State *L, struct decoder *d)
{
	decode_open(L, d);
	int base = lua_gettop(L);
	if (d->text.at < d->text.end && *d->text.at == '}') {
		d->text.at++;
		d->depth++;
		flush_object(L, base);
		return;
	}
	do {
		decode_key(L, d);
		decode_value(L, d, false);
		if (lua_gettop(L) - base == 2 * BATCH)
			flush_object(L, base);
	} while (decode_more(L, d, '}'));
	flush_object(L, base);
}

/* Push exactly one value. */
static void decode_value(lua_State *L, struct decoder *d, bool in_list)
{
	json_space(&d->text);
	switch (d->text.at < d->text.end ? *d->text.at : '\0') {
	case '"':
		decode_string(L, d);
		break;
	case '{':
		decode_object(L, d);
		break;
	case '[':
		decode_list(L, d);
		break;
	case 't':
	case 'f':
	case 'n':
		decode_word(L, d, in_list);
		break;
	default:
		decode_number(L, d);
	}
}

/* --- options --- */

struct limits {
	unsigned depth;
	size_t max_bytes;
	bool no_nul;
};

static struct limits read_limits(lua_State *L, int index)
{
	struct limits limits = {.depth = JSON_DEPTH, .max_bytes = (size_t)JSON_BYTES};
	if (lua_isnoneornil(L, index))
		return limits;
	luaL_checktype(L, index, LUA_TTABLE);
	limits.depth = (unsigned)door_integer(L, index, "depth", 0, JSON_DEPTH_MOST, JSON_DEPTH);
	limits.max_bytes =
		(size_t)door_integer(L, index, "max_bytes", 0, LUA_MAXINTEGER, JSON_BYTES);
	limits.no_nul = door_bool(L, index, "no_nul", false);
	return limits;
}

/* The text at argument 1, which must be a string: a number would be one by surprise. */
static struct json_text check_text(lua_State *L, const struct limits *limits)
{
	struct json_text text;
	size_t size;
	luaL_checktype(L, 1, LUA_TSTRING);
	const char *start = lua_tolstring(L, 1, &size);
	json_text_init(&text, start, size, limits->no_nul);
	if (size > limits->max_bytes)
		json_fail(&text, start, "the text is longer than max_bytes");
	else if (size >= 3 && memcmp(start, "\xef\xbb\xbf", 3) == 0)
		json_fail(&text, start, "a byte order mark does not belong here");
	return text;
}

/* --- functions --- */

static int core_decode(lua_State *L)
{
	struct limits limits = read_limits(L, 2);
	struct decoder d = {.text = check_text(L, &limits), .depth = limits.depth};
	if (d.text.fault != NULL)
		return raise_fault(L, &d.text);
	if (!lua_isnoneornil(L, 2)) {
		lua_settop(L, 2);
		if (lua_getfield(L, 2, "null") != LUA_TNIL)
			d.null = 3;
	}
	luaL_checkstack(L, 8, NULL);
	decode_value(L, &d, false);
	if (json_end(&d.text) == -1)
		return raise_fault(L, &d.text);
	return 1;
}

static int core_valid(lua_State *L)
{
	struct limits limits = read_limits(L, 2);
	struct json_text text = check_text(L, &limits);
	if (text.fault == NULL && json_skip(&text, limits.depth) == 0 && json_end(&text) == 0) {
		lua_pushboolean(L, 1);
		return 1;
	}
	struct err err;
	json_explain(&text, &err);
	lua_pushboolean(L, 0);
	lua_pushstring(L, err.text);
	return 2;
}

static int core_scan(lua_State *L)
{
	struct limits limits = read_limits(L, 3);
	limits.max_bytes = SIZE_MAX;
	lua_Integer from = luaL_optinteger(L, 2, 1);
	struct json_text text = check_text(L, &limits);
	luaL_argcheck(L, from >= 1 && from <= text.end - text.start + 1, 2, "outside the text");
	text.at = text.start + from - 1;
	json_space(&text);
	const char *begin = text.at;
	if (begin == text.end)
		return 0;
	if (json_skip(&text, limits.depth) == 0) {
		lua_pushinteger(L, begin - text.start + 1);
		lua_pushinteger(L, text.at - text.start);
		return 2;
	}
	struct err err;
	json_explain(&text, &err);
	lua_pushnil(L);
	lua_pushstring(L, err.text);
	lua_pushboolean(L, text.cut);
	return 3;
}

/* Is [from, end) one object and nothing else?  Space around it is taken off. */
static bool is_object(const char **from, const char **end, const struct limits *limits)
{
	while (*end > *from && strchr(" \t\r", (*end)[-1]) != NULL && (*end)[-1] != '\0')
		--*end;
	while (*from < *end && (**from == ' ' || **from == '\t'))
		++*from;
	if (*end - *from < 2 || **from != '{' || (*end)[-1] != '}')
		return false;
	struct json_text text;
	json_text_init(&text, *from, (size_t)(*end - *from), limits->no_nul);
	return json_skip(&text, limits->depth) == 0 && json_end(&text) == 0;
}

static int core_last_object_line(lua_State *L)
{
	struct limits limits = read_limits(L, 2);
	size_t size;
	luaL_checktype(L, 1, LUA_TSTRING);
	const char *text = lua_tolstring(L, 1, &size), *end = text + size;
	for (;;) {
		const char *newline = memrchr(text, '\n', (size_t)(end - text));
		const char *from = newline ? newline + 1 : text, *to = end;
		if (is_object(&from, &to, &limits)) {
			lua_pushlstring(L, from, (size_t)(to - from));
			return 1;
		}
		if (newline == NULL)
			return 0;
		end = newline;
	}
}

/* --- what the encoder is told --- */

static int core_raw(lua_State *L)
{
	struct limits limits = read_limits(L, 2);
	struct json_text text = check_text(L, &limits);
	if (text.fault != NULL || json_skip(&text, limits.depth) == -1 || json_end(&text) == -1)
		return raise_fault(L, &text);
	push_verbatim(L, RAW_META, text.start, (size_t)(text.end - text.start));
	return 1;
}

static int core_number(lua_State *L)
{
	struct limits limits = read_limits(L, 2);
	struct json_text text = check_text(L, &limits);
	struct json_number number;
	if (text.fault != NULL || json_number(&text, &number) == -1 || json_end(&text) == -1)
		return raise_fault(L, &text);
	push_verbatim(L, NUMBER_META, number.bytes, number.size);
	return 1;
}

static int mark(lua_State *L, const char *meta)
{
	if (lua_isnoneornil(L, 1))
		lua_newtable(L);
	else
		luaL_checktype(L, 1, LUA_TTABLE);
	lua_settop(L, 1);
	luaL_setmetatable(L, meta);
	return 1;
}

static int core_array(lua_State *L)
{
	return mark(L, LIST_META);
}

static int core_object(lua_State *L)
{
	return mark(L, OBJECT_META);
}

/* Has the value at 1 the metatable of that name? */
static bool has_meta(lua_State *L, const char *meta)
{
	lua_settop(L, 1);
	return lua_getmetatable(L, 1) && luaL_getmetatable(L, meta) == LUA_TTABLE &&
	       lua_rawequal(L, -1, -2);
}

static int core_is_array(lua_State *L)
{
	lua_pushboolean(L, has_meta(L, LIST_META));
	return 1;
}

static int core_is_special(lua_State *L)
{
	luaL_checkany(L, 1);
	lua_pushboolean(L, (lua_islightuserdata(L, 1) && lua_touserdata(L, 1) == NULL) ||
				   has_meta(L, LIST_META) || has_meta(L, OBJECT_META) ||
				   has_meta(L, RAW_META) || has_meta(L, NUMBER_META));
	return 1;
}

static int verbatim_tostring(lua_State *L)
{
	luaL_checktype(L, 1, LUA_TUSERDATA);
	lua_pushlstring(L, lua_touserdata(L, 1), lua_rawlen(L, 1));
	return 1;
}

static int verbatim_eq(lua_State *L)
{
	size_t size = lua_rawlen(L, 1);
	bool same = lua_getmetatable(L, 1) && lua_getmetatable(L, 2) && lua_rawequal(L, -1, -2) &&
		    size == lua_rawlen(L, 2) &&
		    memcmp(lua_touserdata(L, 1), lua_touserdata(L, 2), size) == 0;
	lua_pushboolean(L, same);
	return 1;
}

/* The marks of lists and objects may be seen (a YAML reader gives its lists the same); those of the
 * texts that are spliced in unread may not. */
static void make_meta(lua_State *L, const char *meta, const luaL_Reg *methods)
{
	luaL_newmetatable(L, meta);
	if (methods != NULL) {
		luaL_setfuncs(L, methods, 0);
		lua_pushboolean(L, 0);
		lua_setfield(L, -2, "__metatable");
	}
	lua_pop(L, 1);
}

static const luaL_Reg verbatim_methods[] = {
	{"__tostring", verbatim_tostring}, {"__eq", verbatim_eq}, {NULL, NULL}};

static const luaL_Reg functions[] = {
	{"decode", core_decode},
	{"valid", core_valid},
	{"scan", core_scan},
	{"last_object_line", core_last_object_line},
	{"raw", core_raw},
	{"number", core_number},
	{"array", core_array},
	{"object", core_object},
	{"is_array", core_is_array},
	{"is_special", core_is_special},
	{NULL, NULL},
};

int luaopen_worker_core_json(lua_State *L)
{
	make_meta(L, LIST_META, NULL);
	make_meta(L, OBJECT_META, NULL);
	make_meta(L, RAW_META, verbatim_methods);
	make_meta(L, NUMBER_META, verbatim_methods);
	luaL_newlib(L, functions);
	lua_pushlightuserdata(L, NULL); /* the same value as cjson.null */
	lua_setfield(L, -2, "null");
	return 1;
}
