/* lua_mask.c -- worker.core.mask: secrets, and hiding them, for Lua.  Floor 5.
 *
 *	mask.new() -> masker
 *	masker:add(value, name) -> true | false, why     value: a string or a secret
 *	masker:feed(text) -> text, masker:finish() -> text    its own stream
 *	masker:stream() -> stream     another one (stderr beside stdout) with feed and finish
 *	masker:text(text) -> text     a whole text at once
 *	masker:count() -> number of forms looked for; masker:refused() -> of values too short
 *
 *	mask.value(text) -> secret     shows as *** wherever it is printed
 *	secret:reveal() -> text, #secret
 *	mask.is_secret(value) -> bool
 *
 * A masker's streams share its secrets and one output buffer, which only lives between two Lua
 * calls.  A stream anchors its masker in a user value.
 */
#include <errno.h>
#include <string.h>

#include "worker/buf.h"
#include "worker/door.h"
#include "worker/doors.h"
#include "worker/mask.h"

#define SECRET_META "worker.secret"
#define OUT_KEEP    ((size_t)128 * 1024)

struct masker {
	struct mask *mask;
	struct mask_stream own;
	struct buf out;
	lua_Integer refused;
};

struct stream {
	struct masker *masker; /* anchored by the user value; NULL when closed */
	struct mask_stream state;
};

/* --- secrets --- */

static int core_value(lua_State *L)
{
	size_t size;
	if (luaL_testudata(L, 1, SECRET_META) != NULL) {
		lua_settop(L, 1);
		return 1;
	}
	luaL_checktype(L, 1, LUA_TSTRING);
	const char *text = lua_tolstring(L, 1, &size);
	memcpy(lua_newuserdatauv(L, size, 0), text, size);
	luaL_setmetatable(L, SECRET_META);
	return 1;
}

static int core_is_secret(lua_State *L)
{
	lua_pushboolean(L, luaL_testudata(L, 1, SECRET_META) != NULL);
	return 1;
}

static int secret_reveal(lua_State *L)
{
	const char *bytes = luaL_checkudata(L, 1, SECRET_META);
	lua_pushlstring(L, bytes, lua_rawlen(L, 1));
	return 1;
}

static int secret_tostring(lua_State *L)
{
	lua_pushliteral(L, "***");
	return 1;
}

static int secret_len(lua_State *L)
{
	luaL_checkudata(L, 1, SECRET_META);
	lua_pushinteger(L, (lua_Integer)lua_rawlen(L, 1));
	return 1;
}

/* In a time that does not tell where they differ. */
static int secret_eq(lua_State *L)
{
	const unsigned char *a = luaL_testudata(L, 1, SECRET_META);
	const unsigned char *b = luaL_testudata(L, 2, SECRET_META);
	bool same = a != NULL && b != NULL && lua_rawlen(L, 1) == lua_rawlen(L, 2);
	unsigned differ = 0;
	for (size_t i = 0; same && i < lua_rawlen(L, 1); i++)
		differ |= a[i] ^ b[i];
	lua_pushboolean(L, same && differ == 0);
	return 1;
}

static int secret_gc(lua_State *L)
{
	void *bytes = luaL_checkudata(L, 1, SECRET_META);
	explicit_bzero(bytes, lua_rawlen(L, 1));
	return 0;
}

static void make_secret_meta(lua_State *L)
{
	static const luaL_Reg meta[] = {{"__tostring", secret_tostring},
					{"__len", secret_len},
					{"__eq", secret_eq},
					{"__gc", secret_gc},
					{NULL, NULL}};
	luaL_newmetatable(L, SECRET_META);
	luaL_setfuncs(L, meta, 0);
	lua_pushboolean(L, 0);
	lua_setfield(L, -2, "__metatable");
	lua_newtable(L);
	lua_pushcfunction(L, secret_reveal);
	lua_setfield(L, -2, "reveal");
	lua_setfield(L, -2, "__index");
	lua_pop(L, 1);
}

/* --- maskers --- */

static void masker_close(lua_State *L, void *box)
{
	(void)L;
	struct masker *masker = box;
	mask_free(masker->mask);
	masker->mask = NULL;
	explicit_bzero(&masker->own, sizeof masker->own);
	buf_free(&masker->out);
}

static void stream_close(lua_State *L, void *box)
{
	(void)L;
	explicit_bzero(box, sizeof(struct stream));
}

static const char *masker_state(const void *box)
{
	return ((const struct masker *)box)->mask ? "open" : "closed";
}

static const char *stream_state(const void *box)
{
	const struct stream *stream = box;
	return stream->masker && stream->masker->mask ? "open" : "closed";
}

static int masker_add(lua_State *L);
static int masker_feed(lua_State *L);
static int masker_finish(lua_State *L);
static int masker_text(lua_State *L);
static int masker_stream(lua_State *L);
static int masker_count(lua_State *L);
static int masker_refused(lua_State *L);
static int masker_end(lua_State *L);
static int stream_feed(lua_State *L);
static int stream_finish(lua_State *L);

static const luaL_Reg masker_methods[] = {
	{"add", masker_add},	     {"feed", masker_feed},	{"finish", masker_finish},
	{"text", masker_text},	     {"stream", masker_stream}, {"count", masker_count},
	{"refused", masker_refused}, {"close", masker_end},	{NULL, NULL},
};
static const luaL_Reg stream_methods[] = {
	{"feed", stream_feed}, {"finish", stream_finish}, {NULL, NULL}};

