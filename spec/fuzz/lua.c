/* lua.c -- a fuzzer of Lua code: FUZZ names a script that takes input after input.
 *
 * The script is the first task of a whole worker without its command line.  `require
 * "worker.core.fuzz".next()` parks it until there is an input, which ends the one before; whatever
 * it raises is a finding.
 */
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <lauxlib.h>
#include <lua.h>

#include "worker/clock.h"
#include "worker/doors.h"
#include "worker/embed.h"
#include "worker/host.h"
#include "worker/loop.h"
#include "worker/task.h"

#define DOORS_MOST 64

static struct loop *loop;
static struct host *host;
static struct task_token script;
static bool waiting;
static const uint8_t *input;
static size_t input_size;

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int fuzz_push(lua_State *co, void *op)
{
	(void)op;
	lua_pushlstring(co, (const char *)input, input_size);
	return 1;
}

static int fuzz_next(lua_State *L)
{
	script = task_token(L);
	waiting = true;
	loop_stop(loop);
	return task_park(L, script, NULL, NULL);
}

static int fuzz_open(lua_State *L)
{
	static const luaL_Reg functions[] = {{"next", fuzz_next}, {NULL, NULL}};
	luaL_newlib(L, functions);
	return 1;
}

/* Whoever fails is told with its traceback, and the fuzzer stops. */
static int fuzz_failed(lua_State *L)
{
	fprintf(stderr, "%s\n", luaL_tolstring(L, 1, NULL));
	if (lua_type(L, 1) == LUA_TTABLE && lua_getfield(L, 1, "traceback") == LUA_TSTRING)
		fprintf(stderr, "%s\n", lua_tostring(L, -1));
	abort();
}

static int fuzz_start(lua_State *L)
{
	if (luaL_loadstring(L, "local path, failed = ...\n"
			       "local script = assert(loadfile(path))\n"
			       "local ok, why = xpcall(script, function(why)\n"
			       "  return type(why) == 'table' and why or debug.traceback(why)\n"
			       "end)\n"
			       "failed(why)\n") != LUA_OK)
		return lua_error(L);
	lua_pushstring(L, getenv("FUZZ"));
	lua_pushcfunction(L, fuzz_failed);
	task_start(L, 2);
	return 0;
}

static void fuzz_run(void)
{
	waiting = false;
	loop_run(loop);
	if (!waiting)
		abort();
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	static luaL_Reg doors[DOORS_MOST];
	size_t n = 0;
	struct err err;
	(void)argc;
	(void)argv;
	signal(SIGPIPE, SIG_IGN);
	for (; doors_list[n].name != NULL && n < DOORS_MOST - 2; n++)
		doors[n] = doors_list[n];
	doors[n] = (luaL_Reg){"worker.core.fuzz", fuzz_open};
	loop = loop_new(&err);
	const struct host_options options = {.loop = loop,
					     .doors = doors,
					     .files = embed_files,
					     .lua_dir = getenv("WORKER_LUA"),
					     .memory_ceiling = (size_t)256 << 20,
					     .burst_ceiling = (size_t)64 << 20,
					     .slow_ns = 0,
					     .runaway_ns = 20 * CLOCK_SECOND};
	host = host_open(&options, &err);
	if (host == NULL)
		abort();
	lua_State *L = host_state(host);
	lua_pushcfunction(L, fuzz_start);
	if (host_call(L, 0, 0) != LUA_OK)
		fuzz_failed(L);
	fuzz_run();
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	input = data;
	input_size = size;
	task_wake(host, script, fuzz_push, NULL);
	fuzz_run();
	return 0;
}
