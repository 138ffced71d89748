/* lua_sock.c -- the door to sockets: worker.core.sock.  Floor 5.
 *
 * A handle is one connection (worker.sock).  Reading and writing may each have one task waiting.
 * The flags ${reading} and ${writing} are up from the park until the task has run again, not only
 * until the kernel has answered: between a wake and the run the answer still lies in the sock, and
 * a second task must not overwrite it.
 *
 * A write sends from the Lua string itself, which the parked task's stack anchors.
 *
 * Reads give nil at a clean end.  Failures are raised: kind "transport" with a field reason
 * (timeout, reset, closed, dns, connect, tls, io), or kind "limit" when what was asked for did not
 * end within its ceiling.
 */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include <lauxlib.h>
#include <lua.h>

#include "worker/address.h"
#include "worker/clock.h"
#include "worker/dial.h"
#include "worker/door.h"
#include "worker/doors.h"
#include "worker/host.h"
#include "worker/lua_sock.h"
#include "worker/sock.h"
#include "worker/task.h"

#define CONN_READ_USUAL	   (64 * 1024)
#define CONN_CONNECT_USUAL (10 * CLOCK_SECOND)
#define CONN_USER_TIMEOUT  60

/* --- the connection's handle --- */

static void conn_close(lua_State *L, void *box)
{
	struct lua_sock *conn = box;
	(void)L;
	if (conn->dial != NULL)
		dial_cancel(conn->dial);
	conn->dial = NULL;
	if (conn->counted)
		host_count(conn->host, "sock", -1);
	conn->counted = false;
	sock_close(&conn->sock);
}

static const char *conn_state(const void *box)
{
	const struct lua_sock *conn = box;
	if (conn->dial != NULL)
		return "connecting";
	if (!conn->sock.open)
		return "closed";
	return conn->sock.ended ? "ended by the other side" : "open";
}

static const struct door_type *conn_type(void);

static struct lua_sock *conn_check(lua_State *L)
{
	return door_check(L, 1, conn_type());
}

struct lua_sock *lua_sock_box(lua_State *L)
{
	struct lua_sock *conn = door_box(L, conn_type(), sizeof *conn);
	conn->host = host_of(L);
	conn->timeout = -1;
	return conn;
}

void lua_sock_opened(struct lua_sock *conn)
{
	host_count(conn->host, "sock", 1);
	conn->counted = true;
}

struct lua_sock *lua_sock_take(lua_State *L, int index)
{
	struct lua_sock *conn = door_check(L, index, conn_type());
	luaL_argcheck(L, conn->sock.open, index, "this connection is closed");
	luaL_argcheck(L, !conn->reading && !conn->writing, index, "this connection is in use");
	conn->reading = conn->writing = true; /* for good */
	return conn;
}

void lua_sock_close(struct lua_sock *conn)
{
	conn_close(NULL, conn);
}

int lua_sock_raise(lua_State *L, const char *reason, const struct err *err)
{
	bool limit = reason != NULL && strcmp(reason, "too_big") == 0;
	door_push_error(L, limit ? "limit" : "transport", err);
	lua_pushstring(L, reason);
	lua_setfield(L, -2, "reason");
	return lua_error(L);
}

static int conn_raise_op(lua_State *L, const struct lua_sock *conn, const struct sock_op *op)
{
	struct err err;
	sock_explain(&conn->sock, op, &err);
	if (op->code == EBUSY)
		return luaL_error(L, "%s", err.text); /* a mistake, not the world */
	return lua_sock_raise(L, op->reason, &err);
}

int64_t lua_sock_timeout(lua_State *L, int index, int64_t otherwise)
{
	if (lua_isnoneornil(L, index))
		return otherwise;
	luaL_checktype(L, index, LUA_TTABLE);
	return door_seconds(L, index, "timeout", otherwise);
}

/* --- reading --- */

static int conn_read_result(lua_State *L, struct lua_sock *conn, enum sock_result result)
{
	struct sock *s = &conn->sock;
	if (result == SOCK_FAILED)
		return conn_raise_op(L, conn, &s->reader);
	if (result == SOCK_END) {
		lua_pushnil(L);
	} else if (s->reader.want == SOCK_ANY) {
		lua_pushboolean(L, 1);
	} else {
		lua_pushlstring(L, sock_bytes(s), s->reader.size);
		sock_take(s, s->reader.size);
	}
	return 1;
}

