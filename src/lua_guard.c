/* lua_guard.c -- worker.core.guard: calls that catch.  Floor 5.
 *
 *	guard.try(fn, ...) -> true, results | false, why    a cancel passes
 *	guard.pcall(fn, ...)                                so does the error of a runaway
 *	guard.wrap(fn, handler) -> fn                       the handler gets what it raises
 *
 * A job goes through two dozen of these.  In Lua each is a function around pcall and another one
 * for its results: three calls, and as many functions to be fetched into the caches, where one
 * will do.
 */
#include <stdbool.h>

#include "worker/door.h"
#include "worker/doors.h"
#include "worker/host.h"
#include "worker/task.h"

static bool guard_returned(int status)
{
	return status == LUA_OK || status == LUA_YIELD;
}

/* --- wrap --- */

/* What a wrapped function raised, on top: it is an error object.  Lua does not call a handler when
 * memory runs out: there may be none for it. */
static void wrapped_object(lua_State *L)
{
	if (door_is_error(L, -1, NULL))
		return;
	const char *where = host_oom_where(host_of(L));
	struct err err;
	err_set(&err, 0, "%s: it wanted more memory than a task may have", where ? where : "?");
	door_push_error(L, "limit", &err);
}

static int wrapped_done(lua_State *L, int status, lua_KContext context)
{
	(void)context;
	if (guard_returned(status))
		return lua_gettop(L) - 1; /* below them lies the handler */
	wrapped_object(L);
	return lua_error(L);
}

static int wrapped(lua_State *L)
{
	lua_pushvalue(L, lua_upvalueindex(2));
	lua_pushvalue(L, lua_upvalueindex(1));
	lua_rotate(L, 1, 2);
	return task_call(L, lua_gettop(L) - 2, 1, 0, wrapped_done);
}

/* --- try and pcall --- */

enum { PASS_RUNAWAYS = 1, WITH_HANDLER = 2 };

static bool guard_is_runaway(lua_State *L)
{
	if (!door_is_error(L, -1, "limit"))
		return false;
	lua_pushliteral(L, "runaway");
	lua_rawget(L, -2);
	bool is = lua_toboolean(L, -1);
	lua_pop(L, 1);
	return is;
}

static int guard_tried(lua_State *L, int status, lua_KContext how)
{
	bool handler = how & WITH_HANDLER;
	if (guard_returned(status))
		return lua_gettop(L) - handler; /* true, and the results */
	if (handler)
		wrapped_object(L);
	if (door_is_error(L, -1, "cancelled") || (how & PASS_RUNAWAYS && guard_is_runaway(L)))
		return lua_error(L);
	lua_pushboolean(L, 0);
	lua_insert(L, -2);
	return 2;
}

/* A wrapped function is mostly called by one who catches: then its handler serves the one catch. */
static int guard_call_wrapped(lua_State *L, lua_KContext how)
{
	lua_getupvalue(L, 1, 2);
	lua_pushboolean(L, 1);
	lua_getupvalue(L, 1, 1);
	lua_replace(L, 1);
	lua_rotate(L, 1, 2);
	return task_call(L, lua_gettop(L) - 3, 1, how | WITH_HANDLER, guard_tried);
}

static int guard_call(lua_State *L, lua_KContext how)
{
	luaL_checkany(L, 1);
	if (lua_tocfunction(L, 1) == wrapped)
		return guard_call_wrapped(L, how);
	lua_pushboolean(L, 1);
	lua_insert(L, 1);
	return task_call(L, lua_gettop(L) - 2, 0, how, guard_tried);
}

static int core_try(lua_State *L)
{
	return guard_call(L, 0);
}

static int core_pcall(lua_State *L)
{
	return guard_call(L, PASS_RUNAWAYS);
}

static int core_wrap(lua_State *L)
{
	luaL_checkany(L, 2);
	lua_settop(L, 2);
	lua_pushcclosure(L, wrapped, 2);
	return 1;
}

static const luaL_Reg functions[] = {
	{"try", core_try},
	{"pcall", core_pcall},
	{"wrap", core_wrap},
	{NULL, NULL},
};

int luaopen_worker_core_guard(lua_State *L)
{
	luaL_newlib(L, functions);
	return 1;
}
