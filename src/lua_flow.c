/* lua_flow.c -- worker.core.flow: text for Lua that comes in chunks.  Floor 5.
 *
 *	flow.mender(), flow.stripper(), flow.folder(most) -> handle
 *	handle:feed(chunk) -> text, handle:finish() -> text
 *	flow.lines(most) -> handle
 *	handle:feed(chunk) -> lines, cut;  handle:finish() -> lines, cut
 *	flow.head_tail(head, tail) -> handle
 *	handle:add(chunk), handle:text() -> text, handle:dropped() -> bytes, lines, handle:bytes()
 *	flow.sha256() -> handle;  handle:feed(chunk), handle:finish() -> 32 bytes
 *
 * Each handle owns the buffer its results are gathered in, so a raise in between leaks nothing.
 */
#include <errno.h>
#include <string.h>

#include "worker/buf.h"
#include "worker/door.h"
#include "worker/doors.h"
#include "worker/sha256.h"
#include "worker/text.h"
#include "worker/utf8.h"

#define FLOW_MOST ((lua_Integer)64 * 1024 * 1024)
#define OUT_KEEP  ((size_t)64 * 1024)

struct flow {
	struct buf out;
	bool open;
	union {
		struct utf8_mender mender;
		struct text_ansi ansi;
		struct text_fold fold;
		struct text_keep keep;
		struct buf line; /* the beginning of a line whose end has not come */
		struct sha256 sha;
	} of;
};

static int raise_errno(lua_State *L, const char *doing)
{
	struct err err;
	err_errno(&err, "%s", doing);
	return door_raise(L, "limit", &err);
}

static struct flow *flow_new(lua_State *L, const struct door_type *type)
{
	struct flow *flow = door_box(L, type, sizeof *flow);
	buf_init(&flow->out, SIZE_MAX / 2);
	flow->open = true;
	return flow;
}

static void flow_close(lua_State *L, void *box)
{
	(void)L;
	struct flow *flow = box;
	buf_free(&flow->out);
	flow->open = false;
}

static struct flow *flow_check(lua_State *L, const struct door_type *type)
{
	struct flow *flow = door_check(L, 1, type);
	if (!flow->open)
		luaL_error(L, "this %s is closed", type->name);
	flow->out.head = flow->out.tail = 0;
	return flow;
}

static int push_out(lua_State *L, struct flow *flow)
{
	lua_pushlstring(L, buf_head(&flow->out), buf_size(&flow->out));
	if (flow->out.room > OUT_KEEP)
		buf_free(&flow->out);
	return 1;
}

static size_t check_most(lua_State *L, int arg)
{
	lua_Integer most = luaL_checkinteger(L, arg);
	luaL_argcheck(L, most >= 0 && most <= FLOW_MOST, arg, "0 to 64 MiB");
	return (size_t)most;
}

static const char *flow_state(const void *box)
{
	return ((const struct flow *)box)->open ? "open" : "closed";
}

/* --- repairing UTF-8 --- */

static int mender_feed(lua_State *L);
static int mender_finish(lua_State *L);
static const luaL_Reg mender_methods[] = {
	{"feed", mender_feed}, {"finish", mender_finish}, {NULL, NULL}};
static const struct door_type mender_type = {.name = "worker.text.repairer",
					     .methods = mender_methods,
					     .close = flow_close,
					     .state = flow_state};

static int core_mender(lua_State *L)
{
	flow_new(L, &mender_type);
	return 1;
}

static int mender_feed(lua_State *L)
{
	size_t n;
	struct flow *flow = flow_check(L, &mender_type);
	const char *s = luaL_checklstring(L, 2, &n);
	if (flow->of.mender.count == 0 && utf8_valid(s, n) == n) {
		lua_settop(L, 2);
		return 1;
	}
	if (utf8_mend(&flow->of.mender, &flow->out, s, n) == -1)
		return raise_errno(L, "repairing UTF-8");
	return push_out(L, flow);
}

