/* doors.c -- the list of all doors.  Floor 5.  See worker/doors.h. */
#include "worker/doors.h"

#include <stddef.h>

/* lua-cjson, linked in for code that people bring along; worker.json is the codec of the house. */
int luaopen_cjson(lua_State *L);

const luaL_Reg doors_list[] = {
	{"cjson", luaopen_cjson},
	{"worker.core.http", luaopen_worker_core_http},
	{"worker.core.listen", luaopen_worker_core_listen},
	{"worker.core.log", luaopen_worker_core_log},
	{"worker.core.sock", luaopen_worker_core_sock},
	{"worker.core.sys", luaopen_worker_core_sys},
	{"worker.core.task", luaopen_worker_core_task},
	{NULL, NULL},
};
