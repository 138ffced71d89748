/* lua_h2_stream.c -- the door to HTTP/2: the handle of a stream.  Floor 5.
 *
 *	stream:head() -> headers                 waits for the first header block
 *	stream:read([most]), stream:read_exactly(n) -> bytes, or nil at the end of the body
 *	stream:trailers() -> headers             after that end
 *	stream:respond(headers [, ends])
 *	stream:all(most) -> headers, bytes, trailers    waits for the end; nothing when it is more
 *	stream:write(bytes [, ends, lead]) -> whether it was taken
 *	                                         waits until earlier bytes are gone
 *	stream:finish(trailers)
 *	stream:sent()                            waits until all of it is on its way
 *	stream:over() -> whether it went well    waits until nothing more comes or goes
 *	stream:limit(seconds)  stream:reset(code)  stream:close()
 *
 * One task reads, one writes and one waits for the end at a time.  A body is sent from the Lua
 * string itself, which the handle anchors: a write that is cancelled while it waits has sent
 * nothing, one that has returned will be sent.
 */
#include <errno.h>
#include <string.h>

#include <lauxlib.h>
#include <lua.h>

#include "worker/door.h"
#include "worker/h2.h"
#include "worker/host.h"
#include "worker/lua_h2.h"
#include "worker/lua_sock.h"

#define READ_USUAL   (1024 * 1024)
#define MESSAGE_MOST ((lua_Integer)1 << 30)
#define LARGE	     ((size_t)1024 * 1024)

enum { ANCHOR_CONNECTION = 1, ANCHOR_BODY, ANCHORS = 2 };

/* --- errors --- */

static const char *stream_reason(const struct h2_stream *stream)
{
	switch (stream->end) {
	case H2_END_RESET:
		return "reset";
	case H2_END_REFUSED:
		return "refused";
	case H2_END_LATE:
		return "timeout";
	case H2_END_LOST:
		return stream->reason != NULL ? stream->reason : "closed";
	default:
		return stream->why.code == EMSGSIZE ? "too_big" : "protocol";
	}
}

/* The code of HTTP/2 and whether the peer may have begun go into fields: both decide what is done
 * about it. */
static int raise_stream(lua_State *L, const struct h2_stream *stream)
{
	const char *reason = stream_reason(stream);
	door_push_error(L, strcmp(reason, "too_big") == 0 ? "limit" : "transport", &stream->why);
	lua_pushstring(L, reason);
	lua_setfield(L, -2, "reason");
	lua_pushboolean(L, stream->sent && stream->end != H2_END_REFUSED);
	lua_setfield(L, -2, "sent");
	if (stream->end != H2_END_LOST) {
		lua_pushstring(L, h2_code_name(stream->code));
		lua_setfield(L, -2, "h2");
	}
	return lua_error(L);
}

static bool stream_failed(const struct h2_stream *stream)
{
	return stream->end != H2_END_NONE && stream->end != H2_END_FINE;
}

/* --- headers --- */

static void headers_push(lua_State *L, const struct buf *block)
{
	struct h2_header header;
	size_t at = 0;
	lua_createtable(L, 0, 4);
	while (h2_header_next(block, &at, &header)) {
		lua_pushlstring(L, header.name, header.name_size);
		lua_pushvalue(L, -1);
		if (lua_rawget(L, -3) == LUA_TSTRING) {
			lua_pushliteral(L, ",");
			lua_pushlstring(L, header.value, header.value_size);
			lua_concat(L, 3);
		} else {
			lua_pop(L, 1);
			lua_pushlstring(L, header.value, header.value_size);
		}
		lua_rawset(L, -3);
	}
}

/* --- the stream's handle --- */

void lua_h2_stream_changed(void *arg)
{
	struct lua_h2_stream *box = arg;
	lua_h2_poke(&box->reader);
	lua_h2_poke(&box->writer);
	lua_h2_poke(&box->ending);
}

