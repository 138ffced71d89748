/* lua_spool.c -- worker.core.spool: the log bytes of one job on disk.  Floor 5.
 *
 *	spool.open(path [, {ceiling=, head=}]) -> handle
 *	handle:append(stream, text [, time]) -> offset [, error]   of the first byte; the error says
 *	                                      that the disk did not take it: a gap
 *	handle:read(offset) -> piece or nil   {offset=, next=, stream=, time=, text=}, or
 *	                                      {offset=, next=, gap=bytes, lines=}
 *	handle:ack(offset)                    what is before it is given back to the disk
 *	handle:stats() -> {start=, end=, acked=, disk=, dropped=}
 *	handle:close() handle:remove()
 *
 * Nothing here waits: chunks are small and go through the page cache.
 */
#include "worker/clock.h"
#include "worker/door.h"
#include "worker/doors.h"
#include "worker/host.h"
#include "worker/spool.h"

#define SPOOL_CEILING (INT64_C(64) << 20)

struct spool_box {
	struct spool *spool;
	struct host *host;
};

static const char *const stream_names[] = {"stdout", "stderr", "worker", NULL};
#define STREAMS 3

static void spool_box_close(lua_State *L, void *arg)
{
	struct spool_box *box = arg;
	(void)L;
	if (box->spool == NULL)
		return;
	spool_close(box->spool);
	box->spool = NULL;
	host_count(box->host, "spool", -1);
}

static const char *spool_box_state(const void *arg)
{
	return ((const struct spool_box *)arg)->spool ? "open" : "closed";
}

static const struct door_type spool_type;

static struct spool *to_spool(lua_State *L)
{
	struct spool_box *box = door_check(L, 1, &spool_type);
	if (box->spool == NULL)
		luaL_error(L, "this spool is closed");
	return box->spool;
}

static int spool_close_method(lua_State *L)
{
	spool_box_close(L, door_check(L, 1, &spool_type));
	return 0;
}

static int spool_remove_method(lua_State *L)
{
	struct spool_box *box = door_check(L, 1, &spool_type);
	if (box->spool == NULL)
		return 0;
	spool_remove(box->spool);
	box->spool = NULL;
	host_count(box->host, "spool", -1);
	return 0;
}

static int64_t to_wall(lua_State *L, int arg)
{
	if (lua_isnoneornil(L, arg))
		return clock_wall();
	lua_Number seconds = luaL_checknumber(L, arg);
	luaL_argcheck(L, seconds >= 0 && seconds < 9e9, arg, "not a time");
	return (int64_t)(seconds * (lua_Number)CLOCK_SECOND);
}

static int spool_append_method(lua_State *L)
{
	struct spool *spool = to_spool(L);
	int stream = luaL_checkoption(L, 2, "stdout", stream_names);
	size_t n;
	const char *text = luaL_checklstring(L, 3, &n);
	int64_t time = to_wall(L, 4);
	struct err err;
	bool failed = false;
	lua_pushinteger(L, (lua_Integer)spool_stats(spool).end);
	for (size_t at = 0; at < n; at += SPOOL_CHUNK) {
		size_t part = n - at < SPOOL_CHUNK ? n - at : SPOOL_CHUNK;
		if (spool_append(spool, stream, time, text + at, part, &err) == -1)
			failed = true;
	}
	if (!failed)
		return 1;
	door_push_error(L, "file", &err);
	return 2;
}

static void set_offset(lua_State *L, const char *key, uint64_t value)
{
	lua_pushinteger(L, (lua_Integer)value);
	lua_setfield(L, -2, key);
}

static void push_piece(lua_State *L, const struct spool_piece *piece, const char *room)
{
	lua_createtable(L, 0, 5);
	set_offset(L, "offset", piece->offset);
	set_offset(L, "next", piece->next);
	if (piece->gap) {
		set_offset(L, "gap", piece->next - piece->offset);
		set_offset(L, "lines", piece->lines);
		return;
	}
	lua_pushstring(L, stream_names[piece->stream % STREAMS]);
	lua_setfield(L, -2, "stream");
	lua_pushnumber(L, (lua_Number)piece->time / (lua_Number)CLOCK_SECOND);
	lua_setfield(L, -2, "time");
	lua_pushlstring(L, room, piece->size);
	lua_setfield(L, -2, "text");
}

/* One room for all spools of the state: it is used for the length of a call. */
static char *reading_room(lua_State *L)
{
	static const char key;
	if (lua_rawgetp(L, LUA_REGISTRYINDEX, &key) != LUA_TUSERDATA) {
		lua_newuserdatauv(L, SPOOL_CHUNK, 0);
		lua_pushvalue(L, -1);
		lua_rawsetp(L, LUA_REGISTRYINDEX, &key);
	}
	return lua_touserdata(L, -1);
}

static int spool_read_method(lua_State *L)
{
	struct spool *spool = to_spool(L);
	lua_Integer offset = luaL_checkinteger(L, 2);
	luaL_argcheck(L, offset >= 0, 2, "an offset is not negative");
	char *room = reading_room(L);
	struct spool_piece piece;
	struct err err;
	int found = spool_read(spool, (uint64_t)offset, room, &piece, &err);
	if (found == -1)
		return door_raise(L, "file", &err);
	if (found == 0)
		return 0;
	push_piece(L, &piece, room);
	return 1;
}

static int spool_ack_method(lua_State *L)
{
	struct spool *spool = to_spool(L);
	lua_Integer offset = luaL_checkinteger(L, 2);
	luaL_argcheck(L, offset >= 0, 2, "an offset is not negative");
	spool_ack(spool, (uint64_t)offset);
	return 0;
}

static int spool_stats_method(lua_State *L)
{
	struct spool_stats stats = spool_stats(to_spool(L));
	lua_createtable(L, 0, 5);
	set_offset(L, "start", stats.start);
	set_offset(L, "end", stats.end);
	set_offset(L, "acked", stats.acked);
	set_offset(L, "disk", stats.disk);
	set_offset(L, "dropped", stats.dropped);
	return 1;
}

static const luaL_Reg spool_methods[] = {
	{"append", spool_append_method},
	{"read", spool_read_method},
	{"ack", spool_ack_method},
	{"stats", spool_stats_method},
	{"close", spool_close_method},
	{"remove", spool_remove_method},
	{NULL, NULL},
};

static const struct door_type spool_type = {
	.name = "worker.spool",
	.methods = spool_methods,
	.close = spool_box_close,
	.state = spool_box_state,
};

static int core_open(lua_State *L)
{
	struct spool_options options = {.path = luaL_checkstring(L, 1)};
	struct err err;
	if (lua_isnoneornil(L, 2)) {
		lua_settop(L, 1);
		lua_newtable(L);
	}
	luaL_checktype(L, 2, LUA_TTABLE);
	options.ceiling = (uint64_t)door_integer(L, 2, "ceiling", INT64_C(2) << 20,
						 INT64_C(1) << 50, SPOOL_CEILING);
	options.head = (uint64_t)door_integer(L, 2, "head", 0, INT64_C(1) << 50,
					      (lua_Integer)options.ceiling / 4);
	struct spool_box *box = door_box(L, &spool_type, sizeof *box);
	box->host = host_of(L);
	box->spool = spool_open(&options, &err);
	if (box->spool == NULL)
		return door_raise(L, "file", &err);
	host_count(box->host, "spool", +1);
	return 1;
}

static const luaL_Reg core_functions[] = {
	{"open", core_open},
	{NULL, NULL},
};

int luaopen_worker_core_spool(lua_State *L)
{
	luaL_newlib(L, core_functions);
	return 1;
}
