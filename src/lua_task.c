/* lua_task.c -- worker.core.task: tasks for Lua.  Floor 5.
 *
 *	task.start(fn, ...) -> handle      run fn in a task of its own
 *	task.self() -> handle or nil
 *	task.forgive() -> was              forget a cancel of the caller that was not raised yet
 *	task.sleep(seconds)
 *	task.yield()                       let the others go first
 *	task.within(seconds, fn, ...)      true, results; false when the time was up
 *	task.deadline(seconds [, real])    cancels the caller then (real: by the real clock)
 *	deadline:mark()
 *	deadline:close()                   withdraws what was not yet raised
 *	task.signal() -> signal
 *	signal:wait([seconds]) -> woken
 *	signal:fire([n]) -> count
 *	handle:join() -> ok, results or error
 *	handle:cancel(reason)
 *	handle:state() -> "ready" | "running" | "parked" | "dead"
 *
 * What people use (scopes, channels ...) is built from these in lua/worker/task.lua.
 */
#include "worker/clock.h"
#include "worker/door.h"
#include "worker/doors.h"
#include "worker/host.h"
#include "worker/loop.h"
#include "worker/task.h"
#include "worker/task_handle.h"

/* --- sleep --- */

struct nap {
	struct loop_timer timer;
	struct task_token token;
	struct host *host;
	struct loop *loop;
};

static void nap_abort(void *op)
{
	struct nap *nap = op;
	loop_timer_stop(nap->loop, &nap->timer);
}

static void nap_due(void *op)
{
	struct nap *nap = op;
	task_wake(nap->host, nap->token, NULL, NULL);
}

static int core_sleep(lua_State *L)
{
	int64_t ns = door_nanos(L, 1);
	struct nap *nap = door_scratch(L, sizeof *nap);
	nap->host = host_of(L);
	nap->loop = host_loop(L);
	nap->token = task_token(L);
	if (loop_timer_start(nap->loop, &nap->timer, ns, nap_due, nap) == -1)
		return luaL_error(L, "out of memory for a timer");
	return task_park(L, nap->token, nap_abort, nap);
}

static int core_yield(lua_State *L)
{
	struct task_token token = task_token(L);
	/* Woken before it parks would not give way, so it parks first: by a timer of no time. */
	(void)token;
	lua_settop(L, 0);
	lua_pushinteger(L, 0);
	return core_sleep(L);
}

/* --- deadlines --- */

struct deadline {
	struct loop_timer timer;
	struct loop *loop;
	struct task *task; /* anchored as user value 1 */
};

static void deadline_due(void *arg)
{
	struct deadline *deadline = arg;
	task_cancel(deadline->task, deadline);
}

static void deadline_close(lua_State *L, void *box)
{
	struct deadline *deadline = box;
	(void)L;
	if (deadline->task == NULL)
		return;
	loop_timer_stop(deadline->loop, &deadline->timer);
	task_cancel_withdraw(deadline->task, deadline);
	deadline->task = NULL;
}

static const struct door_type deadline_type;

static int deadline_mark(lua_State *L)
{
	lua_pushlightuserdata(L, door_check(L, 1, &deadline_type));
	return 1;
}

static int deadline_close_method(lua_State *L)
{
	deadline_close(L, door_check(L, 1, &deadline_type));
	return 0;
}

static const luaL_Reg deadline_methods[] = {
	{"mark", deadline_mark},
	{"close", deadline_close_method},
	{NULL, NULL},
};

static const struct door_type deadline_type = {
	.name = "worker.deadline",
	.methods = deadline_methods,
	.close = deadline_close,
};

/* Pushes one for the calling task. */
static void deadline_open(lua_State *L, int64_t ns, bool real)
{
	struct task *task = task_running(L);
	if (task == NULL)
		luaL_error(L, "a deadline needs a task");
	struct deadline *deadline = door_box_with(L, &deadline_type, sizeof *deadline, 1);
	lua_rawgetp(L, LUA_REGISTRYINDEX, task);
	lua_setiuservalue(L, -2, 1);
	deadline->loop = host_loop(L);
	int started = (real ? loop_timer_start_real : loop_timer_start)(
		deadline->loop, &deadline->timer, ns, deadline_due, deadline);
	if (started == -1)
		luaL_error(L, "out of memory for a timer");
	deadline->task = task;
}

static int core_deadline(lua_State *L)
{
	deadline_open(L, door_nanos(L, 1), lua_toboolean(L, 2));
	return 1;
}

/* On the stack: the deadline, true, and what the function returned or raised. */
static int within_done(lua_State *L, int status, lua_KContext context)
{
	void *deadline = lua_touserdata(L, 1);
	(void)context;
	deadline_close(L, deadline);
	if (status == LUA_OK || status == LUA_YIELD)
		return lua_gettop(L) - 1;
	if (!door_is_error(L, -1, "cancelled"))
		return lua_error(L);
	lua_pushliteral(L, "mark");
	lua_rawget(L, -2);
	bool ours = lua_touserdata(L, -1) == deadline;
	lua_pop(L, 1);
	if (!ours)
		return lua_error(L);
	lua_pushboolean(L, 0);
	return 1;
}

static int core_within(lua_State *L)
{
	int64_t ns = door_nanos(L, 1);
	luaL_checkany(L, 2);
	deadline_open(L, ns, false);
	lua_replace(L, 1);
	lua_pushboolean(L, 1);
	lua_insert(L, 2);
	return task_call(L, lua_gettop(L) - 3, 0, 0, within_done);
}

/* --- signals: waiting for another task --- */

struct signal {
	struct list waiters;
	bool open;
};

