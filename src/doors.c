/* doors.c -- the list of all doors.  Floor 5.  See worker/doors.h. */
#include "worker/doors.h"

#include <stddef.h>

/* lua-cjson, linked in for code that people bring along; worker.json is the codec of the house. */
int luaopen_cjson(lua_State *L);

const luaL_Reg doors_list[] = {
	{"cjson", luaopen_cjson},
	{"worker.core.archive", luaopen_worker_core_archive},
	{"worker.core.json", luaopen_worker_core_json},
	{"worker.core.json_encode", luaopen_worker_core_json_encode},
	{"worker.core.cgroup", luaopen_worker_core_cgroup},
	{"worker.core.facts", luaopen_worker_core_facts},
	{"worker.core.guard", luaopen_worker_core_guard},
	{"worker.core.h2", luaopen_worker_core_h2},
	{"worker.core.http", luaopen_worker_core_http},
	{"worker.core.disk", luaopen_worker_core_disk},
	{"worker.core.file", luaopen_worker_core_file},
	{"worker.core.fs", luaopen_worker_core_fs},
	{"worker.core.journal", luaopen_worker_core_journal},
	{"worker.core.mask", luaopen_worker_core_mask},
	{"worker.core.listen", luaopen_worker_core_listen},
	{"worker.core.log", luaopen_worker_core_log},
	{"worker.core.orphans", luaopen_worker_core_orphans},
	{"worker.core.process", luaopen_worker_core_process},
	{"worker.core.sock", luaopen_worker_core_sock},
	{"worker.core.spool", luaopen_worker_core_spool},
	{"worker.core.out", luaopen_worker_core_out},
	{"worker.core.sys", luaopen_worker_core_sys},
	{"worker.core.text", luaopen_worker_core_text},
	{"worker.core.flow", luaopen_worker_core_flow},
	{"worker.core.task", luaopen_worker_core_task},
	{"worker.core.watch", luaopen_worker_core_watch},
	{"worker.core.yaml", luaopen_worker_core_yaml},
	{NULL, NULL},
};
