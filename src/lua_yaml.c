/* lua_yaml.c -- the door worker.core.yaml: YAML text becomes Lua values.  Floor 5.
 *
 * libyaml's events are turned into tables as they come, without a tree in between.  The parser and
 * the current event live in a userdata, so whatever raises (only memory can) leaks nothing.  What
 * a person wrote wrongly never raises here: it unwinds as false, with the message and the place in
 * struct reader, because a file that does not parse is a normal answer for a parser.
 *
 * Beside the value comes a table of marks: marks[container] = {file=, kind=, at=, keys=, values=}
 * with places as line * 65536 + column, so that whoever checks the values later can say where.
 *
 * The language is deliberately smaller than YAML: one document, keys are text exactly as written
 * and never twice, no merge keys, no tags that construct things, YAML 1.2 scalars.  Depth, number
 * of nodes (an alias counts as much as what it names) and bytes have ceilings.
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <yaml.h>

#include "worker/door.h"
#include "worker/doors.h"
#include "worker/scalar.h"

/* Where things live on the Lua stack of parse(). */
enum { ARG_TEXT = 1, ARG_NAME, ARG_OPTIONS, AT_BOX, AT_MARKS, AT_ANCHORS, AT_WEIGHTS };

#define DEPTH_MOST 200 /* read_node recurses on the C stack */
#define COLUMN_MAX 65535

struct reader {
	yaml_parser_t parser;
	yaml_event_t event;
	bool parser_open, event_open;
	const char *text;
	size_t size;
	lua_Integer depth, depth_most;
	lua_Integer nodes, nodes_most;
	yaml_mark_t at; /* of the problem */
	char problem[256];
};

static void reader_close(lua_State *L, void *box)
{
	struct reader *r = box;
	(void)L;
	if (r->event_open)
		yaml_event_delete(&r->event);
	if (r->parser_open)
		yaml_parser_delete(&r->parser);
	r->event_open = r->parser_open = false;
}

static const struct door_type reader_type = {.name = "worker.yaml.reader", .close = reader_close};

__attribute__((format(printf, 3, 4))) static bool fail(struct reader *r, yaml_mark_t at,
						       const char *fmt, ...)
{
	va_list args;
	va_start(args, fmt);
	vsnprintf(r->problem, sizeof r->problem, fmt, args);
	va_end(args);
	r->at = at;
	return false;
}

/* ---- what libyaml complains about, in words for the person who wrote the file ---- */

static const struct {
	const char *theirs, *ours;
} wording[] = {
	{"mapping values are not allowed in this context",
	 "a ':' cannot stand here; put the text in quotes, or check the indentation"},
	{"found a tab character that violates indentation", "a tab cannot indent; use spaces"},
	{"found a tab character where an indentation space is expected",
	 "a tab cannot indent; use spaces"},
	{"did not find expected key", "expected a key here; check the indentation"},
	{"did not find expected '-' indicator", "expected '- ' here; check the indentation"},
	{"could not find expected ':'", "expected ':' after this key"},
	{"block sequence entries are not allowed in this context",
	 "a '- ' cannot stand here; begin the list on a line of its own"},
	{"did not find expected ',' or ']'", "expected ',' or ']' to go on with the list"},
	{"did not find expected ',' or '}'", "expected ',' or '}' to go on with the map"},
	{"found unexpected end of stream", "these quotes are never closed"},
	{"found unexpected document indicator",
	 "these quotes are not closed before the line that begins with --- or ..."},
	{"did not find expected node content", "expected a value here"},
};

static const char *reworded(const char *problem)
{
	for (size_t i = 0; i < sizeof wording / sizeof *wording; i++)
		if (strcmp(problem, wording[i].theirs) == 0)
			return wording[i].ours;
	return problem;
}

/* The reader of bytes knows an offset only, so its line and column are counted here. */
static yaml_mark_t mark_of_offset(const struct reader *r, size_t offset)
{
	yaml_mark_t at = {.index = offset};
	for (size_t i = 0; i < offset && i < r->size; i++) {
		if (r->text[i] == '\n') {
			at.line++;
			at.column = 0;
		} else if ((r->text[i] & 0xc0) != 0x80) {
			at.column++;
		}
	}
	return at;
}

