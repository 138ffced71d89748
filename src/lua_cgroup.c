/* lua_cgroup.c -- worker.core.cgroup: a control group per job.  Floor 5.
 *
 *	cgroup.open(mode) -> place         "auto", "v2", "v1", "none"; nil and why: there is nothing
 *	place:can() -> {memory = true}     place:notes() -> text      place:paths() -> list
 *	place:create([name [, {memory=, swap=, cpus=, pids=} [, oom_score_adj]]]) -> group
 *	place:count() -> n                 place:close()
 *	group:unenforced() -> {memory = true}    group:usage() -> table    group:path() -> text
 *	group:populated() -> yes or no     group:signal(signo) -> count
 *	group:kill()                       group:wait([seconds]) -> whether it is empty
 *	group:close()                      what lives inside is killed
 */
#include "worker/lua_cgroup.h"

#include "worker/cgroup.h"
#include "worker/clock.h"
#include "worker/door.h"
#include "worker/doors.h"
#include "worker/host.h"
#include "worker/loop.h"
#include "worker/task.h"

#define MOST_BYTES 9e18
#define MOST_CPUS  1e6
#define MOST_PIDS  4194304 /* the kernel's PID_MAX_LIMIT */

struct place_box {
	struct cgroup_place *place;
	size_t waiting; /* tasks that wait for a group of it */
};

/* User value 1 anchors the place.  Closing a place ends its groups: they check it first. */
struct group_box {
	struct cgroup *group;
	struct place_box *home;
	struct host *host;
	struct loop *loop;
	struct loop_timer timer;
	struct task_token token;
	bool waiting, empty, counted;
};

static const struct bit {
	const char *name;
	unsigned bit;
} bits[] = {
	{"memory", CGROUP_MEMORY}, {"swap", CGROUP_SWAP},	    {"cpus", CGROUP_CPU},
	{"pids", CGROUP_PIDS},	   {"cpu_time", CGROUP_CPU_TIME},   {"birth", CGROUP_BIRTH},
	{"kill", CGROUP_KILL},	   {"oom_group", CGROUP_OOM_GROUP},
};

static int push_bits(lua_State *L, unsigned set)
{
	lua_createtable(L, 0, (int)(sizeof bits / sizeof *bits));
	for (size_t i = 0; i < sizeof bits / sizeof *bits; i++) {
		if (!(set & bits[i].bit))
			continue;
		lua_pushboolean(L, 1);
		lua_setfield(L, -2, bits[i].name);
	}
	return 1;
}

/* --- a group --- */

static const struct door_type group_type;

static struct cgroup *group_of(const struct group_box *box)
{
	return box->home != NULL && box->home->place != NULL ? box->group : NULL;
}

static struct group_box *group_check(lua_State *L, int index)
{
	struct group_box *box = door_check(L, index, &group_type);
	if (group_of(box) == NULL)
		luaL_argerror(L, index, "this control group is closed");
	return box;
}

struct cgroup *lua_cgroup_test(lua_State *L, int index)
{
	const struct group_box *box = door_test(L, index, &group_type);
	return box != NULL ? group_of(box) : NULL;
}

static void group_stop_waiting(void *op)
{
	struct group_box *box = op;
	if (!box->waiting)
		return;
	box->waiting = false;
	box->home->waiting--;
	loop_timer_stop(box->loop, &box->timer);
	if (group_of(box) != NULL)
		cgroup_wait(box->group, NULL, NULL);
}

static int group_push(lua_State *co, void *op)
{
	const struct group_box *box = op;
	lua_pushboolean(co, box->empty);
	return 1;
}

static void group_end_wait(struct group_box *box, bool empty)
{
	if (!box->waiting)
		return;
	group_stop_waiting(box);
	box->empty = empty;
	task_wake(box->host, box->token, group_push, box);
}

static void group_empty(void *arg)
{
	group_end_wait(arg, true);
}

static void group_late(void *arg)
{
	group_end_wait(arg, false);
}

