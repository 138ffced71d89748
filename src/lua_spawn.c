/* lua_spawn.c -- a spawn request read from a Lua table.  Floor 5.  See worker/lua_spawn.h.
 *
 * The table holds the options of process.spawn as people write them:
 *
 *	argv = {"sh", "-c", ...}     env = {K = V, ...}     cwd = "/x"
 *	rlimits = {nofile = 1024, cpu = {60, 65}, core = "unlimited"}           umask = 18
 *	user = "name" or 1000        group = the same       nice, oom_score_adj = integers
 *	fds = {[to] = from}          pdeathsig, new_privileges, plain = booleans
 *
 * It is walked once: each value gets the place of its option on the stack, from where it is read.
 * Whoever made the table may change it while it is read (a value of the environment may have a
 * __tostring): so that is asked first, and what the request points to is held by the stack.
 */
#include "worker/lua_spawn.h"

#include <limits.h>
#include <math.h>
#include <string.h>
#include <sys/resource.h>

#include "worker/door.h"
#include "worker/lua_env.h"

static const struct {
	const char *name;
	int resource;
} limit_names[] = {
	{"nofile", RLIMIT_NOFILE}, {"core", RLIMIT_CORE},   {"fsize", RLIMIT_FSIZE},
	{"as", RLIMIT_AS},	   {"cpu", RLIMIT_CPU},	    {"data", RLIMIT_DATA},
	{"nproc", RLIMIT_NPROC},   {"stack", RLIMIT_STACK}, {"memlock", RLIMIT_MEMLOCK},
};

/* --- the options --- */

static const char *const option_names[LUA_SPAWN_OPTIONS] = {
	[LUA_SPAWN_ARGV] = "argv",
	[LUA_SPAWN_ENV] = "env",
	[LUA_SPAWN_CWD] = "cwd",
	[LUA_SPAWN_STDIN] = "stdin",
	[LUA_SPAWN_MERGE] = "merge",
	[LUA_SPAWN_OUTPUT_LIMIT] = "output_limit",
	[LUA_SPAWN_RLIMITS] = "rlimits",
	[LUA_SPAWN_UMASK] = "umask",
	[LUA_SPAWN_USER] = "user",
	[LUA_SPAWN_GROUP] = "group",
	[LUA_SPAWN_NICE] = "nice",
	[LUA_SPAWN_OOM_SCORE_ADJ] = "oom_score_adj",
	[LUA_SPAWN_PDEATHSIG] = "pdeathsig",
	[LUA_SPAWN_NEW_PRIVILEGES] = "new_privileges",
	[LUA_SPAWN_CGROUP] = "cgroup",
	[LUA_SPAWN_FDS] = "fds",
	[LUA_SPAWN_PLAIN] = "plain",
};

void lua_spawn_push_names(lua_State *L)
{
	lua_createtable(L, 0, LUA_SPAWN_OPTIONS);
	for (int option = 0; option < LUA_SPAWN_OPTIONS; option++) {
		lua_pushinteger(L, option);
		lua_setfield(L, -2, option_names[option]);
	}
}

/* A mistake is told at the place of who called process.spawn. */
static void refuse(lua_State *L, const char *format, const char *word)
{
	luaL_where(L, 2);
	lua_pushfstring(L, format, word);
	lua_concat(L, 2);
	lua_error(L);
}

/* What the table has only by its metatable. */
static void lay_inherited(lua_State *L, int index, int first)
{
	for (int option = 0; option < LUA_SPAWN_OPTIONS; option++) {
		lua_getfield(L, index, option_names[option]);
		lua_replace(L, first + option);
	}
}

int lua_spawn_lay(lua_State *L, int index, int names)
{
	int first = lua_gettop(L) + 1;
	luaL_checkstack(L, LUA_SPAWN_OPTIONS + LUA_MINSTACK, "process.spawn");
	lua_settop(L, first + LUA_SPAWN_OPTIONS - 1);
	for (lua_pushnil(L); lua_next(L, index);) {
		lua_pushvalue(L, -2);
		if (lua_rawget(L, names) != LUA_TNUMBER)
			refuse(L, "process.spawn: there is no option '%s'",
			       luaL_tolstring(L, -3, NULL));
		int option = (int)lua_tointeger(L, -1);
		lua_pop(L, 1);
		lua_replace(L, first + option);
	}
	if (lua_getmetatable(L, index)) {
		lua_pop(L, 1);
		lay_inherited(L, index, first);
	}
	return first;
}

/* --- simple ones --- */

static void mismatch(lua_State *L, int first, enum lua_spawn_option option, const char *expected)
{
	luaL_error(L, "field '%s': expected %s, got %s", option_names[option], expected,
		   luaL_tolstring(L, first + option, NULL));
}

const char *lua_spawn_text(lua_State *L, int first, enum lua_spawn_option option, size_t *length)
{
	int type = lua_type(L, first + option);
	if (type == LUA_TNIL)
		return NULL;
	if (type != LUA_TSTRING)
		mismatch(L, first, option, "a string");
	return lua_tolstring(L, first + option, length);
}

lua_Integer lua_spawn_number(lua_State *L, int first, enum lua_spawn_option option,
			     lua_Integer least, lua_Integer most, lua_Integer otherwise)
{
	int whole = 0, type = lua_type(L, first + option);
	if (type == LUA_TNIL)
		return otherwise;
	lua_Integer number =
		type == LUA_TNUMBER ? lua_tointegerx(L, first + option, &whole) : otherwise;
	if (!whole)
		mismatch(L, first, option, "a whole number");
	if (number < least || number > most)
		luaL_error(L, "field '%s': %I is not between %I and %I", option_names[option],
			   number, least, most);
	return number;
}

