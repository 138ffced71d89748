/* lua_sys.c -- worker.core.sys: the process, its clocks, its environment.  Floor 5.
 *
 *	sys.mono() sys.wall() -> seconds       sys.iso([digits [, wall]]) -> RFC 3339 text
 *	sys.env([name]) -> value or table      sys.unsetenv(name)
 *	sys.pid() sys.uid() sys.hostname() sys.version()
 *	sys.user([name]) -> { name, uid, gid, home } or nil     without a name: who we are
 *	sys.open_files() -> how many may be open, or nil: any number
 *	sys.isatty(fd) sys.terminal_width(fd)
 *	sys.signals{"TERM", ...} -> handle     handle:wait([seconds]) -> name; handle:close()
 *	sys.exit_status(code) sys.stop()       what main returns when the loop ends; ends it
 *	sys.live() -> counts                   sys.memory() -> now, peak
 *	sys.virtual(on) sys.jump(seconds)      for specs
 *	sys.turns() -> turns, waits            sys.stale_wakes()
 *	sys.oom_where() -> text or nil         sys.error_metatable()
 */
#include <pwd.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "worker/clock.h"
#include "worker/door.h"
#include "worker/doors.h"
#include "worker/host.h"
#include "worker/loop.h"
#include "worker/task.h"
#include "worker/version.h"

static int core_mono(lua_State *L)
{
	lua_pushnumber(L, (lua_Number)clock_mono() / (lua_Number)CLOCK_SECOND);
	return 1;
}

static int core_wall(lua_State *L)
{
	lua_pushnumber(L, (lua_Number)clock_wall() / (lua_Number)CLOCK_SECOND);
	return 1;
}

static int core_iso(lua_State *L)
{
	char text[CLOCK_ISO_SIZE];
	int digits = (int)luaL_optinteger(L, 1, 3);
	int64_t wall = clock_wall();
	if (!lua_isnoneornil(L, 2))
		wall = (int64_t)(luaL_checknumber(L, 2) * (lua_Number)CLOCK_SECOND);
	lua_pushlstring(L, text, clock_iso(text, wall, digits));
	return 1;
}

/* --- environment --- */

static void push_environment(lua_State *L)
{
	lua_newtable(L);
	for (char **entry = environ; *entry != NULL; entry++) {
		const char *equals = strchr(*entry, '=');
		if (equals == NULL)
			continue;
		lua_pushlstring(L, *entry, (size_t)(equals - *entry));
		lua_pushstring(L, equals + 1);
		lua_rawset(L, -3);
	}
}

static int core_env(lua_State *L)
{
	if (lua_isnoneornil(L, 1))
		push_environment(L);
	else
		lua_pushstring(L, getenv(luaL_checkstring(L, 1)));
	return 1;
}

/* Overwritten before it is forgotten: the memory is what /proc/self/environ shows. */
static int core_unsetenv(lua_State *L)
{
	const char *name = luaL_checkstring(L, 1);
	char *value = getenv(name);
	if (value != NULL)
		explicit_bzero(value, strlen(value));
	unsetenv(name);
	return 0;
}

/* --- identity --- */

static int core_pid(lua_State *L)
{
	lua_pushinteger(L, getpid());
	return 1;
}

static int core_uid(lua_State *L)
{
	lua_pushinteger(L, geteuid());
	return 1;
}

/* By name, or by number in place of a name. */
static const struct passwd *find_user(const char *name)
{
	if (name == NULL)
		return getpwuid(geteuid());
	const struct passwd *user = getpwnam(name);
	if (user == NULL && *name != '\0' && strspn(name, "0123456789") == strlen(name))
		user = getpwuid((uid_t)strtoul(name, NULL, 10));
	return user;
}

static int core_user(lua_State *L)
{
	const struct passwd *user = find_user(luaL_optstring(L, 1, NULL));
	if (user == NULL)
		return 0;
	lua_createtable(L, 0, 4);
	lua_pushstring(L, user->pw_name);
	lua_setfield(L, -2, "name");
	lua_pushinteger(L, user->pw_uid);
	lua_setfield(L, -2, "uid");
	lua_pushinteger(L, user->pw_gid);
	lua_setfield(L, -2, "gid");
	lua_pushstring(L, user->pw_dir);
	lua_setfield(L, -2, "home");
	return 1;
}

