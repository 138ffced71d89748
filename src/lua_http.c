/* lua_http.c -- the door to HTTP: worker.core.http.  Floor 5.
 *
 *	http.open{unix=, ca_file=, ...} -> client        client:close()
 *	client:start{method=, url=, headers={name, value, ...}, body= | file= | fed=true, ...}
 *	                                  -> transfer    begins; waits for nothing
 *	transfer:answer() -> status, head [, body]       waits: for the head; buffered: for all
 *	transfer:read() -> piece or nil                  streamed: the next bytes
 *	transfer:save(path) -> bytes                     streamed: all of it into a file
 *	transfer:write(piece) -> whether more is wanted  transfer:finish()   a fed request body
 *	transfer:close()                                 at any time; cuts off
 *	client:plan{...} -> plan                         see lua_http_plan.c
 *
 * One task waits per transfer.  Being cancelled while waiting only takes the wait back; what
 * becomes of the transfer is for whoever holds it (<close>) to say.  A piece of a request body is
 * sent from the Lua string itself, which the parked task's stack anchors; so a write that is
 * cancelled halfway ends the transfer.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "worker/clock.h"
#include "worker/door.h"
#include "worker/doors.h"
#include "worker/host.h"
#include "worker/http.h"
#include "worker/http_check.h"
#include "worker/http_client.h"
#include "worker/http_file.h"
#include "worker/http_plan.h"
#include "worker/lua_http.h"
#include "worker/task.h"

#define BODY_USUAL    (16.0 * 1024 * 1024)
#define HEAD_USUAL    (64 * 1024)
#define HEADERS_MOST  256
#define PIECE_MOST    ((size_t)256 * 1024)
#define TRANSFER_REFS 2 /* user values: the client, the body that is being sent */

struct transfer_box {
	struct http_transfer *transfer;
	struct host *host;
	struct http_file *file; /* what it is saved to, or NULL */
	int body_fd;		/* plus one: 0 is none */
	bool fed, stream;

	bool waiting; /* from the park until the task has run again: the answer still lies here */
	bool woken;
	struct task_token token;
	bool (*ready)(const struct transfer_box *box);
	task_push_fn *push;
};

/* --- the client --- */

static void client_close(lua_State *L, void *arg)
{
	(void)L;
	struct client_box *box = arg;
	if (box->client == NULL)
		return;
	http_client_close(box->client);
	box->client = NULL;
	host_count(box->host, "http.client", -1);
}

static const char *client_state(const void *arg)
{
	const struct client_box *box = arg;
	return box->client ? "open" : "closed";
}

static int core_start(lua_State *L);

static const struct door_type *client_type(void);

static int core_client_close(lua_State *L)
{
	client_close(L, door_check(L, 1, client_type()));
	return 0;
}

static const struct door_type *client_type(void)
{
	static const luaL_Reg methods[] = {{"start", core_start},
					   {"plan", lua_http_plan},
					   {"close", core_client_close},
					   {NULL, NULL}};
	static const struct door_type type = {.name = "worker.http.client",
					      .methods = methods,
					      .close = client_close,
					      .state = client_state};
	return &type;
}

struct client_box *lua_http_client(lua_State *L, int index)
{
	return door_check(L, index, client_type());
}

static int tls_version(lua_State *L)
{
	static const char *const names[] = {"1.0", "1.1", "1.2", "1.3"};
	const char *name = door_string(L, 1, "tls_min", NULL, "1.2");
	for (int i = 0; i < 4; i++)
		if (strcmp(name, names[i]) == 0)
			return 10 + i;
	return luaL_error(L, "field 'tls_min': expected \"1.2\" or \"1.3\", got \"%s\"", name);
}

