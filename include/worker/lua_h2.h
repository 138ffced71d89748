/* lua_h2.h -- the handles of a connection and its streams, for the doors that make them.  Floor 5.
 *
 * Only lua_h2.c (connections) and lua_h2_stream.c include this.
 */
#ifndef WORKER_LUA_H2_H
#define WORKER_LUA_H2_H

#include <stdbool.h>
#include <stddef.h>

#include <lua.h>

#include "worker/h2.h"
#include "worker/task.h"

struct host;

/* One task that waits for something of a box to become true.  ${ready} is asked whenever something
 * changed; ${give} pushes the results once the task runs. */
struct lua_h2_wait {
	struct host *host;
	struct task_token token;
	bool waiting, woken;
	bool (*ready)(const struct lua_h2_wait *wait);
	int (*give)(lua_State *L, struct lua_h2_wait *wait);
	void *box;
	size_t most;
};

/* lua_h2_alone(L, wait): raises when another task waits already.
 * lua_h2_wait(L, wait, box, ready, give): now, or parked until then. */
void lua_h2_alone(lua_State *L, const struct lua_h2_wait *wait);
int lua_h2_wait(lua_State *L, struct lua_h2_wait *wait, void *box,
		bool (*ready)(const struct lua_h2_wait *wait),
		int (*give)(lua_State *L, struct lua_h2_wait *wait));
void lua_h2_poke(struct lua_h2_wait *wait);

int lua_h2_raise_closed(lua_State *L, const char *what);

/* lua_h2_headers(L, index, out): the list {name, value, ...}; ${out} has room for H2_HEADERS_MOST,
 * the strings stay the table's. */
size_t lua_h2_headers(lua_State *L, int index, struct h2_header *out);

/* lua_h2_lead(L, index, n): the bytes that go in front of a body, or NULL. */
const char *lua_h2_lead(lua_State *L, int index, size_t *n);

struct lua_h2_stream {
	struct h2_stream *stream; /* NULL once closed */
	struct host *host;
	struct lua_h2_wait reader, writer, ending;
};

/* lua_h2_stream_push(L): push a closed handle that anchors its connection, which is at 1.
 * lua_h2_stream_opened(box, stream): it is what the handle stands for. */
struct lua_h2_stream *lua_h2_stream_push(lua_State *L);
void lua_h2_stream_opened(struct lua_h2_stream *box, struct h2_stream *stream);
void lua_h2_stream_changed(void *arg);

/* lua_h2_stream_anchor(L, index): the bytes on top of the stack live as long as the handle at
 * ${index}; pops them. */
void lua_h2_stream_anchor(lua_State *L, int index);

#endif
