/* lua_process.c -- worker.core.process: children for Lua.  Floor 5.
 *
 *	process.spawn(request) -> child, pid  parks until exec has succeeded; raises kind "spawn"
 *	process.env(base, ...) -> table       several in one; false takes a name out
 *	process.signals                       {TERM = 15, ...}
 *	child:pid()
 *	child:read(drain) -> stream, text     parks; text may be "" (ask again); at the end nil,
 *	                                      whether others held it open, bytes over the limit
 *	child:wait() -> code, signal, core, cpu, user, system, wall, peak memory
 *	                                      parks; code or signal is nil
 *	child:write(text) -> boolean          parks; false when the child no longer reads
 *	child:shut()                          ends its stdin
 *	child:signal(n, whole_tree)           child:end_tree(): KILL for the tree; parks until empty
 *	child:close()
 *
 * A child's own tree is here; a control group is a handle of worker.core.cgroup, and whoever uses
 * one asks that for signals and the end.  How a child lives is in lua_child.c.
 */
#include <errno.h>
#include <signal.h>
#include <string.h>

#include "worker/door.h"
#include "worker/doors.h"
#include "worker/host.h"
#include "worker/loop.h"
#include "worker/lua_cgroup.h"
#include "worker/lua_child.h"
#include "worker/lua_env.h"
#include "worker/lua_spawn.h"
#include "worker/orphans.h"
#include "worker/spawn.h"
#include "worker/stream.h"
#include "worker/task.h"

static const struct door_type box_type;

static struct process *to_process(lua_State *L)
{
	struct box *box = door_check(L, 1, &box_type);
	if (box->process == NULL)
		luaL_argerror(L, 1, "the child is closed");
	return box->process;
}

static void box_close(lua_State *L, void *ud)
{
	struct box *box = ud;
	(void)L;
	if (box->process != NULL)
		lua_child_abandon(box->process);
}

static const char *box_state(const void *ud)
{
	const struct process *process = ((const struct box *)ud)->process;
	if (process == NULL)
		return "closed";
	return process->exited ? "exited" : process->started ? "running" : "starting";
}

/* --- starting --- */

static void starter_abort(void *op)
{
	struct box *box = op;
	if (box->process != NULL)
		lua_child_abandon(box->process);
}

static struct nursery *nursery_of(lua_State *L);
static int nursery_open(struct nursery *nursery, struct loop *loop, struct err *err);

/* What the door itself makes of the options; the rest is the request. */
struct plan {
	struct spawn_request request;
	char tag[ORPHANS_TAG_SIZE];
	const char *input;
	size_t input_length;
	bool piped, merge;
	uint64_t ceiling;
};

/* User value 1 of the handle anchors the group: it is not collected while the child is there. Taken
 * when no Lua code can run any more, which could close it. */
static struct cgroup *take_group(lua_State *L)
{
	lua_getiuservalue(L, 2, 1);
	struct cgroup *group = lua_isnil(L, -1) ? NULL : lua_cgroup_test(L, -1);
	if (group == NULL && !lua_isnil(L, -1))
		luaL_error(L, "field 'cgroup': expected a control group that is open, got %s",
			   luaL_tolstring(L, -1, NULL));
	return group;
}

static void read_plan(lua_State *L, struct plan *plan)
{
	int first = lua_spawn_lay(L, 1, lua_upvalueindex(1));
	bool grouped = !lua_isnil(L, first + LUA_SPAWN_CGROUP);
	lua_pushvalue(L, first + LUA_SPAWN_CGROUP);
	lua_setiuservalue(L, 2, 1);
	plan->tag[0] = '\0';
	if (!grouped)
		orphans_tag(plan->tag);
	lua_spawn_request(L, first, grouped ? NULL : plan->tag, &plan->request);
	plan->input = NULL;
	plan->piped = lua_type(L, first + LUA_SPAWN_STDIN) == LUA_TBOOLEAN &&
		      lua_toboolean(L, first + LUA_SPAWN_STDIN);
	if (!lua_isboolean(L, first + LUA_SPAWN_STDIN))
		plan->input = lua_spawn_text(L, first, LUA_SPAWN_STDIN, &plan->input_length);
	plan->merge = lua_spawn_flag(L, first, LUA_SPAWN_MERGE, false);
	plan->ceiling =
		(uint64_t)lua_spawn_number(L, first, LUA_SPAWN_OUTPUT_LIMIT, 0, INT64_MAX, 0);
}