static int core_open(lua_State *L)
{
	luaL_checktype(L, 1, LUA_TTABLE);
	const struct http_config config = {
		.unix_path = door_string(L, 1, "unix", NULL, NULL),
		.ca_file = door_string(L, 1, "ca_file", NULL, NULL),
		.ca_dir = door_string(L, 1, "ca_dir", NULL, NULL),
		.cert = door_string(L, 1, "cert", NULL, NULL),
		.key = door_string(L, 1, "key", NULL, NULL),
		.key_password = door_string(L, 1, "key_password", NULL, NULL),
		.tls_min = tls_version(L),
		.proxy_http = door_string(L, 1, "proxy_http", NULL, NULL),
		.proxy_https = door_string(L, 1, "proxy_https", NULL, NULL),
		.no_proxy = door_string(L, 1, "no_proxy", NULL, NULL),
		.user_agent = door_string(L, 1, "user_agent", NULL, NULL),
		.connect_timeout = door_seconds(L, 1, "connect_timeout", 10 * CLOCK_SECOND),
		.low_speed_bytes = (long)door_integer(L, 1, "low_speed_bytes", 0, 1 << 30, 0),
		.low_speed_time = door_seconds(L, 1, "low_speed_time", 0),
		.max_idle = door_seconds(L, 1, "max_idle", 90 * CLOCK_SECOND),
		.max_age = door_seconds(L, 1, "max_age", 0),
		.user_timeout = door_seconds(L, 1, "user_timeout", 60 * CLOCK_SECOND),
	};
	struct client_box *box = door_box(L, client_type(), sizeof *box);
	struct err err;
	box->host = host_of(L);
	box->client = http_client_open(host_loop(L), &config, &err);
	if (box->client == NULL)
		return door_raise(L, "config", &err);
	host_count(box->host, "http.client", +1);
	return 1;
}

/* --- waiting --- */

static void transfer_close(lua_State *L, void *arg);

static int raise_closed(lua_State *L)
{
	struct err err = {.text = "the HTTP transfer was closed while a task waited for it"};
	door_push_error(L, "transport", &err);
	lua_pushliteral(L, "closed");
	lua_setfield(L, -2, "reason");
	lua_pushboolean(L, 1);
	lua_setfield(L, -2, "sent");
	return lua_error(L);
}

static int transfer_result(lua_State *L, void *op)
{
	struct transfer_box *box = op;
	box->waiting = false;
	return box->transfer ? box->push(L, box) : raise_closed(L);
}

static void transfer_wake(struct transfer_box *box)
{
	if (!box->waiting || box->woken)
		return;
	box->woken = true;
	task_wake(box->host, box->token, transfer_result, box);
}

/* From a callback of the loop, or from inside libcurl: record and wake. */
static void transfer_changed(void *arg)
{
	struct transfer_box *box = arg;
	if (box->waiting && box->ready(box))
		transfer_wake(box);
}

static void transfer_abort(void *op)
{
	struct transfer_box *box = op;
	box->waiting = false;
}

/* The transfer holds on to the piece that the unwinding stack is about to give up. */
static void transfer_abort_write(void *op)
{
	struct transfer_box *box = op;
	box->waiting = false;
	transfer_close(NULL, box);
}

static int transfer_park(lua_State *L, struct transfer_box *box, struct task_token token,
			 bool (*ready)(const struct transfer_box *box), task_push_fn *push,
			 task_abort_fn *abort)
{
	if (ready(box))
		return push(L, box);
	box->token = token;
	box->ready = ready;
	box->push = push;
	box->waiting = true;
	box->woken = false;
	return task_park(L, token, abort, box);
}

/* --- the transfer's handle --- */

static void transfer_forget_file(struct transfer_box *box)
{
	if (box->file != NULL)
		http_file_discard(box->file);
	free(box->file);
	box->file = NULL;
}

static void transfer_close(lua_State *L, void *arg)
{
	(void)L;
	struct transfer_box *box = arg;
	if (box->body_fd > 0)
		close(box->body_fd - 1);
	box->body_fd = 0;
	if (box->transfer != NULL) {
		http_free(box->transfer);
		host_count(box->host, "http.transfer", -1);
	}
	box->transfer = NULL;
	transfer_forget_file(box);
	transfer_wake(box);
}

static const char *transfer_state(const void *arg)
{
	const struct transfer_box *box = arg;
	if (box->transfer == NULL)
		return "closed";
	const struct http_reply *reply = http_reply(box->transfer);
	if (reply->over)
		return reply->reason == HTTP_FINE ? "over" : "failed";
	return reply->answered ? "answered" : "waiting for the answer";
}

