/* lua_spawn.c -- a spawn request read from a Lua table.  Floor 5.  See worker/lua_spawn.h.
 *
 * The table is what lua/worker/process.lua makes of the options people write:
 *
 *	argv = {"sh", "-c", ...}     env = {"K=V", ...}     path = "/bin:..."   cwd = "/x"
 *	limits = {{"nofile", soft, hard}, ...}              umask = 18
 *	user = "name" or "1000"      group = the same       nice, oom_score_adj = integers
 *	fds = {[to] = from}          outlive, no_new_privileges, plain = booleans
 */
#include "worker/lua_spawn.h"

#include <string.h>
#include <sys/resource.h>

#include "worker/door.h"

static const struct {
	const char *name;
	int resource;
} limit_names[] = {
	{"as", RLIMIT_AS},	   {"core", RLIMIT_CORE},   {"cpu", RLIMIT_CPU},
	{"data", RLIMIT_DATA},	   {"fsize", RLIMIT_FSIZE}, {"memlock", RLIMIT_MEMLOCK},
	{"nofile", RLIMIT_NOFILE}, {"nproc", RLIMIT_NPROC}, {"stack", RLIMIT_STACK},
};

/* The string on top of the stack, which ${what} names; popped, but still held by its table. */
static const char *take_string(lua_State *L, const char *what, int place)
{
	size_t length;
	if (lua_type(L, -1) != LUA_TSTRING)
		luaL_error(L, "%s %d: expected a string, got %s", what, place,
			   luaL_typename(L, -1));
	const char *text = lua_tolstring(L, -1, &length);
	if (strlen(text) != length)
		luaL_error(L, "%s %d holds a NUL byte, which no program can be given", what, place);
	lua_pop(L, 1);
	return text;
}

static const char *take_field(lua_State *L, int index, const char *key)
{
	size_t length = 0;
	const char *text = door_string(L, index, key, &length, NULL);
	if (text != NULL && strlen(text) != length)
		luaL_error(L, "field '%s' holds a NUL byte", key);
	return text;
}

static const char *const *read_vector(lua_State *L, int index, const char *key, const char *what,
				      const char *extra)
{
	int type = lua_getfield(L, index, key);
	if (type != LUA_TTABLE && type != LUA_TNIL)
		luaL_error(L, "field '%s': expected a list of strings, got %s", key,
			   luaL_typename(L, -1));
	size_t n = type == LUA_TTABLE ? (size_t)luaL_len(L, -1) : 0;
	const char **vector = door_scratch(L, (n + 2) * sizeof *vector);
	for (size_t i = 0; i < n; i++) {
		lua_rawgeti(L, -2, (lua_Integer)i + 1);
		vector[i] = take_string(L, what, (int)i + 1);
	}
	vector[n] = extra;
	return vector;
}

static rlim_t take_amount(lua_State *L, int index, int place, const char *name)
{
	int type = lua_rawgeti(L, index, place);
	lua_Number amount = lua_tonumber(L, -1);
	if (type != LUA_TNUMBER || !(amount >= 0))
		luaL_error(L, "limit '%s': expected a number >= 0, got %s", name,
			   luaL_tolstring(L, -1, NULL));
	lua_pop(L, 1);
	return amount < 9e18 ? (rlim_t)amount : RLIM_INFINITY;
}

static int limit_resource(lua_State *L, const char *name)
{
	for (size_t i = 0; i < sizeof limit_names / sizeof *limit_names; i++)
		if (strcmp(name, limit_names[i].name) == 0)
			return limit_names[i].resource;
	return luaL_error(L, "there is no limit '%s'", name);
}

static void read_limits(lua_State *L, int index, struct spawn_request *request)
{
	if (lua_getfield(L, index, "limits") != LUA_TTABLE) {
		lua_pop(L, 1);
		return;
	}
	lua_Integer n = luaL_len(L, -1);
	if (n > SPAWN_LIMITS)
		luaL_error(L, "more than %d limits", SPAWN_LIMITS);
	for (lua_Integer i = 1; i <= n; i++) {
		struct spawn_limit *limit = &request->limits[request->limit_count++];
		lua_rawgeti(L, -1, i);
		luaL_checktype(L, -1, LUA_TTABLE);
		lua_rawgeti(L, -1, 1);
		const char *name = take_string(L, "limit", (int)i);
		limit->resource = limit_resource(L, name);
		limit->soft = take_amount(L, lua_gettop(L), 2, name);
		limit->hard = take_amount(L, lua_gettop(L), 3, name);
		lua_pop(L, 1);
	}
	lua_pop(L, 1);
}

static void read_files(lua_State *L, int index, struct spawn_request *request)
{
	if (lua_getfield(L, index, "fds") == LUA_TTABLE) {
		lua_pushnil(L);
		for (; lua_next(L, -2); lua_pop(L, 1)) {
			/* Three places stay free for what the door itself connects. */
			if (request->fd_count >= SPAWN_FDS - 3)
				luaL_error(L, "more files than a child can be given");
			request->fds[request->fd_count++] =
				(struct spawn_fd){.from = (int)luaL_checkinteger(L, -1),
						  .to = (int)luaL_checkinteger(L, -2)};
		}
	}
	lua_pop(L, 1);
}

void lua_spawn_request(lua_State *L, int index, const char *tag, struct spawn_request *request)
{
	*request = SPAWN_REQUEST;
	request->argv = read_vector(L, index, "argv", "argument", NULL);
	request->envp = read_vector(L, index, "env", "environment entry", tag);
	request->path = take_field(L, index, "path");
	request->cwd = take_field(L, index, "cwd");
	request->user = take_field(L, index, "user");
	request->group = take_field(L, index, "group");
	request->umask = (int)door_integer(L, index, "umask", 0, 0777, -1);
	request->nice = (int)door_integer(L, index, "nice", -40, 40, 0);
	request->oom_score_adj =
		(int)door_integer(L, index, "oom_score_adj", -1000, 1000, SPAWN_OOM_KEEP);
	request->outlive = door_bool(L, index, "outlive", false);
	request->no_new_privileges = door_bool(L, index, "no_new_privileges", false);
	request->plain = door_bool(L, index, "plain", false);
	read_limits(L, index, request);
	read_files(L, index, request);
}