static int mender_finish(lua_State *L)
{
	struct flow *flow = flow_check(L, &mender_type);
	if (utf8_mend_end(&flow->of.mender, &flow->out) == -1)
		return raise_errno(L, "repairing UTF-8");
	return push_out(L, flow);
}

/* --- without terminal escapes --- */

static int stripper_feed(lua_State *L);
static int stripper_finish(lua_State *L);
static const luaL_Reg stripper_methods[] = {
	{"feed", stripper_feed}, {"finish", stripper_finish}, {NULL, NULL}};
static const struct door_type stripper_type = {.name = "worker.text.stripper",
					       .methods = stripper_methods,
					       .close = flow_close,
					       .state = flow_state};

static int core_stripper(lua_State *L)
{
	flow_new(L, &stripper_type);
	return 1;
}

static int stripper_feed(lua_State *L)
{
	size_t n;
	struct flow *flow = flow_check(L, &stripper_type);
	const char *s = luaL_checklstring(L, 2, &n);
	if (flow->of.ansi.state == 0 && memchr(s, 0x1b, n) == NULL) {
		lua_settop(L, 2);
		return 1;
	}
	char *to = buf_reserve(&flow->out, n);
	if (to == NULL)
		return raise_errno(L, "stripping escapes");
	buf_commit(&flow->out, text_plain(&flow->of.ansi, to, s, n));
	return push_out(L, flow);
}

/* An escape that never ended was none of the text. */
static int stripper_finish(lua_State *L)
{
	flow_check(L, &stripper_type)->of.ansi.state = 0;
	lua_pushliteral(L, "");
	return 1;
}

/* --- folding lines that overwrite themselves --- */

static int folder_feed(lua_State *L);
static int folder_finish(lua_State *L);
static const luaL_Reg folder_methods[] = {
	{"feed", folder_feed}, {"finish", folder_finish}, {NULL, NULL}};

static void folder_close(lua_State *L, void *box)
{
	text_fold_free(&((struct flow *)box)->of.fold);
	flow_close(L, box);
}

static const struct door_type folder_type = {.name = "worker.text.folder",
					     .methods = folder_methods,
					     .close = folder_close,
					     .state = flow_state};

static int core_folder(lua_State *L)
{
	size_t most = check_most(L, 1);
	text_fold_init(&flow_new(L, &folder_type)->of.fold, most);
	return 1;
}

static int folder_feed(lua_State *L)
{
	size_t n;
	struct flow *flow = flow_check(L, &folder_type);
	const char *s = luaL_checklstring(L, 2, &n);
	if (text_fold(&flow->of.fold, &flow->out, s, n) == -1)
		return raise_errno(L, "folding lines");
	return push_out(L, flow);
}

static int folder_finish(lua_State *L)
{
	struct flow *flow = flow_check(L, &folder_type);
	if (text_fold_end(&flow->of.fold, &flow->out) == -1)
		return raise_errno(L, "folding lines");
	return push_out(L, flow);
}

/* --- lines --- */

/* A held line may be longer than the limit by a character that has not all come yet. */
#define LINE_SLACK 3

static int lines_feed(lua_State *L);
static int lines_finish(lua_State *L);
static const luaL_Reg lines_methods[] = {
	{"feed", lines_feed}, {"finish", lines_finish}, {NULL, NULL}};

static void lines_close(lua_State *L, void *box)
{
	buf_free(&((struct flow *)box)->of.line);
	flow_close(L, box);
}

static const struct door_type lines_type = {.name = "worker.text.lines",
					    .methods = lines_methods,
					    .close = lines_close,
					    .state = flow_state};

static int core_lines(lua_State *L)
{
	size_t most = check_most(L, 1);
	luaL_argcheck(L, most >= 4, 1, "a character must fit into a line");
	buf_init(&flow_new(L, &lines_type)->of.line, most + LINE_SLACK);
	return 1;
}

