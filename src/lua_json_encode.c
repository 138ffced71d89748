/* lua_json_encode.c -- worker.core.json_encode: writing JSON for Lua.  Floor 5.
 *
 *	encode(value, {pretty=, sorted=, strict=, depth=, max_bytes=}) -> text
 *
 * The text grows in a buffer that outlives the call: it belongs to a userdata kept as an upvalue,
 * so a raise in the middle leaks nothing, and the next call finds the room already there.  There is
 * never a second user: no metamethod is called, and nothing is allocated in Lua before the text is
 * complete, so that no finalizer runs either.
 *
 * Keys are sorted: the same value always gives the same text, which makes logs, tests and
 * signatures comparable.  For that the members of an object are first collected as C items, which
 * hold scalars as they are and point into the table's own strings; a nested table waits on the
 * stack.
 */
#include <endian.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "worker/buf.h"
#include "worker/door.h"
#include "worker/doors.h"
#include "worker/json.h"
#include "worker/json_write.h"

#define ENCODE_BYTES ((lua_Integer)64 * 1024 * 1024)
#define ENCODE_KEEP  ((size_t)256 * 1024) /* an idle buffer keeps at most this */

enum item_kind {
	ITEM_NULL,
	ITEM_BOOL,
	ITEM_INTEGER,
	ITEM_REAL,
	ITEM_STRING,
	ITEM_VERBATIM,
	ITEM_TABLE,
	ITEM_REFUSED
};

struct item {
	uint64_t order; /* the first eight bytes of the key: decides most comparisons */
	const char *key;
	size_t key_size;
	enum item_kind kind;
	int slot;    /* where on the stack a nested table waits */
	size_t size; /* of text */
	union {
		lua_Integer integer;
		lua_Number real;
		const char *text;
	} is;
};

/* The tables around the value being written: for the path in messages, and to see a cycle. */
struct frame {
	const struct frame *up;
	const void *table;
	const char *key; /* NULL in a list */
	size_t key_size;
	lua_Integer index;
};

struct encoder {
	struct buf out;
	struct item *items; /* a stack: those of the objects being written */
	size_t count, room;
	unsigned depth, level;
	bool pretty, sorted, strict;
};

static void encoder_close(lua_State *L, void *box)
{
	(void)L;
	struct encoder *e = box;
	buf_free(&e->out);
	free(e->items);
	e->items = NULL;
	e->count = e->room = 0;
}

static const struct door_type encoder_type = {.name = "worker.json.encoder",
					      .close = encoder_close};

/* --- what cannot be written --- */

/* A key in a path: plainly where it looks like a name, else in quotes; never very long. */
static void path_add_key(luaL_Buffer *path, const char *key, size_t size)
{
	bool name = size > 0;
	for (size_t i = 0; i < size && name; i++)
		name = json_plain(key + i, 1) == 1 && strchr(" .[]", key[i]) == NULL;
	size_t shown = size < 40 ? size : 40;
	luaL_addstring(path, name ? "." : "[\"");
	luaL_addlstring(path, key, shown);
	luaL_addstring(path, shown < size ? "..." : "");
	luaL_addstring(path, name ? "" : "\"]");
}

#define PATH_SHOWN 16 /* of a path longer than this, only the beginning is told */

static void push_path(lua_State *L, const struct frame *frame)
{
	const struct frame *frames[PATH_SHOWN];
	size_t length = 0, skip = 0;
	for (const struct frame *f = frame; f != NULL; f = f->up)
		length++;
	for (; length - skip > PATH_SHOWN; skip++)
		frame = frame->up;
	for (size_t i = length - skip; i > 0; i--, frame = frame->up)
		frames[i - 1] = frame;
	luaL_Buffer path;
	luaL_buffinit(L, &path);
	luaL_addchar(&path, '$');
	for (size_t i = 0; i < length - skip; i++) {
		if (frames[i]->key != NULL) {
			path_add_key(&path, frames[i]->key, frames[i]->key_size);
			continue;
		}
		char text[32];
		text[0] = '[';
		size_t size = json_write_integer(text + 1, frames[i]->index);
		text[size + 1] = ']';
		luaL_addlstring(&path, text, size + 2);
	}
	if (skip > 0)
		luaL_addstring(&path, "...");
	luaL_pushresult(&path);
}

