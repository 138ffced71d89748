/* task_handle.h -- the inside of a task's handle, for the door that serves it.  Floor 4.
 *
 * Only task.c and lua_task.c include this: starting, joining and cancelling by handle need the
 * struct; every other door lives by tokens (worker/task.h).
 */
#ifndef WORKER_TASK_HANDLE_H
#define WORKER_TASK_HANDLE_H

#include <stdbool.h>
#include <stdint.h>

#include <lauxlib.h>
#include <lua.h>

#include "worker/list.h"
#include "worker/task.h"

enum task_state { TASK_READY, TASK_RUNNING, TASK_PARKED, TASK_DEAD };

struct task {
	struct list link; /* in the ready queue */
	struct list joiners;
	struct tasks *tasks;
	lua_State *co;
	task_abort_fn *abort; /* while parked: disarms ${op} */
	task_push_fn *push;   /* once woken: pushes the results of ${op} */
	void *op;
	const void *mark; /* the deadline that cancelled it, or NULL */
	uint32_t slot;
	int results; /* once dead: how many values lie on its stack */
	enum task_state state;
	bool started, woken, cancelled, aborted;
	bool ok;   /* once dead: it returned */
	bool told; /* somebody knows how it ended: joined, or logged */
};

/* Somebody who waits for a task's end; in the waiter's scratch memory. */
struct task_joiner {
	struct list link;
	struct task_token token;
	task_push_fn *push; /* gets the joiner */
	struct task *task;
};

/* task_methods(L, methods): give the handles their methods, once. */
void task_methods(lua_State *L, const luaL_Reg *methods);

struct task *task_check(lua_State *L, int index);

/* task_running(L): the task that runs now, or NULL in the main chunk. */
struct task *task_running(lua_State *L);

/* task_cancel(task, mark): raise the cancel error where ${task} waits or will wait next.  A
 * ${mark} names the deadline that did it.  task_cancel_withdraw: take back what ${mark} asked for,
 * if it has not been raised yet. */
void task_cancel(struct task *task, const void *mark);
void task_cancel_withdraw(struct task *task, const void *mark);

#endif