static void stream_close(lua_State *L, void *arg)
{
	struct lua_h2_stream *box = arg;
	(void)L;
	if (box->stream == NULL)
		return;
	h2_stream_free(box->stream);
	box->stream = NULL;
	host_count(box->host, "h2.stream", -1);
	lua_h2_stream_changed(box);
}

static const char *stream_state(const void *arg)
{
	const struct lua_h2_stream *box = arg;
	if (box->stream == NULL)
		return "closed";
	if (box->stream->end != H2_END_NONE)
		return stream_failed(box->stream) ? "failed" : "over";
	return box->stream->ended ? "ended by the other side" : "open";
}

static const struct door_type *stream_type(void);

static struct lua_h2_stream *stream_check(lua_State *L)
{
	struct lua_h2_stream *box = door_check(L, 1, stream_type());
	if (box->stream == NULL)
		lua_h2_raise_closed(L, "stream");
	return box;
}

/* The stream of a wait, which may have been closed meanwhile. */
static struct h2_stream *stream_of(const struct lua_h2_wait *wait)
{
	return ((const struct lua_h2_stream *)wait->box)->stream;
}

static struct h2_stream *stream_still(lua_State *L, const struct lua_h2_wait *wait)
{
	struct h2_stream *stream = stream_of(wait);
	if (stream == NULL)
		lua_h2_raise_closed(L, "stream");
	return stream;
}

/* --- reading --- */

static bool head_ready(const struct lua_h2_wait *wait)
{
	const struct h2_stream *stream = stream_of(wait);
	return stream == NULL || stream->headed || stream->end != H2_END_NONE;
}

static int head_give(lua_State *L, struct lua_h2_wait *wait)
{
	struct h2_stream *stream = stream_still(L, wait);
	if (!stream->headed)
		return raise_stream(L, stream);
	headers_push(L, &stream->head);
	return 1;
}

static int core_head(lua_State *L)
{
	struct lua_h2_stream *box = stream_check(L);
	return lua_h2_wait(L, &box->reader, box, head_ready, head_give);
}

static bool read_ready(const struct lua_h2_wait *wait)
{
	const struct h2_stream *stream = stream_of(wait);
	return stream == NULL || stream->ended || stream->end != H2_END_NONE ||
	       buf_size(&stream->in) >= wait->most;
}

static int read_bytes(lua_State *L, struct h2_stream *stream, size_t n)
{
	/* What the caller set a ceiling for may be larger than what a task usually gets at once;
	 * so may be what he makes of it. */
	if (n > LARGE)
		host_burst_allow(host_of(L), 2 * n);
	lua_pushlstring(L, buf_head(&stream->in), n);
	h2_stream_take(stream, n);
	return 1;
}

static int read_nothing(lua_State *L, const struct h2_stream *stream)
{
	if (!stream->ended)
		return raise_stream(L, stream);
	lua_pushnil(L);
	return 1;
}

static int read_give(lua_State *L, struct lua_h2_wait *wait)
{
	struct h2_stream *stream = stream_still(L, wait);
	size_t size = buf_size(&stream->in);
	if (size >= wait->most)
		return read_bytes(L, stream, wait->most);
	if (size == 0 || !stream->ended)
		return read_nothing(L, stream);
	struct err err;
	err_set(&err, 0, "the other side ended after %zu of %zu bytes", size, wait->most);
	return door_raise(L, "wire", &err);
}

static int read_some_give(lua_State *L, struct lua_h2_wait *wait)
{
	struct h2_stream *stream = stream_still(L, wait);
	size_t size = buf_size(&stream->in);
	/* ${most} was 1 to wait for the first byte; the real one is the argument. */
	size_t most = (size_t)lua_tointeger(L, 2);
	if (size == 0)
		return read_nothing(L, stream);
	return read_bytes(L, stream, size < most ? size : most);
}