/* The byte at a mark; libyaml counts characters, so lines are walked. */
static char byte_at(const struct reader *r, yaml_mark_t at)
{
	const char *p = r->text, *end = r->text + r->size;
	for (size_t line = 0; line < at.line && p < end; p++)
		line += *p == '\n';
	for (size_t column = 0; column < at.column && p < end; column++)
		do
			p++;
		while (p < end && (*p & 0xc0) == 0x80);
	return p < end ? *p : '\0';
}

static bool fail_character(struct reader *r, yaml_mark_t at)
{
	char byte = byte_at(r, at);
	if (byte == '\t')
		return fail(r, at, "a tab cannot indent; use spaces");
	return fail(r, at, "'%c' cannot begin a value; put the text in quotes", byte);
}

static bool fail_byte(struct reader *r, size_t offset, bool control)
{
	unsigned byte = offset < r->size ? (unsigned char)r->text[offset] : 0;
	return fail(r, mark_of_offset(r, offset), "%s (byte 0x%02x)",
		    control ? "a control character" : "not UTF-8 text", byte);
}

static bool fail_parser(struct reader *r)
{
	const yaml_parser_t *p = &r->parser;
	const char *problem = p->problem ? p->problem : "cannot be read";

	if (p->error == YAML_MEMORY_ERROR)
		return fail(r, p->mark, "out of memory");
	if (p->error == YAML_READER_ERROR)
		return fail_byte(r, p->problem_offset, strstr(problem, "control") != NULL);
	if (strcmp(problem, "found character that cannot start any token") == 0)
		return fail_character(r, p->problem_mark);
	/* A key without its colon is noticed on the next line, open quotes at the end of the text:
	 * where it began is what to look at. */
	if (strcmp(problem, "could not find expected ':'") == 0 ||
	    (p->context && strstr(p->context, "quoted scalar") && strstr(problem, "unexpected")))
		return fail(r, p->context_mark, "%s", reworded(problem));
	if (p->context && p->context_mark.line != p->problem_mark.line)
		return fail(r, p->problem_mark, "%s (in what begins on line %zu)",
			    reworded(problem), p->context_mark.line + 1);
	return fail(r, p->problem_mark, "%s", reworded(problem));
}

static bool next(struct reader *r)
{
	if (r->event_open)
		yaml_event_delete(&r->event);
	r->event_open = yaml_parser_parse(&r->parser, &r->event);
	return r->event_open || fail_parser(r);
}

/* ---- scalars ---- */

/* What an unquoted scalar means. */
static void push_plain(lua_State *L, const char *text, size_t n)
{
	struct scalar scalar;

	switch (scalar_read(text, &scalar)) {
	case SCALAR_NULL:
		lua_pushlightuserdata(L, NULL);
		break;
	case SCALAR_BOOLEAN:
		lua_pushboolean(L, scalar.truth);
		break;
	case SCALAR_INTEGER:
		lua_pushinteger(L, scalar.integer);
		break;
	case SCALAR_NUMBER:
		lua_pushnumber(L, scalar.number);
		break;
	case SCALAR_TEXT:
		lua_pushlstring(L, text, n);
		break;
	}
}

static bool tag_is(const yaml_char_t *tag, const char *name)
{
	return strcmp((const char *)tag, name) == 0;
}

static bool read_scalar(lua_State *L, struct reader *r)
{
	const char *text = (const char *)r->event.data.scalar.value;
	size_t n = r->event.data.scalar.length;
	const yaml_char_t *tag = r->event.data.scalar.tag;

	if (tag && !tag_is(tag, "!") && !tag_is(tag, YAML_STR_TAG))
		return fail(r, r->event.start_mark, "the tag %.60s has no meaning here; remove it",
			    (const char *)tag);
	if (tag || r->event.data.scalar.style != YAML_PLAIN_SCALAR_STYLE)
		lua_pushlstring(L, text, n);
	else
		push_plain(L, text, n);
	return true;
}

