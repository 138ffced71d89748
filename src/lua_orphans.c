/* lua_orphans.c -- worker.core.orphans: jobs without a control group, and the keeper.  Floor 5.
 *
 *	orphans.reap()                   become the reaper of what jobs leave behind
 *	orphans.counts() -> reaped, owned
 *	orphans.tag() -> text            an environment entry for one job
 *	orphans.tag_all() -> text        the beginning of all of them
 *	orphans.start(pid) -> ticks      with the pid it names a process once and for all
 *	orphans.tree(pid, tag) -> tree   the processes of one job
 *	tree:signal(signo) -> count      tree:kill() waits until nothing is left    tree:close()
 *	orphans.keeper() -> keeper       keeper:note(kind, text) keeper:forget(kind, text)
 *	                                 keeper:pid() keeper:close()
 *	                                 kinds: "group", "tag", "session", "dir"
 */
#include "worker/door.h"
#include "worker/doors.h"
#include "worker/host.h"
#include "worker/keeper.h"
#include "worker/loop.h"
#include "worker/orphans.h"
#include "worker/proctree.h"
#include "worker/task.h"

/* --- trees --- */

struct tree_box {
	struct orphans_tree tree;
	struct host *host;
	struct task_token token;
	bool open, waiting;
};

static const struct door_type tree_type;

static struct tree_box *tree_check(lua_State *L)
{
	struct tree_box *box = door_check(L, 1, &tree_type);
	luaL_argcheck(L, box->open, 1, "this tree is closed");
	return box;
}

static void tree_gone(void *arg)
{
	struct tree_box *box = arg;
	if (!box->waiting)
		return;
	box->waiting = false;
	task_wake(box->host, box->token, NULL, NULL);
}

static void tree_abort(void *op)
{
	struct tree_box *box = op;
	box->waiting = false;
	orphans_tree_stop(&box->tree);
}

static int tree_kill(lua_State *L)
{
	struct tree_box *box = tree_check(L);
	if (box->waiting)
		return luaL_error(L, "another task is killing this tree");
	box->token = task_token(L);
	box->waiting = true;
	orphans_tree_kill(&box->tree, tree_gone, box);
	return task_park(L, box->token, tree_abort, box);
}

static int tree_signal(lua_State *L)
{
	struct tree_box *box = tree_check(L);
	lua_Integer signo = luaL_checkinteger(L, 2);
	luaL_argcheck(L, signo >= 0 && signo <= 64, 2, "no such signal");
	lua_pushinteger(L, (lua_Integer)orphans_tree_signal(&box->tree, (int)signo));
	return 1;
}

static void tree_close(lua_State *L, void *arg)
{
	struct tree_box *box = arg;
	(void)L;
	if (!box->open)
		return;
	box->open = false;
	orphans_tree_close(&box->tree);
	tree_gone(box);
	host_count(box->host, "tree", -1);
}

static int tree_close_method(lua_State *L)
{
	tree_close(L, door_check(L, 1, &tree_type));
	return 0;
}

static const luaL_Reg tree_methods[] = {
	{"signal", tree_signal},
	{"kill", tree_kill},
	{"close", tree_close_method},
	{NULL, NULL},
};

static const struct door_type tree_type = {
	.name = "worker.tree",
	.methods = tree_methods,
	.close = tree_close,
};

static int core_tree(lua_State *L)
{
	lua_Integer pid = luaL_checkinteger(L, 1);
	const char *tag = luaL_optstring(L, 2, NULL);
	luaL_argcheck(L, pid > 1 && pid <= INT32_MAX, 1, "not a process");
	struct tree_box *box = door_box(L, &tree_type, sizeof *box);
	box->host = host_of(L);
	orphans_tree_open(&box->tree, host_loop(L), (pid_t)pid, tag);
	box->open = true;
	host_count(box->host, "tree", 1);
	return 1;
}

/* --- the keeper --- */

struct keeper_box {
	struct keeper *keeper;
};

static const struct door_type keeper_type;

