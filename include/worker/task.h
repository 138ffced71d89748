/* task.h -- Lua coroutines as tasks.  Floor 4.
 *
 * A task is one coroutine started by the core.  It is READY, RUNNING, PARKED or DEAD.  Lua code
 * runs in exactly one place: tasks_run_ready(), called once per turn of the loop.  C callbacks
 * never run Lua: they record what happened and wake a task.
 *
 * A door that has to wait does three things in this order:
 *
 *	check	task_token(L): raises unless the caller is a task that may yield here
 *	arm	start the timer, the read, the child ...
 *	park	return task_park(L, token, abort, op);
 *
 * and later a callback calls task_wake(host, token, push, op).  Between check and park nothing may
 * raise while something is armed.  Memory that the operation needs while parked is a
 * door_scratch() or the handle itself, both anchored on the task's stack.
 *
 * Cancelling a parked task calls the abort function, then raises the cancel error at the parked
 * call, so that <close> variables clean up; they may themselves park.  Cancelling is once: whoever
 * catches the error goes on (the plugins' pcall does not catch it).
 */
#ifndef WORKER_TASK_H
#define WORKER_TASK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <lua.h>

struct host;
struct tasks;

/* Names one park of one task, once.  A token that is no longer true is counted and ignored. */
struct task_token {
	uint32_t slot;
	uint32_t gen;
};

typedef void task_abort_fn(void *op);
typedef int task_push_fn(lua_State *co, void *op);

/* task_token(L): a token for the park that follows; raises "this call blocks ..." where the
 * running code cannot yield, and raises the cancel error when a cancel is due. */
struct task_token task_token(lua_State *L);

/* task_park(L, token, abort, op): suspend the running task; use as "return task_park(...)".
 * ${abort}(${op}) must disarm and not call Lua; NULL when there is nothing to disarm.  The call's
 * results are what the wake pushes. */
int task_park(lua_State *L, struct task_token token, task_abort_fn *abort, void *op);

/* task_call(L, nargs, handler, context, done): call the function on top, with its arguments, such
 * that it may park: ${done}(L, status, ${context}) says what becomes of its results, or of its
 * error. Use as "return task_call(...)". */
int task_call(lua_State *L, int nargs, int handler, lua_KContext context, lua_KFunction done);

/* task_wake(host, token, push, op): make the parked task ready.  ${push}(co, ${op}) runs when the
 * task does, pushes the results and returns their number, or returns lua_error(co) with an error
 * object on top to raise it at the call.  NULL pushes nothing.  ${op} must live until then: keep
 * it in memory that the task's stack anchors. */
void task_wake(struct host *host, struct task_token token, task_push_fn *push, void *op);

/* task_start(L, nargs): start a task from the function and its ${nargs} arguments on top of ${L};
 * pops them and pushes the task's handle.  The first task is the program: however it ends, the loop
 * is told to stop. */
void task_start(lua_State *L, int nargs);

/* tasks_open(host, L, kept) / tasks_close(*kept): once, by the host.  tasks_run_ready: step 1 of
 * the loop; returns whether more tasks are ready. */
void tasks_open(struct host *host, lua_State *L, struct tasks **kept);
void tasks_close(struct tasks *tasks);
bool tasks_run_ready(void *tasks);

/* How many tasks are not dead; how many wakes came too late; how many lua_State resumes. */
size_t tasks_alive(const struct tasks *tasks);
uint64_t tasks_stale_wakes(const struct tasks *tasks);

/* luaopen_worker_core_task: start, join, cancel, sleep ... (see lua_task.c, floor 5, which adds
 * to it). */

#endif