/* Nothing that can raise happens in here, with pipes open. */
static int process_start(struct process *process, struct plan *plan, struct err *err)
{
	lua_child_pipes(&plan->request, plan->merge);
	if (lua_child_input(process, &plan->request, plan->input, plan->input_length, plan->piped,
			    err) == -1)
		return -1;
	process->ceiling = plan->ceiling;
	strcpy(process->tree.tag, plan->tag);
	process->spawn = spawn_start(process->nursery->spawner, &plan->request, lua_child_event,
				     process, err);
	return process->spawn == NULL ? -1 : 0;
}

/* In the order of every door: all that may raise, the token, then what has to be undone. */
static int core_spawn(lua_State *L)
{
	struct plan plan;
	struct err err = {.code = 0};
	luaL_checktype(L, 1, LUA_TTABLE);
	lua_settop(L, 1);
	struct box *box = door_box_with(L, &box_type, sizeof *box, 1); /* index 2, as promised */
	read_plan(L, &plan);
	struct nursery *nursery = nursery_of(L);
	if (nursery_open(nursery, host_loop(L), &err) == -1)
		return door_raise(L, "spawn", &err);
	struct task_token token = task_token(L);
	plan.request.cgroup = take_group(L);
	struct process *process = lua_child_new(L, nursery, box);
	process->starter = token;
	if (process_start(process, &plan, &err) == -1) {
		lua_child_abandon(process);
		return door_raise(L, "spawn", &err);
	}
	return task_park(L, token, starter_abort, box);
}

/* --- output --- */

static void reader_abort(void *op)
{
	struct process *process = ((struct box *)op)->process;
	if (process != NULL)
		lua_child_disarm(process);
}

/* One reader: two would each get half of the bytes. */
static int child_read(lua_State *L)
{
	struct process *process = to_process(L);
	int64_t drain = door_nanos(L, 2);
	struct err err;
	if (!process->out[OUT].open && !process->out[ERR].open)
		return lua_child_push_end(L, process);
	if (process->reading)
		return luaL_error(L, "another task already reads the output of this child");
	process->reader = task_token(L);
	if (lua_child_arm(process, drain, &err) == -1) {
		lua_child_disarm(process);
		return door_raise(L, "spawn", &err);
	}
	process->reading = true;
	return task_park(L, process->reader, reader_abort, process->box);
}

/* --- input --- */

static int write_push(lua_State *co, void *op)
{
	const struct process *process = ((struct box *)op)->process;
	if (process == NULL)
		return lua_child_closed(co, NULL);
	lua_pushboolean(co, process->write_code == 0);
	return 1;
}

static void write_done(void *arg, int code)
{
	struct process *process = arg;
	process->writing = false;
	process->write_code = code;
	task_wake(process->host, process->writer, write_push, process->box);
}

static void write_abort(void *op)
{
	struct process *process = ((struct box *)op)->process;
	if (process == NULL)
		return;
	process->writing = false;
	stream_writer_cancel(&process->in);
}

static int child_write(lua_State *L)
{
	struct process *process = to_process(L);
	size_t length;
	const char *text = luaL_checklstring(L, 2, &length); /* the stack holds it while we park */
	struct err err = {.code = 0};
	luaL_argcheck(L, process->in.open, 1, "its stdin is no pipe, or is shut");
	process->writer = task_token(L);
	int n = stream_writer_send(&process->in, text, length, write_done, process, &err);
	if (n == 0) {
		process->writing = true;
		return task_park(L, process->writer, write_abort, process->box);
	}
	if (n == -1 && err.code != EPIPE)
		return door_raise(L, "spawn", &err);
	lua_pushboolean(L, n == 1);
	return 1;
}

static int child_shut(lua_State *L)
{
	struct process *process = to_process(L);
	if (process->writing)
		return luaL_error(L, "another task still writes to this child");
	stream_writer_close(&process->in);
	return 0;
}

/* --- the end of the leader --- */

static void waiter_abort(void *op)
{
	list_remove(&((struct waiter *)op)->link);
}

static struct waiter *waiter_new(lua_State *L)
{
	struct waiter *waiter = door_scratch(L, sizeof *waiter);
	waiter->box = lua_touserdata(L, 1);
	waiter->token = task_token(L);
	return waiter;
}

