/* lua_spawn.c -- a spawn request read from a Lua table.  Floor 5.  See worker/lua_spawn.h.
 *
 * The table holds the options of process.spawn as people write them:
 *
 *	argv = {"sh", "-c", ...}     env = {K = V, ...}     cwd = "/x"
 *	rlimits = {nofile = 1024, cpu = {60, 65}, core = "unlimited"}           umask = 18
 *	user = "name" or "1000"      group = the same       nice, oom_score_adj = integers
 *	fds = {[to] = from}          pdeathsig, new_privileges, plain = booleans
 */
#include "worker/lua_spawn.h"

#include <math.h>
#include <stdlib.h>
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

/* --- the options --- */

/* A mistake is told at the place of who called process.spawn. */
static void refuse(lua_State *L, const char *format, const char *word)
{
	luaL_where(L, 2);
	lua_pushfstring(L, format, word);
	lua_concat(L, 2);
	lua_error(L);
}

static bool is_option(const char *name)
{
	static const char *const names[] = {
		"argv",	  "cwd",  "env",   "stdin",	   "merge",	     "rlimits",
		"umask",  "user", "group", "nice",	   "oom_score_adj",  "pdeathsig",
		"cgroup", "fds",  "plain", "output_limit", "new_privileges",
	};
	for (size_t i = 0; i < sizeof names / sizeof *names; i++)
		if (strcmp(names[i], name) == 0)
			return true;
	return false;
}

static void check_options(lua_State *L, int index)
{
	for (lua_pushnil(L); lua_next(L, index); lua_pop(L, 1))
		if (lua_type(L, -2) != LUA_TSTRING || !is_option(lua_tostring(L, -2)))
			refuse(L, "process.spawn: there is no option '%s'",
			       luaL_tolstring(L, -2, NULL));
}

static const char *const *read_argv(lua_State *L, int index)
{
	int type = lua_getfield(L, index, "argv");
	size_t n = type == LUA_TTABLE ? (size_t)luaL_len(L, -1) : 0;
	if (n == 0)
		refuse(L, "process.spawn: argv: expected a list such as %s",
		       "{ \"sh\", \"-c\", \"exit 3\" }");
	const char **vector = door_scratch(L, (n + 1) * sizeof *vector);
	for (size_t i = 0; i < n; i++) {
		lua_rawgeti(L, -2, (lua_Integer)i + 1);
		vector[i] = take_string(L, "argument", (int)i + 1);
	}
	vector[n] = NULL;
	return vector;
}

/* --- the environment --- */

/* The pair on top of the stack is a variable: how many bytes "K=V" takes. */
static size_t variable_size(lua_State *L)
{
	size_t key_size = 0, size;
	const char *key = lua_type(L, -2) == LUA_TSTRING ? lua_tolstring(L, -2, &key_size) : NULL;
	if (key_size == 0 || strcspn(key, "=") != key_size)
		luaL_error(L, "process.spawn: env: '%s' cannot name a variable",
			   key != NULL ? key : luaL_tolstring(L, -2, NULL));
	if (strlen(luaL_tolstring(L, -1, &size)) != size)
		luaL_error(L, "the variable %s holds a NUL byte, which no program can be given",
			   key);
	lua_pop(L, 1);
	return key_size + 1 + size + 1;
}

static char *variable_write(lua_State *L, char *to)
{
	size_t key_size, size;
	const char *key = lua_tolstring(L, -2, &key_size);
	const char *value = luaL_tolstring(L, -1, &size);
	to = mempcpy(to, key, key_size);
	*to++ = '=';
	to = mempcpy(to, value, size + 1);
	lua_pop(L, 1);
	return to;
}

static int variable_compare(const void *left, const void *right)
{
	return strcmp(*(const char *const *)left, *(const char *const *)right);
}