static struct keeper *keeper_check(lua_State *L)
{
	struct keeper_box *box = door_check(L, 1, &keeper_type);
	luaL_argcheck(L, box->keeper != NULL, 1, "the keeper is closed");
	return box->keeper;
}

static enum keeper_kind kind_check(lua_State *L, int arg)
{
	static const char *const names[] = {"group", "tag", "session", "dir", NULL};
	static const enum keeper_kind kinds[] = {KEEPER_GROUP, KEEPER_TAG, KEEPER_SESSION,
						 KEEPER_DIR};
	return kinds[luaL_checkoption(L, arg, NULL, names)];
}

static int keeper_note_method(lua_State *L)
{
	struct keeper *keeper = keeper_check(L);
	enum keeper_kind kind = kind_check(L, 2);
	struct err err;
	if (keeper_note(keeper, kind, luaL_checkstring(L, 3), &err) == -1)
		return door_raise(L, "spawn", &err);
	return 0;
}

static int keeper_forget_method(lua_State *L)
{
	struct keeper *keeper = keeper_check(L);
	enum keeper_kind kind = kind_check(L, 2);
	keeper_forget(keeper, kind, luaL_checkstring(L, 3));
	return 0;
}

static int keeper_pid_method(lua_State *L)
{
	lua_pushinteger(L, keeper_pid(keeper_check(L)));
	return 1;
}

static void keeper_close_box(lua_State *L, void *arg)
{
	struct keeper_box *box = arg;
	(void)L;
	if (box->keeper != NULL)
		keeper_close(box->keeper);
	box->keeper = NULL;
}

static int keeper_close_method(lua_State *L)
{
	keeper_close_box(L, door_check(L, 1, &keeper_type));
	return 0;
}

static const luaL_Reg keeper_methods[] = {
	{"note", keeper_note_method},
	{"forget", keeper_forget_method},
	{"pid", keeper_pid_method},
	{"close", keeper_close_method},
	{NULL, NULL},
};

static const struct door_type keeper_type = {
	.name = "worker.keeper",
	.methods = keeper_methods,
	.close = keeper_close_box,
};

static int core_keeper(lua_State *L)
{
	struct err err;
	struct keeper_box *box = door_box(L, &keeper_type, sizeof *box);
	box->keeper = keeper_open(host_loop(L), &err);
	if (box->keeper == NULL)
		return door_raise(L, "spawn", &err);
	return 1;
}

/* --- the rest --- */

static int core_reap(lua_State *L)
{
	struct err err;
	if (orphans_open(host_loop(L), &err) == -1)
		return door_raise(L, "spawn", &err);
	return 0;
}

static int core_counts(lua_State *L)
{
	lua_pushinteger(L, (lua_Integer)orphans_reaped());
	lua_pushinteger(L, (lua_Integer)orphans_owned());
	return 2;
}

static int core_tag(lua_State *L)
{
	char tag[ORPHANS_TAG_SIZE];
	orphans_tag(tag);
	lua_pushstring(L, tag);
	return 1;
}

static int core_tag_all(lua_State *L)
{
	char tag[ORPHANS_TAG_SIZE];
	orphans_tag_all(tag);
	lua_pushstring(L, tag);
	return 1;
}

static int core_start(lua_State *L)
{
	lua_Integer pid = luaL_checkinteger(L, 1);
	uint64_t start = pid > 0 && pid <= INT32_MAX ? proctree_start((pid_t)pid) : 0;
	if (start == 0)
		return 0;
	lua_pushinteger(L, (lua_Integer)start);
	return 1;
}

static const luaL_Reg functions[] = {
	{"reap", core_reap},	 {"counts", core_counts},
	{"tag", core_tag},	 {"tag_all", core_tag_all},
	{"start", core_start},	 {"tree", core_tree},
	{"keeper", core_keeper}, {NULL, NULL},
};

int luaopen_worker_core_orphans(lua_State *L)
{
	luaL_newlib(L, functions);
	return 1;
}
