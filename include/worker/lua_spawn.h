/* lua_spawn.h -- a spawn request read from a Lua table.  Floor 5, for lua_process.c.
 *
 * The arrays of pointers are scratch memory on the stack of L, the strings are the table's own: the
 * request is good until the calling C function returns or parks, which is long enough, since
 * spawn_start copies everything.
 */
#ifndef WORKER_LUA_SPAWN_H
#define WORKER_LUA_SPAWN_H

#include <lua.h>

#include "worker/spawn.h"

/* lua_spawn_request(L, index, tag, request): fill ${request} from the table at ${index}.  ${tag} is
 * one more environment entry, or NULL.  Raises on what is missing or of a wrong type, and on a NUL
 * inside a string, which the kernel would take for its end. Pushes a few values. */
void lua_spawn_request(lua_State *L, int index, const char *tag, struct spawn_request *request);

#endif