/* Sorted: the same environment is the same bytes every time.  ${extra} comes last. */
static const char *const *read_env(lua_State *L, int index, const char *extra)
{
	size_t count = 0, bytes = 0;
	int type = lua_getfield(L, index, "env");
	if (type != LUA_TTABLE && type != LUA_TNIL)
		luaL_error(L, "field 'env': expected a table, got %s", lua_typename(L, type));
	int table = lua_gettop(L);
	for (lua_pushnil(L); type == LUA_TTABLE && lua_next(L, table); lua_pop(L, 1), count++)
		bytes += variable_size(L);
	lua_settop(L, table);
	const char **vector = door_scratch(L, (count + 2) * sizeof *vector + bytes);
	char *text = (char *)(vector + count + 2);
	size_t n = 0;
	for (lua_pushnil(L); n < count && lua_next(L, table); lua_pop(L, 1)) {
		vector[n++] = text;
		text = variable_write(L, text);
	}
	lua_settop(L, table + 1);
	qsort(vector, count, sizeof *vector, variable_compare);
	vector[count] = extra;
	vector[count + 1] = NULL;
	return vector;
}

/* A program without a slash is looked for where the child itself would look. */
static const char *search_path(lua_State *L, int index)
{
	const char *path = NULL;
	if (lua_getfield(L, index, "env") == LUA_TTABLE) {
		if (lua_getfield(L, -1, "PATH") == LUA_TSTRING)
			path = lua_tostring(L, -1);
		lua_pop(L, 1);
	}
	lua_pop(L, 1);
	return path;
}

/* --- limits --- */

/* The amount on top of the stack, popped. */
static rlim_t take_amount(lua_State *L, const char *name)
{
	static const char unlimited[] = "unlimited";
	int type = lua_type(L, -1);
	lua_Number amount = type == LUA_TNUMBER ? lua_tonumber(L, -1) : -1;
	if (type == LUA_TSTRING && strcmp(lua_tostring(L, -1), unlimited) == 0)
		amount = HUGE_VAL;
	if (!(amount >= 0))
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

/* The limit on top of the stack: one number for both, or { soft, hard }. */
static void read_limit(lua_State *L, const char *name, struct spawn_limit *limit)
{
	bool pair = lua_type(L, -1) == LUA_TTABLE;
	limit->resource = limit_resource(L, name);
	for (int i = 1; i <= 2; i++) {
		if (pair)
			lua_rawgeti(L, -1, i);
		else
			lua_pushvalue(L, -1);
		*(i == 1 ? &limit->soft : &limit->hard) = take_amount(L, name);
	}
}

static void read_limits(lua_State *L, int index, struct spawn_request *request)
{
	if (lua_getfield(L, index, "rlimits") == LUA_TTABLE) {
		for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1)) {
			if (request->limit_count == SPAWN_LIMITS)
				luaL_error(L, "more than %d limits", SPAWN_LIMITS);
			if (lua_type(L, -2) != LUA_TSTRING)
				luaL_error(L, "rlimits: expected names such as nofile");
			read_limit(L, lua_tostring(L, -2),
				   &request->limits[request->limit_count++]);
		}
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
			int from = (int)luaL_checkinteger(L, -1);
			if (from < 0)
				luaL_error(L, "fds: %d is no file", from);
			request->fds[request->fd_count++] = (struct spawn_fd){
				.from = from, .to = (int)luaL_checkinteger(L, -2)};
		}
	}
	lua_pop(L, 1);
}

void lua_spawn_request(lua_State *L, int index, const char *tag, struct spawn_request *request)
{
	*request = SPAWN_REQUEST;
	check_options(L, index);
	request->argv = read_argv(L, index);
	request->envp = read_env(L, index, tag);
	request->path = search_path(L, index);
	request->cwd = take_field(L, index, "cwd");
	request->user = take_field(L, index, "user");
	request->group = take_field(L, index, "group");
	request->umask = (int)door_integer(L, index, "umask", 0, 0777, -1);
	request->nice = (int)door_integer(L, index, "nice", -40, 40, 0);
	request->oom_score_adj =
		(int)door_integer(L, index, "oom_score_adj", -1000, 1000, SPAWN_OOM_KEEP);
	request->outlive = !door_bool(L, index, "pdeathsig", true);
	request->no_new_privileges = !door_bool(L, index, "new_privileges", true);
	request->plain = door_bool(L, index, "plain", false);
	read_limits(L, index, request);
	read_files(L, index, request);
}