static const struct door_type *transfer_type(void);

static struct transfer_box *transfer_check(lua_State *L)
{
	struct transfer_box *box = door_check(L, 1, transfer_type());
	if (box->transfer == NULL)
		luaL_argerror(L, 1, "this HTTP transfer is closed");
	if (box->waiting)
		luaL_argerror(L, 1, "another task is waiting for this HTTP transfer");
	return box;
}

/* --- errors --- */

static const char *error_kind(enum http_reason reason)
{
	switch (reason) {
	case HTTP_URL:
		return "config";
	case HTTP_FILE:
	case HTTP_MEMORY:
		return "limit";
	default:
		return "transport";
	}
}

static const char *error_hint(enum http_reason reason, const char *text)
{
	if (reason == HTTP_TLS && strstr(text, "certificate problem") != NULL)
		return " (if the server's CA is your own, name it with ca_file or ca_dir)";
	return "";
}

int lua_http_raise(lua_State *L, enum http_reason reason, const char *label, bool sent,
		   const struct err *err)
{
	door_push_error(L, error_kind(reason), err);
	lua_pushfstring(L, "%s: %s%s", label, err->text, error_hint(reason, err->text));
	lua_setfield(L, -2, "message");
	lua_pushstring(L, http_check_word(reason));
	lua_setfield(L, -2, "reason");
	lua_pushboolean(L, sent);
	lua_setfield(L, -2, "sent");
	return lua_error(L);
}

static int raise_reply(lua_State *L, const struct transfer_box *box)
{
	const struct http_reply *reply = http_reply(box->transfer);
	return lua_http_raise(L, reply->reason, http_label(box->transfer), reply->sent,
			      &reply->err);
}

/* --- beginning --- */

/* {name, value, name, value ...} into scratch memory; the strings stay the table's. */
static void read_headers(lua_State *L, int index, struct http_request *request)
{
	if (lua_getfield(L, index, "headers") == LUA_TNIL)
		return;
	luaL_checktype(L, -1, LUA_TTABLE);
	size_t count = lua_rawlen(L, -1) / 2;
	if (count > HEADERS_MOST)
		luaL_error(L, "%d headers are too many", (int)count);
	int at = lua_gettop(L);
	struct http_header *headers = door_scratch(L, (count + 1) * sizeof *headers);
	for (size_t i = 0; i < count; i++) {
		lua_rawgeti(L, at, (lua_Integer)(2 * i + 1));
		lua_rawgeti(L, at, (lua_Integer)(2 * i + 2));
		if (lua_type(L, -2) != LUA_TSTRING || lua_type(L, -1) != LUA_TSTRING)
			luaL_error(L, "header %d: name and value must be strings", (int)i + 1);
		headers[i].name = lua_tolstring(L, -2, &headers[i].name_size);
		headers[i].value = lua_tolstring(L, -1, &headers[i].value_size);
		lua_pop(L, 2);
	}
	request->headers = headers;
	request->header_count = count;
}

static void check_zero(lua_State *L, const char *key, const char *text, size_t n)
{
	if (strlen(text) != n)
		luaL_error(L, "field '%s': has a zero byte", key);
}

void lua_http_request(lua_State *L, int index, struct http_request *request)
{
	size_t method_size, url_size;
	*request = (struct http_request){
		.method = door_string(L, index, "method", &method_size, "GET"),
		.url = door_string(L, index, "url", &url_size, ""),
		.timeout = door_seconds(L, index, "timeout", 30 * CLOCK_SECOND),
		.stream = door_bool(L, index, "stream", false),
		.patient = door_bool(L, index, "patient", false),
		.max_head = (size_t)door_integer(L, index, "max_head", 1, 1 << 24, HEAD_USUAL),
	};
	check_zero(L, "method", request->method, method_size);
	check_zero(L, "url", request->url, url_size);
	lua_Number usual = request->stream ? 0 : BODY_USUAL;
	request->max_body =
		(uint64_t)door_number(L, index, "max_body", request->stream ? 0 : 1, 1e15, usual);
	read_headers(L, index, request);
}