static const struct door_type masker_type = {.name = "worker.masker",
					     .methods = masker_methods,
					     .close = masker_close,
					     .state = masker_state};
static const struct door_type stream_type = {.name = "worker.masker.stream",
					     .methods = stream_methods,
					     .close = stream_close,
					     .state = stream_state};

static struct masker *to_masker(lua_State *L)
{
	struct masker *masker = door_check(L, 1, &masker_type);
	if (masker->mask == NULL)
		luaL_error(L, "this masker is closed");
	return masker;
}

static struct stream *to_stream(lua_State *L)
{
	struct stream *stream = door_check(L, 1, &stream_type);
	if (stream->masker == NULL || stream->masker->mask == NULL)
		luaL_error(L, "the masker of this stream is closed");
	return stream;
}

static int raise_errno(lua_State *L, const char *doing)
{
	struct err err;
	err_errno(&err, "%s", doing);
	return door_raise(L, "limit", &err);
}

static int core_new(lua_State *L)
{
	struct masker *masker = door_box(L, &masker_type, sizeof *masker);
	buf_init(&masker->out, SIZE_MAX / 2);
	masker->mask = mask_new();
	if (masker->mask == NULL)
		return raise_errno(L, "making a masker");
	return 1;
}

static int masker_add(lua_State *L)
{
	struct masker *masker = to_masker(L);
	size_t size;
	const char *name = luaL_optstring(L, 3, NULL);
	const char *value = luaL_testudata(L, 2, SECRET_META);
	if (value != NULL)
		size = lua_rawlen(L, 2);
	else
		value = luaL_checklstring(L, 2, &size);
	int added = mask_add(masker->mask, value, size);
	if (added == -1)
		return raise_errno(L, "adding a secret to a masker");
	lua_pushboolean(L, added);
	if (added)
		return 1;
	masker->refused++;
	lua_pushfstring(L, "%s%s%s is shorter than %d bytes and cannot be hidden",
			name ? "the secret '" : "a secret", name ? name : "", name ? "'" : "",
			MASK_LEAST);
	return 2;
}

/* Push what the buffer holds, and empty it. */
static int push_out(lua_State *L, struct buf *out)
{
	lua_pushlstring(L, buf_head(out), buf_size(out));
	if (out->room > OUT_KEEP)
		buf_free(out);
	return 1;
}

static int feed(lua_State *L, struct masker *masker, struct mask_stream *state)
{
	size_t size;
	const char *text = luaL_checklstring(L, 2, &size);
	if (mask_count(masker->mask) == 0) {
		lua_settop(L, 2);
		return 1;
	}
	masker->out.head = masker->out.tail = 0;
	if (mask_feed(masker->mask, state, text, size, &masker->out) == -1)
		return raise_errno(L, "masking");
	return push_out(L, &masker->out);
}

static int finish(lua_State *L, struct masker *masker, struct mask_stream *state)
{
	masker->out.head = masker->out.tail = 0;
	if (mask_end(state, &masker->out) == -1)
		return raise_errno(L, "masking");
	return push_out(L, &masker->out);
}

static int masker_feed(lua_State *L)
{
	struct masker *masker = to_masker(L);
	return feed(L, masker, &masker->own);
}

static int masker_finish(lua_State *L)
{
	struct masker *masker = to_masker(L);
	return finish(L, masker, &masker->own);
}

static int masker_text(lua_State *L)
{
	struct masker *masker = to_masker(L);
	size_t size;
	const char *text = luaL_checklstring(L, 2, &size);
	struct mask_stream state = {0};
	masker->out.head = masker->out.tail = 0;
	if (mask_feed(masker->mask, &state, text, size, &masker->out) == -1 ||
	    mask_end(&state, &masker->out) == -1)
		return raise_errno(L, "masking");
	return push_out(L, &masker->out);
}

static int masker_stream(lua_State *L)
{
	struct masker *masker = to_masker(L);
	struct stream *stream = door_box_with(L, &stream_type, sizeof *stream, 1);
	lua_pushvalue(L, 1);
	lua_setiuservalue(L, -2, 1);
	stream->masker = masker;
	return 1;
}

static int masker_count(lua_State *L)
{
	lua_pushinteger(L, (lua_Integer)mask_count(to_masker(L)->mask));
	return 1;
}

static int masker_refused(lua_State *L)
{
	lua_pushinteger(L, to_masker(L)->refused);
	return 1;
}

static int masker_end(lua_State *L)
{
	masker_close(L, door_check(L, 1, &masker_type));
	return 0;
}

static int stream_feed(lua_State *L)
{
	struct stream *stream = to_stream(L);
	return feed(L, stream->masker, &stream->state);
}

static int stream_finish(lua_State *L)
{
	struct stream *stream = to_stream(L);
	return finish(L, stream->masker, &stream->state);
}

static const luaL_Reg functions[] = {
	{"new", core_new}, {"value", core_value}, {"is_secret", core_is_secret}, {NULL, NULL}};

int luaopen_worker_core_mask(lua_State *L)
{
	make_secret_meta(L);
	luaL_newlib(L, functions);
	return 1;
}
