/* door.c -- what every door (F5) needs: handles, options, errors.  Floor 4.  See worker/door.h.
 *
 * A handle type is known by the address of its struct door_type: the registry maps that address to
 * the metatable, which is made at first use, and the metatable holds it as its first item.  A light
 * C closure over the type's address serves as __gc, __close and __tostring of every type.
 */
#include "worker/door.h"

#include <math.h>
#include <string.h>

#include "worker/clock.h"

#define DOOR_LONGEST (366.0 * 86400.0)

/* --- handles --- */

static const struct door_type *door_type_of(lua_State *L)
{
	return lua_touserdata(L, lua_upvalueindex(1));
}

static int door_gc(lua_State *L)
{
	const struct door_type *type = door_type_of(L);
	void *box = door_test(L, 1, type);
	if (box != NULL)
		type->close(L, box);
	return 0;
}

static int door_tostring(lua_State *L)
{
	const struct door_type *type = door_type_of(L);
	const void *box = door_check(L, 1, type);
	if (type->state != NULL)
		lua_pushfstring(L, "%s (%s)", type->name, type->state(box));
	else
		lua_pushfstring(L, "%s (%p)", type->name, box);
	return 1;
}

static void door_set_closure(lua_State *L, const char *key, lua_CFunction fn,
			     const struct door_type *type)
{
	lua_pushlightuserdata(L, (void *)(uintptr_t)type);
	lua_pushcclosure(L, fn, 1);
	lua_setfield(L, -2, key);
}

static void door_metatable(lua_State *L, const struct door_type *type)
{
	if (lua_rawgetp(L, LUA_REGISTRYINDEX, type) == LUA_TTABLE)
		return;
	lua_pop(L, 1);
	lua_createtable(L, 1, 6);
	lua_pushlightuserdata(L, (void *)(uintptr_t)type);
	lua_rawseti(L, -2, 1);
	lua_pushstring(L, type->name);
	lua_setfield(L, -2, "__name");
	lua_pushboolean(L, 0);
	lua_setfield(L, -2, "__metatable");
	door_set_closure(L, "__tostring", door_tostring, type);
	if (type->close != NULL) {
		door_set_closure(L, "__gc", door_gc, type);
		door_set_closure(L, "__close", door_gc, type);
	}
	lua_newtable(L);
	if (type->methods != NULL)
		luaL_setfuncs(L, type->methods, 0);
	lua_setfield(L, -2, "__index");
	lua_pushvalue(L, -1);
	lua_rawsetp(L, LUA_REGISTRYINDEX, type);
}

void *door_box_with(lua_State *L, const struct door_type *type, size_t size, int values)
{
	void *box = lua_newuserdatauv(L, size, values);
	memset(box, 0, size);
	door_metatable(L, type);
	lua_setmetatable(L, -2);
	return box;
}

void *door_box(lua_State *L, const struct door_type *type, size_t size)
{
	return door_box_with(L, type, size, 0);
}

void *door_test(lua_State *L, int index, const struct door_type *type)
{
	void *box = lua_touserdata(L, index);
	if (box == NULL || !lua_getmetatable(L, index))
		return NULL;
	bool same = lua_rawgeti(L, -1, 1) == LUA_TLIGHTUSERDATA && lua_touserdata(L, -1) == type;
	lua_pop(L, 2);
	return same ? box : NULL;
}

void *door_check(lua_State *L, int index, const struct door_type *type)
{
	void *box = door_test(L, index, type);
	if (box == NULL)
		luaL_typeerror(L, index, type->name);
	return box;
}

void *door_scratch(lua_State *L, size_t size)
{
	return memset(lua_newuserdatauv(L, size, 0), 0, size);
}

/* --- errors --- */

static int door_error_tostring(lua_State *L)
{
	if (lua_type(L, 1) != LUA_TTABLE || lua_getfield(L, 1, "message") != LUA_TSTRING)
		lua_pushliteral(L, "error without a message");
	return 1;
}

