/* lua_sock.h -- the handle of a connection, for the doors that make one.  Floor 5.
 *
 * Only lua_sock.c, lua_listen.c and lua_h2.c include this.
 */
#ifndef WORKER_LUA_SOCK_H
#define WORKER_LUA_SOCK_H

#include <stdbool.h>
#include <stdint.h>

#include <lua.h>

#include "worker/err.h"
#include "worker/sock.h"
#include "worker/task.h"

struct dial;
struct host;

#define LUA_SOCK_HOST_SIZE 256

struct lua_sock {
	struct sock sock;
	struct host *host;
	struct dial *dial; /* while connecting */
	struct task_token reader, writer;
	bool reading, writing, counted;
	int64_t timeout; /* for calls that name none; negative for none */
};

/* lua_sock_box(L): push a closed handle.  lua_sock_opened(conn): its sock has been opened. */
struct lua_sock *lua_sock_box(lua_State *L);
void lua_sock_opened(struct lua_sock *conn);

/* lua_sock_take(L, index): the open connection at ${index}, which nobody waits for, for another
 * protocol to read and write; lua_sock_close(conn) when it is through. */
struct lua_sock *lua_sock_take(lua_State *L, int index);
void lua_sock_close(struct lua_sock *conn);

/* lua_sock_raise(L, reason, err): raise {kind="transport", reason=}, or kind "limit" for what was
 * too big. */
int lua_sock_raise(lua_State *L, const char *reason, const struct err *err);

/* Options: {timeout=} at ${index}; address= or unix= (exactly one) and user_timeout= at 1. ${host}
 * has LUA_SOCK_HOST_SIZE bytes and is returned. */
int64_t lua_sock_timeout(lua_State *L, int index, int64_t otherwise);
const char *lua_sock_where(lua_State *L, const char **unix_path, size_t *unix_length, char *host,
			   int *port);
unsigned lua_sock_user_timeout(lua_State *L);

#endif
