/* lua_cgroup.h -- what other doors need of worker.core.cgroup.  Floor 5.
 *
 * A group made by Lua is handed to worker.core.process as a handle; this finds the C side of it.
 */
#ifndef WORKER_LUA_CGROUP_H
#define WORKER_LUA_CGROUP_H

#include <lua.h>

struct cgroup;

/* lua_cgroup_test(L, index): the group of a handle, NULL when the value is no group, or a closed
 * one. */
struct cgroup *lua_cgroup_test(lua_State *L, int index);

#endif
