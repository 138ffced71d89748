/* lua_h2.c -- the door to HTTP/2: worker.core.h2.  Floor 5.
 *
 *	h2.open(conn, {server=, max_header=, window=, max_streams=}) -> connection
 *	connection:request(headers [, body, ends, seconds, lead]) -> stream
 *	                        waits for nothing; the lead are a few bytes before the body
 *	connection:accept() -> stream or nil
 *	                        waits for the next stream of the peer; nil at the end
 *	connection:wait() -> error
 *	                        waits until the connection is over; why it is
 *	connection:goaway([code, text])
 *	connection:state() -> table
 *	connection:close()
 *
 * Headers are given as a list {name, value, ...} and come as a table by name; what comes twice is
 * joined with commas.
 */
#include <errno.h>
#include <string.h>

#include <lauxlib.h>
#include <lua.h>

#include "worker/clock.h"
#include "worker/door.h"
#include "worker/doors.h"
#include "worker/h2.h"
#include "worker/host.h"
#include "worker/lua_h2.h"
#include "worker/lua_sock.h"
#include "worker/task.h"

#define HEADER_USUAL  16384
#define WINDOW_USUAL  (1024 * 1024)
#define STREAMS_USUAL 100
#define LARGE	      ((size_t)1024 * 1024)

struct session_box {
	struct h2 *h2;
	struct host *host;
	struct lua_sock *conn;
	struct lua_h2_wait accept, closed;
};

/* --- waiting --- */

static int wait_push(lua_State *co, void *op)
{
	struct lua_h2_wait *wait = op;
	wait->waiting = false;
	return wait->give(co, wait);
}

static void wait_abort(void *op)
{
	struct lua_h2_wait *wait = op;
	wait->waiting = false;
}

void lua_h2_poke(struct lua_h2_wait *wait)
{
	if (!wait->waiting || wait->woken || !wait->ready(wait))
		return;
	wait->woken = true;
	task_wake(wait->host, wait->token, wait_push, wait);
}

void lua_h2_alone(lua_State *L, const struct lua_h2_wait *wait)
{
	if (wait->waiting)
		luaL_error(L, "another task waits for this already");
}

int lua_h2_wait(lua_State *L, struct lua_h2_wait *wait, void *box,
		bool (*ready)(const struct lua_h2_wait *wait),
		int (*give)(lua_State *L, struct lua_h2_wait *wait))
{
	lua_h2_alone(L, wait);
	struct task_token token = task_token(L);
	*wait = (struct lua_h2_wait){.host = host_of(L),
				     .token = token,
				     .ready = ready,
				     .give = give,
				     .box = box,
				     .most = wait->most};
	if (ready(wait))
		return give(L, wait);
	wait->waiting = true;
	return task_park(L, token, wait_abort, wait);
}

/* --- errors --- */

int lua_h2_raise_closed(lua_State *L, const char *what)
{
	struct err err;
	err_set(&err, EBADF, "the %s is closed", what);
	return lua_sock_raise(L, "closed", &err);
}

size_t lua_h2_headers(lua_State *L, int index, struct h2_header *out)
{
	luaL_checktype(L, index, LUA_TTABLE);
	size_t count = lua_rawlen(L, index) / 2;
	if (count > H2_HEADERS_MOST)
		luaL_error(L, "%d headers are too many", (int)count);
	for (size_t i = 0; i < count; i++) {
		lua_rawgeti(L, index, (lua_Integer)(2 * i + 1));
		lua_rawgeti(L, index, (lua_Integer)(2 * i + 2));
		if (lua_type(L, -2) != LUA_TSTRING || lua_type(L, -1) != LUA_TSTRING)
			luaL_error(L, "header %d: name and value must be strings", (int)i + 1);
		out[i].name = lua_tolstring(L, -2, &out[i].name_size);
		out[i].value = lua_tolstring(L, -1, &out[i].value_size);
		lua_pop(L, 2);
	}
	return count;
}

/* --- the connection's handle --- */

static void session_changed(void *arg)
{
	struct session_box *box = arg;
	lua_h2_poke(&box->accept);
	lua_h2_poke(&box->closed);
}

static void session_close(lua_State *L, void *arg)
{
	struct session_box *box = arg;
	(void)L;
	if (box->h2 == NULL)
		return;
	h2_close(box->h2);
	box->h2 = NULL;
	lua_sock_close(box->conn);
	host_count(box->host, "h2", -1);
	session_changed(box);
}

static const char *session_state(const void *arg)
{
	const struct session_box *box = arg;
	if (box->h2 == NULL || !h2_state(box->h2).open)
		return "closed";
	return h2_state(box->h2).going ? "going away" : "open";
}

static const struct door_type *session_type(void);

static struct session_box *session_check(lua_State *L)
{
	return door_check(L, 1, session_type());
}

const char *lua_h2_lead(lua_State *L, int index, size_t *n)
{
	size_t size = 0;
	const char *lead = luaL_optlstring(L, index, NULL, &size);
	luaL_argcheck(L, size <= H2_LEAD, index, "a lead is 16 bytes at most");
	if (n != NULL)
		*n = size;
	return lead;
}

