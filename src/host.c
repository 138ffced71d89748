/* host.c -- the one Lua state and what bounds it.  Floor 4.  See worker/host.h.
 *
 * Memory: every allocation of Lua passes host_alloc, which knows two ceilings: one for the whole
 * state, and one for what a single burst (a task between two parks) may gain.  The second makes
 * the greedy task fail before its neighbours do.  When the system itself has none left, again and
 * again, the loop is stopped.
 *
 * Time: a count hook that is always on would make every Lua instruction slower, so there is none.
 * A timer on this thread's CPU clock ticks only while the thread computes (an idle worker is never
 * woken); when two ticks fall into the same burst, the signal handler plants the hook, and the
 * hook counts the ticks, warns, and finally raises.  What counts is what a task computed: on a
 * machine that is busy with others it may take as long as it takes.
 */
#include "worker/host.h"

#include <lualib.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "worker/clock.h"
#include "worker/curb.h"
#include "worker/door.h"
#include "worker/log.h"
#include "worker/loop.h"
#include "worker/pool.h"
#include "worker/task.h"

#define HOST_KINDS   48
#define HOST_TICK_NS (50 * CLOCK_MS)
/* Few, since one of them may call a function of C that takes a millisecond. */
#define HOST_HOOK_EVERY 100
/* After a runaway was stopped, its error handlers and <close> variables get this long. */
#define HOST_MERCY (100 * CLOCK_MS)
/* Most of what Lua holds is the library, which never goes: to look through it seldom costs little
 * memory.  In percent of what was left after the last time. */
#define HOST_PAUSE 300
/* Most of what a start makes stays: the first collection comes after so many KiB. */
#define HOST_FIRST 2048
/* What has a finalizer is only freed by the collection after the one that found it dead, and counts
 * as alive until then.  A program that makes many such things (streams, tasks) would be allowed
 * three times as much garbage each time; so above HOST_LARGE the next collection begins almost at
 * once. */
#define HOST_LARGE	 ((size_t)16 * 1024 * 1024)
#define HOST_LARGE_PAUSE 110
/* So many refusals of so little (each is two: Lua collects its garbage and asks again) mean that
 * there is no memory, not that somebody wanted too much. */
#define HOST_MODEST	  ((size_t)64 * 1024)
#define HOST_REFUSED_MOST 6
#define HOST_EXIT_MEMORY  71

struct host_kind {
	const char *what;
	int live;
};

struct host {
	lua_State *L;
	struct host_options options;
	struct tasks *tasks;

	struct pool pool;
	size_t memory, peak;
	int64_t burst_gain;
	int pause;	     /* of the collector, between two rounds */
	char oom_where[160]; /* where the last refused allocation was asked for */
	bool oom;	     /* and nobody has read it yet */
	int refused;	     /* modest allocations in a row that the system refused */

	lua_State *volatile burst_co; /* what runs now, for the tick */
	volatile sig_atomic_t ticks;  /* ticks seen in this burst */
	volatile sig_atomic_t hooked;
	int64_t raise_after; /* computing for that long */
	bool warned;

	timer_t tick;
	bool ticking;
	int exit_code;
	struct host_kind kinds[HOST_KINDS];
};

/* --- memory --- */

/* Where Lua code stands now: the first level that is Lua.  Allocates nothing. */
static void host_where(lua_State *L, char *out, size_t size)
{
	lua_Debug ar;
	snprintf(out, size, "?");
	for (int level = 0; L != NULL && lua_getstack(L, level, &ar); level++) {
		lua_getinfo(L, "Sl", &ar);
		if (ar.currentline > 0) {
			snprintf(out, size, "%s:%d", ar.short_src, ar.currentline);
			return;
		}
	}
}

static bool host_affords(struct host *host, size_t grow)
{
	const struct host_options *options = &host->options;
	if (options->memory_ceiling != 0 && host->memory + grow > options->memory_ceiling)
		return false;
	return options->burst_ceiling == 0 || host->burst_co == NULL ||
	       host->burst_gain + (int64_t)grow <= (int64_t)options->burst_ceiling;
}

/* A task that cannot have what it wants fails, and the others go on.  Where nobody gets anything
 * any more they cannot: not even a signal would be heard. */
static void host_refused(struct host *host, size_t size)
{
	if (size > HOST_MODEST || ++host->refused != HOST_REFUSED_MOST)
		return;
	log_at(LOG_LEVEL_ERROR, "worker.memory",
	       "the system gives no memory any more; the worker ends, and its jobs with it");
	host_exit_set(host, HOST_EXIT_MEMORY);
	loop_stop(host->options.loop);
}