static int core_open_files(lua_State *L)
{
	struct rlimit files;
	if (getrlimit(RLIMIT_NOFILE, &files) == -1 || files.rlim_cur == RLIM_INFINITY)
		return 0;
	lua_pushinteger(L, (lua_Integer)files.rlim_cur);
	return 1;
}

static int core_hostname(lua_State *L)
{
	char name[256] = "localhost";
	gethostname(name, sizeof name - 1);
	lua_pushstring(L, name);
	return 1;
}

static int core_version(lua_State *L)
{
	lua_pushliteral(L, WORKER_VERSION);
	return 1;
}

static int core_isatty(lua_State *L)
{
	lua_pushboolean(L, isatty((int)luaL_checkinteger(L, 1)));
	return 1;
}

static int core_terminal_width(lua_State *L)
{
	struct winsize size;
	if (ioctl((int)luaL_checkinteger(L, 1), TIOCGWINSZ, &size) == -1 || size.ws_col == 0)
		return 0;
	lua_pushinteger(L, size.ws_col);
	return 1;
}

/* --- signals --- */

#define SIGNALS_MOST 16

struct signals {
	struct loop *loop;
	struct host *host;
	struct task_token token;
	struct loop_timer timer;
	int caught[SIGNALS_MOST]; /* what is caught */
	size_t caught_count;
	int queue[SIGNALS_MOST]; /* what has come and was not asked for yet */
	size_t queued;
	bool waiting;
};

static const struct door_type signals_type;

static const struct signal_name {
	const char *name;
	int signo;
} signal_names[] = {
	{"HUP", SIGHUP},     {"INT", SIGINT},	{"QUIT", SIGQUIT},
	{"TERM", SIGTERM},   {"USR1", SIGUSR1}, {"USR2", SIGUSR2},
	{"WINCH", SIGWINCH}, {"CONT", SIGCONT}, {"TSTP", SIGTSTP},
};

static const char *signal_name(int signo)
{
	for (size_t i = 0; i < sizeof signal_names / sizeof *signal_names; i++)
		if (signal_names[i].signo == signo)
			return signal_names[i].name;
	return "?";
}

static int signal_number(lua_State *L, const char *name)
{
	for (size_t i = 0; i < sizeof signal_names / sizeof *signal_names; i++)
		if (strcmp(signal_names[i].name, name) == 0)
			return signal_names[i].signo;
	return luaL_error(L, "signal '%s' cannot be waited for", name);
}

static int signals_push(lua_State *co, void *op)
{
	struct signals *signals = op;
	if (signals->queued == 0)
		return 0;
	lua_pushstring(co, signal_name(signals->queue[0]));
	signals->queued--;
	memmove(signals->queue, signals->queue + 1, signals->queued * sizeof *signals->queue);
	return 1;
}

static void signals_abort(void *op)
{
	struct signals *signals = op;
	signals->waiting = false;
	loop_timer_stop(signals->loop, &signals->timer);
}

static void signals_wake(void *op)
{
	struct signals *signals = op;
	if (!signals->waiting)
		return;
	signals_abort(signals);
	task_wake(signals->host, signals->token, signals_push, signals);
}

static void signals_got(void *arg, int signo)
{
	struct signals *signals = arg;
	if (signals->queued < SIGNALS_MOST)
		signals->queue[signals->queued++] = signo;
	signals_wake(signals);
}

static void signals_close(lua_State *L, void *box)
{
	struct signals *signals = box;
	(void)L;
	while (signals->caught_count > 0)
		loop_signal(signals->loop, signals->caught[--signals->caught_count], NULL, NULL,
			    NULL);
	if (signals->loop != NULL)
		signals_wake(signals);
}

static int signals_close_method(lua_State *L)
{
	signals_close(L, door_check(L, 1, &signals_type));
	return 0;
}

