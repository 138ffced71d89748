/* task.c -- Lua coroutines as tasks.  Floor 4.  See worker/task.h.
 *
 * A struct task lives inside a full userdata, the handle that Lua sees; its user value 1 is the
 * coroutine, user value 2 the reason of a cancel.  While a task is not dead the registry holds the
 * handle under the task's address, so nothing that is parked can be collected.
 *
 * A coroutine that ended well and left no results runs another task: its stack and the list of its
 * calls have grown already, which is most of what making one costs.  A few wait for that.
 *
 * Tokens are (slot, generation): the slot finds the task without touching memory that may be gone,
 * and the slot's generation moves on at every park, wake and death, so a late wake is recognised.
 *
 * The function of a task runs under lua_pcallk inside its coroutine.  An error therefore unwinds
 * inside, where <close> variables may still park; nothing ever escapes lua_resume but a failure of
 * the error handling itself.
 */
#include "worker/task.h"

#include <stdlib.h>
#include <string.h>

#include "worker/door.h"
#include "worker/host.h"
#include "worker/list.h"
#include "worker/log.h"
#include "worker/loop.h"
#include "worker/task_handle.h"

#define TASK_SPARES 16

struct task_slot {
	struct task *task;
	uint32_t gen;
	uint32_t next_free;
};

struct tasks {
	struct host *host;
	lua_State *L;
	struct task *running;
	struct task *first; /* the program: when it ends, so does the loop */
	bool any;	    /* there was a first */
	struct list ready;
	struct task_slot *slots; /* slot 0 is never used: it ends the free list */
	uint32_t room, free;
	size_t alive;
	uint64_t stale;
	int spares; /* coroutines in the table that the registry has under our address */
};

void tasks_open(struct host *host, lua_State *L, struct tasks **kept)
{
	struct tasks *tasks = calloc(1, sizeof *tasks);
	if (tasks == NULL)
		luaL_error(L, "out of memory for the tasks");
	*kept = tasks; /* somebody else's before anything below raises */
	tasks->host = host;
	tasks->L = L;
	list_init(&tasks->ready);
	lua_createtable(L, TASK_SPARES, 0);
	lua_rawsetp(L, LUA_REGISTRYINDEX, tasks);
}

void tasks_close(struct tasks *tasks)
{
	free(tasks->slots);
	free(tasks);
}

size_t tasks_alive(const struct tasks *tasks)
{
	return tasks->alive;
}

uint64_t tasks_stale_wakes(const struct tasks *tasks)
{
	return tasks->stale;
}

/* --- slots --- */

static void tasks_grow(struct tasks *tasks, lua_State *L)
{
	uint32_t room = tasks->room ? tasks->room * 2 : 64;
	struct task_slot *slots = realloc(tasks->slots, room * sizeof *slots);
	if (slots == NULL)
		luaL_error(L, "out of memory for a task");
	memset(slots + tasks->room, 0, (room - tasks->room) * sizeof *slots);
	for (uint32_t slot = room - 1; slot >= (tasks->room ? tasks->room : 1); slot--) {
		slots[slot].next_free = tasks->free;
		tasks->free = slot;
	}
	tasks->slots = slots;
	tasks->room = room;
}

static void task_take_slot(struct tasks *tasks, struct task *task)
{
	task->slot = tasks->free;
	tasks->free = tasks->slots[task->slot].next_free;
	tasks->slots[task->slot].task = task;
	tasks->alive++;
}

static void task_leave_slot(struct tasks *tasks, struct task *task)
{
	struct task_slot *slot = &tasks->slots[task->slot];
	slot->task = NULL;
	slot->gen++;
	slot->next_free = tasks->free;
	tasks->free = task->slot;
	tasks->alive--;
}

/* --- handles --- */

static void task_handle_close(lua_State *L, void *box)
{
	struct task *task = box;
	if (task->state != TASK_DEAD || task->ok || task->told)
		return;
	/* Nobody will ever ask how it ended, so it is said here: once. */
	task->told = true;
	lua_State *co = task->co;
	if (co == NULL || lua_gettop(co) < 1)
		return;
	(void)L;
	const char *text = lua_type(co, -1) == LUA_TSTRING ? lua_tostring(co, -1) : NULL;
	if (text == NULL && lua_type(co, -1) == LUA_TTABLE) {
		lua_pushliteral(co, "message");
		lua_rawget(co, -2);
		text = lua_tostring(co, -1);
	}
	log_at(LOG_LEVEL_ERROR, "task.failed", "a task failed and nobody waits for it: %s",
	       text ? text : "?");
}

static const char *task_handle_state(const void *box)
{
	static const char *const names[] = {"ready", "running", "parked", "dead"};
	return names[((const struct task *)box)->state];
}

/* The methods are the business of lua_task.c, one floor up, which hands them to task_methods. */
static const struct door_type *task_type(void)
{
	static const struct door_type type = {
		.name = "worker.task",
		.methods = NULL,
		.close = task_handle_close,
		.state = task_handle_state,
	};
	return &type;
}

