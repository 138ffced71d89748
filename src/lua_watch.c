/* lua_watch.c -- worker.core.watch: waiting until something appears in a directory.  Floor 5.
 *
 *	watch.open(path [, {poll=seconds, polling=bool}]) -> handle
 *	handle:wait([seconds]) -> "changed" | "rescan" | "gone", or nil when the time is up
 *	handle:polled() -> bool              handle:close()
 *
 * A polled watch says "rescan" every ${poll} seconds: without notice from the kernel nobody can
 * know better than to look.
 */
#include "worker/clock.h"
#include "worker/door.h"
#include "worker/doors.h"
#include "worker/host.h"
#include "worker/loop.h"
#include "worker/task.h"
#include "worker/watch.h"

#define POLL_SECONDS 2

struct watch_box {
	struct host *host; /* NULL: closed */
	struct loop *loop;
	struct watch watch;
	struct loop_timer timer;
	int64_t poll;
	struct task_token token;
	bool waiting, polling; /* polling: the timer's end means "look" */
	enum watch_why why;
};

static const struct door_type watch_type;

static void watch_leave(void *op)
{
	struct watch_box *box = op;
	box->waiting = false;
	loop_timer_stop(box->loop, &box->timer);
	watch_stop(&box->watch, box->loop);
}

static int watch_push(lua_State *co, void *op)
{
	static const char *const names[] = {NULL, "changed", "rescan", "gone"};
	lua_pushstring(co, names[((struct watch_box *)op)->why]);
	return 1;
}

static void watch_wake(struct watch_box *box, enum watch_why why)
{
	watch_leave(box);
	box->why = why;
	task_wake(box->host, box->token, watch_push, box);
}

static void watch_came(void *arg, enum watch_why why)
{
	watch_wake(arg, why);
}

static void watch_due(void *arg)
{
	struct watch_box *box = arg;
	watch_wake(box, box->polling ? WATCH_RESCAN : WATCH_NOTHING);
}

static void watch_box_close(lua_State *L, void *arg)
{
	struct watch_box *box = arg;
	(void)L;
	if (box->host == NULL)
		return;
	if (box->waiting)
		watch_wake(box, WATCH_GONE);
	watch_close(&box->watch);
	host_count(box->host, "watch", -1);
	box->host = NULL;
}

static const char *watch_box_state(const void *arg)
{
	const struct watch_box *box = arg;
	if (box->host == NULL)
		return "closed";
	return box->watch.polled ? "polled" : "open";
}

static struct watch_box *to_watch(lua_State *L)
{
	struct watch_box *box = door_check(L, 1, &watch_type);
	if (box->host == NULL)
		luaL_error(L, "this watch is closed");
	return box;
}

/* How long the timer runs: -1 for not at all. */
static int64_t watch_patience(struct watch_box *box, int64_t ns)
{
	box->polling = box->watch.polled && (ns < 0 || box->poll <= ns);
	return box->polling ? box->poll : ns;
}

static int watch_wait(lua_State *L)
{
	struct watch_box *box = to_watch(L);
	int64_t ns = lua_isnoneornil(L, 2) ? -1 : door_nanos(L, 2);
	struct err err;
	if (box->waiting)
		return luaL_error(L, "another task waits on this watch");
	box->token = task_token(L);
	box->why = watch_take(&box->watch);
	if (box->why != WATCH_NOTHING)
		return watch_push(L, box);
	ns = watch_patience(box, ns);
	if (watch_start(&box->watch, box->loop, watch_came, box, &err) == -1)
		return door_raise(L, "file", &err);
	if (ns >= 0 && loop_timer_start(box->loop, &box->timer, ns, watch_due, box) == -1) {
		watch_stop(&box->watch, box->loop);
		return luaL_error(L, "out of memory for a timer");
	}
	box->waiting = true;
	return task_park(L, box->token, watch_leave, box);
}

static int watch_polled(lua_State *L)
{
	lua_pushboolean(L, to_watch(L)->watch.polled);
	return 1;
}

static int watch_close_method(lua_State *L)
{
	watch_box_close(L, door_check(L, 1, &watch_type));
	return 0;
}

static const luaL_Reg watch_methods[] = {
	{"wait", watch_wait},
	{"polled", watch_polled},
	{"close", watch_close_method},
	{NULL, NULL},
};

static const struct door_type watch_type = {
	.name = "worker.watch",
	.methods = watch_methods,
	.close = watch_box_close,
	.state = watch_box_state,
};

static int core_open(lua_State *L)
{
	const char *path = luaL_checkstring(L, 1);
	if (lua_isnoneornil(L, 2)) {
		lua_settop(L, 1);
		lua_newtable(L);
	}
	luaL_checktype(L, 2, LUA_TTABLE);
	int64_t poll = door_seconds(L, 2, "poll", POLL_SECONDS * CLOCK_SECOND);
	bool polling = door_bool(L, 2, "polling", false);
	luaL_argcheck(L, poll >= CLOCK_MS, 2, "poll: at least a millisecond");
	struct err err;
	struct watch_box *box = door_box(L, &watch_type, sizeof *box);
	if (watch_open(&box->watch, path, polling, &err) == -1)
		return door_raise(L, "file", &err);
	box->poll = poll;
	box->loop = host_loop(L);
	box->host = host_of(L);
	host_count(box->host, "watch", +1);
	return 1;
}

static const luaL_Reg core_functions[] = {
	{"open", core_open},
	{NULL, NULL},
};

int luaopen_worker_core_watch(lua_State *L)
{
	luaL_newlib(L, core_functions);
	return 1;
}
