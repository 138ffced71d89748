/* lane.c -- a call that blocks, from a door: in the helper thread.  Floor 4.
 *
 * The lane hangs in the registry of its Lua state, as a handle, so that closing the state ends it:
 * calls that still run are asked to stop at their next step, and waited for.  The thread is started
 * with the first call and ended, deferred, after the last one.
 */
#include "worker/lane.h"

#include <errno.h>
#include <stdlib.h>

#include "worker/door.h"
#include "worker/host.h"
#include "worker/loop.h"

struct lane {
	struct host *host;
	struct loop *loop;
	struct aside *aside; /* while there are calls, and a moment longer */
	struct list calls;
	struct loop_work idle;
};

/* Ends the thread; waits for what it is doing. */
static void lane_leave(struct lane *lane)
{
	loop_defer_cancel(&lane->idle);
	if (lane->aside != NULL)
		aside_close(lane->aside);
	lane->aside = NULL;
}

/* Nobody waits for the call any more.  It ends at its next step; what it owns is released then. */
static void lane_stop(struct lane_call *call)
{
	call->told = NULL;
	__atomic_store_n(&call->stop, true, __ATOMIC_RELAXED);
}

static void lane_close(lua_State *L, void *box)
{
	struct lane *lane = box;
	(void)L;
	if (lane->host == NULL)
		return;
	for (struct list *node = lane->calls.next; node != &lane->calls; node = node->next)
		lane_stop(container_of(node, struct lane_call, link));
	lane_leave(lane);
	loop_defer_cancel(&lane->idle);
}

static const struct door_type lane_type = {.name = "worker.lane", .close = lane_close};

/* The registry is the place because there is one lane per state and no file may hold a pointer to
 * it: a second host has a lane of its own. */
static struct lane *lane_of(lua_State *L)
{
	static const char key;
	if (lua_rawgetp(L, LUA_REGISTRYINDEX, &key) == LUA_TUSERDATA) {
		struct lane *known = lua_touserdata(L, -1);
		lua_pop(L, 1);
		return known;
	}
	lua_pop(L, 1);
	struct lane *lane = door_box(L, &lane_type, sizeof *lane);
	list_init(&lane->calls);
	lane->loop = host_loop(L);
	lane->host = host_of(L);
	lua_rawsetp(L, LUA_REGISTRYINDEX, &key);
	return lane;
}

/* Deferred, because the last call may be released from inside the thread's own delivery, and
 * because the next call often follows at once. */
static void lane_idle(void *arg)
{
	struct lane *lane = arg;
	if (list_empty(&lane->calls))
		lane_leave(lane);
}

static void lane_release(struct lane_call *call)
{
	struct lane *lane = call->lane;
	list_remove(&call->link);
	call->type->end(call);
	free(call);
	if (list_empty(&lane->calls))
		loop_defer(lane->loop, &lane->idle, lane_idle, lane);
}

void *lane_new(lua_State *L, size_t size, const struct lane_type *type)
{
	struct err err;
	struct lane *lane = lane_of(L);
	/* Everything that raises comes before the call exists. */
	struct lane_result *told = door_scratch(L, sizeof *told);
	struct task_token token = task_token(L);
	if (lane->aside == NULL)
		lane->aside = aside_open(lane->loop, "worker:files", &err);
	if (lane->aside == NULL) {
		door_raise(L, "file", &err);
		return NULL;
	}
	struct lane_call *call = calloc(1, size);
	if (call == NULL) {
		loop_defer(lane->loop, &lane->idle, lane_idle, lane);
		luaL_error(L, "out of memory");
		return NULL;
	}
	call->type = type;
	call->lane = lane;
	call->told = told;
	call->token = token;
	list_append(&lane->calls, &call->link);
	return call;
}

int lane_fail(lua_State *L, struct lane_call *call, const struct err *err)
{
	lane_release(call);
	return door_raise(L, "file", err);
}

static bool lane_run(void *arg)
{
	struct lane_call *call = arg;
	if (__atomic_load_n(&call->stop, __ATOMIC_RELAXED))
		return false;
	return call->type->run(call);
}

static int lane_push(lua_State *co, void *op)
{
	const struct lane_result *result = op;
	if (result->failed)
		return door_raise(co, "file", &result->err);
	lua_pushinteger(co, (lua_Integer)result->value);
	return 1;
}

/* The result is copied to the task's stack: the call is freed here, and the task runs later. */
static void lane_done(void *arg)
{
	struct lane_call *call = arg;
	if (call->told != NULL) {
		*call->told = call->result;
		task_wake(call->lane->host, call->token, lane_push, call->told);
	}
	lane_release(call);
}

static void lane_abort(void *op)
{
	lane_stop(op);
}

int lane_go(lua_State *L, struct lane_call *call)
{
	aside_start(call->lane->aside, &call->job, lane_run, lane_done, call);
	return task_park(L, call->token, lane_abort, call);
}
