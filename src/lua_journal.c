/* lua_journal.c -- worker.core.journal: the record of claims and results.  Floor 5.
 *
 *	journal.open(path [, {max_bytes=, compact_bytes=, max_records=}]) -> handle, report
 *	journal.crc(text) -> sum, plain sum    the same number twice
 *	handle:put(key, kind, payload [, lazy])   waits until it is on the disk (lazy: written,
 *						  mostly without waiting)
 *	handle:drop(key [, lazy])                 likewise
 *	handle:get(key, kind) -> payload or nil
 *	handle:list() -> {{key=, kind=, size=}, ...} in the order they were written
 *	handle:stats() -> numbers              handle:close()
 *
 * A record's strings are the arguments of the call, which the parked task keeps on its stack; so
 * nothing is copied before the batch is made.
 */
#include "worker/clock.h"
#include "worker/crc.h"
#include "worker/door.h"
#include "worker/doors.h"
#include "worker/host.h"
#include "worker/journal.h"
#include "worker/journal_index.h"
#include "worker/task.h"

#define JOURNAL_MAX_BYTES     (INT64_C(256) << 20)
#define JOURNAL_COMPACT_BYTES (INT64_C(1) << 20)
#define JOURNAL_MAX_RECORDS   65536

struct journal_box {
	struct journal *journal;
	struct host *host;
};

/* One put or drop under way; a scratch on the task's stack. */
struct journal_call {
	struct journal_op op;
	struct host *host;
	struct task_token token;
	bool failed;
	struct err err;
};

static void journal_box_close(lua_State *L, void *arg)
{
	struct journal_box *box = arg;
	struct journal *journal = box->journal;
	(void)L;
	if (journal == NULL)
		return;
	box->journal = NULL;
	host_count(box->host, "journal", -1);
	journal_close(journal);
}

static const char *journal_box_state(const void *arg)
{
	return ((const struct journal_box *)arg)->journal ? "open" : "closed";
}

static const struct door_type journal_type;

static struct journal *to_journal(lua_State *L)
{
	struct journal_box *box = door_check(L, 1, &journal_type);
	if (box->journal == NULL)
		luaL_error(L, "this journal is closed");
	return box->journal;
}

static int journal_close_method(lua_State *L)
{
	journal_box_close(L, door_check(L, 1, &journal_type));
	return 0;
}

/* --- writing --- */

static int call_push(lua_State *co, void *op)
{
	const struct journal_call *call = op;
	return call->failed ? door_raise(co, "file", &call->err) : 0;
}

static void call_done(void *arg, const struct err *failure)
{
	struct journal_call *call = arg;
	call->failed = failure != NULL;
	if (failure != NULL)
		call->err = *failure;
	task_wake(call->host, call->token, call_push, call);
}

static void call_abort(void *op)
{
	journal_cancel(&((struct journal_call *)op)->op);
}

/* Where it need not wait, which is usual for a lazy one, nothing of it is kept. */
static int submit(lua_State *L, const struct journal_file_record *record, bool lazy)
{
	struct journal *journal = to_journal(L);
	struct err err;
	int written = lazy ? journal_write(journal, record, &err) : 0;
	if (written == -1)
		return door_raise(L, "file", &err);
	if (written == 1)
		return 0;
	struct journal_call *call = door_scratch(L, sizeof *call);
	call->host = host_of(L);
	call->token = task_token(L);
	call->op.record = *record;
	call->op.lazy = lazy;
	call->op.done = call_done;
	call->op.arg = call;
	if (journal_submit(journal, &call->op, &call->err) == -1)
		return door_raise(L, "limit", &call->err);
	return task_park(L, call->token, call_abort, call);
}

static int journal_put(lua_State *L)
{
	struct journal_file_record record = {.op = JOURNAL_FILE_PUT};
	record.key = luaL_checklstring(L, 2, &record.key_length);
	record.kind = luaL_checklstring(L, 3, &record.kind_length);
	record.payload = luaL_checklstring(L, 4, &record.payload_length);
	return submit(L, &record, lua_toboolean(L, 5));
}

static int journal_drop(lua_State *L)
{
	struct journal_file_record record = {.op = JOURNAL_FILE_DROP, .kind = "", .payload = ""};
	record.key = luaL_checklstring(L, 2, &record.key_length);
	return submit(L, &record, lua_toboolean(L, 3));
}

/* --- reading --- */

static int journal_get(lua_State *L)
{
	struct journal *journal = to_journal(L);
	size_t key_length, kind_length;
	const char *key = luaL_checklstring(L, 2, &key_length);
	const char *kind = luaL_checklstring(L, 3, &kind_length);
	const struct journal_entry *entry =
		journal_find(journal, kind, kind_length, key, key_length);
	if (entry == NULL)
		return 0;
	struct err err;
	char *room = lua_newuserdatauv(L, (size_t)journal_entry_size(entry), 0);
	const char *payload = journal_read(journal, entry, room, &err);
	if (payload == NULL)
		return door_raise(L, "file", &err);
	lua_pushlstring(L, payload, entry->payload_length);
	return 1;
}