void task_methods(lua_State *L, const luaL_Reg *methods)
{
	door_box(L, task_type(), sizeof(struct task));
	((struct task *)lua_touserdata(L, -1))->state = TASK_DEAD;
	((struct task *)lua_touserdata(L, -1))->told = true;
	lua_getmetatable(L, -1);
	lua_pushnil(L);
	lua_setfield(L, -2, "__close"); /* leaving a block does not end a task: scopes do */
	lua_getfield(L, -1, "__index");
	luaL_setfuncs(L, methods, 0);
	lua_pop(L, 3);
}

struct task *task_check(lua_State *L, int index)
{
	return door_check(L, index, task_type());
}

struct task *task_running(lua_State *L)
{
	return host_tasks(host_of(L))->running;
}

/* --- coroutines --- */

/* Pushes one that has nothing on its stack. */
static lua_State *task_coroutine(struct tasks *tasks, lua_State *L)
{
	if (tasks->spares == 0)
		return lua_newthread(L);
	lua_rawgetp(L, LUA_REGISTRYINDEX, tasks);
	lua_rawgeti(L, -1, tasks->spares);
	lua_pushnil(L);
	lua_rawseti(L, -3, tasks->spares--);
	lua_remove(L, -2);
	return lua_tothread(L, -1);
}

/* The place in the table is there already: nothing is allocated here, as nobody could catch it. */
static void task_spare(struct tasks *tasks, struct task *task)
{
	lua_State *L = tasks->L;
	if (tasks->spares == TASK_SPARES)
		return;
	lua_settop(task->co, 0);
	lua_sethook(task->co, NULL, 0, 0); /* one it was born with was for its first task */
	task->co = NULL;
	lua_rawgetp(L, LUA_REGISTRYINDEX, tasks);
	lua_rawgetp(L, LUA_REGISTRYINDEX, task);
	lua_getiuservalue(L, -1, 1);
	lua_rawseti(L, -3, ++tasks->spares);
	lua_pushnil(L);
	lua_setiuservalue(L, -2, 1);
	lua_pop(L, 2);
}

static void task_anchor(lua_State *L, struct task *task, int index)
{
	lua_pushvalue(L, index);
	lua_rawsetp(L, LUA_REGISTRYINDEX, task);
}

/* --- the life of a task --- */

static int task_done(lua_State *L, int status, lua_KContext context)
{
	struct task *task = task_running(L);
	(void)context;
	task->ok = status == LUA_OK || status == LUA_YIELD;
	lua_remove(L, 1);
	if (status == LUA_ERRMEM) {
		const char *where = host_oom_where(host_of(L));
		struct err err;
		err_set(&err, 0, "%s: not enough memory: this task wanted more than it may have",
			where ? where : "?");
		door_push_error(L, "limit", &err);
		lua_replace(L, 1);
		lua_settop(L, 1);
	}
	return lua_gettop(L);
}

int task_call(lua_State *L, int nargs, int handler, lua_KContext context, lua_KFunction done)
{
	return done(L, lua_pcallk(L, nargs, LUA_MULTRET, handler, context, done), context);
}

static int task_body(lua_State *L)
{
	lua_pushcfunction(L, host_traceback);
	lua_insert(L, 1);
	return task_call(L, lua_gettop(L) - 2, 1, 0, task_done);
}

void task_start(lua_State *L, int nargs)
{
	struct tasks *tasks = host_tasks(host_of(L));
	int first = lua_gettop(L) - nargs; /* the function */
	if (tasks->free == 0)
		tasks_grow(tasks, L);
	struct task *task = door_box_with(L, task_type(), sizeof *task, 2);
	task->state = TASK_DEAD;
	task->told = true; /* until it lives */
	list_init(&task->joiners);
	task->tasks = tasks;

	lua_State *co = task_coroutine(tasks, L);
	lua_setiuservalue(L, -2, 1);
	luaL_checkstack(co, nargs + 8, "too many arguments for a task");
	lua_insert(L, first); /* the handle, below the function */
	lua_pushcfunction(co, task_body);
	lua_xmove(L, co, nargs + 1);
	task_anchor(L, task, first);

	task->co = co;
	task->told = false;
	task->state = TASK_READY;
	task_take_slot(tasks, task);
	list_append(&tasks->ready, &task->link);
	if (!tasks->any)
		tasks->first = task;
	tasks->any = true;
}

static void task_bury(struct tasks *tasks, struct task *task, int results)
{
	task->state = TASK_DEAD;
	task->results = results;
	task_leave_slot(tasks, task);
	if (task == tasks->first) {
		tasks->first = NULL;
		loop_stop(host_loop(tasks->L));
	}
	struct list *node;
	while ((node = list_shift(&task->joiners)) != NULL) {
		struct task_joiner *joiner = container_of(node, struct task_joiner, link);
		task_wake(tasks->host, joiner->token, joiner->push, joiner);
	}
	if (results == 0 && task->ok)
		task_spare(tasks, task);
	lua_pushnil(tasks->L);
	lua_rawsetp(tasks->L, LUA_REGISTRYINDEX, task); /* an existing key: no allocation */
}

