/* lua_listen.c -- the door to listening sockets: worker.core.listen.  Floor 5.
 *
 * A handle is one listener (worker.sock.listener); accept gives connections, the handles of
 * lua_sock.c.  One task waits in accept at a time.  The connection's box is made before anything is
 * taken from the kernel, so that running out of memory loses nobody: the connection waits in the
 * listener for the next accept.
 */
#include <errno.h>
#include <string.h>

#include <lauxlib.h>
#include <lua.h>

#include "worker/address.h"
#include "worker/door.h"
#include "worker/doors.h"
#include "worker/host.h"
#include "worker/listen.h"
#include "worker/lua_sock.h"
#include "worker/sock.h"
#include "worker/task.h"

#define LISTEN_MODE_USUAL    0600
#define LISTEN_BACKLOG_USUAL 4096 /* the kernel has a ceiling of its own */

struct caller {
	struct listen listen;
	struct host *host;
	struct task_token token;
	struct lua_sock *conn; /* the box that waits for a connection */
	bool accepting, counted;
};

/* --- the listener's handle --- */

static void caller_close(lua_State *L, void *box)
{
	struct caller *caller = box;
	(void)L;
	if (caller->counted)
		host_count(caller->host, "sock.listener", -1);
	caller->counted = false;
	listen_close(&caller->listen);
}

static const char *caller_state(const void *box)
{
	return ((const struct caller *)box)->listen.open ? "open" : "closed";
}

static const struct door_type *caller_type(void);

static struct caller *caller_check(lua_State *L)
{
	return door_check(L, 1, caller_type());
}

static int caller_raise(lua_State *L, const struct caller *caller)
{
	struct err err;
	bool late = caller->listen.late && caller->listen.code == 0;
	if (caller->listen.code == EBUSY)
		return luaL_error(L, "another task is accepting on this listener already");
	if (late)
		err_set(&err, ETIMEDOUT, "accepting: nobody called for too long");
	else if (caller->listen.code == EBADF)
		err_set(&err, EBADF, "accepting: the listener is closed");
	else
		err_set(&err, caller->listen.code, "accepting: %s", strerror(caller->listen.code));
	return lua_sock_raise(L,
			      late			     ? "timeout"
			      : caller->listen.code == EBADF ? "closed"
							     : "io",
			      &err);
}

/* accept(options) has the box of the connection at 3. */
static int caller_accept_push(lua_State *co, void *op)
{
	struct caller *caller = op;
	struct err err;
	caller->accepting = false;
	int picked =
		caller->listen.open ? listen_pick(&caller->listen, &caller->conn->sock, &err) : 0;
	if (picked == 0)
		return caller_raise(co, caller);
	if (picked == -1)
		return lua_sock_raise(co, "io", &err);
	lua_sock_opened(caller->conn);
	lua_pushvalue(co, 3);
	return 1;
}

static void caller_accept_done(void *arg)
{
	struct caller *caller = arg;
	task_wake(caller->host, caller->token, caller_accept_push, caller);
}

static void caller_accept_abort(void *op)
{
	struct caller *caller = op;
	caller->accepting = false;
	listen_stop(&caller->listen);
}

static int caller_accept(lua_State *L)
{
	struct caller *caller = caller_check(L);
	int64_t timeout = lua_sock_timeout(L, 2, -1);
	if (caller->accepting)
		return luaL_error(L, "another task is accepting on this listener already");
	lua_settop(L, 2);
	caller->conn = lua_sock_box(L);
	caller->token = task_token(L);
	enum sock_result result =
		listen_accept(&caller->listen, timeout, caller_accept_done, caller);
	if (result == SOCK_FAILED)
		return caller_raise(L, caller);
	caller->accepting = true;
	if (result == SOCK_DONE)
		return caller_accept_push(L, caller);
	return task_park(L, caller->token, caller_accept_abort, caller);
}

static int caller_close_method(lua_State *L)
{
	caller_close(L, caller_check(L));
	return 0;
}

static int caller_address(lua_State *L)
{
	struct caller *caller = caller_check(L);
	char name[ADDRESS_SIZE];
	if (!caller->listen.open)
		return 0;
	address_name(caller->listen.fd, false, name);
	lua_pushstring(L, name);
	return 1;
}

static int caller_counts(lua_State *L)
{
	const struct caller *caller = caller_check(L);
	lua_createtable(L, 0, 3);
	lua_pushinteger(L, (lua_Integer)listen_connections(&caller->listen));
	lua_setfield(L, -2, "open");
	lua_pushinteger(L, (lua_Integer)caller->listen.accepted);
	lua_setfield(L, -2, "accepted");
	lua_pushinteger(L, (lua_Integer)caller->listen.pauses);
	lua_setfield(L, -2, "pauses");
	return 1;
}

static const luaL_Reg caller_methods[] = {
	{"accept", caller_accept},
	{"close", caller_close_method},
	{"address", caller_address},
	{"counts", caller_counts},
	{NULL, NULL},
};

static const struct door_type *caller_type(void)
{
	static const struct door_type type = {
		.name = "worker.sock.listener",
		.methods = caller_methods,
		.close = caller_close,
		.state = caller_state,
	};
	return &type;
}

static int core_listen(lua_State *L)
{
	struct listen_options options = {.mode = LISTEN_MODE_USUAL};
	char host[LUA_SOCK_HOST_SIZE] = "";
	struct err err;
	luaL_checktype(L, 1, LUA_TTABLE);
	lua_settop(L, 1);
	options.host =
		lua_sock_where(L, &options.unix_path, &options.unix_length, host, &options.port);
	options.mode = (mode_t)door_integer(L, 1, "mode", 0, 0777, LISTEN_MODE_USUAL);
	options.backlog = (int)door_integer(L, 1, "backlog", 1, 65535, LISTEN_BACKLOG_USUAL);
	options.most = (size_t)door_integer(L, 1, "max_connections", 0, 1000000, 0);
	options.send_buffer = (int)door_integer(L, 1, "send_buffer", 0, 64 << 20, 0);
	options.user_timeout_ms = lua_sock_user_timeout(L);
	struct caller *caller = door_box(L, caller_type(), sizeof *caller);
	caller->host = host_of(L);
	if (listen_open(&caller->listen, host_loop(L), &options, &err) == -1)
		return lua_sock_raise(L, "listen", &err);
	host_count(caller->host, "sock.listener", 1);
	caller->counted = true;
	return 1;
}

int luaopen_worker_core_listen(lua_State *L)
{
	static const luaL_Reg functions[] = {
		{"listen", core_listen},
		{NULL, NULL},
	};
	luaL_newlib(L, functions);
	return 1;
}
