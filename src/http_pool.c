/* http_pool.c -- connections of our own that are kept for the next request.  Floor 3.
 *
 * See worker/http_pool.h.  Age is looked at when one is wanted or given back, so that an idle
 * worker has no timer to wake up for.
 */
#include "worker/http_pool.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "worker/clock.h"

#define POOL_KEPT 64

static void pool_free_gone(struct http_pool *pool)
{
	struct list *node;
	while ((node = list_shift(&pool->gone)) != NULL)
		free(container_of(node, struct http_conn, link));
}

static void pool_sweep(void *arg)
{
	pool_free_gone(arg);
}

static void pool_uncount(struct http_conn *conn)
{
	if (!list_linked(&conn->link))
		return;
	list_remove(&conn->link);
	conn->pool->count--;
}

void http_pool_drop(struct http_conn *conn)
{
	struct http_pool *pool = conn->pool;
	pool_uncount(conn);
	sock_stop(&conn->sock, &conn->sock.reader);
	sock_stop(&conn->sock, &conn->sock.writer);
	sock_close(&conn->sock);
	list_append(&pool->gone, &conn->link);
	loop_defer(pool->loop, &pool->sweep, pool_sweep, pool);
}

void http_pool_open(struct http_pool *pool, struct loop *loop, int64_t max_idle, int64_t max_age)
{
	*pool = (struct http_pool){.loop = loop, .max_idle = max_idle, .max_age = max_age};
	list_init(&pool->kept);
	list_init(&pool->gone);
}

void http_pool_close(struct http_pool *pool)
{
	while (!list_empty(&pool->kept))
		http_pool_drop(container_of(pool->kept.next, struct http_conn, link));
	loop_defer_cancel(&pool->sweep);
	pool_free_gone(pool);
}

struct http_conn *http_pool_new(struct http_pool *pool, const char *host, int port)
{
	struct http_conn *conn = calloc(1, sizeof *conn);
	if (conn == NULL)
		return NULL;
	conn->pool = pool;
	conn->port = port;
	conn->born = clock_mono();
	strncpy(conn->host, host, sizeof conn->host - 1);
	return conn;
}

static bool pool_is_too_much(const struct http_pool *pool, const struct http_conn *conn,
			     int64_t now)
{
	return pool->count > POOL_KEPT ||
	       (pool->max_idle > 0 && now - conn->since >= pool->max_idle);
}

static bool pool_is_aged(const struct http_pool *pool, const struct http_conn *conn, int64_t now)
{
	return pool->max_age > 0 && now - conn->born >= pool->max_age;
}

/* The list is in the order of use: what lies at its beginning has lain longest, and where that may
 * stay, so may the rest, if only for its age. */
static void pool_drop_old(struct http_pool *pool, int64_t now)
{
	struct list *node = pool->kept.next;
	while (node != &pool->kept) {
		struct http_conn *conn = container_of(node, struct http_conn, link);
		bool too_much = pool_is_too_much(pool, conn, now);
		node = node->next;
		if (too_much || pool_is_aged(pool, conn, now))
			http_pool_drop(conn);
		else if (pool->max_age == 0)
			return;
	}
}

struct http_conn *http_pool_take(struct http_pool *pool, const char *host, int port)
{
	pool_drop_old(pool, clock_mono());
	for (struct list *node = pool->kept.prev; node != &pool->kept; node = node->prev) {
		struct http_conn *conn = container_of(node, struct http_conn, link);
		if (conn->port != port || strcasecmp(conn->host, host) != 0)
			continue;
		pool_uncount(conn);
		sock_stop(&conn->sock, &conn->sock.reader);
		return conn;
	}
	return NULL;
}

static void pool_heard(void *arg)
{
	http_pool_drop(arg);
}

void http_pool_keep(struct http_conn *conn)
{
	struct http_pool *pool = conn->pool;
	conn->used = true;
	conn->since = clock_mono();
	list_append(&pool->kept, &conn->link);
	pool->count++;
	sock_await(&conn->sock, pool_heard, conn);
	pool_drop_old(pool, conn->since);
}
