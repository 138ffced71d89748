/* lua_http.h -- what the two files of the door to HTTP share.  Floor 5.
 *
 * lua_http.c is the door, with its clients and transfers; lua_http_plan.c has the requests that are
 * asked again and again, there and back in one call.
 */
#ifndef WORKER_LUA_HTTP_H
#define WORKER_LUA_HTTP_H

#include <stdbool.h>

#include <lua.h>

#include "worker/err.h"
#include "worker/http.h"

struct host;
struct http_client;

/* A client's handle; NULL in it once it is closed. */
struct client_box {
	struct http_client *client;
	struct host *host;
};

/* lua_http_client(L, index): the handle of a client, which may be closed. */
struct client_box *lua_http_client(lua_State *L, int index);

/* lua_http_request(L, index, request): all of the table at ${index} that is not about the body.
 * Pushes what the headers need; the strings stay the table's. */
void lua_http_request(lua_State *L, int index, struct http_request *request);

/* lua_http_raise(L, reason, label, sent, err): what retrying needs to know goes into fields; the
 * message names the request.  Never returns. */
int lua_http_raise(lua_State *L, enum http_reason reason, const char *label, bool sent,
		   const struct err *err);

/* lua_http_plan(L): client:plan{...}. */
int lua_http_plan(lua_State *L);

#endif