static int conn_read_push(lua_State *co, void *op)
{
	struct lua_sock *conn = op;
	conn->reading = false;
	if (!conn->sock.open) { /* closed after the answer came: its bytes are gone */
		conn->sock.reader.code = EBADF;
		conn->sock.reader.reason = "closed";
		return conn_raise_op(co, conn, &conn->sock.reader);
	}
	return conn_read_result(co, conn, conn->sock.reader.result);
}

static void conn_read_done(void *arg)
{
	struct lua_sock *conn = arg;
	task_wake(conn->host, conn->reader, conn_read_push, conn);
}

static void conn_read_abort(void *op)
{
	struct lua_sock *conn = op;
	conn->reading = false;
	sock_stop(&conn->sock, &conn->sock.reader);
}

static int conn_read_as(lua_State *L, enum sock_want want, size_t most, int options)
{
	struct lua_sock *conn = conn_check(L);
	int64_t timeout = lua_sock_timeout(L, options, conn->timeout);
	if (conn->reading)
		return luaL_error(L, "another task is reading on this connection already");
	conn->reader = task_token(L);
	enum sock_result result = sock_read(&conn->sock, want, most, timeout, conn_read_done, conn);
	if (result != SOCK_WAIT)
		return conn_read_result(L, conn, result);
	conn->reading = true;
	return task_park(L, conn->reader, conn_read_abort, conn);
}

static size_t conn_ceiling(lua_State *L, int arg)
{
	lua_Integer most = luaL_optinteger(L, arg, CONN_READ_USUAL);
	luaL_argcheck(L, most >= 1 && most <= (lua_Integer)SOCK_MOST, arg,
		      "expected a number of bytes between 1 and 67108864");
	return (size_t)most;
}

static int conn_read(lua_State *L)
{
	return conn_read_as(L, SOCK_SOME, conn_ceiling(L, 2), 3);
}

static int conn_read_exactly(lua_State *L)
{
	luaL_checkinteger(L, 2);
	return conn_read_as(L, SOCK_EXACTLY, conn_ceiling(L, 2), 3);
}

static int conn_line(lua_State *L)
{
	return conn_read_as(L, SOCK_LINE, conn_ceiling(L, 2), 3);
}

static int conn_head(lua_State *L)
{
	return conn_read_as(L, SOCK_HEAD, conn_ceiling(L, 2), 3);
}

static int conn_wait(lua_State *L)
{
	return conn_read_as(L, SOCK_ANY, 1, 2);
}

/* --- writing --- */

static int conn_write_result(lua_State *L, const struct lua_sock *conn, enum sock_result result)
{
	if (result == SOCK_FAILED)
		return conn_raise_op(L, conn, &conn->sock.writer);
	return 0;
}

static int conn_write_push(lua_State *co, void *op)
{
	struct lua_sock *conn = op;
	conn->writing = false;
	return conn_write_result(co, conn, conn->sock.writer.result);
}

static void conn_write_done(void *arg)
{
	struct lua_sock *conn = arg;
	task_wake(conn->host, conn->writer, conn_write_push, conn);
}

static void conn_write_abort(void *op)
{
	struct lua_sock *conn = op;
	conn->writing = false;
	sock_stop(&conn->sock, &conn->sock.writer);
}

static int conn_write(lua_State *L)
{
	struct lua_sock *conn = conn_check(L);
	size_t n;
	const char *text = luaL_checklstring(L, 2, &n);
	int64_t timeout = lua_sock_timeout(L, 3, conn->timeout);
	if (conn->writing)
		return luaL_error(L, "another task is writing on this connection already");
	conn->writer = task_token(L);
	enum sock_result result = sock_write(&conn->sock, text, n, timeout, conn_write_done, conn);
	if (result != SOCK_WAIT)
		return conn_write_result(L, conn, result);
	conn->writing = true;
	return task_park(L, conn->writer, conn_write_abort, conn);
}

/* --- ends, names --- */