static void *host_alloc(void *ud, void *ptr, size_t old_size, size_t size)
{
	struct host *host = ud;
	size_t old = ptr != NULL ? old_size : 0;
	if (size == 0) {
		if (ptr != NULL)
			pool_give(&host->pool, ptr, old);
		host->memory -= old;
		host->burst_gain -= (int64_t)old;
		return NULL;
	}
	if (size > old && !host_affords(host, size - old)) {
		host_where(host->burst_co, host->oom_where, sizeof host->oom_where);
		host->oom = true;
		return NULL;
	}
	void *fresh = ptr == NULL ? pool_take(&host->pool, size)
				  : pool_resize(&host->pool, ptr, old, size);
	if (fresh == NULL) {
		host_refused(host, size);
		return NULL;
	}
	if (size > POOL_SMALL)
		host->refused = 0;
	host->memory += size - old;
	host->burst_gain += (int64_t)size - (int64_t)old;
	if (host->memory > host->peak)
		host->peak = host->memory;
	return fresh;
}

void host_burst_allow(struct host *host, size_t n)
{
	host->burst_gain -= (int64_t)n;
}

const char *host_oom_where(struct host *host)
{
	bool refused = host->oom;
	host->oom = false;
	return refused ? host->oom_where : NULL;
}

void host_exit_set(struct host *host, int code)
{
	host->exit_code = code;
}

int host_exit(const struct host *host)
{
	return host->exit_code;
}

size_t host_memory(const struct host *host)
{
	return host->memory;
}

size_t host_memory_peak(const struct host *host)
{
	return host->peak;
}

/* --- time --- */

static void host_hook(lua_State *L, lua_Debug *ar)
{
	struct host *host = host_of(L);
	(void)ar;
	if (host->burst_co == NULL)
		return;
	int64_t ran = host->ticks * HOST_TICK_NS;
	char where[128];
	if (!host->warned && host->options.slow_ns > 0 && ran >= host->options.slow_ns) {
		host->warned = true;
		host_where(L, where, sizeof where);
		log_at(LOG_LEVEL_WARN, "lua.slow", "%s: has run for %d ms without waiting", where,
		       (int)(ran / CLOCK_MS));
	}
	if (host->options.runaway_ns > 0 && ran >= host->raise_after) {
		host->raise_after = ran + HOST_MERCY;
		host_where(L, where, sizeof where);
		struct err err;
		err_set(&err, 0, "%s: stopped after running for %.1f s without waiting", where,
			(double)ran / (double)CLOCK_SECOND);
		door_push_error(L, "limit", &err);
		lua_pushboolean(L, 1);
		lua_setfield(L, -2, "runaway");
		lua_error(L);
	}
}

/* Signal handler: lua_sethook is the one call of Lua's that is meant for this place. */
static void host_ticked(int signo, siginfo_t *info, void *context)
{
	struct host *host = info->si_value.sival_ptr;
	(void)signo;
	(void)context;
	lua_State *co = host->burst_co;
	if (co == NULL || ++host->ticks < 2 || host->hooked)
		return;
	host->hooked = 1;
	lua_sethook(co, host_hook, LUA_MASKCOUNT, HOST_HOOK_EVERY);
}

/* While a coroutine that somebody made himself runs, the tick does not know it: it has the hook
 * from its birth.  The upvalue is coroutine.create or coroutine.wrap; wrap's function keeps the
 * thread in its first upvalue. */
static int host_coroutine(lua_State *L)
{
	lua_tocfunction(L, lua_upvalueindex(1))(L);
	bool wrapped = !lua_isthread(L, -1);
	if (wrapped)
		lua_getupvalue(L, -1, 1);
	lua_sethook(lua_tothread(L, -1), host_hook, LUA_MASKCOUNT, HOST_HOOK_EVERY);
	lua_settop(L, wrapped ? -2 : -1);
	return 1;
}

static void host_watch_coroutines(lua_State *L)
{
	static const char *const makers[] = {"create", "wrap"};
	lua_getglobal(L, "coroutine");
	for (size_t i = 0; i < sizeof makers / sizeof *makers; i++) {
		lua_getfield(L, -1, makers[i]);
		lua_pushcclosure(L, host_coroutine, 1);
		lua_setfield(L, -2, makers[i]);
	}
	lua_pop(L, 1);
}