/* ---- marks ---- */

static lua_Integer place(yaml_mark_t at)
{
	size_t column = at.column + 1 < COLUMN_MAX ? at.column + 1 : COLUMN_MAX;
	return (lua_Integer)(at.line + 1) * (COLUMN_MAX + 1) + (lua_Integer)column;
}

/* marks[container] = mark, where the container is on top; leaves the mark above it. */
static void push_mark(lua_State *L, yaml_mark_t at, const char *kind)
{
	lua_createtable(L, 0, 5);
	lua_pushvalue(L, -2);
	lua_pushvalue(L, -2);
	lua_rawset(L, AT_MARKS);
	lua_pushvalue(L, ARG_NAME);
	lua_setfield(L, -2, "file");
	lua_pushstring(L, kind);
	lua_setfield(L, -2, "kind");
	lua_pushinteger(L, place(at));
	lua_setfield(L, -2, "at");
}

/* ---- anchors ---- */

/* An anchor is false while its node is being read, so that a node cannot contain itself. */
static void anchor_begin(lua_State *L, const char *name)
{
	lua_pushboolean(L, false);
	lua_setfield(L, AT_ANCHORS, name);
}

static void anchor_end(lua_State *L, const char *name, lua_Integer weight)
{
	lua_pushvalue(L, -1);
	lua_setfield(L, AT_ANCHORS, name);
	lua_pushinteger(L, weight);
	lua_setfield(L, AT_WEIGHTS, name);
}

static bool count_nodes(struct reader *r, lua_Integer more, yaml_mark_t at)
{
	r->nodes += more;
	if (r->nodes <= r->nodes_most)
		return true;
	return fail(r, at, "more than %lld values (an alias counts as much as what it names)",
		    (long long)r->nodes_most);
}

static bool read_alias(lua_State *L, struct reader *r)
{
	const char *name = (const char *)r->event.data.alias.anchor;

	switch (lua_getfield(L, AT_ANCHORS, name)) {
	case LUA_TNIL:
		return fail(r, r->event.start_mark, "*%.60s names no anchor above", name);
	case LUA_TBOOLEAN:
		/* false is an open anchor; a boolean value is boxed (see read_node) */
		return fail(r, r->event.start_mark, "*%.60s stands inside what it names", name);
	default:
		break;
	}
	lua_rawgeti(L, -1, 1);
	lua_replace(L, -2);
	lua_getfield(L, AT_WEIGHTS, name);
	lua_Integer weight = lua_tointeger(L, -1);
	lua_pop(L, 1);
	/* read_node has counted one already */
	return count_nodes(r, weight - 1, r->event.start_mark);
}

/* ---- containers ---- */

static bool read_node(lua_State *L, struct reader *r);

static bool read_list(lua_State *L, struct reader *r)
{
	lua_newtable(L);
	if (lua_getfield(L, ARG_OPTIONS, "list") == LUA_TTABLE)
		lua_setmetatable(L, -2);
	else
		lua_pop(L, 1);
	push_mark(L, r->event.start_mark, "list");
	lua_newtable(L);
	lua_pushvalue(L, -1);
	lua_setfield(L, -3, "values");
	lua_replace(L, -2); /* list, values */

	for (lua_Integer i = 1;; i++) {
		if (!next(r))
			return false;
		if (r->event.type == YAML_SEQUENCE_END_EVENT)
			break;
		lua_pushinteger(L, place(r->event.start_mark));
		lua_rawseti(L, -2, i);
		if (!read_node(L, r))
			return false;
		lua_rawseti(L, -3, i);
	}
	lua_pop(L, 1);
	return true;
}