static void task_resume(struct tasks *tasks, struct task *task)
{
	int results = 0;
	int nargs = task->started ? 0 : lua_gettop(task->co) - 1;
	task->started = true;
	task->state = TASK_RUNNING;
	tasks->running = task;
	host_burst_begin(tasks->host, task->co);
	int status = lua_resume(task->co, tasks->L, nargs, &results);
	host_burst_end(tasks->host);
	tasks->running = NULL;
	if (status == LUA_YIELD) {
		if (task->state == TASK_PARKED)
			return;
		/* A bare coroutine.yield(): take it as "let the others go first". */
		lua_pop(task->co, results);
		task->state = TASK_READY;
		list_append(&tasks->ready, &task->link);
		return;
	}
	if (status != LUA_OK) {
		task->ok = false;
		results = 1;
	}
	task_bury(tasks, task, results);
}

bool tasks_run_ready(void *arg)
{
	struct tasks *tasks = arg;
	struct list batch;
	list_init(&batch);
	list_splice(&batch, &tasks->ready);
	struct list *node;
	while ((node = list_shift(&batch)) != NULL)
		task_resume(tasks, container_of(node, struct task, link));
	return !list_empty(&tasks->ready);
}

/* --- park, wake, cancel --- */

static int task_raise_cancel(lua_State *L, struct task *task)
{
	struct err err = {.code = 0, .text = "cancelled"};
	const void *mark = task->mark;
	task->cancelled = task->aborted = false;
	task->mark = NULL;
	door_push_error(L, "cancelled", &err);
	lua_rawgetp(L, LUA_REGISTRYINDEX, task);
	lua_getiuservalue(L, -1, 2);
	if (mark != NULL) {
		lua_pop(L, 1);
		lua_pushliteral(L, "deadline");
		lua_pushlightuserdata(L, (void *)(uintptr_t)mark);
		lua_setfield(L, -4, "mark");
	}
	lua_setfield(L, -3, "reason");
	lua_pop(L, 1);
	return lua_error(L);
}

struct task_token task_token(lua_State *L)
{
	struct task *task = task_running(L);
	if (task == NULL)
		luaL_error(L, "this call waits, and only a task can wait");
	if (task->co != L)
		luaL_error(L, "this call waits; inside a coroutine of your own it cannot");
	if (!lua_isyieldable(L))
		luaL_error(L, "this call waits; it cannot do so inside gsub, sort, require or a "
			      "metamethod that C calls");
	if (task->cancelled)
		task_raise_cancel(L, task);
	struct task_slot *slot = &task->tasks->slots[task->slot];
	task->push = NULL;
	task->woken = false;
	return (struct task_token){.slot = task->slot, .gen = ++slot->gen};
}

static int task_continue(lua_State *L, int status, lua_KContext context)
{
	struct task *task = task_running(L);
	(void)status;
	(void)context;
	if (task->aborted)
		return task_raise_cancel(L, task);
	if (!task->woken)
		return lua_yieldk(L, 0, 0, task_continue); /* resumed by a stray: wait on */
	return task->push ? task->push(L, task->op) : 0;
}

int task_park(lua_State *L, struct task_token token, task_abort_fn *abort, void *op)
{
	struct task *task = task_running(L);
	(void)token;
	if (task->woken) /* it was over before we could wait */
		return task->push ? task->push(L, task->op) : 0;
	task->abort = abort;
	task->op = op;
	task->state = TASK_PARKED;
	return lua_yieldk(L, 0, 0, task_continue);
}

static void task_ready(struct task *task)
{
	task->abort = NULL;
	task->tasks->slots[task->slot].gen++;
	if (task->state != TASK_PARKED)
		return;
	task->state = TASK_READY;
	list_append(&task->tasks->ready, &task->link);
}

void task_wake(struct host *host, struct task_token token, task_push_fn *push, void *op)
{
	struct tasks *tasks = host_tasks(host);
	if (token.slot >= tasks->room || tasks->slots[token.slot].gen != token.gen ||
	    tasks->slots[token.slot].task == NULL) {
		tasks->stale++;
		return;
	}
	struct task *task = tasks->slots[token.slot].task;
	task->woken = true;
	task->push = push;
	task->op = op;
	task_ready(task);
}

/* A task that is already woken gets its result first: a claimed job must not be lost because the
 * cancel came in the same turn.  The cancel is raised where it would wait next. */
void task_cancel(struct task *task, const void *mark)
{
	if (task->state == TASK_DEAD)
		return;
	if (!task->cancelled || mark == NULL)
		task->mark = mark;
	task->cancelled = true;
	if (task->state != TASK_PARKED)
		return;
	task->aborted = true;
	if (task->abort != NULL)
		task->abort(task->op);
	task_ready(task);
}

void task_cancel_withdraw(struct task *task, const void *mark)
{
	if (task->cancelled && task->mark == mark && mark != NULL && !task->aborted) {
		task->cancelled = false;
		task->mark = NULL;
	}
}