static int conn_close_method(lua_State *L)
{
	conn_close(L, conn_check(L));
	return 0;
}

static int conn_reset(lua_State *L)
{
	struct lua_sock *conn = conn_check(L);
	sock_reset(&conn->sock);
	conn_close(L, conn);
	return 0;
}

static int conn_shutdown(lua_State *L)
{
	struct lua_sock *conn = conn_check(L);
	struct err err;
	if (sock_shutdown(&conn->sock, &err) == -1)
		return lua_sock_raise(L, err.code == EBADF ? "closed" : "io", &err);
	return 0;
}

static int conn_name(lua_State *L, bool peer)
{
	struct lua_sock *conn = conn_check(L);
	char name[ADDRESS_SIZE];
	if (!conn->sock.open)
		return 0;
	address_name(conn->sock.fd, peer, name);
	lua_pushstring(L, name);
	return 1;
}

static int conn_peer(lua_State *L)
{
	return conn_name(L, true);
}

static int conn_address(lua_State *L)
{
	return conn_name(L, false);
}

/* Who is at the other end of a Unix socket, by the kernel's word. */
static int conn_credentials(lua_State *L)
{
	struct lua_sock *conn = conn_check(L);
	struct ucred who;
	socklen_t size = sizeof who;
	if (!conn->sock.open ||
	    getsockopt(conn->sock.fd, SOL_SOCKET, SO_PEERCRED, &who, &size) == -1 || who.pid == 0)
		return 0;
	lua_createtable(L, 0, 3);
	lua_pushinteger(L, who.pid);
	lua_setfield(L, -2, "pid");
	lua_pushinteger(L, who.uid);
	lua_setfield(L, -2, "uid");
	lua_pushinteger(L, who.gid);
	lua_setfield(L, -2, "gid");
	return 1;
}

static int conn_set_timeout(lua_State *L)
{
	struct lua_sock *conn = conn_check(L);
	conn->timeout = lua_isnoneornil(L, 2) ? -1 : door_nanos(L, 2);
	return 0;
}

static int conn_is_open(lua_State *L)
{
	lua_pushboolean(L, conn_check(L)->sock.open);
	return 1;
}

static int conn_traffic(lua_State *L)
{
	const struct lua_sock *conn = conn_check(L);
	lua_pushinteger(L, (lua_Integer)conn->sock.received);
	lua_pushinteger(L, (lua_Integer)conn->sock.sent);
	return 2;
}

static const luaL_Reg conn_methods[] = {
	{"read", conn_read},	       {"read_exactly", conn_read_exactly},
	{"line", conn_line},	       {"head", conn_head},
	{"wait", conn_wait},	       {"write", conn_write},
	{"shutdown", conn_shutdown},   {"reset", conn_reset},
	{"close", conn_close_method},  {"peer", conn_peer},
	{"address", conn_address},     {"credentials", conn_credentials},
	{"timeout", conn_set_timeout}, {"is_open", conn_is_open},
	{"traffic", conn_traffic},     {NULL, NULL},
};

static const struct door_type *conn_type(void)
{
	static const struct door_type type = {
		.name = "worker.sock",
		.methods = conn_methods,
		.close = conn_close,
		.state = conn_state,
	};
	return &type;
}

/* --- connecting --- */

/* connect{...} has the options at 1 and the box at 2. */
static int conn_connect_push(lua_State *co, void *op)
{
	struct lua_sock *conn = op;
	struct dial *dial = conn->dial;
	struct err err;
	conn->dial = NULL;
	if (dial == NULL) {
		err_set(&err, EBADF, "the connection was closed while connecting");
		return lua_sock_raise(co, "closed", &err);
	}
	const char *reason = dial_reason(dial);
	if (dial_finish(dial, &conn->sock, &err) == -1)
		return lua_sock_raise(co, reason != NULL ? reason : "io", &err);
	lua_sock_opened(conn);
	lua_pushvalue(co, 2);
	return 1;
}

static void conn_connect_done(void *arg)
{
	struct lua_sock *conn = arg;
	task_wake(conn->host, conn->reader, conn_connect_push, conn);
}

static void conn_connect_abort(void *op)
{
	struct lua_sock *conn = op;
	dial_cancel(conn->dial);
	conn->dial = NULL;
}