/* Pushes the key, which is text as it was written, and notes its place in ${keys}. */
static bool read_key(lua_State *L, struct reader *r, int keys)
{
	yaml_mark_t at = r->event.start_mark;

	if (r->event.type != YAML_SCALAR_EVENT)
		return fail(r, at, "a key must be plain text");
	const char *text = (const char *)r->event.data.scalar.value;
	if (r->event.data.scalar.style == YAML_PLAIN_SCALAR_STYLE && strcmp(text, "<<") == 0)
		return fail(r, at, "merge keys (<<) are not supported; write the fields out");
	if (r->event.data.scalar.anchor || r->event.data.scalar.tag)
		return fail(r, at, "a key can have no anchor and no tag");

	lua_pushlstring(L, text, r->event.data.scalar.length);
	lua_pushvalue(L, -1);
	if (lua_rawget(L, keys) != LUA_TNIL)
		return fail(r, at, "the key '%.60s' is here twice; it was first on line %lld", text,
			    (long long)(lua_tointeger(L, -1) / (COLUMN_MAX + 1)));
	lua_pop(L, 1);
	lua_pushvalue(L, -1);
	lua_pushinteger(L, place(at));
	lua_rawset(L, keys);
	return count_nodes(r, 1, at);
}

/* With the key on top: reads its value and stores it, except null, which is as good as absent. */
static bool read_value(lua_State *L, struct reader *r, int map, int values)
{
	lua_pushvalue(L, -1);
	lua_pushinteger(L, place(r->event.start_mark));
	lua_rawset(L, values);
	if (!read_node(L, r))
		return false;
	if (lua_islightuserdata(L, -1))
		lua_pop(L, 2);
	else
		lua_rawset(L, map);
	return true;
}

static bool read_map(lua_State *L, struct reader *r)
{
	lua_newtable(L);
	int map = lua_gettop(L);
	push_mark(L, r->event.start_mark, "map");
	lua_newtable(L);
	lua_pushvalue(L, -1);
	lua_setfield(L, map + 1, "keys");
	lua_newtable(L);
	lua_pushvalue(L, -1);
	lua_setfield(L, map + 1, "values");

	for (;;) {
		if (!next(r))
			return false;
		if (r->event.type == YAML_MAPPING_END_EVENT)
			break;
		if (!read_key(L, r, map + 2) || !next(r) || !read_value(L, r, map, map + 3))
			return false;
	}
	lua_settop(L, map);
	return true;
}

static bool read_container(lua_State *L, struct reader *r, bool list)
{
	const yaml_char_t *tag =
		list ? r->event.data.sequence_start.tag : r->event.data.mapping_start.tag;

	if (tag && !tag_is(tag, list ? YAML_SEQ_TAG : YAML_MAP_TAG))
		return fail(r, r->event.start_mark, "the tag %.60s has no meaning here; remove it",
			    (const char *)tag);
	if (++r->depth > r->depth_most)
		return fail(r, r->event.start_mark, "nested deeper than %lld levels",
			    (long long)r->depth_most);
	luaL_checkstack(L, 12, "yaml");
	bool done = list ? read_list(L, r) : read_map(L, r);
	r->depth--;
	return done;
}

static const yaml_char_t *anchor_of(const yaml_event_t *event)
{
	switch (event->type) {
	case YAML_SCALAR_EVENT:
		return event->data.scalar.anchor;
	case YAML_SEQUENCE_START_EVENT:
		return event->data.sequence_start.anchor;
	case YAML_MAPPING_START_EVENT:
		return event->data.mapping_start.anchor;
	default:
		return NULL;
	}
}

static bool read_bare(lua_State *L, struct reader *r)
{
	switch (r->event.type) {
	case YAML_SCALAR_EVENT:
		return read_scalar(L, r);
	case YAML_SEQUENCE_START_EVENT:
		return read_container(L, r, true);
	case YAML_MAPPING_START_EVENT:
		return read_container(L, r, false);
	case YAML_ALIAS_EVENT:
		return read_alias(L, r);
	default:
		return fail(r, r->event.start_mark, "expected a value");
	}
}

/* Pushes the value of the node that the current event begins. */
static bool read_node(lua_State *L, struct reader *r)
{
	const char *anchor = (const char *)anchor_of(&r->event);
	lua_Integer before = r->nodes;

	if (!count_nodes(r, 1, r->event.start_mark))
		return false;
	if (anchor == NULL)
		return read_bare(L, r);

	/* The event goes away while the node is read; the name must not. */
	luaL_checkstack(L, 4, "yaml");
	anchor = lua_pushstring(L, anchor);
	anchor_begin(L, anchor);
	if (!read_bare(L, r))
		return false;
	lua_createtable(L, 1, 0);
	lua_pushvalue(L, -2);
	lua_rawseti(L, -2, 1);
	anchor_end(L, anchor, r->nodes - before);
	lua_pop(L, 1);
	lua_replace(L, -2);
	return true;
}

