/* lua_facts.c -- worker.core.facts: what only a system call knows of this host.  Floor 5.
 *
 *	facts.system() -> {name=, release=, machine=}
 *	facts.space(path) -> {total=, free=, files_free=} or nil, reason
 *	                                              bytes for us, not for root
 *	facts.may(path, "rwx") -> yes or no, reason
 *	facts.clocks() -> seconds since 1970, seconds since boot
 *	facts.limits() -> {nofile = {soft, hard}, nproc = ..., core = ...}
 *	                                              absent: unlimited
 *	facts.user_namespace() -> yes or no, reason   tried in a child
 *	facts.tls() -> versions or nil, reason        loads libcurl
 *
 * Floor 5.  What is in a file under /proc is read by Lua itself.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/timex.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "worker/door.h"
#include "worker/doors.h"
#include "worker/libcurl.h"

static int no(lua_State *L, int code)
{
	lua_pushnil(L);
	lua_pushstring(L, strerror(code));
	return 2;
}

static void set_text(lua_State *L, const char *key, const char *text)
{
	lua_pushstring(L, text);
	lua_setfield(L, -2, key);
}

static int facts_system(lua_State *L)
{
	struct utsname name;
	if (uname(&name) == -1)
		return no(L, errno);
	lua_createtable(L, 0, 3);
	set_text(L, "name", name.sysname);
	set_text(L, "release", name.release);
	set_text(L, "machine", name.machine);
	return 1;
}

static int facts_space(lua_State *L)
{
	struct statvfs fs;
	if (statvfs(luaL_checkstring(L, 1), &fs) == -1)
		return no(L, errno);
	lua_createtable(L, 0, 3);
	lua_pushinteger(L, (lua_Integer)(fs.f_blocks * fs.f_frsize));
	lua_setfield(L, -2, "total");
	lua_pushinteger(L, (lua_Integer)(fs.f_bavail * fs.f_frsize));
	lua_setfield(L, -2, "free");
	/* Some file systems (btrfs) count no inodes and say 0 of 0. */
	if (fs.f_files > 0) {
		lua_pushinteger(L, (lua_Integer)fs.f_favail);
		lua_setfield(L, -2, "files_free");
	}
	return 1;
}

static int facts_may(lua_State *L)
{
	const char *path = luaL_checkstring(L, 1), *how = luaL_optstring(L, 2, "");
	int mode = (strchr(how, 'r') ? R_OK : 0) | (strchr(how, 'w') ? W_OK : 0) |
		   (strchr(how, 'x') ? X_OK : 0);
	if (faccessat(AT_FDCWD, path, mode, AT_EACCESS) == -1)
		return no(L, errno);
	lua_pushboolean(L, 1);
	return 1;
}

/* Not clock.h: the question is what the kernel's clocks say, under a virtual clock too. */
static lua_Number seconds(clockid_t id)
{
	struct timespec now;
	clock_gettime(id, &now);
	return (lua_Number)now.tv_sec + (lua_Number)now.tv_nsec / 1e9;
}

static int facts_clocks(lua_State *L)
{
	lua_pushnumber(L, seconds(CLOCK_REALTIME));
	lua_pushnumber(L, seconds(CLOCK_BOOTTIME));
	return 2;
}

static int facts_clock_synchronised(lua_State *L)
{
	struct timex status = {.modes = 0};
	int state = adjtimex(&status);
	if (state == -1)
		return no(L, errno);
	lua_pushboolean(L, state != TIME_ERROR);
	return 1;
}

static int facts_limits(lua_State *L)
{
	static const struct {
		const char *name;
		int resource;
	} all[] = {{"nofile", RLIMIT_NOFILE}, {"nproc", RLIMIT_NPROC}, {"core", RLIMIT_CORE}};
	lua_newtable(L);
	for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
		struct rlimit limit;
		if (getrlimit((__rlimit_resource_t)all[i].resource, &limit) == -1 ||
		    limit.rlim_cur == RLIM_INFINITY)
			continue;
		lua_createtable(L, 2, 0);
		lua_pushinteger(L, (lua_Integer)limit.rlim_cur);
		lua_rawseti(L, -2, 1);
		if (limit.rlim_max != RLIM_INFINITY) {
			lua_pushinteger(L, (lua_Integer)limit.rlim_max);
			lua_rawseti(L, -2, 2);
		}
		lua_setfield(L, -2, all[i].name);
	}
	return 1;
}

/* Files under /proc/sys say what should be; security modules have the last word.  So a child is
 * made in a namespace of its own and asked nothing but to exit: no exit signal, so that it is
 * nobody else's business. */
static int facts_user_namespace(lua_State *L)
{
	struct clone_args args = {.flags = CLONE_NEWUSER};
	pid_t pid = (pid_t)syscall(SYS_clone3, &args, sizeof args);
	if (pid == 0)
		_exit(0);
	if (pid == -1)
		return no(L, errno);
	while (waitpid(pid, NULL, __WALL) == -1 && errno == EINTR)
		;
	lua_pushboolean(L, 1);
	return 1;
}

static int facts_tls(lua_State *L)
{
	struct err err;
	if (libcurl_load(&err) == 0) {
		lua_pushstring(L, curl_version());
		return 1;
	}
	lua_pushnil(L);
	lua_pushstring(L, err.text);
	return 2;
}

static const luaL_Reg functions[] = {
	{"system", facts_system},
	{"space", facts_space},
	{"may", facts_may},
	{"clocks", facts_clocks},
	{"clock_synchronised", facts_clock_synchronised},
	{"limits", facts_limits},
	{"user_namespace", facts_user_namespace},
	{"tls", facts_tls},
	{NULL, NULL},
};

int luaopen_worker_core_facts(lua_State *L)
{
	luaL_newlib(L, functions);
	return 1;
}