/* tls = true, or a table. The strings are anchored by the tables they come from. */
static void conn_tls_options(lua_State *L, struct dial_options *options)
{
	int type = lua_getfield(L, 1, "tls");
	options->tls = lua_toboolean(L, -1);
	if (type == LUA_TTABLE) {
		int tls = lua_gettop(L);
		options->ca_file = door_string(L, tls, "ca_file", NULL, NULL);
		options->ca_dir = door_string(L, tls, "ca_dir", NULL, NULL);
		options->cert = door_string(L, tls, "cert", NULL, NULL);
		options->key = door_string(L, tls, "key", NULL, NULL);
		options->key_password = door_string(L, tls, "key_password", NULL, NULL);
		options->name = door_string(L, tls, "name", NULL, NULL);
		options->tls_min = door_string(L, tls, "min", NULL, NULL);
		options->insecure = door_bool(L, tls, "insecure", false);
		options->alpn = door_string(L, tls, "alpn", NULL, NULL);
		if (options->alpn != NULL && strcmp(options->alpn, "h2") != 0 &&
		    strcmp(options->alpn, "http/1.1") != 0)
			luaL_error(L, "field 'alpn': expected \"h2\" or \"http/1.1\"");
	} else if (type != LUA_TNIL && type != LUA_TBOOLEAN) {
		luaL_error(L, "field 'tls': expected true or a table, got %s",
			   luaL_typename(L, -1));
	}
	lua_pop(L, 1);
}

/* address= or unix=; exactly one of them. ${host} is the caller's memory for the first. */
const char *lua_sock_where(lua_State *L, const char **unix_path, size_t *unix_length, char *host,
			   int *port)
{
	struct err err;
	const char *address = door_string(L, 1, "address", NULL, NULL);
	*unix_path = door_string(L, 1, "unix", unix_length, NULL);
	if ((address == NULL) == (*unix_path == NULL))
		luaL_error(L, "expected either address=\"host:port\" or unix=\"/path\"");
	if (address != NULL && address_split(address, host, LUA_SOCK_HOST_SIZE, port, &err) == -1)
		luaL_error(L, "field 'address': %s", err.text);
	return host;
}

unsigned lua_sock_user_timeout(lua_State *L)
{
	int64_t ns = door_seconds(L, 1, "user_timeout", CONN_USER_TIMEOUT * CLOCK_SECOND);
	return (unsigned)(ns / CLOCK_MS);
}

static int core_connect(lua_State *L)
{
	struct dial_options options = {.timeout = CONN_CONNECT_USUAL};
	char host[LUA_SOCK_HOST_SIZE] = "";
	struct err err;
	luaL_checktype(L, 1, LUA_TTABLE);
	lua_settop(L, 1);
	options.host =
		lua_sock_where(L, &options.unix_path, &options.unix_length, host, &options.port);
	options.timeout = door_seconds(L, 1, "timeout", options.timeout);
	options.proxy = door_string(L, 1, "proxy", NULL, NULL);
	options.user_timeout_ms = lua_sock_user_timeout(L);
	conn_tls_options(L, &options);
	struct lua_sock *conn = lua_sock_box(L);

	conn->reader = task_token(L);
	conn->dial = dial_start(host_loop(L), &options, conn_connect_done, conn, &err);
	if (conn->dial == NULL)
		return lua_sock_raise(L, "connect", &err);
	return task_park(L, conn->reader, conn_connect_abort, conn);
}

/* datagram(path, text): one datagram to a Unix socket. */
static int core_datagram(lua_State *L)
{
	size_t n, size;
	const char *path = luaL_checklstring(L, 1, &n);
	const char *text = luaL_checklstring(L, 2, &size);
	struct err err;
	if (address_datagram(path, n, text, size, &err) == -1)
		return lua_sock_raise(L, "io", &err);
	return 0;
}

int luaopen_worker_core_sock(lua_State *L)
{
	static const luaL_Reg functions[] = {
		{"connect", core_connect},
		{"datagram", core_datagram},
		{NULL, NULL},
	};
	luaL_newlib(L, functions);
	return 1;
}