struct waiter {
	struct list link;
	struct loop_timer timer;
	struct loop *loop;
	struct host *host;
	struct task_token token;
	bool fired;
};

static const struct door_type signal_type;

static void waiter_leave(void *op)
{
	struct waiter *waiter = op;
	list_remove(&waiter->link);
	loop_timer_stop(waiter->loop, &waiter->timer);
}

static int waiter_push(lua_State *co, void *op)
{
	const struct waiter *waiter = op;
	lua_pushboolean(co, waiter->fired);
	return 1;
}

static void waiter_wake(struct waiter *waiter, bool fired)
{
	waiter_leave(waiter);
	waiter->fired = fired;
	task_wake(waiter->host, waiter->token, waiter_push, waiter);
}

static void waiter_due(void *op)
{
	waiter_wake(op, false);
}

static int signal_wait(lua_State *L)
{
	struct signal *signal = door_check(L, 1, &signal_type);
	int64_t ns = lua_isnoneornil(L, 2) ? -1 : door_nanos(L, 2);
	struct waiter *waiter = door_scratch(L, sizeof *waiter);
	waiter->host = host_of(L);
	waiter->loop = host_loop(L);
	waiter->token = task_token(L);
	if (ns >= 0 && loop_timer_start(waiter->loop, &waiter->timer, ns, waiter_due, waiter) == -1)
		return luaL_error(L, "out of memory for a timer");
	list_append(&signal->waiters, &waiter->link);
	return task_park(L, waiter->token, waiter_leave, waiter);
}

static int signal_fire(lua_State *L)
{
	struct signal *signal = door_check(L, 1, &signal_type);
	lua_Integer most = luaL_optinteger(L, 2, 1);
	lua_Integer woken = 0;
	for (; woken < most && !list_empty(&signal->waiters); woken++)
		waiter_wake(container_of(signal->waiters.next, struct waiter, link), true);
	lua_pushinteger(L, woken);
	return 1;
}

static const luaL_Reg signal_methods[] = {
	{"wait", signal_wait},
	{"fire", signal_fire},
	{NULL, NULL},
};

/* A waiter's stack holds the signal, so a signal that is collected has no waiters. */
static const struct door_type signal_type = {.name = "worker.signal", .methods = signal_methods};

static int core_signal(lua_State *L)
{
	struct signal *signal = door_box(L, &signal_type, sizeof *signal);
	list_init(&signal->waiters);
	return 1;
}

/* --- handles --- */

static void joiner_abort(void *op)
{
	struct task_joiner *joiner = op;
	list_remove(&joiner->link);
}

/* Several may join one task: each gets a copy of the results. */
static int join_results(lua_State *L, struct task *task)
{
	int n = task->results;
	lua_pushboolean(L, task->ok);
	task->told = true;
	if (n == 0) /* its coroutine may run another task by now */
		return 1;
	luaL_checkstack(L, n + 1, "too many results");
	luaL_checkstack(task->co, n + 1, "too many results");
	int first = lua_gettop(task->co) - n;
	for (int i = 1; i <= n; i++)
		lua_pushvalue(task->co, first + i);
	lua_xmove(task->co, L, n);
	return n + 1;
}

static int joiner_push(lua_State *co, void *op)
{
	const struct task_joiner *joiner = op;
	return join_results(co, joiner->task);
}

static int handle_join(lua_State *L)
{
	struct task *task = task_check(L, 1);
	if (task->state == TASK_DEAD)
		return join_results(L, task);
	if (task == task_running(L))
		return luaL_error(L, "a task cannot wait for itself");
	struct task_joiner *joiner = door_scratch(L, sizeof *joiner);
	joiner->task = task; /* argument 1 anchors it */
	joiner->push = joiner_push;
	joiner->token = task_token(L);
	list_append(&task->joiners, &joiner->link);
	return task_park(L, joiner->token, joiner_abort, joiner);
}

static int handle_cancel(lua_State *L)
{
	struct task *task = task_check(L, 1);
	lua_settop(L, 2);
	if (task->state == TASK_DEAD)
		return 0;
	lua_setiuservalue(L, 1, 2);
	task_cancel(task, NULL);
	return 0;
}

static int handle_state(lua_State *L)
{
	static const char *const names[] = {"ready", "running", "parked", "dead"};
	lua_pushstring(L, names[task_check(L, 1)->state]);
	return 1;
}

static const luaL_Reg handle_methods[] = {
	{"join", handle_join},
	{"cancel", handle_cancel},
	{"state", handle_state},
	{NULL, NULL},
};

static int core_start(lua_State *L)
{
	luaL_checktype(L, 1, LUA_TFUNCTION);
	task_start(L, lua_gettop(L) - 1);
	return 1;
}

/* A cancel that came too late to reach what it was meant for must not hit what comes next. */
static int core_forgive(lua_State *L)
{
	struct task *task = task_running(L);
	lua_pushboolean(L, task != NULL && task->cancelled);
	if (task != NULL)
		task->cancelled = false;
	return 1;
}

static int core_self(lua_State *L)
{
	struct task *task = task_running(L);
	if (task == NULL)
		return 0;
	lua_rawgetp(L, LUA_REGISTRYINDEX, task);
	return 1;
}

static const luaL_Reg functions[] = {
	{"start", core_start},	 {"self", core_self},	  {"forgive", core_forgive},
	{"sleep", core_sleep},	 {"yield", core_yield},	  {"deadline", core_deadline},
	{"within", core_within}, {"signal", core_signal}, {NULL, NULL},
};

int luaopen_worker_core_task(lua_State *L)
{
	task_methods(L, handle_methods);
	luaL_newlib(L, functions);
	return 1;
}