/* Raise "json: $.steps[3].env: what". */
static void refuse(lua_State *L, const struct frame *frame, const char *what)
{
	luaL_checkstack(L, 16, NULL);
	lua_pushstring(L, what); /* may lie on the stack that the path now needs */
	push_path(L, frame);
	luaL_error(L, "json: %s: %s", lua_tostring(L, -1), lua_tostring(L, -2));
}

/* The same for the value at ${index}, whose type is named. */
static void refuse_type(lua_State *L, const struct frame *frame, const char *before, int index,
			const char *after)
{
	char text[128];
	snprintf(text, sizeof text, "%s%s%s", before, luaL_typename(L, index), after);
	refuse(L, frame, text);
}

/* Raise what errno says about a failed append. */
static void refuse_errno(lua_State *L, const struct frame *frame)
{
	struct err err;
	if (errno == EILSEQ)
		refuse(L, frame, "a string that is not UTF-8");
	if (errno == EMSGSIZE)
		err_set(&err, errno, "json: the text would be longer than max_bytes");
	else
		err_errno(&err, "json: encoding");
	door_raise(L, "limit", &err);
}

static inline void put(lua_State *L, struct encoder *e, const void *bytes, size_t n)
{
	if (buf_append(&e->out, bytes, n) == -1)
		refuse_errno(L, NULL);
}

static void put_line(lua_State *L, struct encoder *e)
{
	if (!e->pretty)
		return;
	put(L, e, "\n", 1);
	for (unsigned i = 0; i < e->level; i++)
		put(L, e, "  ", 2);
}

/* --- scalars --- */

static void read_number(lua_State *L, int index, struct item *item)
{
	if (lua_isinteger(L, index)) {
		item->kind = ITEM_INTEGER;
		item->is.integer = lua_tointeger(L, index);
	} else {
		item->kind = ITEM_REAL;
		item->is.real = lua_tonumber(L, index);
	}
}

static void read_userdata(lua_State *L, int index, struct item *item)
{
	if (luaL_testudata(L, index, "worker.json.raw") == NULL &&
	    luaL_testudata(L, index, "worker.json.number") == NULL)
		return;
	item->kind = ITEM_VERBATIM;
	item->is.text = lua_touserdata(L, index);
	item->size = lua_rawlen(L, index);
}

/* What the value at ${index} is; all of it unless it is a table. */
static void read_item(lua_State *L, int index, struct item *item)
{
	item->kind = ITEM_REFUSED;
	switch (lua_type(L, index)) {
	case LUA_TNIL:
		item->kind = ITEM_NULL;
		break;
	case LUA_TBOOLEAN:
		item->kind = ITEM_BOOL;
		item->is.integer = lua_toboolean(L, index);
		break;
	case LUA_TNUMBER:
		read_number(L, index, item);
		break;
	case LUA_TSTRING:
		item->kind = ITEM_STRING;
		item->is.text = lua_tolstring(L, index, &item->size);
		break;
	case LUA_TTABLE:
		item->kind = ITEM_TABLE;
		break;
	case LUA_TLIGHTUSERDATA:
		if (lua_touserdata(L, index) == NULL)
			item->kind = ITEM_NULL;
		break;
	case LUA_TUSERDATA:
		read_userdata(L, index, item);
		break;
	}
}

static void write_scalar(lua_State *L, struct encoder *e, const struct frame *frame,
			 const struct item *item)
{
	char digits[32];
	switch (item->kind) {
	case ITEM_NULL:
		put(L, e, "null", 4);
		break;
	case ITEM_BOOL:
		put(L, e, item->is.integer ? "true" : "false", item->is.integer ? 4 : 5);
		break;
	case ITEM_INTEGER:
		put(L, e, digits, json_write_integer(digits, item->is.integer));
		break;
	case ITEM_REAL:
		if (!isfinite(item->is.real))
			refuse(L, frame, "a number that is not finite");
		put(L, e, digits, json_write_real(digits, item->is.real));
		break;
	case ITEM_STRING:
		if (json_write_string(&e->out, item->is.text, item->size, e->strict) == -1)
			refuse_errno(L, frame);
		break;
	default:
		put(L, e, item->is.text, item->size);
	}
}

/* --- tables --- */

static void write_value(lua_State *L, struct encoder *e, const struct frame *frame,
			const struct item *item);

