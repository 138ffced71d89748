/* lua_env.h -- environments: tables of names and values.  Floor 5.
 *
 * Several of them make one: what comes later wins, and a value of false takes a name out.
 */
#ifndef WORKER_LUA_ENV_H
#define WORKER_LUA_ENV_H

#include <lua.h>

/* lua_env_merge(L): process.env: push one table made of the arguments, of which some may be nil. */
int lua_env_merge(lua_State *L);

/* lua_env_vector(L, index, extra): the environment at ${index} as execve takes it, sorted, and
 * ${extra} (or NULL) behind it: a table, a list of tables that make one, or nil.  Scratch memory on
 * the stack of L.  Raises on what no process can have. */
const char *const *lua_env_vector(lua_State *L, int index, const char *extra);

/* lua_env_find(vector, name): the value of a variable in there, or NULL. */
const char *lua_env_find(const char *const *vector, const char *name);

#endif