bool lua_spawn_flag(lua_State *L, int first, enum lua_spawn_option option, bool otherwise)
{
	int type = lua_type(L, first + option);
	if (type == LUA_TNIL)
		return otherwise;
	if (type != LUA_TBOOLEAN)
		mismatch(L, first, option, "true or false");
	return lua_toboolean(L, first + option);
}

/* What a program is given ends at a NUL byte. */
static const char *plain_text(lua_State *L, int first, enum lua_spawn_option option)
{
	size_t length;
	const char *text = lua_spawn_text(L, first, option, &length);
	if (text != NULL && strlen(text) != length)
		luaL_error(L, "field '%s' holds a NUL byte", option_names[option]);
	return text;
}

/* By number or by name; the number becomes text in its place on the stack. */
static const char *person_text(lua_State *L, int first, enum lua_spawn_option option)
{
	if (lua_type(L, first + option) == LUA_TNUMBER)
		return lua_tostring(L, first + option);
	return plain_text(L, first, option);
}

/* --- the arguments --- */

/* The argument on top of the stack, which stays there. */
static const char *argument(lua_State *L, int place)
{
	size_t length;
	if (lua_type(L, -1) != LUA_TSTRING)
		luaL_error(L, "argument %d: expected a string, got %s", place,
			   luaL_typename(L, -1));
	const char *text = lua_tolstring(L, -1, &length);
	if (strlen(text) != length)
		luaL_error(L, "argument %d holds a NUL byte, which no program can be given", place);
	return text;
}

static const char *const *read_argv(lua_State *L, int argv)
{
	size_t n = lua_type(L, argv) == LUA_TTABLE ? lua_rawlen(L, argv) : 0;
	if (n == 0)
		refuse(L, "process.spawn: argv: expected a list such as %s",
		       "{ \"sh\", \"-c\", \"exit 3\" }");
	luaL_checkstack(L, n < INT_MAX / 2 ? (int)n + LUA_MINSTACK : INT_MAX / 2,
			"too many arguments");
	const char **vector = door_scratch(L, (n + 1) * sizeof *vector);
	for (size_t i = 0; i < n; i++) {
		lua_rawgeti(L, argv, (lua_Integer)i + 1);
		vector[i] = argument(L, (int)i + 1);
	}
	vector[n] = NULL;
	return vector;
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

/* The limit on top of the stack, popped: one number for both, or { soft, hard }. */
static void take_limit(lua_State *L, const char *name, struct spawn_limit *limit)
{
	limit->resource = limit_resource(L, name);
	if (lua_type(L, -1) != LUA_TTABLE) {
		limit->soft = limit->hard = take_amount(L, name);
		return;
	}
	lua_rawgeti(L, -1, 1);
	limit->soft = take_amount(L, name);
	lua_rawgeti(L, -1, 2);
	limit->hard = take_amount(L, name);
	lua_pop(L, 1);
}

static void read_limits(lua_State *L, int limits, struct spawn_request *request)
{
	if (lua_type(L, limits) != LUA_TTABLE)
		return;
	for (lua_pushnil(L); lua_next(L, limits);) {
		if (request->limit_count == SPAWN_LIMITS)
			luaL_error(L, "more than %d limits", SPAWN_LIMITS);
		if (lua_type(L, -2) != LUA_TSTRING)
			luaL_error(L, "rlimits: expected names such as nofile");
		take_limit(L, lua_tostring(L, -2), &request->limits[request->limit_count++]);
	}
}

static void read_files(lua_State *L, int files, struct spawn_request *request)
{
	if (lua_type(L, files) != LUA_TTABLE)
		return;
	for (lua_pushnil(L); lua_next(L, files); lua_pop(L, 1)) {
		/* Three places stay free for what the door itself connects. */
		if (request->fd_count >= SPAWN_FDS - 3)
			luaL_error(L, "more files than a child can be given");
		int from = (int)luaL_checkinteger(L, -1);
		if (from < 0)
			luaL_error(L, "fds: %d is no file", from);
		request->fds[request->fd_count++] =
			(struct spawn_fd){.from = from, .to = (int)luaL_checkinteger(L, -2)};
	}
}

void lua_spawn_request(lua_State *L, int first, const char *tag, struct spawn_request *request)
{
	*request = SPAWN_REQUEST;
	request->envp = lua_env_vector(L, first + LUA_SPAWN_ENV, tag);
	request->argv = read_argv(L, first + LUA_SPAWN_ARGV);
	/* A program without a slash is looked for where the child itself would look. */
	if (strchr(request->argv[0], '/') == NULL)
		request->path = lua_env_find(request->envp, "PATH");
	request->cwd = plain_text(L, first, LUA_SPAWN_CWD);
	request->user = person_text(L, first, LUA_SPAWN_USER);
	request->group = person_text(L, first, LUA_SPAWN_GROUP);
	request->umask = (int)lua_spawn_number(L, first, LUA_SPAWN_UMASK, 0, 0777, -1);
	request->nice = (int)lua_spawn_number(L, first, LUA_SPAWN_NICE, -40, 40, 0);
	request->oom_score_adj = (int)lua_spawn_number(L, first, LUA_SPAWN_OOM_SCORE_ADJ, -1000,
						       1000, SPAWN_OOM_KEEP);
	request->outlive = !lua_spawn_flag(L, first, LUA_SPAWN_PDEATHSIG, true);
	request->no_new_privileges = !lua_spawn_flag(L, first, LUA_SPAWN_NEW_PRIVILEGES, true);
	request->plain = lua_spawn_flag(L, first, LUA_SPAWN_PLAIN, false);
	read_limits(L, first + LUA_SPAWN_RLIMITS, request);
	read_files(L, first + LUA_SPAWN_FDS, request);
}