/* Any number of tasks may wait, before and after the exit. */
static int child_wait(lua_State *L)
{
	struct process *process = to_process(L);
	if (process->exited)
		return lua_child_push_result(L, spawn_result(process->spawn));
	struct waiter *waiter = waiter_new(L);
	list_append(&process->waiters, &waiter->link);
	return task_park(L, waiter->token, waiter_abort, waiter);
}

/* --- signals --- */

/* A tree may be empty, a leader dead: that is an answer, not an error. */
static int child_signal(lua_State *L)
{
	struct process *process = to_process(L);
	int signo = (int)luaL_checkinteger(L, 2);
	struct err err = {.code = 0};
	bool sent;
	if (lua_toboolean(L, 3) && process->tree_open)
		sent = !lua_child_empty(process) && orphans_tree_signal(&process->tree, signo) > 0;
	else
		sent = spawn_signal(process->spawn, signo, lua_toboolean(L, 3), &err) == 0;
	if (!sent && err.code != 0 && err.code != ESRCH)
		return door_raise(L, "spawn", &err);
	lua_pushboolean(L, sent);
	return 1;
}

static int child_end_tree(lua_State *L)
{
	struct process *process = to_process(L);
	if (!process->tree_open || lua_child_empty(process))
		return 0;
	struct waiter *waiter = waiter_new(L);
	list_append(&process->enders, &waiter->link);
	lua_child_end(process); /* after the waiter is in its list: it may be over at once */
	return task_park(L, waiter->token, waiter_abort, waiter);
}

static void push_signals(lua_State *L)
{
	lua_newtable(L);
	for (int signo = 1; signo < 32; signo++) {
		const char *name = sigabbrev_np(signo);
		if (name == NULL)
			continue;
		lua_pushinteger(L, signo);
		lua_setfield(L, -2, name);
	}
}

/* --- asking --- */

static int child_pid(lua_State *L)
{
	lua_pushinteger(L, spawn_pid(to_process(L)->spawn));
	return 1;
}

static int child_close(lua_State *L)
{
	box_close(L, door_check(L, 1, &box_type));
	return 0;
}

static const luaL_Reg box_methods[] = {
	{"pid", child_pid},	      {"read", child_read},   {"wait", child_wait},
	{"write", child_write},	      {"shut", child_shut},   {"signal", child_signal},
	{"end_tree", child_end_tree}, {"close", child_close}, {NULL, NULL},
};

static const struct door_type box_type = {
	.name = "worker.process",
	.methods = box_methods,
	.close = box_close,
	.state = box_state,
};

/* --- the nursery --- */

/* At the first child: a worker that runs none has no thread and adopts nobody. */
static int nursery_open(struct nursery *nursery, struct loop *loop, struct err *err)
{
	if (nursery->spawner != NULL)
		return 0;
	if (orphans_open(loop, err) == -1)
		return -1;
	nursery->spawner = spawn_open(loop, err);
	return nursery->spawner == NULL ? -1 : 0;
}

/* The end of the Lua state: no turn of the loop comes any more, so nothing can be waited for. */
static void nursery_close(lua_State *L, void *ud)
{
	struct nursery *nursery = ud;
	(void)L;
	if (nursery->spawner == NULL)
		return;
	while (!list_empty(&nursery->processes)) {
		struct process *process =
			container_of(nursery->processes.next, struct process, link);
		if (process->tree_open)
			orphans_tree_signal(&process->tree, SIGKILL);
		if (process->box != NULL)
			process->box->process = NULL;
		lua_child_free(process);
	}
	spawn_shut(nursery->spawner);
	nursery->spawner = NULL;
}

static const struct door_type nursery_type = {.name = "worker.nursery", .close = nursery_close};

static const luaL_Reg functions[] = {{"env", lua_env_merge}, {NULL, NULL}};

static struct nursery *nursery_of(lua_State *L)
{
	lua_rawgetp(L, LUA_REGISTRYINDEX, functions);
	return lua_touserdata(L, -1);
}

int luaopen_worker_core_process(lua_State *L)
{
	struct nursery *nursery = door_box(L, &nursery_type, sizeof *nursery);
	list_init(&nursery->processes);
	/* The metatable of a type lives under the type's own address; this is another one. */
	lua_rawsetp(L, LUA_REGISTRYINDEX, functions);
	luaL_newlib(L, functions);
	lua_spawn_push_names(L);
	lua_pushcclosure(L, core_spawn, 1);
	lua_setfield(L, -2, "spawn");
	push_signals(L);
	lua_setfield(L, -2, "signals");
	return 1;
}
