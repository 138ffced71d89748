/* lua_archive.c -- worker.core.archive: tar files, in the helper thread.  Floor 5.
 *
 *	archive.unpack(path, dir, bytes, entries) -> entries
 *	archive.pack(path, root, names, bytes) -> bytes
 *
 * Both wait; a caller that is cancelled meanwhile leaves the thread to end at its next step.
 */
#include "worker/door.h"
#include "worker/doors.h"
#include "worker/lane.h"
#include "worker/pack.h"
#include "worker/unpack.h"

static lua_Integer most_at(lua_State *L, int index)
{
	lua_Integer most = luaL_checkinteger(L, index);
	luaL_argcheck(L, most >= 0, index, "negative");
	return most;
}

/* 1 goes on, 0 is the end, -1 the end with an error. */
static bool step_settle(struct lane_call *call, int result)
{
	call->result.failed = result == -1;
	return result == 1;
}

struct unpack_call {
	struct lane_call lane;
	struct unpack *unpack;
};

static bool unpack_run(struct lane_call *lane)
{
	struct unpack *unpack = ((struct unpack_call *)lane)->unpack;
	int result = unpack_step(unpack, &lane->result.err);
	lane->result.value = unpack_entries(unpack);
	return step_settle(lane, result);
}

static void unpack_end(struct lane_call *lane)
{
	unpack_close(((struct unpack_call *)lane)->unpack);
}

static const struct lane_type unpack_calls = {.run = unpack_run, .end = unpack_end};

static int archive_unpack(lua_State *L)
{
	const char *path = luaL_checkstring(L, 1);
	const char *dir = luaL_checkstring(L, 2);
	struct unpack_most most = {.bytes = most_at(L, 3), .entries = most_at(L, 4)};
	struct err err;
	struct unpack_call *call = lane_new(L, sizeof *call, &unpack_calls);
	call->unpack = unpack_open(path, dir, &most, &err);
	if (call->unpack == NULL)
		return lane_fail(L, &call->lane, &err);
	return lane_go(L, &call->lane);
}

struct pack_call {
	struct lane_call lane;
	struct pack *pack;
};

static bool pack_run(struct lane_call *lane)
{
	struct pack *pack = ((struct pack_call *)lane)->pack;
	int result = pack_step(pack, &lane->result.err);
	lane->result.value = pack_bytes(pack);
	return step_settle(lane, result);
}

static void pack_end(struct lane_call *lane)
{
	pack_close(((struct pack_call *)lane)->pack);
}

static const struct lane_type pack_calls = {.run = pack_run, .end = pack_end};

/* The names were checked to be strings: nothing raises here. */
static int add_names(lua_State *L, int index, struct pack *pack, struct err *err)
{
	int result = 0;
	for (lua_Integer i = 1; result == 0 && lua_rawgeti(L, index, i) == LUA_TSTRING; i++) {
		result = pack_add(pack, lua_tostring(L, -1), err);
		lua_pop(L, 1);
	}
	return result;
}

static int archive_pack(lua_State *L)
{
	const char *path = luaL_checkstring(L, 1);
	const char *root = luaL_checkstring(L, 2);
	luaL_checktype(L, 3, LUA_TTABLE);
	lua_Integer most = most_at(L, 4);
	luaL_checkstack(L, 4, "names");
	struct err err;
	struct pack_call *call = lane_new(L, sizeof *call, &pack_calls);
	call->pack = pack_open(path, root, most, &err);
	if (call->pack == NULL || add_names(L, 3, call->pack, &err) == -1)
		return lane_fail(L, &call->lane, &err);
	lua_settop(L, 5); /* what lane_new has put there stays */
	return lane_go(L, &call->lane);
}

static const luaL_Reg core_functions[] = {
	{"unpack", archive_unpack}, {"pack", archive_pack}, {NULL, NULL}};

int luaopen_worker_core_archive(lua_State *L)
{
	luaL_newlib(L, core_functions);
	return 1;
}