static void push_entry(lua_State *L, const struct journal_entry *entry)
{
	lua_createtable(L, 0, 3);
	lua_pushlstring(L, journal_entry_key(entry), entry->key_length);
	lua_setfield(L, -2, "key");
	lua_pushlstring(L, journal_entry_kind(entry), entry->kind_length);
	lua_setfield(L, -2, "kind");
	lua_pushinteger(L, entry->payload_length);
	lua_setfield(L, -2, "size");
}

static int journal_list(lua_State *L)
{
	struct journal *journal = to_journal(L);
	lua_Integer at = 0;
	lua_newtable(L);
	for (const struct journal_entry *entry = journal_first(journal); entry != NULL;
	     entry = journal_next(journal, entry)) {
		push_entry(L, entry);
		lua_rawseti(L, -2, ++at);
	}
	return 1;
}

static void set_integer(lua_State *L, const char *key, uint64_t value)
{
	lua_pushinteger(L, (lua_Integer)value);
	lua_setfield(L, -2, key);
}

static void set_seconds(lua_State *L, const char *key, int64_t ns)
{
	lua_pushnumber(L, (lua_Number)ns / (lua_Number)CLOCK_SECOND);
	lua_setfield(L, -2, key);
}

static int journal_stats_method(lua_State *L)
{
	struct journal_stats stats = journal_stats(to_journal(L));
	lua_createtable(L, 0, 10);
	set_integer(L, "records", stats.records);
	set_integer(L, "queued", stats.queued);
	set_integer(L, "file_bytes", stats.file_bytes);
	set_integer(L, "live_bytes", stats.live_bytes);
	set_integer(L, "written", stats.written);
	set_integer(L, "failed", stats.failed);
	set_integer(L, "syncs", stats.syncs);
	set_integer(L, "compactions", stats.compactions);
	set_seconds(L, "sync_seconds", stats.sync_ns);
	set_seconds(L, "sync_max_seconds", stats.sync_max_ns);
	return 1;
}

static const luaL_Reg journal_methods[] = {
	{"put", journal_put},	{"drop", journal_drop},		 {"get", journal_get},
	{"list", journal_list}, {"stats", journal_stats_method}, {"close", journal_close_method},
	{NULL, NULL},
};

static const struct door_type journal_type = {
	.name = "worker.journal",
	.methods = journal_methods,
	.close = journal_box_close,
	.state = journal_box_state,
};

/* --- the module --- */

static void push_report(lua_State *L, const struct journal_report *report)
{
	const struct journal_file_scan *scan = &report->scan;
	lua_createtable(L, 0, 5);
	set_integer(L, "records", report->records);
	set_integer(L, "cut", scan->cut);
	set_integer(L, "damaged", scan->damaged);
	set_integer(L, "damaged_bytes", scan->damaged_bytes);
	set_integer(L, "damaged_at", scan->damaged_at);
}

static int core_open(lua_State *L)
{
	struct journal_options options = {.path = luaL_checkstring(L, 1)};
	struct journal_report report;
	struct err err;
	if (lua_isnoneornil(L, 2)) {
		lua_settop(L, 1);
		lua_newtable(L);
	}
	luaL_checktype(L, 2, LUA_TTABLE);
	options.max_bytes = (uint64_t)door_integer(L, 2, "max_bytes", 4096, INT64_C(1) << 40,
						   JOURNAL_MAX_BYTES);
	options.compact_bytes = (uint64_t)door_integer(L, 2, "compact_bytes", 0, INT64_C(1) << 40,
						       JOURNAL_COMPACT_BYTES);
	options.max_records =
		(size_t)door_integer(L, 2, "max_records", 1, 1 << 24, JOURNAL_MAX_RECORDS);
	struct journal_box *box = door_box(L, &journal_type, sizeof *box);
	box->host = host_of(L);
	box->journal = journal_open(host_loop(L), &options, &report, &err);
	if (box->journal == NULL)
		return door_raise(L, "file", &err);
	host_count(box->host, "journal", +1);
	push_report(L, &report);
	return 2;
}

static int core_crc(lua_State *L)
{
	size_t n;
	const char *text = luaL_checklstring(L, 1, &n);
	lua_pushinteger(L, crc_update(0, text, n));
	lua_pushinteger(L, crc_plain(0, text, n));
	return 2;
}

static const luaL_Reg core_functions[] = {
	{"open", core_open},
	{"crc", core_crc},
	{NULL, NULL},
};

int luaopen_worker_core_journal(lua_State *L)
{
	luaL_newlib(L, core_functions);
	return 1;
}
