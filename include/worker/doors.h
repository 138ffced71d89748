/* doors.h -- the list of all doors.  Floor 5.
 *
 * One line per door here and one in doors.c; main hands the list to the host.
 */
#ifndef WORKER_DOORS_H
#define WORKER_DOORS_H

#include <lauxlib.h>
#include <lua.h>

/* "worker.core.x" -> luaopen function; ends with {NULL, NULL}. */
extern const luaL_Reg doors_list[];

int luaopen_worker_core_archive(lua_State *L);
int luaopen_worker_core_guard(lua_State *L);
int luaopen_worker_core_h2(lua_State *L);
int luaopen_worker_core_http(lua_State *L);
int luaopen_worker_core_disk(lua_State *L);
int luaopen_worker_core_file(lua_State *L);
int luaopen_worker_core_fs(lua_State *L);
int luaopen_worker_core_spool(lua_State *L);
int luaopen_worker_core_watch(lua_State *L);
int luaopen_worker_core_journal(lua_State *L);
int luaopen_worker_core_flow(lua_State *L);
int luaopen_worker_core_json(lua_State *L);
int luaopen_worker_core_json_encode(lua_State *L);
int luaopen_worker_core_mask(lua_State *L);
int luaopen_worker_core_text(lua_State *L);
int luaopen_worker_core_listen(lua_State *L);
int luaopen_worker_core_cgroup(lua_State *L);
int luaopen_worker_core_facts(lua_State *L);
int luaopen_worker_core_log(lua_State *L);
int luaopen_worker_core_orphans(lua_State *L);
int luaopen_worker_core_process(lua_State *L);
int luaopen_worker_core_sock(lua_State *L);
int luaopen_worker_core_out(lua_State *L);
int luaopen_worker_core_sys(lua_State *L);
int luaopen_worker_core_task(lua_State *L);
int luaopen_worker_core_yaml(lua_State *L);

#endif
