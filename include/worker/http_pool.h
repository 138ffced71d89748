/* http_pool.h -- connections of our own that are kept for the next request.  Floor 3, with http.h.
 *
 * A connection belongs to one request at a time.  Between two it is kept, and watched: when the
 * server closes it, or says something nobody asked for, it is closed.
 */
#ifndef WORKER_HTTP_POOL_H
#define WORKER_HTTP_POOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "worker/http_place.h"
#include "worker/list.h"
#include "worker/loop.h"
#include "worker/sock.h"

struct http_pool {
	struct loop *loop;
	struct list kept; /* the one used last comes last */
	struct list gone; /* closed; freed when none of their callbacks can be running */
	struct loop_work sweep;
	size_t count;
	int64_t max_idle, max_age; /* ns; 0 is for ever */
};

struct http_conn {
	struct list link;
	struct http_pool *pool;
	struct sock sock;
	char host[HTTP_HOST];
	int port;
	int64_t born, since;
	bool used; /* has carried a request before */
};

void http_pool_open(struct http_pool *pool, struct loop *loop, int64_t max_idle, int64_t max_age);
void http_pool_close(struct http_pool *pool);

/* http_pool_new(pool, host, port): a connection whose sock is for the caller to open; NULL when
 * there is no memory. */
struct http_conn *http_pool_new(struct http_pool *pool, const char *host, int port);

/* http_pool_take(pool, host, port): a kept one, or NULL.  The caller looks whether it still stands:
 * its first read has to wait. */
struct http_conn *http_pool_take(struct http_pool *pool, const char *host, int port);

/* http_pool_keep(conn): done with it, and it can carry another request.
 * http_pool_drop(conn): close it; from anywhere, its own callbacks included. */
void http_pool_keep(struct http_conn *conn);
void http_pool_drop(struct http_conn *conn);

#endif