static int host_start_ticking(struct host *host, struct err *err)
{
	struct sigaction action = {.sa_sigaction = host_ticked,
				   .sa_flags = SA_SIGINFO | SA_RESTART};
	sigemptyset(&action.sa_mask);
	if (sigaction(SIGVTALRM, &action, NULL) == -1)
		return err_errno(err, "sigaction");
	struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGVTALRM};
	event.sigev_value.sival_ptr = host;
	event._sigev_un._tid = (pid_t)syscall(SYS_gettid);
	if (timer_create(CLOCK_THREAD_CPUTIME_ID, &event, &host->tick) == -1)
		return err_errno(err, "timer_create");
	host->ticking = true;
	struct itimerspec every = {.it_interval = {.tv_nsec = HOST_TICK_NS},
				   .it_value = {.tv_nsec = HOST_TICK_NS}};
	if (timer_settime(host->tick, 0, &every, NULL) == -1)
		return err_errno(err, "timer_settime");
	return 0;
}

/* How eagerly garbage is collected. */
static void host_pace(struct host *host)
{
	int pause = host->memory > HOST_LARGE ? HOST_LARGE_PAUSE : HOST_PAUSE;
	if (pause != host->pause)
		lua_gc(host->L, LUA_GCSETPAUSE, pause);
	host->pause = pause;
}

void host_burst_begin(struct host *host, lua_State *co)
{
	host->ticks = 0;
	host->burst_gain = 0;
	host->warned = false;
	host->raise_after = host->options.runaway_ns;
	host->burst_co = co;
	host_pace(host);
}

void host_burst_end(struct host *host)
{
	lua_State *co = host->burst_co;
	host->burst_co = NULL;
	if (host->hooked) {
		lua_sethook(co, NULL, 0, 0);
		host->hooked = 0;
	}
}

/* --- calls and errors --- */

int host_traceback(lua_State *L)
{
	struct err err = {.code = 0};
	if (lua_type(L, 1) != LUA_TTABLE) {
		bool text = lua_type(L, 1) == LUA_TSTRING;
		luaL_tolstring(L, 1, NULL);
		door_push_error(L, "bug", &err);
		lua_pushvalue(L, -2);
		lua_setfield(L, -2, "message");
		if (!text) {
			lua_pushvalue(L, 1);
			lua_setfield(L, -2, "value");
		}
		lua_replace(L, 1);
		lua_settop(L, 1);
	}
	/* Only a bug is worth the price of a traceback; the other kinds tell of the world. */
	lua_getfield(L, 1, "kind");
	const char *kind = lua_tostring(L, -1);
	if (kind != NULL && (strcmp(kind, "bug") == 0 || strcmp(kind, "limit") == 0)) {
		luaL_traceback(L, L, NULL, 1);
		lua_setfield(L, 1, "traceback");
	}
	lua_settop(L, 1);
	return 1;
}

int host_call(lua_State *L, int nargs, int nresults)
{
	int handler = lua_gettop(L) - nargs;
	lua_pushcfunction(L, host_traceback);
	lua_insert(L, handler);
	int status = lua_pcall(L, nargs, nresults, handler);
	lua_remove(L, handler);
	return status;
}

/* --- finding modules --- */

static int host_load_embedded(lua_State *L, const struct host *host, const char *name)
{
	for (const struct host_file *file = host->options.files; file && file->name; file++) {
		if (strcmp(file->name, name) != 0)
			continue;
		const char *chunk = lua_pushfstring(L, "@lua/%s.lua", luaL_gsub(L, name, ".", "/"));
		if (luaL_loadbufferx(L, file->data, file->size, chunk, "b") != LUA_OK)
			return lua_error(L);
		lua_pushstring(L, chunk + 1);
		return 2;
	}
	lua_pushfstring(L, "no module '%s' in the binary", name);
	return 1;
}

static int host_load_from_dir(lua_State *L, const struct host *host, const char *name)
{
	const char *path = lua_pushfstring(L, "%s/%s.lua", host->options.lua_dir,
					   luaL_gsub(L, name, ".", "/"));
	if (access(path, R_OK) != 0) {
		lua_pushfstring(L, "no file '%s'", path);
		return 1;
	}
	if (luaL_loadfilex(L, path, "t") != LUA_OK)
		return lua_error(L);
	lua_pushstring(L, path);
	return 2;
}

/* The searcher that replaces those of package.path and package.cpath. */
static int host_searcher(lua_State *L)
{
	const struct host *host = host_of(L);
	const char *name = luaL_checkstring(L, 1);
	return host->options.lua_dir != NULL ? host_load_from_dir(L, host, name)
					     : host_load_embedded(L, host, name);
}