void door_push_error(lua_State *L, const char *kind, const struct err *err)
{
	lua_createtable(L, 0, 4);
	lua_pushstring(L, kind);
	lua_setfield(L, -2, "kind");
	lua_pushstring(L, err->text);
	lua_setfield(L, -2, "message");
	if (err->code != 0) {
		lua_pushinteger(L, err->code);
		lua_setfield(L, -2, "code");
		lua_pushstring(L, strerrorname_np(err->code));
		lua_setfield(L, -2, "name");
	}
	if (luaL_newmetatable(L, "worker.error")) {
		lua_pushcfunction(L, door_error_tostring);
		lua_setfield(L, -2, "__tostring");
	}
	lua_setmetatable(L, -2);
}

bool door_is_error(lua_State *L, int index, const char *kind)
{
	if (lua_type(L, index) != LUA_TTABLE || !lua_getmetatable(L, index))
		return false;
	luaL_getmetatable(L, "worker.error");
	bool is = lua_rawequal(L, -1, -2);
	lua_pop(L, 2);
	if (!is)
		return false;
	index = lua_absindex(L, index);
	lua_pushliteral(L, "kind");
	lua_rawget(L, index);
	is = kind == NULL ||
	     (lua_type(L, -1) == LUA_TSTRING && strcmp(lua_tostring(L, -1), kind) == 0);
	lua_pop(L, 1);
	return is;
}

int door_raise(lua_State *L, const char *kind, const struct err *err)
{
	door_push_error(L, kind, err);
	return lua_error(L);
}

/* --- option tables --- */

static int door_mismatch(lua_State *L, const char *key, const char *expected)
{
	return luaL_error(L, "field '%s': expected %s, got %s", key, expected,
			  luaL_tolstring(L, -1, NULL));
}

const char *door_string(lua_State *L, int index, const char *key, size_t *length,
			const char *otherwise)
{
	const char *text = otherwise;
	int type = lua_getfield(L, index, key);
	if (type == LUA_TSTRING)
		text = lua_tolstring(L, -1, length);
	else if (type != LUA_TNIL)
		door_mismatch(L, key, "a string");
	else if (length != NULL)
		*length = otherwise ? strlen(otherwise) : 0;
	lua_pop(L, 1);
	return text;
}

lua_Number door_number(lua_State *L, int index, const char *key, lua_Number least, lua_Number most,
		       lua_Number otherwise)
{
	lua_Number number = otherwise;
	int type = lua_getfield(L, index, key);
	if (type == LUA_TNUMBER)
		number = lua_tonumber(L, -1);
	else if (type != LUA_TNIL)
		door_mismatch(L, key, "a number");
	if (type == LUA_TNUMBER && !(number >= least && number <= most))
		luaL_error(L, "field '%s': %f is not between %f and %f", key, number, least, most);
	lua_pop(L, 1);
	return number;
}

lua_Integer door_integer(lua_State *L, int index, const char *key, lua_Integer least,
			 lua_Integer most, lua_Integer otherwise)
{
	int whole = 0;
	lua_Integer number = otherwise;
	int type = lua_getfield(L, index, key);
	if (type == LUA_TNUMBER)
		number = lua_tointegerx(L, -1, &whole);
	if (type != LUA_TNIL && !whole)
		door_mismatch(L, key, "a whole number");
	if (type != LUA_TNIL && (number < least || number > most))
		luaL_error(L, "field '%s': %I is not between %I and %I", key, number, least, most);
	lua_pop(L, 1);
	return number;
}

bool door_bool(lua_State *L, int index, const char *key, bool otherwise)
{
	bool flag = otherwise;
	int type = lua_getfield(L, index, key);
	if (type == LUA_TBOOLEAN)
		flag = lua_toboolean(L, -1);
	else if (type != LUA_TNIL)
		door_mismatch(L, key, "true or false");
	lua_pop(L, 1);
	return flag;
}

int64_t door_seconds(lua_State *L, int index, const char *key, int64_t otherwise)
{
	lua_Number seconds = door_number(L, index, key, 0, DOOR_LONGEST, -1);
	return seconds < 0 ? otherwise : (int64_t)(seconds * (lua_Number)CLOCK_SECOND);
}

int64_t door_nanos(lua_State *L, int arg)
{
	lua_Number seconds = luaL_checknumber(L, arg);
	luaL_argcheck(L, seconds >= 0, arg, "a time must not be negative");
	if (seconds > DOOR_LONGEST)
		seconds = DOOR_LONGEST;
	return (int64_t)(seconds * (lua_Number)CLOCK_SECOND);
}