static int open_body_file(const char *path, struct http_request *request, struct err *err)
{
	struct stat st;
	request->body_fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (request->body_fd == -1)
		return err_errno(err, "open %s", path);
	if (fstat(request->body_fd, &st) == -1 || !S_ISREG(st.st_mode)) {
		close(request->body_fd);
		return err_set(err, EINVAL, "%s is not a regular file", path);
	}
	request->body_length = st.st_size;
	return 0;
}

/* Opens a file last of all: nothing may raise once it is open, until the box has it. */
static void read_body(lua_State *L, struct transfer_box *box, struct http_request *request,
		      const char *label)
{
	const char *file = door_string(L, 2, "file", NULL, NULL);
	request->body = door_string(L, 2, "body", &request->body_size, NULL);
	request->body_length = door_integer(L, 2, "length", -1, INT64_MAX, -1);
	box->fed = door_bool(L, 2, "fed", false);
	if (file != NULL) {
		struct err err;
		request->upload = HTTP_FROM_FILE;
		if (open_body_file(file, request, &err) == -1)
			lua_http_raise(L, HTTP_FILE, label, false, &err);
		box->body_fd = request->body_fd + 1;
	} else if (box->fed) {
		request->upload = HTTP_FED;
	} else if (request->body != NULL) {
		request->upload = HTTP_BYTES;
	}
}

/* All that may raise comes before the transfer is started; its box is there, closed, from the
 * beginning. */
static int core_start(lua_State *L)
{
	struct client_box *client = door_check(L, 1, client_type());
	luaL_checktype(L, 2, LUA_TTABLE);
	luaL_argcheck(L, client->client != NULL, 1, "this HTTP client is closed");
	struct transfer_box *box = door_box_with(L, transfer_type(), sizeof *box, TRANSFER_REFS);
	int handle = lua_gettop(L);
	lua_pushvalue(L, 1);
	lua_setiuservalue(L, handle, 1);
	lua_getfield(L, 2, "body"); /* sent from the string itself */
	lua_setiuservalue(L, handle, 2);
	struct http_request request;
	lua_http_request(L, 2, &request);
	request.changed = transfer_changed;
	request.arg = box;
	char label[HTTP_LABEL];
	http_check_label(label, sizeof label, request.method, request.url);
	box->host = host_of(L);
	box->stream = request.stream;
	read_body(L, box, &request, label);
	enum http_reason reason;
	struct err err;
	box->transfer = http_start(client->client, &request, &reason, &err);
	if (box->transfer == NULL)
		return lua_http_raise(L, reason, label, false, &err);
	host_count(box->host, "http.transfer", +1);
	lua_settop(L, handle);
	return 1;
}

/* --- the answer --- */

static bool answer_ready(const struct transfer_box *box)
{
	const struct http_reply *reply = http_reply(box->transfer);
	return reply->over || (box->stream && reply->answered);
}

/* A stream that broke after its head: read() hands out what came, and then fails. */
static int answer_push(lua_State *L, void *arg)
{
	const struct transfer_box *box = arg;
	const struct http_reply *reply = http_reply(box->transfer);
	if (reply->reason != HTTP_FINE && !(box->stream && reply->answered))
		return raise_reply(L, box);
	lua_pushinteger(L, reply->status);
	lua_pushlstring(L, buf_head(&reply->head), buf_size(&reply->head));
	if (box->stream)
		return 2;
	lua_pushlstring(L, buf_head(&reply->body), buf_size(&reply->body));
	return 3;
}

static int core_answer(lua_State *L)
{
	struct transfer_box *box = transfer_check(L);
	return transfer_park(L, box, task_token(L), answer_ready, answer_push, transfer_abort);
}

/* --- reading piece by piece --- */

static bool read_ready(const struct transfer_box *box)
{
	const struct http_reply *reply = http_reply(box->transfer);
	return reply->over || buf_size(&reply->body) > 0;
}

/* What came before a failure is handed out first, then the failure is raised. */
static int read_push(lua_State *L, void *arg)
{
	struct transfer_box *box = arg;
	const struct http_reply *reply = http_reply(box->transfer);
	size_t n = buf_size(&reply->body);
	if (n == 0 && reply->reason != HTTP_FINE)
		return raise_reply(L, box);
	if (n == 0) {
		lua_pushnil(L);
		return 1;
	}
	n = n < PIECE_MOST ? n : PIECE_MOST;
	lua_pushlstring(L, buf_head(&reply->body), n);
	http_take(box->transfer, n);
	return 1;
}