static size_t lines_most(const struct flow *flow)
{
	return flow->of.line.ceiling - LINE_SLACK;
}

/* The list at stack index 3; the set of pieces that are cut off at index 4, once there is one. */
struct list {
	lua_State *L;
	lua_Integer count;
};

static void list_add(struct list *list, const char *s, size_t n, bool cut)
{
	lua_pushlstring(list->L, s, n);
	lua_rawseti(list->L, 3, ++list->count);
	if (!cut)
		return;
	if (lua_isnil(list->L, 4)) {
		lua_newtable(list->L);
		lua_replace(list->L, 4);
	}
	lua_pushboolean(list->L, 1);
	lua_rawseti(list->L, 4, list->count);
}

/* Add the pieces of a line that is too long; what is left of it. */
static const char *list_add_long(struct list *list, const char *s, const char *end, size_t most)
{
	while ((size_t)(end - s) > most) {
		size_t piece = utf8_floor(s, (size_t)(end - s), most);
		list_add(list, s, piece, true);
		s += piece;
	}
	return s;
}

static void list_add_line(struct list *list, const char *s, const char *end, size_t most)
{
	if (end > s && end[-1] == '\r')
		end--;
	s = list_add_long(list, s, end, most);
	list_add(list, s, (size_t)(end - s), false);
}

/* The same for a line whose end has not come: nor may all of its last character. */
static const char *list_add_begun(struct list *list, const char *s, const char *end, size_t most)
{
	return list_add_long(list, s, end - utf8_partial(s, (size_t)(end - s)), most);
}

/* Bring the held beginning of a line together with what follows it; true when the chunk was used
 * up. The joined line is gathered in the handle's buffer, whose ceiling is none. */
static bool lines_join(lua_State *L, struct flow *flow, struct list *list, const char **s,
		       const char *end)
{
	struct buf *held = &flow->of.line;
	const char *newline = memchr(*s, '\n', (size_t)(end - *s));
	const char *stop = newline ? newline : end;
	if (buf_append(&flow->out, buf_head(held), buf_size(held)) == -1 ||
	    buf_append(&flow->out, *s, (size_t)(stop - *s)) == -1)
		raise_errno(L, "splitting lines");
	buf_consume(held, SIZE_MAX);
	const char *from = buf_head(&flow->out), *to = from + buf_size(&flow->out);
	if (newline != NULL) {
		list_add_line(list, from, to, lines_most(flow));
		*s = newline + 1;
		return false;
	}
	from = list_add_begun(list, from, to, lines_most(flow));
	if (buf_append(held, from, (size_t)(to - from)) == -1)
		raise_errno(L, "splitting lines");
	return true;
}

/* Lines that lie in the chunk as they are; the beginning of the last is held. */
static void lines_split(lua_State *L, struct flow *flow, struct list *list, const char *s,
			const char *end)
{
	struct buf *held = &flow->of.line;
	const char *newline;
	while ((newline = memchr(s, '\n', (size_t)(end - s))) != NULL) {
		list_add_line(list, s, newline, lines_most(flow));
		s = newline + 1;
	}
	s = list_add_begun(list, s, end, lines_most(flow));
	if (buf_append(held, s, (size_t)(end - s)) == -1)
		raise_errno(L, "splitting lines");
}

static int lines_feed(lua_State *L)
{
	size_t n;
	struct flow *flow = flow_check(L, &lines_type);
	const char *s = luaL_checklstring(L, 2, &n), *end = s + n;
	struct list list = {.L = L};
	lua_settop(L, 2);
	lua_newtable(L);
	lua_pushnil(L);
	if (buf_size(&flow->of.line) == 0 || !lines_join(L, flow, &list, &s, end))
		lines_split(L, flow, &list, s, end);
	if (flow->out.room > OUT_KEEP)
		buf_free(&flow->out);
	return 2;
}

