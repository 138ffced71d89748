/* lua_spawn.h -- a spawn request read from a Lua table.  Floor 5, for lua_process.c.
 *
 * The options are first laid out on the stack, each in a place of its own, and are read there:
 *
 *	int first = lua_spawn_lay(L, index, names);
 *	lua_spawn_request(L, first, tag, &request);
 *	... lua_spawn_flag(L, first, LUA_SPAWN_MERGE, false) ...
 *
 * The arrays of pointers are scratch memory on the stack of L, which holds the strings, too: the
 * request is good until the calling C function returns, parks or takes something off the stack,
 * which is long enough, since spawn_start copies everything.
 */
#ifndef WORKER_LUA_SPAWN_H
#define WORKER_LUA_SPAWN_H

#include <stdbool.h>
#include <stddef.h>

#include <lua.h>

#include "worker/spawn.h"

enum lua_spawn_option {
	LUA_SPAWN_ARGV,
	LUA_SPAWN_ENV,
	LUA_SPAWN_CWD,
	LUA_SPAWN_STDIN,
	LUA_SPAWN_MERGE,
	LUA_SPAWN_OUTPUT_LIMIT,
	LUA_SPAWN_RLIMITS,
	LUA_SPAWN_UMASK,
	LUA_SPAWN_USER,
	LUA_SPAWN_GROUP,
	LUA_SPAWN_NICE,
	LUA_SPAWN_OOM_SCORE_ADJ,
	LUA_SPAWN_PDEATHSIG,
	LUA_SPAWN_NEW_PRIVILEGES,
	LUA_SPAWN_CGROUP,
	LUA_SPAWN_FDS,
	LUA_SPAWN_PLAIN,
	LUA_SPAWN_OPTIONS,
};

/* lua_spawn_push_names(L): a table that maps each option's name to its number: made once, and given
 * to lua_spawn_lay as ${names}, an index. */
void lua_spawn_push_names(lua_State *L);

/* lua_spawn_lay(L, index, names): push a value for every option, from the table at ${index} or its
 * metatable, or nil; the index of the first.  Raises when there is something in it that is no
 * option. */
int lua_spawn_lay(lua_State *L, int index, int names);

/* lua_spawn_request(L, first, tag, request): fill ${request} from the options laid out from
 * ${first} on.  ${tag} is one more environment entry, or NULL.  Raises on what is missing or of a
 * wrong type, and on a NUL inside a string, which the kernel would take for its end.  Pushes values
 * that have to stay. */
void lua_spawn_request(lua_State *L, int first, const char *tag, struct spawn_request *request);

/* One option; what is of a wrong type or out of range raises "field 'x': expected ..., got ...".
 * lua_spawn_text: NULL where it is not given. */
const char *lua_spawn_text(lua_State *L, int first, enum lua_spawn_option option, size_t *length);
lua_Integer lua_spawn_number(lua_State *L, int first, enum lua_spawn_option option,
			     lua_Integer least, lua_Integer most, lua_Integer otherwise);
bool lua_spawn_flag(lua_State *L, int first, enum lua_spawn_option option, bool otherwise);

#endif