static int core_read(lua_State *L)
{
	struct transfer_box *box = transfer_check(L);
	luaL_argcheck(L, box->stream, 1, "this HTTP transfer is not streamed");
	return transfer_park(L, box, task_token(L), read_ready, read_push, transfer_abort);
}

/* --- saving to a file --- */

static bool save_ready(const struct transfer_box *box)
{
	return http_reply(box->transfer)->over;
}

/* The file takes its name here, in the task, and not in the callback that saw the last byte: this
 * may fail, and somebody must hear of it. */
static int save_push(lua_State *L, void *arg)
{
	struct transfer_box *box = arg;
	const struct http_reply *reply = http_reply(box->transfer);
	if (reply->reason != HTTP_FINE) {
		transfer_forget_file(box);
		return raise_reply(L, box);
	}
	struct err err;
	int committed = http_file_commit(box->file, &err);
	transfer_forget_file(box);
	if (committed == -1)
		return lua_http_raise(L, HTTP_FILE, http_label(box->transfer), true, &err);
	lua_pushinteger(L, (lua_Integer)reply->received);
	return 1;
}

static int core_save(lua_State *L)
{
	struct transfer_box *box = transfer_check(L);
	const char *path = luaL_checkstring(L, 2);
	struct err err;
	luaL_argcheck(L, box->stream && box->file == NULL && http_reply(box->transfer)->answered, 1,
		      "only a streamed and answered HTTP transfer can be saved, and once");
	struct task_token token = task_token(L); /* raises before a file is there */
	box->file = calloc(1, sizeof *box->file);
	if (box->file == NULL)
		return luaL_error(L, "out of memory");
	if (http_file_open(box->file, path, &err) == -1) {
		transfer_forget_file(box);
		return lua_http_raise(L, HTTP_FILE, http_label(box->transfer), true, &err);
	}
	http_save(box->transfer, box->file->fd);
	return transfer_park(L, box, token, save_ready, save_push, transfer_abort);
}

/* --- a request body in pieces --- */

static bool write_ready(const struct transfer_box *box)
{
	return http_fed(box->transfer);
}

/* Over while there is more to send: the server answered early, or it failed.  Either way the answer
 * tells. */
static int write_push(lua_State *L, void *arg)
{
	const struct transfer_box *box = arg;
	lua_pushboolean(L, !http_reply(box->transfer)->over);
	return 1;
}

static int core_write(lua_State *L)
{
	struct transfer_box *box = transfer_check(L);
	size_t n;
	const char *piece = luaL_checklstring(L, 2, &n);
	luaL_argcheck(L, box->fed, 1, "the request body of this HTTP transfer is not fed");
	struct task_token token = task_token(L);
	if (n > 0)
		http_feed(box->transfer, piece, n);
	return transfer_park(L, box, token, write_ready, write_push, transfer_abort_write);
}

static int core_finish(lua_State *L)
{
	struct transfer_box *box = transfer_check(L);
	luaL_argcheck(L, box->fed, 1, "the request body of this HTTP transfer is not fed");
	http_feed_end(box->transfer);
	return 0;
}

static int core_transfer_close(lua_State *L)
{
	transfer_close(L, door_check(L, 1, transfer_type()));
	return 0;
}

static const struct door_type *transfer_type(void)
{
	static const luaL_Reg methods[] = {{"answer", core_answer},
					   {"read", core_read},
					   {"save", core_save},
					   {"write", core_write},
					   {"finish", core_finish},
					   {"close", core_transfer_close},
					   {NULL, NULL}};
	static const struct door_type type = {.name = "worker.http.transfer",
					      .methods = methods,
					      .close = transfer_close,
					      .state = transfer_state};
	return &type;
}

/* --- module --- */

int luaopen_worker_core_http(lua_State *L)
{
	static const luaL_Reg functions[] = {{"open", core_open}, {NULL, NULL}};
	luaL_newlib(L, functions);
	return 1;
}
