/* lane.h -- a call that blocks, from a door: in the helper thread, while the task is parked.
 * Floor 4.
 *
 * All doors share one thread per host; it lives while there is something to do.  Its jobs go in
 * steps and take turns.  A door does three things, and may raise only before the second:
 *
 *	struct copy_call *call = lane_new(L, sizeof *call, &copy_calls);	may raise
 *	...fill it in; on failure: return lane_fail(L, &call->lane, &err);
 *	return lane_go(L, &call->lane);
 *
 * The struct begins with a struct lane_call and is not Lua's memory: the thread may still work with
 * it when the task has been cancelled and is gone.  run() therefore owns everything it touches.
 */
#ifndef WORKER_LANE_H
#define WORKER_LANE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <lua.h>

#include "worker/aside.h"
#include "worker/err.h"
#include "worker/list.h"
#include "worker/task.h"

struct lane_call;

struct lane_type {
	bool (*run)(struct lane_call *call); /* a step, in the thread; true for more */
	void (*end)(struct lane_call *call); /* release what it owns (not itself); in the loop */
};

struct lane_result {
	bool failed;
	struct err err;
	int64_t value; /* what the call returns to Lua */
};

struct lane_call {
	const struct lane_type *type;
	struct lane_result result; /* for run() to fill in; also the caller's copy, at the end */
	/* private */
	struct aside_job job;
	struct list link;
	struct lane *lane;
	struct lane_result *told; /* on the task's stack; NULL once the task has gone away */
	struct task_token token;
	bool stop; /* asked for by the loop, read by the thread */
};

/* lane_new(L, size, type): a zeroed call; raises where the caller cannot wait. */
void *lane_new(lua_State *L, size_t size, const struct lane_type *type);

/* lane_fail(L, call, err): end the call before it began; raises a "file" error. */
int lane_fail(lua_State *L, struct lane_call *call, const struct err *err);

/* lane_go(L, call): park until run() is through; returns its value, or raises a "file" error. */
int lane_go(lua_State *L, struct lane_call *call);

#endif