static struct lua_h2_stream *read_box(lua_State *L)
{
	struct lua_h2_stream *box = stream_check(L);
	if (lua_isnoneornil(L, 2)) {
		lua_settop(L, 1);
		lua_pushinteger(L, READ_USUAL);
	}
	lua_Integer n = luaL_checkinteger(L, 2);
	luaL_argcheck(L, n >= 1 && n <= MESSAGE_MOST, 2, "expected a number of bytes");
	lua_h2_alone(L, &box->reader); /* before ${most} is set: it would be that task's */
	return box;
}

static int core_read(lua_State *L)
{
	struct lua_h2_stream *box = read_box(L);
	box->reader.most = 1;
	return lua_h2_wait(L, &box->reader, box, read_ready, read_some_give);
}

static int core_read_exactly(lua_State *L)
{
	struct lua_h2_stream *box = read_box(L);
	box->reader.most = (size_t)lua_tointeger(L, 2);
	h2_stream_want(box->stream, box->reader.most);
	return lua_h2_wait(L, &box->reader, box, read_ready, read_give);
}

static int core_trailers(lua_State *L)
{
	struct lua_h2_stream *box = stream_check(L);
	if (!box->stream->ended)
		return luaL_error(L, "trailers come after the end of the body");
	headers_push(L, &box->stream->trailers);
	return 1;
}

static bool all_ready(const struct lua_h2_wait *wait)
{
	const struct h2_stream *stream = stream_of(wait);
	return stream == NULL || stream->ended || stream->end != H2_END_NONE ||
	       buf_size(&stream->in) > wait->most;
}

static int all_give(lua_State *L, struct lua_h2_wait *wait)
{
	struct h2_stream *stream = stream_still(L, wait);
	size_t size = buf_size(&stream->in);
	if (!stream->ended && stream->end != H2_END_NONE)
		return raise_stream(L, stream);
	if (size > wait->most)
		return 0;
	headers_push(L, &stream->head);
	read_bytes(L, stream, size);
	headers_push(L, &stream->trailers);
	return 3;
}

/* A short answer, with a single wait.  ${most} has to be less than the window: that it is more
 * shows only in a byte too many, and none comes when the window is full. */
static int core_all(lua_State *L)
{
	struct lua_h2_stream *box = read_box(L);
	box->reader.most = (size_t)lua_tointeger(L, 2);
	return lua_h2_wait(L, &box->reader, box, all_ready, all_give);
}

static bool over_ready(const struct lua_h2_wait *wait)
{
	const struct h2_stream *stream = stream_of(wait);
	return stream == NULL || stream->end != H2_END_NONE;
}

static int over_give(lua_State *L, struct lua_h2_wait *wait)
{
	const struct h2_stream *stream = stream_of(wait);
	lua_pushboolean(L, stream != NULL && stream->end == H2_END_FINE);
	return 1;
}

static int core_over(lua_State *L)
{
	struct lua_h2_stream *box = stream_check(L);
	return lua_h2_wait(L, &box->ending, box, over_ready, over_give);
}

/* --- writing --- */

static bool write_ready(const struct lua_h2_wait *wait)
{
	const struct h2_stream *stream = stream_of(wait);
	return stream == NULL || stream->end != H2_END_NONE || h2_stream_idle(stream);
}

/* write(bytes, ends, lead) has the box at 1 and its arguments behind it, also after the wait. */
static int write_give(lua_State *L, struct lua_h2_wait *wait)
{
	struct lua_h2_stream *box = wait->box;
	size_t n, lead_size;
	const char *bytes = lua_tolstring(L, 2, &n), *lead = lua_tolstring(L, 4, &lead_size);
	bool taken = box->stream != NULL;
	if (taken) {
		lua_pushvalue(L, 2);
		lua_setiuservalue(L, 1, ANCHOR_BODY);
		taken = h2_stream_send(box->stream, lead, lead_size, bytes, n,
				       lua_toboolean(L, 3)) == 0;
	}
	lua_pushboolean(L, taken);
	return 1;
}

