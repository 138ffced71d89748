/* lua_http_plan.c -- requests that are asked again and again.  Floor 5.  See worker/lua_http.h.
 *
 *	client:plan{method=, url=, headers=, timeout=, ...} -> plan     sends nothing yet
 *	plan:exchange([body]) -> status, head, body                     waits for all of the answer
 *
 * An exchange that is cancelled is cut off, and so are those under way when the plan is closed.
 *What one needs while it waits is the plan's, which the waiting task's stack anchors, and is used
 *again by the next: there are as many as were ever under way at once.
 */
#include <stdlib.h>

#include "worker/door.h"
#include "worker/host.h"
#include "worker/http_check.h"
#include "worker/http_plan.h"
#include "worker/lua_http.h"
#include "worker/task.h"

struct exchange {
	struct exchange *next;	/* of all that the plan has */
	struct exchange *spare; /* of those that nobody uses */
	struct plan_box *owner;
	struct http_transfer *transfer;
	struct task_token token;
	bool waiting, woken;
};

struct plan_box {
	struct http_plan *plan;
	struct client_box *client; /* user value 1 */
	struct exchange *all, *spare;
};

/* --- one exchange --- */

static void exchange_end(struct exchange *exchange)
{
	if (exchange->transfer == NULL)
		return;
	http_free(exchange->transfer);
	exchange->transfer = NULL;
	host_count(exchange->owner->client->host, "http.transfer", -1);
}

static void exchange_give(struct exchange *exchange)
{
	exchange->waiting = false;
	if (exchange->owner->plan == NULL)
		return;
	exchange->spare = exchange->owner->spare;
	exchange->owner->spare = exchange;
}

/* NULL without memory.  One that raised while it told its answer still has it. */
static struct exchange *exchange_take(struct plan_box *box)
{
	struct exchange *exchange = box->spare;
	if (exchange != NULL) {
		box->spare = exchange->spare;
		exchange_end(exchange);
		return exchange;
	}
	exchange = calloc(1, sizeof *exchange);
	if (exchange == NULL)
		return NULL;
	exchange->owner = box;
	exchange->next = box->all;
	box->all = exchange;
	return exchange;
}

static int exchange_raise(lua_State *L, struct exchange *exchange)
{
	const struct http_reply *reply = http_reply(exchange->transfer);
	const struct err err = reply->err;
	enum http_reason reason = reply->reason;
	bool sent = reply->sent;
	exchange_end(exchange);
	return lua_http_raise(L, reason, exchange->owner->plan->label, sent, &err);
}

static int exchange_push(lua_State *L, void *arg)
{
	struct exchange *exchange = arg;
	exchange_give(exchange); /* first: pushing may raise */
	if (exchange->transfer == NULL)
		return luaL_error(L, "this HTTP request was closed");
	const struct http_reply *reply = http_reply(exchange->transfer);
	if (reply->reason != HTTP_FINE)
		return exchange_raise(L, exchange);
	lua_pushinteger(L, reply->status);
	lua_pushlstring(L, buf_head(&reply->head), buf_size(&reply->head));
	lua_pushlstring(L, buf_head(&reply->body), buf_size(&reply->body));
	exchange_end(exchange);
	return 3;
}

static void exchange_abort(void *arg)
{
	exchange_end(arg);
	exchange_give(arg);
}

/* From a callback of the loop, or from inside libcurl: record and wake. */
static void exchange_changed(void *arg)
{
	struct exchange *exchange = arg;
	if (!exchange->waiting || exchange->woken || !http_reply(exchange->transfer)->over)
		return;
	exchange->woken = true;
	task_wake(exchange->owner->client->host, exchange->token, exchange_push, exchange);
}

/* --- the plan's handle --- */

static const struct door_type *plan_type(void);

static void exchange_cut(struct exchange *exchange)
{
	exchange_end(exchange);
	if (!exchange->waiting || exchange->woken)
		return;
	exchange->woken = true;
	task_wake(exchange->owner->client->host, exchange->token, exchange_push, exchange);
}

/* Whoever waits still needs its exchange; that goes when the handle does, for which nobody waits.
 */
static void plan_close(lua_State *L, void *arg)
{
	struct plan_box *box = arg;
	struct exchange **at = &box->all, *exchange;
	(void)L;
	while ((exchange = *at) != NULL) {
		exchange_cut(exchange);
		if (exchange->waiting) {
			at = &exchange->next;
			continue;
		}
		*at = exchange->next;
		free(exchange);
	}
	box->spare = NULL;
	if (box->plan != NULL)
		http_plan_close(box->plan);
	box->plan = NULL;
}

static const char *plan_state(const void *arg)
{
	const struct plan_box *box = arg;
	return box->plan ? box->plan->label : "closed";
}

static int core_exchange(lua_State *L)
{
	struct plan_box *box = door_check(L, 1, plan_type());
	size_t size = 0;
	const char *body = NULL;
	if (!lua_isnoneornil(L, 2)) {
		luaL_checktype(L, 2, LUA_TSTRING);
		body = lua_tolstring(L, 2, &size);
	}
	luaL_argcheck(L, box->plan != NULL, 1, "this HTTP request is closed");
	luaL_argcheck(L, box->client->client != NULL, 1, "this HTTP client is closed");
	struct task_token token = task_token(L);
	struct exchange *exchange = exchange_take(box);
	if (exchange == NULL)
		return luaL_error(L, "out of memory");
	enum http_reason reason;
	struct err err;
	exchange->transfer =
		http_plan_start(box->plan, body, size, exchange_changed, exchange, &reason, &err);
	if (exchange->transfer == NULL) {
		exchange_give(exchange);
		return lua_http_raise(L, reason, box->plan->label, false, &err);
	}
	host_count(box->client->host, "http.transfer", +1);
	if (http_reply(exchange->transfer)->over)
		return exchange_push(L, exchange);
	exchange->woken = false;
	exchange->token = token;
	exchange->waiting = true;
	return task_park(L, token, exchange_abort, exchange);
}

static const struct door_type *plan_type(void)
{
	static const luaL_Reg methods[] = {{"exchange", core_exchange}, {NULL, NULL}};
	static const struct door_type type = {.name = "worker.http.plan",
					      .methods = methods,
					      .close = plan_close,
					      .state = plan_state};
	return &type;
}

int lua_http_plan(lua_State *L)
{
	struct client_box *client = lua_http_client(L, 1);
	luaL_checktype(L, 2, LUA_TTABLE);
	luaL_argcheck(L, client->client != NULL, 1, "this HTTP client is closed");
	struct plan_box *box = door_box_with(L, plan_type(), sizeof *box, 1);
	int handle = lua_gettop(L);
	lua_pushvalue(L, 1);
	lua_setiuservalue(L, handle, 1);
	box->client = client;
	struct http_request request;
	lua_http_request(L, 2, &request);
	luaL_argcheck(L, !request.stream && !request.patient, 2, "a plan is not for streams");
	enum http_reason reason;
	struct err err;
	box->plan = http_plan_open(client->client, &request, &reason, &err);
	if (box->plan == NULL) {
		char label[HTTP_LABEL];
		http_check_label(label, sizeof label, request.method, request.url);
		return lua_http_raise(L, reason, label, false, &err);
	}
	lua_settop(L, handle);
	return 1;
}