/* Room on the stack of items: it may move, so nobody keeps a pointer into it. */
static struct item *item_add(lua_State *L, struct encoder *e)
{
	if (e->count == e->room) {
		size_t room = e->room ? e->room * 2 : 64;
		struct item *items = realloc(e->items, room * sizeof *items);
		if (items == NULL)
			refuse_errno(L, NULL);
		e->items = items;
		e->room = room;
	}
	return &e->items[e->count++];
}

static uint64_t key_order(const char *key, size_t size)
{
	uint64_t first = 0;
	memcpy(&first, key, size < sizeof first ? size : sizeof first);
	return be64toh(first);
}

static int item_compare(const void *left, const void *right)
{
	const struct item *a = left, *b = right;
	if (a->order != b->order)
		return a->order < b->order ? -1 : 1;
	int sign = memcmp(a->key, b->key, a->key_size < b->key_size ? a->key_size : b->key_size);
	return sign ? sign : (a->key_size > b->key_size) - (a->key_size < b->key_size);
}

/* Most objects have a handful of members, for which calling qsort takes longer than the sorting. */
static void items_sort(struct item *items, size_t count)
{
	if (count > 12) {
		qsort(items, count, sizeof *items, item_compare);
		return;
	}
	for (size_t i = 1; i < count; i++) {
		struct item item = items[i];
		size_t at = i;
		for (; at > 0 && item_compare(&item, &items[at - 1]) < 0; at--)
			items[at] = items[at - 1];
		items[at] = item;
	}
}

/* Collect the members of the object at ${table}, whose first pair lies on the stack.  Nested
 * tables, and what cannot be written, stay there. */
static void collect(lua_State *L, struct encoder *e, const struct frame *frame, int table)
{
	do {
		if (lua_type(L, -2) != LUA_TSTRING)
			refuse_type(L, frame, "a key that is a ", -2, ", not a string");
		struct item *item = item_add(L, e);
		item->key = lua_tolstring(L, -2, &item->key_size);
		item->order = key_order(item->key, item->key_size);
		read_item(L, -1, item);
		if (item->kind == ITEM_TABLE || item->kind == ITEM_REFUSED) {
			luaL_checkstack(L, 12, "too many tables in a JSON object");
			lua_insert(L, -2);
			item->slot = lua_gettop(L) - 1;
		} else {
			lua_pop(L, 1);
		}
	} while (lua_next(L, table));
}

static void write_member(lua_State *L, struct encoder *e, struct frame *frame,
			 const struct item *item)
{
	frame->key = item->key;
	frame->key_size = item->key_size;
	put_line(L, e);
	if (json_write_string(&e->out, item->key, item->key_size, e->strict) == -1)
		refuse_errno(L, frame);
	put(L, e, ":", 1);
	if (e->pretty)
		put(L, e, " ", 1);
	if (item->kind != ITEM_TABLE && item->kind != ITEM_REFUSED) {
		write_scalar(L, e, frame, item);
		return;
	}
	lua_pushvalue(L, item->slot);
	write_value(L, e, frame, item); /* the stack of items may move: this one is gone then */
	lua_pop(L, 1);
}

/* The object at ${table}; its first pair lies on the stack, or nothing when it has none. */
static void write_object(lua_State *L, struct encoder *e, struct frame *frame, int table)
{
	size_t first = e->count;
	if (lua_gettop(L) > table)
		collect(L, e, frame->up, table);
	size_t last = e->count;
	if (e->sorted)
		items_sort(e->items + first, last - first);
	put(L, e, "{", 1);
	for (size_t i = first; i < last; i++) {
		if (i > first)
			put(L, e, ",", 1);
		write_member(L, e, frame, &e->items[i]);
	}
	lua_settop(L, table);
	e->count = first;
	e->level--;
	if (last > first)
		put_line(L, e);
	put(L, e, "}", 1);
}

/* The list on top of the stack has ${length} items and nothing else: so many pairs, and each of
 * 1 .. ${length} there, which write_list sees. */
static void check_list(lua_State *L, const struct frame *frame, lua_Integer length)
{
	lua_Integer pairs = 0;
	lua_pushnil(L);
	while (lua_next(L, -2)) {
		lua_pop(L, 1);
		if (!lua_isinteger(L, -1))
			refuse(L, frame, "a table with list items and other keys");
		pairs++;
	}
	if (pairs != length)
		refuse(L, frame, "a list with holes (json.null fills one)");
}