static void host_open_modules(lua_State *L, const struct host *host)
{
	luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
	if (host->options.doors != NULL)
		luaL_setfuncs(L, host->options.doors, 0);
	lua_pop(L, 1);

	/* Searchers: 1 preload (kept), 2 ours, 3 and 4 (C libraries) gone.  The usual one for
	 * package.path stays behind ours with an empty path; the spec runner fills it in. */
	lua_getglobal(L, "package");
	lua_getfield(L, -1, "searchers");
	lua_rawgeti(L, -1, 2);
	lua_rawseti(L, -2, 3);
	lua_pushcfunction(L, host_searcher);
	lua_rawseti(L, -2, 2);
	lua_pushnil(L);
	lua_rawseti(L, -2, 4);
	lua_pop(L, 1);
	lua_pushliteral(L, "");
	lua_setfield(L, -2, "path");
	lua_pushliteral(L, "");
	lua_setfield(L, -2, "cpath");
	lua_pop(L, 1);
}

/* --- the host --- */

static int host_setup(lua_State *L)
{
	struct host *host = lua_touserdata(L, 1);
	luaL_openlibs(L);
	curb_install(L);
	host_watch_coroutines(L);
	host_open_modules(L, host);
	tasks_open(host, L, &host->tasks);
	return 0;
}

static int host_panic(lua_State *L)
{
	const char *text = lua_tostring(L, -1);
	fprintf(stderr, "worker: Lua error outside any protection: %s\n", text ? text : "?");
	return 0;
}

struct host *host_open(const struct host_options *options, struct err *err)
{
	struct host *host = calloc(1, sizeof *host);
	if (host == NULL) {
		err_set(err, 0, "out of memory for the host");
		return NULL;
	}
	host->options = *options;
	host->L = lua_newstate(host_alloc, host);
	if (host->L == NULL) {
		err_set(err, 0, "out of memory for the Lua state");
		free(host);
		return NULL;
	}
	lua_atpanic(host->L, host_panic);
	lua_gc(host->L, LUA_GCSTEP, -HOST_FIRST); /* backwards: the program may make so much */
	*(struct host **)lua_getextraspace(host->L) = host;
	lua_pushcfunction(host->L, host_setup);
	lua_pushlightuserdata(host->L, host);
	if (host_call(host->L, 1, 0) != LUA_OK) {
		err_set(err, 0, "%s", luaL_tolstring(host->L, -1, NULL));
		host_close(host);
		return NULL;
	}
	if (options->runaway_ns > 0 && host_start_ticking(host, err) == -1) {
		host_close(host);
		return NULL;
	}
	loop_turn_hook(options->loop, tasks_run_ready, host->tasks);
	return host;
}

void host_close(struct host *host)
{
	loop_turn_hook(host->options.loop, NULL, NULL);
	if (host->ticking)
		timer_delete(host->tick);
	lua_close(host->L);
	if (host->tasks != NULL)
		tasks_close(host->tasks);
	pool_end(&host->pool);
	free(host);
}

struct host *host_of(lua_State *L)
{
	return *(struct host **)lua_getextraspace(L);
}

struct loop *host_loop(lua_State *L)
{
	return host_of(L)->options.loop;
}

struct tasks *host_tasks(const struct host *host)
{
	return host->tasks;
}

lua_State *host_state(const struct host *host)
{
	return host->L;
}

/* --- what is alive --- */

/* NULL when there is no room for another one.  The same name is nearly always the same address. */
static struct host_kind *host_kind_of(struct host *host, const char *what)
{
	struct host_kind *kind, *end = host->kinds + HOST_KINDS;
	for (kind = host->kinds; kind < end && kind->what != NULL; kind++)
		if (kind->what == what)
			return kind;
	for (kind = host->kinds; kind < end; kind++) {
		if (kind->what == NULL)
			kind->what = what;
		if (strcmp(kind->what, what) == 0)
			return kind;
	}
	return NULL;
}

void host_count(struct host *host, const char *what, int delta)
{
	struct host_kind *kind = host_kind_of(host, what);
	if (kind != NULL)
		kind->live += delta;
}

static void host_set_count(lua_State *L, const char *what, size_t n)
{
	lua_pushinteger(L, (lua_Integer)n);
	lua_setfield(L, -2, what);
}

void host_push_live(lua_State *L)
{
	const struct host *host = host_of(L);
	struct loop_counts counts = loop_counts(host->options.loop);
	lua_newtable(L);
	for (const struct host_kind *kind = host->kinds;
	     kind < host->kinds + HOST_KINDS && kind->what != NULL; kind++)
		host_set_count(L, kind->what, (size_t)kind->live);
	host_set_count(L, "tasks", tasks_alive(host->tasks));
	host_set_count(L, "loop.fds", counts.fds);
	host_set_count(L, "loop.timers", counts.timers);
	host_set_count(L, "loop.outside", counts.outside);
	host_set_count(L, "loop.deferred", counts.deferred);
}