/* Pushes the document's value; an empty one is null. */
static bool read_document(lua_State *L, struct reader *r)
{
	if (!next(r) || !next(r)) /* the stream begins, then a document or the end */
		return false;
	if (r->event.type == YAML_STREAM_END_EVENT) {
		lua_pushlightuserdata(L, NULL);
		return true;
	}
	if (!next(r) || !read_node(L, r) || !next(r) || !next(r))
		return false;
	if (r->event.type != YAML_STREAM_END_EVENT)
		return fail(r, r->event.start_mark,
			    "a second document begins here; only one is allowed");
	return true;
}

static void reader_open(lua_State *L, struct reader *r)
{
	size_t size;
	const char *text = lua_tolstring(L, ARG_TEXT, &size);

	/* libyaml would count a byte order mark as a column. */
	bool bom = size >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0;
	r->text = text + (bom ? 3 : 0);
	r->size = size - (bom ? 3 : 0);
	r->depth_most = door_integer(L, ARG_OPTIONS, "depth", 1, DEPTH_MOST, 64);
	r->nodes_most = door_integer(L, ARG_OPTIONS, "nodes", 1, 100000000, 100000);
	if (!yaml_parser_initialize(&r->parser))
		luaL_error(L, "not enough memory");
	r->parser_open = true;
	yaml_parser_set_encoding(&r->parser, YAML_UTF8_ENCODING);
	yaml_parser_set_input_string(&r->parser, (const unsigned char *)r->text, r->size);
}

/* parse(text, name, {depth=, nodes=, bytes=, list=metatable}) -> true, value, marks, or
 * false, message, line, column. */
static int core_parse(lua_State *L)
{
	luaL_checktype(L, ARG_TEXT, LUA_TSTRING);
	luaL_checkstring(L, ARG_NAME);
	luaL_checktype(L, ARG_OPTIONS, LUA_TTABLE);
	lua_settop(L, ARG_OPTIONS);
	lua_Integer most = door_integer(L, ARG_OPTIONS, "bytes", 1, INT32_MAX, 4 << 20);
	if (lua_rawlen(L, ARG_TEXT) > (lua_Unsigned)most) {
		lua_pushboolean(L, false);
		lua_pushfstring(L, "larger than %I bytes", (LUAI_UACINT)most);
		lua_pushinteger(L, 1);
		lua_pushinteger(L, 1);
		return 4;
	}
	struct reader *r = door_box(L, &reader_type, sizeof *r);
	lua_newtable(L); /* marks */
	lua_newtable(L); /* anchors: {value}, boxed so that null and false can be named */
	lua_newtable(L); /* weights */
	reader_open(L, r);

	bool done = read_document(L, r);
	reader_close(L, r);
	lua_pushboolean(L, done);
	if (done) {
		lua_insert(L, -2);
		lua_pushvalue(L, AT_MARKS);
		return 3;
	}
	lua_pushstring(L, r->problem);
	lua_pushinteger(L, (lua_Integer)r->at.line + 1);
	lua_pushinteger(L, (lua_Integer)r->at.column + 1);
	return 4;
}

/* plain(text) -> what the text means when it is written without quotes. */
static int core_plain(lua_State *L)
{
	size_t n;
	const char *text = luaL_checklstring(L, 1, &n);
	push_plain(L, text, n);
	return 1;
}

static const luaL_Reg functions[] = {
	{"parse", core_parse},
	{"plain", core_plain},
	{NULL, NULL},
};

int luaopen_worker_core_yaml(lua_State *L)
{
	luaL_newlib(L, functions);
	lua_pushlightuserdata(L, NULL);
	lua_setfield(L, -2, "null");
	return 1;
}