static void write_list(lua_State *L, struct encoder *e, struct frame *frame)
{
	lua_Integer length = (lua_Integer)lua_rawlen(L, -1);
	check_list(L, frame->up, length);
	put(L, e, "[", 1);
	for (lua_Integer i = 1; i <= length; i++) {
		struct item item;
		frame->index = i;
		if (i > 1)
			put(L, e, ",", 1);
		put_line(L, e);
		if (lua_rawgeti(L, -1, i) == LUA_TNIL)
			refuse(L, frame->up, "a list with holes (json.null fills one)");
		read_item(L, -1, &item);
		write_value(L, e, frame, &item);
		lua_pop(L, 1);
	}
	e->level--;
	if (length > 0)
		put_line(L, e);
	put(L, e, "]", 1);
}

/* Marked as what?  1 a list, 0 an object, -1 not marked. */
static int marked(lua_State *L)
{
	if (!lua_getmetatable(L, -1))
		return -1;
	luaL_getmetatable(L, "worker.json.array");
	luaL_getmetatable(L, "worker.json.object");
	int is = lua_rawequal(L, -3, -2) ? 1 : lua_rawequal(L, -3, -1) ? 0 : -1;
	lua_pop(L, 3);
	return is;
}

/* Write the table on top of the stack; ${up} says where it is. */
static void write_table(lua_State *L, struct encoder *e, const struct frame *up)
{
	struct frame frame = {.up = up, .table = lua_topointer(L, -1)};
	for (const struct frame *f = up; f != NULL; f = f->up)
		if (f->table == frame.table)
			refuse(L, up, "a table inside itself");
	if (e->level >= e->depth)
		refuse(L, up, "values nested too deep");
	luaL_checkstack(L, 12, "JSON nested too deep");
	e->level++;
	int table = lua_gettop(L), is = marked(L);
	if (is == 1 || (is == -1 && lua_rawlen(L, table) > 0)) {
		write_list(L, e, &frame);
		return;
	}
	lua_pushnil(L);
	if (lua_next(L, table) && is == -1 && lua_type(L, -2) == LUA_TNUMBER) {
		lua_settop(L, table);
		write_list(L, e, &frame); /* one with holes: says so */
	} else {
		write_object(L, e, &frame, table);
	}
}

static void write_value(lua_State *L, struct encoder *e, const struct frame *frame,
			const struct item *item)
{
	if (item->kind == ITEM_TABLE)
		write_table(L, e, frame);
	else if (item->kind == ITEM_REFUSED)
		refuse_type(L, frame, "a ", -1, " has no JSON form");
	else
		write_scalar(L, e, frame, item);
}

/* --- the function --- */

/* The options are read before anything is changed: reading may allocate, so a finalizer may run and
 * encode something of its own. */
static void encoder_prepare(lua_State *L, struct encoder *e)
{
	lua_Integer ceiling = ENCODE_BYTES, depth = JSON_DEPTH;
	bool pretty = false, sorted = true, strict = false;
	if (!lua_isnoneornil(L, 2)) {
		luaL_checktype(L, 2, LUA_TTABLE);
		depth = door_integer(L, 2, "depth", 0, JSON_DEPTH_MOST, JSON_DEPTH);
		ceiling = door_integer(L, 2, "max_bytes", 1, LUA_MAXINTEGER, ENCODE_BYTES);
		pretty = door_bool(L, 2, "pretty", false);
		sorted = door_bool(L, 2, "sorted", true);
		strict = door_bool(L, 2, "strict", false);
	}
	e->pretty = pretty;
	e->sorted = sorted;
	e->strict = strict;
	e->depth = (unsigned)depth;
	e->level = 0;
	e->count = 0;
	e->out.head = e->out.tail = 0; /* a raise may have left something */
	e->out.ceiling = (size_t)ceiling;
}

static int core_encode(lua_State *L)
{
	luaL_checkany(L, 1);
	struct encoder *e = lua_touserdata(L, lua_upvalueindex(1));
	encoder_prepare(L, e);
	lua_settop(L, 1);
	struct item item;
	read_item(L, 1, &item);
	write_value(L, e, NULL, &item);
	lua_pushlstring(L, buf_head(&e->out), buf_size(&e->out));
	if (e->out.room > ENCODE_KEEP)
		buf_free(&e->out);
	return 1;
}

int luaopen_worker_core_json_encode(lua_State *L)
{
	struct encoder *e = door_box(L, &encoder_type, sizeof *e);
	buf_init(&e->out, (size_t)ENCODE_BYTES);
	lua_pushcclosure(L, core_encode, 1);
	return 1;
}
