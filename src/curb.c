/* curb.c -- functions of Lua's library that would loop in C without end.  Floor 4.
 *
 * Each replacement keeps the original as its upvalue and calls it as a plain C function in its own
 * frame, so that messages name the line of Lua that called, as ever.
 */
#include "worker/curb.h"

#include <lauxlib.h>

/* More entries than fit below any ceiling of memory worth having. */
#define CURB_ENTRIES (1 << 26)

static int curb_original(lua_State *L)
{
	return lua_tocfunction(L, lua_upvalueindex(1))(L);
}

/* Nothing, however often, is nothing. */
static int curb_rep(lua_State *L)
{
	size_t text, between;
	luaL_checklstring(L, 1, &text);
	luaL_optlstring(L, 3, "", &between);
	if (text + between > 0)
		return curb_original(L);
	luaL_checkinteger(L, 2);
	lua_pushliteral(L, "");
	return 1;
}

/* Only __len can claim more entries than there are. */
static int curb_shift(lua_State *L)
{
	if (luaL_getmetafield(L, 1, "__len") != LUA_TNIL) {
		lua_pop(L, 1);
		luaL_argcheck(L, luaL_len(L, 1) <= CURB_ENTRIES, 1, "its __len is too large");
	}
	return curb_original(L);
}

static int curb_move(lua_State *L)
{
	lua_Integer first = luaL_checkinteger(L, 2);
	lua_Integer last = luaL_checkinteger(L, 3);
	luaL_argcheck(L, last < first || (lua_Unsigned)last - (lua_Unsigned)first <= CURB_ENTRIES,
		      3, "too many entries");
	return curb_original(L);
}

static void curb_replace(lua_State *L, const char *library, const char *name, lua_CFunction curbed)
{
	lua_getglobal(L, library);
	lua_getfield(L, -1, name);
	lua_pushcclosure(L, curbed, 1);
	lua_setfield(L, -2, name);
	lua_pop(L, 1);
}

void curb_install(lua_State *L)
{
	curb_replace(L, "string", "rep", curb_rep);
	curb_replace(L, "table", "insert", curb_shift);
	curb_replace(L, "table", "remove", curb_shift);
	curb_replace(L, "table", "move", curb_move);
}
