/* lua_env.c -- environments: tables of names and values.  Floor 5.  See worker/lua_env.h.
 *
 * A table is walked once: its variables are laid out on the stack, name, value, name, value, where
 * they can be counted and measured, and where nothing changes them any more, whatever else Lua is
 * asked for meanwhile (a value may have a __tostring).
 */
#include "worker/lua_env.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "worker/door.h"

static void env_lay(lua_State *L, int table)
{
	for (lua_pushnil(L); lua_next(L, table); lua_pushvalue(L, -2))
		luaL_checkstack(L, 4, "too many variables");
}

/* --- a table --- */

int lua_env_merge(lua_State *L)
{
	int given = lua_gettop(L);
	for (int i = 1; i <= given; i++) {
		if (lua_isnil(L, i))
			continue;
		luaL_checktype(L, i, LUA_TTABLE);
		env_lay(L, i);
	}
	int last = lua_gettop(L);
	luaL_checkstack(L, 3, "too many variables");
	lua_createtable(L, 0, (last - given) / 2);
	for (int at = given + 1; at < last; at += 2) {
		lua_pushvalue(L, at);
		if (lua_toboolean(L, at + 1))
			lua_pushvalue(L, at + 1);
		else
			lua_pushnil(L);
		lua_rawset(L, last + 1);
	}
	return 1;
}

/* --- a vector --- */

static void env_expect_table(lua_State *L, int index)
{
	if (lua_type(L, index) != LUA_TTABLE)
		luaL_error(L, "field 'env': expected a table, got %s", luaL_typename(L, index));
}

/* Whether it is a list: no variable is called 1. */
static bool env_is_list(lua_State *L, int index)
{
	bool is = lua_rawgeti(L, index, 1) == LUA_TTABLE;
	lua_pop(L, 1);
	return is;
}

/* One table of a list after the other has its place at ${place}. */
static void env_lay_list(lua_State *L, int index, int place)
{
	int count = (int)lua_rawlen(L, index);
	for (int i = 1; i <= count; i++) {
		lua_rawgeti(L, index, i);
		lua_replace(L, place);
		env_expect_table(L, place);
		env_lay(L, place);
	}
}

static void refuse_name(lua_State *L, int at)
{
	luaL_error(L, "process.spawn: env: '%s' cannot name a variable",
		   luaL_tolstring(L, at, NULL));
}

/* How many bytes the variable at ${at} takes, whose value is a string from now on, or false. */
static size_t variable_size(lua_State *L, int at, bool listed)
{
	int type = lua_type(L, at + 1);
	if (lua_type(L, at) != LUA_TSTRING)
		refuse_name(L, at);
	if (type != LUA_TSTRING && !(listed && type == LUA_TBOOLEAN && !lua_toboolean(L, at + 1))) {
		luaL_tolstring(L, at + 1, NULL);
		lua_replace(L, at + 1);
	}
	return lua_rawlen(L, at) + 1 + lua_rawlen(L, at + 1) + 1;
}

/* What takes a name out is the name alone. */
static char *variable_write(lua_State *L, int at, char *to)
{
	size_t name_size, size;
	const char *name = lua_tolstring(L, at, &name_size);
	const char *value = lua_tolstring(L, at + 1, &size);
	if (name_size == 0 || strcspn(name, "=") != name_size)
		refuse_name(L, at);
	if (value != NULL && strlen(value) != size)
		luaL_error(L, "the variable %s holds a NUL byte, which no program can be given",
			   name);
	to = mempcpy(to, name, name_size);
	*to++ = value != NULL ? '=' : '\0';
	return value != NULL ? mempcpy(to, value, size + 1) : to;
}

static int name_end(char c)
{
	return c == '\0' ? '=' : (unsigned char)c;
}

static int name_compare(const char *left, const char *right)
{
	while (*left == *right && *left != '=' && *left != '\0')
		left++, right++;
	return name_end(*left) - name_end(*right);
}

/* Their texts lie in the order in which they were given. */
static int variable_compare(const void *left, const void *right)
{
	const char *one = *(const char *const *)left, *other = *(const char *const *)right;
	int order = name_compare(one, other);
	return order != 0 ? order : (one > other) - (one < other);
}

/* The last of each name stays, if it does not take the name out. */
static size_t vector_settle(const char **vector, size_t count)
{
	size_t kept = 0;
	qsort(vector, count, sizeof *vector, variable_compare);
	for (size_t i = 0; i < count; i++) {
		bool last = i + 1 == count || name_compare(vector[i], vector[i + 1]) != 0;
		if (last && strchr(vector[i], '=') != NULL)
			vector[kept++] = vector[i];
	}
	return kept;
}

/* The vector of what is laid out from ${first} on, with room for two more, and the texts behind. */
static const char **vector_write(lua_State *L, int first, size_t count, bool listed)
{
	int end = first + 2 * (int)count;
	size_t bytes = 0;
	for (int at = first; at < end; at += 2)
		bytes += variable_size(L, at, listed);
	const char **vector = door_scratch(L, (count + 2) * sizeof *vector + bytes),
		   **next = vector;
	char *text = (char *)(vector + count + 2);
	for (int at = first; at < end; at += 2) {
		*next++ = text;
		text = variable_write(L, at, text);
	}
	return vector;
}

/* Sorted: the same environment is the same bytes every time. */
const char *const *lua_env_vector(lua_State *L, int index, const char *extra)
{
	int place = lua_gettop(L) + 1;
	bool listed = false;
	lua_pushnil(L);
	if (!lua_isnil(L, index)) {
		env_expect_table(L, index);
		listed = env_is_list(L, index);
		if (listed)
			env_lay_list(L, index, place);
		else
			env_lay(L, index);
	}
	size_t count = (size_t)(lua_gettop(L) - place) / 2;
	luaL_checkstack(L, LUA_MINSTACK, "too many variables");
	const char **vector = vector_write(L, place + 1, count, listed);
	count = vector_settle(vector, count);
	vector[count] = extra;
	vector[count + 1] = NULL;
	lua_replace(L, place);
	lua_settop(L, place);
	return vector;
}

const char *lua_env_find(const char *const *vector, const char *name)
{
	size_t size = strlen(name);
	for (; *vector != NULL; vector++)
		if (strncmp(*vector, name, size) == 0 && (*vector)[size] == '=')
			return *vector + size + 1;
	return NULL;
}