static int group_wait(lua_State *L)
{
	struct group_box *box = group_check(L, 1);
	int64_t ns = lua_isnoneornil(L, 2) ? -1 : door_nanos(L, 2);
	if (box->waiting)
		return luaL_error(L, "another task waits for this control group");
	box->token = task_token(L);
	if (ns >= 0 && loop_timer_start(box->loop, &box->timer, ns, group_late, box) == -1)
		return luaL_error(L, "out of memory for a timer");
	box->waiting = true;
	box->home->waiting++;
	cgroup_wait(box->group, group_empty, box);
	return task_park(L, box->token, group_stop_waiting, box);
}

static void group_close(lua_State *L, void *arg)
{
	struct group_box *box = arg;
	(void)L;
	group_end_wait(box, false);
	if (group_of(box) != NULL)
		cgroup_free(box->group);
	box->group = NULL;
	if (box->counted)
		host_count(box->host, "cgroup", -1);
	box->counted = false;
}

static int group_close_method(lua_State *L)
{
	group_close(L, door_check(L, 1, &group_type));
	return 0;
}

static const char *group_state(const void *arg)
{
	const struct group_box *box = arg;
	return group_of(box) != NULL ? cgroup_path_of(box->group) : "closed";
}

static int group_unenforced(lua_State *L)
{
	return push_bits(L, cgroup_unenforced(group_check(L, 1)->group));
}

static void set_seconds(lua_State *L, const char *key, int64_t ns)
{
	if (ns < 0)
		return;
	lua_pushnumber(L, (lua_Number)ns / (lua_Number)CLOCK_SECOND);
	lua_setfield(L, -2, key);
}

static void set_count(lua_State *L, const char *key, int64_t count)
{
	if (count < 0)
		return;
	lua_pushinteger(L, count);
	lua_setfield(L, -2, key);
}

static int group_usage(lua_State *L)
{
	struct cgroup_usage usage;
	cgroup_usage(group_check(L, 1)->group, &usage);
	lua_createtable(L, 0, 10);
	set_seconds(L, "cpu", usage.cpu_ns);
	set_seconds(L, "cpu_user", usage.cpu_user_ns);
	set_seconds(L, "cpu_system", usage.cpu_system_ns);
	set_seconds(L, "throttled", usage.throttled_ns);
	set_count(L, "memory", usage.memory);
	set_count(L, "memory_peak", usage.memory_peak);
	set_count(L, "oom_kills", usage.oom_kills);
	set_count(L, "pids", usage.pids);
	set_count(L, "pids_peak", usage.pids_peak);
	set_count(L, "pids_refused", usage.pids_refused);
	return 1;
}

static int group_path(lua_State *L)
{
	lua_pushstring(L, cgroup_path_of(group_check(L, 1)->group));
	return 1;
}

/* A group that was closed has taken everything in it along. */
static int group_populated(lua_State *L)
{
	struct cgroup *group = group_of(door_check(L, 1, &group_type));
	lua_pushboolean(L, group != NULL && cgroup_populated(group));
	return 1;
}

static int group_signal(lua_State *L)
{
	struct group_box *box = group_check(L, 1);
	lua_Integer signo = luaL_checkinteger(L, 2);
	luaL_argcheck(L, signo >= 0 && signo <= 64, 2, "no such signal");
	lua_pushinteger(L, (lua_Integer)cgroup_signal(box->group, (int)signo));
	return 1;
}

static int group_kill(lua_State *L)
{
	cgroup_kill(group_check(L, 1)->group);
	return 0;
}

static const luaL_Reg group_methods[] = {
	{"unenforced", group_unenforced},
	{"usage", group_usage},
	{"path", group_path},
	{"populated", group_populated},
	{"signal", group_signal},
	{"kill", group_kill},
	{"wait", group_wait},
	{"close", group_close_method},
	{NULL, NULL},
};

static const struct door_type group_type = {
	.name = "worker.cgroup",
	.methods = group_methods,
	.close = group_close,
	.state = group_state,
};

/* --- a place --- */

static const struct door_type place_type;

static struct place_box *place_check(lua_State *L)
{
	struct place_box *box = door_check(L, 1, &place_type);
	luaL_argcheck(L, box->place != NULL, 1, "this place for control groups is closed");
	return box;
}