static int signals_wait(lua_State *L)
{
	struct signals *signals = door_check(L, 1, &signals_type);
	int64_t ns = lua_isnoneornil(L, 2) ? -1 : door_nanos(L, 2);
	if (signals->queued > 0)
		return signals_push(L, signals);
	if (signals->caught_count == 0 || signals->waiting)
		return luaL_error(L, signals->waiting ? "another task waits for these signals"
						      : "these signals are closed");
	signals->token = task_token(L);
	if (ns >= 0 &&
	    loop_timer_start(signals->loop, &signals->timer, ns, signals_wake, signals) == -1)
		return luaL_error(L, "out of memory for a timer");
	signals->waiting = true;
	return task_park(L, signals->token, signals_abort, signals);
}

static const luaL_Reg signals_methods[] = {
	{"wait", signals_wait},
	{"close", signals_close_method},
	{NULL, NULL},
};

static const struct door_type signals_type = {
	.name = "worker.signals",
	.methods = signals_methods,
	.close = signals_close,
};

static int core_signals(lua_State *L)
{
	luaL_checktype(L, 1, LUA_TTABLE);
	lua_Integer n = luaL_len(L, 1);
	luaL_argcheck(L, n <= SIGNALS_MOST, 1, "too many signals");
	struct signals *signals = door_box(L, &signals_type, sizeof *signals);
	signals->loop = host_loop(L);
	signals->host = host_of(L);
	for (lua_Integer i = 1; i <= n; i++) {
		lua_rawgeti(L, 1, i);
		int signo = signal_number(L, luaL_checkstring(L, -1));
		struct err err;
		if (loop_signal(signals->loop, signo, signals_got, signals, &err) == -1)
			return door_raise(L, "spawn", &err);
		signals->caught[signals->caught_count++] = signo;
		lua_pop(L, 1);
	}
	return 1;
}

/* --- the host --- */

static int core_live(lua_State *L)
{
	host_push_live(L);
	return 1;
}

static int core_memory(lua_State *L)
{
	lua_pushinteger(L, (lua_Integer)host_memory(host_of(L)));
	lua_pushinteger(L, (lua_Integer)host_memory_peak(host_of(L)));
	return 2;
}

static int core_virtual(lua_State *L)
{
	loop_virtual(host_loop(L), lua_toboolean(L, 1));
	return 0;
}

static int core_jump(lua_State *L)
{
	clock_jump(door_nanos(L, 1));
	return 0;
}

static int core_turns(lua_State *L)
{
	struct loop_counts counts = loop_counts(host_loop(L));
	lua_pushinteger(L, (lua_Integer)counts.turns);
	lua_pushinteger(L, (lua_Integer)counts.waits);
	return 2;
}

static int core_stale_wakes(lua_State *L)
{
	lua_pushinteger(L, (lua_Integer)tasks_stale_wakes(host_tasks(host_of(L))));
	return 1;
}

static int core_oom_where(lua_State *L)
{
	lua_pushstring(L, host_oom_where(host_of(L)));
	return 1;
}

static int core_error_metatable(lua_State *L)
{
	struct err err = {.code = 0};
	door_push_error(L, "bug", &err);
	lua_getmetatable(L, -1);
	return 1;
}

static int core_exit_status(lua_State *L)
{
	lua_Integer code = luaL_checkinteger(L, 1);
	luaL_argcheck(L, code >= 0 && code <= 255, 1, "an exit status is 0 to 255");
	host_exit_set(host_of(L), (int)code);
	return 0;
}

static int core_stop(lua_State *L)
{
	loop_stop(host_loop(L));
	return 0;
}

static const luaL_Reg functions[] = {
	{"stop", core_stop},
	{"mono", core_mono},
	{"wall", core_wall},
	{"iso", core_iso},
	{"env", core_env},
	{"unsetenv", core_unsetenv},
	{"pid", core_pid},
	{"uid", core_uid},
	{"user", core_user},
	{"hostname", core_hostname},
	{"open_files", core_open_files},
	{"version", core_version},
	{"isatty", core_isatty},
	{"terminal_width", core_terminal_width},
	{"signals", core_signals},
	{"exit_status", core_exit_status},
	{"live", core_live},
	{"memory", core_memory},
	{"virtual", core_virtual},
	{"jump", core_jump},
	{"turns", core_turns},
	{"stale_wakes", core_stale_wakes},
	{"oom_where", core_oom_where},
	{"error_metatable", core_error_metatable},
	{NULL, NULL},
};

int luaopen_worker_core_sys(lua_State *L)
{
	luaL_newlib(L, functions);
	return 1;
}