static int lines_finish(lua_State *L)
{
	struct flow *flow = flow_check(L, &lines_type);
	struct buf *held = &flow->of.line;
	struct list list = {.L = L};
	lua_settop(L, 2);
	lua_newtable(L);
	lua_pushnil(L);
	if (buf_size(held) > 0)
		list_add_line(&list, buf_head(held), buf_head(held) + buf_size(held),
			      lines_most(flow));
	buf_consume(held, SIZE_MAX);
	return 2;
}

/* --- head and tail --- */

static int keep_add(lua_State *L);
static int keep_text(lua_State *L);
static int keep_dropped(lua_State *L);
static int keep_bytes(lua_State *L);
static const luaL_Reg keep_methods[] = {{"add", keep_add},
					{"text", keep_text},
					{"dropped", keep_dropped},
					{"bytes", keep_bytes},
					{NULL, NULL}};

static void keep_close(lua_State *L, void *box)
{
	text_keep_free(&((struct flow *)box)->of.keep);
	flow_close(L, box);
}

static const struct door_type keep_type = {.name = "worker.text.head_tail",
					   .methods = keep_methods,
					   .close = keep_close,
					   .state = flow_state};

static int core_head_tail(lua_State *L)
{
	size_t head = check_most(L, 1), tail = check_most(L, 2);
	text_keep_init(&flow_new(L, &keep_type)->of.keep, head, tail);
	return 1;
}

static int keep_add(lua_State *L)
{
	size_t n;
	struct flow *flow = flow_check(L, &keep_type);
	const char *s = luaL_checklstring(L, 2, &n);
	if (text_keep_add(&flow->of.keep, s, n) == -1)
		return raise_errno(L, "keeping output");
	return 0;
}

static int keep_text(lua_State *L)
{
	struct flow *flow = flow_check(L, &keep_type);
	if (text_keep_get(&flow->of.keep, &flow->out) == -1)
		return raise_errno(L, "keeping output");
	return push_out(L, flow);
}

static int keep_dropped(lua_State *L)
{
	uint64_t lines, bytes = text_keep_dropped(&flow_check(L, &keep_type)->of.keep, &lines);
	lua_pushinteger(L, (lua_Integer)bytes);
	lua_pushinteger(L, (lua_Integer)lines);
	return 2;
}

static int keep_bytes(lua_State *L)
{
	lua_pushinteger(L, (lua_Integer)flow_check(L, &keep_type)->of.keep.bytes);
	return 1;
}

/* --- digests --- */

static int sha_feed(lua_State *L);
static int sha_finish(lua_State *L);
static const luaL_Reg sha_methods[] = {{"feed", sha_feed}, {"finish", sha_finish}, {NULL, NULL}};
static const struct door_type sha_type = {.name = "worker.text.sha256",
					  .methods = sha_methods,
					  .close = flow_close,
					  .state = flow_state};

static int core_sha256(lua_State *L)
{
	sha256_start(&flow_new(L, &sha_type)->of.sha);
	return 1;
}

static int sha_feed(lua_State *L)
{
	size_t n;
	struct flow *flow = flow_check(L, &sha_type);
	const char *s = luaL_checklstring(L, 2, &n);
	sha256_feed(&flow->of.sha, s, n);
	return 0;
}

static int sha_finish(lua_State *L)
{
	unsigned char digest[SHA256_SIZE];
	struct flow *flow = flow_check(L, &sha_type);
	sha256_end(&flow->of.sha, digest);
	sha256_start(&flow->of.sha);
	lua_pushlstring(L, (const char *)digest, sizeof digest);
	return 1;
}

static const luaL_Reg functions[] = {
	{"mender", core_mender},
	{"stripper", core_stripper},
	{"folder", core_folder},
	{"lines", core_lines},
	{"head_tail", core_head_tail},
	{"sha256", core_sha256},
	{NULL, NULL},
};

int luaopen_worker_core_flow(lua_State *L)
{
	luaL_newlib(L, functions);
	return 1;
}