static void place_close(lua_State *L, void *arg)
{
	struct place_box *box = arg;
	struct cgroup_place *place = box->place;
	(void)L;
	box->place = NULL;
	if (place == NULL)
		return;
	cgroup_close(place);
}

static int place_close_method(lua_State *L)
{
	struct place_box *box = door_check(L, 1, &place_type);
	if (box->waiting > 0)
		return luaL_error(L, "a task still waits for a control group of this place");
	place_close(L, box);
	return 0;
}

static const char *place_state(const void *arg)
{
	const struct place_box *box = arg;
	return box->place != NULL ? cgroup_path(box->place, 0) : "closed";
}

static int64_t limit(lua_State *L, const char *key, lua_Number most, lua_Number factor)
{
	lua_Number value = door_number(L, 3, key, 0, most, -1);
	return value < 0 ? -1 : (int64_t)(value * factor);
}

static int place_create(lua_State *L)
{
	struct place_box *home = place_check(L);
	const char *name = luaL_optstring(L, 2, NULL);
	struct cgroup_limits limits = CGROUP_UNLIMITED;
	if (!lua_isnoneornil(L, 3)) {
		luaL_checktype(L, 3, LUA_TTABLE);
		limits.memory = limit(L, "memory", MOST_BYTES, 1);
		limits.swap = limit(L, "swap", MOST_BYTES, 1);
		limits.cpus = limit(L, "cpus", MOST_CPUS, 1000);
		limits.pids = limit(L, "pids", MOST_PIDS, 1);
	}
	lua_Integer score = luaL_optinteger(L, 4, 0);
	luaL_argcheck(L, score >= 0 && score <= 1000, 4, "expected 0 to 1000");
	limits.oom_score_adj = (int)score;
	struct err err;
	struct group_box *box = door_box_with(L, &group_type, sizeof *box, 1);
	lua_pushvalue(L, 1);
	lua_setiuservalue(L, -2, 1);
	box->home = home;
	box->host = host_of(L);
	box->loop = host_loop(L);
	box->group = cgroup_create(home->place, name, &limits, &err);
	if (box->group == NULL)
		return door_raise(L, "limit", &err);
	host_count(box->host, "cgroup", 1);
	box->counted = true;
	return 1;
}

static int place_can(lua_State *L)
{
	return push_bits(L, cgroup_can(place_check(L)->place));
}

static int place_notes(lua_State *L)
{
	lua_pushstring(L, cgroup_notes(place_check(L)->place));
	return 1;
}

static int place_paths(lua_State *L)
{
	const struct place_box *box = place_check(L);
	const char *path;
	lua_newtable(L);
	for (size_t i = 0; (path = cgroup_path(box->place, i)) != NULL; i++) {
		lua_pushstring(L, path);
		lua_rawseti(L, -2, (lua_Integer)i + 1);
	}
	return 1;
}

static int place_count(lua_State *L)
{
	lua_pushinteger(L, (lua_Integer)cgroup_count(place_check(L)->place));
	return 1;
}

static const luaL_Reg place_methods[] = {
	{"create", place_create},
	{"can", place_can},
	{"notes", place_notes},
	{"paths", place_paths},
	{"count", place_count},
	{"close", place_close_method},
	{NULL, NULL},
};

static const struct door_type place_type = {
	.name = "worker.cgroup.place",
	.methods = place_methods,
	.close = place_close,
	.state = place_state,
};

static int core_open(lua_State *L)
{
	static const char *const modes[] = {"auto", "v2", "v1", "none", NULL};
	enum cgroup_mode mode = (enum cgroup_mode)luaL_checkoption(L, 1, "auto", modes);
	struct err err;
	struct place_box *box = door_box(L, &place_type, sizeof *box);
	box->place = cgroup_open(host_loop(L), mode, &err);
	if (box->place == NULL) {
		lua_pushnil(L);
		lua_pushstring(L, err.text);
		return 2;
	}
	return 1;
}

static const luaL_Reg functions[] = {
	{"open", core_open},
	{NULL, NULL},
};

int luaopen_worker_core_cgroup(lua_State *L)
{
	luaL_newlib(L, functions);
	return 1;
}