static int core_request(lua_State *L)
{
	struct session_box *box = session_check(L);
	size_t n = 0, lead_size = 0;
	const char *body = luaL_optlstring(L, 3, NULL, &n), *lead = lua_h2_lead(L, 6, &lead_size);
	bool ends = lua_toboolean(L, 4);
	int64_t limit = lua_isnoneornil(L, 5) ? -1 : door_nanos(L, 5);
	struct h2_header headers[H2_HEADERS_MOST];
	struct err err;
	lua_settop(L, 6);
	size_t count = lua_h2_headers(L, 2, headers);
	struct lua_h2_stream *handle = lua_h2_stream_push(L);
	lua_pushvalue(L, 3);
	lua_h2_stream_anchor(L, -2);
	if (box->h2 == NULL)
		return lua_h2_raise_closed(L, "connection");
	struct h2_stream *stream = h2_request(box->h2, headers, count, ends && n + lead_size == 0,
					      lua_h2_stream_changed, handle, &err);
	if (stream == NULL) {
		door_push_error(L, "transport", &err);
		lua_pushliteral(L, "refused");
		lua_setfield(L, -2, "reason");
		lua_pushboolean(L, 0);
		lua_setfield(L, -2, "sent");
		return lua_error(L);
	}
	lua_h2_stream_opened(handle, stream);
	if (limit >= 0 && h2_stream_limit(stream, limit) == -1)
		return luaL_error(L, "out of memory for a timer");
	if (n + lead_size > 0)
		h2_stream_send(stream, lead, lead_size, body, n, ends);
	return 1;
}

static bool accept_ready(const struct lua_h2_wait *wait)
{
	const struct session_box *box = wait->box;
	return box->h2 == NULL || !h2_state(box->h2).open || h2_waiting(box->h2);
}

static int accept_give(lua_State *L, struct lua_h2_wait *wait)
{
	struct session_box *box = wait->box;
	if (box->h2 == NULL || !h2_waiting(box->h2))
		return 0;
	struct lua_h2_stream *handle = lua_h2_stream_push(L);
	struct h2_stream *stream = h2_accept(box->h2);
	lua_h2_stream_opened(handle, stream);
	return 1;
}

static int core_accept(lua_State *L)
{
	struct session_box *box = session_check(L);
	lua_settop(L, 1);
	return lua_h2_wait(L, &box->accept, box, accept_ready, accept_give);
}

static bool closed_ready(const struct lua_h2_wait *wait)
{
	const struct session_box *box = wait->box;
	return box->h2 == NULL || !h2_state(box->h2).open;
}

static int closed_give(lua_State *L, struct lua_h2_wait *wait)
{
	const struct session_box *box = wait->box;
	struct err err = {.text = "the connection was closed here"};
	struct h2_state state = {.reason = NULL};
	if (box->h2 != NULL) {
		state = h2_state(box->h2);
		err = *state.why;
	}
	door_push_error(L, "transport", &err);
	lua_pushstring(L, state.reason != NULL ? state.reason : "closed");
	lua_setfield(L, -2, "reason");
	return 1;
}

static int core_wait(lua_State *L)
{
	struct session_box *box = session_check(L);
	return lua_h2_wait(L, &box->closed, box, closed_ready, closed_give);
}

static int core_goaway(lua_State *L)
{
	struct session_box *box = session_check(L);
	lua_Integer code = luaL_optinteger(L, 2, 0);
	const char *text = luaL_optstring(L, 3, "");
	if (box->h2 != NULL)
		h2_goaway(box->h2, (uint32_t)code, text);
	return 0;
}

static int core_is_going(lua_State *L)
{
	struct session_box *box = session_check(L);
	lua_pushboolean(L, box->h2 == NULL || h2_state(box->h2).going);
	return 1;
}

static int core_session_close(lua_State *L)
{
	session_close(L, session_check(L));
	return 0;
}

static const struct door_type *session_type(void)
{
	static const luaL_Reg methods[] = {
		{"request", core_request},
		{"accept", core_accept},
		{"wait", core_wait},
		{"goaway", core_goaway},
		{"is_going", core_is_going},
		{"close", core_session_close},
		{NULL, NULL},
	};
	static const struct door_type type = {.name = "worker.h2",
					      .methods = methods,
					      .close = session_close,
					      .state = session_state};
	return &type;
}

static int core_open(lua_State *L)
{
	struct lua_sock *conn = lua_sock_take(L, 1);
	struct err err;
	luaL_checktype(L, 2, LUA_TTABLE);
	struct h2_options options = {
		.server = door_bool(L, 2, "server", false),
		.max_header = (size_t)door_integer(L, 2, "max_header", 256, 1 << 24, HEADER_USUAL),
		.window = (size_t)door_integer(L, 2, "window", 65535, 1 << 30, WINDOW_USUAL),
		.max_streams =
			(uint32_t)door_integer(L, 2, "max_streams", 0, 1 << 20, STREAMS_USUAL),
		.changed = session_changed,
	};
	struct session_box *box = door_box_with(L, session_type(), sizeof *box, 1);
	lua_pushvalue(L, 1);
	lua_setiuservalue(L, -2, 1);
	options.arg = box;
	box->host = host_of(L);
	box->conn = conn;
	box->h2 = h2_open(host_loop(L), &conn->sock, &options, &err);
	if (box->h2 == NULL)
		return door_raise(L, "transport", &err);
	host_count(box->host, "h2", +1);
	return 1;
}

int luaopen_worker_core_h2(lua_State *L)
{
	static const luaL_Reg functions[] = {{"open", core_open}, {NULL, NULL}};
	luaL_newlib(L, functions);
	return 1;
}