static int core_write(lua_State *L)
{
	struct lua_h2_stream *box = stream_check(L);
	luaL_checktype(L, 2, LUA_TSTRING);
	lua_settop(L, 4);
	lua_h2_lead(L, 4, NULL);
	return lua_h2_wait(L, &box->writer, box, write_ready, write_give);
}

static bool sent_ready(const struct lua_h2_wait *wait)
{
	const struct h2_stream *stream = stream_of(wait);
	return stream == NULL || stream->end != H2_END_NONE ||
	       (h2_stream_idle(stream) && (stream->finished || !stream->ends));
}

static int sent_give(lua_State *L, struct lua_h2_wait *wait)
{
	const struct h2_stream *stream = stream_of(wait);
	lua_pushboolean(L, stream != NULL && !stream_failed(stream));
	return 1;
}

static int core_sent(lua_State *L)
{
	struct lua_h2_stream *box = stream_check(L);
	return lua_h2_wait(L, &box->writer, box, sent_ready, sent_give);
}

static int core_respond(lua_State *L)
{
	struct lua_h2_stream *box = stream_check(L);
	struct h2_header headers[H2_HEADERS_MOST];
	struct err err;
	lua_settop(L, 3);
	size_t count = lua_h2_headers(L, 2, headers);
	int done = h2_stream_respond(box->stream, headers, count, lua_toboolean(L, 3), &err);
	lua_pushboolean(L, done == 0);
	return 1;
}

static int core_finish(lua_State *L)
{
	struct lua_h2_stream *box = stream_check(L);
	struct h2_header headers[H2_HEADERS_MOST];
	struct err err;
	lua_settop(L, 2);
	size_t count = lua_h2_headers(L, 2, headers);
	lua_pushboolean(L, h2_stream_finish(box->stream, headers, count, &err) == 0);
	return 1;
}

static int core_limit(lua_State *L)
{
	struct lua_h2_stream *box = stream_check(L);
	if (h2_stream_limit(box->stream, door_nanos(L, 2)) == -1)
		return luaL_error(L, "out of memory for a timer");
	return 0;
}

static int core_reset(lua_State *L)
{
	struct lua_h2_stream *box = stream_check(L);
	h2_stream_reset(box->stream, (uint32_t)luaL_checkinteger(L, 2));
	return 0;
}

static int core_stream_close(lua_State *L)
{
	stream_close(L, door_check(L, 1, stream_type()));
	return 0;
}

static const struct door_type *stream_type(void)
{
	static const luaL_Reg methods[] = {
		{"head", core_head},
		{"read", core_read},
		{"read_exactly", core_read_exactly},
		{"all", core_all},
		{"trailers", core_trailers},
		{"over", core_over},
		{"respond", core_respond},
		{"write", core_write},
		{"finish", core_finish},
		{"sent", core_sent},
		{"limit", core_limit},
		{"reset", core_reset},
		{"close", core_stream_close},
		{NULL, NULL},
	};
	static const struct door_type type = {.name = "worker.h2.stream",
					      .methods = methods,
					      .close = stream_close,
					      .state = stream_state};
	return &type;
}

/* --- for the connection --- */

struct lua_h2_stream *lua_h2_stream_push(lua_State *L)
{
	struct lua_h2_stream *box = door_box_with(L, stream_type(), sizeof *box, ANCHORS);
	lua_pushvalue(L, 1);
	lua_setiuservalue(L, -2, ANCHOR_CONNECTION);
	box->host = host_of(L);
	return box;
}

void lua_h2_stream_opened(struct lua_h2_stream *box, struct h2_stream *stream)
{
	stream->changed = lua_h2_stream_changed;
	stream->arg = box;
	box->stream = stream;
	host_count(box->host, "h2.stream", +1);
}

void lua_h2_stream_anchor(lua_State *L, int index)
{
	lua_setiuservalue(L, index, ANCHOR_BODY);
}
