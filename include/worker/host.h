/* host.h -- the one Lua state and what bounds it.  Floor 4.
 *
 * The host owns the lua_State, its allocator (with a ceiling), the search for modules (embedded in
 * the binary, or on disk below WORKER_LUA for development), the environments of plugins, and the
 * watch over Lua code that does not give way.  Everything hangs off struct host: no globals, so a
 * second host may live beside the first.
 */
#ifndef WORKER_HOST_H
#define WORKER_HOST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <lauxlib.h>
#include <lua.h>

#include "worker/err.h"

struct loop;
struct tasks;

/* A Lua file inside the binary: name is the module ("worker.http"). */
struct host_file {
	const char *name;
	const char *data; /* a compiled chunk */
	size_t size;
};

struct host_options {
	struct loop *loop;
	const luaL_Reg *doors; /* "worker.core.x" -> luaopen function; ends with {NULL, NULL} */
	const struct host_file *files; /* ends with a NULL name */
	const char *lua_dir;	       /* read modules from here instead of the binary, or NULL */
	size_t memory_ceiling;	       /* bytes the Lua state may hold; 0 for none */
	size_t burst_ceiling;	       /* bytes one task may gain without parking; 0 for none */
	int64_t slow_ns, runaway_ns;   /* computing without parking: warn, then raise */
};

struct host;

struct host *host_open(const struct host_options *options, struct err *err);

/* host_close(host): runs pending __gc and __close; nothing of Lua runs after it. */
void host_close(struct host *host);

/* host_of(L): the host of any coroutine. host_loop(L): its loop. */
struct host *host_of(lua_State *L);
struct loop *host_loop(lua_State *L);
struct tasks *host_tasks(const struct host *host);
lua_State *host_state(const struct host *host);

/* host_call(host, L, nargs, nresults): the one lua_pcall, with traceback; LUA_OK or the error
 * object on top. */
int host_call(lua_State *L, int nargs, int nresults);

/* host_traceback(L): a message handler: gives an error without a traceback one. Strings (bugs)
 * become {kind="bug", message=, traceback=}. */
int host_traceback(lua_State *L);

/* Called by the task floor around each resume: starts and ends the budgets of time and memory. */
void host_burst_begin(struct host *host, lua_State *co);
void host_burst_end(struct host *host);

/* host_burst_allow(host, n): the task that runs may gain ${n} bytes more in this burst: for what
 * has a ceiling of its own, which somebody chose. */
void host_burst_allow(struct host *host, size_t n);

/* host_oom_where(host): where the allocator last refused ("plugins/x.lua:12"), or NULL. Reading
 * forgets it. */
const char *host_oom_where(struct host *host);

/* host_count(host, what, delta): live things by kind ("process", "http.client") for core.live().
 * ${what} is a string literal. */
void host_count(struct host *host, const char *what, int delta);

/* host_push_live(L): push a table of all counts. */
void host_push_live(lua_State *L);

/* What main returns when the loop ends; 0 at first. */
void host_exit_set(struct host *host, int code);
int host_exit(const struct host *host);

size_t host_memory(const struct host *host);
size_t host_memory_peak(const struct host *host);

#endif
